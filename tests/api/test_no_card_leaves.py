"""A card's number and CVC are in no answer, no log line, no metric and no table; nor is a key."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.sql import SQL, Identifier

from tests.api.a_server import Received, Server
from tests.api.an_api import GOOD_CARD, Api, Caller, an_api, an_authorization, fresh
from tests.builders import EMPTY_MASTERCARD, EXPIRED_MASTERCARD, UNKNOWN_VISA, VISA
from tests.infrastructure.bank_simulator.a_bank import Bank

CVC: Final = "8437"
WRONG_CHECK_DIGIT: Final = "4111111111111112"
NUMBERS: Final = (VISA, EMPTY_MASTERCARD, EXPIRED_MASTERCARD, UNKNOWN_VISA, WRONG_CHECK_DIGIT)
CARDS: Final[tuple[dict[str, Any], ...]] = tuple(
    GOOD_CARD | {"number": number, "cvc": CVC} for number in NUMBERS
)
TABLES: Final = """
    SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'
"""
ACCOUNT_NUMBER: Final = "70872490"
HOLDER: Final = "Zebedee Quartermaine"
ACCOUNT: Final = {
    "account_number": ACCOUNT_NUMBER,
    "sort_code": "40-47-84",
    "account_holder_name": HOLDER,
}
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LONE_CVC: Final = re.compile(rf"(?<![0-9A-Za-z]){CVC}(?![0-9A-Za-z])")


@pytest.fixture
def told(server: tuple[Server, Api], simulator: Bank) -> list[Received]:
    """Every answer to a day of payments and mistakes."""
    return list(a_day(server[0], key_of(server[1].merchant())))


def key_of(merchant: Caller) -> str:
    assert merchant.key is not None
    return merchant.key


def a_day(real: Server, key: str) -> Iterator[Received]:
    """Payments that go well, that are declined, that are wrong, and cards where none belong."""

    def post(path: str, body: object, **headers: str) -> Received:
        return real.post(path, body, key, fresh("key"), **headers)

    good = post("/v1/authorizations", an_authorization())
    yield good
    yield post("/v1/captures", {"payment_id": good.json["payment_id"]})
    yield real.request("GET", good.headers["location"], headers={"Authorization": f"Bearer {key}"})
    yield post("/v1/payments", a_payment({"type": "bank_transfer", "bank_account": ACCOUNT}))
    yield post("/v1/payments", a_payment({"type": "card", "bank_account": ACCOUNT}))
    yield post("/v1/payments", a_payment({"type": "bank_transfer", "number": ACCOUNT_NUMBER}))
    yield post("/v1/payments", a_payment({"type": HOLDER, "token": ACCOUNT_NUMBER}))
    for card in CARDS:
        yield post("/v1/authorizations", an_authorization(card=card))
        yield post("/v1/authorizations", an_authorization(card=card | {"exp_month": 13}))
        yield post("/v1/authorizations", an_authorization(card=card | {"number": [card["number"]]}))
        yield post("/v1/authorizations", an_authorization(card=card["number"]))
        yield post("/v1/authorizations", an_authorization() | {card["number"]: CVC})
        yield post("/v1/authorizations", card["number"])
        yield post("/v1/captures", {"payment_id": card["number"]})
        yield post("/v1/voids", {"payment_id": "pay_" + card["number"], "amount": CVC})
        yield from as_what_it_is_not(real, key, an_authorization(card=card))
        yield post("/v1/payments", a_payment({"type": "card", **card}))
        yield post("/v1/payments", a_payment({"type": "card", "token": card["number"]}))
        yield post("/v1/payments", a_payment({"type": card["number"], "token": CVC}))
        yield post("/v1/tokens", {"card": card})
        yield post("/v1/tokens", {"card": card | {"exp_month": 13}})
        yield real.request("GET", f"/v1/payments/{card['number']}", headers=bearer(key))
        yield real.request("GET", f"/v1/receipts/{card['number']}", headers=bearer(key))
        yield real.request("GET", f"/v1/receipts?{card['number']}={CVC}", headers=bearer(key))
        yield real.request("GET", f"/v1/receipts?status={card['number']}", headers=bearer(key))
        yield real.request("GET", "/v1/receipts", headers=bearer(card["number"]))
        yield real.request("GET", "/x", headers={"User-Agent": f"card {card['number']}"})


def a_payment(source: dict[str, Any]) -> dict[str, Any]:
    return {"amount": 5000, "currency": "usd", "source": source}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def as_what_it_is_not(real: Server, key: str, body: dict[str, Any]) -> Iterator[Received]:
    """JSON as a form, a form as JSON, JSON with something wrong at its end, brackets astray."""
    text, form = json.dumps(body), urlencode({"card": body["card"]})
    pieces = {
        "application/x-www-form-urlencoded": (
            text,
            f"[{text}",
            f"a={text}",
            text.replace(":", "="),
            f"card[{body['card']['number']}][cvc][{CVC}]=1",
            f"card[number]={body['card']['number']}&card[number]={body['card']['number']}",
        ),
        "application/json": (form, text[:-1], text + "x", f'{{"{text[2:40]}": 1, "x": 1, "x": 2}}'),
        "text/plain": (text,),
    }
    for kind, bodies in pieces.items():
        for one in bodies:
            headers = {**bearer(key), "Content-Type": kind, "Idempotency-Key": fresh("key")}
            yield real.request("POST", "/v1/authorizations", one.encode(), headers)


def found_in(text: str) -> list[str]:
    numbers = [number for number in NUMBERS if number in re.sub(r"(?<=\d)[ -](?=\d)", "", text)]
    accounts = [secret for secret in (ACCOUNT_NUMBER, HOLDER) if secret in text]
    codes = LONE_CVC.findall(UUID.sub("", text))  # one may be in an id by chance
    return numbers + accounts + codes


def test_no_answer_tells_a_card(told: list[Received]) -> None:
    assert len(told) > 100
    for received in told:
        assert received.status < 500, received.text
        assert found_in(received.text) == []
        assert found_in(json.dumps(dict(received.headers))) == []


def test_no_line_of_the_log_tells_a_card_or_a_key(
    server: tuple[Server, Api], simulator: Bank
) -> None:
    real, api = server
    key, said_before = key_of(api.merchant()), len(real.log())

    told = list(a_day(real, key))
    real.request("GET", "/v1/receipts", headers=bearer(key + "x"))

    lines = real.log()[said_before:].splitlines()
    assert len(lines) > len(told)
    assert [line for line in lines if set(found_in(line)) - {WRONG_CHECK_DIGIT}] == []
    assert [line for line in lines if key in line] == []


@pytest.mark.parametrize("before", ["", "x", "_", "/"])
def test_a_number_in_a_path_is_struck_out_of_the_log_whatever_is_beside_it(
    server: tuple[Server, Api], before: str
) -> None:
    real, api = server
    path = f"/v1/orders/{urlencode({'': before})[1:]}{VISA}{urlencode({'': before})[1:]}"

    received = real.request("GET", path, headers=bearer(key_of(api.merchant())))

    assert found_in(real.log_line(received.headers["request-id"])["path"]) == []


def test_no_metric_tells_a_card(server: tuple[Server, Api], told: list[Received]) -> None:
    families = text_string_to_metric_families(server[0].request("GET", "/metrics").text)

    labels = [
        value
        for family in families
        for sample in family.samples
        for name, value in sample.labels.items()
        if name != "pid"
    ]
    assert told
    assert labels
    assert found_in("\n".join(labels)) == []


def test_no_row_of_any_table_tells_a_card_or_a_key(
    server: tuple[Server, Api], told: list[Received]
) -> None:
    api, merchant = server[1], server[1].merchant()
    key = key_of(merchant)
    merchant.get("/v1/receipts")
    assert told

    rows = [row for table in tables_of(api) for row in rows_of(api, table)]

    assert len(rows) > 10
    assert [row for row in rows if found_in(row) or key in row] == []


def tables_of(api: Api) -> list[str]:
    with api.services.pool.connection() as connection:
        return [row["name"] for row in connection.execute(TABLES)]


def rows_of(api: Api, table: str) -> list[str]:
    """Each row as text, its bytes as what they spell."""
    with api.services.pool.connection() as connection:
        rows = connection.execute(SQL("SELECT * FROM {}").format(Identifier(table))).fetchall()
    return ["\n".join(spelled(value) for value in row.values()) for row in rows]


def spelled(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def test_no_row_of_any_table_tells_an_account_or_a_tokens_card(
    database_url: str, extended_simulator: Bank
) -> None:
    """While it is kept it is encrypted; who holds a stored account is kept apart, in one place."""
    url = f"http://127.0.0.1:{extended_simulator.port}"
    with an_api(database_url, BANK_URL=url, BANK_PROFILE="extended") as api:
        check_that_no_row_tells(api)


def check_that_no_row_tells(api: Api) -> None:
    merchant = api.merchant()
    transfer = a_payment({"type": "bank_transfer", "bank_account": ACCOUNT})
    method = {
        "type": "bacs_debit",
        "bacs_debit": {"account_number": ACCOUNT_NUMBER, "sort_code": "404784"},
        "billing_details": {"name": HOLDER},
    }
    answers = [
        merchant.post("/v1/payments", transfer),
        merchant.post("/v1/payment_methods", method, key=None),  # kept answers are kept for a day
        merchant.post("/v1/tokens", {"card": GOOD_CARD | {"cvc": CVC}}),
    ]

    waiting = {table: found_in_table(api, table) for table in tables_of(api)}
    api.worker_has_been_at_it(merchant)
    after = {table: found_in_table(api, table) for table in tables_of(api)}

    assert [each.status_code for each in answers] == [201, 201, 201]
    kept_apart = {"personal_data": [HOLDER]}
    assert {table: found for table, found in waiting.items() if found} == kept_apart
    assert {table: found for table, found in after.items() if found} == kept_apart
    assert found_in(answers[0].text + answers[2].text) == []


def found_in_table(api: Api, table: str) -> list[str]:
    return [secret for row in rows_of(api, table) for secret in found_in(row)]

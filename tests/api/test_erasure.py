"""Who deleted customers were is nowhere: not in a table, not in an answer that is kept, not in an event."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import sql

from api.app import create_app
from domain.commands import Cause
from infrastructure.clock import SystemClock
from infrastructure.erasure import Erasure
from infrastructure.personal_data import redacted
from tests.api.an_api import EMPTY_CARD, GOOD_CARD, THREADS, Api, Caller, an_api, error_of, json_of
from tests.api.conftest import NOWHERE
from tests.fakes import FakeBank

TABLES: LiteralString = """
    SELECT schemaname, tablename FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
LOG: LiteralString = "SELECT * FROM events ORDER BY recorded_at, shard, position"
DUE: LiteralString = "UPDATE erasures SET due_at = clock_timestamp()"
ONE_THAT_FAILS: LiteralString = """
    INSERT INTO erasures (shard, customer_id, merchant_id, mode, due_at)
    VALUES (0, gen_random_uuid(), 'nobody', 'neither', '-infinity')
"""

NAME: Final = "Ada Quisling-Lovelace"
EMAIL: Final = "ada.quisling@example.com"
PHONE: Final = "+44 7700 900555"
STREET: Final = "12 St James's Square"
OF_HER: Final = (NAME, EMAIL, PHONE, STREET)
ADDRESS: Final = {"line1": STREET, "city": "London", "country": "GB"}
HERSELF: Final = {"name": NAME, "email": EMAIL, "phone": PHONE, "address": ADDRESS}


@pytest.fixture
def alone(database_url: str, bank: FakeBank) -> Iterator[Api]:
    """A database with nobody else in it."""
    with an_api(database_url, BANK_URL=NOWHERE) as api, api.asking(bank):
        yield api


def whole_database(api: Api) -> str:
    """All rows of all tables, as text."""
    with psycopg.connect(api.services.settings.database_url or "") as connection:
        names = [sql.Identifier(*each) for each in connection.execute(TABLES).fetchall()]
        return "\n".join(
            row[0]
            for name in names
            for row in connection.execute(sql.SQL("SELECT t::text FROM {} AS t").format(name))
        )


def found_in(database: str, *texts: str) -> set[str]:
    """Which of these are there, in clear or in the bytes of a column."""
    return {each for each in texts if each in database or each.encode().hex() in database}


def logged(api: Api) -> list[dict[str, Any]]:
    """The log as it was recorded, with the hash that chains it."""
    with api.services.pool.connection() as connection:
        return connection.execute(LOG).fetchall()


def sealed_cards(api: Api) -> list[str]:
    with api.services.pool.connection() as connection:
        rows = connection.execute("SELECT sealed_number, sealed_cvc FROM stored_cards").fetchall()
    return [bytes(each).hex() for row in rows for each in row.values() if each is not None]


def a_method(merchant: Caller) -> str:
    card = {"type": "card", "card": GOOD_CARD, "billing_details": HERSELF}
    return str(json_of(merchant.post("/v1/payment_methods", card))["id"])


def an_intent(merchant: Caller, **fields: Any) -> dict[str, Any]:
    body = {"amount": 1000, "currency": "usd", "expand": ["customer"], **fields}
    answer: dict[str, Any] = json_of(merchant.post("/v1/payment_intents", body))
    assert "error" not in answer, answer
    return answer


def a_customer_of_many_traces(merchant: Caller) -> str:
    """Everything that may be said of somebody, said."""
    customer = json_of(merchant.post("/v1/customers", HERSELF, key="made"))["id"]
    kept, dropped, used = (a_method(merchant) for _ in range(3))
    for method in (kept, dropped):
        merchant.post(
            f"/v1/payment_methods/{method}/attach", {"customer": customer, "expand": ["customer"]}
        )
    merchant.post(f"/v1/payment_methods/{dropped}/detach")
    merchant.patch(f"/v1/customers/{customer}", {"metadata": {"tier": "gold"}})
    shipping = {"name": NAME, "phone": PHONE, "address": ADDRESS}
    said = {"receipt_email": EMAIL, "shipping": shipping, "customer": customer}
    paid = an_intent(merchant, **said, payment_method=kept, confirm=True)
    merchant.post("/v1/refunds", {"charge": paid["latest_charge"]})
    an_intent(merchant, **said, payment_method=used, confirm=True)
    data = {"type": "card", "card": GOOD_CARD, "billing_details": HERSELF}
    an_intent(merchant, **said, payment_method_data=data)
    given_away = an_intent(merchant, **said)["id"]
    other = json_of(merchant.post("/v1/customers", {"name": "Charles"}))["id"]
    anew = {"customer": other, "receipt_email": "", "shipping": ""}
    assert merchant.post(f"/v1/payment_intents/{given_away}", anew).status_code == 200
    return str(customer)


def test_of_a_deleted_customer_nothing_is_left_in_the_whole_database(alone: Api) -> None:
    merchant = alone.merchant()
    customer = a_customer_of_many_traces(merchant)
    before, cards, log = whole_database(alone), sealed_cards(alone), logged(alone)
    assert found_in(before, *OF_HER, *cards) == {*OF_HER, *cards}
    assert len(cards) >= 3

    gone = merchant.request("DELETE", f"/v1/customers/{customer}")

    assert gone.status_code == 204
    assert found_in(whole_database(alone), *OF_HER, *cards) == set()
    assert sealed_cards(alone) == []
    assert len(json_of(merchant.get(f"/v1/payment_intents?customer={customer}"))["data"]) == 3
    assert len(json_of(merchant.get(f"/v1/receipts?customer_id={customer}"))["data"]) == 2
    assert logged(alone)[: len(log)] == log
    told = merchant.get("/v1/events?limit=100").text
    assert found_in(told, *OF_HER) == set()
    assert "customer.deleted" in told


def test_her_answers_are_replayed_without_her(alone: Api) -> None:
    merchant = alone.merchant()
    first = json_of(merchant.post("/v1/customers", HERSELF, key="made"))

    merchant.request("DELETE", f"/v1/customers/{first['id']}")

    again = merchant.post("/v1/customers", HERSELF, key="made")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    nothing = dict.fromkeys(("name", "email", "phone"))
    assert json_of(again) == first | nothing | {"address": dict.fromkeys(first["address"])}


def test_what_was_written_meanwhile_is_erased_by_a_worker(alone: Api) -> None:
    merchant = alone.merchant()
    customer = json_of(merchant.post("/v1/customers", HERSELF))["id"]
    intent = an_intent(merchant, customer=customer)["id"]
    merchant.request("DELETE", f"/v1/customers/{customer}")
    merchant.post(f"/v1/payment_intents/{intent}", {"receipt_email": EMAIL})
    assert found_in(whole_database(alone), EMAIL) == {EMAIL}

    alone.execute(DUE)
    erased = alone.services.erasure.carry_out_due(Cause(actor="worker"))

    assert erased == 1
    assert found_in(whole_database(alone), EMAIL) == set()
    assert alone.services.erasure.carry_out_due(Cause(actor="worker")) == 0


def test_anothers_data_stays(alone: Api) -> None:
    merchant = alone.merchant()
    ada, bob = (
        json_of(merchant.post("/v1/customers", {**HERSELF, "email": email}))["id"]
        for email in (EMAIL, "bob@example.com")
    )
    method = a_method(merchant)
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": bob})

    merchant.request("DELETE", f"/v1/customers/{ada}")

    assert json_of(merchant.get(f"/v1/customers/{bob}"))["name"] == NAME
    of_bob = json_of(merchant.get(f"/v1/payment_methods/{method}"))
    assert of_bob["billing_details"]["email"] == EMAIL


def test_an_intent_that_was_given_to_another_is_the_others(alone: Api) -> None:
    merchant = alone.merchant()
    ada, bob = (json_of(merchant.post("/v1/customers", {}))["id"] for _ in range(2))
    refused = {"type": "card", "card": EMPTY_CARD}
    intents = [_an_intent_that_was_declined(merchant, ada, refused) for _ in range(2)]
    for intent, whose in zip(intents, (bob, ""), strict=True):
        anew = {"customer": whose, "receipt_email": f"of.{whose or 'nobody'}@example.com"}
        assert merchant.post(f"/v1/payment_intents/{intent}", anew).status_code == 200

    merchant.request("DELETE", f"/v1/customers/{ada}")

    told = [json_of(merchant.get(f"/v1/payment_intents/{each}")) for each in intents]
    assert [each["receipt_email"] for each in told] == [f"of.{bob}@example.com", None]


def _an_intent_that_was_declined(merchant: Caller, customer: str, method: dict[str, Any]) -> str:
    body = {"amount": 1000, "currency": "usd", "customer": customer}
    intent = json_of(merchant.post("/v1/payment_intents", body))["id"]
    confirming = f"/v1/payment_intents/{intent}/confirm"
    declined = merchant.post(confirming, {"payment_method_data": method})
    assert declined.status_code == 402
    return str(intent)


class Hurried(SystemClock):
    """A minute passes whenever it is looked at."""

    minutes = 0

    def monotonic(self) -> float:
        self.minutes += 1
        return 60.0 * self.minutes


def test_what_a_request_has_no_time_for_is_erased_by_a_worker(alone: Api) -> None:
    erasure = Erasure(alone.services.pool, alone.services.ledger, Hurried())
    hurried = Api(
        alone.services, create_app(replace(alone.services, erasure=erasure), threads=THREADS)
    )
    merchant = hurried.merchant()
    customer = json_of(merchant.post("/v1/customers", {"name": NAME}))["id"]
    an_intent(merchant, customer=customer, receipt_email=EMAIL, expand=[])

    gone = merchant.request("DELETE", f"/v1/customers/{customer}")
    assert gone.status_code == 204
    assert found_in(whole_database(alone), NAME, EMAIL) == {EMAIL}
    alone.execute(DUE)
    stopped = erasure.carry_out_due(Cause(actor="worker"), chain([False], repeat(True)).__next__)
    erased = erasure.carry_out_due(Cause(actor="worker"))

    assert (stopped, erased) == (0, 1)
    assert found_in(whole_database(alone), NAME, EMAIL) == set()


def test_one_whom_it_fails_for_is_in_nobodys_way(alone: Api) -> None:
    merchant = alone.merchant()
    customer = json_of(merchant.post("/v1/customers", {}))["id"]
    merchant.request("DELETE", f"/v1/customers/{customer}")
    alone.execute(DUE)
    alone.execute(ONE_THAT_FAILS)

    with pytest.raises(ValueError, match="neither"):
        alone.services.erasure.carry_out_due(Cause(actor="worker"))

    assert alone.services.erasure.carry_out_due(Cause(actor="worker")) == 1


def test_a_deleted_customer_is_no_cursor(alone: Api) -> None:
    merchant = alone.merchant()
    customer = json_of(merchant.post("/v1/customers", {}))["id"]
    merchant.request("DELETE", f"/v1/customers/{customer}")

    response = merchant.get(f"/v1/customers?starting_after={customer}")

    assert error_of(response, 404)["param"] == "starting_after"


def test_what_tells_of_nobody_is_not_written_anew() -> None:
    body = b'{"id": "pi_1",  "metadata":{"email":"the merchant\'s own","name":"x"},"email":null}'

    assert redacted(body) is body
    assert redacted(b"") == b""

"""One key, one effect, one answer: whatever is sent again, at the same time, or otherwise."""

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import pytest
from werkzeug.test import TestResponse

from api.schemas import ReceiptOut, RefundOut
from infrastructure.duties import SWEPT_AT_ONCE
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    PATIENCE_SECONDS,
    Api,
    BankThatWaits,
    Caller,
    an_api,
    an_authorization,
    error_of,
    fresh,
    json_of,
    refusal,
    shaped,
)
from tests.fakes import FakeBank

AT_ONCE = 6
# As it was kept before answers had rows of their own.
KEPT_WITH_THE_KEY: LiteralString = """
    WITH moved AS (
        DELETE FROM idempotency_answers WHERE merchant_id = %(merchant_id)s RETURNING *
    )
    UPDATE idempotency_keys AS k
    SET status = m.status, headers = m.headers, body = m.body, tells_of_people = m.tells_of_people
    FROM moved AS m WHERE (k.merchant_id, k.mode, k.key) = (m.merchant_id, m.mode, m.key)
"""
KEPT_BESIDE: LiteralString = "SELECT"
UNANSWERED: LiteralString = """
    DELETE FROM idempotency_answers WHERE merchant_id = %(merchant_id)s
"""
A_MONTH_PASSES: LiteralString = """
    UPDATE idempotency_keys SET claimed_at = claimed_at - interval '31 days'
    WHERE merchant_id = %(merchant_id)s
"""
KEPT: LiteralString = """
    SELECT (SELECT count(*) FROM idempotency_keys WHERE merchant_id = %(merchant_id)s) AS keys,
           (SELECT count(*) FROM idempotency_answers WHERE merchant_id = %(merchant_id)s) AS answers
"""


def kept_of(api: Api, merchant: Caller) -> dict[str, int]:
    """How many of the merchant's keys, and of their answers in rows of their own."""
    assert merchant.record is not None
    mine = {"merchant_id": merchant.record.merchant_id}
    with api.services.pool.connection() as connection:
        row = connection.execute(KEPT, mine).fetchone()
    assert row is not None
    return row


def ask_of(merchant: Caller, what: str) -> Callable[[], TestResponse]:
    """The same request as often as it is called."""
    key = fresh("key")
    if what in {"authorization", "decline"}:
        body = an_authorization(card=GOOD_CARD if what == "authorization" else EMPTY_CARD)
        return lambda: merchant.post("/v1/authorizations", body, key=key)
    before = merchant.captured() if what == "refund" else merchant.authorized()
    fields = {"payment_id": before["payment_id"]}
    return lambda: merchant.post(f"/v1/{what}s", fields, key=key)


@pytest.mark.parametrize(
    ("what", "status"),
    [("authorization", 201), ("decline", 402), ("capture", 201), ("void", 201), ("refund", 201)],
)
def test_the_first_answer_is_given_again_byte_for_byte(
    merchant: Caller, bank: FakeBank, what: str, status: int
) -> None:
    ask = ask_of(merchant, what)

    first = ask()
    asked = len(bank.requests)
    again = ask()

    assert first.status_code == again.status_code == status
    assert first.data == again.data
    assert first.headers.get("Location") == again.headers.get("Location")
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Request-Id"] != first.headers["Request-Id"]
    assert len(bank.requests) == asked


def test_the_first_answer_is_given_again_after_the_payment_went_on(merchant: Caller) -> None:
    body, key = an_authorization(), fresh("key")
    first = merchant.post("/v1/authorizations", body, key=key)
    merchant.capture(json_of(first)["payment_id"])

    again = merchant.post("/v1/authorizations", body, key=key)

    assert again.data == first.data


@pytest.mark.parametrize("what", ["authorization", "decline", "capture", "void", "refund"])
def test_an_answer_that_is_kept_with_the_key_is_given_again(
    api: Api, merchant: Caller, what: str
) -> None:
    assert merchant.record is not None
    ask = ask_of(merchant, what)
    first = ask()

    api.execute(KEPT_WITH_THE_KEY, merchant_id=merchant.record.merchant_id)

    again = ask()
    assert (again.status_code, again.data) == (first.status_code, first.data)
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("kept", [KEPT_BESIDE, KEPT_WITH_THE_KEY])
def test_a_key_is_forgotten_after_a_month_with_its_answer(
    api: Api, merchant: Caller, kept: LiteralString
) -> None:
    assert merchant.record is not None
    mine = {"merchant_id": merchant.record.merchant_id}
    merchant.authorized()
    api.execute(kept, **mine)
    api.services.idempotency_keys.prune(SWEPT_AT_ONCE)
    assert sum(kept_of(api, merchant).values()) > 0

    api.execute(A_MONTH_PASSES, **mine)
    pruned = api.services.idempotency_keys.prune(SWEPT_AT_ONCE)

    assert pruned >= 1
    assert kept_of(api, merchant) == {"keys": 0, "answers": 0}


def test_a_key_without_an_answer_is_kept_for_ever(api: Api, merchant: Caller) -> None:
    assert merchant.record is not None
    mine = {"merchant_id": merchant.record.merchant_id}
    merchant.authorized()
    api.execute(UNANSWERED, **mine)
    api.execute(A_MONTH_PASSES, **mine)

    api.services.idempotency_keys.prune(SWEPT_AT_ONCE)

    assert kept_of(api, merchant) == {"keys": 1, "answers": 0}


def test_the_order_of_fields_and_white_space_do_not_count(merchant: Caller) -> None:
    body, key = an_authorization(metadata={"a": 1, "b": "2"}), fresh("key")
    backwards = dict(reversed([*body.items()])) | {"metadata": {"b": "2", "a": 1}}
    first = merchant.post("/v1/authorizations", body, key=key)

    again = merchant.post(
        "/v1/authorizations",
        data="\n " + json.dumps(backwards, indent=3, ensure_ascii=False),
        content_type="application/json; charset=utf-8",
        key=key,
    )

    assert again.data == first.data
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 5001},
        {"order_id": "another"},
        {"currency": "usd"},
        {"metadata": {"a": True}},
        {"card": GOOD_CARD | {"cvc": "124"}},
        {"amount": "not even right"},
        {"unknown": 1},
    ],
)
def test_a_key_is_not_good_for_another_body(
    merchant: Caller, bank: FakeBank, change: dict[str, Any]
) -> None:
    body, key = an_authorization(metadata={"a": 1}), fresh("key")
    merchant.post("/v1/authorizations", body, key=key)

    response = merchant.post("/v1/authorizations", body | change, key=key)

    assert refusal(response) == (409, "idempotency_error", "key_reused", None)
    assert len(bank.requests) == 1


def test_a_key_is_not_good_for_another_path(merchant: Caller, bank: FakeBank) -> None:
    fields, key = {"payment_id": merchant.authorized()["payment_id"]}, fresh("key")
    merchant.post("/v1/captures", fields, key=key)

    for path in ("/v1/voids", "/v1/refunds"):
        response = merchant.post(path, fields, key=key)

        assert refusal(response) == (409, "idempotency_error", "key_reused", None)
    assert len(bank.requests) == 2


def test_a_form_and_json_of_one_meaning_are_two_bodies(merchant: Caller) -> None:
    payment_id, key = merchant.authorized()["payment_id"], fresh("key")
    merchant.post("/v1/captures", {"payment_id": payment_id, "amount": 5000}, key=key)

    form = {"payment_id": payment_id, "amount": "5000"}
    response = merchant.post("/v1/captures", data=form, key=key)

    assert refusal(response) == (409, "idempotency_error", "key_reused", None)


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (400, {"amount": 0}),
        (400, {"currency": "EUR"}),
        (402, {"card": GOOD_CARD | {"number": "4111111111111112"}}),
        (404, {"card": None, "payment_method": "pm_unknown"}),
    ],
)
def test_what_we_refuse_keeps_no_key(
    merchant: Caller, status: int, refused: dict[str, Any]
) -> None:
    key = fresh("key")
    assert merchant.authorize(key=key, **refused).status_code == status

    response = merchant.authorize(key=key)

    assert shaped(ReceiptOut, response, 201)["status"] == "authorized"
    assert "Idempotent-Replayed" not in response.headers


def test_a_conflict_with_our_own_state_keeps_no_key(merchant: Caller) -> None:
    first, key = merchant.authorized(), fresh("key")
    assert merchant.authorize(key=key, order_id=first["order_id"]).status_code == 409
    merchant.void(first["payment_id"])

    response = merchant.authorize(key=key, order_id=first["order_id"])

    assert response.status_code == 201


@pytest.mark.parametrize("path", ["/v1/authorizations", "/v1/captures", "/v1/voids"])
def test_a_command_wants_a_key(api: Api, merchant: Caller, path: str) -> None:
    before = api.behind()

    response = merchant.post(path, {}, key=None)

    wanted = (400, "invalid_request_error", "missing_idempotency_key", "Idempotency-Key")
    assert refusal(response) == wanted
    assert api.behind() == before


@pytest.mark.parametrize(
    "key", ["", " ", "   ", "x" * 256, "é", "a\tb", "\x7f", "ключ".encode().decode("latin-1")]
)
def test_a_key_is_printable_ascii_of_255_characters_at_most(merchant: Caller, key: str) -> None:
    response = merchant.post(
        "/v1/captures", {"payment_id": "pay_"}, key=None, headers={"Idempotency-Key": key}
    )

    assert refusal(response) == (
        400,
        "invalid_request_error",
        "invalid_param",
        "Idempotency-Key",
    )


@pytest.mark.parametrize("key", ["x", "x" * 255, "a b", "~!@#$%^&*()_+'\"\\", "  edges  "])
def test_a_key_is_echoed(merchant: Caller, key: str) -> None:
    response = merchant.authorize(key=key)

    assert response.status_code == 201
    assert response.headers["Idempotency-Key"] == key


def test_a_refund_honours_a_key(merchant: Caller, bank: FakeBank) -> None:
    ask = ask_of(merchant, "refund")

    refunds = [shaped(RefundOut, ask(), 201)["id"] for _ in range(3)]

    assert len(set(refunds)) == 1
    assert bank.refunded_minor() == 5000


@pytest.mark.parametrize("method", ["post", "patch"])
def test_what_changes_nothing_keeps_its_key_and_its_answer(merchant: Caller, method: str) -> None:
    path = f"/v1/customers/{json_of(merchant.post('/v1/customers', {'name': 'Ada'}))['id']}"
    ask, same, key = getattr(merchant, method), {"name": "Ada"}, fresh("key")

    first = ask(path, same, key=key)
    merchant.post(path, {"description": "Of late"}, key=fresh("key"))
    again = ask(path, same, key=key)
    another = ask(path, {"name": "Eve"}, key=key)

    assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")
    assert refusal(another) == (409, "idempotency_error", "key_reused", None)
    assert json_of(merchant.get(path))["name"] == "Ada"


def test_what_was_changed_already_is_answered_as_it_was_then(merchant: Caller) -> None:
    path = f"/v1/customers/{json_of(merchant.post('/v1/customers', {}))['id']}"
    change, key = {"name": "Ada"}, fresh("key")

    first = merchant.post(path, change, key=key)
    merchant.post(path, {"description": "Of late"}, key=fresh("key"))
    again = merchant.post(path, change, key=key)

    assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")


# --- at the same time ---------------------------------------------------------------------------


def at_once(ask: Callable[[], TestResponse], bank: BankThatWaits) -> list[TestResponse]:
    """Sends it several times; the bank answers when it has been asked and all of them are there."""
    with ThreadPoolExecutor(AT_ONCE) as executor:
        waiting = [executor.submit(ask) for _ in range(AT_ONCE)]
        assert bank.was_asked.wait(PATIENCE_SECONDS)
        bank.may_answer.set()
        return [future.result() for future in waiting]


@pytest.fixture
def slow_bank(api: Api) -> Iterator[BankThatWaits]:
    """It answers at once until it is told to wait."""
    bank = BankThatWaits()
    bank.may_answer.set()
    with api.asking(bank):
        yield bank


@pytest.mark.parametrize("what", ["authorization", "capture", "void", "refund"])
def test_identical_requests_at_the_same_time_are_one_command_and_one_answer(
    api: Api, merchant: Caller, slow_bank: BankThatWaits, what: str
) -> None:
    ask = ask_of(merchant, what)
    asked_before, before = len(slow_bank.requests), api.behind()
    slow_bank.was_asked.clear()
    slow_bank.may_answer.clear()

    answers = at_once(ask, slow_bank)

    assert {response.status_code for response in answers} == {201}
    assert len({response.data for response in answers}) == 1
    assert sum("Idempotent-Replayed" not in response.headers for response in answers) == 1
    assert len(slow_bank.requests) == asked_before + 1
    assert api.behind()["events"] == before["events"] + 2
    assert api.behind()["idempotency_keys"] == before["idempotency_keys"] + 1


def test_a_command_that_was_settled_a_moment_ago_is_replayed_and_not_refused(
    merchant: Caller, slow_bank: BankThatWaits
) -> None:
    """No look at the key may come between the first request's record and the second's decision."""
    for _ in itertools.repeat(None, 5):
        ask = ask_of(merchant, "capture")

        answers = at_once(ask, slow_bank)

        assert [response.status_code for response in answers] == [201] * AT_ONCE


def test_different_requests_for_one_order_at_the_same_time_are_one_payment(
    merchant: Caller, slow_bank: BankThatWaits
) -> None:
    order_id = fresh("ORD")
    slow_bank.was_asked.clear()

    answers = at_once(lambda: merchant.authorize(order_id=order_id), slow_bank)

    statuses = sorted(response.status_code for response in answers)
    assert statuses == [201] + [409] * (AT_ONCE - 1)
    assert len(slow_bank.requests) == 1


def test_refunds_at_the_same_time_never_give_back_more_than_was_taken(
    merchant: Caller, slow_bank: BankThatWaits
) -> None:
    payment_id = merchant.captured()["payment_id"]
    slow_bank.was_asked.clear()

    answers = at_once(lambda: merchant.refund(payment_id), slow_bank)

    assert min(response.status_code for response in answers) == 201
    assert slow_bank.refunded_minor() == 5000


def test_a_request_that_is_still_at_work_is_a_409_that_says_when_to_come_back(
    shared_database_url: str,
) -> None:
    with an_api(shared_database_url, REQUEST_DEADLINE_SECONDS="1") as api:
        merchant, bank = api.merchant(), BankThatWaits()
        ask = ask_of(merchant, "authorization")
        with api.asking(bank), ThreadPoolExecutor(1) as executor:
            first = executor.submit(ask)
            assert bank.was_asked.wait(PATIENCE_SECONDS)

            second = ask()
            bank.may_answer.set()

            assert first.result().status_code == 201

    assert refusal(second) == (409, "idempotency_error", "request_in_progress", None)
    assert int(second.headers["Retry-After"]) > 0
    assert second.headers["Stripe-Should-Retry"] == "true"


def test_when_too_many_wait_for_the_bank_nothing_more_is_begun_and_reads_go_on(
    shared_database_url: str,
) -> None:
    with an_api(shared_database_url, threads=1) as api:
        merchant, bank = api.merchant(), BankThatWaits()
        with api.asking(bank), ThreadPoolExecutor(1) as executor:
            first = executor.submit(merchant.authorize)
            assert bank.was_asked.wait(PATIENCE_SECONDS)
            before = api.behind()

            second, read = merchant.authorize(), merchant.get("/v1/receipts")
            after = api.behind()
            bank.may_answer.set()

            assert first.result().status_code == 201

    error = error_of(second, 503)
    assert (error["type"], error["code"]) == ("api_error", "service_unavailable")
    assert int(second.headers["Retry-After"]) > 0
    assert after == before
    assert read.status_code == 200

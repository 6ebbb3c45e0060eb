"""The asynchronous family: an intent is confirmed at once, and settled in the background."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from pydantic import BaseModel
from werkzeug.test import TestResponse

from api.async_family import routes
from api.async_family.errors import MEANINGS, in_our_words
from api.async_family.schemas import (
    AsyncIntentOut,
    AsyncRefundOut,
    ConfirmedOut,
    NewAsyncIntentOut,
    ResultOut,
)
from api.errors import ApiError
from api.openapi import ERRORS
from domain.bank import Rejected
from domain.commands import Mode
from infrastructure.api_keys import KeyType
from infrastructure.vault import new_key
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    Api,
    Caller,
    an_api,
    brief,
    error_of,
    fresh,
    json_of,
    refusal,
    shaped,
)
from tests.builders import ANY_AMOUNT
from tests.fakes import FakeBank, Misfortune

INVALID: Final = "invalid_request_error"
TYPES: Final = {
    **dict.fromkeys((400, 404, 405, 406, 409, 413, 415, 418), (INVALID,)),
    **dict.fromkeys((401, 403), ("auth_error",)),
    **dict.fromkeys((500, 502, 503), ("api_error",)),
    422: ("validation_error", "card_error"),
    429: ("rate_limit_error",),
}
DELAYS: Final = """
    SELECT extract(epoch FROM due_at - since)::float AS seconds, idempotency_key FROM bank_calls
    WHERE merchant_id = %s
"""


def an_intent(**overrides: Any) -> dict[str, Any]:
    """The body of one; what is None is left out."""
    body = {
        "amount": 2599,
        "currency": "USD",
        "customer_id": "cus_123",
        "payment_method_id": "pm_fake_visa",
        "capture_method": "automatic",
        "metadata": {"orderId": "ORD-1001"},
    } | overrides
    return {name: value for name, value in body.items() if value is not None}


def created(merchant: Caller, **overrides: Any) -> str:
    response = merchant.post("/payment_intents", an_intent(**overrides))
    public_id: str = shaped(NewAsyncIntentOut, response, 201)["id"]
    return public_id


def confirm(merchant: Caller, intent_id: str, query: str = "", **options: Any) -> TestResponse:
    return merchant.patch(f"/payment_intents/{intent_id}/confirm{query}", **options)


def confirmed(merchant: Caller, query: str = "", **overrides: Any) -> str:
    intent_id = created(merchant, **overrides)
    shaped(ConfirmedOut, confirm(merchant, intent_id, query), 202)
    return intent_id


def settled(api: Api, merchant: Caller, query: str = "", **overrides: Any) -> str:
    intent_id = confirmed(merchant, query, **overrides)
    api.worker_has_been_at_it(merchant)
    return intent_id


def status(merchant: Caller, intent_id: str) -> str:
    found = shaped(AsyncIntentOut, merchant.get(f"/payment_intents/{intent_id}"), 200)
    return str(found["status"])


def result(merchant: Caller, intent_id: str) -> dict[str, Any]:
    return shaped(ResultOut, merchant.get(f"/payments/{intent_id}"), 200)


def a_method(merchant: Caller, card: dict[str, Any]) -> str:
    body = {"type": "card", "card": card}
    return str(json_of(merchant.post("/v1/payment_methods", body))["id"])


# --- the walk -----------------------------------------------------------------------------------


def test_an_intent_is_created_confirmed_settled_and_refunded(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    response = merchant.post("/payment_intents", an_intent(currency="usd"))
    intent = shaped(NewAsyncIntentOut, response, 201)
    path = f"/payment_intents/{intent['id']}"
    assert response.headers["Location"] == path
    assert {name: intent[name] for name in an_intent()} == an_intent()
    assert intent["status"] == "requires_confirmation"
    assert intent["client_secret"].startswith(f"{intent['id']}_secret_")

    answer = confirm(merchant, intent["id"])
    assert json_of(answer) == {"id": intent["id"], "status": "processing"}
    assert answer.status_code == 202
    assert (answer.headers["Location"], int(answer.headers["Retry-After"]) > 0) == (path, True)
    assert status(merchant, intent["id"]) == "processing"
    assert bank.requests == []

    api.worker_has_been_at_it(merchant)
    now = shaped(AsyncIntentOut, merchant.get(path), 200)
    assert now["status"] == "succeeded"
    assert now["updated_at"] > now["created_at"]
    paid = result(merchant, intent["id"])
    assert (paid["payment_intent_id"], paid["status"]) == (intent["id"], "succeeded")
    assert paid["captured_amount"] == 2599
    assert paid["auth_code"] is not None
    assert paid["payment_id"] in paid["receipt_url"]

    back = merchant.post(
        "/refunds",
        {"payment_id": paid["payment_id"], "amount": 2599, "reason": "requested_by_customer"},
    )
    refund = shaped(AsyncRefundOut, back, 201)
    assert refund["status"] == "succeeded"
    assert status(merchant, intent["id"]) == "succeeded"
    assert result(merchant, intent["id"])["captured_amount"] == 2599
    assert json_of(merchant.get(f"/v1/refunds/{refund['id']}"))["id"] == refund["id"]


def test_a_result_is_too_early_before_it_is_settled(api: Api, merchant: Caller) -> None:
    intent_id = created(merchant)
    before = merchant.get(f"/payments/{intent_id}")
    confirm(merchant, intent_id)
    during = merchant.get(f"/payments/{intent_id}")
    api.worker_has_been_at_it(merchant)

    assert (before.status_code, json_of(before)) == (425, {"error": "requires_confirmation"})
    assert (during.status_code, json_of(during)) == (425, {"error": "processing"})
    assert int(during.headers["Retry-After"]) > 0
    assert result(merchant, intent_id)["status"] == "succeeded"


def test_what_is_left_out_is_null_until_a_method_is_given(api: Api, merchant: Caller) -> None:
    body = {"amount": 100, "currency": "USD"}
    intent = shaped(NewAsyncIntentOut, merchant.post("/payment_intents", body), 201)
    assert (intent["customer_id"], intent["payment_method_id"]) == (None, None)
    assert (intent["capture_method"], intent["metadata"]) == ("automatic", {})

    refused = confirm(merchant, intent["id"])
    given = confirm(merchant, intent["id"], body={"payment_method_id": "pm_card_visa"})
    api.worker_has_been_at_it(merchant)

    assert refusal(refused) == (422, "validation_error", "missing_param", "payment_method_id")
    assert given.status_code == 202
    now = json_of(merchant.get(f"/payment_intents/{intent['id']}"))
    assert (now["status"], now["payment_method_id"]) == ("succeeded", "pm_card_visa")


def test_a_forced_failure_is_one_without_asking_the_bank(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    intent_id = settled(api, merchant, "?force=failure")

    assert status(merchant, intent_id) == "failed"
    failed = result(merchant, intent_id)
    assert (failed["status"], failed["captured_amount"]) == ("failed", 0)
    assert failed["auth_code"] is None
    assert bank.requests == []


def test_a_failure_is_forced_in_test_mode_only(api: Api, merchant: Caller) -> None:
    live = api.merchant(merchant.merchant, mode=Mode.LIVE)
    method = a_method(live, GOOD_CARD)
    intent_id = created(live, payment_method_id=method)

    refused = confirm(live, intent_id, "?force=failure")

    assert refusal(refused) == (422, "validation_error", "invalid_param", "force")
    assert confirm(live, intent_id).status_code == 202


def test_a_decline_is_a_failure_for_good_here_and_may_be_tried_again_elsewhere(
    api: Api, merchant: Caller
) -> None:
    intent_id = settled(api, merchant, payment_method_id=a_method(merchant, EMPTY_CARD))
    assert (status(merchant, intent_id), result(merchant, intent_id)["auth_code"]) == (
        "failed",
        None,
    )
    elsewhere = json_of(merchant.get(f"/v1/payment_intents/{intent_id}"))
    assert elsewhere["status"] == "requires_payment_method"
    assert elsewhere["last_payment_error"]["decline_code"] == "insufficient_funds"

    again = confirm(merchant, intent_id, body={"payment_method_id": "pm_fake_visa"})
    there = merchant.post(
        f"/v1/payment_intents/{intent_id}/confirm", {"payment_method": "pm_fake_visa"}
    )

    assert refusal(again) == (409, INVALID, "payment_intent_unexpected_state", None)
    assert json_of(there)["status"] == "succeeded"
    assert status(merchant, intent_id) == "succeeded"


def test_a_method_on_file_pays_for_its_customer_and_for_nobody_else(
    api: Api, merchant: Caller
) -> None:
    customer = json_of(merchant.post("/v1/customers", {}))["id"]
    method = a_method(merchant, GOOD_CARD)
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})

    theirs = settled(api, merchant, customer_id=customer, payment_method_id=method)
    anothers = merchant.post("/payment_intents", an_intent(payment_method_id=method))
    given_later = confirm(merchant, created(merchant), body={"payment_method_id": method})

    assert status(merchant, theirs) == "succeeded"
    refused = (422, "validation_error", "invalid_param", "payment_method_id")
    assert (refusal(anothers), refusal(given_later)) == (refused, refused)


def test_a_manual_capture_settles_at_requires_capture(api: Api, merchant: Caller) -> None:
    intent_id = settled(api, merchant, capture_method="manual")
    held = result(merchant, intent_id)
    assert (held["status"], held["captured_amount"]) == ("requires_capture", 0)
    assert held["auth_code"] is not None

    merchant.post(f"/v1/payment_intents/{intent_id}/capture", {})

    taken = result(merchant, intent_id)
    assert (taken["status"], taken["captured_amount"]) == ("succeeded", 2599)


def test_what_is_given_up_is_canceled(api: Api, merchant: Caller) -> None:
    held, new = settled(api, merchant, capture_method="manual"), created(merchant)
    for intent_id in (held, new):
        merchant.post(f"/v1/payment_intents/{intent_id}/cancel", {})
        assert status(merchant, intent_id) == "canceled"

    assert result(merchant, held)["status"] == "canceled"
    never_paid = merchant.get(f"/payments/{new}")
    assert refusal(never_paid) == (404, INVALID, "payment_not_found", None)


# --- in the background --------------------------------------------------------------------------


def test_a_worker_begins_after_the_delay_and_before_it_is_long(api: Api, merchant: Caller) -> None:
    for _ in range(5):
        confirmed(merchant)

    assert merchant.record is not None
    with api.services.pool.connection() as connection:
        rows = connection.execute(DELAYS, [merchant.record.merchant_id]).fetchall()

    shortest = api.services.settings.async_delay_ms / 1000
    delays = [row["seconds"] for row in rows]
    assert all(shortest - 0.001 <= delay <= 2.5 * shortest for delay in delays)
    assert len(set(delays)) > 1
    assert [row["idempotency_key"] for row in rows] == [None] * 5


def test_what_was_confirmed_is_settled_by_whichever_process_is_there_then(
    database_url: str, bank: FakeBank
) -> None:
    vault_keys = new_key()
    with an_api(database_url, VAULT_KEYS=vault_keys) as first, first.asking(bank):
        merchant = first.merchant("a patient merchant")
        intent_id, forced = confirmed(merchant), confirmed(merchant, "?force=failure")

    with an_api(database_url, VAULT_KEYS=vault_keys) as second, second.asking(bank):
        later = Caller(second.app, merchant.key, merchant.record, merchant.merchant)
        assert status(later, intent_id) == "processing"
        second.worker_has_been_at_it(later)

        assert (status(later, intent_id), status(later, forced)) == ("succeeded", "failed")
    assert sum(bank.done.values()) == 2  # one hold, one capture


def test_a_bank_that_fails_leaves_it_processing_until_it_is_well(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    intent_id = settled(api, merchant)
    assert status(merchant, intent_id) == "processing"
    assert merchant.get(f"/payments/{intent_id}").status_code == 425

    api.worker_has_been_at_it(merchant)

    assert status(merchant, intent_id) == "succeeded"


def test_of_two_confirmations_at_once_one_is_an_attempt(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    intent_id = created(merchant)

    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda _: confirm(merchant, intent_id), range(4)))
    api.worker_has_been_at_it(merchant)

    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert sum(bank.done.values()) == 2
    assert len(json_of(merchant.get("/v1/charges"))["data"]) == 1


# --- idempotency --------------------------------------------------------------------------------


def test_a_confirmation_is_answered_the_same_before_and_after_it_is_settled(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    intent_id, key = created(merchant), fresh("key")
    first = confirm(merchant, intent_id, key=key)
    during = confirm(merchant, intent_id, key=key)
    api.worker_has_been_at_it(merchant)
    after = confirm(merchant, intent_id, key=key)

    assert first.data == during.data == after.data
    assert {each.status_code for each in (first, during, after)} == {202}
    assert "Idempotent-Replayed" not in first.headers
    assert during.headers["Idempotent-Replayed"] == after.headers["Idempotent-Replayed"] == "true"
    assert sum(bank.done.values()) == 2


def test_the_same_confirmation_sent_many_times_at_once_is_one_and_answered_alike(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    intent_id, key = created(merchant), fresh("key")

    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda _: confirm(merchant, intent_id, key=key), range(4)))
    api.worker_has_been_at_it(merchant)

    assert {(answer.status_code, answer.data) for answer in answers} == {
        (202, answers[0].data),
    }
    assert sum(bank.done.values()) == 2


def test_a_declined_attempt_does_not_answer_the_confirmations_key(
    api: Api, merchant: Caller
) -> None:
    intent_id, key = created(merchant), fresh("key")
    first = confirm(merchant, intent_id, "?force=failure", key=key)
    api.worker_has_been_at_it(merchant)

    again = confirm(merchant, intent_id, "?force=failure", key=key)

    assert status(merchant, intent_id) == "failed"
    assert (again.status_code, again.data) == (202, first.data)


def test_the_events_know_the_key_of_the_confirmation(api: Api, merchant: Caller) -> None:
    intent_id, key = created(merchant), fresh("key")
    confirm(merchant, intent_id, key=key)

    with api.services.pool.connection() as connection:
        row = connection.execute(
            "SELECT count(*) AS events FROM events WHERE cause::json ->> 'idempotency_key' = %s",
            [key],
        ).fetchone()

    assert row == {"events": 2}  # of the intent, and of its payment


def test_a_key_is_one_requests_query_included(merchant: Caller) -> None:
    intent_id, key = created(merchant), fresh("key")
    confirm(merchant, intent_id, key=key)
    reused = (409, INVALID, "key_reused", None)

    assert refusal(confirm(merchant, intent_id, "?force=failure", key=key)) == reused
    other = confirm(merchant, intent_id, key=key, body={"payment_method_id": "pm_card_visa"})
    assert refusal(other) == reused


@pytest.mark.parametrize("path", ["/payment_intents", "/refunds"])
def test_the_same_key_gives_the_same_bytes(api: Api, merchant: Caller, path: str) -> None:
    payment_id = result(merchant, settled(api, merchant))["payment_id"]
    body = an_intent() if path == "/payment_intents" else {"payment_id": payment_id}

    first = merchant.post(path, body, key="again")
    again = merchant.post(path, body, key="again")

    assert first.status_code == again.status_code == 201
    assert (first.data, again.headers["Idempotent-Replayed"]) == (again.data, "true")


# --- refunds ------------------------------------------------------------------------------------


def test_parts_are_given_back_and_never_more_than_was_taken(
    extended_api: Api, extended_merchant: Caller
) -> None:
    merchant = extended_merchant
    payment_id = result(merchant, settled(extended_api, merchant))["payment_id"]

    part = merchant.post("/refunds", {"payment_id": payment_id, "amount": 1000})
    too_much = merchant.post("/refunds", {"payment_id": payment_id, "amount": 2000})
    rest = merchant.post("/refunds", {"payment_id": payment_id})

    assert shaped(AsyncRefundOut, part, 201)["amount"] == 1000
    assert refusal(too_much) == (409, INVALID, "refund_exceeds_payment", "amount")
    assert shaped(AsyncRefundOut, rest, 201)["amount"] == 1599


def test_a_refund_whose_outcome_is_unknown_is_pending_and_then_known(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    payment_id = result(merchant, settled(api, merchant))["payment_id"]
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    body = {"payment_id": payment_id}

    unknown = merchant.post("/refunds", body, key="unknown")
    api.worker_has_been_at_it(merchant)
    known = merchant.post("/refunds", body, key="unknown")

    assert shaped(AsyncRefundOut, unknown, 202)["status"] == "pending"
    assert {"Retry-After", "Location"} <= set(unknown.headers.keys())
    assert shaped(AsyncRefundOut, known, 201)["status"] == "succeeded"


def test_what_cannot_be_given_back_is_a_409(api: Api, merchant: Caller) -> None:
    held = result(merchant, settled(api, merchant, capture_method="manual"))["payment_id"]
    failed = result(merchant, settled(api, merchant, "?force=failure"))["payment_id"]

    for payment_id in (held, failed):
        refused = merchant.post("/refunds", {"payment_id": payment_id})
        assert refusal(refused) == (409, INVALID, "payment_not_captured", None)


# --- states that allow no confirmation ----------------------------------------------------------


def _succeeded(api: Api, merchant: Caller) -> str:
    return settled(api, merchant, payment_method_id=a_method(merchant, GOOD_CARD))


def _processing(_api: Api, merchant: Caller) -> str:
    return confirmed(merchant)


def _failed(api: Api, merchant: Caller) -> str:
    return settled(api, merchant, "?force=failure")


def _held(api: Api, merchant: Caller) -> str:
    return settled(api, merchant, capture_method="manual")


def _canceled(_api: Api, merchant: Caller) -> str:
    intent_id = created(merchant)
    merchant.post(f"/v1/payment_intents/{intent_id}/cancel", {})
    return intent_id


@pytest.mark.parametrize("made", [_succeeded, _processing, _failed, _held, _canceled])
@pytest.mark.parametrize("query", ["", "?force=failure"])
def test_what_was_confirmed_or_given_up_is_not_confirmed_again(
    api: Api, merchant: Caller, made: Callable[[Api, Caller], str], query: str
) -> None:
    intent_id = made(api, merchant)
    before = api.behind()

    refused = confirm(merchant, intent_id, query)

    assert refusal(refused) == (409, INVALID, "payment_intent_unexpected_state", None)
    assert api.behind() == before


# --- errors, in this family's words -------------------------------------------------------------

Ask = Callable[[Caller], TestResponse]
SOMETHING: Final = "pi_" + "0" * 26
ROUTES: Final[dict[str, Ask]] = {
    "create": lambda caller: caller.post("/payment_intents", an_intent()),
    "confirm": lambda caller: confirm(caller, SOMETHING),
    "intent": lambda caller: caller.get(f"/payment_intents/{SOMETHING}"),
    "result": lambda caller: caller.get(f"/payments/{SOMETHING}"),
    "refund": lambda caller: caller.post("/refunds", {"payment_id": "pay_" + "0" * 26}),
}
COMMANDS: Final = ("create", "confirm", "refund")
each_route = pytest.mark.parametrize("name", ROUTES)


@each_route
def test_without_a_good_key_it_is_an_auth_error(api: Api, name: str) -> None:
    nobody = api.nobody()
    wrong = nobody.with_headers(Authorization="Bearer sk_test_wrong")

    assert refusal(ROUTES[name](nobody)) == (401, "auth_error", "missing_api_key", None)
    assert refusal(ROUTES[name](wrong)) == (401, "auth_error", "invalid_api_key", None)


@each_route
def test_what_a_key_may_not_do_is_an_auth_error(api: Api, merchant: Caller, name: str) -> None:
    browser = api.merchant(merchant.merchant, type=KeyType.PUBLISHABLE)
    narrow = api.merchant(merchant.merchant, scopes=())

    assert refusal(ROUTES[name](browser))[:3] == (
        403,
        "auth_error",
        "publishable_key_not_allowed",
    )
    assert refusal(ROUTES[name](narrow))[:3] == (403, "auth_error", "scope_missing")


@pytest.mark.parametrize("name", ["confirm", "intent", "result", "refund"])
def test_what_is_not_there_is_an_invalid_request(merchant: Caller, name: str) -> None:
    what = ("payment_not_found", "payment_id") if name == "refund" else (
        "payment_intent_not_found", None,
    )  # fmt: skip

    for caller in (merchant, merchant.speaking_stripe()):
        assert refusal(ROUTES[name](caller)) == (404, INVALID, *what)


def test_anothers_things_are_not_there(api: Api, merchant: Caller) -> None:
    intent_id = settled(api, merchant)
    payment_id = result(merchant, intent_id)["payment_id"]
    method = a_method(merchant, GOOD_CARD)
    live = api.merchant(merchant.merchant, mode=Mode.LIVE)
    assert len(routes.ROUTES) == 5  # each of them is asked below

    for other in (api.merchant(), live):
        for answer in (
            other.get(f"/payment_intents/{intent_id}"),
            other.get(f"/payments/{intent_id}"),
            confirm(other, intent_id),
        ):
            assert refusal(answer) == (404, INVALID, "payment_intent_not_found", None)
        refund = other.post("/refunds", {"payment_id": payment_id})
        assert refusal(refund) == (404, INVALID, "payment_not_found", "payment_id")
        stolen = other.post("/payment_intents", an_intent(payment_method_id=method))
        assert refusal(stolen)[:3] == (404, INVALID, "payment_method_not_found")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_needs_an_idempotency_key(merchant: Caller, name: str) -> None:
    path = {"create": "/payment_intents", "refund": "/refunds"}.get(
        name, f"/payment_intents/{SOMETHING}/confirm"
    )
    send = merchant.patch if name == "confirm" else merchant.post

    missing, wrong = send(path, {}, key=None), send(path, {}, key="ü")

    named = "Idempotency-Key"
    assert refusal(missing) == (400, INVALID, "missing_idempotency_key", named)
    assert refusal(wrong) == (400, INVALID, "invalid_param", named)


@each_route
def test_another_version_or_another_type_of_answer_is_an_invalid_request(
    merchant: Caller, name: str
) -> None:
    version = ROUTES[name](merchant.with_headers(X_API_Version="1999-01-01"))
    accept = ROUTES[name](merchant.with_headers(Accept="text/html"))

    assert refusal(version) == (400, INVALID, "unsupported_api_version", "X-API-Version")
    assert refusal(accept) == (406, INVALID, "not_acceptable", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/payment_intents"),
        ("POST", f"/payment_intents/{SOMETHING}"),
        ("POST", f"/payment_intents/{SOMETHING}/confirm"),
        ("DELETE", f"/payments/{SOMETHING}"),
        ("GET", "/refunds"),
    ],
)
def test_another_method_is_an_invalid_request(merchant: Caller, method: str, path: str) -> None:
    assert refusal(merchant.request(method, path)) == (405, INVALID, "method_not_allowed", None)


@pytest.mark.parametrize("path", ["/payments", "/payment_intents/a/b", "/refunds/re_x"])
def test_no_such_route_is_an_invalid_request_here_and_only_here(
    merchant: Caller, path: str
) -> None:
    assert refusal(merchant.get(path)) == (404, INVALID, "route_not_found", None)
    assert refusal(merchant.get(f"/v1/nothing{path}"))[1] == "resource_missing"


def test_one_too_many_is_a_rate_limit_error(shared_database_url: str) -> None:
    with an_api(shared_database_url, RATE_LIMIT_PER_MINUTE="1") as limited:
        merchant = limited.merchant()
        merchant.get(f"/payments/{SOMETHING}")
        merchant.post("/refunds", {})  # commands have a budget of their own

        for name, ask in ROUTES.items():
            answer = ask(merchant)
            assert refusal(answer) == (429, "rate_limit_error", "too_many_requests", None), name
            assert int(answer.headers["Retry-After"]) > 0


def test_a_card_that_is_no_good_is_a_card_error(merchant: Caller, api: Api) -> None:
    method = a_method(merchant, GOOD_CARD)
    intent_id = created(merchant, payment_method_id=method)
    merchant.post(f"/v1/payment_methods/{method}", {"card": {"exp_month": 1, "exp_year": 2020}})

    refused = confirm(merchant, intent_id)

    assert brief(error_of(refused, 422), "type", "code") == ("card_error", "expired_card")


def test_a_bank_that_is_down_is_an_api_error(api: Api, merchant: Caller, bank: FakeBank) -> None:
    intent_id = created(merchant)
    before = api.behind()
    bank.goes_down()

    refused = confirm(merchant, intent_id)

    assert refusal(refused) == (503, "api_error", "bank_unavailable", None)
    assert refused.headers["Stripe-Should-Retry"] == "true"
    assert api.behind() == before
    bank.comes_back()
    assert confirm(merchant, intent_id).status_code == 202


def test_a_bank_that_does_not_understand_is_an_api_error(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    payment_id = result(merchant, settled(api, merchant))["payment_id"]
    bank.will_answer(Rejected(reason="malformed"))

    refused = merchant.post("/refunds", {"payment_id": payment_id})

    assert refusal(refused) == (502, "api_error", "bank_protocol_error", None)


def test_without_a_database_it_is_an_api_error() -> None:
    with an_api("postgresql://nobody@127.0.0.1:9/nothing", waits=None) as api:
        caller = api.nobody().with_headers(Authorization="Bearer sk_test_x")
        for path in ("/payment_intents/x", "/payments/x"):
            assert refusal(caller.get(path))[:2] == (503, "api_error")


def test_a_currency_that_the_bank_does_not_take_is_refused_before_any_effect(
    api: Api, merchant: Caller
) -> None:
    intent_id = created(merchant, currency="eur")
    before = api.behind()

    refused = confirm(merchant, intent_id)

    assert refusal(refused) == (422, "validation_error", "currency_unsupported", "currency")
    assert api.behind() == before


def test_a_card_whose_cvc_was_used_needs_one(api: Api, merchant: Caller, bank: FakeBank) -> None:
    method = a_method(merchant, GOOD_CARD)
    settled(api, merchant, payment_method_id=method)

    refused = merchant.post("/payment_intents", an_intent(payment_method_id=method))
    bank.capabilities = ANY_AMOUNT
    taken = settled(api, merchant, payment_method_id=method)

    assert refusal(refused) == (422, "validation_error", "missing_param", "cvc")
    assert status(merchant, taken) in {"succeeded", "failed"}


@pytest.mark.parametrize("error_status", [*ERRORS, 418])
def test_every_status_of_an_error_has_a_type_of_this_family_and_is_documented(
    error_status: int,
) -> None:
    error = ApiError(status=error_status, type="of another family", code="some_code", message="…")

    told = in_our_words(error)

    assert (told.code, told.message) == ("some_code", "…")
    assert told.type in TYPES[told.status]
    assert told.status == 418 or told.status in MEANINGS


@pytest.mark.parametrize("model", [NewAsyncIntentOut, AsyncIntentOut, ConfirmedOut, ResultOut])
def test_the_document_has_the_shapes(api: Api, model: type[BaseModel]) -> None:
    document = json.loads(api.nobody().get("/openapi.json").data)

    fields = document["components"]["schemas"][model.__name__]["properties"]
    assert list(fields) == list(model.model_fields)
    responses = document["paths"]["/payments/{intent_id}"]["get"]["responses"]
    assert {"200", "422", "425"} <= set(responses)
    query = document["paths"]["/payment_intents/{intent_id}/confirm"]["patch"]["parameters"]
    assert "force" in {each["name"] for each in query}

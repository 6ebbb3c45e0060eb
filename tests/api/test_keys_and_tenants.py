"""Who may ask, and whose data it is: merchants and modes never see one another."""

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from api.app import ROUTES
from api.async_family import routes as async_family
from api.schemas import RefundOut
from domain.commands import Mode
from infrastructure.api_keys import KeyType, Scope
from tests.api.an_api import GOOD_CARD, Api, Caller, brief, error_of, json_of, refusal, shaped

UNAUTHENTICATED = "authentication_error"
FORBIDDEN = "permission_error"
AUTH_ERROR = {async_family.FAMILY: "auth_error"}  # a family's own word for either


def with_authorization(api: Api, value: str | None) -> Any:
    return api.nobody().get("/v1/receipts", headers={"Authorization": value})


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        lambda key: f"Bearer {key}",
        lambda key: f"bearer {key}",
        lambda key: f"BEARER   {key}",
        lambda key: basic(key.encode() + b":"),
        lambda key: basic(key.encode() + b":a password"),
        lambda key: basic(key.encode()),
    ],
    ids=["bearer", "lower", "upper", "basic", "password", "no colon"],
)
def test_a_key_is_a_bearer_token_or_a_user_name(api: Api, spelling: Any) -> None:
    key = api.merchant().key

    assert with_authorization(api, spelling(key)).status_code == 200


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Digest x", basic(b":secret")])
def test_a_request_without_a_key_is_told_so(api: Api, value: str | None) -> None:
    response = with_authorization(api, value)

    assert refusal(response) == (401, UNAUTHENTICATED, "missing_api_key", None)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "value",
    [
        "Bearer sk_test_nobodys",
        "Bearer " + "x" * 5000,
        "Bearer a b c",
        "Bearer \xff\xfe",
        "Basic %%%",
        basic(b"\xff\xfe:"),
        basic(b"a\x00b:"),
    ],
)
def test_a_key_that_is_none_is_invalid(api: Api, value: str) -> None:
    response = with_authorization(api, value)

    assert refusal(response) == (401, UNAUTHENTICATED, "invalid_api_key", None)


def test_an_expired_key_is_invalid(api: Api) -> None:
    merchant = api.merchant()
    assert merchant.record is not None
    api.execute(
        "UPDATE api_keys SET expires_at = %(at)s WHERE key_id = %(key_id)s",
        at=datetime.now(UTC) - timedelta(seconds=1),
        key_id=merchant.record.key_id,
    )

    response = merchant.get("/v1/receipts")

    assert refusal(response) == (401, UNAUTHENTICATED, "invalid_api_key", None)


def test_a_revoked_key_is_invalid_and_the_merchants_others_are_not(api: Api) -> None:
    revoked = api.merchant("a merchant of two keys")
    other = api.merchant("a merchant of two keys")
    assert revoked.record is not None

    api.services.api_keys.revoke(revoked.record.key_id)

    response = revoked.get("/v1/receipts")
    assert refusal(response) == (401, UNAUTHENTICATED, "invalid_api_key", None)
    assert other.get("/v1/receipts").status_code == 200


def test_a_suspended_merchants_keys_open_nothing_until_it_is_resumed(api: Api) -> None:
    merchant = api.merchant("a suspended merchant")
    api.services.api_keys.suspend(merchant.merchant)
    suspended = merchant.get("/v1/receipts")

    api.services.api_keys.resume(merchant.merchant)
    resumed = api.merchant("a suspended merchant").get("/v1/receipts")

    assert refusal(suspended) == (403, FORBIDDEN, "account_suspended", None)
    assert resumed.status_code == 200


OF_SECRET_KEYS: Final = [route for route in ROUTES if not route.takes_publishable_keys]


def test_few_routes_take_publishable_keys() -> None:
    taking = [f"{each.method} {each.path}" for each in ROUTES if each.takes_publishable_keys]

    assert taking == [
        "POST /v1/payment_methods",
        "POST /v1/payment_intents",
        "POST /v1/payment_intents/<intent_id>/confirm",
        "GET /v1/payment_intents/<intent_id>",
    ]


@pytest.mark.parametrize("route", OF_SECRET_KEYS, ids=lambda route: f"{route.method} {route.path}")
def test_a_publishable_key_moves_and_reads_no_money(api: Api, route: Any) -> None:
    merchant = api.merchant(type=KeyType.PUBLISHABLE)

    response = merchant.request(route.method, concrete(route.path))

    assert merchant.key is not None
    assert merchant.key.startswith("pk_test_")
    words = AUTH_ERROR.get(route.family, FORBIDDEN)
    assert refusal(response) == (403, words, "publishable_key_not_allowed", None)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_wants_its_scope(api: Api, route: Any) -> None:
    merchant = api.merchant(scopes=[scope for scope in Scope if scope not in route.scopes])

    response = merchant.request(route.method, concrete(route.path))

    words = AUTH_ERROR.get(route.family, FORBIDDEN)
    assert refusal(response) == (403, words, "scope_missing", None)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_wants_a_key(api: Api, route: Any) -> None:
    response = api.nobody().request(route.method, concrete(route.path))

    words = AUTH_ERROR.get(route.family, UNAUTHENTICATED)
    assert refusal(response) == (401, words, "missing_api_key", None)


def test_a_reading_key_reads_and_a_writing_key_writes(api: Api) -> None:
    reader = api.merchant("a merchant of scopes", scopes=[Scope.PAYMENTS_READ])
    writer = api.merchant("a merchant of scopes", scopes=[Scope.PAYMENTS_WRITE])

    payment_id = writer.authorized()["payment_id"]

    assert reader.receipt(payment_id)["status"] == "authorized"
    assert error_of(writer.get(f"/v1/receipts/{payment_id}"), 403)["code"] == "scope_missing"
    assert error_of(reader.void(payment_id), 403)["code"] == "scope_missing"


def concrete(path: str) -> str:
    """The route's path with some ids in it."""
    return re.sub(r"<[^>]*>", "x", path)


# --- merchants and modes ------------------------------------------------------------------------


OF_NO_OBJECT: Final = {
    "POST /v1/authorizations",
    "POST /v1/customers",
    "POST /v1/payment_methods",
    "GET /v1/balance",
    "GET /v1/customers/search",
    "GET /v1/payment_intents/search",
    "GET /v1/charges/search",
}
# What only a richer bank than this one makes: tests/api/test_disputes.py and test_subscriptions.py walk it.
OF_A_RICHER_BANK: Final = re.compile(
    r"\w+ /v1/(disputes|subscriptions|invoices|test_helpers/test_clocks)\b"
)


@pytest.fixture(params=["another merchant", "the same merchant, live"])
def stranger(api: Api, merchant: Caller, request: pytest.FixtureRequest) -> Caller:
    if request.param == "another merchant":
        return api.merchant()
    return api.merchant(merchant.merchant, mode=Mode.LIVE)


def test_on_every_route_anothers_object_is_a_404(merchant: Caller, stranger: Caller) -> None:
    """Walks all routes; a new one that names an object fails here until it is added."""
    captured = merchant.captured()
    payment_id, order_id = captured["payment_id"], captured["order_id"]
    charge = payment_id.replace("pay_", "ch_")
    refund_id = shaped(RefundOut, merchant.refund(payment_id), 201)["id"]
    named = {"payment_id": payment_id}

    answers = {
        **of_people(merchant, stranger, charge),
        "POST /v1/captures": [stranger.post("/v1/captures", named)],
        "POST /v1/voids": [stranger.post("/v1/voids", named)],
        "POST /v1/refunds": [
            stranger.post("/v1/refunds", named),
            stranger.post("/v1/refunds", {"charge": charge}),
        ],
        "GET /v1/refunds": [
            stranger.get(f"/v1/refunds?payment_id={payment_id}"),
            stranger.get(f"/v1/refunds?charge={charge}"),
            stranger.get(f"/v1/refunds?starting_after={refund_id}"),
        ],
        "GET /v1/refunds/<refund_id>": [stranger.get(f"/v1/refunds/{refund_id}")],
        "GET /v1/receipts": [stranger.get(f"/v1/receipts?ending_before={payment_id}")],
        "GET /v1/receipts/<payment_id>": [
            stranger.get(f"/v1/receipts/{payment_id}{query}")
            for query in ("", "?version=1", "?as_of=2030-01-01T00:00:00Z")
        ],
        "GET /v1/orders/<any_text:order_id>": [stranger.get(f"/v1/orders/{order_id}")],
        **of_events(merchant, stranger),
    }

    # The asynchronous family says so in words of its own: tests/api/test_async_family.py walks it.
    every = {f"{each.method} {each.path}" for each in ROUTES if each not in async_family.ROUTES}
    assert {each for each in every if not OF_A_RICHER_BANK.match(each)} == {
        *answers,
        *OF_NO_OBJECT,
    }
    for response in (one for several in answers.values() for one in several):
        assert brief(error_of(response, 404), "type") == ("resource_missing",)
    assert json_of(stranger.get("/v1/receipts"))["data"] == []
    assert json_of(stranger.get("/v1/refunds"))["data"] == []
    assert json_of(stranger.get(f"/v1/receipts?order_id={order_id}"))["data"] == []


def people_of(merchant: Caller) -> tuple[str, str, str]:
    """The ids of a customer, of a payment method of theirs, and of an intent."""
    card = {"type": "card", "card": GOOD_CARD}
    customer = json_of(merchant.post("/v1/customers", {"name": "Mallory"}))["id"]
    method = json_of(merchant.post("/v1/payment_methods", card))["id"]
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})
    return customer, method, json_of(merchant.post("/v1/payment_intents", an_intent()))["id"]


def of_people(merchant: Caller, stranger: Caller, charge: str) -> dict[str, list[TestResponse]]:
    """What a stranger is told of a customer, their payment method, and an intent."""
    customer, method, intent = people_of(merchant)
    mine, theirs = f"/v1/customers/{customer}", f"/v1/payment_methods/{method}"
    wanted = f"/v1/payment_intents/{intent}"
    return {
        "GET /v1/customers": [stranger.get(f"/v1/customers?starting_after={customer}")],
        "GET /v1/customers/<customer_id>": [stranger.get(mine)],
        "POST /v1/customers/<customer_id>": [stranger.post(mine, {"name": "Eve"})],
        "PATCH /v1/customers/<customer_id>": [
            stranger.request("PATCH", mine, json={"name": "Eve"})
        ],
        "DELETE /v1/customers/<customer_id>": [stranger.request("DELETE", mine)],
        "GET /v1/customers/<customer_id>/payment_methods": [
            stranger.get(f"{mine}/payment_methods")
        ],
        "GET /v1/customers/<customer_id>/payment_methods/<method_id>": [
            stranger.get(f"{mine}/payment_methods/{method}")
        ],
        "GET /v1/payment_methods": [
            stranger.get(f"/v1/payment_methods?customer={customer}"),
            stranger.get(f"/v1/payment_methods?ending_before={method}"),
        ],
        "GET /v1/payment_methods/<method_id>": [stranger.get(theirs)],
        "POST /v1/payment_methods/<method_id>": [stranger.post(theirs, {"metadata": {"a": "b"}})],
        "POST /v1/payment_methods/<method_id>/attach": [
            stranger.post(f"{theirs}/attach", {"customer": customer})
        ],
        "POST /v1/payment_methods/<method_id>/detach": [stranger.post(f"{theirs}/detach", {})],
        **of_intents(stranger, wanted, customer, method),
        **of_charges(stranger, intent, charge),
    }


def of_intents(
    stranger: Caller, wanted: str, customer: str, method: str
) -> dict[str, list[TestResponse]]:
    """What a stranger is told of an intent, which is `wanted`."""
    intent = wanted.rpartition("/")[2]
    return {
        "POST /v1/payment_intents": [
            stranger.post("/v1/payment_intents", an_intent(customer=customer)),
            stranger.post("/v1/payment_intents", an_intent(payment_method=method)),
        ],
        "GET /v1/payment_intents": [stranger.get(f"/v1/payment_intents?starting_after={intent}")],
        "GET /v1/payment_intents/<intent_id>": [stranger.get(wanted)],
        "POST /v1/payment_intents/<intent_id>": [stranger.post(wanted, {"amount": 100})],
        "POST /v1/payment_intents/<intent_id>/confirm": [
            stranger.post(f"{wanted}/confirm", {"payment_method": "pm_card_visa"})
        ],
        "POST /v1/payment_intents/<intent_id>/capture": [stranger.post(f"{wanted}/capture", {})],
        "POST /v1/payment_intents/<intent_id>/cancel": [stranger.post(f"{wanted}/cancel", {})],
    }


def of_events(merchant: Caller, stranger: Caller) -> dict[str, list[TestResponse]]:
    """What a stranger is told of an event."""
    (event, *_) = json_of(merchant.get("/v1/events?limit=1"))["data"]
    return {
        "GET /v1/events": [stranger.get(f"/v1/events?starting_after={event['id']}")],
        "GET /v1/events/<event_id>": [stranger.get(f"/v1/events/{event['id']}")],
    }


def of_charges(stranger: Caller, intent: str, charge: str) -> dict[str, list[TestResponse]]:
    """What a stranger is told of a charge."""
    return {
        "GET /v1/charges": [
            stranger.get(f"/v1/charges?payment_intent={intent}"),
            stranger.get(f"/v1/charges?starting_after={charge}"),
        ],
        "GET /v1/charges/<charge_id>": [stranger.get(f"/v1/charges/{charge}")],
    }


def an_intent(**fields: Any) -> dict[str, Any]:
    return {"amount": 1000, "currency": "usd", **fields}


def test_an_idempotency_key_is_the_merchants_and_the_modes_own(
    merchant: Caller, stranger: Caller
) -> None:
    mine = merchant.authorize(key="the same key", amount=1)
    theirs = stranger.authorize(key="the same key", amount=2)

    assert (json_of(mine)["amount"], json_of(theirs)["amount"]) == (1, 2)
    assert "Idempotent-Replayed" not in theirs.headers


def test_a_test_order_and_a_live_order_are_two(api: Api, merchant: Caller) -> None:
    live = api.merchant(merchant.merchant, mode=Mode.LIVE)

    for one in (merchant, live):
        assert one.authorized(order_id="the same order")["status"] == "authorized"

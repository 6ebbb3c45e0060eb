"""Who may ask, and whose data it is: merchants and modes never see one another."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from api.app import ROUTES
from api.async_family import routes as async_family
from api.schemas import RefundOut
from domain.commands import Mode
from infrastructure.api_keys import KeyType, Scope
from tests.api.an_api import (
    GOOD_CARD,
    Api,
    Caller,
    error_of,
    fresh,
    json_of,
    refusal,
    shaped,
)

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
        "POST /v1/tokens",
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


# Operations that take no id of ours; what a merchant is told there is their own, and nobody else's.
OF_NO_OBJECT: Final = {
    "POST /v1/tokens",
    "POST /v1/customers",
    "POST /v1/payment_methods",
    "POST /v1/webhook_endpoints",
    "GET /v1/balance",
    "GET /v1/customers/search",
    "GET /v1/payment_intents/search",
    "GET /v1/charges/search",
    "GET /v1/health",
    "GET /health",
    # Of the whole log, to keys for it: tests/api/test_audit.py shows what they tell of others.
    "GET /v1/audit/checkpoint",
    "GET /v1/audit/key",
    "GET /v1/audit/events",
    "GET /v1/audit/proof",
}
# What only a richer bank than this one makes: tests/api/test_disputes.py and test_subscriptions.py walk it.
OF_A_RICHER_BANK: Final = re.compile(
    r"\w+ /v1/(disputes|subscriptions|invoices|test_helpers/test_clocks)\b"
)
Asked = tuple[str, Any]  # a path, and a body


@pytest.fixture(params=["another merchant", "the same merchant, live"])
def stranger(api: Api, merchant: Caller, request: pytest.FixtureRequest) -> Caller:
    if request.param == "another merchant":
        return api.merchant()
    return api.merchant(merchant.merchant, mode=Mode.LIVE)


def test_in_every_operation_anothers_object_is_a_404_and_ones_own_is_not(
    merchant: Caller, stranger: Caller
) -> None:
    """Walks all operations of the OpenAPI document; a new one that names an object fails here until it is
    added."""
    ids = things_of(merchant)
    walk = {
        **of_payments(ids),
        **of_money_at_once(ids),
        **of_people(ids),
        **of_intents(ids),
        **of_the_asynchronous(ids),
    }
    walk |= of_webhooks(ids)
    document = json_of(merchant.get("/openapi.json"))

    asked_of_any = {each for each in operations(document) if not OF_A_RICHER_BANK.match(each)}
    assert asked_of_any == {*walk, *OF_NO_OBJECT}
    for operation, asked in walk.items():
        for each in asked:
            answer = put(stranger, operation, each)
            assert answer.status_code == 404, (operation, each, answer.text)
            assert error_of(answer, 404)["code"].endswith("_not_found")
    for operation, asked in sorted(walk.items()):  # what is deleted is so at the end
        for each in asked if not operation.startswith("DELETE") else ():
            answer = put(merchant, operation, each)
            assert answer.status_code != 404, (operation, each, answer.text)
    for path, _ in walk["DELETE /v1/customers/{customer_id}"]:
        assert merchant.request("DELETE", path).status_code == 204


def test_in_no_list_search_or_sum_is_anything_of_anothers(
    merchant: Caller, stranger: Caller
) -> None:
    ids = things_of(merchant)
    document = json_of(merchant.get("/openapi.json"))
    lists = [
        path
        for path, methods in document["paths"].items()
        if "get" in methods and not any(part in path for part in ("{", "health", "/audit/"))
        if not OF_A_RICHER_BANK.match(f"GET {path}")
    ]

    for path in [
        *lists,
        f"/v1/receipts?order_id={ids['order']}",
        f"/v1/charges?customer={ids['customer']}",
    ]:
        query = {"query": "created>1"} if path.endswith("/search") else None
        theirs, mine = (caller.get(path, query_string=query) for caller in (stranger, merchant))
        assert (theirs.status_code, mine.status_code) == (200, 200), path
        assert not any(each in theirs.text for each in ids.values()), path
        assert theirs.text != mine.text or "/charges?" in path, path


def operations(document: Mapping[str, Any]) -> set[str]:
    """All that the document has, as it names them."""
    return {
        f"{method.upper()} {path}"
        for path, methods in document["paths"].items()
        for method in methods
    }


def put(caller: Caller, operation: str, asked: Asked) -> TestResponse:
    method, (path, body) = operation.partition(" ")[0], asked
    if method == "GET":
        return caller.get(path)
    headers = {"Idempotency-Key": fresh("walk")}
    return caller.request(method, path, json=body, headers=headers)


def things_of(merchant: Caller) -> dict[str, str]:
    """One of everything that has an id."""
    captured = merchant.captured()
    payment = captured["payment_id"]
    card = {"type": "card", "card": GOOD_CARD}
    customer = json_of(merchant.post("/v1/customers", {"name": "Mallory"}))["id"]
    method = json_of(merchant.post("/v1/payment_methods", card))["id"]
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})
    waiting = {"customer_id": "cus_123", "payment_method_id": "pm_fake_visa"}
    return {
        "payment": payment,
        "order": captured["order_id"],
        "charge": payment.replace("pay_", "ch_"),
        "refund": shaped(RefundOut, merchant.refund(payment), 201)["id"],
        "customer": customer,
        "token": json_of(merchant.post("/v1/tokens", {"card": GOOD_CARD}))["id"],
        "method": method,
        "intent": json_of(merchant.post("/v1/payment_intents", an_intent()))["id"],
        "waiting": json_of(merchant.post("/payment_intents", an_intent(**waiting)))["id"],
        "movement": first_of(merchant, "/v1/balance_transactions"),
        **things_of_webhooks(merchant),
    }


def things_of_webhooks(merchant: Caller) -> dict[str, str]:
    """An event, an endpoint, and the delivery of one to the other."""
    event, wanted = first_of(merchant, "/v1/events"), {"enabled_events": ["*"]}
    created = merchant.post("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/", **wanted})
    endpoint = json_of(created)["id"]
    merchant.post(f"/v1/events/{event}/resend", {"webhook_endpoint": endpoint})
    delivery = first_of(merchant, f"/v1/webhook_endpoints/{endpoint}/deliveries")
    return {"event": event, "endpoint": endpoint, "delivery": delivery}


def first_of(merchant: Caller, path: str) -> str:
    return str(json_of(merchant.get(f"{path}?limit=1"))["data"][0]["id"])


def of_payments(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What names a payment, a refund, a charge or an event."""
    payment, charge, refund = ids["payment"], ids["charge"], ids["refund"]
    named, movements = {"payment_id": payment}, "/v1/balance_transactions"
    return {
        "POST /v1/captures": [("/v1/captures", named)],
        "POST /v1/voids": [("/v1/voids", named)],
        "POST /v1/refunds": [("/v1/refunds", named), ("/v1/refunds", {"charge": charge})],
        "GET /v1/refunds": [
            (f"/v1/refunds?payment_id={payment}", None),
            (f"/v1/refunds?charge={charge}", None),
            (f"/v1/refunds?starting_after={refund}", None),
        ],
        "GET /v1/refunds/{refund_id}": [(f"/v1/refunds/{refund}", None)],
        "POST /v1/refunds/{refund_id}": [(f"/v1/refunds/{refund}", {"metadata": {"a": "b"}})],
        f"GET {movements}": [(f"{movements}?ending_before={ids['movement']}", None)],
        f"GET {movements}/{{transaction_id}}": [(f"{movements}/{ids['movement']}", None)],
        "GET /v1/receipts": [(f"/v1/receipts?ending_before={payment}", None)],
        "GET /v1/receipts/{payment_id}": [
            (f"/v1/receipts/{payment}{query}", None)
            for query in ("", "?version=1", "?as_of=2030-01-01T00:00:00Z", "?proof=true")
        ],
        "GET /v1/payments/{payment_id}/history": [(f"/v1/payments/{payment}/history", None)],
        "GET /v1/orders/{order_id}": [(f"/v1/orders/{ids['order']}", None)],
        "GET /v1/charges": [
            (f"/v1/charges?payment_intent={ids['intent']}", None),
            (f"/v1/charges?starting_after={charge}", None),
        ],
        "GET /v1/charges/{charge_id}": [(f"/v1/charges/{charge}", None)],
        "GET /v1/events": [(f"/v1/events?starting_after={ids['event']}", None)],
        "GET /v1/events/{event_id}": [(f"/v1/events/{ids['event']}", None)],
    }


def of_money_at_once(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What is paid with something, or for somebody; and payments in their own vocabulary."""
    payment, customer = ids["payment"], ids["customer"]
    held = {"order_id": fresh("ORD"), "customer_id": customer, "amount": 1000}
    body, by_card = {"amount": 1000, "currency": "usd"}, {"type": "card", **GOOD_CARD}
    by_token = {"type": "card", "token": ids["token"]}
    return {
        "POST /v1/authorizations": [
            ("/v1/authorizations", held | {"payment_method": ids["method"]})
        ],
        "POST /v1/payments": [
            ("/v1/payments", body | {"source": by_token}),
            ("/v1/payments", body | {"source": by_card, "customer_id": customer}),
        ],
        "GET /v1/payments": [(f"/v1/payments?starting_after={payment}", None)],
        "GET /v1/payments/{payment_id}": [(f"/v1/payments/{payment}", None)],
        "POST /v1/payments/{payment_id}/confirm": [
            (f"/v1/payments/{payment}/confirm", {"return_url": "https://shop.test"})
        ],
    }


def of_webhooks(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What names an endpoint, a delivery, or an event to deliver."""
    all_of_them, one = "/v1/webhook_endpoints", "/v1/webhook_endpoints/{endpoint_id}"
    endpoint = f"{all_of_them}/{ids['endpoint']}"
    return {
        f"GET {all_of_them}": [(f"{all_of_them}?starting_after={ids['endpoint']}", None)],
        f"GET {one}": [(endpoint, None)],
        f"POST {one}": [(endpoint, {"disabled": True})],
        f"PATCH {one}": [(endpoint, {"disabled": True})],
        f"DELETE {one}": [(endpoint, None)],
        f"POST {one}/rotate_secret": [(f"{endpoint}/rotate_secret", {})],
        f"GET {one}/deliveries": [
            (f"{endpoint}/deliveries", None),
            (f"{endpoint}/deliveries?starting_after={ids['delivery']}", None),
        ],
        "POST /v1/events/{event_id}/resend": [(f"/v1/events/{ids['event']}/resend", {})],
    }


def of_people(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What names a customer or a payment method."""
    customer, method = ids["customer"], ids["method"]
    whose, which = f"/v1/customers/{customer}", f"/v1/payment_methods/{method}"
    one, card = "/v1/customers/{customer_id}", "/v1/payment_methods/{method_id}"
    return {
        "GET /v1/customers": [(f"/v1/customers?starting_after={customer}", None)],
        f"GET {one}": [(whose, None)],
        f"POST {one}": [(whose, {"name": "Eve"})],
        f"PATCH {one}": [(whose, {"name": "Eve"})],
        f"DELETE {one}": [(whose, None)],
        f"GET {one}/payment_methods": [(f"{whose}/payment_methods", None)],
        f"GET {one}/payment_methods/{{method_id}}": [(f"{whose}/payment_methods/{method}", None)],
        "GET /v1/payment_methods": [
            (f"/v1/payment_methods?customer={customer}", None),
            (f"/v1/payment_methods?ending_before={method}", None),
        ],
        f"GET {card}": [(which, None)],
        f"POST {card}": [(which, {"metadata": {"a": "b"}})],
        f"POST {card}/attach": [(f"{which}/attach", {"customer": customer})],
        f"POST {card}/detach": [(f"{which}/detach", {})],
    }


def of_intents(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What names an intent, or what it is of."""
    all_of_them, one = "/v1/payment_intents", "/v1/payment_intents/{intent_id}"
    wanted = f"{all_of_them}/{ids['intent']}"
    return {
        f"POST {all_of_them}": [
            (all_of_them, an_intent(customer=ids["customer"])),
            (all_of_them, an_intent(payment_method=ids["method"])),
        ],
        f"GET {all_of_them}": [(f"{all_of_them}?starting_after={ids['intent']}", None)],
        f"GET {one}": [(wanted, None)],
        f"POST {one}": [(wanted, {"amount": 100})],
        f"POST {one}/confirm": [(f"{wanted}/confirm", {"payment_method": "pm_card_visa"})],
        f"POST {one}/capture": [(f"{wanted}/capture", {})],
        f"POST {one}/cancel": [(f"{wanted}/cancel", {})],
    }


def of_the_asynchronous(ids: Mapping[str, str]) -> dict[str, list[Asked]]:
    """What names something there."""
    waiting = ids["waiting"]
    paid_with = an_intent(customer_id="cus_123", payment_method_id=ids["method"])
    return {
        "POST /payment_intents": [("/payment_intents", paid_with)],
        "GET /payment_intents/{intent_id}": [(f"/payment_intents/{waiting}", None)],
        "PATCH /payment_intents/{intent_id}/confirm": [(f"/payment_intents/{waiting}/confirm", {})],
        "GET /payments/{intent_id}": [(f"/payments/{waiting}", None)],
        "POST /refunds": [("/refunds", {"payment_id": ids["payment"], "amount": 1})],
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

"""Every operation that there is, about to happen in a process of its own."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from infrastructure.duties import work_on_disputes
from tests.api.an_api import EMPTY_CARD, GOOD_CARD, Caller, an_authorization, fresh, json_of
from tests.api.billing import CLOCKS, DAY, GOOD, START, a_customer, a_subscriber, answered
from tests.faults.a_world import Request, Scene, World, uuid_text

EIGHT_DAYS_SECONDS: Final = 8 * 24 * 3600


def a_request(
    merchant: Caller, path: str, body: dict[str, Any], *, status: int = 201, **faults: Any
) -> Scene:
    headers = {"Authorization": f"Bearer {merchant.key}", "Idempotency-Key": fresh("key")}
    return Scene(
        act={"post": path, "body": body, "headers": headers},
        faults=faults,
        request=Request(path=path, body=body, headers=headers, final_status=status),
    )


def authorization(world: World, *, card: Mapping[str, Any] = GOOD_CARD, **how: Any) -> Scene:
    return a_request(world.merchant(), "/v1/authorizations", an_authorization(card=card), **how)


def capture(world: World, **faults: Any) -> Scene:
    merchant = world.merchant()
    body = {"payment_id": merchant.authorized()["payment_id"]}
    return a_request(merchant, "/v1/captures", body, **faults)


def void(world: World, **faults: Any) -> Scene:
    merchant = world.merchant()
    body = {"payment_id": merchant.authorized()["payment_id"]}
    return a_request(merchant, "/v1/voids", body, **faults)


def refund(world: World, **faults: Any) -> Scene:
    merchant = world.merchant()
    body = {"payment_id": merchant.captured()["payment_id"]}
    return a_request(merchant, "/v1/refunds", body, **faults)


def an_intent(merchant: Caller) -> dict[str, Any]:
    method = merchant.post("/v1/payment_methods", {"type": "card", "card": GOOD_CARD})
    return {"amount": 5000, "currency": "usd", "payment_method": json_of(method)["id"]}


def paid_intent(world: World, **faults: Any) -> Scene:
    """Created, authorized and captured by one request."""
    merchant = world.merchant()
    body = an_intent(merchant) | {"confirm": True}
    return a_request(merchant, "/v1/payment_intents", body, **faults)


def confirmed_intent(world: World, **faults: Any) -> Scene:
    merchant = world.merchant()
    intent = json_of(merchant.post("/v1/payment_intents", an_intent(merchant)))
    path = f"/v1/payment_intents/{intent['id']}/confirm"
    return a_request(merchant, path, {"expand": ["latest_charge"]}, status=200, **faults)


def payment(world: World, **faults: Any) -> Scene:
    """Asked for as such: held and captured by one request."""
    source = {"type": "card", **GOOD_CARD}
    body = {"amount": 5000, "currency": "usd", "source": source}
    return a_request(world.merchant(), "/v1/payments", body, **faults)


def payment_by_token(world: World, **faults: Any) -> Scene:
    merchant = world.merchant()
    token = json_of(merchant.post("/v1/tokens", {"card": GOOD_CARD}))["id"]
    body = {"amount": 5000, "currency": "usd", "source": {"type": "card", "token": token}}
    return a_request(merchant, "/v1/payments", body, **faults)


def canceled_intent(world: World) -> Scene:
    """Given up, with what it held."""
    merchant = world.merchant()
    body = an_intent(merchant) | {"confirm": True, "capture_method": "manual"}
    intent = json_of(merchant.post("/v1/payment_intents", body))
    return a_request(merchant, f"/v1/payment_intents/{intent['id']}/cancel", {}, status=200)


def dispute(world: World) -> Scene:
    """One that the bank tells of, and one that was answered."""
    merchant = world.merchant()
    body = {"amount": 5000, "currency": "usd", "payment_method": "pm_card_createDispute"}
    for _ in range(2):
        assert merchant.post("/v1/payment_intents", {**body, "confirm": True}).status_code == 201
        work_on_disputes(world.api.services)
    (_, known) = json_of(merchant.get("/v1/disputes"))["data"]
    merchant.post(f"/v1/disputes/{known['id']}/close", {})
    assert merchant.post("/v1/payment_intents", {**body, "confirm": True}).status_code == 201
    return Scene(act={"disputes": True})


def subscription(world: World) -> Scene:
    merchant = world.merchant()
    body = {"amount": 5000, "currency": "usd", "interval": "month"}
    subscriber = {"customer": a_customer(merchant), "default_payment_method": GOOD}
    return a_request(merchant, "/v1/subscriptions", {**body, **subscriber})


def billing(world: World) -> Scene:
    """A period that begins, and is paid."""
    merchant = world.merchant()
    clock, _ = a_subscriber(merchant, interval="day")
    answered(merchant.post(f"{CLOCKS}/{clock}/advance", {"frozen_time": START + DAY}))
    return Scene(act={"bill": True})


def expiry(world: World) -> Scene:
    """As if the bank had held the money eight days ago: its hold was for seven."""
    merchant = world.merchant()
    world.bank.faults(clock_offset_seconds=-EIGHT_DAYS_SECONDS)
    payment_id = merchant.authorized()["payment_id"]
    world.bank.faults(reset=True)
    assert merchant.record is not None
    tenant = [merchant.record.merchant_id, merchant.record.mode.value]
    return Scene(act={"expire": uuid_text(payment_id), "tenant": tenant})


def resumed(world: World, asked: Scene, **faults: Any) -> Scene:
    """A worker takes up what a request got no answer to. The client asks again later."""
    assert asked.request is not None
    world.bank.faults(**asked.faults)
    waiting = world.ask(asked.request)
    assert waiting.status_code == 202, waiting.text
    world.bank.faults(reset=True)
    world.only_due(json_of(waiting)["payment_id"])
    return Scene(act={"take_up": True}, faults=faults, request=asked.request)


SCENES: Final[Mapping[str, Callable[[World], Scene]]] = {
    "authorization": authorization,
    "decline": lambda world: authorization(world, card=EMPTY_CARD, status=402),
    "authorization that fails once": lambda world: authorization(world, fail_before=1),
    "authorization without an answer": lambda world: authorization(world, drop_before=1),
    "capture": capture,
    "capture that is done without an answer": lambda world: capture(world, drop_after=1),
    "void": void,
    "refund": refund,
    "intent paid by one request": paid_intent,
    "intent whose capture has no answer": lambda world: paid_intent(world, drop_after=1),
    "intent confirmed": confirmed_intent,
    "payment at once, without an answer": lambda world: payment(world, drop_after=1),
    "payment by a token": payment_by_token,
    "intent given up": canceled_intent,
    "dispute": dispute,
    "subscription": subscription,
    "billing": billing,
    "expiry": expiry,
    "authorization taken up": lambda w: resumed(w, authorization(w, drop_before=1)),
    "capture taken up": lambda w: resumed(w, capture(w, drop_after=1)),
    "refund taken up again": lambda w: resumed(w, refund(w, drop_before=1), drop_before=1),
}

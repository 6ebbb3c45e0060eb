"""`/v1/events`: what merchants are told of, with things as they stood then."""

import re
from typing import Any, LiteralString

import pytest

from api.http import API_VERSION
from api.payments.schemas import EventList
from domain.ids import Prefix, decode
from infrastructure.api_keys import Scope
from infrastructure.shards import shard_of
from tests.api.an_api import EMPTY_CARD, GOOD_CARD, Api, Caller, error_of, refusal, shaped
from tests.api.test_intents import INTENTS, a_method, an_intent, answered, created
from tests.builders import CHALLENGED_VISA

EVENTS = "/v1/events"
SET_ASIDE: LiteralString = """
    INSERT INTO projection_quarantine
        (name, generation, shard, originator_id, applied_version, error, attempts)
    VALUES ('api_events', 1, %(shard)s, %(id)s, 0, 'for want of a reason', 1)
"""
# The follower cannot move while somebody else has these.
HOLD: LiteralString = "SELECT FROM projection_positions WHERE name = 'api_events' FOR UPDATE"


def told(merchant: Caller, query: str = "") -> list[dict[str, Any]]:
    """The events, oldest first."""
    page = shaped(EventList, merchant.get(f"{EVENTS}?limit=100{query}"), 200)
    return list(reversed(page["data"]))


def types(merchant: Caller, query: str = "") -> set[str]:
    return {each["type"] for each in told(merchant, query)}


def of_type(merchant: Caller, kind: str) -> dict[str, Any]:
    (event,) = told(merchant, f"&type={kind}")
    return event


def test_a_payment_by_the_gateway_tells_of_payments_and_refunds(merchant: Caller) -> None:
    merchant.refunded()

    assert types(merchant) == {
        "payment.authorized",
        "payment.succeeded",
        "refund.created",
        "refund.succeeded",
        "charge.refunded",
    }


def test_an_intent_tells_of_itself_its_charge_and_its_payment(merchant: Caller) -> None:
    paid = created(merchant, payment_method=a_method(merchant), confirm=True)

    assert types(merchant) == {
        "payment_intent.created",
        "payment_intent.processing",
        "payment.succeeded",
        "charge.succeeded",
        "payment_intent.succeeded",
    }
    shown = of_type(merchant, "payment_intent.succeeded")["data"]["object"]
    assert shown == answered(merchant.get(f"{INTENTS}/{paid['id']}"), 200)
    charge = of_type(merchant, "charge.succeeded")["data"]["object"]
    assert charge == answered(merchant.get(f"/v1/charges/{paid['latest_charge']}"), 200)


def test_things_are_told_as_they_stood_then(merchant: Caller) -> None:
    intent = created(merchant)
    refused = {"payment_method": a_method(merchant, EMPTY_CARD)}
    merchant.post(f"{INTENTS}/{intent['id']}/confirm", refused)
    held = {"payment_method": a_method(merchant)}
    answered(merchant.post(f"{INTENTS}/{intent['id']}/confirm", held), 200)

    by_type: dict[str, list[str]] = {}
    for event in told(merchant, "&type=payment_intent.*"):
        thing = event["data"]["object"]
        assert thing["id"] == intent["id"]
        by_type.setdefault(event["type"], []).append(thing["status"])

    assert by_type == {
        "payment_intent.created": ["requires_payment_method"],
        "payment_intent.processing": ["processing", "processing"],
        "payment_intent.payment_failed": ["requires_payment_method"],
        "payment_intent.succeeded": ["succeeded"],
    }
    failed = of_type(merchant, "payment_intent.payment_failed")["data"]["object"]
    assert failed["last_payment_error"]["code"] == "card_declined"
    assert of_type(merchant, "charge.failed")["data"]["object"]["status"] == "failed"
    assert of_type(merchant, "payment.failed")["data"]["object"]["status"] == "failed"


def test_a_held_intent_is_told_of_as_it_is_captured(merchant: Caller) -> None:
    held = created(
        merchant, payment_method=a_method(merchant), confirm=True, capture_method="manual"
    )
    answered(merchant.post(f"{INTENTS}/{held['id']}/capture", {}), 200)

    then = of_type(merchant, "payment_intent.amount_capturable_updated")["data"]["object"]
    assert (then["status"], then["amount_capturable"]) == ("requires_capture", 2000)
    assert of_type(merchant, "charge.succeeded")["data"]["object"]["captured"] is False
    assert of_type(merchant, "charge.captured")["data"]["object"]["captured"] is True
    assert of_type(merchant, "payment.authorized")["data"]["object"]["status"] == "authorized"


@pytest.mark.parametrize("how", ["nothing tried", "declined", "held", "held, by the payment"])
def test_a_canceled_intent_is_told_of_once_and_when_it_is(merchant: Caller, how: str) -> None:
    card = EMPTY_CARD if how == "declined" else None
    method = {"payment_method": a_method(merchant, card), "confirm": True}
    fields = {"capture_method": "manual", **({} if how == "nothing tried" else method)}
    merchant.post(INTENTS, an_intent(**fields))
    intent = answered(merchant.get(INTENTS), 200)["data"][0]
    if how == "held, by the payment":
        answered(merchant.void(intent["latest_charge"].replace("ch_", "pay_")), 201)
    else:
        answered(merchant.post(f"{INTENTS}/{intent['id']}/cancel", {}), 200)

    assert of_type(merchant, "payment_intent.canceled")["data"]["object"]["status"] == "canceled"


def test_customers_and_their_cards_are_told_of(merchant: Caller) -> None:
    fields = {"email": "ada@example.com", "metadata": {"a": "1"}}
    customer = answered(merchant.post("/v1/customers", fields), 201)["id"]
    method = a_method(merchant)
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})
    merchant.post(f"/v1/customers/{customer}", {"metadata": {"b": "2"}})

    updated = of_type(merchant, "customer.updated")["data"]
    assert updated["object"]["metadata"] == {"a": "1", "b": "2"}
    assert updated["object"]["email"] == "ada@example.com"
    assert updated["previous_attributes"] == {"metadata": {"a": "1"}}
    attached = of_type(merchant, "payment_method.attached")["data"]
    assert attached["object"]["customer"] == customer
    assert attached["previous_attributes"] is None

    merchant.request("DELETE", f"/v1/customers/{customer}")

    assert types(merchant, "&types[]=customer.deleted&types[]=payment_method.detached") == {
        "customer.deleted",
        "payment_method.detached",
    }
    assert "ada@" not in merchant.get(f"{EVENTS}?limit=100").text


def test_an_event_says_by_which_request_it_came_about(merchant: Caller) -> None:
    response = merchant.post("/v1/customers", {}, key="a key of ours")

    event = of_type(merchant, "customer.created")

    request = {"id": response.headers["Request-Id"], "idempotency_key": "a key of ours"}
    assert event["request"] == request
    assert re.fullmatch(r"evt_[0-9a-z]{26}", event["id"])
    assert (event["object"], event["api_version"]) == ("event", API_VERSION)
    assert (event["livemode"], event["pending_webhooks"]) == (False, 0)
    assert event["created"] == event["data"]["object"]["created"]
    assert answered(merchant.get(f"{EVENTS}/{event['id']}"), 200) == event


def test_pages_and_times_find_the_same_events(merchant: Caller) -> None:
    merchant.refunded()
    created(merchant, payment_method=a_method(merchant), confirm=True)
    whole = [each["id"] for each in reversed(told(merchant))]

    seen, page = [], ""
    while True:
        body = answered(merchant.get(f"{EVENTS}?limit=3{page}"), 200)
        seen += [each["id"] for each in body["data"]]
        if not body["has_more"]:
            break
        page = f"&starting_after={body['next_cursor']}"
    back = answered(merchant.get(f"{EVENTS}?limit=2&ending_before={whole[2]}"), 200)

    assert seen == whole
    assert [each["id"] for each in back["data"]] == whole[:2]
    assert told(merchant, "&created[lt]=1000") == []
    assert len(told(merchant, "&created[gte]=1000")) == len(whole)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("type=payment.exploded", "type"),
        ("type=payment", "type"),
        ("type=nothing.*", "type"),
        ("types[]=charge.failed&types[]=x", "types[1]"),
        ("types[]=charge.failed&type=charge.failed", None),
        ("created[gt]=yesterday", "created[gt]"),
        ("limit=0", "limit"),
        ("delivery=1", "delivery"),
    ],
)
def test_what_is_malformed_is_refused(merchant: Caller, query: str, param: str | None) -> None:
    assert error_of(merchant.get(f"{EVENTS}?{query}"), 400).get("param") == param


def test_types_of_what_does_not_happen_here_may_be_asked_for(merchant: Caller) -> None:
    merchant.captured()

    assert told(merchant, "&type=charge.dispute.created") == []


def test_anothers_event_is_not_there(api: Api, merchant: Caller) -> None:
    merchant.captured()
    event_id = told(merchant)[0]["id"]
    missing = (404, "resource_missing", "event_not_found")

    assert refusal(api.merchant().get(f"{EVENTS}/{event_id}"))[:3] == missing
    assert refusal(merchant.get(f"{EVENTS}/evt_{'0' * 26}"))[:3] == missing
    assert refusal(merchant.get(f"{EVENTS}/evt_1"))[:3] == missing
    after = api.merchant().get(f"{EVENTS}?starting_after={event_id}")
    assert refusal(after) == (*missing, "starting_after")


def test_either_scope_opens_events(api: Api) -> None:
    for scope in (Scope.PAYMENTS_READ, Scope.WEBHOOKS_READ):
        assert told(api.merchant(scopes=[scope])) == []


def test_every_answered_command_is_told_of_at_once(merchant: Caller) -> None:
    for number in range(1, 6):
        merchant.authorized()
        assert len(told(merchant)) == number


def test_what_could_not_be_taken_in_is_not_passed_over(api: Api, merchant: Caller) -> None:
    """Of whatever kind it is; others' events are read as ever."""
    customer = answered(merchant.post("/v1/customers", {}), 201)["id"]
    uuid = decode(Prefix.CUSTOMER, customer)
    api.execute(SET_ASIDE, shard=shard_of(uuid), id=uuid)

    assert error_of(merchant.request("GET", EVENTS), 503)["code"] == "service_unavailable"
    assert told(api.merchant()) == []


def test_a_model_that_does_not_have_the_writes_says_so(api: Api, merchant: Caller) -> None:
    with api.services.pool.connection() as connection, connection.transaction():
        connection.execute(HOLD)
        merchant.authorized()
        refused = merchant.request("GET", EVENTS)

    assert error_of(refused, 503)["code"] == "service_unavailable"
    assert "Retry-After" in refused.headers


def test_a_shopper_who_has_to_approve_is_told_of(extended_merchant: Caller) -> None:
    card = {**GOOD_CARD, "number": CHALLENGED_VISA}
    method = a_method(extended_merchant, card)
    extended_merchant.post(INTENTS, an_intent(payment_method=method, confirm=True))
    (waiting,) = answered(extended_merchant.get(INTENTS), 200)["data"]

    thing = of_type(extended_merchant, "payment_intent.requires_action")["data"]["object"]

    assert thing == waiting
    assert thing["next_action"]["type"] == "redirect_to_url"
    plain = of_type(extended_merchant, "payment.requires_action")["data"]["object"]
    assert plain["status"] == "requires_action"

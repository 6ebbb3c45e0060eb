"""What was stored once must load for ever.

`events/` has a file for each topic and class version, with variants where a field may be empty. A
changed event is a new class version with a file of its own; no file here is ever changed.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Final
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent
from eventsourcing.utils import register_topic

from domain.aggregates import PREFIXES
from domain.billing_periods import Interval
from domain.customer import Customer
from domain.dispute import DisputeStatus
from domain.payment import Status
from domain.payment_intent import PaymentIntent, Terms
from domain.payment_method import PaymentMethod
from domain.subscription import INCOMPLETE_FOR, Plan
from domain.token import Token
from infrastructure.event_store import FlatJSON, FlatMapper, UnknownEventVersion
from tests.builders import (
    NOON,
    Story,
    a_card,
    a_subscription,
    a_tenant,
    a_transfer,
    an_id,
    an_invoice,
    dollars,
)

EVENTS = sorted((Path(__file__).parent / "events").glob("*.json"))

mapper = FlatMapper(FlatJSON())


# What later class versions have and earlier files cannot: the fields that are added when one is loaded.
ADDED: Final[Mapping[str, Mapping[int, Mapping[str, object]]]] = {
    "payment.authorization_requested": {
        2: {
            "intent_id": None,
            "payment_method_id": None,
            "card_fingerprint": None,
            "capture_method": "manual",
            "description": None,
            "test_outcome": None,
        }
    },
    "payment_method.created": {2: {"account_last4": None, "account_sort_code": None}},
}


def golden(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return document


def stored(document: dict[str, Any], **more_state: object) -> StoredEvent:
    state = document["state"]
    if more_state:
        state = json.dumps(json.loads(state) | more_state)
    return StoredEvent(
        originator_id=UUID(document["originator_id"]),
        originator_version=document["originator_version"],
        topic=document["topic"],
        state=state.encode(),
    )


def event_classes(*aggregates: type[Any]) -> list[type[Any]]:
    """Every event that these aggregates can have, or any: what says its own topic."""
    return [
        each
        for aggregate in aggregates or PREFIXES
        for _, each in inspect.getmembers(aggregate, inspect.isclass)
        if issubclass(each, aggregate.Event)
        and each is not aggregate.Event
        and "TOPIC" in vars(each)
    ]


def class_version(event_class: type[Any]) -> int:
    return int(getattr(event_class, "class_version", 1))


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_a_stored_event_loads_as_it_always_did(path: Path) -> None:
    document = golden(path)
    expected = dict(document["loads_as"])
    for version, added in ADDED.get(document["topic"], {}).items():
        expected |= added if version > document["class_version"] else {}

    event = mapper.to_domain_event(stored(document))

    assert type(event).__qualname__ == expected.pop("class")
    assert event.originator_id == UUID(document["originator_id"])
    assert event.originator_version == document["originator_version"]
    assert event.timestamp == datetime.fromisoformat(expected.pop("timestamp"))
    fields = {"originator_id", "originator_version", "timestamp"}
    assert {name: value for name, value in vars(event).items() if name not in fields} == expected


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_a_loaded_event_is_stored_as_the_same_bytes(path: Path) -> None:
    document = golden(path)
    event = mapper.to_domain_event(stored(document))

    again = mapper.to_stored_event(event)

    if document["class_version"] == class_version(type(event)):
        assert again == stored(document)
    else:
        assert mapper.to_domain_event(again) == event


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_a_file_is_named_by_its_topic_and_class_version(path: Path) -> None:
    document = golden(path)

    name = path.stem.partition("-")[0]

    assert name == f"{document['topic']}.v{document['class_version']}"
    assert json.loads(document["state"]).get("class_version", 1) == document["class_version"]


@pytest.mark.parametrize("event_class", event_classes(), ids=lambda each: each.__name__)
def test_every_class_version_of_every_event_has_a_file(event_class: type[Any]) -> None:
    names = {path.stem.partition("-")[0] for path in EVENTS}

    versions = range(1, class_version(event_class) + 1)

    assert {f"{event_class.TOPIC}.v{version}" for version in versions} <= names


def test_every_file_has_the_fields_that_its_event_is_stored_with_now() -> None:
    lived = [
        Story().authorized().captured().refunded().refund_noted().payment,
        Story().authorized().voided().payment,
        Story().authorized().expired().payment,
        Story().declined().payment,
        Story().challenged().authorized().payment,
        Story(a_transfer()).accepted().transferred().payment,
        Story(a_transfer()).accepted().declined().payment,
        Story().authorized().asked_to_void().declined().payment,
        Story().authorized().asked_to_capture().declined().payment,
        Story().authorized().captured().asked_to_refund().declined().payment,
        Story().authorized().differing().resolved(Status.CAPTURED, "cap_1").payment,
        Story().authorized().capture_lost().resolved(Status.CAPTURED, "cap_1").payment,
        Story().authorized().captured().disputed().answered_dispute(submits=True).payment,
        Story().authorized().captured().disputed().gave_up_dispute().payment,
        Story().authorized().captured().disputed(DisputeStatus.WON).payment,
        Story().authorized().captured().disputed(DisputeStatus.LOST).payment,
    ]
    events: list[Any] = [event for payment in lived for event in payment.history]
    now = {}
    for event in [*events, *others_events()]:
        as_stored = mapper.to_stored_event(event)
        now[as_stored.topic] = set(json.loads(as_stored.state))

    newest = {golden(path)["topic"]: set(json.loads(golden(path)["state"])) for path in EVENTS}

    assert newest == now


def others_events() -> list[Any]:
    """One of each that is not a payment's."""
    of: dict[str, Any] = {"tenant": a_tenant(), "at": NOON}
    terms = Terms(money=dollars(50), metadata={})
    intent = PaymentIntent.create(intent_id=an_id(), family="payment_intents", terms=terms, **of)
    intent.update(replace(terms, description="Two books"), None, at=NOON)
    intent.begin_attempt(an_id(), "pm_card_visa", None, at=NOON)
    given_up = PaymentIntent.create(intent_id=an_id(), family="async", terms=terms, **of)
    given_up.cancel(None, None, at=NOON)
    method = PaymentMethod.create(
        method_id=an_id(), face=a_card().face(), fingerprint="0f", metadata={}, **of
    )
    method.update(metadata={"a": "b"}, exp_month=1, exp_year=2035, at=NOON)
    method.attach("cus_1", at=NOON)
    method.detach(at=NOON)
    customer = Customer.create(customer_id=an_id(), metadata={}, **of)
    customer.update(fields=["name"], metadata={}, at=NOON)
    customer.delete(at=NOON)
    token = Token.create(token_id=an_id(), card=a_card().face(), fingerprint="0f", **of)
    histories = (intent, given_up, method, token, customer, *subscribed())
    return [event for each in histories for event in each.history]


def subscribed() -> list[Any]:
    """Subscriptions that ended in each way, and invoices that did."""
    of: dict[str, Any] = {"when": NOON, "at": NOON}
    plan = Plan(unit=dollars(5), interval=Interval.MONTH)
    both = [a_subscription(plan) for _ in range(2)]
    for each in both:
        each.begin_period(an_id(), **of)
    both[0].newest_was_paid(**of)
    both[0].newest_was_not_paid(**of)
    said: dict[str, Any] = {"description": None, "metadata": {"a": "b"}}
    both[0].update(payment_method_id="pm_1", cancel_at_period_end=True, at=NOON, **said)
    both[0].cancel("payment_failed", **of)
    both[1].expire(when=NOON + INCOMPLETE_FOR, at=NOON)
    invoices = [an_invoice(both[0]) for _ in range(3)]
    invoices[0].begin_attempt("pm_1", **of)
    invoices[0].fail("card_declined", None, None, **of)
    invoices[0].pay("pay_1", **of)
    invoices[1].stop_collection(**of)
    invoices[2].void(**of)
    return [*both, *invoices]


def test_every_file_is_of_an_event_that_is_still_known() -> None:
    topics = {event_class.TOPIC for event_class in event_classes()}

    assert {golden(path)["topic"] for path in EVENTS} == topics


def test_topics_are_the_events_own_and_never_a_module_path() -> None:
    topics = [event_class.TOPIC for event_class in event_classes()]

    assert len(topics) == len(set(topics)) == 53
    kinds = {topic.partition(".")[0] for topic in topics}
    assert kinds == {
        "payment",
        "payment_intent",
        "payment_method",
        "token",
        "customer",
        "subscription",
        "invoice",
    }
    assert not any(":" in topic for topic in topics)


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_an_event_of_a_newer_class_version_is_refused(path: Path) -> None:
    document = golden(path)
    newest = class_version(type(mapper.to_domain_event(stored(document))))

    with pytest.raises(UnknownEventVersion):
        mapper.to_domain_event(stored(document, class_version=newest + 1))


class Renamed:
    """An event whose first version had `amount`, and whose second has `amount_minor`."""

    TOPIC: ClassVar[str] = "tests.renamed"
    class_version: ClassVar[int] = 2
    amount_minor: int

    @staticmethod
    def upcast_v1_v2(state: dict[str, Any]) -> None:
        state["amount_minor"] = state.pop("amount")


register_topic(Renamed.TOPIC, Renamed)


def test_an_event_of_an_older_class_version_is_brought_up_to_date() -> None:
    old = {
        "topic": Renamed.TOPIC,
        "originator_id": "01931f5e-7a00-7abc-8def-0123456789ab",
        "originator_version": 1,
        "state": '{"amount":5,"at":"2026-11-20T12:00:00.000000Z"}',
    }

    event = mapper.to_domain_event(stored(old))

    assert event.amount_minor == 5
    again = json.loads(mapper.to_stored_event(event).state)
    assert (again["class_version"], again["amount_minor"]) == (2, 5)

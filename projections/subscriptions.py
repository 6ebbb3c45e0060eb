"""Subscriptions as they are, and when something is due of each."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.billing_periods import Interval, period_start
from domain.ids import Prefix, encode
from domain.invoice import rfc3339
from domain.subscription import INCOMPLETE_FOR, Subscription, SubscriptionStatus
from projections.documents import Document, Documents
from projections.pages import BY_CREATION_BY_CLOCK

NAME: Final[LiteralString] = "subscriptions"
TERMS: Final = (
    "customer_id",
    "payment_method_id",
    "unit_minor",
    "currency",
    "quantity",
    "interval",
    "interval_count",
    "product",
    "product_name",
    "description",
    "cancel_at_period_end",
    "clock_id",
    "anchor",
    "mode",
)


class Subscriptions(Documents):
    """The table of subscriptions. `due_at` in a document: when a worker has something to do."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = "subscription"
    migration: LiteralString = "0012_billing.sql"

    more_indexes: LiteralString = """
        CREATE INDEX subscriptions_due
            ON subscriptions ((document ->> 'clock_id'), (document ->> 'due_at'))
            WHERE document ->> 'due_at' IS NOT NULL;
    """
    lives_by_clocks = True
    more_filters: Mapping[str, LiteralString] = MappingProxyType(
        {
            **BY_CREATION_BY_CLOCK,
            "status": "document ->> 'status' = ANY(%(status)s)",
            "clock_id": "document ->> 'clock_id' = %(clock_id)s",
        }
    )

    def fold(self, history: Sequence[Subscription.Event]) -> Document:
        """`id`, the terms, `status`, `current_period_start` and `_end`, `latest_invoice`, `periods`,
        `canceled_at`, `ended_at`, `cancellation_reason`, `due_at`, `metadata`, `created_at`."""
        document: Document = {}
        for event in history:
            _apply(document, event)
        return document | {"due_at": _due_at(document)}


def _apply(document: Document, event: Subscription.Event) -> None:
    match event:
        case Subscription.Created():
            document.update(_first(event))
            _enter_period(document, 0)
        case Subscription.PeriodBegun():
            document["periods"] = event.number + 1
            document["latest_invoice"] = encode(Prefix.INVOICE, UUID(event.invoice_id))
            _enter_period(document, event.number)
        case Subscription.Updated():
            document |= {
                "payment_method_id": event.payment_method_id,
                "description": event.description,
                "metadata": dict(event.metadata),
                "cancel_at_period_end": event.cancel_at_period_end,
            }
        case Subscription.Activated():
            document["status"] = SubscriptionStatus.ACTIVE.value
        case Subscription.WentPastDue():
            document["status"] = SubscriptionStatus.PAST_DUE.value
        case Subscription.Expired():
            document["status"] = SubscriptionStatus.INCOMPLETE_EXPIRED.value
            document["ended_at"] = event.when
        case Subscription.Canceled():
            document["status"] = SubscriptionStatus.CANCELED.value
            document |= {
                "canceled_at": event.when,
                "ended_at": event.when,
                "cancellation_reason": event.reason,
            }
        case _:
            raise AssertionError(f"an event that subscriptions do not know: {event}")


def _first(event: Subscription.Created) -> Document:
    return {
        "id": encode(Prefix.SUBSCRIPTION, event.originator_id),
        **{name: getattr(event, name) for name in TERMS},
        "status": SubscriptionStatus.INCOMPLETE.value,
        "periods": 0,
        "latest_invoice": None,
        "canceled_at": None,
        "ended_at": None,
        "cancellation_reason": None,
        "metadata": dict(event.metadata),
        "created_at": event.anchor,
    }


def _enter_period(document: Document, number: int) -> None:
    document["current_period_start"] = _moment(document, number)
    document["current_period_end"] = _moment(document, number + 1)


def _moment(document: Document, number: int) -> str:
    anchor = datetime.fromisoformat(document["anchor"])
    interval, count = Interval(document["interval"]), document["interval_count"]
    return rfc3339(period_start(anchor, interval, count, number))


def _due_at(document: Document) -> Any:
    if document["status"] == SubscriptionStatus.INCOMPLETE:
        return rfc3339(datetime.fromisoformat(document["anchor"]) + INCOMPLETE_FOR)
    return None if document["ended_at"] else document["current_period_end"]

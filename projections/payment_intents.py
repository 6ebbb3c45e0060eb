"""Payment intents as they are: what is wanted, and which attempts were made. Their status is their
latest payment's to say."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.ids import Prefix, encode
from domain.payment import rfc3339
from domain.payment_intent import PaymentIntent
from projections.documents import Document, Documents

NAME: Final[LiteralString] = "payment_intents"


class Intents(Documents):
    """The table of payment intents."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = "payment_intent"
    migration: LiteralString = "0005_intents.sql"

    def fold(self, history: Sequence[PaymentIntent.Event]) -> Document:
        """`id`, `family`, `terms`, `attempts` (payments' ids, from the first), `last_payment` (the
        last one's UUID), `is_method_new` since then, `canceled_at`, `cancellation_reason`, `created_at`, `updated_at`."""
        document: Document = {}
        for event in history:
            _apply(document, event)
            document["updated_at"] = rfc3339(event.timestamp)
        return document | {"customer_id": document["terms"]["customer_id"]}


def _apply(document: Document, event: PaymentIntent.Event) -> None:
    match event:
        case PaymentIntent.Created():
            document.update(_first(event))
        case PaymentIntent.Updated():
            before, now = document["terms"], dict(event.terms)
            if before["payment_method_id"] != now["payment_method_id"]:
                document["is_method_new"] = True
            document["terms"] = now
        case PaymentIntent.AttemptBegun():
            payment_id = encode(Prefix.PAYMENT, UUID(event.payment_id))
            document["attempts"] = [*document["attempts"], payment_id]
            document["last_payment"] = event.payment_id  # as tables are joined by
            document["is_method_new"] = False
            document["terms"] = document["terms"] | {"payment_method_id": event.payment_method_id}
        case PaymentIntent.Canceled():
            document["canceled_at"] = rfc3339(event.timestamp)
            document["cancellation_reason"] = event.cancellation_reason
        case _:
            raise AssertionError(f"an event that payment intents do not know: {event}")


def _first(event: PaymentIntent.Created) -> dict[str, Any]:
    return {
        "id": encode(Prefix.INTENT, event.originator_id),
        "family": event.family,
        "mode": event.mode,
        "terms": dict(event.terms),
        "attempts": [],
        "last_payment": None,
        "is_method_new": True,
        "canceled_at": None,
        "cancellation_reason": None,
        "created_at": rfc3339(event.timestamp),
    }

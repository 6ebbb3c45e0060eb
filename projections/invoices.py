"""Invoices as they are, and when each is to be tried."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.ids import Prefix, encode
from domain.invoice import Invoice, InvoiceStatus, intent_of
from projections.documents import Document, Documents
from projections.pages import BY_CREATION_BY_CLOCK

NAME: Final[LiteralString] = "invoices"
TERMS: Final = (
    "customer_id",
    "amount_minor",
    "currency",
    "period_start",
    "period_end",
    "billing_reason",
    "clock_id",
    "mode",
)


class Invoices(Documents):
    """The table of invoices. `due_at` in a document: when a worker is to try it."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = "invoice"
    migration: LiteralString = "0012_billing.sql"

    more_indexes: LiteralString = """
        CREATE INDEX invoices_due
            ON invoices ((document ->> 'clock_id'), (document ->> 'due_at'))
            WHERE document ->> 'due_at' IS NOT NULL;
        CREATE INDEX invoices_of_subscription
            ON invoices (merchant_id, mode, (document ->> 'subscription'), id);
    """
    lives_by_clocks = True
    more_filters: Mapping[str, LiteralString] = MappingProxyType(
        {
            **BY_CREATION_BY_CLOCK,
            "status": "document ->> 'status' = %(status)s",
            "subscription": "document ->> 'subscription' = %(subscription)s",
        }
    )

    def fold(self, history: Sequence[Invoice.Event]) -> Document:
        """`id`, `subscription`, `payment_intent`, the terms, `status`, `attempts`, `is_attempted`,
        `failure`, `payment_id` (that paid it), `due_at`, `paid_at`, `voided_at`, `created_at`."""
        document: Document = {}
        for event in history:
            _apply(document, event)
        return document


def _apply(document: Document, event: Invoice.Event) -> None:
    match event:
        case Invoice.Created():
            document.update(_first(event))
        case Invoice.AttemptBegun():
            document |= {
                "attempts": document["attempts"] + 1,
                "is_attempted": True,
                "due_at": None,
                "payment_method_id": event.payment_method_id,
            }
        case Invoice.AttemptFailed():
            if not document["is_attempted"]:
                document["attempts"] += 1
            document |= {
                "is_attempted": False,
                "due_at": event.next_attempt_at,
                "failure": event.code,
            }
        case Invoice.Paid():
            document |= _ended(InvoiceStatus.PAID) | {
                "payment_id": event.payment_id,
                "paid_at": event.when,
            }
        case Invoice.CollectionStopped():
            document["due_at"] = None
        case Invoice.Voided():
            document |= _ended(InvoiceStatus.VOID) | {"voided_at": event.when}
        case _:
            raise AssertionError(f"an event that invoices do not know: {event}")


def _first(event: Invoice.Created) -> Document:
    return {
        "id": encode(Prefix.INVOICE, event.originator_id),
        "subscription": encode(Prefix.SUBSCRIPTION, UUID(event.subscription_id)),
        "payment_intent": encode(Prefix.INTENT, intent_of(event.originator_id)),
        "intent_uuid": str(intent_of(event.originator_id)),  # as tables are joined by
        **{name: getattr(event, name) for name in TERMS},
        "status": InvoiceStatus.OPEN.value,
        "attempts": 0,
        "is_attempted": False,
        "payment_method_id": None,
        "failure": None,
        "payment_id": None,
        "due_at": event.when,
        "paid_at": None,
        "voided_at": None,
        "created_at": event.when,
    }


def _ended(status: InvoiceStatus) -> dict[str, Any]:
    return {"status": status.value, "is_attempted": False, "due_at": None}

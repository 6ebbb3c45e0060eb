"""Disputes: one row for each, and how it stands. Projected in the transaction that appends the events,
as receipts are. The evidence itself is kept apart from the log, and so not here either."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, LiteralString

from psycopg.types.json import Jsonb

from domain.dispute import DisputeStatus
from domain.ids import Prefix, decode, encode
from domain.payment import Payment, rfc3339
from projections.changes import PAYMENT
from projections.documents import Document, DocumentTable

NAME: Final[LiteralString] = "disputes"

# Most payments have none of these. (The first is enough, but for histories that cannot be.)
OF_DISPUTES: Final = frozenset(
    {
        Payment.DisputeOpened,
        Payment.DisputeEvidenceGiven,
        Payment.DisputeAccepted,
        Payment.DisputeWon,
        Payment.DisputeLost,
    }
)


def fold(history: Sequence[Payment.Event]) -> list[Document]:
    """The disputes of the payment with this history, oldest first. JSON values only."""
    if OF_DISPUTES.isdisjoint(map(type, history)):
        return []
    disputes: dict[str, Document] = {}
    payment: Document = {}
    for event in history:
        match event:
            case Payment.AuthorizationRequested():
                payment = _of_payment(event)
                continue
            case Payment.DisputeOpened():
                disputes[event.dispute_id] = payment | _opened(event)
            case Payment.DisputeEvidenceGiven():
                dispute = disputes[event.dispute_id]
                dispute["metadata"] = dict(event.metadata)
                dispute["has_evidence"] = dispute["has_evidence"] or bool(event.fields)
                if event.is_submitted:
                    dispute["submission_count"] += 1
                    dispute["status"] = DisputeStatus.UNDER_REVIEW.value
            case Payment.DisputeAccepted() | Payment.DisputeLost():
                disputes[event.dispute_id]["status"] = DisputeStatus.LOST.value
            case Payment.DisputeWon():
                disputes[event.dispute_id]["status"] = DisputeStatus.WON.value
            case _:
                continue
        disputes[event.dispute_id]["version"] = event.originator_version
    return list(disputes.values())


def _of_payment(first: Payment.AuthorizationRequested) -> Document:
    return {
        "payment_id": encode(Prefix.PAYMENT, first.originator_id),
        "payment_intent": first.intent_id,
        "customer_id": first.customer_id,
        "currency": first.currency,
        "mode": first.mode,
    }


def _opened(event: Payment.DisputeOpened) -> Document:
    return {
        "id": event.dispute_id,
        "amount": event.amount_minor,
        "reason": event.reason,
        "status": DisputeStatus.NEEDS_RESPONSE.value,
        "evidence_due_by": event.evidence_due_by,
        "has_evidence": False,
        "submission_count": 0,
        "bank_dispute_id": event.bank_dispute_id,
        "created_at": rfc3339(event.timestamp),
        "metadata": {},
    }


class Disputes(DocumentTable):
    """The table of disputes."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = "0012_billing.sql"

    more_indexes: LiteralString = """
        CREATE INDEX disputes_by_payment
            ON disputes (merchant_id, mode, (document ->> 'payment_id'), id);
    """
    more_filters: Mapping[str, LiteralString] = MappingProxyType(
        {"payment_id": "document ->> 'payment_id' = %(payment_id)s"}
    )

    def rows(self, shard: int, history: Sequence[Any]) -> list[dict[str, Any]]:
        """A row for each dispute of a payment with this history."""
        first = history[0]
        return [
            {
                "shard": shard,
                "id": decode(Prefix.DISPUTE, dispute["id"]),
                "merchant_id": first.merchant_id,
                "mode": first.mode,
                "customer_id": dispute["customer_id"],
                "is_listed": True,
                "created_at": dispute["created_at"],
                "version": dispute["version"],
                "document": Jsonb(dispute),
            }
            for dispute in fold(history)
        ]

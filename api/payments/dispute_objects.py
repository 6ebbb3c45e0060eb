"""A dispute, as it is published: Stripe's shape, all fields there."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from domain.commands import Mode
from domain.dispute import DisputeStatus
from domain.ids import Prefix

Document = dict[str, Any]

EVIDENCE_FIELDS: Final = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)


def dispute(record: Document, evidence: Mapping[str, Any], now: datetime) -> Document:
    """A dispute. `evidence`: what was said on it, which may have been erased."""
    return {
        "id": record["id"],
        "object": "dispute",
        "amount": record["amount"],
        "balance_transactions": [],
        "charge": Prefix.CHARGE + record["payment_id"].removeprefix(Prefix.PAYMENT),
        "created": _unix_seconds(record["created_at"]),
        "currency": record["currency"].lower(),
        "enhanced_eligibility_types": [],
        "evidence": {name: evidence.get(name) for name in EVIDENCE_FIELDS},
        "evidence_details": _details(record, now),
        "is_charge_refundable": record["status"] == DisputeStatus.WON,
        "livemode": record["mode"] == Mode.LIVE,
        "metadata": record["metadata"],
        "network_reason_code": None,
        "payment_intent": record["payment_intent"],
        "reason": record["reason"],
        "status": record["status"],
    }


def _details(record: Document, now: datetime) -> Document:
    due_by = record["evidence_due_by"]
    return {
        "due_by": None if due_by is None else _unix_seconds(due_by),
        "has_evidence": record["has_evidence"],
        "past_due": due_by is not None and datetime.fromisoformat(due_by) <= now,
        "submission_count": record["submission_count"],
    }


def _unix_seconds(rfc3339: str) -> int:
    return int(datetime.fromisoformat(rfc3339).timestamp())

"""Subscriptions, invoices and clocks, as they are published: Stripe's shapes, and of subscriptions beside
it the plain form that they can be asked for in."""

from datetime import datetime
from typing import Any, Final

from domain.commands import Mode
from domain.ids import Prefix
from domain.invoice import InvoiceStatus
from infrastructure.test_clocks import TestClock

Document = dict[str, Any]

UNUSED_OF_SUBSCRIPTION: Final = dict.fromkeys(
    (
        "application",
        "application_fee_percent",
        "billing_thresholds",
        "days_until_due",
        "default_source",
        "next_pending_invoice_item_invoice",
        "on_behalf_of",
        "pause_collection",
        "pending_invoice_item_interval",
        "pending_setup_intent",
        "pending_update",
        "schedule",
        "transfer_data",
        "trial_end",
        "trial_start",
    )
)
UNUSED_OF_INVOICE: Final = dict.fromkeys(
    (
        "account_country",
        "account_name",
        "application",
        "customer_address",
        "customer_email",
        "customer_name",
        "customer_phone",
        "customer_shipping",
        "default_source",
        "description",
        "due_date",
        "footer",
        "hosted_invoice_url",
        "invoice_pdf",
        "last_finalization_error",
        "number",
        "receipt_number",
        "statement_descriptor",
        "webhooks_delivered_at",
    )
)
NO_TAX: Final = {"enabled": False, "liability": None, "status": None}


def _unix(rfc3339: str | None) -> int | None:
    return None if rfc3339 is None else int(datetime.fromisoformat(rfc3339).timestamp())


def _suffix(record: Document) -> str:
    return str(record["id"]).partition("_")[2]


def subscription(record: Document) -> Document:
    """A subscription. It has one item."""
    ends = record["cancel_at_period_end"] and record["ended_at"] is None
    return {
        "id": record["id"],
        "object": "subscription",
        "amount": record["unit_minor"] * record["quantity"],
        "automatic_tax": NO_TAX,
        "billing_cycle_anchor": _unix(record["anchor"]),
        "cancel_at": _unix(record["current_period_end"]) if ends else None,
        "cancel_at_period_end": record["cancel_at_period_end"],
        "canceled_at": _unix(record["canceled_at"]),
        "cancellation_details": {
            "comment": None,
            "feedback": None,
            "reason": record["cancellation_reason"],
        },
        "collection_method": "charge_automatically",
        "created": _unix(record["created_at"]),
        "currency": record["currency"].lower(),
        "current_period_end": _unix(record["current_period_end"]),
        "current_period_start": _unix(record["current_period_start"]),
        "customer": record["customer_id"],
        "default_payment_method": record["payment_method_id"],
        "default_tax_rates": [],
        "description": record["description"],
        "discounts": [],
        "ended_at": _unix(record["ended_at"]),
        "interval": record["interval"],
        "interval_count": record["interval_count"],
        "items": _items(record),
        "latest_invoice": record["latest_invoice"],
        "livemode": record["mode"] == Mode.LIVE,
        "metadata": record["metadata"],
        "quantity": record["quantity"],
        "start_date": _unix(record["created_at"]),
        "status": record["status"],
        "test_clock": record["clock_id"],
    } | UNUSED_OF_SUBSCRIPTION


def _items(record: Document) -> Document:
    item = {
        "id": Prefix.SUBSCRIPTION_ITEM + _suffix(record),
        "object": "subscription_item",
        "created": _unix(record["created_at"]),
        "current_period_end": _unix(record["current_period_end"]),
        "current_period_start": _unix(record["current_period_start"]),
        "discounts": [],
        "metadata": {},
        "price": _price(record),
        "quantity": record["quantity"],
        "subscription": record["id"],
        "tax_rates": [],
    }
    url = f"/v1/subscription_items?subscription={record['id']}"
    return {"object": "list", "data": [item], "has_more": False, "total_count": 1, "url": url}


def _price(record: Document) -> Document:
    return {
        "id": f"price_{_suffix(record)}",
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": _unix(record["created_at"]),
        "currency": record["currency"].lower(),
        "livemode": record["mode"] == Mode.LIVE,
        "lookup_key": None,
        "metadata": {},
        "nickname": record["product_name"],
        "product": record["product"],
        "recurring": {
            "interval": record["interval"],
            "interval_count": record["interval_count"],
            "meter": None,
            "trial_period_days": None,
            "usage_type": "licensed",
        },
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring",
        "unit_amount": record["unit_minor"],
        "unit_amount_decimal": str(record["unit_minor"]),
    }


def invoice(record: Document) -> Document:
    """An invoice of one period."""
    payment_id = record["payment_id"]
    return (
        {
            "id": record["id"],
            "object": "invoice",
            "attempt_count": record["attempts"],
            "attempted": record["attempts"] > 0,
            "auto_advance": record["due_at"] is not None,
            "automatic_tax": NO_TAX,
            "billing_reason": record["billing_reason"],
            "charge": payment_id and Prefix.CHARGE + payment_id.removeprefix(Prefix.PAYMENT),
            "collection_method": "charge_automatically",
            "created": _unix(record["created_at"]),
            "currency": record["currency"].lower(),
            "customer": record["customer_id"],
            "default_payment_method": record["payment_method_id"],
            "default_tax_rates": [],
            "discounts": [],
            "effective_at": _unix(record["created_at"]),
            "lines": _lines(record),
            "livemode": record["mode"] == Mode.LIVE,
            "metadata": {},
            "next_payment_attempt": _unix(record["due_at"]),
            "payment_intent": record["payment_intent"],
            "period_end": _unix(record["period_end"]),
            "period_start": _unix(record["period_start"]),
            "test_clock": record["clock_id"],
        }
        | _amounts(record)
        | _standing(record)
        | UNUSED_OF_INVOICE
    )


def _amounts(record: Document) -> Document:
    amount, is_paid = record["amount_minor"], record["status"] == InvoiceStatus.PAID
    return {
        "amount_due": amount,
        "amount_overpaid": 0,
        "amount_paid": amount if is_paid else 0,
        "amount_remaining": amount if record["status"] == InvoiceStatus.OPEN else 0,
        "amount_shipping": 0,
        "ending_balance": 0,
        "starting_balance": 0,
        "subtotal": amount,
        "total": amount,
    }


def _standing(record: Document) -> Document:
    return {
        "paid": record["status"] == InvoiceStatus.PAID,
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": record["subscription"]},
            "type": "subscription_details",
        },
        "status": record["status"],
        "status_transitions": {
            "finalized_at": _unix(record["created_at"]),
            "marked_uncollectible_at": None,
            "paid_at": _unix(record["paid_at"]),
            "voided_at": _unix(record["voided_at"]),
        },
        "subscription": record["subscription"],
    }


def _lines(record: Document) -> Document:
    line = {
        "id": f"il_{_suffix(record)}",
        "object": "line_item",
        "amount": record["amount_minor"],
        "currency": record["currency"].lower(),
        "description": None,
        "discountable": True,
        "invoice": record["id"],
        "livemode": record["mode"] == Mode.LIVE,
        "metadata": {},
        "period": {"end": _unix(record["period_end"]), "start": _unix(record["period_start"])},
        "subscription": record["subscription"],
    }
    url = f"/v1/invoices/{record['id']}/lines"
    return {"object": "list", "data": [line], "has_more": False, "total_count": 1, "url": url}


def test_clock(clock: TestClock, clock_id: str) -> Document:
    """A clock that a test moves."""
    target = int(clock.target_time.timestamp())
    return {
        "id": clock_id,
        "object": "test_helpers.test_clock",
        "created": int(clock.created_at.timestamp()),
        "deletes_after": None,
        "frozen_time": int(clock.frozen_time.timestamp()),
        "livemode": False,
        "name": clock.name,
        "status": "ready" if clock.is_ready else "advancing",
        "status_details": {} if clock.is_ready else {"advancing": {"target_frozen_time": target}},
    }


test_clock.__test__ = False  # type: ignore[attr-defined]

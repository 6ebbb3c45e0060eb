"""The objects of the payments family, as they are published: Stripe's shapes, all fields there.

A charge is a payment in another vocabulary, and an intent's status is its latest payment's to say.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from api.errors import CARD_ERRORS, DECLINED, INVALID_REQUEST, TRANSFER_ERRORS, TRANSFER_FAILED
from domain.bank import Operation
from domain.commands import Mode
from domain.ids import Prefix, encode
from domain.payment import BANK_PROTOCOL_ERROR, ReviewReason, Status
from domain.payment_intent import Attempt, IntentStatus, status_of
from domain.payment_method import ACCOUNT, CARD

Document = dict[str, Any]

ADDRESS_FIELDS: Final = ("city", "country", "line1", "line2", "postal_code", "state")
# The codes that Stripe's intents say of a decline, where they are not those of our other families.
INTENT_DECLINES: Final[Mapping[str, tuple[str, str | None]]] = {
    "insufficient_funds": ("card_declined", "insufficient_funds"),
    "card_declined": ("card_declined", "generic_decline"),
    "authentication_required": ("authentication_required", "authentication_required"),
}


ATTEMPT_FAILED: Final = "payment_intent_payment_attempt_failed"


# What Stripe's clients expect to be there, and we have nothing to say of.
UNUSED_OF_CHARGE: Final = dict.fromkeys(
    (
        "application",
        "application_fee",
        "application_fee_amount",
        "balance_transaction",
        "calculated_statement_descriptor",
        "failure_balance_transaction",
        "on_behalf_of",
        "receipt_email",
        "receipt_number",
        "review",
        "shipping",
        "source",
        "source_transfer",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_data",
        "transfer_group",
    )
)
UNUSED_OF_INTENT: Final = dict.fromkeys(
    (
        "application",
        "application_fee_amount",
        "automatic_payment_methods",
        "customer_account",
        "excluded_payment_method_types",
        "managed_payments",
        "on_behalf_of",
        "payment_method_configuration_details",
        "processing",
        "review",
        "setup_future_usage",
        "source",
        "transfer_data",
        "transfer_group",
    )
)
# Those of an intent's terms that are told as they are stored.
STORED_TERMS: Final = (
    "capture_method",
    "confirmation_method",
    "description",
    "metadata",
    "payment_method_types",
    "statement_descriptor",
    "statement_descriptor_suffix",
)
TOKENS_CARD: Final = frozenset(
    {"brand", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4"}
)
NO_BILLING_DETAILS: Final = {
    "address": dict.fromkeys(ADDRESS_FIELDS),
    "email": None,
    "name": None,
    "phone": None,
    "tax_id": None,
}


def unix_seconds(rfc3339: str) -> int:
    """Whole seconds since 1970."""
    return int(datetime.fromisoformat(rfc3339).timestamp())


def address(value: Mapping[str, Any] | None) -> Document | None:
    """An address, with all of its fields."""
    return None if value is None else {name: value.get(name) for name in ADDRESS_FIELDS}


def customer(record: Document, personal: Mapping[str, Any], clock_id: str | None) -> Document:
    """A customer. `personal`: what is known of them, which may have been erased; `clock_id`: of the
    test's clock that they live by, where they do."""
    return {
        "id": record["id"],
        "object": "customer",
        "address": address(personal.get("address")),
        "balance": 0,
        "created": unix_seconds(record["created_at"]),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": personal.get("description"),
        "discount": None,
        "email": personal.get("email"),
        "invoice_prefix": None,
        "livemode": record["mode"] == Mode.LIVE,
        "metadata": record["metadata"],
        "name": personal.get("name"),
        "phone": personal.get("phone"),
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": clock_id,
        "updated": unix_seconds(record["updated_at"]),
    }


def deleted(kind: str, public_id: str) -> Document:
    """What is there no more."""
    return {"id": public_id, "object": kind, "deleted": True}


def payment_method(record: Document, billing: Mapping[str, Any]) -> Document:
    """A payment method. `billing`: the details that were given with it, which may have been erased."""
    return {
        "id": record["id"],
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": address(billing.get("address") or {}),
            "email": billing.get("email"),
            "name": billing.get("name"),
            "phone": billing.get("phone"),
            "tax_id": None,
        },
        "created": unix_seconds(record["created_at"]),
        "customer": record["customer_id"],
        "livemode": record["mode"] == Mode.LIVE,
        "metadata": record["metadata"],
    } | (of_card(record["card"]) if "card" in record else of_account(record["account"]))


def of_card(face: Document) -> Document:
    """A card, as methods and charges tell of it."""
    return {"type": CARD, CARD: card(face)}


def of_account(face: Document) -> Document:
    """The same of an account, whose number is nowhere either."""
    told = {name: face.get(name) for name in ("fingerprint", "last4", "sort_code")}
    return {"type": ACCOUNT, ACCOUNT: told}


def _means(receipt: Document) -> Document:
    """What a payment was paid with."""
    if receipt["card"] is None:
        return of_account(receipt["account"] | {"fingerprint": receipt["account_fingerprint"]})
    return of_card(receipt["card"] | {"fingerprint": receipt.get("card_fingerprint")})


def token(record: Document) -> Document:
    """A token. `record`: `id`, `mode`, `created_at`, `card`, as payment methods have them."""
    public_id = record["id"]
    return {
        "id": public_id,
        "object": "token",
        "card": {
            "id": "card_" + public_id.removeprefix(Prefix.TOKEN),
            "object": "card",
            **{name: value for name, value in card(record["card"]).items() if name in TOKENS_CARD},
        },
        "client_ip": None,
        "created": unix_seconds(record["created_at"]),
        "livemode": record["mode"] == Mode.LIVE,
        "type": CARD,
        "used": False,
    }


def card(face: Document) -> Document:
    """A card's face. What is not known of it is null; the number is nowhere."""
    return {
        "brand": face["brand"],
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": None,
        },
        "country": "US",
        "display_brand": face["brand"],
        "exp_month": face["exp_month"],
        "exp_year": face["exp_year"],
        "fingerprint": face.get("fingerprint"),
        "funding": "credit",
        "generated_from": None,
        "last4": face["last4"],
        "networks": {"available": [face["brand"]], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def decline(failure: Mapping[str, Any]) -> tuple[str, str | None, str]:
    """The code, the decline code and the message of a bank's no, in the intents' words."""
    if failure["operation"] == Operation.TRANSFER:
        reason = failure["code"]
        return ATTEMPT_FAILED, reason, TRANSFER_ERRORS.get(reason, TRANSFER_FAILED)
    code, message = CARD_ERRORS.get(failure["code"], DECLINED)
    told, reason = INTENT_DECLINES.get(code, (code, None))
    return told, reason, message


def attempt_of(receipt: Document) -> Attempt:
    """How the payment of an attempt stands."""
    return Attempt(
        status=Status(receipt["status"]),
        is_running=receipt["pending_operation"] is not None,
        waits_for_shopper=receipt.get("action_url") is not None,
    )


def charge(receipt: Document, mode: str, receipt_url: str) -> Document:
    """A payment as a charge."""
    status, failure = Status(receipt["status"]), receipt["failure"]
    declined = status is Status.DECLINED
    released = status in (Status.VOIDED, Status.EXPIRED) and not _is_withdrawn(receipt)
    code, reason, message = decline(failure) if declined and failure else (None, None, None)
    told = {
        "id": charge_id(receipt["payment_id"]),
        "object": "charge",
        "amount": receipt["amount"],
        "amount_captured": receipt["amount_captured"],
        "amount_refunded": receipt["amount"] if released else receipt["amount_refunded"],
        "billing_details": NO_BILLING_DETAILS,
        "captured": receipt["amount_captured"] > 0,
        "created": unix_seconds(receipt["created_at"]),
        "currency": receipt["currency"].lower(),
        "customer": receipt["customer_id"],
        "description": receipt.get("description"),
        "dispute": (receipt.get("disputes") or [None])[-1],
        "disputed": bool(receipt.get("disputes")),
        "failure_code": code,
        "failure_message": message,
        "fraud_details": {},
        "livemode": mode == Mode.LIVE,
        "metadata": receipt["metadata"],
        "outcome": None if _is_withdrawn(receipt) else _outcome(status, reason, message),
        "paid": charge_status(receipt) == "succeeded",
        "payment_intent": receipt.get("intent_id"),
        "payment_method": receipt.get("payment_method_id"),
        "payment_method_details": _means(receipt),
        "receipt_url": receipt_url,
        "refunded": released or status is Status.REFUNDED,
        "status": charge_status(receipt),
    }
    return told | UNUSED_OF_CHARGE


BANK_TRANSFER: Final = "bank_transfer"
WALLET: Final = "apple_pay"
WALLET_PREFIX: Final = "tok_apple_"
REQUIRES_ACTION: Final = "requires_action"
FAILED: Final = "failed"
PROCESSING_ERROR: Final = "processing_error"
# No word about the card.
UNCLEAR: Final = frozenset({BANK_PROTOCOL_ERROR, ReviewReason.BANK_DISAGREES.value})
FACE: Final = ("brand", "last4", "exp_month", "exp_year")
SOURCE_FACE: Final = ("last4", "brand", "exp_month", "exp_year")

# What a payment says of itself, where that is not its status.
PAYMENT_STATUSES: Final[Mapping[Status, str]] = {
    Status.CAPTURED: "succeeded",
    Status.REFUNDED: "succeeded",
    Status.VOIDED: "canceled",
    Status.EXPIRED: "canceled",
    Status.DECLINED: "failed",
}


def payment(receipt: Document) -> Document:
    """A payment, in its own vocabulary. Where a shopper has to approve, it says where; where it failed,
    why."""
    status = payment_status(receipt)
    told = {
        "id": receipt["payment_id"],
        "object": "payment",
        "amount": receipt["amount"],
        "currency": receipt["currency"],
        "status": status,
        "source": source(receipt),
        "customer_id": receipt["customer_id"],
        "description": receipt.get("description"),
        "amount_refunded": receipt["amount_refunded"],
        "created": unix_seconds(receipt["created_at"]),
        "metadata": receipt["metadata"],
    }
    if status == REQUIRES_ACTION:
        told["next_action"] = redirect(receipt["action_url"], None)
    if status == FAILED:
        told |= _why(receipt)
    return told


def payment_status(receipt: Document) -> str:
    """What a payment says of itself. One that was to be paid at once, and was released, has failed."""
    status = Status(receipt["status"])
    if status is Status.PENDING and receipt.get("action_url") is not None:
        return REQUIRES_ACTION
    if status in (Status.VOIDED, Status.EXPIRED) and "is_paid_at_once" in receipt:
        return FAILED
    return PAYMENT_STATUSES.get(status, status.value)


def source(receipt: Document) -> Document:
    """What a payment was paid with, in its own vocabulary."""
    if receipt["card"] is None:
        account = receipt["account"]
        pairs = (account["sort_code"][place : place + 2] for place in (0, 2, 4))
        return {
            "type": BANK_TRANSFER,
            "last4": account["last4"],
            "sort_code": "-".join(pairs),
        }
    is_wallet = (receipt.get("payment_method_id") or "").startswith(WALLET_PREFIX)
    face = {name: receipt["card"][name] for name in SOURCE_FACE}
    return {"type": WALLET if is_wallet else CARD} | face


def _why(receipt: Document) -> Document:
    failure = receipt["failure"]
    if failure is None:  # it was released, since the bank would not capture it
        return {
            "failure_code": PROCESSING_ERROR,
            "failure_message": CARD_ERRORS[PROCESSING_ERROR][1],
        }
    code = failure["code"]
    if failure["operation"] == Operation.TRANSFER:
        message = TRANSFER_ERRORS.get(code, TRANSFER_FAILED)
    elif code in UNCLEAR:
        message = "The bank did not say yes to what it was asked."
    else:
        code, message = CARD_ERRORS.get(code, DECLINED)
    return {"failure_code": code, "failure_message": message}


def redirect(url: str | None, return_url: str | None) -> Document:
    """Where the shopper has to go."""
    return {
        "type": "redirect_to_url",
        "redirect_to_url": {"url": url, "return_url": return_url},
    }


def refund(document: Document) -> Document:
    """A refund; of a charge, in Stripe's lower case."""
    currency, payment_id = document["currency"], document["payment_id"]
    by_charge = document["id"].startswith(Prefix.CHARGE_REFUND)
    return {
        "id": document["id"],
        "object": "refund",
        "payment_id": payment_id,
        "charge": charge_id(payment_id),
        "payment_intent": document.get("payment_intent"),
        "amount": document["amount"],
        "currency": currency.lower() if by_charge else currency,
        "reason": document["reason"],
        "status": document["status"],
        "created": unix_seconds(document["created_at"]),
        "metadata": document["metadata"],
    }


def balance_transaction(row: Document) -> Document:
    """What raised or lowered the balance."""
    created = int(row["created_at"].timestamp())
    return {
        "id": encode(Prefix.BALANCE_TRANSACTION, row["id"]),
        "object": "balance_transaction",
        "amount": row["amount"],
        "available_on": created,
        "balance_type": "payments",
        "created": created,
        "currency": row["currency"].lower(),
        "description": row["description"],
        "exchange_rate": None,
        "fee": 0,
        "fee_details": [],
        "net": row["amount"],
        "reporting_category": row["type"],
        "source": row["source"],
        "status": "available",
        "type": row["type"],
    }


def charge_id(payment_id: str) -> str:
    """The same thing, in the other vocabulary."""
    return Prefix.CHARGE + payment_id.removeprefix(Prefix.PAYMENT)


def charge_status(receipt: Document) -> str:
    """What a charge says of itself."""
    status = Status(receipt["status"])
    if status is Status.PENDING:
        return "pending"
    failed = status is Status.DECLINED or _is_withdrawn(receipt)
    return "failed" if failed else "succeeded"


def _is_withdrawn(receipt: Document) -> bool:
    """Whether it was given up before the shopper approved, so that nothing was ever held."""
    return receipt["status"] == Status.VOIDED and receipt["bank"]["authorization_id"] is None


def _outcome(status: Status, reason: str | None, message: str | None) -> Document | None:
    if status is Status.PENDING:
        return None
    if status is Status.DECLINED:
        return {
            "network_status": "declined_by_network",
            "reason": reason,
            "risk_level": "normal",
            "seller_message": message,
            "type": "issuer_declined",
        }
    return {
        "network_status": "approved_by_network",
        "reason": None,
        "risk_level": "normal",
        "seller_message": "Payment complete.",
        "type": "authorized",
    }


def intent_status(record: Document, receipts: Sequence[Document]) -> IntentStatus:
    """`receipts`: of the attempts, from the first."""
    return status_of(
        attempt_of(receipts[-1]) if receipts else None,
        has_method=record["terms"]["payment_method_id"] is not None,
        is_method_new=record["is_method_new"],
        is_canceled=record["canceled_at"] is not None,
    )


def payment_intent(
    record: Document,
    receipts: Sequence[Document],
    *,
    client_secret: str,
    personal: Mapping[str, Any],
    receipt_url: str,
) -> Document:
    """A payment intent. `receipts`: of its attempts, from the first; `receipt_url`: the last's."""
    terms, last = record["terms"], receipts[-1] if receipts else None
    status = intent_status(record, receipts)
    holds = last is not None and status is IntentStatus.REQUIRES_CAPTURE
    needs_method = status is IntentStatus.REQUIRES_PAYMENT_METHOD
    return (
        {
            "id": record["id"],
            "object": "payment_intent",
            "amount": terms["amount_minor"],
            "amount_capturable": terms["amount_minor"] if holds else 0,
            "amount_details": {"tip": {}},
            "amount_received": 0 if last is None else last["amount_captured"],
            "charges": _charges(record["id"], last, receipt_url),
            "client_secret": client_secret,
            "created": unix_seconds(record["created_at"]),
            "currency": terms["currency"].lower(),
            "customer": terms["customer_id"],
            "last_payment_error": _last_error(record, last, status),
            "latest_charge": None if last is None else charge_id(last["payment_id"]),
            "livemode": record["mode"] == Mode.LIVE,
            "next_action": _next_action(last, status, personal.get("return_url")),
            "payment_method": None if needs_method else terms["payment_method_id"],
            "payment_method_options": {},
            "receipt_email": personal.get("receipt_email"),
            "shipping": personal.get("shipping"),
            "status": status.value,
        }
        | {name: terms[name] for name in STORED_TERMS}
        | _ended(record, last, status)
        | UNUSED_OF_INTENT
    )


def _charges(intent_id: str, last: Document | None, receipt_url: str) -> Document:
    return {
        "object": "list",
        "data": [] if last is None else [intents_charge(last, receipt_url)],
        "has_more": False,
        "total_count": 0 if last is None else 1,
        "url": f"/v1/charges?payment_intent={intent_id}",
    }


def intents_charge(receipt: Document, receipt_url: str) -> Document:
    """The charge that an intent carries."""
    means = _means(receipt)
    if CARD in means:
        means[CARD] = {name: receipt["card"][name] for name in FACE}
    return {
        "id": charge_id(receipt["payment_id"]),
        "object": "charge",
        "amount": receipt["amount"],
        "amount_captured": receipt["amount_captured"],
        "amount_refunded": receipt["amount_refunded"],
        "currency": receipt["currency"].lower(),
        "status": charge_status(receipt),
        "captured": receipt["amount_captured"] > 0,
        "payment_method": {
            "id": receipt.get("payment_method_id"),
            **means,
        },
        "receipt_url": receipt_url,
    }


def _ended(record: Document, last: Document | None, status: IntentStatus) -> Document:
    return {
        "canceled_at": _canceled_at(record, last, status),
        "cancellation_reason": _cancellation_reason(record, last, status),
    }


def _canceled_at(record: Document, last: Document | None, status: IntentStatus) -> int | None:
    if status is not IntentStatus.CANCELED:
        return None
    if record["canceled_at"] is not None:
        return unix_seconds(record["canceled_at"])
    assert last is not None, "what was not given up had a hold that ended"
    return unix_seconds(last["timeline"][-1]["at"])


def _cancellation_reason(
    record: Document, last: Document | None, status: IntentStatus
) -> str | None:
    if status is not IntentStatus.CANCELED or record["canceled_at"] is not None:
        return record["cancellation_reason"] if status is IntentStatus.CANCELED else None
    return "automatic" if last and last["status"] == Status.EXPIRED else None


def _last_error(record: Document, last: Document | None, status: IntentStatus) -> Document | None:
    if last is None or last["status"] != Status.DECLINED or last["failure"] is None:
        return None
    if status is IntentStatus.REQUIRES_CONFIRMATION and record["is_method_new"]:
        return None
    code, reason, message = decline(last["failure"])
    error = {
        "type": INVALID_REQUEST if code == ATTEMPT_FAILED else "card_error",
        "code": code,
        "message": message,
        "param": "payment_method",
        "charge": charge_id(last["payment_id"]),
        "payment_method": method_of_attempt(last),
    }
    return error if reason is None else error | {"decline_code": reason}


def method_of_attempt(receipt: Document) -> Document:
    """The payment method of an attempt, as the attempt knew it."""
    return {
        "id": receipt.get("payment_method_id"),
        "object": "payment_method",
        **_means(receipt),
        "customer": receipt["customer_id"],
        "created": unix_seconds(receipt["created_at"]),
    }


def _next_action(
    last: Document | None, status: IntentStatus, return_url: str | None
) -> Document | None:
    if status is not IntentStatus.REQUIRES_ACTION or last is None:
        return None
    return redirect(last.get("action_url"), return_url)

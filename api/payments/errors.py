"""What a bank's no makes of an intent's answer, in the intents' words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api.errors import INVALID_REQUEST, ApiError, misunderstood
from api.payments import objects
from domain.bank import Operation
from domain.payment import BANK_PROTOCOL_ERROR, REMARKS, Payment, ReviewReason
from domain.payment_intent import IntentStatus
from domain.records import BankCall

Document = dict[str, Any]


def declined_error(
    receipt: Document, intent: Document, call: BankCall, history: Sequence[Payment.Event]
) -> ApiError | None:
    """The error that the last event is told as, or None where it is none: what was given up and comes to
    nothing is what was asked for."""
    if intent["status"] == IntentStatus.CANCELED:
        return None
    event = next(each for each in reversed(history) if not isinstance(each, REMARKS))
    code = getattr(event, "code", None)
    if code in (BANK_PROTOCOL_ERROR, ReviewReason.BANK_DISAGREES):
        return replace(misunderstood(), more={"payment_intent": intent})
    if isinstance(event, Payment.AuthorizationDeclined):
        return _declined(receipt, intent)
    refused = isinstance(event, Payment.CaptureDeclined | Payment.VoidDeclined)
    if refused and call.operation in (Operation.CAPTURE, Operation.VOID):
        return ApiError(
            status=409,
            type=INVALID_REQUEST,
            code=f"{call.operation}_refused",
            message=f"The bank refused the {call.operation}.",
            more={"payment_intent": intent},
        )
    return None


def _declined(receipt: Document, intent: Document) -> ApiError:
    code, reason, message = objects.decline(receipt["failure"])
    return ApiError(
        status=402,
        type="card_error",
        code=code,
        message=message,
        param="payment_method",
        decline_code=reason,
        more={
            "charge": objects.charge_id(receipt["payment_id"]),
            "payment_intent": intent,
            "payment_method": objects.method_of_attempt(receipt),
        },
    )

"""What the gateway family answers: read models to JSON, outcomes to statuses, and nowhere else."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.errors import CARD_ERRORS, DECLINED, INVALID_REQUEST, ApiError, from_decline, misunderstood
from api.http import RETRY_AFTER_PENDING_SECONDS, Answer, Call, error_answer, json_answer
from domain.bank import Operation
from domain.ids import Prefix, encode
from domain.payment import (
    AUTHORIZATION_EXPIRED,
    BANK_PROTOCOL_ERROR,
    REMARKS,
    Payment,
    ReviewReason,
)
from domain.records import BankCall, StoredAnswer
from projections import receipts

Document = dict[str, Any]

CARD_FIELDS: Final = ("brand", "last4", "exp_month", "exp_year")
BANK_FIELDS: Final = ("authorization_id", "capture_id", "void_id", "refund_ids")
REVIEW_FIELDS: Final = ("reason", "since")
STEP_FIELDS: Final = ("status", "at")

REFUSED_BY_BANK: Final[Mapping[type[Payment.Event], tuple[str, str]]] = {
    Payment.CaptureDeclined: ("capture_refused", "The bank refused the capture."),
    Payment.VoidDeclined: ("void_refused", "The bank refused to release the hold."),
}


def receipt(document: Document) -> Document:
    """A receipt, as it is published."""
    reviews = document["reviews"]
    return {
        "object": "receipt",
        "payment_id": document["payment_id"],
        "order_id": document["order_id"],
        "customer_id": document["customer_id"],
        "amount": document["amount"],
        "currency": document["currency"],
        "status": document["status"],
        "amount_captured": document["amount_captured"],
        "amount_refunded": document["amount_refunded"],
        "card": _in_order(document["card"], CARD_FIELDS) if document["card"] else None,
        "bank": _in_order(document["bank"], BANK_FIELDS),
        "pending_operation": document["pending_operation"],
        "needs_review": _in_order(reviews[0], REVIEW_FIELDS) if reviews else None,
        "failure": _failure(document["failure"]),
        "authorization_expires_at": document["authorization_expires_at"],
        "timeline": [_in_order(step, STEP_FIELDS) for step in document["timeline"]],
        "created_at": document["created_at"],
        "updated_at": document["updated_at"],
        "version": document["version"],
        "metadata": document["metadata"],
    }


def _in_order(value: Document, fields: Sequence[str]) -> Document:
    """The same in the published order, which the database does not keep."""
    return {name: value[name] for name in fields}


def _failure(failure: Document | None) -> Document | None:
    """The last operation that failed, in the words of our errors."""
    if failure is None:
        return None
    code, message = failure["code"], "The bank refused the operation."
    unclear = {BANK_PROTOCOL_ERROR, ReviewReason.BANK_DISAGREES}
    if failure["operation"] == Operation.AUTHORIZATION and code not in unclear:
        code, message = CARD_ERRORS.get(code, DECLINED)
    return {"operation": failure["operation"], "code": code, "message": message}


def order(order_id: str, documents: Sequence[Document]) -> Document:
    """An order, by its payments, newest first: may it be shipped?"""
    live = [d for d in documents if d["status"] in {"pending", "authorized", "captured"}]
    current = (live or list(documents))[0]
    return {
        "object": "order",
        "order_id": order_id,
        "status": current["status"],
        "payment_id": current["payment_id"],
        "ok_to_ship": any(_is_ok_to_ship(document) for document in documents),
        "payments": [receipt(document) for document in documents],
    }


def _is_ok_to_ship(document: Document) -> bool:
    settled = document["pending_operation"] is None and not document["reviews"]
    return settled and document["status"] in {"authorized", "captured"}


def receipt_url(payment_id: str) -> str:
    """Where a receipt is."""
    return f"/v1/receipts/{payment_id}"


def settled(history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
    """The final answer to a command: its status and its bytes."""
    return _settled(history, call).stored()


def _settled(history: Sequence[Payment.Event], call: BankCall) -> Answer:
    event = next(e for e in reversed(history) if not isinstance(e, REMARKS))
    error = _error_of(event, encode(Prefix.PAYMENT, event.originator_id))
    if error is not None:
        return error_answer(error, call.audience.dialect, call.cause.request_id)
    return _done(history, status=201)


def _done(history: Sequence[Payment.Event], *, status: int) -> Answer:
    """The receipt, with where it is."""
    body = receipt(receipts.fold(history))
    return json_answer(status, body, {"Location": receipt_url(body["payment_id"])})


def _error_of(event: Payment.Event, payment_id: str) -> ApiError | None:
    match event:
        case (
            Payment.AuthorizationDeclined(code=code)
            | Payment.CaptureDeclined(code=code)
            | Payment.VoidDeclined(code=code)
        ) if code == BANK_PROTOCOL_ERROR:
            return misunderstood(payment_id)
        case Payment.AuthorizationDeclined(code=ReviewReason.BANK_DISAGREES):
            return ApiError(
                status=502,
                type="api_error",
                code=BANK_PROTOCOL_ERROR,
                message="The bank answered something else than it was asked. A person will look.",
                payment_id=payment_id,
            )
        case Payment.AuthorizationDeclined(code=code):
            return from_decline(code, payment_id)
        case Payment.CaptureDeclined(code=code) if code == AUTHORIZATION_EXPIRED:
            return _conflict(code, "The authorization has expired.", payment_id)
        case Payment.CaptureDeclined() | Payment.VoidDeclined():
            return _conflict(*REFUSED_BY_BANK[type(event)], payment_id)
        case _:
            return None


def _conflict(code: str, message: str, payment_id: str) -> ApiError:
    return ApiError(
        status=409, type=INVALID_REQUEST, code=code, message=message, payment_id=payment_id
    )


def pending(_call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time: what is certain, and where to look."""
    answer = _done(history, status=202)
    headers = {**answer.headers, "Retry-After": str(RETRY_AFTER_PENDING_SECONDS)}
    return Answer(status=202, body=answer.body, headers=headers)

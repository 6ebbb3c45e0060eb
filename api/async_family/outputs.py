"""What the asynchronous family answers: read models to JSON, outcomes to statuses, and nowhere else.

An intent's status is that of its payment, in this family's words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.async_family.errors import in_our_words
from api.errors import misunderstood
from api.http import RETRY_AFTER_PENDING_SECONDS, Answer, Call, error_answer, json_answer
from api.stripe_dialect import OWN
from domain.bank import Operation
from domain.payment import BANK_PROTOCOL_ERROR, REMARKS, Payment, Status
from domain.records import BankCall, StoredAnswer
from projections import refunds

Document = dict[str, Any]

REQUIRES_CONFIRMATION: Final = "requires_confirmation"
PROCESSING: Final = "processing"
REQUIRES_CAPTURE: Final = "requires_capture"
CANCELED: Final = "canceled"
UNSETTLED: Final = frozenset({REQUIRES_CONFIRMATION, PROCESSING})
STATUSES: Final[Mapping[Status, str]] = {
    Status.PENDING: PROCESSING,
    Status.AUTHORIZED: REQUIRES_CAPTURE,
    Status.CAPTURED: "succeeded",
    Status.REFUNDED: "succeeded",
    Status.VOIDED: CANCELED,
    Status.EXPIRED: CANCELED,
    Status.DECLINED: "failed",
}
AUTH_CODE_LENGTH: Final = 6
WAIT: Final = {"Retry-After": str(RETRY_AFTER_PENDING_SECONDS)}
NOBODY_WAITS: Final = StoredAnswer(status=204, body=b"")


def status_of(record: Document, receipt: Document | None) -> str:
    """The status of an intent, by the receipt of its last attempt."""
    if receipt is None:
        return REQUIRES_CONFIRMATION if record["canceled_at"] is None else CANCELED
    if receipt["status"] == Status.AUTHORIZED and receipt["pending_operation"] is not None:
        return PROCESSING
    return STATUSES[Status(receipt["status"])]


def new_intent(record: Document, client_secret: str, receipt: Document | None = None) -> Document:
    """An intent, as it is told when it is made."""
    terms = record["terms"]
    return {
        "id": record["id"],
        "status": status_of(record, receipt),
        "amount": terms["amount_minor"],
        "currency": terms["currency"],
        "customer_id": terms["customer_id"],
        "payment_method_id": terms["payment_method_id"],
        "capture_method": terms["capture_method"],
        "client_secret": client_secret,
        "metadata": terms["metadata"],
    }


def intent(record: Document, client_secret: str, receipt: Document | None) -> Document:
    """An intent, as it stands."""
    changes = [record["updated_at"]] + ([] if receipt is None else [receipt["updated_at"]])
    return new_intent(record, client_secret, receipt) | {
        "created_at": record["created_at"],
        "updated_at": max(changes),
    }


def confirmed(intent_id: str) -> Answer:
    """It is on its way, and where to look."""
    body = {"id": intent_id, "status": PROCESSING}
    return json_answer(202, body, {"Location": f"/payment_intents/{intent_id}", **WAIT})


def result(intent_id: str, status: str, receipt: Document, receipt_url: str) -> Answer:
    """What came of an intent."""
    body = {
        "payment_id": receipt["payment_id"],
        "payment_intent_id": intent_id,
        "status": status,
        "captured_amount": receipt["amount_captured"],
        "auth_code": _auth_code(receipt["bank"]["authorization_id"]),
        "receipt_url": receipt_url,
    }
    return json_answer(200, body)


def _auth_code(authorization_id: str | None) -> str | None:
    """The end of the bank's own id of the hold, short enough to be read aloud."""
    if authorization_id is None:
        return None
    spoken = [each for each in authorization_id.upper() if each.isascii() and each.isalnum()]
    return "".join(spoken[-AUTH_CODE_LENGTH:]) or None


def too_early(status: str) -> Answer:
    """Nothing came of it yet."""
    return json_answer(425, {"error": status}, WAIT)


def refund(document: Document) -> Document:
    """A refund, as this family tells it."""
    names = ("id", "payment_id", "amount", "reason", "status", "created_at")
    return {name: document[name] for name in names}


def settled(history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
    """The final answer to a command: of this family's, only refunds are waited for."""
    if call.operation is not Operation.REFUND:
        return NOBODY_WAITS
    return _refunded(history, call).stored()


def _refunded(history: Sequence[Payment.Event], call: BankCall) -> Answer:
    event = next(each for each in reversed(history) if not isinstance(each, REMARKS))
    if isinstance(event, Payment.RefundDeclined) and event.code == BANK_PROTOCOL_ERROR:
        return error_answer(in_our_words(misunderstood()), OWN, call.cause.request_id)
    return _refund_answer(history, 201, {})


def pending(_call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time whether the money was given back."""
    return _refund_answer(history, 202, WAIT)


def _refund_answer(
    history: Sequence[Payment.Event], status: int, headers: Mapping[str, str]
) -> Answer:
    body = refund(refunds.fold(history)[-1])
    return json_answer(status, body, {"Location": f"/v1/refunds/{body['id']}", **headers})

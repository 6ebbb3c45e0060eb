"""Errors as they are told: one shape, and the one table from refusals to HTTP statuses.

Never a stack trace, never HTML, never what was in a rejected field.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from domain.errors import DomainError, Refusal
from domain.payment import BANK_PROTOCOL_ERROR

INVALID_REQUEST: Final = "invalid_request_error"
RETRY_SOON_SECONDS: Final = 1
# By when what is refused now may well be possible, where that is not soon: the bank is tried again
# after so long.
RETRY_AFTER_SECONDS: Final[Mapping[str, int]] = {"bank_unavailable": 5}

REFUSALS: Final[Mapping[Refusal, tuple[int, str]]] = {
    Refusal.INVALID: (400, INVALID_REQUEST),
    Refusal.CONFLICT: (409, INVALID_REQUEST),
    Refusal.MISSING: (404, "resource_missing"),
    Refusal.CARD: (402, "card_error"),
    Refusal.UNAVAILABLE: (503, "api_error"),
}

# What the bank calls a decline, and what a merchant's developer knows it as.
CARD_ERRORS: Final[Mapping[str, tuple[str, str]]] = {
    "insufficient_funds": ("insufficient_funds", "The card has insufficient funds."),
    "invalid_cvv": ("incorrect_cvc", "The card's security code is incorrect."),
    "card_expired": ("expired_card", "The card has expired."),
    "invalid_card": ("incorrect_number", "The card number is incorrect."),
    "authentication_required": (
        "authentication_required",
        "The shopper did not approve the payment.",
    ),
    "processing_error": ("processing_error", "The bank could not process the card."),
}
# The same of a transfer, in the bank's own word.
TRANSFER_ERRORS: Final[Mapping[str, str]] = {
    "insufficient_funds": "The account has insufficient funds.",
    "debit_not_authorized": "The account's holder did not authorize the debit.",
    "invalid_account": "There is no such account.",
}
TRANSFER_FAILED: Final = "The transfer failed."
DECLINED: Final = ("card_declined", "The card was declined.")


@dataclass(kw_only=True, eq=False)
class ApiError(Exception):
    """An answer that is an error. `headers` are its own, beside those that every answer has; `more` is
    what it is about."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    decline_code: str | None = None
    payment_id: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str | None) -> dict[str, Any]:
        """The published shape; what does not apply is left out."""
        fields = {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "decline_code": self.decline_code,
            "payment_id": self.payment_id,
            **self.more,
            "request_id": request_id,
        }
        return {"error": {name: value for name, value in fields.items() if value is not None}}


# An error, as a family tells it whose words are others.
Words = Callable[[ApiError], ApiError]


def invalid(code: str, message: str, param: str | None = None, *, status: int = 400) -> ApiError:
    """The request is wrong in itself."""
    return ApiError(status=status, type=INVALID_REQUEST, code=code, message=message, param=param)


def not_found(code: str, message: str, param: str | None = None) -> ApiError:
    """There is no such thing, for this key at least."""
    return ApiError(status=404, type="resource_missing", code=code, message=message, param=param)


def unavailable(message: str) -> ApiError:
    """It cannot be done now, and nothing was begun."""
    return ApiError(
        status=503,
        type="api_error",
        code="service_unavailable",
        message=message,
        headers={"Retry-After": str(RETRY_SOON_SECONDS)},
    )


def internal() -> ApiError:
    """Our fault; what it was is in the log, under the request's id."""
    return ApiError(
        status=500,
        type="api_error",
        code="internal_server_error",
        message="Something went wrong on our side. Ask again with the same idempotency key.",
    )


def misunderstood(payment_id: str | None = None) -> ApiError:
    """The bank says that our request was not one; so nothing was done."""
    return ApiError(
        status=502,
        type="api_error",
        code=BANK_PROTOCOL_ERROR,
        message="The bank did not understand our request. Nothing was done.",
        payment_id=payment_id,
    )


def key_reused() -> ApiError:
    """The idempotency key belongs to another request."""
    return ApiError(
        status=409,
        type="idempotency_error",
        code="key_reused",
        message="The idempotency key was used for a different request.",
    )


def in_progress() -> ApiError:
    """The first request under this idempotency key is still at work."""
    return ApiError(
        status=409,
        type="idempotency_error",
        code="request_in_progress",
        message="The first request with this idempotency key is still in progress.",
        headers={"Retry-After": str(RETRY_SOON_SECONDS)},
    )


def from_refusal(refused: DomainError) -> ApiError:
    """The ledger's no, as HTTP says it."""
    status, error_type = REFUSALS[refused.refusal]
    error = ApiError(
        status=status,
        type=error_type,
        code=refused.code,
        message=refused.message,
        param=refused.param,
    )
    if refused.refusal is Refusal.UNAVAILABLE:
        seconds = RETRY_AFTER_SECONDS.get(refused.code, RETRY_SOON_SECONDS)
        return replace(error, headers={"Retry-After": str(seconds)})
    return error


def from_decline(bank_code: str, payment_id: str) -> ApiError:
    """The bank's no to a card."""
    code, message = CARD_ERRORS.get(bank_code, DECLINED)
    declined = code in {"insufficient_funds", DECLINED[0]}
    return ApiError(
        status=402,
        type="card_error",
        code=code,
        message=message,
        decline_code=("insufficient_funds" if code == "insufficient_funds" else "generic_decline")
        if declined
        else None,
        payment_id=payment_id,
    )

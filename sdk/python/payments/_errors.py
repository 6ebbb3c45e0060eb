"""What can go wrong, as classes.

PaymentsError
├── CardError                    the card was declined, or is no good (402)
├── InvalidRequestError          wrong in itself, in this state, or of something unknown (400, 404, 409)
├── AuthenticationError          no key, or no good one (401)
├── PermissionError              the key may not do this (403)
├── RateLimitError               too many requests (429)
├── IdempotencyError             the idempotency key belongs to another request (409)
├── APIError                     the API's fault, or an answer that is none (5xx)
├── APIConnectionError           nobody answered: whether it was done is not known
└── SignatureVerificationError   a webhook that is not from us, or too old
"""

from collections.abc import Mapping
from typing import Any, Final

from payments._objects import PaymentsObject, object_from


class PaymentsError(Exception):
    """An answer that is an error, or that did not come; then `http_status` is None."""

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        fields = body or {}
        self.message = message
        self.http_status = http_status
        self.headers: Mapping[str, str] = headers or {}
        self.body: Mapping[str, Any] = fields
        self.code: str | None = fields.get("code")
        self.param: str | None = fields.get("param")
        self.request_id: str | None = fields.get("request_id") or self.headers.get("Request-Id")

    def __str__(self) -> str:
        return f"{self.message} ({self.request_id})" if self.request_id else self.message


class CardError(PaymentsError):
    """The card was declined. `payment_intent` is as it is now: it can be confirmed with another."""

    @property
    def decline_code(self) -> str | None:
        """Why, as the bank says."""
        code: str | None = self.body.get("decline_code")
        return code

    @property
    def payment_intent(self) -> PaymentsObject | None:
        """The intent whose attempt was declined, if it was one's."""
        intent = self.body.get("payment_intent")
        return None if intent is None else object_from(intent)


class InvalidRequestError(PaymentsError):
    """The request is wrong in itself, or in this state, or of something that is not there."""


class AuthenticationError(PaymentsError):
    """No API key was sent, or none that is good."""


class PermissionError(PaymentsError):  # noqa: A001 (as the API's error is called)
    """The API key may not do this."""


class RateLimitError(PaymentsError):
    """Too many requests."""


class IdempotencyError(PaymentsError):
    """The idempotency key belongs to another request, or its first is still at work."""


class APIError(PaymentsError):
    """The API's fault, or an answer that cannot be understood."""


class APIConnectionError(PaymentsError):
    """Nobody answered. Ask again under the same idempotency key to know what became of it."""


class SignatureVerificationError(PaymentsError):
    """The signature is not of this body and secret, or it is too old."""


BY_TYPE: Final[Mapping[str, type[PaymentsError]]] = {
    "card_error": CardError,
    "invalid_request_error": InvalidRequestError,
    "resource_missing": InvalidRequestError,
    "authentication_error": AuthenticationError,
    "permission_error": PermissionError,
    "rate_limit_error": RateLimitError,
    "idempotency_error": IdempotencyError,
    "api_error": APIError,
}


def error_from(status: int, document: Any, headers: Mapping[str, str]) -> PaymentsError:
    """The error that an answer tells. `document`: the answer, or None where that is no JSON."""
    body = document.get("error") if isinstance(document, dict) else None
    if not isinstance(body, dict):
        message = f"The API answered {status}, and nothing that can be understood."
        return APIError(message, http_status=status, headers=headers)
    kind = BY_TYPE.get(str(body.get("type")), APIError)
    message = str(body.get("message") or "The API refused, and did not say why.")
    return kind(message, http_status=status, body=body, headers=headers)

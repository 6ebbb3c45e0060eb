"""Counterfoil's API for Python.

import payments

payments.api_key = "sk_test_…"
intent = payments.PaymentIntent.create(amount=2000, currency="usd")
paid = payments.PaymentIntent.confirm(intent.id, payment_method="pm_card_visa")
"""

from payments._errors import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    CardError,
    IdempotencyError,
    InvalidRequestError,
    PaymentsError,
    PermissionError,  # noqa: A004 (as the API's error is called)
    RateLimitError,
    SignatureVerificationError,
)
from payments._objects import Fields, LastResponse, ListObject, PaymentsObject
from payments._resources import (
    Balance,
    Charge,
    Customer,
    Event,
    PaymentIntent,
    PaymentMethod,
    Refund,
)
from payments._webhook import Webhook

# Settings of the whole program. `api_key=` and `idempotency_key=` of a call are for that call only.
api_key: str | None = None
api_base: str = "http://127.0.0.1:8080"
max_network_retries: int = 2
retry_wait_seconds: float = 0.5  # before the first retry; twice as long before the next, and so on
timeout_seconds: float = 30.0

__all__ = [
    "APIConnectionError",
    "APIError",
    "AuthenticationError",
    "Balance",
    "CardError",
    "Charge",
    "Customer",
    "Event",
    "Fields",
    "IdempotencyError",
    "InvalidRequestError",
    "LastResponse",
    "ListObject",
    "PaymentIntent",
    "PaymentMethod",
    "PaymentsError",
    "PaymentsObject",
    "PermissionError",
    "RateLimitError",
    "Refund",
    "SignatureVerificationError",
    "Webhook",
    "api_base",
    "api_key",
    "max_network_retries",
    "retry_wait_seconds",
    "timeout_seconds",
]

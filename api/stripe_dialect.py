"""Where Stripe's clients expect other words or statuses than ours: all of it is here.

A request that carries `Stripe-Version` is answered in this dialect; everyone else in our own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from api.errors import INVALID_REQUEST, ApiError

OWN: Final = "own"
STRIPE: Final = "stripe"

CODES: Final[Mapping[str, str]] = {
    "missing_param": "parameter_missing",
    "invalid_param": "parameter_invalid",
    "unknown_param": "parameter_unknown",
    "payment_already_refunded": "charge_already_refunded",
    "request_in_progress": "idempotency_key_in_use",
}
RETRIED_STATUSES: Final = frozenset({500, 503})


def dialect_of(stripe_version: str | None) -> str:
    """Which words a request wants."""
    return OWN if stripe_version is None else STRIPE


def tells_what_was_deleted(dialect: str) -> bool:
    """Whether what is there no more is a 200 that says so; else it is a 404, and to have deleted it a
    204."""
    return dialect == STRIPE


def spoken(error: ApiError, dialect: str) -> ApiError:
    """The error in the words of `dialect`."""
    if dialect != STRIPE:
        return error
    if error.status == 404:
        return replace(error, type=INVALID_REQUEST, code="resource_missing")
    conflict = error.status == 409 and error.code != "request_in_progress"
    return replace(
        error, status=400 if conflict else error.status, code=CODES.get(error.code, error.code)
    )


def should_retry(error: ApiError) -> str:
    """The value of `Stripe-Should-Retry`, by the error in our own words."""
    retried = error.status in RETRIED_STATUSES or error.code == "request_in_progress"
    return "true" if retried else "false"

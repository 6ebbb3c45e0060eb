"""How this family tells errors: types and statuses of its own, for whatever went wrong, wherever it did.

The codes, messages and params are those of all families.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from api.errors import INVALID_REQUEST, ApiError

VALIDATION: Final = (422, "validation_error")
CARD: Final = (422, "card_error")
AUTH: Final = "auth_error"
API: Final = "api_error"

# The status and the type, by the status that the other families tell. What is not named here keeps its
# status: below 500 as a request that cannot be taken, from there on as our own trouble.
TOLD: Final[Mapping[int, tuple[int, str]]] = {
    400: VALIDATION,
    401: (401, AUTH),
    402: CARD,
    403: (403, AUTH),
    429: (429, "rate_limit_error"),
}
# Of what is a 400 elsewhere, that which could not be read at all, so that there was nothing to validate.
UNREADABLE: Final = frozenset({"invalid_json", "invalid_request"})
HEADERS: Final = frozenset({"Idempotency-Key", "X-API-Version"})

# In the OpenAPI document.
MEANINGS: Final[Mapping[int, str]] = {
    400: "The request could not be read, or a header is wrong or missing.",
    401: "No API key, or one that is no good.",
    403: "The key may not do this.",
    404: "There is no such thing for this key.",
    405: "The route does not take this method.",
    406: "Only JSON is answered.",
    409: "The state does not allow it, or the idempotency key is another request's.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request is wrong (`validation_error`; `param` names the field), or the card is "
    "(`card_error`).",
    429: "Too many requests.",
    500: "Something went wrong on our side.",
    502: "The bank did not understand our request.",
    503: "It cannot be done now; nothing was begun. Ask again after `Retry-After`.",
}


def in_our_words(error: ApiError) -> ApiError:
    """The same error, as this family tells it."""
    if error.status == 400 and (error.code in UNREADABLE or error.param in HEADERS):
        return replace(error, type=INVALID_REQUEST)
    kept = (error.status, API if error.status >= 500 else INVALID_REQUEST)
    status, error_type = TOLD.get(error.status, kept)
    return replace(error, status=status, type=error_type)

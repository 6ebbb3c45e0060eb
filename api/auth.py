"""Who is asking: an API key, as a bearer token or as the user name of Basic authentication."""

import base64
import binascii
from collections.abc import Mapping

from werkzeug.wrappers import Request

from api.errors import ApiError
from api.http import Route
from infrastructure.api_keys import ApiKey, KeyType
from infrastructure.rate_limiter import Allowance
from infrastructure.services import Services

CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": 'Bearer realm="counterfoil"'}


def authenticate(request: Request, services: Services) -> ApiKey:
    """The key's record. Raises ApiError for none, for one that is no good, and for too many such."""
    text = _key_text(request.headers.get("Authorization"))
    found = None if text is None else services.api_keys.find(text)
    if found is not None:
        return found
    limit = services.settings.rate_limit_ip_per_minute
    allowance = services.rate_limiter.hit(f"ip:{request.remote_addr}", limit)
    if allowance is not None and allowance.is_exceeded:
        raise too_many(allowance)
    if text is None:
        raise _unauthenticated("missing_api_key", "Send an API key as a bearer token.")
    raise _unauthenticated("invalid_api_key", "The API key is not valid.")


def authorize(key: ApiKey, route: Route) -> None:
    """Raises ApiError when the key may not do this."""
    if key.is_suspended:
        raise _forbidden("account_suspended", "The merchant's account is suspended.")
    if key.type is KeyType.PUBLISHABLE and not route.takes_publishable_keys:
        raise publishable_key_not_allowed()
    if key.scopes.isdisjoint(route.scopes):
        wanted = " or ".join(route.scopes)
        raise _forbidden("scope_missing", f"The key lacks the scope {wanted}.")


def limit(key: ApiKey, route: Route, services: Services) -> Allowance | None:
    """Counts the request against the key's limits, of which reads and commands have one each; the one of
    which least is left. Raises ApiError when one is spent."""
    limits = {"commands" if route.is_command else "reads": services.settings.rate_limit_per_minute}
    if route.creates_intents:
        limits["intents"] = services.settings.rate_limit_intents_per_minute
    least: Allowance | None = None
    for kind, most in limits.items():
        allowance = services.rate_limiter.hit(f"key:{key.key_id}:{kind}", most)
        if allowance is not None and allowance.is_exceeded:
            raise too_many(allowance)
        if allowance is not None and (least is None or allowance.remaining < least.remaining):
            least = allowance
    return least


def allowance_headers(allowance: Allowance) -> dict[str, str]:
    """What is left, in the words of the RateLimit header fields."""
    return {
        "RateLimit-Limit": str(allowance.limit),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(allowance.reset_seconds),
    }


def too_many(allowance: Allowance) -> ApiError:
    """The limit is spent, and given back second by second."""
    return ApiError(
        status=429,
        type="rate_limit_error",
        code="too_many_requests",
        message=f"More than {allowance.limit} requests in a minute.",
        headers={
            **allowance_headers(allowance),
            "Retry-After": str(max(1, allowance.reset_seconds)),
        },
    )


def publishable_key_not_allowed() -> ApiError:
    """It was made to be seen, and what is asked for is not for everybody."""
    return _forbidden(
        "publishable_key_not_allowed", "A publishable key may not do this: use a secret key."
    )


def _key_text(header: str | None) -> str | None:
    """The key in an Authorization header, or None where there is none."""
    scheme, _, rest = (header or "").partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip() or None
        case "basic":
            try:
                decoded = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                return ""
            return decoded.partition(":")[0] or None
        case _:
            return None


def _unauthenticated(code: str, message: str) -> ApiError:
    return ApiError(
        status=401, type="authentication_error", code=code, message=message, headers=CHALLENGE
    )


def _forbidden(code: str, message: str) -> ApiError:
    return ApiError(status=403, type="permission_error", code=code, message=message)

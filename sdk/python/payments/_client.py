"""One call of the API: sent, repeated under one idempotency key where that helps, and understood."""

import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import requests

import payments
from payments._errors import APIConnectionError, APIError, AuthenticationError, error_from
from payments._objects import LastResponse, ListObject, PaymentsObject, object_from

VERSION: Final = "0.1.0"
API_VERSION: Final = "2025-09-01"
LONGEST_WAIT_SECONDS: Final = 8.0

NOBODY_ANSWERED: Final = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)

_own = threading.local()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A call; its idempotency key is the same however often it is sent."""

    method: str
    path: str
    params: Mapping[str, Any]
    api_key: str
    idempotency_key: str | None


def path_of(*parts: str) -> str:
    """A path, with whatever is in its parts. Raises ValueError for a part that is none."""
    if not all(part and isinstance(part, str) for part in parts):
        raise ValueError("an id is a text that is not empty")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def perform(method: str, path: str, params: Mapping[str, Any]) -> PaymentsObject:
    """Does it, and answers the object. `api_key` and `idempotency_key` of `params` are the call's
    own. Raises PaymentsError."""
    fields = dict(params)
    api_key = fields.pop("api_key", None) or payments.api_key
    if not api_key:
        raise AuthenticationError("Set payments.api_key, or give api_key.")
    key = fields.pop("idempotency_key", None)
    if key is None and method != "GET":
        key = str(uuid.uuid4())
    return _answered(
        Ask(method=method, path=path, params=fields, api_key=api_key, idempotency_key=key)
    )


def _answered(ask: Ask) -> PaymentsObject:
    response = _sent_until_answered(ask)
    status, headers = response.status_code, response.headers
    document = _document(response)
    if not response.ok:
        raise error_from(status, document, headers)
    if status == requests.codes.no_content:
        document = {"id": ask.path.rpartition("/")[2], "deleted": True}
    if not isinstance(document, dict):
        raise APIError("The answer is no JSON object.", http_status=status, headers=headers)
    found = object_from(document)
    found.last_response = LastResponse(status=status, headers=headers)
    if isinstance(found, ListObject):
        found.params = ask.params
        found.next_page = lambda params: _list(replace(ask, params=params))
    return found


def _list(ask: Ask) -> ListObject[Any]:
    page = _answered(ask)
    if not isinstance(page, ListObject):
        raise APIError("The answer is no list.")
    return page


def _sent_until_answered(ask: Ask) -> requests.Response:
    """The first answer that another would not be better than. Raises APIConnectionError."""
    for attempt in range(payments.max_network_retries + 1):
        is_last = attempt == payments.max_network_retries
        try:
            response = _sent(ask)
        except NOBODY_ANSWERED as error:
            if is_last:
                raise APIConnectionError(f"The API did not answer: {error}") from error
        except requests.RequestException as error:
            raise APIConnectionError(f"The API could not be asked: {error}") from error
        else:
            if is_last or not _is_better_repeated(response):
                return response
        time.sleep(wait_seconds(attempt, random.random()))  # noqa: S311 (jitter)
    raise ValueError("max_network_retries is 0 or more")


def wait_seconds(attempt: int, chance: float) -> float:
    """How long to wait after an attempt, the first being 0: between half of it and all of it."""
    longest: float = min(payments.retry_wait_seconds * 2**attempt, LONGEST_WAIT_SECONDS)
    return longest * (0.5 + chance / 2)


def _is_better_repeated(response: requests.Response) -> bool:
    """What was not begun, or is still at work; the API says so itself."""
    return not response.ok and response.headers.get("Stripe-Should-Retry") == "true"


def _sent(ask: Ask) -> requests.Response:
    headers = {
        "Authorization": f"Bearer {ask.api_key}",
        "User-Agent": f"counterfoil-payments-python/{VERSION}",
        "X-API-Version": API_VERSION,
    }
    if ask.idempotency_key is not None:
        headers["Idempotency-Key"] = ask.idempotency_key
    in_query = ask.method == "GET"
    return _session().request(
        ask.method,
        payments.api_base.rstrip("/") + ask.path,
        params=list(_pairs(ask.params)) if in_query else None,
        json=None if in_query else ask.params,
        headers=headers,
        timeout=payments.timeout_seconds,
        allow_redirects=False,
    )


def _session() -> requests.Session:
    """Connections of this thread's own. Nothing from the environment takes the key's place."""
    if not hasattr(_own, "session"):
        _own.session = requests.Session()
        _own.session.auth = _as_it_is
    session: requests.Session = _own.session
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leaves the Authorization header alone, which a .netrc would replace."""
    return request


def _pairs(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A query in bracket notation: `created[gte]=1`, `expand[]=customer`. What is None is left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _pairs(item, f"{name}[{key}]" if name else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _pairs(item, f"{name}[]")
    elif value is not None:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def _document(response: requests.Response) -> Any:
    try:
        return response.json()
    except requests.JSONDecodeError:
        return None

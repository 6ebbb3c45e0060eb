"""Speaking HTTP to the bank: pooled connections, every wait and every body bounded, no judgement.

What came back is a `Reply`, whatever it was. What did not come back is `NotSent` (nothing reached
the bank) or `NoReply` (something may have).
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import requests
from urllib3.exceptions import HTTPError

from infrastructure.bank.bounded import BoundedAdapter, answered_before
from infrastructure.fault_points import reached

CONNECT_TIMEOUT_SECONDS: Final = 1.0
HEALTH_TIMEOUT_SECONDS: Final = 2.0
MAX_BODY_BYTES: Final = 64 * 1024
# What the bank's words look like. Anything else under that name is not its word, nor fit to be stored.
CODE: Final = re.compile(r"[a-z0-9_]{1,64}")
FRAMING: Final = frozenset({"content-length", "transfer-encoding"})


class NotSent(Exception):
    """No connection could be made: the bank knows nothing of the request."""


class NoReply(Exception):
    """The request went out, and no whole answer came back: it may have been carried out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that was received whole. `body` is None where it was not a JSON object."""

    status: int
    body: dict[str, Any] | None
    replayed: bool

    @property
    def code(self) -> str | None:
        """The bank's error code, where it gave one."""
        code = None if self.body is None else self.body.get("error")
        return code if isinstance(code, str) and CODE.fullmatch(code) else None


class BankClient:
    """One bank, at `base_url`; `connections` kept open at most."""

    def __init__(self, base_url: str, *, connections: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = BoundedAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._templates: dict[str, requests.PreparedRequest] = {}

    def post(self, path: str, key: str, body: dict[str, Any], *, timeout_seconds: float) -> Reply:
        """POSTs under an idempotency key. Raises NotSent, NoReply."""
        deadline = time.monotonic() + timeout_seconds
        reached("bank.asked")
        return self._send(lambda: self._prepared(path, key, body), deadline)

    def get(self, path: str, *, timeout_seconds: float) -> Reply:
        """GETs, which does nothing at the bank. Raises NotSent, NoReply."""
        deadline = time.monotonic() + timeout_seconds
        request = requests.Request("GET", self._base_url + path)
        return self._send(lambda: self._session.prepare_request(request), deadline)

    def _send(self, prepare: Callable[[], requests.PreparedRequest], deadline: float) -> Reply:
        timeout_seconds = deadline - time.monotonic()
        if timeout_seconds <= 0:
            raise NotSent("TooLate")
        try:
            with answered_before(deadline):
                # No redirect is followed and no cookie kept, so the session has nothing to add.
                response = self._session.get_adapter(self._base_url).send(
                    prepare(),
                    timeout=(min(CONNECT_TIMEOUT_SECONDS, timeout_seconds), timeout_seconds),
                    stream=True,
                )
                with response:
                    raw = _whole_body(response, deadline)
        except (requests.ConnectTimeout, requests.exceptions.InvalidURL) as error:
            raise NotSent(type(error).__name__) from error
        except requests.ConnectionError as error:
            raise _connection_error(error) from error
        except requests.RequestException as error:
            raise NoReply(type(error).__name__) from error
        reached("bank.answered")
        return Reply(
            status=response.status_code,
            body=_json_object(raw),
            replayed=response.headers.get("X-Idempotent-Replayed") == "true",
        )

    def _prepared(self, path: str, key: str, body: dict[str, Any]) -> requests.PreparedRequest:
        """A request to `path`; all but the key and the body is the same for each, and made once."""
        if path not in self._templates:
            request = requests.Request("POST", self._base_url + path, json={})
            self._templates[path] = self._session.prepare_request(request)
        prepared = self._templates[path].copy()
        raw = json.dumps(body).encode()
        prepared.body = raw
        prepared.headers["Content-Length"] = str(len(raw))
        prepared.headers["Idempotency-Key"] = key
        return prepared

    def is_healthy(self, *, timeout_seconds: float = HEALTH_TIMEOUT_SECONDS) -> bool:
        """Whether the bank says so of itself; no answer is no."""
        try:
            with answered_before(time.monotonic() + timeout_seconds):
                response = self._session.get(
                    self._base_url + "/health",
                    timeout=timeout_seconds,
                    allow_redirects=False,
                    stream=True,
                )
        except requests.RequestException:
            return False
        with response:
            return response.status_code == HTTPStatus.OK


def _connection_error(error: requests.ConnectionError) -> Exception:
    """Refused or unresolved: nothing was sent. Anything later may have been."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    refused = type(reason).__name__ in {"NewConnectionError", "NameResolutionError"}
    return (NotSent if refused else NoReply)(type(reason or error).__name__)


def _whole_body(response: requests.Response, deadline: float) -> bytes:
    """The whole body, in bounded time and size: a slow drip is silence."""
    if not FRAMING & {name.lower() for name in response.headers}:
        raise NoReply("HeadersCutShort")  # without a length an answer may be half of one
    received = bytearray()
    try:
        while chunk := response.raw.read1(MAX_BODY_BYTES, decode_content=True):
            received += chunk
            if len(received) > MAX_BODY_BYTES:
                raise NoReply("BodyTooLarge")
            if time.monotonic() > deadline:
                raise NoReply("BodyTooSlow")
    except (HTTPError, OSError) as error:
        raise NoReply(type(error).__name__) from error
    return bytes(received)


def _json_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

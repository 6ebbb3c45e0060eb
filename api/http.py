"""What a request is to us, what an answer is, and how a route is declared."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from api.bodies import BODY_TYPES
from api.errors import ApiError
from api.fields import Strict
from api.stripe_dialect import spoken
from domain.commands import Audience, Cause, Claim, Tenant
from domain.payment import Payment
from domain.records import StoredAnswer
from infrastructure.api_keys import ApiKey, Scope
from infrastructure.services import Services

API_VERSION: Final = "2025-09-01"
JSON: Final = "application/json"
RETRY_AFTER_PENDING_SECONDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, a body of JSON, already in bytes, and headers of its own."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON

    def stored(self) -> StoredAnswer:
        """The same, to be kept under an idempotency key."""
        return StoredAnswer(
            status=self.status, body=self.body, headers=tuple(sorted(self.headers.items()))
        )


def json_bytes(value: Any) -> bytes:
    """JSON as it is sent: compact, and in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that carries `value`."""
    return Answer(status=status, body=json_bytes(value), headers=headers or {})


def error_answer(error: ApiError, dialect: str, request_id: str | None) -> Answer:
    """An answer that carries `error`, in the words of `dialect`."""
    told = spoken(error, dialect)
    return json_answer(told.status, told.body(request_id), error.headers)


@dataclass(slots=True, kw_only=True)
class Call:
    """One authenticated request to one route."""

    services: Services
    request_id: str
    key: ApiKey
    dialect: str
    deadline: float
    path: str
    query: Any = None  # of a command that takes parameters there
    expand: tuple[str, ...] = ()
    idempotency_key: str | None = None
    claim: Claim | None = None

    @property
    def tenant(self) -> Tenant:
        """Whose data is asked for."""
        return self.key.tenant

    @property
    def cause(self) -> Cause:
        """What events will say they were caused by."""
        return Cause(
            actor=self.key.key_id,
            request_id=self.request_id,
            idempotency_key=self.idempotency_key,
        )

    def audience(self, family: str) -> Audience:
        """Who will read the answer."""
        return Audience(family=family, dialect=self.dialect, expand=self.expand)

    def command_fields(self, family: str) -> dict[str, Any]:
        """What every command carries."""
        return {
            "tenant": self.tenant,
            "cause": self.cause,
            "audience": self.audience(family),
            "deadline": self.deadline,
            "claim": self.claim,
        }


Handler = Callable[..., Any]
PendingAnswer = Callable[["Call", Sequence[Payment.Event]], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A published route: what it takes, what it may answer, and who handles it.

    `path` is in Flask's notation. A command gives its `handler` a Call, which has the validated query
    where there is one, the validated body and the parts of the path, gets the ledger's reply, and has `pending` to say that there is none in time. A
    GET gives it a Call, the validated query and the parts of the path, and gets the answer.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope
    summary: str
    family: str
    answers: Mapping[int, type[BaseModel]]
    pending: PendingAnswer | None = None
    name: str | None = None  # in the OpenAPI document; else the handler's
    body: type[Strict] | None = None
    query: type[Strict] | None = None
    errors: Mapping[int, str] | None = None  # what its family tells them by; else as all do
    or_scopes: tuple[Scope, ...] = ()  # each of which does as well as `scope`
    needs_idempotency_key: bool = False
    body_types: Sequence[str] = BODY_TYPES
    takes_publishable_keys: bool = False
    creates_intents: bool = False  # of which there may be fewer in a minute
    media_type: str = JSON  # of what it answers when nothing is wrong

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Any of these opens it."""
        return (self.scope, *self.or_scopes)

    @property
    def is_command(self) -> bool:
        """Whether it may change something, under an idempotency key."""
        return self.method != "GET"


def routes_of(family: str, *, reads: Scope, writes: Scope) -> Callable[..., Route]:
    """How routes of a family are declared where a GET takes one scope, and all else another: by method,
    path, handler and summary, and what else a `Route` has."""

    def route(method: str, path: str, handler: Handler, summary: str, **more: Any) -> Route:
        scope = reads if method == "GET" else writes
        return Route(
            method=method,
            path=path,
            handler=handler,
            summary=summary,
            scope=scope,
            family=family,
            **more,
        )

    return route

"""Versions of the interface. Handlers know the newest only: what an older one did otherwise is said here,
change by change, and nowhere else.

A new version is one more line of VERSIONS, with what changed since the one before: for each change the
routes, and two functions. One makes of an older request what it means now; the other makes of today's
answer what it looked like then. A request of a version goes through all changes since, from the oldest;
its answer through the same ones, backwards. Idempotency keys keep today's form, so a replay is told in
the version that asks for it. Errors have one form in all versions.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from api.errors import invalid
from api.http import API_VERSION, Answer, Route, json_bytes

Document = dict[str, Any]
Step = Callable[[Document], Document]


def _as_it_is(document: Document) -> Document:
    return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a version does otherwise than the one before. `routes`: as "GET /v1/receipts"; `request` and
    `answer` are given a document of their own."""

    says: str
    routes: frozenset[str]
    request: Step = _as_it_is
    answer: Step = _as_it_is


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version, by its date, and what changed with it."""

    name: str
    changes: tuple[Change, ...] = ()


# From the oldest, which is the one of requests that name none; handlers speak the last.
VERSIONS: Final = (Version(name=API_VERSION),)


@dataclass(frozen=True, slots=True)
class Spoken:
    """The version of one request: the changes that came after it, from the oldest."""

    name: str
    since: tuple[Change, ...]

    def understood(self, route: Route, value: Document) -> Document:
        """What a request means now."""
        for change in self._of(route):
            value = change.request(value)
        return value

    def told(self, route: Route, answer: Answer) -> Answer:
        """The answer as it looked then."""
        changes = self._of(route)
        if not changes or not answer.body:
            return answer
        document = json.loads(answer.body)
        if "error" in document:
            return answer
        for change in reversed(changes):
            document = change.answer(document)
        return replace(answer, body=json_bytes(document))

    def _of(self, route: Route) -> list[Change]:
        name = f"{route.method} {route.path}"
        return [change for change in self.since if name in change.routes]


def spoken(versions: Sequence[Version], wanted: str | None) -> Spoken:
    """The version of a request that names `wanted`. Raises ApiError where there is no such version."""
    names = [version.name for version in versions]
    name = names[0] if wanted is None else wanted
    if name not in names:
        known = (
            f"The only version is {names[0]}." if len(names) == 1 else "There is no such version."
        )
        raise invalid("unsupported_api_version", known, "X-API-Version")
    later = versions[names.index(name) + 1 :]
    return Spoken(name, tuple(change for version in later for change in version.changes))

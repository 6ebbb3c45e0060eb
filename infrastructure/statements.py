"""One statement out of parts: what several tables' owners write together, in one round of the wire.

Each part is a constant that its table's owner keeps; as a common table expression it is carried out
with the others, all or none, and no lock waits for the client. What identifies the payment is
sent once where it is the same; other parameters are told apart by the part's name.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, LiteralString, NamedTuple

SHARED: Final = frozenset({"shard", "payment_id", "merchant_id", "mode", "count", "digests"})


class Part(NamedTuple):
    """One table's part. `sql` may end in RETURNING for the parts after it."""

    name: LiteralString
    sql: LiteralString
    parameters: Mapping[str, Any]


def compose(
    parts: Sequence[Part], last: LiteralString, parameters_of_last: Mapping[str, Any]
) -> tuple[LiteralString, dict[str, Any]]:
    """The statement, which ends with `last`, and its parameters."""
    parameters: dict[str, Any] = dict(parameters_of_last)
    named: dict[str, tuple[LiteralString, tuple[str, ...]]] = {}
    for part in parts:
        name = part.name if part.name not in named else f"{part.name}{len(named)}"
        shared = []
        for each, value in part.parameters.items():
            if each in SHARED and parameters.setdefault(each, value) == value:
                shared.append(each)
            else:
                parameters[f"{name}_{each}"] = value
        named[name] = (part.sql, tuple(shared))
    return _text(tuple(named.items()), last), parameters


@lru_cache(maxsize=256)
def _text(
    parts: tuple[tuple[str, tuple[LiteralString, tuple[str, ...]]], ...], last: LiteralString
) -> LiteralString:
    """Short enough, without the white space, for the driver to remember how it is parsed."""
    expressions = [f"{name} AS ({_renamed(name, *part)})" for name, part in parts]
    return f"WITH {', '.join(expressions)} {' '.join(last.split())}"


def _renamed(part: str, sql: LiteralString, shared: tuple[str, ...]) -> str:
    def full(match: re.Match[str]) -> str:
        return match[0] if match[1] in shared else f"%({part}_{match[1]})"

    return re.sub(r"%\((\w+)\)", full, " ".join(sql.split()))

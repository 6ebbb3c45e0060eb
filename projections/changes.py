"""What a read model is told, and what it answers: changes in, writes out, and no database between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString, Protocol
from uuid import UUID

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event is from: its own id in the log, and its cause, as JSON."""

    event_id: UUID
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One aggregate went on: all of its `history`, of which the last `new` events are new.

    `origins`: of each event of the history, where it was read from the log.
    """

    shard: int
    history: Sequence[Any]
    new: int
    origins: Sequence[Origin] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """A statement and its parameters.

    `into`: the table whose columns the parameters are, each a list, where the statement puts rows
    into one table: to this they can be copied as they are while none of them can be there yet.
    """

    sql: LiteralString
    parameters: Mapping[str, Any]
    into: LiteralString | None = None


class ReadModel(Protocol):
    """A read model, in one file: its tables, and what each event does to them.

    `aggregate`: the kind of aggregate that it is made of, or the kinds, which is what its topics begin
    with;
    `migration`: the one with which there came to be such.
    `CREATE` and `INDEXES` name no schema, so that another generation can be built beside the one
    that is read; `INDEXES`, and what else is done once the rows are there, come after them where it
    is made again. `VERSION` grows when the same history would make other rows.
    """

    name: LiteralString
    version: int
    migration: LiteralString
    TABLES: tuple[LiteralString, ...]
    CREATE: LiteralString
    INDEXES: LiteralString

    @property
    def aggregate(self) -> LiteralString | tuple[LiteralString, ...]:
        """One kind, or several."""

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """What to write for `changes`, in this order. Each aggregate comes once at most."""


PAYMENT: Final[LiteralString] = "payment"
FIRST_MIGRATION: Final[LiteralString] = "0001_ledger.sql"


def topics_of(model: ReadModel) -> list[str]:
    """The topics that the model is made of, as patterns of LIKE."""
    kinds = model.aggregate
    return [f"{kind}.%" for kind in ((kinds,) if isinstance(kinds, str) else kinds)]


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as one list for each column, as `unnest` takes them. There is one row at least."""
    return {name: [row[name] for row in rows] for name in rows[0]}

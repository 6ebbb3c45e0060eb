"""What is written with the events, against a replay: the rows of one inline read model in one shard,
compared while the histories go by in the order of the aggregates' ids."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from psycopg import sql
from psycopg.types.json import Jsonb

from infrastructure.verification.findings import Kind, named
from infrastructure.verification.place import Place
from projections.registry import InlineProjection

FETCHED_AT_ONCE: Final = 1_000
LONGEST_SHOWN: Final = 300

Row = dict[str, Any]
Stored = tuple[UUID, list[Row]]


class Written:
    """The rows of one model in one shard, from the first aggregate to the last."""

    def __init__(self, place: Place, model: InlineProjection) -> None:
        self._place, self._model = place, model
        self.kind: str = model.aggregate
        (self._table,) = model.TABLES
        self._key, self._columns = place.layout[self._table].key, place.layout[self._table].columns
        self._owner = "id" if list(self._key) == ["id"] else "payment_id"
        is_compared = place.has_rows_of_this_code(model.name)
        self._stored = self._rows() if is_compared else None
        self._next = self._advance()

    def compare(self, aggregate: UUID, history: Sequence[Any]) -> None:
        """The rows of one aggregate, which comes after those that were compared before."""
        if self._stored is None:
            return
        while self._next is not None and self._next[0] < aggregate:
            self._without_events(self._next)
            self._next = self._advance()
        stored: list[Row] = []
        if self._next is not None and self._next[0] == aggregate:
            stored = self._next[1]
            self._next = self._advance()
        try:
            expected = self._model.rows(self._place.shard, history)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
            self._find(
                Kind.HISTORY_IMPOSSIBLE,
                f"no such thing can have happened: a replay fails with {type(error).__name__}",
                aggregate,
            )
            return
        self._compare_rows(aggregate, expected, stored)

    def end(self) -> None:
        """Whatever is left is of nothing in the log."""
        while self._next is not None:
            self._without_events(self._next)
            self._next = self._advance()

    # --- rows ----------------------------------------------------------------------------------

    def _compare_rows(
        self, aggregate: UUID, expected: Sequence[Row], stored: Sequence[Row]
    ) -> None:
        if len(expected) == 1 and len(stored) == 1:
            self._compare_row(aggregate, expected[0], stored[0])
            return
        must_be = {self._key_of(row): row for row in expected}
        are = {self._key_of(row): row for row in stored}
        for key, row in must_be.items():
            if key in are:
                self._compare_row(aggregate, row, are[key])
            else:
                self._find(
                    Kind.ROW_MISSING,
                    "there is no row of it",
                    aggregate,
                    expected=shown(dict(zip(self._key, key, strict=True))),
                    found="none",
                )
        for key in are.keys() - must_be.keys():
            self._find(
                Kind.ROW_WITHOUT_EVENTS,
                "no event says that there is such a row",
                aggregate,
                found=shown(dict(zip(self._key, key, strict=True))),
            )

    def _compare_row(self, aggregate: UUID, expected: Row, stored: Row) -> None:
        for name, is_ in stored.items():
            must_be = expected.get(name)
            if isinstance(must_be, Jsonb):
                must_be = must_be.obj
            if is_ == must_be or _is_that_moment(must_be, is_):
                continue
            for field, (wanted, found) in differing(name, must_be, is_):
                self._find(
                    Kind.ROW_DIFFERS,
                    f"`{field}` is not what the events make it",
                    aggregate,
                    version=stored.get("version"),
                    expected=shown(wanted),
                    found=shown(found),
                )

    def _without_events(self, stored: Stored) -> None:
        for row in stored[1]:
            self._find(
                Kind.ROW_WITHOUT_EVENTS,
                "there is a row of what the log knows nothing of",
                stored[0],
                found=shown({name: row[name] for name in self._key}),
            )

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    # --- the table -----------------------------------------------------------------------------

    def _rows(self) -> Iterator[Stored]:
        query = sql.SQL("SELECT * FROM {} WHERE shard = {} ORDER BY {}").format(
            sql.Identifier("public", self._table), self._place.shard, sql.Identifier(self._owner)
        )
        with self._place.connection.cursor(name=f"of_{self._table}") as cursor:
            cursor.execute(query, binary=True)
            at = self._columns.index(self._owner)
            for owner, rows in groupby(in_batches(cursor), key=itemgetter(at)):
                yield owner, [dict(zip(self._columns, row, strict=True)) for row in rows]

    def _advance(self) -> Stored | None:
        return None if self._stored is None else next(self._stored, None)

    def _find(self, kind: Kind, says: str, aggregate: UUID, **more: Any) -> None:
        places = {"shard": self._place.shard, "table": self._table}
        self._place.findings.add(kind, says, **places, **named(aggregate, self.kind), **more)


def differing(name: str, must_be: Any, is_: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The fields that differ, inside of documents too."""
    if not (isinstance(must_be, dict) and isinstance(is_, dict)):
        yield name, (must_be, is_)
        return
    for field in sorted(must_be.keys() | is_.keys()):
        if must_be.get(field) != is_.get(field):
            yield from differing(f"{name}.{field}", must_be.get(field), is_.get(field))


def in_batches(cursor: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a cursor on the server, many at a time."""
    while rows := cursor.fetchmany(FETCHED_AT_ONCE):
        yield from rows


def _is_that_moment(must_be: Any, is_: Any) -> bool:
    """A time that an event has as a text."""
    if not (isinstance(is_, datetime) and isinstance(must_be, str)):
        return False
    return datetime.fromisoformat(must_be) == is_


def shown(value: Any) -> str:
    """As it is told, in a few words."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text[:LONGEST_SHOWN]

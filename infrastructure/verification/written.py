"""What is written with the events, against a replay: the rows of one inline read model in one shard,
compared while the histories go by in the order of the aggregates' ids."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

import orjson
from psycopg import sql

from domain.ids import MalformedId, Prefix, decode
from infrastructure.verification.findings import Kind, named
from infrastructure.verification.place import Place
from infrastructure.verification.reading import are_same, read_documents_later
from projections.changes import PAYMENT
from projections.registry import InlineProjection

FETCHED_AT_ONCE: Final = 500
LONGEST_SHOWN: Final = 300
# Where a row of something of a payment's has the payment's public id, which sorts as the id does.
DOCUMENT: Final = "document"
_BY_DOCUMENT: Final = sql.SQL("document ->> 'payment_id' COLLATE \"C\" NULLS FIRST")
NOBODY: Final = UUID(int=0)

# A row's values, in the order of the table's columns; and with it the number of its aggregate's id.
Row = Sequence[Any]
Stored = tuple[int, Row]


class Written:
    """The rows of one model in one shard, from the first aggregate to the last."""

    def __init__(self, place: Place, model: InlineProjection) -> None:
        self._place, self._model = place, model
        self.kind: str = model.aggregate
        (self._table,) = model.TABLES
        self._key, self._columns = place.layout[self._table].key, place.layout[self._table].columns
        self._owner = _owner_in(self.kind, self._key)
        self._owner_at = self._columns.index(self._owner)
        self._values = itemgetter(*self._columns)
        self._times = [self._columns.index(name) for name in place.layout[self._table].times]
        self._documents = [at for at, name in enumerate(self._columns) if name == DOCUMENT]
        is_compared = place.has_rows_of_this_code(model.name)
        self._stored = self._rows() if is_compared else None
        self._next = self._advance()

    def compare(self, aggregate: UUID, history: Sequence[Any]) -> None:
        """The rows of one aggregate, which comes after those that were compared before."""
        if self._stored is None:
            return
        stored = self._rows_of(aggregate.int)
        try:
            made = self._model.rows(self._place.shard, history)
            expected = [self._as_read_again(self._values(row)) for row in made]
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
            self._find(
                Kind.HISTORY_IMPOSSIBLE,
                f"no such thing can have happened: a replay fails with {type(error).__name__}",
                aggregate,
            )
            return
        if len(expected) != len(stored) or not all(map(are_same, expected, stored)):
            self._tell_apart(aggregate, expected, stored)

    def end(self) -> None:
        """Whatever is left is of nothing in the log."""
        while self._next is not None:
            self._without_events(self._next[1])
            self._next = self._advance()

    def _rows_of(self, number: int) -> list[Row]:
        """Those of the next aggregate, which has this number."""
        rows = []
        while self._next is not None and self._next[0] <= number:
            owner, row = self._next
            if owner == number:
                rows.append(row)
            else:
                self._without_events(row)
            self._next = self._advance()
        return rows

    # --- rows ----------------------------------------------------------------------------------

    def _tell_apart(self, aggregate: UUID, expected: Sequence[Row], stored: Sequence[Row]) -> None:
        must_be = {self._key_of(row): row for row in expected}
        are = {self._key_of(row): row for row in stored}
        for key, row in must_be.items():
            place = dict(zip(self._key, key, strict=True))
            if key in are:
                self._tell_fields(aggregate, row, are[key])
            else:
                says, wanted = "there is no row of it", shown(place)
                self._find(Kind.ROW_MISSING, says, aggregate, expected=wanted, found="none")
        for key in are.keys() - must_be.keys():
            place = dict(zip(self._key, key, strict=True))
            says = "no event says that there is such a row"
            self._find(Kind.ROW_WITHOUT_EVENTS, says, aggregate, found=shown(place))

    def _tell_fields(self, aggregate: UUID, expected: Row, stored: Row) -> None:
        row = dict(zip(self._columns, stored, strict=True))
        for name, must_be, is_ in zip(self._columns, expected, stored, strict=True):
            if are_same([must_be], [is_]):
                continue
            for field, (wanted, found) in differing(name, must_be, is_):
                self._find(
                    Kind.ROW_DIFFERS,
                    f"`{field}` is not what the events make it",
                    aggregate,
                    version=row.get("version"),
                    expected=shown(wanted),
                    found=shown(found),
                )

    def _as_read_again(self, values: Iterable[Any]) -> Row:
        """Documents as such, and times that an event has as a text as times."""
        row = list(values)
        for at in self._documents:
            row[at] = row[at].obj
        for at in self._times:
            if isinstance(row[at], str):
                row[at] = datetime.fromisoformat(row[at])
        return row

    def _without_events(self, stored: Row) -> None:
        row = dict(zip(self._columns, stored, strict=True))
        self._find(
            Kind.ROW_WITHOUT_EVENTS,
            "there is a row of what the log knows nothing of",
            self._owner_of(stored),
            found=shown({name: row[name] for name in self._key}),
        )

    def _key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[self._columns.index(name)] for name in self._key)

    # --- the table -----------------------------------------------------------------------------

    def _rows(self) -> Iterator[Stored]:
        query = sql.SQL("SELECT {} FROM {} WHERE shard = {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, self._columns)),
            sql.Identifier("public", self._table),
            self._place.shard,
            _BY_DOCUMENT if self._owner == DOCUMENT else sql.Identifier(self._owner),
        )
        with self._place.connection.cursor(name=f"of_{self._table}") as cursor:
            read_documents_later(cursor)
            cursor.execute(query, binary=True)
            for row in in_batches(cursor):
                read = self._with_documents(row)
                yield self._owner_of(read).int, read

    def _with_documents(self, row: Row) -> Row:
        read = list(row)
        for at in self._documents:
            if isinstance(read[at], bytes):
                read[at] = orjson.loads(read[at])
        return read

    def _owner_of(self, row: Row) -> UUID:
        """Of the aggregate that a row is of; of no such one, where it does not say it as it should."""
        value = row[self._owner_at]
        if isinstance(value, UUID):
            return value
        try:
            return decode(Prefix.PAYMENT, str(value.get("payment_id")))
        except MalformedId:
            return NOBODY

    def _advance(self) -> Stored | None:
        return None if self._stored is None else next(self._stored, None)

    def _find(self, kind: Kind, says: str, aggregate: UUID, **more: Any) -> None:
        places = {"shard": self._place.shard, "table": self._table}
        self._place.findings.add(kind, says, **places, **named(aggregate, self.kind), **more)


def _owner_in(kind: str, key: Sequence[str]) -> str:
    """The column that says which aggregate a row is of: its own, where it has its id."""
    if list(key) != ["id"]:
        return "payment_id"
    return DOCUMENT if kind == PAYMENT else "id"


def differing(name: str, must_be: Any, is_: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The fields that differ, inside of documents too."""
    if not (isinstance(must_be, dict) and isinstance(is_, dict)):
        yield name, (must_be, is_)
        return
    for field in sorted(must_be.keys() | is_.keys()):
        if not are_same([must_be.get(field)], [is_.get(field)]):
            yield from differing(f"{name}.{field}", must_be.get(field), is_.get(field))


def in_batches(cursor: Any) -> Iterator[tuple[Any, ...]]:
    """The rows of a cursor on the server, many at a time."""
    while rows := cursor.fetchmany(FETCHED_AT_ONCE):
        yield from rows


def shown(value: Any) -> str:
    """As it is told, in a few words."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text[:LONGEST_SHOWN]

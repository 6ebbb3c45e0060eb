"""Changing the vault's key while everything runs: what is sealed is sealed again under the first key.

Each batch is a transaction, and a row that changed meanwhile is left to whoever changed it, which is
why a run that was stopped can be begun again, and one that is begun twice does no harm. What is sealed
under the first key already is left as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from psycopg import sql

from infrastructure.database import Pool
from infrastructure.vault import Fingerprints

BATCH: Final = 500
# How long an idempotency key is good for, at least.
REPLAYED_FOR: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedColumn:
    """A column of what is sealed with the vault's keys; `key`: the columns of the primary key."""

    table: LiteralString
    column: LiteralString
    key: tuple[LiteralString, ...]

    @property
    def name(self) -> str:
        """As people are told of it."""
        return f"{self.table}.{self.column}"


# Everything that is sealed. Whoever seals something else adds its column here.
SEALED: Final = (
    SealedColumn(table="vault_secrets", column="sealed", key=("name",)),
    SealedColumn(table="stored_cards", column="sealed_number", key=("shard", "method_id")),
    SealedColumn(table="stored_cards", column="sealed_cvc", key=("shard", "method_id")),
    SealedColumn(table="bank_calls", column="sealed_card", key=("shard", "payment_id")),
    SealedColumn(table="webhook_secrets", column="sealed", key=("id",)),
)

COUNT: Final = sql.SQL("SELECT count({column}) AS count FROM {table}")
FIRST: Final = sql.SQL(
    "SELECT {key}, {column} AS sealed FROM {table} WHERE {column} IS NOT NULL"
    " ORDER BY {key} LIMIT %(limit)s"
)
NEXT: Final = sql.SQL(
    "SELECT {key}, {column} AS sealed FROM {table}"
    " WHERE {column} IS NOT NULL AND ({key}) > ({after}) ORDER BY {key} LIMIT %(limit)s"
)
SEAL_AGAIN: Final = sql.SQL(
    "UPDATE {table} SET {column} = %(again)s WHERE ({key}) = ({after}) AND {column} = %(sealed)s"
)
# Requests are recognised by a keyed hash that begins with the key's own mark.
OF_OLD_KEYS: Final[LiteralString] = """
    SELECT count(*) AS count, max(claimed_at) AS last FROM idempotency_keys
    WHERE claimed_at > clock_timestamp() - %(replayed_for)s
      AND substring(fingerprint FROM 1 FOR 4) <> %(current)s
"""

Row = dict[str, Any]
Shown = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was found in one column. `old`: under a key that is not the first; `again`: of those, sealed
    again; `unreadable`: under none of the keys."""

    column: str
    current: int = 0
    old: int = 0
    again: int = 0
    unreadable: int = 0

    @property
    def left(self) -> int:
        """What an old key is still needed for."""
        return self.old - self.again


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Idempotency keys that are good yet, and recognised by an old key only: how many, and until when."""

    count: int
    until: datetime | None


@dataclass(slots=True)
class Rotation:
    """One walk through all that is sealed. `keys`: as VAULT_KEYS has them."""

    pool: Pool
    keys: tuple[str, ...]
    batch: int = BATCH
    _first: Fernet = field(init=False)
    _all: MultiFernet = field(init=False)

    def __post_init__(self) -> None:
        self._first = Fernet(self.keys[0])
        self._all = MultiFernet([Fernet(key) for key in self.keys])

    def total(self) -> int:
        """How much is sealed."""
        with self.pool.connection() as connection:
            rows = [connection.execute(_of(COUNT, each)).fetchone() for each in SEALED]
        return sum(row["count"] for row in rows if row is not None)

    def rotate(self, show: Shown = lambda _: None) -> list[Counted]:
        """Seals again what is under an old key. `show` is told how much was looked at."""
        return [self._walk(column, show, self._sealed_again) for column in SEALED]

    def check(self, show: Shown = lambda _: None) -> list[Counted]:
        """The same, and nothing is changed."""
        return [self._walk(column, show, lambda *_: 0) for column in SEALED]

    def requests(self) -> Requests:
        """What an old key is needed for beside what is sealed."""
        current = Fingerprints(self.keys).of(b"")[:4]
        parameters = {"current": current, "replayed_for": REPLAYED_FOR}
        with self.pool.connection() as connection:
            row = connection.execute(OF_OLD_KEYS, parameters).fetchone()
        assert row is not None
        until = None if row["last"] is None else row["last"] + REPLAYED_FOR
        return Requests(count=row["count"], until=until)

    def _walk(
        self,
        column: SealedColumn,
        show: Shown,
        treat: Callable[[SealedColumn, Sequence[Row]], int],
    ) -> Counted:
        found = Counted(column=column.name)
        for rows in self._batches(column):
            old = [row for row in rows if not _opens(self._first, row)]
            readable = [row for row in old if _opens(self._all, row)]
            found = replace(
                found,
                current=found.current + len(rows) - len(old),
                old=found.old + len(readable),
                again=found.again + treat(column, readable),
                unreadable=found.unreadable + len(old) - len(readable),
            )
            show(len(rows))
        return found

    def _batches(self, column: SealedColumn) -> Iterator[list[Row]]:
        query, parameters = _of(FIRST, column), {"limit": self.batch}
        while True:
            with self.pool.connection() as connection:
                rows = connection.execute(query, parameters).fetchall()
            if rows:
                yield rows
            if len(rows) < self.batch:
                return
            query, parameters = _of(NEXT, column), {"limit": self.batch, **_key(column, rows[-1])}

    def _sealed_again(self, column: SealedColumn, rows: Sequence[Row]) -> int:
        """How many are under the first key now, or are gone, or were written anew meanwhile."""
        if not rows:
            return 0
        changes = [
            {
                **_key(column, row),
                "sealed": bytes(row["sealed"]),
                "again": self._all.rotate(bytes(row["sealed"])),
            }
            for row in rows
        ]
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(_of(SEAL_AGAIN, column), changes)
        return len(changes)


def _opens(keys: Fernet | MultiFernet, row: Row) -> bool:
    try:
        keys.decrypt(bytes(row["sealed"]))
    except InvalidToken:
        return False
    return True


def _of(statement: sql.SQL, column: SealedColumn) -> sql.Composed:
    return statement.format(
        table=sql.Identifier(column.table),
        column=sql.Identifier(column.column),
        key=sql.SQL(", ").join(sql.Identifier(name) for name in column.key),
        after=sql.SQL(", ").join(sql.Placeholder(name) for name in column.key),
    )


def _key(column: SealedColumn, row: Row) -> Row:
    return {name: row[name] for name in column.key}

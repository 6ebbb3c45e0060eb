"""Two generations of a read model, compared row by row as of one moment."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection, errors, sql
from psycopg.rows import DictRow, dict_row

from infrastructure.projections.generations import (
    Generation,
    NoSuchGeneration,
    Slot,
    Status,
    in_slot,
)
from infrastructure.projections.rebuild import LOCK_TIMEOUT, catch_up
from projections.registry import is_inline, read_model

TRIES: Final = 20
LOOK_SECONDS: Final = 0.1
FETCHED_AT_ONCE: Final = 1_000

# For all heads together; the first of them are held while the last are waited for.
HOLD_HEADS_TIMEOUT: Final[LiteralString] = "SET LOCAL statement_timeout = '500ms'"
# In this order, as whoever else needs several.
HOLD_HEADS: Final[LiteralString] = "SELECT shard FROM public.shard_heads ORDER BY shard FOR UPDATE"
POSITIONS_DIFFER: Final[LiteralString] = """
    SELECT count(*) AS shards FROM public.projection_positions a
    JOIN public.projection_positions b ON b.name = a.name AND b.shard = a.shard
    WHERE a.name = %(name)s AND a.generation = %(live)s AND b.generation = %(beside)s
      AND a.position <> b.position
"""
BEHIND_THE_LOG: Final[LiteralString] = """
    SELECT count(*) AS shards FROM public.projection_positions p JOIN public.shard_heads h ON h.shard = p.shard
    WHERE p.name = %(name)s AND p.generation = %(beside)s AND p.position < h.position
"""
KEY_COLUMNS: Final[LiteralString] = """
    SELECT a.attname AS name FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE i.indrelid = %(table)s::regclass AND i.indisprimary ORDER BY k.place
"""


class NeverAtOnePoint(Exception):
    """The generations were never up to the same event; nothing can be said of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row that is not the same. None: the generation does not have it."""

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    beside: dict[str, Any] | None


def differences(database_url: str, name: str) -> Iterator[Difference]:
    """Every row of the live generation that differs from the one beside it, as of one snapshot in
    which both have taken in the same events. Raises NoSuchGeneration, NeverAtOnePoint."""
    model = read_model(name)
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        _reach_one_point(connection, database_url, name)
        for table in model.TABLES:
            yield from _rows_that_differ(connection, table)


def _reach_one_point(connection: Connection[DictRow], database_url: str, name: str) -> None:
    """Leaves `connection` in a snapshot in which both generations are up to the same events."""
    live, beside = in_slot(connection, name, Slot.LIVE), in_slot(connection, name, Slot.BESIDE)
    if live is None or beside is None or beside.status is Status.BUILDING:
        raise NoSuchGeneration(f"there is no finished generation beside the live one of {name}")
    following = [each for each in (live, beside) if each.follows and each.is_of_this_code]
    query = BEHIND_THE_LOG if is_inline(name) else POSITIONS_DIFFER
    identity = {"name": name, "live": live.generation, "beside": beside.generation}
    with (
        psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as holder,
        psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as other,
    ):
        for _ in range(TRIES):
            _catch_up(other, following)
            with _log_held_still(holder):
                _catch_up(other, following)
                connection.rollback()
                if [in_slot(connection, name, slot) for slot in Slot] != [live, beside]:
                    raise NoSuchGeneration(f"the generations of {name} were changed meanwhile")
                row = connection.execute(query, identity).fetchone()
                if row is not None and row["shards"] == 0:
                    return
            time.sleep(LOOK_SECONDS)
    raise NeverAtOnePoint(f"the generations of {name} were never up to the same event")


@contextmanager
def _log_held_still(connection: Connection[DictRow]) -> Iterator[None]:
    """Nobody appends, for the milliseconds that it takes to bring two readers to its end. If that
    cannot be had soon, it is done without."""
    with connection.transaction():
        connection.execute(LOCK_TIMEOUT)
        with suppress(errors.LockNotAvailable, errors.QueryCanceled), connection.transaction():
            connection.execute(HOLD_HEADS_TIMEOUT)
            connection.execute(HOLD_HEADS)
        yield


def _catch_up(connection: Connection[DictRow], following: Sequence[Generation]) -> None:
    for each in following:
        catch_up(connection, each)


def _rows_that_differ(connection: Connection[DictRow], table: str) -> Iterator[Difference]:
    found = connection.execute(KEY_COLUMNS, {"table": f"public.{table}"}).fetchall()
    keys = [row["name"] for row in found]
    joined = sql.SQL(" AND ").join(
        sql.SQL("a.{0} = b.{0}").format(sql.Identifier(key)) for key in keys
    )
    query = sql.SQL(
        "SELECT to_jsonb(a) AS live, to_jsonb(b) AS beside FROM {} a FULL JOIN {} b ON {}"
        " WHERE to_jsonb(a) IS DISTINCT FROM to_jsonb(b)"
    ).format(sql.Identifier("public", table), sql.Identifier("beside", table), joined)
    with connection.cursor(name="differences") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(query)
        for row in cursor:
            present = row["live"] or row["beside"]
            yield Difference(
                table=table,
                key={key: present[key] for key in keys},
                live=row["live"],
                beside=row["beside"],
            )

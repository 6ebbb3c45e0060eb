"""Rebuilding an inline read model from the log, while it is read and written.

Each payment's rows are made again from all of its events, by the code that writes them inline, and
put over the rows that are there unless those are newer. So a reader sees a row as it was or as it
should be, a writer waits for no more than a batch, and doing it again changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg import Connection
from psycopg.rows import dict_row

from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.shards import SHARDS
from projections.registry import InlineProjection

PAYMENTS_IN_A_BATCH: Final = 500
FETCHED_AT_ONCE: Final = 5_000

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild did."""

    payments: int = 0
    events: int = 0
    rows: int = 0
    deleted: int = 0


# In order of the primary key: an aggregate's events come together, and nothing is sorted.
EVENTS: Final[LiteralString] = """
    SELECT originator_id, originator_version, topic, state FROM events
    WHERE shard = %(shard)s ORDER BY shard, originator_id, originator_version
"""
COUNT: Final[LiteralString] = "SELECT sum(position)::bigint AS events FROM shard_heads"


def rebuild(database_url: str, projection: InlineProjection, progress: Progress) -> Rebuilt:
    """Makes every row of `projection` again. `progress` is told events done, and of how many."""
    done = Rebuilt()
    with (
        psycopg.connect(database_url, row_factory=dict_row) as reader,
        psycopg.connect(database_url, autocommit=True) as writer,
    ):
        counted = reader.execute(COUNT).fetchone()
        total = counted["events"] if counted else 0
        for shard in range(SHARDS):
            histories = _histories(reader, shard)
            while batch := list(islice(histories, PAYMENTS_IN_A_BATCH)):
                _write(writer, projection, shard, batch, done)
                progress(min(done.events, total), total)
            reader.rollback()  # ends the snapshot of this shard
        done.deleted = writer.execute(projection.DELETE_ORPHANS).rowcount
    return done


def _histories(reader: Connection[dict[str, Any]], shard: int) -> Iterator[list[Any]]:
    """Each payment's events, a page of rows in memory at a time."""
    mapper = FlatMapper(FlatJSON())
    with reader.cursor(name="events") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(EVENTS, {"shard": shard})
        for _, rows in groupby(cursor, key=_originator):
            yield [mapper.to_domain_event(_stored(row)) for row in rows]


def _write(
    writer: Connection[Any],
    projection: InlineProjection,
    shard: int,
    histories: Iterable[list[Any]],
    done: Rebuilt,
) -> None:
    rows: list[dict[str, Any]] = []
    for history in histories:
        rows += projection.rows(shard, history)
        done.payments += 1
        done.events += len(history)
    done.rows += len(rows)
    if rows:
        with writer.transaction(), writer.cursor() as cursor:
            cursor.executemany(projection.REBUILD, rows)


def _originator(row: dict[str, Any]) -> UUID:
    originator: UUID = row["originator_id"]
    return originator


def _stored(row: dict[str, Any]) -> StoredEvent:
    return StoredEvent(
        originator_id=row["originator_id"],
        originator_version=row["originator_version"],
        topic=row["topic"],
        state=bytes(row["state"]),
    )

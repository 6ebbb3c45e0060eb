"""Sealing: the events of all shards, put into one order without gaps, under the tree.

Within a shard that order is the log's own; over the shards it is that in which the sealer comes to them,
and is kept. A shard's positions are given out in the order of commits, so that what is at or before its
head is all there, and nothing comes between. One step is one transaction: the events' places, the tree's
nodes and how far each shard is sealed, all of it or none.

Of all workers one seals, by a lease. The lease only saves work: whoever lost it writes nothing, since
each step holds the row that says whose it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import uuid4

from psycopg import Connection, errors
from psycopg.rows import DictRow, tuple_row

from domain.evidence import Leaf, leaf_bytes, leaf_hash
from infrastructure.audit.tree import edge, grown, read_tiles, write_tiles

BATCH_EVENTS: Final = 4_000
LEASE_SECONDS: Final = 10.0

LEASE: Final[LiteralString] = """
    UPDATE audit_tree
    SET owner = %(owner)s, owned_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE %(by_force)s OR owner IS NULL OR owner = %(owner)s OR owned_until < clock_timestamp()
"""
GIVE_BACK: Final[LiteralString] = """
    UPDATE audit_tree SET owner = NULL, owned_until = NULL WHERE owner = %(owner)s
"""
# Nobody else takes a step until the transaction ends. What a crash of the server takes back is sealed
# again, all of it, and was never signed: signing waits for the disk.
HOLD: Final[LiteralString] = """
    SELECT size, set_config('synchronous_commit', 'off', true)
    FROM (SELECT size FROM audit_tree WHERE owner = %(owner)s FOR NO KEY UPDATE) AS held
"""
BEHIND: Final[LiteralString] = """
    SELECT c.shard, c.position AS after, h.position AS head
    FROM audit_cursors c JOIN shard_heads h ON h.shard = c.shard WHERE h.position > c.position
    ORDER BY c.shard
"""
# Shard by shard, so that each look-up is one along an index, however large the log is.
NEW: Final[LiteralString] = """
    SELECT r.shard, e.position, e.event_id, e.originator_id, e.originator_version, e.topic, e.at,
           e.state, e.cause
    FROM unnest(%(shards)s::smallint[], %(after)s::bigint[], %(upto)s::bigint[])
         WITH ORDINALITY AS r (shard, after, upto, place)
    CROSS JOIN LATERAL (
        SELECT position, event_id::text, originator_id::text, originator_version, topic,
               to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
               state, cause
        FROM events WHERE shard = r.shard AND position > r.after AND position <= r.upto
        ORDER BY position LIMIT %(limit)s
    ) AS e
    ORDER BY r.place, e.position
"""
KEEP_RUNS: Final[LiteralString] = """
    INSERT INTO audit_runs (position, shard, shard_position, events)
    SELECT * FROM unnest(
        %(positions)s::bigint[], %(shards)s::smallint[], %(firsts)s::bigint[], %(counts)s::integer[]
    )
"""
ADVANCE: Final[LiteralString] = """
    UPDATE audit_cursors c SET position = r.upto
    FROM unnest(%(shards)s::smallint[], %(after)s::bigint[], %(upto)s::bigint[])
         AS r (shard, after, upto)
    WHERE c.shard = r.shard AND c.position = r.after
"""
GROW: Final[LiteralString] = """
    UPDATE audit_tree SET size = %(size)s WHERE owner = %(owner)s
"""


class NotOurs(Exception):
    """Somebody else seals; nothing was written."""


class LogBroken(Exception):
    """The log has not what it must have, and nothing is sealed. One line that says where."""


@dataclass(frozen=True, slots=True)
class Run:
    """Some of a shard's events that follow one another: after one of its positions, up to another."""

    shard: int
    after: int
    upto: int

    @property
    def events(self) -> int:
        """How many."""
        return self.upto - self.after


class Sealer:
    """One who seals, or waits to."""

    def __init__(self) -> None:
        self._owner = uuid4()

    def lease(self, connection: Connection[DictRow], *, by_force: bool = False) -> bool:
        """Takes or renews the lease; whether it is ours. `by_force`: whoever has it."""
        parameters = {"owner": self._owner, "seconds": LEASE_SECONDS, "by_force": by_force}
        return connection.execute(LEASE, parameters).rowcount == 1

    def give_back(self, connection: Connection[DictRow]) -> None:
        """Lets another take it at once."""
        connection.execute(GIVE_BACK, {"owner": self._owner})

    def hold(self, connection: Connection[DictRow]) -> int:
        """The size of the tree, which nobody else changes until the transaction ends. Raises NotOurs."""
        row = connection.execute(HOLD, {"owner": self._owner}).fetchone()
        if row is None:
            raise NotOurs
        size: int = row["size"]
        return size

    def step(self, connection: Connection[DictRow], *, batch: int = BATCH_EVENTS) -> int:
        """Seals up to `batch` events in one transaction; how many. None: all are sealed. Raises NotOurs,
        LogBroken, TreeBroken."""
        with connection.transaction():
            size = self.hold(connection)
            runs = list(_runs(connection.execute(BEHIND).fetchall(), batch))
            if not runs:
                return 0
            tiles = read_tiles(connection, edge(size))
            leaves = list(_leaves(connection, runs, size))
            write_tiles(connection, grown(size, tiles, leaves))
            self._keep(connection, runs, size)
        return len(leaves)

    def _keep(self, connection: Connection[DictRow], runs: Sequence[Run], size: int) -> None:
        positions = []
        for run in runs:
            positions.append(size)
            size += run.events
        ranges = _ranges(runs)
        places = {
            "positions": positions,
            "shards": ranges["shards"],
            "firsts": [run.after + 1 for run in runs],
            "counts": [run.events for run in runs],
        }
        try:
            connection.execute(KEEP_RUNS, places)
        except errors.UniqueViolation as error:
            raise LogBroken("events would be sealed a second time") from error
        connection.execute(ADVANCE, ranges)
        connection.execute(GROW, {"size": size, "owner": self._owner})


def _runs(behind: Sequence[DictRow], batch: int) -> Iterator[Run]:
    """A share for each shard, and what is left to those that have more."""
    left = batch
    for waiting, row in zip(
        range(len(behind), 0, -1),
        sorted(behind, key=lambda row: row["head"] - row["after"]),
        strict=True,
    ):
        events = min(row["head"] - row["after"], max(left // waiting, 0))
        if events:
            yield Run(row["shard"], row["after"], row["after"] + events)
        left -= events


def _leaves(connection: Connection[DictRow], runs: Sequence[Run], size: int) -> Iterator[bytes]:
    """The hashed leaves, in order. Raises LogBroken where an event is not where it must be."""
    parameters = {**_ranges(runs), "limit": max(run.events for run in runs)}
    with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        rows: Iterator[tuple[Any, ...]] = iter(cursor.execute(NEW, parameters))
        for run in runs:
            for expected in range(run.after + 1, run.upto + 1):
                shard, position, *fields = next(rows, (None, None))
                if (shard, position) != (run.shard, expected):
                    raise LogBroken(f"shard {run.shard} has no event at its position {expected}")
                yield leaf_hash(leaf_bytes(Leaf(size, *fields)))
                size += 1


def _ranges(runs: Sequence[Run]) -> dict[str, list[int]]:
    return {
        "shards": [run.shard for run in runs],
        "after": [run.after for run in runs],
        "upto": [run.upto for run in runs],
    }

"""The log in its one order: events by their positions, and positions of events.

An event has a position for others once a signed checkpoint covers it: before, nobody is bound to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.commands import Mode, Tenant
from domain.evidence import Leaf, leaf_bytes, leaf_hash
from infrastructure.shards import shard_of

COVERED: Final[LiteralString] = """
    SELECT size FROM audit_checkpoints ORDER BY number DESC LIMIT 1
"""
# A run that lies over the beginning, and those that begin later.
PAGE: Final[LiteralString] = """
    WITH runs AS (
        SELECT position, shard, shard_position, events FROM audit_runs
        WHERE position >= coalesce(
            (SELECT max(position) FROM audit_runs WHERE position <= %(since)s), 0
        ) AND position < %(upto)s
        ORDER BY position LIMIT %(limit)s + 1
    )
    SELECT r.position + e.position - r.shard_position AS position, e.event_id, e.originator_id,
           e.originator_version, e.topic, e.at, e.state, e.cause
    FROM runs AS r
    CROSS JOIN LATERAL (
        SELECT position, event_id, originator_id, originator_version, topic,
               to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
               state, cause
        FROM events
        WHERE shard = r.shard
          AND position >= r.shard_position + greatest(%(since)s - r.position, 0)
          AND position < r.shard_position + least(r.events, %(upto)s - r.position)
        ORDER BY position LIMIT %(limit)s
    ) AS e
    ORDER BY 1 LIMIT %(limit)s
"""
HISTORY: Final[LiteralString] = """
    SELECT r.position + e.position - r.shard_position AS position, e.event_id, e.originator_id,
           e.originator_version, e.topic,
           to_char(e.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at,
           e.state, e.cause
    FROM events AS e
    LEFT JOIN LATERAL (
        SELECT position, shard_position, events FROM audit_runs
        WHERE shard = e.shard AND shard_position <= e.position
        ORDER BY shard_position DESC LIMIT 1
    ) AS r ON e.position < r.shard_position + r.events
    WHERE e.shard = %(shard)s AND e.originator_id = %(originator_id)s
    ORDER BY e.originator_version
"""
OWNERS: Final[LiteralString] = """
    SELECT e.originator_id, convert_from(e.state, 'UTF8')::jsonb ->> 'merchant_id' AS merchant_id,
           convert_from(e.state, 'UTF8')::jsonb ->> 'mode' AS mode
    FROM unnest(%(shards)s::smallint[], %(ids)s::uuid[]) AS k (shard, id)
    JOIN events AS e ON e.shard = k.shard AND e.originator_id = k.id
    WHERE e.originator_version = 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """An event as the log has it. `position`: in the one order; None until a checkpoint covers it.

    `at`: RFC 3339; `state`, `cause`: the very bytes of their JSON."""

    position: int | None
    event_id: UUID
    aggregate: UUID
    version: int
    topic: str
    at: str
    state: bytes
    cause: str

    @property
    def leaf(self) -> bytes | None:
        """What the tree has of it: the bytes that are hashed; None before it has a position."""
        if self.position is None:
            return None
        return leaf_bytes(
            Leaf(
                position=self.position,
                event_id=str(self.event_id),
                aggregate=str(self.aggregate),
                version=self.version,
                topic=self.topic,
                at=self.at,
                state=self.state,
                cause=self.cause,
            )
        )

    @property
    def hash(self) -> bytes | None:
        """The leaf's; None before there is one."""
        leaf = self.leaf
        return None if leaf is None else leaf_hash(leaf)


def covered(connection: Connection[Any]) -> int:
    """How many events the last checkpoint covers."""
    row = connection.execute(COVERED).fetchone()
    return 0 if row is None else row["size"]


def page(connection: Connection[Any], since: int, limit: int) -> tuple[list[LoggedEvent], bool]:
    """The next events from a position on, and whether there are more that are covered."""
    upto = covered(connection)
    parameters = {"since": since, "upto": min(upto, since + limit), "limit": limit}
    found = [_event(row, upto) for row in connection.execute(PAGE, parameters).fetchall()]
    return found, since + limit < upto


def history(connection: Connection[Any], aggregate: UUID) -> list[LoggedEvent]:
    """All events of one aggregate, in order."""
    upto = covered(connection)
    parameters = {"shard": shard_of(aggregate), "originator_id": aggregate}
    return [_event(row, upto) for row in connection.execute(HISTORY, parameters).fetchall()]


def owners(connection: Connection[Any], events: Sequence[LoggedEvent]) -> dict[UUID, Tenant]:
    """Whose each aggregate is, as its first event says; nothing of those that are nobody's."""
    ids = sorted({event.aggregate for event in events})
    parameters = {"shards": [shard_of(each) for each in ids], "ids": ids}
    rows = connection.execute(OWNERS, parameters).fetchall()
    return {
        row["originator_id"]: Tenant(row["merchant_id"], Mode(row["mode"]))
        for row in rows
        if row["merchant_id"] is not None
    }


def _event(row: dict[str, Any], upto: int) -> LoggedEvent:
    position = row["position"]
    return LoggedEvent(
        position=position if position is not None and position < upto else None,
        event_id=row["event_id"],
        aggregate=row["originator_id"],
        version=row["originator_version"],
        topic=row["topic"],
        at=row["at"],
        state=bytes(row["state"]),
        cause=row["cause"],
    )

"""The deliveries that are due: leased by whoever sends them, and what came of each attempt.

A delivery that nobody reports on in time, because its worker died, is due again when the lease runs out.
Endpoint by endpoint, so that however much is due at one that is dead, the next one's is found as fast.
Time is the database's, one clock for all hosts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

from domain.commands import Mode, Tenant
from domain.records import ClaimKey
from infrastructure.claims import at_once, claim
from infrastructure.database import Pool
from infrastructure.webhooks.endpoints import UNREACHABLE
from projections.webhook_deliveries import WebhookDeliveries

# Longer than an attempt may take, and what waits in front of it in a worker.
LEASE_SECONDS: Final = 45.0
# An endpoint that answered nothing well for so long is disabled.
DISABLED_AFTER_DAYS: Final = 3
MOST_TRIES_KEPT: Final = 25
KEPT_DAYS: Final = 30
PRUNED_AT_ONCE: Final = 2_000
DELIVERIES: Final = WebhookDeliveries()

# From endpoint to endpoint by one look at the index each.
TAKE_DUE: Final[LiteralString] = """
    WITH RECURSIVE waiting AS (
        (
            SELECT endpoint_id, merchant_id, due_at FROM webhook_deliveries
            WHERE status = 'pending' ORDER BY endpoint_id, due_at LIMIT 1
        )
        UNION ALL
        SELECT following.endpoint_id, following.merchant_id, following.due_at
        FROM waiting CROSS JOIN LATERAL (
            SELECT endpoint_id, merchant_id, due_at FROM webhook_deliveries
            WHERE status = 'pending' AND endpoint_id > waiting.endpoint_id
            ORDER BY endpoint_id, due_at LIMIT 1
        ) AS following
    ), due AS MATERIALIZED (
        SELECT d.shard, d.event_id, d.endpoint_id
        FROM (
            SELECT endpoint_id FROM waiting
            WHERE due_at <= clock_timestamp() AND NOT merchant_id = ANY(%(spent)s::text[])
            ORDER BY due_at
        ) AS waiting
        LEFT JOIN unnest(%(endpoints)s::uuid[], %(rooms)s::bigint[]) AS r (endpoint_id, room)
          ON r.endpoint_id = waiting.endpoint_id
        CROSS JOIN LATERAL (
            SELECT shard, event_id, endpoint_id FROM webhook_deliveries
            WHERE endpoint_id = waiting.endpoint_id AND status = 'pending'
              AND due_at <= clock_timestamp()
            ORDER BY due_at, event_id LIMIT coalesce(r.room, %(room)s::bigint)
            FOR UPDATE SKIP LOCKED
        ) AS d
        LIMIT %(limit)s
    )
    UPDATE webhook_deliveries AS d
    SET fence = fence + 1,
        due_at = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    FROM due LEFT JOIN webhook_endpoints AS e ON e.id = due.endpoint_id
    WHERE d.shard = due.shard AND d.event_id = due.event_id AND d.endpoint_id = due.endpoint_id
    RETURNING d.shard, d.event_id, d.endpoint_id, d.merchant_id, d.mode, d.type, d.aggregate_id,
              d.version, d.created_at, d.request_id, d.idempotency_key, d.fence, d.failures, d.attempts,
              e.url, e.api_version, coalesce(e.is_enabled, false) AS is_enabled
"""
# An attempt is told of even where somebody else has the delivery by now; what is next is theirs to say.
RECORD: Final[LiteralString] = """
    UPDATE webhook_deliveries AS d
    SET attempts = d.attempts + 1,
        tries = CASE
            WHEN jsonb_array_length(d.tries) >= %(most)s THEN d.tries - 0 ELSE d.tries
        END || o.attempt,
        failures = CASE WHEN d.fence = o.fence THEN d.failures + (NOT o.is_ok)::int ELSE d.failures END,
        due_at = CASE
            WHEN d.fence <> o.fence THEN d.due_at
            ELSE least(clock_timestamp() + make_interval(secs => o.pause), d.gives_up_at)
        END,
        status = CASE
            WHEN d.fence <> o.fence THEN d.status
            WHEN o.is_ok THEN 'succeeded'
            WHEN d.gives_up_at <= clock_timestamp() THEN 'failed'
            ELSE 'pending'
        END
    FROM unnest(
        %(shards)s::smallint[], %(events)s::uuid[], %(endpoints)s::uuid[], %(fences)s::int[],
        %(ok)s::boolean[], %(pauses)s::float[], %(attempts)s::jsonb[]
    ) AS o (shard, event_id, endpoint_id, fence, is_ok, pause, attempt)
    WHERE d.shard = o.shard AND d.event_id = o.event_id AND d.endpoint_id = o.endpoint_id
    RETURNING d.endpoint_id, o.is_ok, d.fence = o.fence AS is_told_in_time
"""
HEALTH: Final[LiteralString] = """
    UPDATE webhook_endpoints AS e
    SET failing_since = CASE WHEN NOT o.is_ok THEN coalesce(e.failing_since, clock_timestamp()) END,
        is_enabled = e.is_enabled AND NOT s.is_dead,
        disabled_reason = CASE WHEN s.is_dead THEN %(reason)s ELSE e.disabled_reason END,
        disabled_at = CASE WHEN s.is_dead THEN clock_timestamp() ELSE e.disabled_at END,
        updated_at = CASE WHEN s.is_dead THEN clock_timestamp() ELSE e.updated_at END
    FROM unnest(%(ids)s::uuid[], %(ok)s::boolean[]) AS o (id, is_ok)
    JOIN webhook_endpoints AS b ON b.id = o.id
    CROSS JOIN LATERAL (
        SELECT NOT o.is_ok AND b.is_enabled AND coalesce(
            b.failing_since <= clock_timestamp() - make_interval(days => %(days)s), false
        ) AS is_dead
    ) AS s
    WHERE e.id = o.id AND (o.is_ok <> (b.failing_since IS NULL) OR s.is_dead)
    RETURNING e.id, e.merchant_id, s.is_dead
"""
# Nothing was sent: it is due again, or there is nobody any more to send it to.
PUT_BACK: Final[LiteralString] = """
    UPDATE webhook_deliveries AS d
    SET due_at = clock_timestamp() + make_interval(secs => o.pause),
        status = CASE WHEN o.is_over THEN 'failed' ELSE d.status END
    FROM unnest(
        %(shards)s::smallint[], %(events)s::uuid[], %(endpoints)s::uuid[], %(fences)s::int[],
        %(pauses)s::float[], %(over)s::boolean[]
    ) AS o (shard, event_id, endpoint_id, fence, pause, is_over)
    WHERE d.shard = o.shard AND d.event_id = o.event_id AND d.endpoint_id = o.endpoint_id
      AND d.fence = o.fence
"""
COUNT: Final[LiteralString] = """
    INSERT INTO webhook_minutes AS w (merchant_id, minute, sent)
    VALUES (
        %(merchant_id)s, floor(extract(epoch FROM clock_timestamp()) / 60)::bigint, %(times)s
    )
    ON CONFLICT (merchant_id) DO UPDATE SET
        sent = CASE WHEN w.minute = excluded.minute THEN w.sent ELSE 0 END + excluded.sent,
        minute = excluded.minute
    RETURNING sent, (60 - extract(epoch FROM clock_timestamp())::numeric %% 60)::float AS seconds
"""
PRUNE: Final[LiteralString] = """
    DELETE FROM webhook_deliveries WHERE (shard, event_id, endpoint_id) IN (
        SELECT shard, event_id, endpoint_id FROM webhook_deliveries
        WHERE created_at < statement_timestamp() - make_interval(days => %(days)s)
          AND status <> 'pending'
        ORDER BY created_at LIMIT %(limit)s
    )
"""


# Events by their rows, as they are published, in the order of the rows.
Tell = Callable[[Tenant, Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A delivery that is ours to make. `event`: the row of the published event; `url` is None where the
    endpoint is there no more. `failures`: how often it was tried, since it was last asked for."""

    endpoint_id: UUID
    tenant: Tenant
    event: Mapping[str, Any]
    url: str | None
    api_version: str | None
    is_enabled: bool
    fence: int
    failures: int
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one. `error`: why there is no status, in one word; `answer`: how the answer began."""

    at: datetime
    seconds: float
    status_code: int | None = None
    error: str | None = None
    answer: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the receiver has it."""
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """One that was not attempted. `seconds`: until it is due; `is_over`: it will never be."""

    due: Due
    seconds: float = 0.0
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """One that was. `pause_seconds`: until the next, where one is needed."""

    due: Due
    attempt: Attempt
    pause_seconds: float


class DeliveryQueue:
    """Leases what is due, and keeps what came of it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def take_due(
        self, limit: int, *, rooms: Mapping[UUID, int], room: int, spent: Sequence[str]
    ) -> list[Due]:
        """Leases deliveries: of each endpoint as many as there is room for, `room` where `rooms` says
        nothing else; none of merchants who have `spent` what they may send."""
        parameters = {
            "limit": limit,
            "endpoints": list(rooms),
            "rooms": list(rooms.values()),
            "room": room,
            "spent": list(spent),
            "lease_seconds": LEASE_SECONDS,
        }
        with self._pool.connection() as connection:
            rows = connection.execute(TAKE_DUE, parameters).fetchall()
        # In the order in which they happened.
        return [_due(row) for row in sorted(rows, key=lambda row: row["event_id"])]

    def record(self, done: Sequence[Attempted]) -> list[dict[str, Any]]:
        """Keeps what came of these attempts. The endpoints that are disabled for it now: `id` and
        `merchant_id`."""
        parameters = {
            **_identities([each.due for each in done]),
            "ok": [each.attempt.is_ok for each in done],
            "pauses": [each.pause_seconds for each in done],
            "attempts": [Jsonb(_told(each.attempt)) for each in done],
            "most": MOST_TRIES_KEPT,
        }
        with self._pool.connection() as connection, connection.transaction():
            recorded = connection.execute(RECORD, parameters).fetchall()
            changed = connection.execute(HEALTH, _health(recorded)).fetchall()
        return [row for row in changed if row["is_dead"]]

    def put_back(self, those: Sequence[PutBack]) -> None:
        """Gives up the leases of what was not attempted."""
        parameters = {
            **_identities([each.due for each in those]),
            "pauses": [each.seconds for each in those],
            "over": [each.is_over for each in those],
        }
        with self._pool.connection() as connection:
            connection.execute(PUT_BACK, parameters)

    def send_again(
        self,
        event: Mapping[str, Any],
        endpoint_id: UUID | None,
        claiming: Callable[[int], Sequence[ClaimKey]],
    ) -> int:
        """Makes an event, by its row, due once more: to one endpoint, or to all that want it. How many
        deliveries of it are to be made now; `claiming`: the idempotency key, where there is one, with
        an answer that may say so. Raises KeyAlreadyClaimed, StoreUnavailable."""
        with at_once(self._pool) as connection:
            DELIVERIES.send_again(connection, dict(event), endpoint_id)
            pending = DELIVERIES.pending(connection, [event]).get(event["id"], 0)
            claim(connection, claiming(pending))
        return pending

    def count(self, merchant_id: str, times: int) -> tuple[int, float]:
        """Counts so many more of a merchant's; how many there are in this minute, and the seconds until
        it is over. All at once, since one by one would cost as much as sending them."""
        with self._pool.connection() as connection:
            row = connection.execute(COUNT, {"merchant_id": merchant_id, "times": times}).fetchone()
        assert row is not None
        return row["sent"], row["seconds"]

    def prune(self) -> int:
        """Forgets deliveries that ended long ago, some at a time; how many."""
        with self._pool.connection() as connection:
            parameters = {"days": KEPT_DAYS, "limit": PRUNED_AT_ONCE}
            return connection.execute(PRUNE, parameters).rowcount


def _due(row: dict[str, Any]) -> Due:
    event = {**row, "id": row["event_id"]}
    return Due(
        endpoint_id=row["endpoint_id"],
        tenant=Tenant(row["merchant_id"], Mode(row["mode"])),
        event=event,
        url=row["url"],
        api_version=row["api_version"],
        is_enabled=row["is_enabled"],
        fence=row["fence"],
        failures=row["failures"],
        is_first=row["attempts"] == 0,
    )


def _identities(those: Sequence[Due]) -> dict[str, list[Any]]:
    return {
        "shards": [each.event["shard"] for each in those],
        "events": [each.event["id"] for each in those],
        "endpoints": [each.endpoint_id for each in those],
        "fences": [each.fence for each in those],
    }


def _health(recorded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the endpoints are by these attempts. What is told of too late, after somebody else's attempt,
    says nothing of how they are now."""
    health: dict[UUID, bool] = {}
    for row in recorded:
        if row["is_told_in_time"]:
            endpoint_id = row["endpoint_id"]
            health[endpoint_id] = health.get(endpoint_id, False) or row["is_ok"]
    return {
        "ids": sorted(health),
        "ok": [health[each] for each in sorted(health)],
        "reason": UNREACHABLE,
        "days": DISABLED_AFTER_DAYS,
    }


def _told(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": int(attempt.at.timestamp()),
        "duration_ms": round(attempt.seconds * 1000),
        "status_code": attempt.status_code,
        "error": attempt.error,
        "response": attempt.answer,
    }

"""Rate limits: how many requests one name may make in a minute, counted once for all processes.

In any minute, wherever it begins, to a second: what counts is the second that it is and the fifty-nine
before, so that no border lets twice as many through. What is refused is not counted, so that who comes too often is served at the
limit's rate all the same. Counted in Postgres, in a table that a crash may empty, or in Redis where there
is one. A limiter that cannot count lets requests through.
"""

import math
import time
from dataclasses import dataclass
from typing import Any, Final, LiteralString, Protocol

import psycopg
import structlog
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MovingWindowSupport, storage_from_string
from limits.strategies import MovingWindowRateLimiter
from psycopg_pool import PoolTimeout

from infrastructure.database import Pool

WINDOW_SECONDS: Final = 60
# A Redis that is slow is no reason to be slow.
REDIS_TIMEOUT_SECONDS: Final = 0.25

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a limit. `reset_seconds`: until some of it is given back."""

    limit: int
    remaining: int
    reset_seconds: int
    is_exceeded: bool


class Windows(Protocol):
    """Where hits are counted."""

    def hit(self, name: str, limit: int) -> Allowance:
        """Counts one, unless it is one too many."""


class PostgresWindows:
    """The table of the last minute's seconds: one row a name, sixty numbers in a ring."""

    # `second`: the one that it is now, and not before one that was counted, unless the clock was set back
    # by more than the window: then it is counted anew. `place`: the second's in the ring, from 1.
    # `since`: how long ago the place was last written to.
    HIT: LiteralString = """
        INSERT INTO rate_limits AS r (name, newest, oldest, counted, refused, hits)
        SELECT %(name)s, n.second, n.second, 1, false, array_agg((p = n.second %% 60)::int ORDER BY p)
        FROM (SELECT floor(extract(epoch FROM clock_timestamp()))::bigint AS second) AS n,
             generate_series(0, 59) AS p
        GROUP BY n.second
        ON CONFLICT (name) DO UPDATE SET (newest, oldest, counted, refused, hits) = (
            SELECT k.second, least(k.oldest, k.second),
                   k.counted + (k.counted < %(limit)s)::int, k.counted >= %(limit)s,
                   CASE WHEN k.counted < %(limit)s THEN
                       k.kept[:k.place - 1] || (k.kept[k.place] + 1) || k.kept[k.place + 1:]
                   ELSE k.kept END
            FROM (
                SELECT n.second, n.second %% 60 + 1 AS place,
                       array_agg(s.kept ORDER BY s.place) AS kept, sum(s.kept)::int AS counted,
                       min(r.newest - s.since) FILTER (WHERE s.kept > 0) AS oldest
                FROM (
                    SELECT CASE WHEN r.newest > excluded.newest + 60 THEN excluded.newest
                           ELSE greatest(r.newest, excluded.newest) END AS second
                ) AS n,
                LATERAL (
                    SELECT u.place, a.since,
                           CASE WHEN r.newest - a.since BETWEEN n.second - 59 AND n.second
                           THEN u.hits ELSE 0 END AS kept
                    FROM unnest(r.hits) WITH ORDINALITY AS u (hits, place),
                         LATERAL (SELECT (r.newest - u.place + 1) %% 60 AS since) AS a
                ) AS s
                GROUP BY n.second
            ) AS k
        )
        RETURNING counted, refused,
                  ceil(oldest + 60 - extract(epoch FROM clock_timestamp()))::int AS seconds
    """
    PRUNE: LiteralString = """
        WITH old AS (
            SELECT name FROM rate_limits
            WHERE newest < extract(epoch FROM statement_timestamp())::bigint - 3600
            LIMIT %(most)s FOR UPDATE SKIP LOCKED
        )
        DELETE FROM rate_limits AS r USING old WHERE r.name = old.name
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def hit(self, name: str, limit: int) -> Allowance:
        """One statement, exact across processes."""
        with self._pool.connection() as connection:
            row = connection.execute(self.HIT, {"name": name, "limit": limit}).fetchone()
        assert row is not None
        return _allowance(limit, limit - row["counted"], row["seconds"], refused=row["refused"])

    def prune(self, most: int) -> int:
        """Forgets names that were not heard of for an hour; how many."""
        with self._pool.connection() as connection:
            return connection.execute(self.PRUNE, {"most": most}).rowcount


class LibraryWindows:
    """The same in a store of the library's, of which Redis is shared across processes."""

    def __init__(self, storage: MovingWindowSupport) -> None:
        self._limiter = MovingWindowRateLimiter(storage)  # type: ignore[arg-type]

    def hit(self, name: str, limit: int) -> Allowance:
        """The library keeps the times of the last `limit` hits."""
        item = RateLimitItemPerMinute(limit, namespace="counterfoil")
        accepted = self._limiter.hit(item, name)
        stats = self._limiter.get_window_stats(item, name)
        seconds = math.ceil(stats.reset_time - time.time())
        return _allowance(limit, stats.remaining, seconds, refused=not accepted)


def redis_windows(url: str) -> LibraryWindows:
    """Windows in Redis, for installations that have one."""
    timeouts: dict[str, Any] = {
        "socket_timeout": REDIS_TIMEOUT_SECONDS,
        "socket_connect_timeout": REDIS_TIMEOUT_SECONDS,
    }
    storage = storage_from_string(url, wrap_exceptions=True, **timeouts)
    assert isinstance(storage, MovingWindowSupport)
    return LibraryWindows(storage)


def _allowance(limit: int, remaining: int, seconds: int, *, refused: bool) -> Allowance:
    return Allowance(
        limit=limit,
        remaining=0 if refused else max(0, remaining),
        reset_seconds=min(max(1, seconds), WINDOW_SECONDS),
        is_exceeded=refused,
    )


class RateLimiter:
    """Counts requests against limits a minute; a limit of 0 is no limit."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def hit(self, name: str, limit: int) -> Allowance | None:
        """Counts one request of `name`; None where there is no limit, or no way to count."""
        if limit == 0:
            return None
        try:
            return self._windows.hit(name, limit)
        except (psycopg.Error, PoolTimeout, StorageError) as error:
            log.warning("rate limiter failed open", error=type(error).__name__)
            return None

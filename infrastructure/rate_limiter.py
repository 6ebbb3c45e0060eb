"""Rate limits: how many requests one name may make in a window, counted once for all processes.

The windows are in Postgres, in a table that a crash may empty, or in Redis where there is one. A
window begins with its first request. A limiter that cannot count lets requests through.
"""

from dataclasses import dataclass
from typing import Any, Final, LiteralString, Protocol, cast

import psycopg
import structlog
from limits.errors import StorageError
from limits.storage import RedisStorage, Storage, storage_from_string
from psycopg_pool import PoolTimeout

from infrastructure.database import Pool

WINDOW_SECONDS: Final = 60

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a limit. `reset_seconds`: until the window ends."""

    limit: int
    remaining: int
    reset_seconds: int
    is_exceeded: bool


class Windows(Protocol):
    """Where hits are counted."""

    def hit(self, name: str) -> tuple[int, int]:
        """Counts one; the hits in the window so far, and the whole seconds until it ends."""


class PostgresWindows:
    """The table of windows."""

    HIT: LiteralString = """
        INSERT INTO rate_limit_windows AS w (name, hits, expires_at)
        VALUES (%(name)s, 1, clock_timestamp() + make_interval(secs => %(seconds)s))
        ON CONFLICT (name) DO UPDATE SET
            hits = CASE WHEN w.expires_at <= clock_timestamp() THEN 1 ELSE w.hits + 1 END,
            expires_at = CASE WHEN w.expires_at <= clock_timestamp()
                         THEN excluded.expires_at ELSE w.expires_at END
        RETURNING hits, ceil(extract(epoch FROM expires_at - clock_timestamp()))::int AS seconds
    """
    PRUNE: LiteralString = """
        DELETE FROM rate_limit_windows WHERE expires_at < clock_timestamp() - interval '1 hour'
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def hit(self, name: str) -> tuple[int, int]:
        """One statement, exact across processes."""
        with self._pool.connection() as connection:
            row = connection.execute(self.HIT, {"name": name, "seconds": WINDOW_SECONDS}).fetchone()
        assert row is not None
        return row["hits"], max(0, row["seconds"])

    def prune(self) -> int:
        """Forgets the windows that ended long ago; how many."""
        with self._pool.connection() as connection:
            return connection.execute(self.PRUNE).rowcount


class RedisWindows:
    """Windows in Redis, for installations that have one."""

    def __init__(self, url: str) -> None:
        storage: Storage = cast(Storage, storage_from_string(url))
        assert isinstance(storage, RedisStorage)
        self._storage = storage

    def hit(self, name: str) -> tuple[int, int]:
        """One counter a window, which expires by itself."""
        key = f"counterfoil:{name}"
        hits = self._storage.incr(key, WINDOW_SECONDS)
        remaining = self._storage.storage.ttl(key)
        return hits, max(0, int(cast(Any, remaining)))


class RateLimiter:
    """Counts requests against limits a minute; a limit of 0 is no limit."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def hit(self, name: str, limit: int) -> Allowance | None:
        """Counts one request of `name`; None where there is no limit, or no way to count."""
        if limit == 0:
            return None
        try:
            hits, seconds = self._windows.hit(name)
        except (psycopg.Error, PoolTimeout, StorageError) as error:
            log.warning("rate limiter failed open", error=type(error).__name__)
            return None
        return Allowance(
            limit=limit,
            remaining=max(0, limit - hits),
            reset_seconds=seconds,
            is_exceeded=hits > limit,
        )

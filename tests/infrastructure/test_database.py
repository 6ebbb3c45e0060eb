"""No wait for the database is longer than it may be, whatever has become of the server."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
import pytest

from domain.errors import StoreUnavailable
from infrastructure import database
from infrastructure.database import (
    IDLE_SECONDS,
    OF_REQUESTS,
    BoundedConnection,
    Pool,
    at_once,
    open_pool,
    unavailability_named,
)

MARGIN_SECONDS = 10.0  # for a busy machine; the server stays stopped for ever
WAITS = replace(OF_REQUESTS, connection=20.0)  # for a connection in the place of one that is gone


@pytest.fixture
def pool(shared_database_url: str) -> Iterator[Pool]:
    with open_pool(shared_database_url, size=1, waits=WAITS) as pool:
        pool.wait()
        yield pool


def backend_of(connection: BoundedConnection) -> int:
    return connection.info.backend_pid


def test_a_server_that_is_stopped_is_not_waited_for(pool: Pool) -> None:
    with pool.connection() as connection:
        backend = backend_of(connection)
        os.kill(backend, signal.SIGSTOP)
        started = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable), unavailability_named():
                connection.execute("SELECT 1")
        finally:
            os.kill(backend, signal.SIGCONT)

    assert time.monotonic() - started < OF_REQUESTS.answer + MARGIN_SECONDS
    with pool.connection() as connection:
        assert backend_of(connection) != backend


@pytest.mark.parametrize("together", [at_once, nullcontext])
def test_an_answer_that_is_there_when_time_is_up_is_read(
    together: Callable[[BoundedConnection], AbstractContextManager[None]],
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is this process that was late then: it was stopped, or another thread let nobody run."""
    with pool.connection() as connection:
        monkeypatch.setattr(connection, "answer_timeout", 1e-6)
        monkeypatch.setattr(database, "LAST_LOOK_SECONDS", MARGIN_SECONDS)
        with together(connection):
            cursor = connection.execute("SELECT pg_sleep(0.01), 1 AS one")
        row = cursor.fetchone()
        backend = backend_of(connection)

    assert row == {"pg_sleep": "", "one": 1}
    with pool.connection() as again:
        assert backend_of(again) == backend


def test_a_connection_that_died_while_it_was_idle_is_replaced_before_it_is_used(
    pool: Pool, shared_database_url: str
) -> None:
    with pool.connection() as connection:
        dead = backend_of(connection)
    with psycopg.connect(shared_database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [dead])
    connection.used_at -= IDLE_SECONDS

    with pool.connection() as connection:
        row = connection.execute("SELECT 1 AS one").fetchone()

    assert row == {"one": 1}
    assert backend_of(connection) != dead


def test_a_transaction_that_was_left_open_too_long_is_the_database_out_of_reach(
    pool: Pool,
) -> None:
    with pytest.raises(StoreUnavailable):
        leave_a_transaction_open(pool)


def leave_a_transaction_open(pool: Pool) -> None:
    """Until the server has ended it."""
    with unavailability_named(), pool.connection() as connection, connection.transaction():
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
        select.select([connection.fileno()], [], [], MARGIN_SECONDS)
        connection.execute("SELECT 1")


SETTINGS: LiteralString = """
    SELECT current_setting('search_path') AS path, current_setting('synchronous_commit') AS waits
"""
OTHER_SETTINGS: LiteralString = """
    SELECT set_config('search_path', 'beside', true), set_config('synchronous_commit', 'off', true)
"""
TEMPORARY: LiteralString = """
    CREATE TEMPORARY TABLE kept (number int PRIMARY KEY, of int REFERENCES kept INITIALLY DEFERRED)
"""
KEEP: LiteralString = "INSERT INTO pg_temp.kept VALUES (%s, %s)"


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ((KEEP, [2, None]), None),
        ((KEEP, ["with\x00nothing", None]), psycopg.DataError),
        ((KEEP, [1, None]), psycopg.errors.UniqueViolation),
        (("SELECT 1 / %s::int", [0]), psycopg.errors.DivisionByZero),
    ],
)
def test_what_goes_out_at_once_is_one_transaction_and_its_settings_end_with_it(
    last: tuple[LiteralString, list[Any]], error: type[Exception] | None, pool: Pool
) -> None:
    """Whether the server, the driver or nobody says no; on a connection that others use afterwards."""
    with pool.connection() as connection:
        before = connection.execute(SETTINGS).fetchone()
        connection.execute(TEMPORARY)
        with pytest.raises(error) if error else nullcontext(), at_once(connection):
            connection.execute(OTHER_SETTINGS)
            connection.execute(KEEP, [1, None])
            connection.execute(*last)
            connection.execute("SELECT 1")
    with pool.connection() as again:
        kept = again.execute("SELECT count(*) AS rows FROM pg_temp.kept").fetchone()
        after = again.execute(SETTINGS).fetchone()
        again.execute("DROP TABLE pg_temp.kept")

    assert again is connection
    assert kept == {"rows": 0 if error else 2}
    assert after == before


def fail_between_statements(connection: BoundedConnection) -> None:
    with at_once(connection):
        connection.execute("SELECT 2", prepare=True)
        connection.execute("SELECT 1 / %s::int", [0])
        connection.execute("SELECT 3 AS it", prepare=True)


def test_what_was_prepared_before_an_error_is_prepared_again_after_it(pool: Pool) -> None:
    """By whoever has the connection next: an append asks for it from the first time on."""
    with pool.connection() as connection:
        connection.execute("SELECT 1", prepare=True)
        with pytest.raises(psycopg.errors.DivisionByZero):
            fail_between_statements(connection)
    with pool.connection() as again:
        found = [
            again.execute(query, prepare=True).fetchall()
            for query in ("SELECT 4 AS it", "SELECT 4 AS it", "SELECT 3 AS it", "SELECT 3 AS it")
        ]

    assert again is connection
    assert found == [[{"it": 4}]] * 2 + [[{"it": 3}]] * 2


def test_a_connection_on_which_the_very_end_failed_is_not_used_again(pool: Pool) -> None:
    with pool.connection() as connection:
        connection.execute(TEMPORARY)
        with pytest.raises(psycopg.OperationalError), at_once(connection):
            connection.execute(KEEP, [1, 7])

    assert connection.closed
    with pool.connection() as other:
        assert other.execute("SELECT 1 AS one").fetchone() == {"one": 1}

"""All followers of all workers: one runner for each generation, whatever the database does."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final, LiteralString

import psycopg
import pytest
from psycopg import Connection, Cursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from infrastructure.database import OF_REQUESTS, BoundedConnection, Pool, open_pool
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate
from infrastructure.projections.batches import BEYOND
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.projections.generations import Slot, set_paused
from projections.registry import FOLLOWED, FOLLOWING, read_model
from tests.builders import Story
from tests.infrastructure.projections.a_log import (
    FOLLOWING_NAMES,
    append,
    connect,
    generation_of,
    poll_until,
    rebuilt,
    replayed_rows,
    rows,
)
from tests.patience import patient_pool

OWNERS: Final[LiteralString] = """
    SELECT name, owner FROM projection_generations
    WHERE owner IS NOT NULL AND owned_until > clock_timestamp() ORDER BY name
"""
TAKE_LEASE: Final[LiteralString] = """
    UPDATE projection_generations
    SET owner = gen_random_uuid(), owned_until = clock_timestamp() + make_interval(mins => 1)
    WHERE name = 'balances'
"""
END_LEASE: Final[LiteralString] = """
    UPDATE projection_generations SET owned_until = clock_timestamp() WHERE name = 'balances'
"""
HOLD_LEASE: Final[LiteralString] = """
    SELECT FROM projection_generations WHERE name = 'balances' FOR UPDATE
"""
WAITING: Final[LiteralString] = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%projection_generations%'
"""
BEHIND: Final[LiteralString] = """
    SELECT count(*) AS shards FROM projection_positions p JOIN shard_heads h ON h.shard = p.shard
    WHERE p.name = %(name)s AND p.generation = %(generation)s AND p.position < h.position
"""
KILL_ALL: Final[LiteralString] = """
    SELECT count(pg_terminate_backend(pid)) AS killed FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'counterfoil'
"""
# Whoever takes in an entry of the balances needs this much longer for it.
SLOW: Final[LiteralString] = """
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(0.003);
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER slow AFTER INSERT ON entries FOR EACH ROW EXECUTE FUNCTION be_slow()
"""
UNKNOWN_MODEL: Final[LiteralString] = """
    INSERT INTO projection_generations (name, generation, slot, status, code_version)
    VALUES ('from_the_future', 1, 'live', 'live', 1)
"""
OTHER_CODE: Final[LiteralString] = """
    UPDATE projection_generations SET code_version = code_version + 1 WHERE name = 'customers'
"""


@contextmanager
def running(pool: Pool) -> Iterator[tuple[ProjectionEngine, threading.Event]]:
    """An engine, as in a process of its own, and what stops it."""
    stopping, engine = threading.Event(), ProjectionEngine(pool, time.monotonic)
    thread = threading.Thread(target=engine.run, args=(stopping,))
    thread.start()
    try:
        yield engine, stopping
    finally:
        stopping.set()
        thread.join()


@contextmanager
def engines(*pools: Pool) -> Iterator[list[threading.Event]]:
    """An engine for each pool; what stops each."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(pool))[1] for pool in pools]


def pay(pool: Pool, number: int = 1) -> None:
    append(pool, *[Story().authorized().captured().payment for _ in range(number)])


def is_current(
    connection: Connection[DictRow], name: str = "balances", slot: Slot = Slot.LIVE
) -> bool:
    generation = generation_of(connection, name, slot)
    identity = {"name": name, "generation": generation.generation}
    return connection.execute(BEHIND, identity).fetchone() == {"shards": 0}


def all_current(connection: Connection[DictRow]) -> bool:
    return all(is_current(connection, name) for name in FOLLOWING_NAMES)


def owners(connection: Connection[DictRow]) -> dict[str, Any]:
    return {row["name"]: row["owner"] for row in connection.execute(OWNERS).fetchall()}


def test_each_generation_has_one_runner_among_all_engines(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    pay(pool, 20)
    with patient_pool(database_url, size=8) as other_pool, engines(pool, other_pool) as stops:
        poll_until(lambda: all_current(connection))
        poll_until(lambda: set(owners(connection)) == {model.name for model in FOLLOWED})

        stops[0].set()  # what it had, the other takes up
        poll_until(lambda: len(set(owners(connection).values())) == 1)
        pay(pool, 5)
        poll_until(lambda: all_current(connection) and len(owners(connection)) == len(FOLLOWED))

    for model in FOLLOWING:
        assert rows(connection, model) == replayed_rows(connection, model.name)


def test_an_engine_that_ends_gives_its_leases_back(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    with engines(pool):
        poll_until(lambda: len(owners(connection)) == len(FOLLOWED))

    assert owners(connection) == {}


def test_the_lease_of_one_who_was_killed_is_taken_over_when_it_is_over(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    connection.execute(TAKE_LEASE)
    killed = owners(connection)["balances"]

    with engines(pool):
        for _ in range(5):
            pay(pool)
            poll_until(lambda: is_current(connection, "customers"))
        assert owners(connection)["balances"] == killed
        assert not is_current(connection)

        connection.execute(END_LEASE)
        poll_until(lambda: is_current(connection))
        assert owners(connection)["balances"] != killed


def test_a_follower_stays_when_its_lease_could_not_be_renewed_once(
    connection: Connection[DictRow], database_url: str
) -> None:
    impatient = replace(OF_REQUESTS, lock=0.1)
    with open_pool(database_url, size=8, waits=impatient) as pool, running(pool) as (engine, _):
        poll_until(lambda: len(owners(connection)) == len(FOLLOWED))
        before = follower(engine, "balances")
        with connect(database_url) as other, other.transaction():
            other.execute(HOLD_LEASE)
            poll_until(lambda: connection.execute(WAITING).rowcount > 0)
            poll_until(lambda: connection.execute(WAITING).rowcount == 0)
        pay(pool)
        poll_until(lambda: is_current(connection))

        assert follower(engine, "balances") is before


def follower(engine: ProjectionEngine, name: str) -> threading.Thread:
    (thread,) = [thread for (followed, _), thread in engine._running.items() if followed == name]
    return thread


def test_what_is_paused_stays_as_it_is_until_it_is_resumed(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    with engines(pool):
        poll_until(lambda: len(owners(connection)) == len(FOLLOWED))
        set_paused(connection, "balances", paused=True)
        poll_until(lambda: "balances" not in owners(connection))
        pay(pool)
        poll_until(lambda: is_current(connection, "customers"))
        assert not is_current(connection)

        set_paused(connection, "balances", paused=False)
        poll_until(lambda: is_current(connection))


def test_followers_go_on_when_their_connections_are_killed(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    with engines(pool):
        for _ in range(2):
            poll_until(lambda: all_current(connection))
            connection.execute(KILL_ALL)
            pay_when_possible(pool)
        poll_until(lambda: all_current(connection))

    for model in FOLLOWING:
        assert rows(connection, model) == replayed_rows(connection, model.name)


def pay_when_possible(pool: Pool) -> None:
    """The pool of the test was killed too, and says so once for each connection."""

    def paid() -> bool:
        try:
            append(pool, Story().authorized().captured().payment)
        except Exception:  # noqa: BLE001 - whatever a killed connection says
            return False
        return True

    poll_until(paid)


def test_followers_go_on_when_the_database_was_restarted(tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("restarted")
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    url = postgres.start()
    try:
        migrate(url)
        with patient_pool(url, size=8) as pool, engines(pool):
            pay(pool)
            with connect(url) as connection:
                poll_until(lambda: all_current(connection))
            postgres.stop()
            assert postgres.start() == url
            pay_when_possible(pool)
            with connect(url) as connection:
                poll_until(lambda: all_current(connection))
                for model in FOLLOWING:
                    assert rows(connection, model) == replayed_rows(connection, model.name)
    finally:
        postgres.remove()


def test_new_generations_are_found_and_followed(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    with engines(pool):
        poll_until(lambda: len(owners(connection)) == len(FOLLOWED))
        for name in ("receipts", "customers"):
            rebuilt(database_url, name)
        pay(pool)
        for name in ("receipts", "customers"):
            poll_until(lambda name=name: is_current(connection, name, Slot.BESIDE))  # type: ignore[misc]
        poll_until(lambda: is_current(connection, "customers"))

    for name in ("receipts", "customers"):
        model = read_model(name)
        assert rows(connection, model) == rows(connection, model, "beside")


def test_a_step_that_takes_too_long_is_taken_in_smaller_ones(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    """Else one that is far behind would be behind for ever."""
    connection.execute(SLOW)
    pay(pool, 40)

    with (
        open_pool(database_url, size=8, waits=replace(OF_REQUESTS, statement=0.15)) as hurried,
        engines(hurried),
    ):
        poll_until(lambda: is_current(connection))

    assert rows(connection, read_model("balances")) == replayed_rows(connection, "balances")


def unlucky_at_first(error: Exception, asked: list[list[int]]) -> type[BoundedConnection]:
    """Connections on which what was appended after the positions that are `asked` for first cannot be
    read: each is closed, as one is that has waited too long, with `error`."""

    class Unlucky(BoundedConnection):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Cursor[DictRow]:
            if query == BEYOND:
                asked.append(params["after"])
                if params["after"] == asked[0]:
                    self.close()
                    raise error
            return super().execute(query, params, **options)

    return Unlucky


@pytest.mark.parametrize("error", [psycopg.OperationalError("too late"), ValueError("whatever")])
def test_what_cannot_be_read_for_all_is_left_to_each_and_the_next_is_read_for_all_again(
    error: Exception, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    """A look that takes too long takes too long each time: nobody would be told of anything again."""
    asked: list[list[int]] = []
    pay(pool)
    with (
        ConnectionPool(
            database_url,
            connection_class=unlucky_at_first(error, asked),
            kwargs={"autocommit": True, "row_factory": dict_row},
            max_size=8,
            open=True,
        ) as unlucky,
        engines(unlucky),
    ):
        poll_until(lambda: bool(asked))
        pay(pool)

        poll_until(lambda: asked[-1] != asked[0])
        poll_until(lambda: all_current(connection))


def test_what_this_code_does_not_know_or_did_not_make_is_left_to_others(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    connection.execute(UNKNOWN_MODEL)
    connection.execute(OTHER_CODE)
    pay(pool)

    with engines(pool):
        poll_until(lambda: is_current(connection) and is_current(connection, "operations"))
        poll_until(
            lambda: set(owners(connection)) == {model.name for model in FOLLOWED} - {"customers"}
        )

    assert not is_current(connection, "customers")

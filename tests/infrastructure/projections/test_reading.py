"""A read model that follows the log is read when it has everything that was acknowledged, or not."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, LiteralString

import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from domain.commands import Tenant
from domain.errors import StoreUnavailable
from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.projections.generations import Slot
from infrastructure.projections.reading import HEADS, IS_CURRENT, ModelBehind, wait_until_current
from infrastructure.projections.rebuild import promote, rollback
from projections.balances import Balances
from tests.builders import Story, a_new_tenant, a_payment
from tests.infrastructure.projections.a_log import (
    append,
    append_unreadable,
    follow,
    follower_of,
    rebuilt,
)
from tests.patience import patient_pool

# Generous, since others may be at work on the machine.
WITHIN_SECONDS: Final = 15.0
SET_ASIDE: Final = 1000
MANY: Final[LiteralString] = """
    INSERT INTO receipts (shard, payment_id, merchant_id, mode, status, needs_review, pending,
                          created_at, version, document)
    SELECT n % 64, md5(n::text)::uuid, 'mer_' || n % 50, 'test', 'authorized', false, false,
           clock_timestamp(), 1, '{}'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO projection_quarantine
        (name, generation, shard, originator_id, applied_version, error, attempts)
    SELECT 'balances', 1, n % 64, md5(n::text)::uuid, 0, 'x', 1
    FROM generate_series(20, 20000, 20) AS n;
    ANALYZE receipts, projection_quarantine, projection_positions, projection_generations
"""


@contextmanager
def an_engine(pool: Pool) -> Iterator[None]:
    stopping = threading.Event()
    running = threading.Thread(target=ProjectionEngine(pool, time.monotonic).run, args=(stopping,))
    running.start()
    try:
        yield
    finally:
        stopping.set()
        running.join()


def waited(pool: Pool, tenant: Tenant, seconds: float = 0.1) -> bool:
    """Whether it became current in that time."""
    try:
        wait_until_current(
            pool,
            "balances",
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            seconds=seconds,
        )
    except ModelBehind:
        return False
    return True


def authorized(tenant: Tenant) -> Payment:
    return Story(a_payment(tenant=tenant)).authorized().payment


def test_each_of_many_writers_reads_its_own_write_at_once(pool: Pool, database_url: str) -> None:
    """Also while generations change places."""
    rebuilt(database_url, "balances")

    def write_and_read(number: int) -> list[int]:
        tenant, held = a_new_tenant(), []
        for _ in range(12):
            append(pool, authorized(tenant))
            assert waited(pool, tenant, WITHIN_SECONDS)
            with pool.connection() as connection:
                (row,) = Balances().of(connection, tenant)
            held.append(row["held"])
        return held

    with an_engine(pool), ThreadPoolExecutor(5) as threads:
        running = [threads.submit(write_and_read, number) for number in range(4)]
        promote(database_url, "balances")
        for _ in range(4):
            rollback(database_url, "balances")
        for future in running:
            assert future.result() == [5000 * number for number in range(1, 13)]


def test_one_event_behind_is_behind_and_the_wait_for_it_is_bounded(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    tenant = a_new_tenant()
    assert waited(pool, tenant)
    append(pool, authorized(tenant))
    follower = follower_of(connection, "balances")
    assert follower.step(connection, batch=1) == 1
    began = time.monotonic()

    assert not waited(pool, tenant, 0.3)

    assert time.monotonic() - began < 0.3 + WITHIN_SECONDS
    follow(connection, follower)
    assert waited(pool, tenant)


def test_what_comes_after_the_question_is_not_waited_for(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    """Else a reader beside busy writers would wait for ever."""
    tenant = a_new_tenant()
    append(pool, authorized(tenant))
    heads = connection.execute(HEADS).fetchone()
    follow(connection, follower_of(connection, "balances"))
    append(pool, authorized(tenant))
    assert heads is not None

    row = connection.execute(IS_CURRENT, {**heads, **question(tenant)}).fetchone()

    assert row == {"is_current": True}
    assert not waited(pool, tenant)


def question(tenant: Tenant) -> dict[str, str]:
    return {"name": "balances", "merchant_id": tenant.merchant_id, "mode": tenant.mode.value}


def test_what_is_set_aside_refuses_its_own_merchant_only(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    one, other = a_new_tenant(), a_new_tenant()
    bad = authorized(one)
    append(pool, bad, authorized(one), authorized(other))
    append_unreadable(connection, bad, "payment.invented")
    follow(connection, follower_of(connection, "balances"))

    assert not waited(pool, one)
    assert waited(pool, other)
    assert waited(pool, Tenant(one.merchant_id, other.mode)) is False


def test_what_is_set_aside_beside_refuses_nobody(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    tenant = a_new_tenant()
    append(pool, authorized(tenant))
    follow(connection, follower_of(connection, "balances"))
    rebuilt(database_url, "balances")
    connection.execute(
        "INSERT INTO projection_quarantine"
        " SELECT 'balances', 2, shard, payment_id, 0, 'x', 1 FROM receipts"
    )

    assert waited(pool, tenant)
    assert follower_of(connection, "balances", Slot.BESIDE).quarantine(connection)


def test_those_who_wait_leave_the_connections_to_others(
    database_url: str, connection: Connection[DictRow]
) -> None:
    """A paused model must not keep anyone from paying."""
    tenant = a_new_tenant()
    with patient_pool(database_url, size=1) as narrow, ThreadPoolExecutor(4) as threads:
        append(narrow, authorized(tenant))
        waiting = [threads.submit(waited, narrow, tenant, WITHIN_SECONDS) for _ in range(4)]
        for _ in range(6):
            append(narrow, authorized(tenant))
        still_waiting = [not each.done() for each in waiting]
        follow(connection, follower_of(connection, "balances"))

    assert all(still_waiting)
    assert all(each.result() for each in waiting)


def test_a_database_that_is_not_there_is_said_so(database_url: str) -> None:
    with patient_pool(database_url, size=1) as pool:
        pool.close()
        with pytest.raises(StoreUnavailable):
            waited(pool, a_new_tenant())


def test_the_question_is_cheap_with_many_receipts_and_many_set_aside(
    connection: Connection[DictRow],
) -> None:
    """Of a merchant of whose payments none is set aside, so that there is most to be looked at."""
    connection.execute(MANY)
    heads = connection.execute(HEADS).fetchone()
    assert heads is not None
    parameters = {**heads, "name": "balances", "merchant_id": "mer_1", "mode": "test"}

    plan = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {IS_CURRENT}", parameters
    ).fetchone()

    assert plan is not None
    whole = plan["QUERY PLAN"][0]["Plan"]
    pages = whole["Shared Hit Blocks"] + whole["Shared Read Blocks"]
    assert pages < 15 * SET_ASIDE  # two or three in the index of each of six tables

"""The database is locked, full, out of connections, or gone in the middle: within two seconds an
answer that is true, nothing half done, and everything as before once it is well again."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from werkzeug.test import TestResponse

from api.schemas import ReceiptOut
from tests.api.an_api import (
    CONNECTIONS,
    PATIENCE_SECONDS,
    Api,
    BankThatWaits,
    Caller,
    an_api,
    an_authorization,
    error_of,
    fresh,
    json_of,
    shaped,
)
from tests.fakes import FakeBank, SteppableClock
from tests.infrastructure.bank_simulator.a_bank import eventually
from tests.infrastructure.postgres_proxy import Loss, PostgresProxy
from tests.patience import stopwatch

ANSWERED_WITHIN_SECONDS: Final = 2.0
# What Tx 1 writes to, and what Tx 2 does.
WRITTEN_FIRST: Final = (
    "events",
    "shard_heads",
    "receipts",
    "bank_calls",
    "idempotency_keys",
    "order_slots",
)
WRITTEN_LAST: Final = (
    "events",
    "shard_heads",
    "receipts",
    "bank_calls",
    "idempotency_keys",
    "idempotency_answers",
)

LOCK: Final = SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE")
HOLD_ALL_SHARDS: Final[LiteralString] = "SELECT 1 FROM shard_heads FOR UPDATE"
END_THE_WAITING: Final[LiteralString] = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""
DISK_IS_FULL: Final[LiteralString] = """
    CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER disk_is_full BEFORE INSERT OR UPDATE ON shard_heads
    FOR EACH ROW EXECUTE FUNCTION disk_is_full()
"""
SPACE_WAS_FREED: Final[LiteralString] = "DROP FUNCTION disk_is_full() CASCADE"

Ask = Callable[[], TestResponse]


@pytest.fixture
def other(shared_database_url: str) -> Iterator[psycopg.Connection]:
    """Someone else at the same database."""
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def hurried_api(shared_api: Api, shared_database_url: str) -> Iterator[Api]:
    """It waits for the database as in production. Its read models are kept up by the shared one."""
    with an_api(shared_database_url, waits=None) as api:
        yield api


@pytest.fixture
def api(hurried_api: Api, bank: FakeBank) -> Iterator[Api]:
    with hurried_api.asking(bank):
        yield hurried_api


@pytest.fixture
def slow_bank(api: Api) -> Iterator[BankThatWaits]:
    bank = BankThatWaits()
    with api.asking(bank):
        yield bank
        bank.may_answer.set()


@contextmanager
def locked(other: psycopg.Connection, table: str) -> Iterator[None]:
    with other.transaction():
        other.execute(LOCK.format(Identifier(table)))
        yield


def an_ask(merchant: Caller) -> Ask:
    """An authorization, the same each time."""
    body, key = an_authorization(), fresh("key")
    return lambda: merchant.post("/v1/authorizations", body, key=key)


def timed(ask: Ask) -> tuple[TestResponse, float]:
    with stopwatch() as watch:
        response = ask()
    return response, watch.seconds


def check_unavailable(response: TestResponse, took: float) -> None:
    assert error_of(response, 503)["code"] == "service_unavailable"
    assert int(response.headers["Retry-After"]) > 0
    assert took < ANSWERED_WITHIN_SECONDS


# --- before the bank is asked -------------------------------------------------------------------


@pytest.mark.parametrize("table", WRITTEN_FIRST)
def test_while_a_table_is_locked_a_command_is_refused_in_time_and_begins_nothing(
    api: Api, merchant: Caller, bank: FakeBank, other: psycopg.Connection, table: str
) -> None:
    ask, before = an_ask(merchant), api.behind()

    with locked(other, table):
        response, took = timed(ask)

    check_unavailable(response, took)
    assert (api.behind(), bank.requests) == (before, [])
    assert ask().status_code == 201


def test_without_a_free_connection_a_command_is_refused_in_time_and_begins_nothing(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    merchant.authorized()  # so that the key is known, and the command gets as far as it can
    ask, before, asked = an_ask(merchant), api.behind(), len(bank.requests)

    held = [api.services.pool.getconn() for _ in range(CONNECTIONS)]
    try:
        response, took = timed(ask)
        read, read_took = timed(lambda: merchant.get("/v1/receipts"))
    finally:
        for connection in held:
            api.services.pool.putconn(connection)

    check_unavailable(response, took)
    check_unavailable(read, read_took)
    assert (api.behind(), len(bank.requests)) == (before, asked)
    assert ask().status_code == 201


def test_a_connection_that_is_ended_in_the_first_transaction_leaves_nothing(
    api: Api, merchant: Caller, bank: FakeBank, other: psycopg.Connection
) -> None:
    ask, before = an_ask(merchant), api.behind()

    with ThreadPoolExecutor(1) as executor:
        with other.transaction():
            other.execute(HOLD_ALL_SHARDS)
            asked = executor.submit(timed, ask)
            eventually(lambda: bool(other.execute(END_THE_WAITING).fetchall()))
        response, took = asked.result()

    check_unavailable(response, took)
    assert (api.behind(), bank.requests) == (before, [])
    assert ask().status_code == 201


# --- after it was -------------------------------------------------------------------------------


@contextmanager
def being_asked(bank: BankThatWaits, ask: Ask) -> Iterator[Future[TestResponse]]:
    """The bank has the request, and answers at the end of the block."""
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(ask)
        assert bank.was_asked.wait(PATIENCE_SECONDS)
        yield asked
        bank.may_answer.set()


@pytest.mark.parametrize("table", WRITTEN_LAST)
def test_while_a_table_is_locked_what_the_bank_was_asked_is_pending_and_is_found_out_later(
    api: Api, merchant: Caller, slow_bank: BankThatWaits, other: psycopg.Connection, table: str
) -> None:
    ask = an_ask(merchant)

    with being_asked(slow_bank, ask) as asked, locked(other, table), stopwatch() as watch:
        slow_bank.may_answer.set()
        response = asked.result()

    assert shaped(ReceiptOut, response, 202)["pending_operation"] == "authorization"
    assert watch.seconds < ANSWERED_WITHIN_SECONDS
    api.worker_has_been_at_it(merchant)
    assert shaped(ReceiptOut, ask(), 201)["needs_review"] is None
    assert [*slow_bank.done.values()] == [1]


def test_a_connection_that_is_ended_in_the_second_transaction_is_replaced_by_another(
    api: Api, merchant: Caller, slow_bank: BankThatWaits, other: psycopg.Connection
) -> None:
    ask = an_ask(merchant)

    with being_asked(slow_bank, ask) as asked, other.transaction():
        other.execute(HOLD_ALL_SHARDS)
        slow_bank.may_answer.set()
        eventually(lambda: bool(other.execute(END_THE_WAITING).fetchall()))

    assert asked.result().status_code == 201
    assert len(slow_bank.requests) == 1
    assert ask().data == asked.result().data


# --- a commit, or its acknowledgement, is lost --------------------------------------------------


@contextmanager
def an_api_behind_a_proxy(database_url: str) -> Iterator[tuple[Api, PostgresProxy]]:
    """Its own followers find the read models kept up by the shared one, so that no step is struck."""
    with PostgresProxy(database_url) as proxy, an_api(proxy.url, waits=None) as api:
        yield api, proxy


@pytest.mark.usefixtures("shared_api")
def test_an_acknowledgement_that_is_lost_before_the_bank_is_asked_changes_nothing(
    shared_database_url: str,
) -> None:
    with an_api_behind_a_proxy(shared_database_url) as (api, proxy):
        merchant, bank = api.merchant(), FakeBank(SteppableClock(datetime.now(UTC)))
        with api.asking(bank):
            proxy.will_lose(Loss.ACKNOWLEDGEMENT)
            receipt = merchant.authorized()

    assert (proxy.struck, receipt["version"]) == (1, 2)
    assert len(bank.requests) == len(bank.holds) == 1


@pytest.mark.usefixtures("shared_api")
def test_a_commit_that_is_lost_before_the_bank_is_asked_begins_nothing(
    shared_database_url: str,
) -> None:
    with an_api_behind_a_proxy(shared_database_url) as (api, proxy):
        merchant, bank = api.merchant(), FakeBank(SteppableClock(datetime.now(UTC)))
        ask, before = an_ask(merchant), api.behind()
        with api.asking(bank):
            proxy.will_lose(Loss.COMMIT)
            response, took = timed(ask)
            after, again = api.behind(), ask()

    check_unavailable(response, took)
    assert (proxy.struck, after) == (1, before)
    assert shaped(ReceiptOut, again, 201)["version"] == 2
    assert len(bank.requests) == 1


@pytest.mark.usefixtures("shared_api")
@pytest.mark.parametrize("loss", Loss)
def test_a_commit_or_an_acknowledgement_that_is_lost_after_the_bank_was_asked_is_no_second_call(
    shared_database_url: str, loss: Loss
) -> None:
    with an_api_behind_a_proxy(shared_database_url) as (api, proxy):
        merchant, bank = api.merchant(), BankThatWaits()
        ask = an_ask(merchant)
        with api.asking(bank):
            with being_asked(bank, ask) as asked:
                proxy.will_lose(loss)
            again = ask()

    assert proxy.struck == 1
    assert shaped(ReceiptOut, asked.result(), 201)["version"] == 2
    assert again.data == asked.result().data
    assert len(bank.requests) == 1


# --- the disk is full ---------------------------------------------------------------------------


@contextmanager
def full_disk(other: psycopg.Connection) -> Iterator[None]:
    """As the server says it; `tests/faults` fills a real one, where a machine lets us."""
    other.execute(DISK_IS_FULL)
    try:
        yield
    finally:
        other.execute(SPACE_WAS_FREED)


def test_while_the_disk_is_full_commands_are_refused_and_reads_go_on(
    api: Api, merchant: Caller, other: psycopg.Connection
) -> None:
    ask, payment_id = an_ask(merchant), merchant.authorized()["payment_id"]
    before = api.behind()

    with full_disk(other):
        response, took = timed(ask)
        read, after = merchant.receipt(payment_id), api.behind()

    check_unavailable(response, took)
    assert (read["status"], after) == ("authorized", before)
    assert ask().status_code == 201


def test_when_the_disk_is_full_after_the_bank_was_asked_the_outcome_is_recorded_later(
    api: Api, merchant: Caller, slow_bank: BankThatWaits, other: psycopg.Connection
) -> None:
    ask = an_ask(merchant)

    with being_asked(slow_bank, ask) as asked, full_disk(other):
        slow_bank.may_answer.set()
        response = asked.result()

    assert json_of(response)["pending_operation"] == "authorization"
    api.worker_has_been_at_it(merchant)
    assert shaped(ReceiptOut, ask(), 201)["needs_review"] is None
    assert [*slow_bank.done.values()] == [1]

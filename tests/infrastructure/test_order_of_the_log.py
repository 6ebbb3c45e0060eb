"""Whoever has read the log up to a cursor never finds a new event at or before it, and misses none:
whatever is held open, committed late, rolled back or killed meanwhile.

The same schedules are run against a log with the usual cursor, `id > last` over a sequence, which
loses events under them: so they can tell.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final, LiteralString, Protocol
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, errors
from psycopg.rows import dict_row

from domain.commands import Cause
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from tests.builders import Story, a_payment, an_id
from tests.infrastructure.projections.a_log import poll_until
from tests.patience import patient_pool

SEEDS: Final = range(5)
STEPS: Final = 100
WRITERS: Final = 4
# Few, so that writers meet.
SHARDS: Final = (3, 4, 5)

WAITS_FOR_A_LOCK: Final[LiteralString] = """
    SELECT count(*) AS backends FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""

mapper = FlatMapper(FlatJSON())
Row = dict[str, Any]


class Log(Protocol):
    """Somewhere to append to, and to read from with a cursor."""

    def append(self, connection: Connection[Row], shard: int) -> UUID:
        """In the transaction that is open; the id of what was appended."""

    def read(self, connection: Connection[Row]) -> list[UUID]:
        """What is after the cursor, which goes on to its end."""

    def behind_cursor(self, connection: Connection[Row]) -> list[UUID]:
        """Everything that is now at the cursor or before it."""


class OurLog:
    """The product's own statement, and a position for each shard."""

    def __init__(self, pool: Pool) -> None:
        self._recorder = ShardedRecorder(pool)
        self.cursor: defaultdict[int, int] = defaultdict(int)

    def append(self, connection: Connection[Row], shard: int) -> UUID:
        payment = Story(a_payment(payment_id=an_id(shard=shard))).authorized().payment
        stored = [mapper.to_stored_event(event) for event in payment.history]
        batch = self._recorder._batch(stored, Cause(actor="key_1"))
        statement, parameters = self._recorder._statement(batch, payment.history, ())
        connection.execute(statement, parameters)
        return payment.id

    def read(self, connection: Connection[Row]) -> list[UUID]:
        found = [row for row in self._all(connection) if row["position"] > self._at(row)]
        for row in found:
            assert row["position"] == self._at(row) + 1, "a gap"
            self.cursor[row["shard"]] = row["position"]
        return [row["originator_id"] for row in found if row["originator_version"] == 1]

    def behind_cursor(self, connection: Connection[Row]) -> list[UUID]:
        rows = [row for row in self._all(connection) if row["position"] <= self._at(row)]
        return [row["originator_id"] for row in rows if row["originator_version"] == 1]

    def _at(self, row: Row) -> int:
        return self.cursor[row["shard"]]

    def _all(self, connection: Connection[Row]) -> list[Row]:
        return connection.execute(
            "SELECT shard, position, originator_id, originator_version FROM events"
            " ORDER BY shard, position"
        ).fetchall()


class NaiveLog:
    """One sequence, and a cursor that is the last id that was seen."""

    CREATE: LiteralString = """
        CREATE TABLE naive_log (id bigserial PRIMARY KEY, event_id uuid NOT NULL);
        GRANT SELECT ON naive_log TO PUBLIC
    """

    def __init__(self, database_url: str) -> None:
        self.cursor = 0
        with psycopg.connect(database_url) as connection:
            connection.execute(self.CREATE)

    def append(self, connection: Connection[Row], shard: int) -> UUID:
        event_id = an_id(shard=shard)
        connection.execute("INSERT INTO naive_log (event_id) VALUES (%s)", [event_id])
        return event_id

    def read(self, connection: Connection[Row]) -> list[UUID]:
        rows = connection.execute(
            "SELECT id, event_id FROM naive_log WHERE id > %s ORDER BY id", [self.cursor]
        ).fetchall()
        self.cursor = rows[-1]["id"] if rows else self.cursor
        return [row["event_id"] for row in rows]

    def behind_cursor(self, connection: Connection[Row]) -> list[UUID]:
        rows = connection.execute(
            "SELECT event_id FROM naive_log WHERE id <= %s ORDER BY id", [self.cursor]
        ).fetchall()
        return [row["event_id"] for row in rows]


class Writer:
    """A backend of its own, with at most one transaction open."""

    def __init__(self, database_url: str, log: Log) -> None:
        self._url, self._log = database_url, log
        self._connection = self._connect()
        self.open: UUID | None = None

    def _connect(self) -> Connection[Row]:
        # A head that somebody else has is not waited for here: that append is rolled back.
        options = "-c lock_timeout=5ms"
        return psycopg.connect(self._url, row_factory=dict_row, options=options)

    def append(self, shard: int) -> None:
        try:
            self.open = self._log.append(self._connection, shard)
        except errors.LockNotAvailable:
            self._connection.rollback()

    def commit(self) -> UUID:
        assert self.open is not None
        self._connection.commit()
        committed, self.open = self.open, None
        return committed

    def roll_back(self) -> None:
        self._connection.rollback()
        self.open = None

    def be_killed(self) -> None:
        backend = self._connection.info.backend_pid
        with self._connect() as by:
            by.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        self._connection.close()
        self._connection, self.open = self._connect(), None

    def close(self) -> None:
        self._connection.close()


class Witness:
    """A reader with a cursor, who remembers everything."""

    def __init__(self, connection: Connection[Row], log: Log) -> None:
        self._connection, self._log = connection, log
        self.seen: list[UUID] = []
        self.lost: set[UUID] = set()

    def read(self) -> None:
        self.seen += self._log.read(self._connection)
        self.lost |= set(self._log.behind_cursor(self._connection)) - set(self.seen)


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=4) as pool:
        yield pool


@contextmanager
def writers(database_url: str, log: Log, number: int) -> Iterator[list[Writer]]:
    with ExitStack() as stack:
        made = [Writer(database_url, log) for _ in range(number)]
        for writer in made:
            stack.callback(writer.close)
        yield made


def run(seed: int, database_url: str, pool: Pool, log: Log) -> tuple[list[UUID], Witness]:
    """A schedule made from `seed`; what was committed, in that order, and who watched."""
    choose = random.Random(seed)
    committed: list[UUID] = []
    with writers(database_url, log, WRITERS) as all_of_them, pool.connection() as connection:
        witness = Witness(connection, log)
        for _ in range(STEPS):
            writer = choose.choice(all_of_them)
            fate = choose.random()
            if fate < 0.25:
                witness.read()
            elif writer.open is None:
                writer.append(choose.choice(SHARDS))
            elif fate < 0.75:
                committed.append(writer.commit())
            elif fate < 0.97:
                writer.roll_back()
            else:
                writer.be_killed()
        committed += [writer.commit() for writer in all_of_them if writer.open is not None]
        witness.read()
    return committed, witness


@pytest.mark.parametrize("seed", SEEDS)
def test_who_has_read_to_a_cursor_has_read_everything_up_to_it(
    seed: int, database_url: str, pool: Pool
) -> None:
    committed, witness = run(seed, database_url, pool, OurLog(pool))

    assert len(committed) > STEPS / 10
    assert witness.lost == set()
    assert sorted(witness.seen) == sorted(committed)


def test_the_same_schedules_make_a_bare_sequence_lose_events(database_url: str, pool: Pool) -> None:
    log = NaiveLog(database_url)

    lost = [len(run(seed, database_url, pool, log)[1].lost) for seed in SEEDS]

    assert sum(map(bool, lost)) > len(SEEDS) / 2, lost


def test_what_commits_late_is_read_late_and_read(database_url: str, pool: Pool) -> None:
    log = OurLog(pool)
    with writers(database_url, log, 2) as (late, early), pool.connection() as connection:
        witness = Witness(connection, log)
        late.append(3)
        early.append(4)
        committed = [early.commit()]
        witness.read()
        assert witness.seen == committed

        committed.append(late.commit())
        witness.read()

    assert witness.seen == committed
    assert witness.lost == set()


def commits(writer: Writer) -> list[UUID]:
    return [writer.commit()]


def rolls_back(writer: Writer) -> list[UUID]:
    writer.roll_back()
    return []


def is_killed(writer: Writer) -> list[UUID]:
    writer.be_killed()
    return []


@pytest.mark.parametrize("ending", [commits, rolls_back, is_killed])
def test_one_who_holds_a_head_delays_its_shard_only(
    ending: Callable[[Writer], list[UUID]], database_url: str, pool: Pool
) -> None:
    """However it ends, those who waited for the head follow without a gap."""
    log = OurLog(pool)
    recorder = ShardedRecorder(pool)

    def append(shard: int) -> UUID:
        payment = a_payment(payment_id=an_id(shard=shard))
        stored = [mapper.to_stored_event(event) for event in payment.history]
        recorder.insert_events(stored, history=payment.history)
        return payment.id

    with (
        writers(database_url, log, 1) as (holder,),
        psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection,
        ThreadPoolExecutor(2) as threads,
    ):
        witness = Witness(connection, log)
        holder.append(3)
        waiting = [threads.submit(append, 3) for _ in range(2)]
        poll_until(lambda: backends_that_wait(connection) == 2)
        elsewhere = append(4)
        witness.read()
        assert witness.seen == [elsewhere]

        first = ending(holder)
        others = {future.result() for future in waiting}
        witness.read()

    assert set(witness.seen) == {elsewhere, *first, *others}
    assert witness.seen[1 : 1 + len(first)] == first
    assert witness.lost == set()
    assert log.cursor[3] == 2 * len(first) + 2


def test_a_reader_beside_many_writers_misses_nothing(pool: Pool, database_url: str) -> None:
    log = OurLog(pool)
    recorder = ShardedRecorder(pool)

    def append(number: int) -> UUID:
        payment = Story(a_payment(payment_id=an_id(shard=SHARDS[number % 3]))).authorized().payment
        stored = [mapper.to_stored_event(event) for event in payment.history]
        recorder.insert_events(stored, history=payment.history)
        return payment.id

    with (
        psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as connection,
        ThreadPoolExecutor(3) as threads,
    ):
        witness = Witness(connection, log)
        futures = [threads.submit(append, number) for number in range(120)]
        while not all(future.done() for future in futures):
            witness.read()
        witness.read()

    assert sorted(witness.seen) == sorted(future.result() for future in futures)
    assert witness.lost == set()


def backends_that_wait(connection: Connection[Row]) -> int:
    row = connection.execute(WAITS_FOR_A_LOCK).fetchone()
    assert row is not None
    count: int = row["backends"]
    return count

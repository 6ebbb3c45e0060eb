"""A read model made again beside the one that is read and written meanwhile, and put in its place."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import pytest
from psycopg import Connection, sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.projections import rebuild as rebuild_module
from infrastructure.projections.batches import heads_of_the_log, read_beyond
from infrastructure.projections.differences import KEY_COLUMNS, Difference, differences
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.projections.follower import Overtaken
from infrastructure.projections.generations import (
    NoSuchGeneration,
    Slot,
    Status,
    create_beside,
    drop_beside,
    hold_alone,
    set_paused,
)
from infrastructure.projections.rebuild import (
    BUILDER_TIMEOUT,
    LOCK_BUILDER,
    LOCK_SHARD,
    BuilderAtWork,
    build_shard,
    promote,
    rebuild,
    retire,
    rollback,
)
from infrastructure.shards import SHARDS, shard_of
from projections.registry import FOLLOWING, is_inline, read_model
from tests.builders import Story, a_payment, an_id
from tests.infrastructure.projections.a_log import (
    NAMES,
    append,
    append_interleaved,
    append_unreadable,
    backends_that_wait,
    connect,
    follow,
    follower_of,
    generation_of,
    poll_until,
    rebuilt,
    replayed_rows,
    rows,
)
from tests.patience import patient_pool

OTHER_BACKENDS: Final[LiteralString] = """
    SELECT count(*) AS backends FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
      AND application_name <> 'counterfoil' AND pid <> pg_backend_pid()
"""
DONE_SHARDS: Final[LiteralString] = """
    SELECT shard, xmin::text AS made_by FROM projection_positions p
    WHERE name = 'balances' AND generation = 2
"""
OTHER_CODE: Final[LiteralString] = """
    UPDATE projection_generations SET code_version = 99 WHERE name = 'balances' AND slot = 'beside'
"""
TABLES_BESIDE: Final[LiteralString] = """
    SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'beside'
"""
# Of each table a column that can be wrong.
DAMAGED: Final = {
    "receipts": "status",
    "refunds": "status",
    "balances": "entries",
    "customer_totals": "payments",
    "operation_hours": "count",
    "balance_transactions": "amount",
    "disputes": "version",
}
# The driver prepares at the sixth time, the server plans once for all five times later.
PROMOTED_AFTER: Final = 11
REFUSE_BESIDE: Final[LiteralString] = """
    ALTER TABLE beside.receipts ADD CONSTRAINT refuses CHECK (version < 0)
"""
READS: Final[dict[str, LiteralString]] = {
    "receipts": "SELECT count(*) AS n FROM receipts",
    "refunds": "SELECT count(*) AS n FROM refunds",
    "balances": "SELECT coalesce(sum(held), 0)::bigint AS n FROM balances",
    "customers": "SELECT coalesce(sum(payments), 0)::bigint AS n FROM customer_totals",
    "operations": "SELECT coalesce(sum(count), 0)::bigint AS n FROM operation_hours",
    "balance_transactions": "SELECT count(*) AS n FROM balance_transactions",
    "disputes": "SELECT count(*) AS n FROM disputes",
}

each_model = pytest.mark.parametrize("name", NAMES)
# For what does not look at the rows: one that is written with the log, and one that follows it.
one_of_each_kind = pytest.mark.parametrize("name", ["receipts", "balances"])


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=12) as pool:
        pool.resize(12)
        pool.wait()  # so that none is still being made when nobody has time for that
        yield pool


@pytest.fixture(autouse=True)
def whoever_rebuilds_waits_until_the_one_before_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed here, and there a moment later."""
    monkeypatch.setattr(rebuild_module, "BUILDER_TIMEOUT", "SET LOCAL lock_timeout = '20s'")


def a_refunded_payment() -> Payment:
    return Story().authorized().captured().refunded(1000).payment


def a_disputed_payment() -> Payment:
    """Of which every read model of payments has something."""
    return Story().authorized().captured().refunded(1000).disputed().payment


def a_refunded_payment_in(shard: int) -> Payment:
    story = Story(a_payment(payment_id=an_id(shard=shard)))
    return story.authorized().captured().refunded(1000).payment


def pages_of_receipts(connection: Connection[DictRow]) -> list[int]:
    """In the order in which the payments began."""
    found = connection.execute(
        "SELECT (ctid::text::point)[0]::int AS page FROM receipts ORDER BY payment_id"
    )
    return [row["page"] for row in found]


def followed(connection: Connection[DictRow], *names: str) -> None:
    """The live generations of what follows are up with the log."""
    for name in names or [model.name for model in FOLLOWING]:
        if not is_inline(name):
            follow(connection, follower_of(connection, name))


@contextmanager
def an_engine(pool: Pool) -> Iterator[None]:
    stopping = threading.Event()
    engine = ProjectionEngine(pool, time.monotonic)
    running = threading.Thread(target=engine.run, args=(stopping,))
    running.start()
    try:
        yield
    finally:
        stopping.set()
        running.join()


class Meanwhile:
    """Something that is done over and over until the test is done; nothing of it may fail."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._stopping = work, threading.Event()
        self.times, self.longest = 0, 0.0
        self.failures: list[Exception] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Meanwhile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - what a test is told
                self.failures.append(error)
            self.times += 1
            self.longest = max(self.longest, time.monotonic() - began)


def reading(pool: Pool, name: str) -> Callable[[], object]:
    def read() -> object:
        with pool.connection() as connection:
            return connection.execute(READS[name]).fetchone()

    return read


def paying(pool: Pool) -> Callable[[], object]:
    return lambda: append_interleaved(pool, [a_refunded_payment()])


def is_replay(connection: Connection[DictRow], name: str) -> bool:
    return rows(connection, read_model(name)) == replayed_rows(connection, name)


# --- building ---


@each_model
def test_what_is_built_beside_is_the_live_one_row_by_row_though_writers_write(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, *[a_refunded_payment() for _ in range(12)])

    with Meanwhile(paying(pool)) as writer:
        built = rebuilt(database_url, name)
        assert list(differences(database_url, name)) == []
        live = promote(database_url, name)

    assert writer.times > 1
    assert (writer.failures, built.quarantined) == ([], 0)
    assert built.events >= 6 * 12
    assert (live.generation, live.slot, live.status) == (2, Slot.LIVE, Status.LIVE)
    followed(connection, name)
    assert list(differences(database_url, name)) == []
    assert is_replay(connection, name)


def test_several_processes_build_the_same(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, *[a_refunded_payment() for _ in range(12)])
    told: list[tuple[int, int]] = []

    rebuild(database_url, "balances", lambda *done: told.append(done), workers=2)

    assert (told[0], told[-1]) == ((0, 72), (72, 72))
    assert told == sorted(told)
    followed(connection, "balances")
    assert list(differences(database_url, "balances")) == []


def test_new_receipts_are_not_put_among_those_that_were_made_again(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """As they are not among those that grew where they are: each would be in another page of the past,
    which is then written whole."""
    larger = [a_payment(metadata={"note": "x" * (37 * number % 400)}) for number in range(90)]
    append(pool, *[Story(payment).authorized().captured().payment for payment in larger])
    rebuilt(database_url, "receipts")
    promote(database_url, "receipts")
    connection.execute("VACUUM receipts")  # so that it is known where there is room
    old = pages_of_receipts(connection)

    append(pool, *[Story().authorized().payment for _ in range(10)])

    new = pages_of_receipts(connection)[len(old) :]
    assert max(old) > 10
    assert len(new) == 10
    assert min(new) >= max(old)


def test_a_rebuild_that_is_killed_goes_on_where_it_was(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """A real process that is killed while one shard is still to do. Its own processes end with it."""
    append(pool, *[a_refunded_payment_in(shard) for shard in range(SHARDS)])
    in_the_way = {"name": "balances", "generation": 2, "shard": 40}
    with connect(database_url) as other:
        with other.transaction(), a_rebuild(database_url) as process:
            other.execute(LOCK_SHARD, in_the_way)
            poll_until(lambda: len(done_shards(connection)) == 63 or process.poll() is not None)
            before = done_shards(connection)
            assert len(before) == 63
            process.kill()
        poll_until(lambda: other_backends(connection) == 1)
    assert done_shards(connection) == before

    built = rebuilt(database_url, "balances")

    after = done_shards(connection)
    assert len(after) == 64
    assert before.items() <= after.items()
    assert built.events == SHARDS * 6
    followed(connection, "balances")
    assert list(differences(database_url, "balances")) == []


@contextmanager
def a_rebuild(database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "scripts.cli", "projections", "rebuild", "balances"]
    environ = {"DATABASE_URL": database_url, "PATH": os.environ["PATH"]}
    with subprocess.Popen([*command, "--workers", "2"], env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


def done_shards(connection: Connection[DictRow]) -> dict[int, str]:
    return {row["shard"]: row["made_by"] for row in connection.execute(DONE_SHARDS).fetchall()}


def other_backends(connection: Connection[DictRow]) -> int:
    """Who is connected beside this, but for the pool of the test."""
    row = connection.execute(OTHER_BACKENDS).fetchone()
    assert row is not None
    count: int = row["backends"]
    return count


def test_a_shard_that_somebody_did_meanwhile_is_not_done_twice(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """As by a process of a rebuild that was killed, at the end of what it was at."""
    payment = a_refunded_payment()
    append(pool, payment)
    generation = create_beside(connection, read_model("customers"))
    shard = shard_of(payment.id)

    with ThreadPoolExecutor(2) as threads:
        done = threads.map(build_shard, [database_url] * 2, [generation] * 2, [shard] * 2)
        assert list(done) == [payment.version] * 2

    (row,) = rows(connection, read_model("customers"), "beside")["customer_totals"]
    assert (row["payments"], row["amount_refunded"]) == (1, 1000)


def test_a_builder_whose_generation_is_gone_writes_nothing_anywhere(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    payment = a_refunded_payment()
    append(pool, payment)
    model = read_model("customers")
    generation = create_beside(connection, model)
    drop_beside(connection, model, generation)

    with pytest.raises(Overtaken):
        build_shard(database_url, generation, shard_of(payment.id))

    assert rows(connection, model) == {"customer_totals": []}


def test_what_is_meant_for_tables_that_are_gone_is_not_written_into_the_live_ones(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, a_refunded_payment())
    rebuilt(database_url, "customers")
    append(pool, a_refunded_payment())
    connection.execute("DROP TABLE beside.customer_totals")

    follow(connection, follower_of(connection, "customers", Slot.BESIDE))

    assert rows(connection, read_model("customers")) == {"customer_totals": []}


def test_of_two_who_rebuild_the_same_at_once_one_is_told_so(
    database_url: str, connection: Connection[DictRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "BUILDER_TIMEOUT", BUILDER_TIMEOUT)
    connection.execute(LOCK_BUILDER, {"name": "balances"})

    for refused in (rebuilt, retire):
        with pytest.raises(BuilderAtWork):
            refused(database_url, "balances")
    rebuilt(database_url, "customers")  # which is another one


@each_model
def test_what_is_damaged_missing_or_orphaned_is_found_and_mended(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    payments = [a_disputed_payment() for _ in range(4)]
    append(pool, *payments)
    followed(connection)
    model = read_model(name)
    before = rows(connection, model)
    rebuilt(database_url, name)
    table = model.TABLES[0]
    good = before[table]
    planted = plant(connection, table)

    found = {difference_key(each): each for each in differences(database_url, name)}

    assert len(found) == len(planted) == 3
    for key, (live, beside) in planted.items():
        assert (found[key].live, found[key].beside) == (live, beside)
        assert found[key].table == table
    promote(database_url, name)
    assert rows(connection, model) == before
    assert len(good) >= 3


def difference_key(each: Difference) -> str:
    return json.dumps(each.key, sort_keys=True)


def plant(connection: Connection[DictRow], table: str) -> dict[str, tuple[Any, Any]]:
    """One row that says something else, one that is gone, one too many: by key, what each is in the
    live table, and what it should be."""
    name = sql.Identifier(table)
    query = sql.SQL("SELECT to_jsonb(t) AS row FROM {} t ORDER BY ctid LIMIT 3").format(name)
    keys = key_columns(connection, table)
    changed, gone, doubled = (row["row"] for row in connection.execute(query).fetchall())
    column = DAMAGED[table]
    damaged = {**changed, column: "planted" if column == "status" else changed[column] + 7}
    orphan = {**doubled, "shard": 1_000}
    for row in (changed, gone):
        where = sql.SQL(" AND ").join(
            sql.SQL("to_jsonb(t) ->> {} = {}").format(key, str(row[key])) for key in keys
        )
        connection.execute(sql.SQL("DELETE FROM {} t WHERE {}").format(name, where))
    insert = sql.SQL("INSERT INTO {0} SELECT * FROM jsonb_populate_record(NULL::{0}, {1})")
    for row in (damaged, orphan):
        connection.execute(insert.format(name, sql.Literal(Jsonb(row))))
    wanted = {"changed": (damaged, changed), "gone": (None, gone), "orphan": (orphan, None)}
    return {
        json.dumps({key: (live or beside)[key] for key in keys}, sort_keys=True): (live, beside)
        for live, beside in wanted.values()
    }


def key_columns(connection: Connection[DictRow], table: str) -> list[str]:
    found = connection.execute(KEY_COLUMNS, {"table": f"public.{table}"}).fetchall()
    return [row["name"] for row in found]


# --- payments that cannot be taken in ---


@each_model
def test_payments_that_cannot_be_taken_in_are_set_aside_and_forbid_the_promotion(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    bad = Story().authorized().payment
    append(pool, bad, a_refunded_payment())
    append_unreadable(connection, bad, "payment.invented")

    built = rebuilt(database_url, name)

    assert built.quarantined == 1
    (row,) = follower_of(connection, name, Slot.BESIDE).quarantine(connection)
    assert (row["originator_id"], row["applied_version"]) == (bad.id, 0)
    with pytest.raises(NoSuchGeneration, match="lacks payments"):
        promote(database_url, name)


@pytest.mark.parametrize("is_readable", [False, True])
def test_what_is_set_aside_at_the_very_last_forbids_it_too(
    is_readable: bool, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """By the catching up under the locks, with what was appended when it waited for them."""
    rebuilt(database_url, "receipts")
    bad = Story().authorized().payment
    if is_readable:
        connection.execute(REFUSE_BESIDE)
    else:
        append(pool, bad)

    with ThreadPoolExecutor(1) as threads, connect(database_url) as other:
        with other.transaction():
            other.execute("LOCK TABLE receipts IN ROW EXCLUSIVE MODE")
            promoted = threads.submit(promote, database_url, "receipts")
            poll_until(lambda: backends_that_wait(connection) == 1)
            if is_readable:
                append(pool, bad)
            else:
                append_unreadable(other, bad, "payment.invented")
        with pytest.raises(NoSuchGeneration, match="lacks payments"):
            promoted.result()

    assert generation_of(connection, "receipts").generation == 1
    assert len(rows(connection, read_model("receipts"))["receipts"]) == 1


# --- taking the other's place, and going back ---


def test_what_was_read_before_a_promotion_is_taken_in_where_the_tables_are_then(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """On a connection on which both generations were written so often that all of it is prepared."""
    rebuilt(database_url, "balances")
    once = follower_of(connection, "balances")
    later = follower_of(connection, "balances", Slot.BESIDE)
    stands_at = heads_of_the_log(connection)
    for number in range(PROMOTED_AFTER + 3):
        append(pool, a_refunded_payment())
        batch = read_beyond(connection, stands_at)
        assert batch is not None
        stands_at = batch.upto
        later.take(connection, batch)
        if number == PROMOTED_AFTER:
            promote(database_url, "balances")
        once.take(connection, batch)

    assert generation_of(connection, "balances").generation == 2
    model = read_model("balances")
    replayed = replayed_rows(connection, "balances")
    assert rows(connection, model) == rows(connection, model, "beside") == replayed


@one_of_each_kind
def test_no_read_and_no_write_fails_while_generations_change_places(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """Many times, with a follower for each: what is written goes to the generation it is meant for."""
    append(pool, *[a_disputed_payment() for _ in range(5)])
    with (
        an_engine(pool),
        Meanwhile(reading(pool, name)) as reader,
        Meanwhile(paying(pool)) as writer,
        Meanwhile(paying(pool)) as other_writer,
    ):
        rebuilt(database_url, name)
        promote(database_url, name)
        seconds = []
        for _ in range(6):
            began = time.monotonic()
            rollback(database_url, name)
            seconds.append(time.monotonic() - began)

    assert reader.failures == writer.failures == other_writer.failures == []
    print(name, f"slowest swap {max(seconds):.3f} s, slowest read {reader.longest:.3f} s")
    followed(connection, name)
    assert list(differences(database_url, name)) == []
    assert is_replay(connection, name)


def test_of_two_who_promote_at_once_one_does(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """The other would put the old one back."""
    rebuilt(database_url, "balances")

    def attempt(_: int) -> bool:
        try:
            promote(database_url, "balances")
        except NoSuchGeneration:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        with connect(database_url) as other, other.transaction():
            hold_alone(other, "balances")
            attempts = threads.map(attempt, range(2))
            poll_until(lambda: backends_that_wait(connection) == 2)
        assert sorted(attempts) == [False, True]

    assert generation_of(connection, "balances").generation == 2


@one_of_each_kind
def test_a_rollback_has_what_was_written_since(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, a_refunded_payment())
    rebuilt(database_url, name)
    promote(database_url, name)
    append(pool, a_refunded_payment())

    live = rollback(database_url, name)

    assert live.generation == 1
    assert is_replay(connection, name)
    append(pool, a_refunded_payment())
    followed(connection, name)
    assert is_replay(connection, name)


def test_what_is_retired_is_gone_and_the_next_has_another_number(
    database_url: str, connection: Connection[DictRow]
) -> None:
    rebuilt(database_url, "balances")
    assert retire(database_url, "balances").generation == 2
    for nothing in (retire, promote, rollback):
        with pytest.raises(NoSuchGeneration):
            nothing(database_url, "balances")

    assert rebuilt(database_url, "balances").generation.generation == 2
    promote(database_url, "balances")
    assert rebuilt(database_url, "balances").generation.generation == 3
    tables = connection.execute(TABLES_BESIDE).fetchall()
    assert sorted(row["name"] for row in tables) == ["balances", "entries"]


def test_what_is_retired_while_it_is_followed_stops_nobody(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    rebuilt(database_url, "customers")
    append(pool, a_refunded_payment())
    follower = follower_of(connection, "customers", Slot.BESIDE)
    with (
        ThreadPoolExecutor(1) as threads,
        connect(database_url) as other,
    ):
        with other.transaction():
            follower.hold(other)
            retired = threads.submit(retire, database_url, "customers")
            poll_until(lambda: backends_that_wait(connection) == 1)
            assert follower.step(connection) == 6  # in the middle of it, and not in the way
        retired.result()

    assert follower.step(connection) == 0


def test_a_follower_of_other_code_does_not_go_on_in_what_is_made_in_its_place(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """Though it has the number of the one that it followed."""
    rebuilt(database_url, "customers")
    connection.execute("UPDATE projection_generations SET code_version = 99 WHERE generation = 2")
    others = follower_of(connection, "customers", Slot.BESIDE)
    assert rebuilt(database_url, "customers").generation.generation == 2
    append(pool, a_refunded_payment())

    with pytest.raises(Overtaken):
        others.step(connection)

    assert rows(connection, read_model("customers"), "beside") == {"customer_totals": []}


@pytest.mark.parametrize("status", [Status.READY, Status.PREVIOUS])
def test_what_other_code_made_is_made_again_and_never_put_in_place(
    status: Status, database_url: str, connection: Connection[DictRow]
) -> None:
    rebuilt(database_url, "balances")
    if status is Status.PREVIOUS:
        promote(database_url, "balances")
    connection.execute(OTHER_CODE)
    put_in_place = promote if status is Status.READY else rollback

    with pytest.raises(NoSuchGeneration, match="another version"):
        put_in_place(database_url, "balances")
    made = rebuilt(database_url, "balances").generation

    assert made.is_of_this_code
    assert promote(database_url, "balances").generation == made.generation


def test_what_is_paused_can_be_built_and_put_in_place(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    set_paused(connection, "balances", paused=True)
    append(pool, a_refunded_payment())

    rebuilt(database_url, "balances")
    promote(database_url, "balances")

    assert is_replay(connection, "balances")


def test_a_pause_does_not_wait_for_a_step(
    database_url: str, connection: Connection[DictRow]
) -> None:
    connection.execute("SET lock_timeout = '200ms'")
    with connect(database_url) as other, other.transaction():
        follower_of(other, "balances").hold(other)
        set_paused(connection, "balances", paused=True)

    assert generation_of(connection, "balances").paused


# --- comparing ---


@each_model
def test_generations_are_compared_at_one_point_though_writers_write(
    name: str, database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, a_refunded_payment())
    rebuilt(database_url, name)

    with an_engine(pool), Meanwhile(paying(pool)) as writer, Meanwhile(paying(pool)):
        for _ in range(3):
            assert list(differences(database_url, name)) == []

    assert writer.failures == []


def test_what_is_not_finished_is_not_compared(
    database_url: str, connection: Connection[DictRow]
) -> None:
    create_beside(connection, read_model("balances"))

    with pytest.raises(NoSuchGeneration):
        next(differences(database_url, "balances"))


def test_generations_that_change_while_they_are_to_be_compared_are_not_compared(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """Of those that were looked up nothing could be said any more, and of others nobody asked."""
    rebuilt(database_url, "balances")

    with ThreadPoolExecutor(1) as threads, connect(database_url) as other:
        with other.transaction():
            other.execute("LOCK TABLE shard_heads IN ACCESS EXCLUSIVE MODE")
            compared = threads.submit(list, differences(database_url, "balances"))
            poll_until(lambda: backends_that_wait(connection) == 1)
            gone = generation_of(other, "balances", Slot.BESIDE)
            drop_beside(other, read_model("balances"), gone)
        with pytest.raises(NoSuchGeneration, match="meanwhile"):
            compared.result()


def test_one_who_holds_a_head_is_not_waited_for_long_when_generations_are_compared(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """Nor does anyone else wait behind the comparison meanwhile."""
    append(pool, a_refunded_payment())
    rebuilt(database_url, "receipts")

    with connect(database_url) as other, other.transaction():
        other.execute("SELECT FROM shard_heads WHERE shard = 63 FOR UPDATE")
        assert list(differences(database_url, "receipts")) == []
        append(pool, a_refunded_payment_in(1))

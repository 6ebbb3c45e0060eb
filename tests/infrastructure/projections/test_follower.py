"""A follower's rows are the fold of the whole log, each event taken in exactly once, whatever dies; and
what cannot be taken in costs its own payment, and nothing else."""

import json
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import DictRow

from domain.dispute import DisputeStatus
from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.projections.differences import differences
from infrastructure.projections.follower import LONGEST_ERROR, Follower, Overtaken
from infrastructure.projections.generations import Slot
from infrastructure.shards import shard_of
from projections.changes import Change, ReadModel, Write
from projections.registry import read_model
from tests.builders import Story, a_payment, an_id, lives
from tests.infrastructure.postgres_proxy import Loss, PostgresProxy
from tests.infrastructure.projections.a_log import (
    FOLLOWING_NAMES,
    INLINE_OF_PAYMENTS,
    NAMES,
    append,
    append_interleaved,
    append_unreadable,
    asks_of,
    backends_that_wait,
    balances_of,
    connect,
    follow,
    follower_of,
    poll_until,
    rebuilt,
    replayed_rows,
    rows,
    totals_of,
)

PATIENCE_SECONDS: Final = 20
# So many times the driver carries out a statement before it prepares it.
PREPARED_AFTER: Final = 5
LINE: Final[LiteralString] = "SELECT pg_advisory_xact_lock(7)"
KILL_ME: Final = Write("SELECT pg_terminate_backend(pg_backend_pid())", {})
BALANCES: LiteralString = """
    SELECT merchant_id, mode, customer_id, currency, sum(held)::bigint AS held,
           sum(captured)::bigint AS captured, sum(refunded)::bigint AS refunded,
           sum(disputed)::bigint AS disputed, sum(cardholder)::bigint AS cardholder,
           sum(entries)::bigint AS entries
    FROM balances GROUP BY merchant_id, mode, customer_id, currency
"""
ENTRIES: LiteralString = """
    SELECT merchant_id, mode, customer_id, currency, sum(held)::bigint AS held,
           sum(captured)::bigint AS captured, sum(refunded)::bigint AS refunded,
           sum(disputed)::bigint AS disputed, sum(cardholder)::bigint AS cardholder,
           count(*) AS entries
    FROM (
        SELECT * FROM entries UNION ALL
        SELECT shard, payment_id, version, merchant_id, mode, '', currency, at, held, captured,
               refunded, cardholder, disputed
        FROM entries WHERE customer_id <> ''
    ) AS both_sides
    GROUP BY merchant_id, mode, customer_id, currency
"""
UNEVEN: LiteralString = """
    SELECT count(*) AS entries FROM entries
    WHERE held + captured + refunded + disputed + cardholder <> 0
"""
TOTALS: LiteralString = """
    SELECT customer_id, currency, sum(payments)::bigint AS payments,
           sum(authorized)::bigint AS authorized, sum(captured)::bigint AS captured,
           sum(refunded)::bigint AS refunded, sum(voided)::bigint AS voided,
           sum(declined)::bigint AS declined, sum(expired)::bigint AS expired,
           sum(amount_captured)::bigint AS amount_captured,
           sum(amount_refunded)::bigint AS amount_refunded
    FROM customer_totals GROUP BY customer_id, currency
"""
ASKED: LiteralString = """
    SELECT operation, sum(count)::bigint AS asked FROM operation_hours
    WHERE outcome = 'requested' GROUP BY operation
"""

HOLD_SHARD_FIVE: LiteralString = """
    SELECT FROM projection_positions WHERE name = 'balances' AND shard = 5 FOR UPDATE
"""

each_that_follows = pytest.mark.parametrize("name", FOLLOWING_NAMES)


class Shaky:
    """A read model that does `what` with the payments in `ids`, and is `model` otherwise."""

    def __init__(
        self, model: ReadModel, ids: Collection[UUID], what: Callable[[], Sequence[Write]]
    ) -> None:
        self.name, self.version = model.name, model.version
        self.aggregate, self.migration = model.aggregate, model.migration
        self.TABLES, self.CREATE, self.INDEXES = model.TABLES, model.CREATE, model.INDEXES
        self._model, self._ids, self._what = model, ids, what
        self.asked = 0

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        self.asked += 1
        writes = self._model.writes(changes)
        if any(change.history[0].originator_id in self._ids for change in changes):
            return [*writes, *self._what()]
        return writes


def wait_in_line() -> Sequence[Write]:
    """In the middle of the transaction, until whoever stands there first is gone."""
    return [Write(LINE, {})]


def failing(error: Exception) -> Callable[[], Sequence[Write]]:
    def fail() -> Sequence[Write]:
        raise error

    return fail


def a_refunded_payment(**overrides: Any) -> Payment:
    return Story(a_payment(**overrides)).authorized().captured().refunded(1000).payment


def taken_in_once(connection: Connection[DictRow], name: str) -> bool:
    """The live rows are those of a replay from the first event, and there are some."""
    live = rows(connection, read_model(name))
    return live == replayed_rows(connection, name) and all(live.values())


# --- the fold of the whole log ---


def test_rows_are_the_fold_of_the_log_for_any_lives_and_any_batches(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    won = Story().authorized().captured().disputed().disputed(DisputeStatus.WON).payment
    paid = [a_refunded_payment(), won]
    append(pool, *paid)
    for model in INLINE_OF_PAYMENTS:
        rebuilt(database_url, model.name)
    followers = [follower_of(connection, name) for name in FOLLOWING_NAMES]
    followers += [follower_of(connection, model.name, Slot.BESIDE) for model in INLINE_OF_PAYMENTS]

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        payments=st.lists(lives(), min_size=1, max_size=3, unique_by=lambda each: each.id),
        batch=st.sampled_from([1, 2, 3, 5, 64, 2_000]),
    )
    def live(payments: list[Payment], batch: int) -> None:
        new = [payment for payment in payments if payment.id not in {each.id for each in paid}]
        if new:
            append_interleaved(pool, new)
        paid.extend(new)
        for follower in followers:
            follow(connection, follower, batch)

    live()

    assert_rows_are_of(connection, paid)
    for name in NAMES:
        assert taken_in_once(connection, name), name
    for model in INLINE_OF_PAYMENTS:
        assert list(differences(database_url, model.name)) == []


def assert_rows_are_of(connection: Connection[DictRow], payments: Sequence[Payment]) -> None:
    """Each read model says what the payments themselves say."""
    sums = connection.execute(BALANCES).fetchall()
    assert sorted(map(repr, sums)) == sorted(map(repr, connection.execute(ENTRIES).fetchall()))
    assert connection.execute(UNEVEN).fetchall() == [{"entries": 0}]
    sides = ("held", "captured", "refunded", "disputed", "cardholder")
    assert sum(row[side] for row in sums for side in sides) == 0
    names = ("merchant_id", "mode", "customer_id", "currency")
    amounts = ("held", "captured", "refunded", "cardholder")
    found = {tuple(row[k] for k in names): {k: row[k] for k in amounts} for row in sums}
    assert found == balances_of(payments)

    totals = {
        (row.pop("customer_id"), row.pop("currency")): {k: v for k, v in row.items() if v}
        for row in connection.execute(TOTALS).fetchall()
    }
    assert totals == totals_of(payments)
    asked = {row["operation"]: row["asked"] for row in connection.execute(ASKED).fetchall()}
    assert asked == asks_of(payments)
    for model in INLINE_OF_PAYMENTS:
        expected = [row for p in payments for row in model.rows(shard_of(p.id), p.history)]
        for schema in ("public", "beside"):
            (table,) = rows(connection, model, schema).values()
            documents = sorted(as_json(row["document"]) for row in table)
            assert documents == sorted(as_json(row["document"].obj) for row in expected)


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


def test_a_step_of_one_event_goes_to_the_shard_that_is_furthest_behind(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    """So that under a load that it cannot keep up with, no shard is never read."""
    append(pool, a_payment(payment_id=an_id(shard=1)))
    append(pool, a_refunded_payment(payment_id=an_id(shard=9)))
    follower = follower_of(connection, "balances")

    assert follower.step(connection, batch=1) == 1

    assert positions(connection) == {9: 1}


def positions(connection: Connection[DictRow]) -> dict[int, int]:
    found = connection.execute(
        "SELECT shard, position FROM projection_positions WHERE name = 'balances' AND position > 0"
    ).fetchall()
    return {row["shard"]: row["position"] for row in found}


# --- exactly once ---


@each_that_follows
def test_one_who_is_killed_before_the_commit_has_written_nothing(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    payment = a_refunded_payment()
    append(pool, payment)
    doomed = Shaky(read_model(name), {payment.id}, lambda: [KILL_ME])

    with connect(database_url) as killed, pytest.raises(psycopg.OperationalError):
        follower_of(connection, name, model=doomed).step(killed)

    assert not any(rows(connection, read_model(name)).values())
    follow(connection, follower_of(connection, name))
    assert taken_in_once(connection, name)


@each_that_follows
def test_one_whose_commit_was_not_acknowledged_does_not_do_it_again(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    append(pool, a_refunded_payment())
    follower = follower_of(connection, name)

    with (
        PostgresProxy(database_url) as proxy,
        psycopg.connect(proxy.url, autocommit=True, row_factory=connection.row_factory) as shaky,
    ):
        proxy.will_lose(Loss.ACKNOWLEDGEMENT)
        with pytest.raises(psycopg.OperationalError):
            follower.step(shaky)

    poll_until(lambda: any(rows(connection, read_model(name)).values()))
    assert follow(connection, follower) == 0
    assert taken_in_once(connection, name)


@each_that_follows
def test_of_two_followers_at_once_the_slower_one_is_overtaken(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    payment = a_refunded_payment()
    append(pool, payment)
    slow = follower_of(connection, name, model=Shaky(read_model(name), {payment.id}, wait_in_line))
    other = follower_of(connection, name)
    with ThreadPoolExecutor(2) as threads, connect(database_url) as a, connect(database_url) as b:
        with connection.transaction():
            connection.execute(LINE)
            first = threads.submit(slow.step, a)
            poll_until(lambda: backends_that_wait(connection) == 1)
            second = threads.submit(other.step, b)
            poll_until(lambda: backends_that_wait(connection) == 2)
        assert first.result() == payment.version
        with pytest.raises(Overtaken):
            second.result()

    assert taken_in_once(connection, name)


def test_many_followers_of_one_generation_double_nothing(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    payments = [a_refunded_payment() for _ in range(40)]

    def run(_: int) -> None:
        with connect(database_url) as own:
            follow(own, follower_of(own, "customers"), batch=7)

    with ThreadPoolExecutor(4) as threads:
        running = threads.map(run, range(3))
        append(pool, *payments)
        list(running)
    follow(connection, follower_of(connection, "customers"))

    assert taken_in_once(connection, "customers")


def test_two_followers_of_one_generation_never_wait_for_each_other(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    """Though not the same shard is furthest behind when each of them looks."""
    append(pool, *(a_payment(payment_id=an_id(shard=shard)) for shard in (*range(20), 19)))
    follower = follower_of(connection, "balances")
    with (
        ThreadPoolExecutor(2) as threads,
        connect(database_url) as a,
        connect(database_url) as b,
        connect(database_url) as holder,
    ):
        with holder.transaction():
            holder.execute(HOLD_SHARD_FIVE)
            first = threads.submit(follower.step, a)
            poll_until(lambda: backends_that_wait(connection) == 1)
            append(pool, *(a_payment(payment_id=an_id(shard=10)) for _ in range(3)))
            second = threads.submit(follower.step, b)
            poll_until(lambda: backends_that_wait(connection) == 2)
        assert first.result() == 21
        with pytest.raises(Overtaken):
            second.result()


# --- what cannot be taken in ---


def quarantined(follower: Follower, connection: Connection[DictRow]) -> dict[UUID, dict[str, Any]]:
    return {row["originator_id"]: row for row in follower.quarantine(connection)}


def poisoned(
    connection: Connection[DictRow],
    name: str,
    *ids: UUID,
    what: Callable[[], Sequence[Write]] = failing(ValueError("poison")),  # noqa: B008
) -> Follower:
    return follower_of(connection, name, model=Shaky(read_model(name), ids, what))


@each_that_follows
def test_a_poison_among_hundreds_costs_its_own_payment_only(
    name: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    payments = [Story().authorized().payment for _ in range(150)]
    append(pool, *payments)
    bad = payments[71]
    model = Shaky(read_model(name), {bad.id}, failing(ValueError("poison")))
    follower = follower_of(connection, name, model=model)

    follow(connection, follower)

    assert list(quarantined(follower, connection)) == [bad.id]
    assert model.asked < 40  # it was looked for by halves
    good = [payment for payment in payments if payment is not bad]
    if name == "customers":
        sums = connection.execute(TOTALS).fetchall()
        assert [row["payments"] for row in sums] == [len(good)]
    elif name == "balances":
        sums = connection.execute(BALANCES).fetchall()
        assert {row["entries"] for row in sums} == {len(good)}


@each_that_follows
def test_later_events_of_what_is_set_aside_wait_and_come_in_once_with_it(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    story = Story()
    append(pool, story.payment)
    bad = poisoned(connection, name, story.payment.id)
    follow(connection, bad)
    append(pool, story.authorized().payment, since=2)
    append(pool, story.captured().payment, since=3)
    good = follower_of(connection, name)

    follow(connection, good, batch=1)
    (waiting,) = good.quarantine(connection)
    still = good.retry(connection)

    assert (waiting["applied_version"], waiting["attempts"]) == (0, 1)
    assert still == 0
    assert good.quarantine(connection) == []
    append(pool, story.refunded(500).payment, since=5)
    follow(connection, good)
    assert taken_in_once(connection, name)


@each_that_follows
def test_what_was_taken_in_before_the_poison_is_not_taken_in_again(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    story = Story().authorized()
    append(pool, story.payment)
    good = follower_of(connection, name)
    follow(connection, good)
    append(pool, story.captured().payment, since=3)
    follow(connection, poisoned(connection, name, story.payment.id))

    assert quarantined(good, connection)[story.payment.id]["applied_version"] == 2
    assert good.retry(connection, story.payment.id) == 0
    assert taken_in_once(connection, name)


def test_a_retry_that_fails_again_is_counted_and_keeps_the_last_error(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    payment = a_refunded_payment()
    append(pool, payment)
    follow(connection, poisoned(connection, "balances", payment.id))
    worse = poisoned(connection, "balances", payment.id, what=failing(KeyError("worse")))

    assert worse.retry(connection) == 1

    (row,) = worse.quarantine(connection)
    assert (row["attempts"], row["error"], row["applied_version"]) == (2, "KeyError: 'worse'", 0)
    assert not any(rows(connection, read_model("balances")).values())


@each_that_follows
def test_of_two_who_retry_at_once_one_takes_it_in(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    payment = a_refunded_payment()
    append(pool, payment)
    follow(connection, poisoned(connection, name, payment.id))
    is_writing, may_go_on = Event(), Event()

    def wait() -> Sequence[Write]:
        is_writing.set()
        assert may_go_on.wait(PATIENCE_SECONDS)
        return []

    slow = poisoned(connection, name, payment.id, what=wait)
    other = follower_of(connection, name)
    with ThreadPoolExecutor(2) as threads, connect(database_url) as a, connect(database_url) as b:
        first = threads.submit(slow.retry, a)
        assert is_writing.wait(PATIENCE_SECONDS)
        second = threads.submit(other.retry, b)
        poll_until(lambda: backends_that_wait(connection) == 1)
        may_go_on.set()
        assert (first.result(), second.result()) == (0, 0)

    assert other.quarantine(connection) == []
    assert taken_in_once(connection, name)


@each_that_follows
def test_a_retry_beside_a_step_takes_every_event_in_once(
    name: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    """The step brings a later event of the payment that is retried: whoever comes second sees what
    the first one did."""
    story = Story().authorized()
    append(pool, story.payment)
    follow(connection, poisoned(connection, name, story.payment.id))
    append(pool, story.captured().payment, since=3)
    is_writing, may_go_on = Event(), Event()

    def wait() -> Sequence[Write]:
        is_writing.set()
        assert may_go_on.wait(PATIENCE_SECONDS)
        return []

    slow = poisoned(connection, name, story.payment.id, what=wait)
    good = follower_of(connection, name)
    with ThreadPoolExecutor(2) as threads, connect(database_url) as a, connect(database_url) as b:
        retried = threads.submit(slow.retry, a)
        assert is_writing.wait(PATIENCE_SECONDS)
        stepped = threads.submit(good.step, b)
        poll_until(lambda: backends_that_wait(connection) == 1)
        may_go_on.set()
        assert (retried.result(), stepped.result()) == (0, 2)

    assert taken_in_once(connection, name)


@pytest.mark.parametrize(
    ("topic", "state", "error"),
    [
        ("payment.invented", b"{}", "TopicError"),
        ("payment.captured", b'{"class_version": 9}', "UnknownEventVersion"),
        ("payment.captured", b"\xff", "UnicodeDecodeError"),
        ("payment.captured", b"[]", "TypeError"),
    ],
)
def test_events_that_cannot_be_read_are_set_aside_with_their_payment(
    topic: str, state: bytes, error: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    bad, good = Story().authorized().payment, a_refunded_payment()
    append(pool, bad, good)
    append_unreadable(connection, bad, topic, state)
    follower = follower_of(connection, "balances")

    follow(connection, follower, batch=1)

    (row,) = follower.quarantine(connection)
    assert (row["originator_id"], row["applied_version"]) == (bad.id, 2)
    assert row["error"].startswith(f"{error}: ")
    amounts = connection.execute(BALANCES).fetchall()
    assert {row["refunded"] for row in amounts} == {-1000}
    assert follower.retry(connection) == 1


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "with\x00nothing", "half a pair: \ud800", "Grüße " * 200]
)
def test_whatever_the_error_says_it_is_kept_within_its_bound(
    text: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    payment = Story().authorized().payment
    append(pool, payment)
    follower = poisoned(connection, "balances", payment.id, what=failing(ValueError(text)))

    follow(connection, follower)

    (row,) = follower.quarantine(connection)
    assert row["error"].startswith(f"ValueError: {text[:4]}")
    assert len(row["error"]) <= LONGEST_ERROR


@pytest.mark.parametrize("state", ["54000", "54001", "22003", "23505", "42P01"])
def test_what_the_database_refuses_each_time_is_a_poison(
    state: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    bad, good = Story().authorized().payment, Story().authorized().payment
    append(pool, bad, good)
    refused = Write(
        "SELECT pg_temp.refuse(%(state)s)",
        {"state": state},
    )
    connection.execute(REFUSE)
    follower = poisoned(connection, "balances", bad.id, what=lambda: [refused])

    follow(connection, follower)

    assert list(quarantined(follower, connection)) == [bad.id]
    assert {row["entries"] for row in connection.execute(BALANCES).fetchall()} == {1}


@pytest.mark.parametrize("state", ["40P01", "55P03", "57014", "57P01", "53300"])
def test_what_may_pass_is_no_poison(
    state: str, pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    payment = Story().authorized().payment
    append(pool, payment)
    connection.execute(REFUSE)
    refused = Write("SELECT pg_temp.refuse(%(state)s)", {"state": state})
    follower = poisoned(connection, "balances", payment.id, what=lambda: [refused])

    with pytest.raises(psycopg.OperationalError):
        follower.step(connection)

    assert follower.quarantine(connection) == []
    follow(connection, follower_of(connection, "balances"))
    assert taken_in_once(connection, "balances")


REFUSE: LiteralString = """
    CREATE OR REPLACE FUNCTION pg_temp.refuse(state text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'refused' USING ERRCODE = state;
    END
    $$
"""


@pytest.mark.parametrize(
    "parameters",
    [{"x": "with\x00nothing"}, {"x": "half a pair: \ud800"}, {"x": ["mixed", 1]}, {"x": object()}],
)
def test_what_cannot_even_be_sent_takes_back_what_was_sent_before_it(
    parameters: dict[str, Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    bad, good = Story().authorized().payment, Story().authorized().payment
    append(pool, bad, good)
    unsendable = Write("SELECT %(x)s", parameters)
    follower = poisoned(connection, "balances", bad.id, what=lambda: [unsendable])

    follow(connection, follower)

    assert list(quarantined(follower, connection)) == [bad.id]
    assert {row["entries"] for row in connection.execute(BALANCES).fetchall()} == {1}
    assert follower_of(connection, "balances").retry(connection) == 0
    assert taken_in_once(connection, "balances")


def test_what_is_set_aside_costs_no_other_payment_however_often_the_connection_was_used(
    pool: Pool, connection: Connection[DictRow], database_url: str
) -> None:
    """The driver prepares what it was asked for a few times, and would take it for prepared even where
    the server did not come to that."""
    bad = Story().authorized()
    append(pool, bad.payment)
    follow(connection, poisoned(connection, "balances", bad.payment.id))
    follower = follower_of(connection, "balances")
    with connect(database_url) as own:
        for used in range(12):
            append(pool, Story().authorized().payment)
            if used == PREPARED_AFTER:
                append(pool, bad.captured().payment, since=3)
            follow(own, follower)

    assert list(quarantined(follower, connection)) == [bad.payment.id]
    assert {row["entries"] for row in connection.execute(BALANCES).fetchall()} == {12}


def test_a_full_quarantine_does_not_slow_a_step_down(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    """Only what is set aside of the step's own payments is looked up, by its key."""
    connection.execute(MANY_SET_ASIDE)
    connection.execute("ANALYZE projection_quarantine")
    append(pool, Story().authorized().payment)
    before = read_rows(connection)

    follow(connection, follower_of(connection, "balances"))

    assert read_rows(connection) - before < 100


MANY_SET_ASIDE: LiteralString = """
    INSERT INTO projection_quarantine
        (name, generation, shard, originator_id, applied_version, error, attempts)
    SELECT 'balances', 1, n % 64, gen_random_uuid(), 0, 'x', 1 FROM generate_series(1, 20000) n
"""


def read_rows(connection: Connection[DictRow]) -> int:
    """How many rows of the quarantine were read by anyone so far."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS n"
        " FROM pg_stat_user_tables WHERE relname = 'projection_quarantine'"
    ).fetchone()
    assert row is not None
    count: int = row["n"]
    return count

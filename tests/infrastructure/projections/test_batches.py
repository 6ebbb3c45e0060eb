"""What is read once for all followers says what each would have read for itself, wherever it is cut."""

from collections.abc import Sequence
from itertools import cycle
from typing import Final
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection
from psycopg.rows import DictRow

from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.projections.batches import (
    MOST_BATCHES,
    MOST_KEPT,
    MOST_OF_A_SHARD,
    Batch,
    Positions,
    RecentBatches,
    as_one,
    heads_of_the_log,
    read_beyond,
)
from infrastructure.projections.follower import Overtaken
from infrastructure.shards import SHARDS
from projections.changes import Change
from projections.registry import followed
from tests.builders import Story, a_payment, an_id, lives
from tests.infrastructure.projections.a_log import (
    FOLLOWING_NAMES,
    append,
    append_in_rounds,
    append_unreadable,
    follower_of,
    replayed_rows,
    rows,
)

NOWHERE: Final[Positions] = (0,) * SHARDS


def a_captured_payment(shard: int) -> Payment:
    return Story(a_payment(payment_id=an_id(shard=shard))).authorized().captured().payment


def of(positions: dict[int, int]) -> Positions:
    return tuple(positions.get(shard, 0) for shard in range(SHARDS))


def a_batch(after: int, upto: int, *changes: Change) -> Batch:
    return Batch(after=of({3: after}), upto=of({3: upto}), read={"payment": changes})


# --- taking them in ---


def test_rows_are_the_fold_of_the_log_however_it_is_cut_into_batches(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    followers = [follower_of(connection, name) for name in FOLLOWING_NAMES]
    known: set[UUID] = set()

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        payments=st.lists(lives(), min_size=1, max_size=3, unique_by=lambda each: each.id),
        many=st.lists(st.integers(1, 4), min_size=1),
    )
    def live(payments: list[Payment], many: list[int]) -> None:
        new = [payment for payment in payments if payment.id not in known]
        known.update(payment.id for payment in new)
        batches = read_in_rounds(connection, pool, new) if new else []
        sizes = cycle(many)
        while batches:
            size = next(sizes)
            for follower in followers:
                follower.take(connection, as_one(batches[:size]))
            del batches[:size]

    live()

    for name in FOLLOWING_NAMES:
        assert rows(connection, followed(name)) == replayed_rows(connection, name), name
    assert all(follower.step(connection) == 0 for follower in followers)


def read_in_rounds(
    connection: Connection[DictRow], pool: Pool, payments: Sequence[Payment]
) -> list[Batch]:
    """A batch for each round in which the payments go on by one event each."""
    found, stands_at = [], heads_of_the_log(connection)
    for _ in append_in_rounds(pool, payments):
        batch = read_beyond(connection, stands_at)
        assert batch is not None
        found.append(batch)
        stands_at = batch.upto
    return found


def test_one_who_stands_elsewhere_takes_in_nothing(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    batches = read_in_rounds(connection, pool, [a_captured_payment(shard=3)])
    follower = follower_of(connection, "balances")

    with pytest.raises(Overtaken):
        follower.take(connection, batches[1])

    assert not any(rows(connection, followed("balances")).values())
    assert follower.take(connection, as_one(batches)) == 4


def test_what_cannot_be_read_costs_its_own_payment_and_what_is_set_aside_waits(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    good, bad = a_captured_payment(shard=3), a_captured_payment(shard=4)
    follower = follower_of(connection, "balances")
    before = heads_of_the_log(connection)
    append(pool, good, bad)
    append_unreadable(connection, bad, "payment.from_the_future")
    first = read_beyond(connection, before)
    assert first is not None
    follower.take(connection, first)
    more = a_captured_payment(shard=4)
    append(pool, more)
    append_unreadable(connection, bad, "payment.from_the_future", after=1)
    second = read_beyond(connection, first.upto)
    assert second is not None

    follower.take(connection, second)

    (aside,) = follower.quarantine(connection)
    assert (aside["originator_id"], aside["applied_version"]) == (bad.id, 0)
    entries = rows(connection, followed("balances"))["entries"]
    assert {row["payment_id"] for row in entries} == {str(good.id), str(more.id)}


def test_no_more_of_a_shard_is_read_at_once_than_fits(
    pool: Pool, connection: Connection[DictRow]
) -> None:
    payments = [a_captured_payment(shard=3) for _ in range(MOST_OF_A_SHARD // 4 + 1)]
    append(pool, *payments)

    first = read_beyond(connection, NOWHERE)
    assert first is not None
    second = read_beyond(connection, first.upto)

    assert (first.upto, first.events) == (of({3: MOST_OF_A_SHARD}), MOST_OF_A_SHARD)
    assert second is not None
    assert first.events + second.events == sum(payment.version for payment in payments)
    assert read_beyond(connection, second.upto) is None


# --- keeping them ---


def test_those_that_follow_on_a_position_are_found_as_far_as_is_wanted() -> None:
    recent = RecentBatches()
    recent.begin(of({3: 1}))
    for batch in (a_batch(1, 3), a_batch(3, 4), a_batch(4, 9)):
        recent.add(batch)

    assert recent.heads == of({3: 9})
    assert [each.events for each in recent.since(of({3: 3}), most=100)] == [1, 5]
    assert [each.events for each in recent.since(of({3: 1}), most=3)] == [2, 1]
    assert recent.since(of({3: 1}), most=1) == []
    assert recent.since(of({3: 2}), most=100) == []
    assert recent.since(of({3: 9}), most=100) == []


def test_what_is_kept_is_bounded_by_the_whole_histories_and_a_new_beginning_forgets_it() -> None:
    """An event more of what has had thousands is all of them again."""
    recent = RecentBatches()
    recent.begin(NOWHERE)
    history = a_captured_payment(shard=3).history * (MOST_KEPT // 8)
    for after in range(3):
        change = Change(shard=3, history=history, new=1)
        recent.add(a_batch(after, after + 1, change))

    assert recent.since(NOWHERE, most=MOST_KEPT) == []
    assert len(recent.since(of({3: 1}), most=MOST_KEPT)) == 2
    large = a_batch(3, 4, Change(shard=3, history=history * 3, new=1))
    recent.add(large)
    assert recent.since(of({3: 2}), most=MOST_KEPT) == []
    assert recent.since(of({3: 3}), most=MOST_KEPT) == [large]
    recent.begin(of({3: 4}))
    assert recent.since(of({3: 3}), most=MOST_KEPT) == []


def test_no_more_batches_are_kept_than_can_be_looked_through_at_each_look() -> None:
    """However small they are: for hours there may be one event at a time."""
    recent = RecentBatches()
    recent.begin(NOWHERE)
    for after in range(MOST_BATCHES + 1):
        recent.add(a_batch(after, after + 1))

    assert recent.since(NOWHERE, most=MOST_KEPT) == []
    assert len(recent.since(of({3: 1}), most=MOST_KEPT)) == MOST_BATCHES

"""What a read model says of the past is what a replay says that stops there, whatever the clocks said."""

import random
import secrets
from collections.abc import Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.commands import Tenant
from domain.payment import Payment, rfc3339
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from infrastructure.shards import shard_of
from projections import receipts
from projections.balances import EVERYONE, Balances
from projections.changes import Change
from tests.builders import NOON, Story, a_payment, lives
from tests.infrastructure.projections.a_log import balances_of

MICROSECOND = timedelta(microseconds=1)
AMOUNTS = ("held", "captured", "refunded", "cardholder")
BALANCES = Balances()
mapper = FlatMapper(FlatJSON())


def under_bad_clocks(payment: Payment, tenant: Tenant, seed: int) -> list[Payment.Event]:
    """The same life, of that merchant, told by hosts whose clocks disagree by a few seconds."""
    choose = random.Random(seed)
    events = [copy(event) for event in payment.history]
    for event in events:
        shift = timedelta(seconds=choose.choice([0, 0, -3, 2, 5]), microseconds=choose.randrange(3))
        object.__setattr__(event, "timestamp", event.timestamp + shift)
    object.__setattr__(events[0], "merchant_id", tenant.merchant_id)
    object.__setattr__(events[0], "customer_id", choose.choice(["cus_1", "cus_2", None]))
    return events


def cut(history: Sequence[Payment.Event], at: datetime) -> list[Payment.Event]:
    """Up to the first event that is later; what comes after that one came after it."""
    upto = next((n for n, event in enumerate(history) if event.timestamp > at), len(history))
    return list(history[:upto])


def replayed(history: Sequence[Payment.Event]) -> Payment:
    payment: Any = None
    for event in history:
        payment = event.mutate(payment)
    assert isinstance(payment, Payment)
    return payment


def follow(pool: Pool, histories: Sequence[list[Payment.Event]]) -> None:
    changes = [
        Change(shard=shard_of(each[0].originator_id), history=each, new=len(each))
        for each in histories
    ]
    with pool.connection() as connection, connection.transaction():
        for write in BALANCES.writes(changes):
            connection.execute(write.sql, write.parameters)


def balance(
    pool: Pool, tenant: Tenant, customer_id: str | None, as_of: datetime | None
) -> dict[str, dict[str, int]]:
    with pool.connection() as connection:
        found = BALANCES.of(connection, tenant, customer_id=customer_id, as_of=as_of)
    return {row["currency"]: {name: row[name] for name in AMOUNTS} for row in found}


def moments(histories: Sequence[list[Payment.Event]]) -> list[datetime]:
    """Each event's own, and the smallest moment before and after it."""
    own = {event.timestamp for history in histories for event in history}
    return sorted(own | {at - MICROSECOND for at in own} | {at + MICROSECOND for at in own})


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    payments=st.lists(lives(), min_size=1, max_size=3, unique_by=lambda each: each.id),
    seed=st.integers(0, 1_000),
)
def test_a_balance_of_any_moment_is_that_of_a_replay_cut_there(
    pool: Pool, payments: list[Payment], seed: int
) -> None:
    tenant = Tenant(f"mer_{secrets.token_hex(8)}", payments[0].tenant.mode)
    histories = [under_bad_clocks(each, tenant, seed + n) for n, each in enumerate(payments)]
    follow(pool, fresh(histories))

    for at in [*moments(histories), None]:
        cuts = [cut(each, at) if at is not None else each for each in histories]
        expected = balances_of([replayed(each) for each in cuts if each])
        for customer_id in (None, "cus_1", "cus_2"):
            key = (tenant.merchant_id, tenant.mode.value, customer_id or EVERYONE, "USD")
            wanted = {"USD": expected[key]} if key in expected else {}
            assert balance(pool, tenant, customer_id, at) == wanted, at


def fresh(histories: Sequence[list[Payment.Event]]) -> Sequence[list[Payment.Event]]:
    """Under ids of their own, since the examples share a database, and `random` starts anew in each."""
    for history in histories:
        last = history[0].originator_id.bytes[-1:]
        own = secrets.token_bytes(15) + last
        for event in history:
            object.__setattr__(event, "originator_id", type(event.originator_id)(bytes=own))
    return histories


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(payment=lives(), seed=st.integers(0, 1_000))
def test_a_receipt_of_any_version_is_what_was_written_when_that_was_the_last(
    pool: Pool, tenant: Tenant, payment: Payment, seed: int
) -> None:
    """Against the rows themselves, as each event left them."""
    (history,) = fresh([under_bad_clocks(payment, tenant, seed)])
    recorder = ShardedRecorder(pool)
    for version in range(1, len(history) + 1):
        recorder.insert_events(
            [mapper.to_stored_event(history[version - 1])], history=history[:version]
        )
        with pool.connection() as connection:
            row = connection.execute(
                "SELECT document FROM receipts WHERE payment_id = %s", [history[0].originator_id]
            ).fetchone()
        assert row is not None
        assert row["document"] == receipts.fold(history[:version])
        assert row["document"]["updated_at"] == rfc3339(history[version - 1].timestamp)


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2, 3])
def test_entries_of_an_event_that_looks_older_than_the_one_before_wait_for_that_one(
    pool: Pool, tenant: Tenant, seconds: int
) -> None:
    """A hold whose answer was recorded by a host that was behind: there is none before the ask."""
    history = [
        copy(event) for event in Story(a_payment(tenant=tenant)).authorized().payment.history
    ]
    object.__setattr__(history[0], "timestamp", NOON + timedelta(seconds=2))
    object.__setattr__(history[1], "timestamp", NOON)
    follow(pool, fresh([history]))

    found = balance(pool, tenant, None, NOON + timedelta(seconds=seconds))

    assert bool(found) == (seconds >= 2)

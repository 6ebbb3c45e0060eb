"""The rows written with the events are the rows that the log has, however a payment lived."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

import pytest
from hypothesis import HealthCheck, given, settings
from psycopg.types.json import Jsonb

from domain.bank import Contradicted
from domain.commands import Tenant
from domain.ids import Prefix, encode
from domain.payment import Payment, rfc3339
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from infrastructure.shards import shard_of
from projections.changes import Change
from projections.receipts import Receipts
from projections.refunds import Refunds
from projections.registry import INLINE, InlineProjection
from tests.builders import NOON, Story, a_payment, an_approval, an_id, lives

SELECTS: dict[str, LiteralString] = {
    "receipts": "SELECT * FROM receipts WHERE payment_id = %(id)s",
    "refunds": "SELECT * FROM refunds WHERE payment_id = %(id)s ORDER BY document ->> 'created_at'",
    "disputes": """
        SELECT * FROM disputes WHERE document ->> 'payment_id' = 'pay_' || %(suffix)s
        ORDER BY created_at
    """,
}
mapper = FlatMapper(FlatJSON())


def append_one_by_one(pool: Pool, payment: Payment) -> None:
    """Each event in a transaction of its own, as the last of the history so far."""
    recorder = ShardedRecorder(pool)
    for number, event in enumerate(payment.history, start=1):
        recorder.insert_events([mapper.to_stored_event(event)], history=payment.history[:number])


def from_the_log(pool: Pool, payment: Payment) -> list[Payment.Event]:
    return [mapper.to_domain_event(e) for e in ShardedRecorder(pool).select_events(payment.id)]


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row, read or about to be written, with times as text and documents as themselves."""

    def of(value: Any) -> Any:
        match value:
            case datetime():
                return rfc3339(value)
            case Jsonb():
                return value.obj
            case _:
                return value

    return {name: of(value) for name, value in row.items()}


def rows_in(pool: Pool, projection: InlineProjection, payment: Payment) -> list[dict[str, Any]]:
    suffix = encode(Prefix.PAYMENT, payment.id).removeprefix(Prefix.PAYMENT)
    named = {"id": payment.id, "suffix": suffix}
    with pool.connection() as connection:
        found = connection.execute(SELECTS[projection.name], named).fetchall()
    return [plain(row) for row in found]


def rows_of(
    projection: InlineProjection, payment: Payment, history: Sequence[Payment.Event]
) -> list[dict[str, Any]]:
    return [plain(row) for row in projection.rows(shard_of(payment.id), history)]


def write_at_once(
    pool: Pool, projection: InlineProjection, payments: Sequence[Payment], upto: int | None = None
) -> None:
    """As a follower does, for many payments in one statement."""
    changes = [
        Change(shard=shard_of(payment.id), history=payment.history[:upto], new=1)
        for payment in payments
    ]
    with pool.connection() as connection:
        for write in projection.writes(changes):
            connection.execute(write.sql, write.parameters)


def a_refunded_payment() -> Payment:
    return Story().authorized().captured().refunded(1000).payment


each_projection = pytest.mark.parametrize(
    "projection",
    [each for each in INLINE if each.aggregate == "payment"],
    ids=lambda each: each.name,
)


@each_projection
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(payment=lives())
def test_rows_written_event_by_event_are_the_rows_of_the_whole_log(
    pool: Pool, projection: InlineProjection, payment: Payment
) -> None:
    append_one_by_one(pool, payment)

    rows = rows_in(pool, projection, payment)

    expected = rows_of(projection, payment, from_the_log(pool, payment))
    assert rows == expected


@each_projection
def test_rows_written_at_once_are_the_same(pool: Pool, projection: InlineProjection) -> None:
    payment = a_refunded_payment()
    stored = [mapper.to_stored_event(event) for event in payment.history]

    ShardedRecorder(pool).insert_events(stored, history=payment.history)

    assert rows_in(pool, projection, payment) == rows_of(projection, payment, payment.history)


@each_projection
def test_rows_of_many_payments_written_at_once_are_the_same(
    pool: Pool, projection: InlineProjection
) -> None:
    payments = [a_refunded_payment(), Story().authorized().captured().refunded(1).payment]

    write_at_once(pool, projection, payments)

    for payment in payments:
        assert rows_in(pool, projection, payment) == rows_of(projection, payment, payment.history)


@each_projection
def test_what_is_written_late_changes_no_newer_row(
    pool: Pool, projection: InlineProjection
) -> None:
    payment = a_refunded_payment()
    append_one_by_one(pool, payment)
    before = rows_in(pool, projection, payment)

    write_at_once(pool, projection, [payment], upto=-1)

    assert rows_in(pool, projection, payment) == before


def test_a_receipt_is_found_by_its_owner_only(pool: Pool, tenant: Tenant) -> None:
    payment = a_payment(tenant=tenant)
    append_one_by_one(pool, payment)
    other = Tenant("mer_other", tenant.mode)

    with pool.connection() as connection:
        found = Receipts().by_id(connection, shard_of(payment.id), payment.id, tenant)
        hidden = Receipts().by_id(connection, shard_of(payment.id), payment.id, other)
        missing = Receipts().by_id(connection, 0, an_id(), tenant)

    assert found is not None
    assert found["status"] == "pending"
    assert (hidden, missing) == (None, None)


def test_a_refund_is_found_by_its_owner_only(pool: Pool, tenant: Tenant) -> None:
    story = Story(a_payment(tenant=tenant)).authorized().captured()
    refund_id = an_id()
    story.asked_to_refund(10, refund_id=encode(Prefix.REFUND, refund_id))
    append_one_by_one(pool, story.payment)
    other = Tenant("mer_other", tenant.mode)

    with pool.connection() as connection:
        found = Refunds().by_id(connection, refund_id, tenant)
        hidden = Refunds().by_id(connection, refund_id, other)

    assert found is not None
    assert found["amount"] == 10
    assert hidden is None


def test_a_hold_that_ran_out_is_found_also_where_another_may_be_there(pool: Pool) -> None:
    ends = NOON + timedelta(days=7)
    held = an_approval("auth_1", expires_at=ends)
    of_payments = {
        "certain": Story(a_payment()).answered(held),
        "perhaps another": Story(a_payment()).answered(held, unanswered=True),
        "the bank disagrees": Story(a_payment())
        .answered(held)
        .asked_to_void()
        .answered(Contradicted(reason="HTTP 400 authorization_not_found")),
        "voided": Story(a_payment()).answered(held).voided(),
        "running": Story(a_payment()).answered(held).asked_to_capture(),
    }
    for story in of_payments.values():
        append_one_by_one(pool, story.payment)

    with pool.connection() as connection:
        found = Receipts().past_their_time(connection, ends + timedelta(seconds=1), 1000)
        not_yet = Receipts().past_their_time(connection, ends - timedelta(seconds=1), 1000)

    ours = {story.payment.id: name for name, story in of_payments.items()}
    assert {ours[each] for each, _ in found if each in ours} == {"certain", "perhaps another"}
    assert not [each for each, _ in not_yet if each in ours]

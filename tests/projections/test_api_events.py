"""Published events: which of the log's are told, as what, and under which ids."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings

from domain.ids import Prefix, encode
from domain.payment import CaptureMethod, Payment
from infrastructure.shards import shard_of
from projections.api_events import CANCELED, TYPES, ApiEvents, id_of, published
from projections.changes import Change, Origin
from tests.builders import Story, a_payment, an_id, lives

CAUSE = '{"actor":"key_1","idempotency_key":"mine","request_id":"req_1"}'


def change_of(history: list[Any], new: int) -> Change:
    origins = [Origin(an_id(number), CAUSE) for number in range(len(history))]
    shard = shard_of(history[0].originator_id)
    return Change(shard=shard, history=history, new=new, origins=origins)


def rows_of(change: Change) -> list[dict[str, Any]]:
    """As columns hold them: a row for each published event."""
    found = []
    for write in ApiEvents().writes([change]):
        names = [name for name in write.parameters if name != "last_payment"]
        values = zip(*(write.parameters[name] for name in names), strict=True)
        found += [dict(zip(names, each, strict=True)) for each in values]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(payment=lives())
def test_rows_event_by_event_are_the_rows_of_the_whole_log(payment: Payment) -> None:
    history = payment.history
    whole = rows_of(change_of(history, new=len(history)))

    one_by_one = [
        row
        for number in range(1, len(history) + 1)
        for row in rows_of(change_of(history[:number], new=1))
    ]

    assert one_by_one == whole
    assert {row["type"] for row in whole} <= TYPES


def test_a_row_says_what_it_is_of_and_why() -> None:
    payment = Story(a_payment()).authorized().payment

    (row,) = rows_of(change_of(payment.history, new=2))

    assert row == {
        "shard": shard_of(payment.id),
        "id": id_of(an_id(1), "payment.authorized"),
        "merchant_id": payment.tenant.merchant_id,
        "mode": payment.tenant.mode.value,
        "type": "payment.authorized",
        "aggregate_id": payment.id,
        "version": 2,
        "created_at": payment.history[1].timestamp,
        "request_id": "req_1",
        "idempotency_key": "mine",
    }


def test_ids_sort_as_the_logs_do_and_differ_by_type() -> None:
    earlier = UUID("01939f2a-0000-7000-8000-0000000000ff")
    later = UUID("01939f2a-0001-7000-8000-000000000000")

    ids = [id_of(earlier, kind) for kind in sorted(TYPES)]

    assert len(set(ids)) == len(TYPES)
    assert all(each < id_of(later, "payment.failed") for each in ids)
    assert all((each.version, each.variant) == (7, earlier.variant) for each in ids)
    assert encode(Prefix.EVENT, ids[0]).startswith("evt_01")
    assert ids == [id_of(earlier, kind) for kind in sorted(TYPES)]


@pytest.mark.parametrize("is_attempt", [True, False])
@pytest.mark.parametrize("method", list(CaptureMethod))
def test_only_attempts_are_told_of_as_intents(is_attempt: bool, method: CaptureMethod) -> None:
    history = Story(a_payment()).authorized().captured().refunded(1000).payment.history
    first: Any = object.__new__(type(history[0]))
    changes = {"intent_id": "pi_1" if is_attempt else None, "capture_method": method.value}
    first.__dict__.update(vars(history[0]) | changes)

    kinds = [kind for event in [first, *history[1:]] for kind in published(first, event)]

    assert len(kinds) == len(set(kinds))
    assert ("payment_intent.succeeded" in kinds) is is_attempt
    assert "payment.succeeded" in kinds
    assert kinds[-2:] == ["refund.succeeded", "charge.refunded"]
    assert ("payment.authorized" in kinds) is (method is CaptureMethod.MANUAL)
    assert ("charge.captured" in kinds) is (is_attempt and method is CaptureMethod.MANUAL)
    assert CANCELED not in kinds

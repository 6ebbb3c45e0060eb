"""Lists: newest first, by cursor, and steady while rows are added."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.commands import Mode, Tenant
from domain.ids import Prefix, decode, encode
from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from projections.pages import Page
from projections.receipts import Receipts
from projections.refunds import Refunds, uuid_of
from tests.builders import NOON, Story, a_payment, an_id

mapper = FlatMapper(FlatJSON())


def recorded(pool: Pool, payment: Payment) -> Payment:
    stored = [mapper.to_stored_event(event) for event in payment.history]
    ShardedRecorder(pool).insert_events(stored, history=payment.history)
    return payment


def some(pool: Pool, tenant: Tenant, count: int) -> list[UUID]:
    """So many payments of the merchant, oldest first."""
    return [recorded(pool, a_payment(tenant=tenant)).id for _ in range(count)]


def page(pool: Pool, tenant: Tenant, limit: int = 20, **asked: Any) -> tuple[list[UUID], bool]:
    with pool.connection() as connection:
        found, has_more = Receipts().page(connection, tenant, Page(limit=limit, **asked))
    return [decode(Prefix.PAYMENT, each["payment_id"]) for each in found], has_more


def walked(pool: Pool, tenant: Tenant, limit: int) -> list[UUID]:
    """All pages, one after another."""
    seen, has_more = page(pool, tenant, limit)
    while has_more:
        more, has_more = page(pool, tenant, limit, after=seen[-1])
        seen += more
    return seen


def newest_first(ids: Sequence[UUID]) -> list[UUID]:
    return list(reversed(ids))


def test_a_list_is_newest_first(pool: Pool, tenant: Tenant) -> None:
    ids = some(pool, tenant, 3)

    assert page(pool, tenant) == (newest_first(ids), False)


def test_a_merchant_without_payments_has_an_empty_list(pool: Pool, tenant: Tenant) -> None:
    assert page(pool, tenant) == ([], False)


@pytest.mark.parametrize(("limit", "has_more"), [(1, True), (4, True), (5, False), (100, False)])
def test_a_page_says_whether_there_are_more(
    pool: Pool, tenant: Tenant, limit: int, has_more: bool
) -> None:
    ids = some(pool, tenant, 5)

    assert page(pool, tenant, limit) == (newest_first(ids)[:limit], has_more)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_one_after_another_are_the_whole_list(pool: Pool, tenant: Tenant, limit: int) -> None:
    ids = some(pool, tenant, 7)

    assert walked(pool, tenant, limit) == newest_first(ids)


def test_a_page_before_a_row_is_what_is_next_to_it_newest_first(pool: Pool, tenant: Tenant) -> None:
    oldest, *rest = some(pool, tenant, 5)

    assert page(pool, tenant, 2, before=oldest) == (newest_first(rest[:2]), True)
    assert page(pool, tenant, 4, before=oldest) == (newest_first(rest), False)
    assert page(pool, tenant, 4, before=rest[-1]) == ([], False)


def test_a_page_between_two_rows_has_what_is_between(pool: Pool, tenant: Tenant) -> None:
    ids = some(pool, tenant, 5)

    between, _ = page(pool, tenant, after=ids[4], before=ids[0])

    assert between == newest_first(ids[1:4])


def test_rows_that_are_added_move_nothing_that_was_seen(pool: Pool, tenant: Tenant) -> None:
    ids = some(pool, tenant, 4)
    first, _ = page(pool, tenant, 2)
    some(pool, tenant, 3)

    second, has_more = page(pool, tenant, 2, after=first[-1])

    assert first + second == newest_first(ids)
    assert not has_more


def test_a_cursor_need_not_be_a_row(pool: Pool, tenant: Tenant) -> None:
    older = some(pool, tenant, 2)
    between = an_id()
    newer = some(pool, tenant, 2)

    assert page(pool, tenant, after=between) == (newest_first(older), False)
    assert page(pool, tenant, before=between) == (newest_first(newer), False)


def test_a_list_is_of_one_merchant_in_one_mode(pool: Pool, tenant: Tenant) -> None:
    ids = some(pool, tenant, 2)
    live = some(pool, Tenant(tenant.merchant_id, Mode.LIVE), 1)
    some(pool, Tenant(f"{tenant.merchant_id}x", tenant.mode), 1)

    assert page(pool, tenant) == (newest_first(ids), False)
    assert page(pool, Tenant(tenant.merchant_id, Mode.LIVE)) == (live, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("order_id", "ORD-2"), ("customer_id", "cus_2"), ("status", "authorized")],
)
def test_a_filter_keeps_what_it_names(pool: Pool, tenant: Tenant, name: str, value: str) -> None:
    some(pool, tenant, 2)
    wanted = a_payment(tenant=tenant, order_id="ORD-2", customer_id="cus_2")
    recorded(pool, Story(wanted).authorized().payment)
    some(pool, tenant, 1)

    assert page(pool, tenant, 1, filters={name: value}) == ([wanted.id], False)


def test_filters_are_all_to_be_met_and_paged_like_the_rest(pool: Pool, tenant: Tenant) -> None:
    wanted = [a_payment(tenant=tenant, order_id="ORD-3") for _ in range(3)]
    for payment in wanted:
        recorded(pool, payment)
        some(pool, tenant, 1)
    filters = {"order_id": "ORD-3", "status": "pending"}

    first, has_more = page(pool, tenant, 2, filters=filters)
    second, no_more = page(pool, tenant, 2, filters=filters, after=first[-1])

    assert first + second == newest_first([payment.id for payment in wanted])
    assert (has_more, no_more) == (True, False)
    assert page(pool, tenant, filters=filters | {"status": "declined"}) == ([], False)


def test_a_filter_is_a_value_and_never_sql(pool: Pool, tenant: Tenant) -> None:
    some(pool, tenant, 1)

    assert page(pool, tenant, filters={"order_id": "' OR true --"}) == ([], False)
    with pytest.raises(KeyError):
        page(pool, tenant, filters={"true OR order_id": "x"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("created_gt", [2]),
        ("created_gte", [2, 1]),
        ("created_lt", [0]),
        ("created_lte", [1, 0]),
    ],
)
def test_times_of_creation_are_compared_in_seconds(
    pool: Pool, tenant: Tenant, name: str, expected: list[int]
) -> None:
    payments = [
        recorded(pool, a_payment(tenant=tenant, at=NOON + timedelta(seconds=second)))
        for second in range(3)
    ]
    second = int(NOON.timestamp()) + 1

    found, _ = page(pool, tenant, filters={name: second})

    assert found == [payments[number].id for number in expected]


def test_refunds_are_listed_alike(pool: Pool, tenant: Tenant) -> None:
    refund_ids = [an_id() for _ in range(3)]
    story = Story(a_payment(tenant=tenant)).authorized().captured()
    for refund_id in refund_ids[:2]:
        story.asked_to_refund(10, refund_id=encode(Prefix.REFUND, refund_id)).declined()
    story.asked_to_refund(10, refund_id=encode(Prefix.CHARGE_REFUND, refund_ids[2]))
    recorded(pool, story.payment)

    def listed(**asked: Any) -> tuple[list[UUID], bool]:
        with pool.connection() as connection:
            found, has_more = Refunds().page(connection, tenant, Page(**asked))
        return [uuid_of(each["id"]) for each in found], has_more

    assert listed(limit=2) == (newest_first(refund_ids)[:2], True)
    assert listed(limit=2, after=refund_ids[1]) == (refund_ids[:1], False)
    assert listed(limit=9, filters={"status": "pending"}) == (refund_ids[2:], False)
    assert listed(limit=9, filters={"payment_id": story.payment.id})[0] == newest_first(refund_ids)
    assert listed(limit=9, filters={"payment_id": an_id()}) == ([], False)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=st.integers(1, 6),
    limits=st.lists(st.integers(1, 3), min_size=1),
    added=st.lists(st.integers(0, 2), min_size=1),
)
def test_however_many_are_added_between_pages_each_is_seen_once(
    pool: Pool, before: int, limits: list[int], added: list[int]
) -> None:
    """Back from the newest of what was there: all of that, and nothing twice; then from there to what was
    added: all of that, in order, and nothing twice."""
    tenant = Tenant(f"mer_{an_id()}", Mode.TEST)
    there = some(pool, tenant, before)
    later: list[UUID] = []
    limit, additions = cycle(limits), cycle(added)

    def walked_back(seen: list[UUID], *, has_more: bool) -> list[UUID]:
        while has_more:
            later.extend(some(pool, tenant, next(additions)))
            more, has_more = page(pool, tenant, next(limit), after=seen[-1])
            seen += more
        return seen

    first, has_more = page(pool, tenant, next(limit))
    assert walked_back(first, has_more=has_more) == newest_first(there)
    newer: list[UUID] = []
    has_more = True
    while has_more:
        more, has_more = page(pool, tenant, next(limit), before=(newer or [there[-1]])[-1])
        newer += newest_first(more)
    assert newer == later

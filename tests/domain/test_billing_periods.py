"""Periods: without gaps, from the first moment on, whatever the calendar has."""

from calendar import monthrange
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.billing import RetryTerms
from domain.billing_periods import MOST_AT_ONCE, Interval, period_start
from tests.builders import NOON

MONTHS = {Interval.MONTH: 1, Interval.YEAR: 12}
anchors = st.integers(0, 100 * 366 * 24 * 3600).map(lambda s: datetime.fromtimestamp(s, UTC))


@st.composite
def terms(draw: st.DrawFn) -> tuple[Interval, int]:
    interval = draw(st.sampled_from(Interval))
    return interval, draw(st.integers(1, MOST_AT_ONCE[interval]))


@given(anchor=anchors, term=terms(), number=st.integers(0, 100))
def test_periods_go_forwards_at_the_anchors_time_of_day(
    anchor: datetime, term: tuple[Interval, int], number: int
) -> None:
    start, end = (period_start(anchor, *term, each) for each in (number, number + 1))

    assert start < end
    assert start.timetz() == anchor.timetz()
    assert period_start(anchor, *term, 0) == anchor


@given(anchor=anchors, interval=st.sampled_from([*MONTHS]), number=st.integers(0, 600))
def test_a_month_has_the_anchors_day_or_its_last(
    anchor: datetime, interval: Interval, number: int
) -> None:
    start = period_start(anchor, interval, 1, number)

    months = number * MONTHS[interval]
    assert (start.year * 12 + start.month) == anchor.year * 12 + anchor.month + months
    assert start.day == min(anchor.day, monthrange(start.year, start.month)[1])


@given(anchor=anchors, number=st.integers(0, 1000))
def test_days_and_weeks_are_always_as_long(anchor: datetime, number: int) -> None:
    days = period_start(anchor, Interval.DAY, 7, number) - anchor

    assert days.total_seconds() == 7 * 24 * 3600 * number
    assert period_start(anchor, Interval.WEEK, 1, number) == anchor + days


@pytest.mark.parametrize(
    ("anchor", "interval", "starts"),
    [
        ("2027-01-31", Interval.MONTH, ["2027-02-28", "2027-03-31", "2027-04-30"]),
        ("2028-01-31", Interval.MONTH, ["2028-02-29", "2028-03-31", "2028-04-30"]),
        ("2028-02-29", Interval.YEAR, ["2029-02-28", "2030-02-28", "2031-02-28", "2032-02-29"]),
        ("2026-12-31", Interval.DAY, ["2027-01-01", "2027-01-02"]),
    ],
)
def test_what_a_calendar_lacks_is_its_last_day(
    anchor: str, interval: Interval, starts: list[str]
) -> None:
    at = datetime.fromisoformat(anchor).replace(tzinfo=UTC)

    found = [period_start(at, interval, 1, each + 1) for each in range(len(starts))]

    assert [each.date().isoformat() for each in found] == starts


@settings(max_examples=50)
@given(
    days=st.lists(st.integers(1, 60), min_size=0, max_size=8, unique=True).map(sorted),
)
def test_retries_are_those_days_after_the_first_try_and_then_none(days: list[int]) -> None:
    retries, at, tried = RetryTerms(days=tuple(days)), NOON, []
    attempt = 1
    while (again := retries.next_after(attempt, at)) is not None:
        at, attempt = again, attempt + 1
        tried.append((at - NOON).days)

    assert tried == days

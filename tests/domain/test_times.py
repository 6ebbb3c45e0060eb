"""Times as they are written in events and rows."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from domain.payment import rfc3339

ZERO_BY_ANOTHER_NAME = timezone(timedelta(0), "GMT")
TIMES = st.datetimes(timezones=st.sampled_from([UTC, ZERO_BY_ANOTHER_NAME]))


@given(at=TIMES)
def test_a_time_reads_back_as_it_was_written(at: datetime) -> None:
    assert datetime.fromisoformat(rfc3339(at)) == at


@given(one=TIMES, other=TIMES)
def test_times_of_one_width_sort_as_text(one: datetime, other: datetime) -> None:
    assert len(rfc3339(one)) == len("2026-11-20T12:00:00.000000Z")
    assert (rfc3339(one) < rfc3339(other)) == (one < other)

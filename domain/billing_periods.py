"""Periods of a subscription: counted from its first moment, so that they have no gaps and never drift.

A day that a month lacks is its last: what began on the 31st of January goes on on the last of February,
and on the 31st of March again. All of it is in UTC.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from dateutil.relativedelta import relativedelta


class Interval(StrEnum):
    """How long a period is, once or several times over."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


# Three years at most.
MOST_AT_ONCE: Final[Mapping[Interval, int]] = {
    Interval.DAY: 1095,
    Interval.WEEK: 156,
    Interval.MONTH: 36,
    Interval.YEAR: 3,
}


def period_start(anchor: datetime, interval: Interval, count: int, number: int) -> datetime:
    """When the period of that number begins, from 0; which is when the one before it ends."""
    times = count * number
    match interval:
        case Interval.DAY:
            return anchor + relativedelta(days=times)
        case Interval.WEEK:
            return anchor + relativedelta(weeks=times)
        case Interval.MONTH:
            return anchor + relativedelta(months=times)
        case Interval.YEAR:
            return anchor + relativedelta(years=times)

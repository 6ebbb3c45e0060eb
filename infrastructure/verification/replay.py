"""One shard of the log by its aggregates: versions without gaps, and everything that is kept beside the
log against a replay of it.

What is written with the events is compared while the histories go by, row by row: both are read in the
order of the aggregates' ids. What follows the log is made again in temporary tables, by the statements
that its own code makes, up to where it has read; and those are compared with what is there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from infrastructure.counted_work import count
from infrastructure.event_store import FlatMapper
from infrastructure.shards import shard_of
from infrastructure.verification.findings import Kind, named
from infrastructure.verification.made_again import Following, Placed
from infrastructure.verification.place import Place
from infrastructure.verification.postings import Postings
from infrastructure.verification.reading import QuickJSON
from infrastructure.verification.written import Written
from projections.balances import Balances
from projections.changes import Change, Origin
from projections.registry import FOLLOWING, INLINE

FETCHED_AT_ONCE: Final = 500
AGGREGATES_AT_ONCE: Final = 500

EVENTS: Final = """
    SELECT originator_id, originator_version, topic, state, position
    FROM public.events WHERE shard = %(shard)s ORDER BY originator_id, originator_version
"""
WITH_ORIGINS: Final = EVENTS.replace("position\n", "position, event_id, cause\n")

Row = tuple[Any, ...]


class History(NamedTuple):
    """An aggregate's events, as far as they can be read, and where each is."""

    aggregate: UUID
    kind: str
    events: Sequence[Any]
    rows: Sequence[Row]


class ShardReplay:
    """Goes once through a shard by aggregate."""

    def __init__(self, place: Place, *, is_thorough: bool = False) -> None:
        self._place, self._is_thorough = place, is_thorough
        self._mapper = FlatMapper(QuickJSON())
        self.aggregates = 0

    def check(self) -> dict[str, dict[str, int]]:
        """The sums of all postings, by currency and account."""
        inline = [Written(self._place, model) for model in INLINE]
        by_kind = defaultdict(list)
        for written in inline:
            by_kind[written.kind].append(written)
        postings = Postings(self._place)
        following = [
            Following(self._place, model)
            for model in FOLLOWING
            if self._is_thorough and not isinstance(model, Balances)
        ]
        placed: list[Placed] = []
        for history in self._histories():
            for written in by_kind[history.kind]:
                written.compare(history.aggregate, history.events)
            change = self._change(history)
            postings.take_in(*change)
            if following:
                placed.append(change)
            if len(placed) == AGGREGATES_AT_ONCE:
                _take_in(placed, following)
        for written in inline:
            written.end()
        _take_in(placed, following)
        for each in following:
            each.end()
        return postings.end()

    def _change(self, history: History) -> Placed:
        """The whole history as one change, and the events' positions in the shard."""
        change = Change(
            shard=self._place.shard,
            history=history.events,
            new=len(history.events),
            origins=[Origin(*row[5:]) for row in history.rows] if self._is_thorough else (),
        )
        return change, [row[4] for row in history.rows]

    # --- the histories -------------------------------------------------------------------------

    def _histories(self) -> Iterator[History]:
        for _, grouped in groupby(self._rows(), key=_number):
            rows = list(grouped)
            history = self._history(rows[0][0], rows)
            if history is not None:
                yield history

    def _rows(self) -> Iterator[Row]:
        with self._place.connection.cursor(name="by_aggregate") as cursor:
            query = WITH_ORIGINS if self._is_thorough else EVENTS
            cursor.execute(query, {"shard": self._place.shard}, binary=True)
            while rows := cursor.fetchmany(FETCHED_AT_ONCE):
                yield from rows
                count(len(rows))

    def _history(self, aggregate: UUID, rows: list[Row]) -> History | None:
        """None: it cannot be read, which is found."""
        self.aggregates += 1
        if shard_of(aggregate) != self._place.shard:
            self._find(Kind.EVENT_MISPLACED, "the events are in another shard than theirs", rows[0])
        events, before, read = [], 0, self._mapper.domain_event
        for expected, row in enumerate(rows, 1):
            _, version, topic, state, position = row[:5]
            if version != expected:
                self._find(
                    Kind.VERSION_MISSING,
                    "a version of it is not in the log",
                    row,
                    expected=str(expected),
                    found=str(version),
                )
                return None
            if position < before:
                says = "it comes before the version that it goes on from"
                self._find(Kind.ORDER_CHANGED, says, row)
            before = position
            try:
                events.append(read(aggregate, version, topic, state))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is wrong
                self._find(Kind.EVENT_UNREADABLE, f"it cannot be read: {_said(error)}", row)
                return None
        return History(aggregate, rows[0][2].partition(".")[0], events, rows)

    def _find(self, kind: Kind, says: str, row: Row, **more: Any) -> None:
        places = {"shard": self._place.shard, "position": row[4], "version": row[1]}
        self._place.findings.add(kind, says, **places, **named(row[0], row[2]), **more)


def _take_in(placed: list[Placed], following: Sequence[Following]) -> None:
    for each in following:
        each.take_in(placed)
    placed.clear()


def _number(row: Row) -> int:
    """Whose it is, by what is compared in no time."""
    number: int = row[0].int
    return number


def _said(error: Exception) -> str:
    return type(error).__name__

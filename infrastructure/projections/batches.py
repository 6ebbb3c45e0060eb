"""What is new in the log, read for those who follow it: the aggregates that went on, each with its whole
history, since what an event does to a row may hang on all before it.

A worker's followers mostly stand at the same place. So what was appended between two looks is read and
decoded once, as a batch that each of them takes in; the last few are kept for those that are a little
behind.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, LiteralString
from uuid import UUID

from eventsourcing.utils import get_topic
from psycopg import Connection
from psycopg.rows import DictRow

from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.shards import SHARDS
from projections.changes import Change, Origin, ReadModel

# How many events of the recent past are kept in memory, with all those that came before them.
MOST_KEPT: Final = 30_000
# And by how many batches: whoever is further behind reads for itself.
MOST_BATCHES: Final = 100
# How many events a step takes in: enough to be quick, and little to do again.
BATCH_EVENTS: Final = 2_000
# And how many of a shard are read at once, so that all of them are not more than that.
MOST_OF_A_SHARD: Final = BATCH_EVENTS // SHARDS

# Positions in the log, of all shards in order.
Positions = tuple[int, ...]
# `shards`, and the positions `after` and `upto` which something is in each of them.
Ranges = Mapping[str, Sequence[int]]

HEADS: Final[LiteralString] = """
    SELECT array_agg(position ORDER BY shard) AS positions FROM public.shard_heads
"""
# The aggregates that went on, each with its whole history as far as the range goes. Shard by shard, so
# that each look-up is one along an index, however large the log is.
HISTORIES: Final[LiteralString] = """
    new AS (
        SELECT r.shard, r.upto AS position, e.originator_id, min(e.originator_version) AS since,
               max(e.originator_version) AS upto
        FROM ranges AS r
        CROSS JOIN LATERAL (
            SELECT originator_id, originator_version, topic FROM public.events
            WHERE shard = r.shard AND position > r.after AND position <= r.upto
            ORDER BY position LIMIT %(limit)s
        ) AS e
        WHERE e.topic LIKE ANY(%(topics)b::text[])
        GROUP BY r.shard, r.upto, e.originator_id
    )
    SELECT n.shard, n.position, n.originator_id, n.since, h.originator_version, h.topic, h.state,
           h.event_id, h.cause
    FROM new n
    CROSS JOIN LATERAL (
        SELECT originator_version, topic, state, event_id, cause FROM public.events
        WHERE shard = n.shard AND originator_id = n.originator_id AND originator_version <= n.upto
        ORDER BY originator_version LIMIT 1000000
    ) AS h
    ORDER BY n.shard, n.originator_id, h.originator_version
"""
GIVEN: Final[LiteralString] = """
    WITH ranges AS (
        SELECT * FROM unnest(%(shards)b::smallint[], %(after)b::bigint[], %(upto)b::bigint[])
             AS r (shard, after, upto)
    ),
"""
# Up to where the log is now, or by so many events in each shard.
FROM_THERE_ON: Final[LiteralString] = """
    WITH ranges AS (
        SELECT h.shard, a.after, least(h.position, a.after + %(limit)s) AS upto
        FROM unnest(%(after)b::bigint[]) WITH ORDINALITY AS a (after, place)
        JOIN public.shard_heads h ON h.shard = a.place - 1 AND h.position > a.after
    ),
"""
BETWEEN: Final[LiteralString] = GIVEN + HISTORIES
BEYOND: Final[LiteralString] = FROM_THERE_ON + HISTORIES
EVERY_TOPIC: Final = ["%"]

mapper = FlatMapper(FlatJSON())


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An aggregate of this `kind` whose events could not be read, of which those `since` are new."""

    shard: int
    originator_id: UUID
    kind: str
    since: int
    error: Exception


Read = Change | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """All that was appended between two positions of the log, by the kinds of aggregates."""

    after: Positions
    upto: Positions
    read: Mapping[str, Sequence[Read]]

    @property
    def events(self) -> int:
        """How many."""
        return sum(self.upto) - sum(self.after)

    @property
    def ranges(self) -> Ranges:
        """The shards that went on, each with its two positions."""
        shards = [shard for shard, position in enumerate(self.upto) if position > self.after[shard]]
        return {
            "shards": shards,
            "after": [self.after[shard] for shard in shards],
            "upto": [self.upto[shard] for shard in shards],
        }

    def of(self, model: ReadModel) -> list[Read]:
        """What the model is made of."""
        kinds = (model.aggregate,) if isinstance(model.aggregate, str) else model.aggregate
        return [each for kind in kinds for each in self.read.get(kind, ())]


def heads_of_the_log(connection: Connection[DictRow]) -> Positions:
    """How far the log goes."""
    row = connection.execute(HEADS).fetchone()
    assert row is not None
    return tuple(row["positions"])


def read_beyond(connection: Connection[DictRow], after: Positions) -> Batch | None:
    """What was appended since, if anything was."""
    wanted = {"after": list(after), "limit": MOST_OF_A_SHARD, "topics": EVERY_TOPIC}
    rows = connection.execute(BEYOND, wanted).fetchall()
    if not rows:
        return None
    upto = list(after)
    for row in rows:
        upto[row["shard"]] = row["position"]
    return Batch(after=after, upto=tuple(upto), read=_by_kind(decoded(rows)))


def read_between(
    connection: Connection[DictRow], ranges: Ranges, topics: Sequence[str]
) -> Iterator[Read]:
    """What was appended in these ranges, and has these topics."""
    limit = max(upto - after for after, upto in zip(ranges["after"], ranges["upto"], strict=True))
    wanted = {**ranges, "limit": limit, "topics": topics}
    return decoded(connection.execute(BETWEEN, wanted))


def decoded(rows: Iterable[dict[str, Any]]) -> Iterator[Read]:
    """Rows of the log, in order of aggregate and version and with the `shard` and the version that an
    aggregate is new `since`, as one for each aggregate."""
    for originator_id, grouped in groupby(rows, key=itemgetter("originator_id")):
        of_one = list(grouped)
        shard, since = of_one[0]["shard"], of_one[0]["since"]
        try:
            history = [_event(row) for row in of_one]
        except Exception as error:  # noqa: BLE001 - it is kept with what it is about
            yield Unreadable(shard, originator_id, _kind(of_one[0]["topic"]), since, error)
        else:
            origins = [Origin(row["event_id"], row["cause"]) for row in of_one]
            new = len(history) - since + 1
            yield Change(shard=shard, history=history, new=new, origins=origins)


def id_of(read: Read) -> UUID:
    """Of the aggregate."""
    if isinstance(read, Unreadable):
        return read.originator_id
    originator_id: UUID = read.history[0].originator_id
    return originator_id


def kind_of(read: Read) -> str:
    """Of the aggregate, as its topics begin."""
    return read.kind if isinstance(read, Unreadable) else _kind(get_topic(type(read.history[0])))


def new_since(read: Read) -> int:
    """The first version that is new."""
    return read.since if isinstance(read, Unreadable) else len(read.history) - read.new + 1


def as_one(batches: Sequence[Batch]) -> Batch:
    """Batches that follow on one another: each aggregate as it is in the last of them."""
    if len(batches) == 1:
        return batches[0]
    last: dict[UUID, Read] = {}
    for each in (each for batch in batches for kind in batch.read.values() for each in kind):
        before = last.get(id_of(each))
        last[id_of(each)] = each if before is None else _since(each, new_since(before))
    read = _by_kind(last.values())
    return Batch(after=batches[0].after, upto=batches[-1].upto, read=read)


def _by_kind(read: Iterable[Read]) -> dict[str, list[Read]]:
    kinds: defaultdict[str, list[Read]] = defaultdict(list)
    for each in read:
        kinds[kind_of(each)].append(each)
    return dict(kinds)


def _since(read: Read, version: int) -> Read:
    if isinstance(read, Unreadable):
        return replace(read, since=version)
    return replace(read, new=len(read.history) - version + 1)


def _event(row: Mapping[str, Any]) -> Any:
    return mapper.domain_event(
        row["originator_id"], row["originator_version"], row["topic"], row["state"]
    )


def _kind(topic: str) -> str:
    return topic.partition(".")[0]


class RecentBatches:
    """The last batches, one after the other without a gap, up to `heads`: as far as the log was read,
    or nothing. Not for several threads."""

    def __init__(self) -> None:
        self.heads: Positions = ()
        self._kept: deque[Batch] = deque()
        self._sizes: deque[int] = deque()

    def begin(self, heads: Positions) -> None:
        """What comes next is read from there."""
        self._kept.clear()
        self._sizes.clear()
        self.heads = heads

    def add(self, batch: Batch) -> None:
        """It follows on the last one."""
        self._kept.append(batch)
        self._sizes.append(_size(batch))
        self.heads = batch.upto
        while len(self._kept) > MOST_BATCHES or self._is_too_much():
            self._kept.popleft()
            self._sizes.popleft()

    def since(self, position: Positions, most: int) -> list[Batch]:
        """Those that follow on `position`, of so many events at most; none, where the first is not kept
        or is larger."""
        found: list[Batch] = []
        for batch in self._following(position):
            most -= batch.events
            if most < 0:
                break
            found.append(batch)
        return found

    def _is_too_much(self) -> bool:
        """But the last one is kept, however large it is: else each would read the same for itself."""
        return len(self._kept) > 1 and sum(self._sizes) > MOST_KEPT

    def _following(self, position: Positions) -> list[Batch]:
        """All of them. Most who ask stand where the last one begins."""
        later: list[Batch] = []
        for batch in reversed(self._kept):
            later.append(batch)
            if batch.after == position:
                return later[::-1]
        return []


def _size(batch: Batch) -> int:
    """How many events of it are in memory."""
    read = (each for kind in batch.read.values() for each in kind)
    return sum(len(each.history) for each in read if isinstance(each, Change))

"""Which events a bundle has, read as of one snapshot and never all at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow

from domain.ids import MalformedId, Prefix, decode
from domain.payment import rfc3339
from infrastructure.audit import log
from infrastructure.audit.log import LoggedEvent
from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.shards import shard_of
from projections.balances import Balances
from projections.changes import Change, topics_of

FETCHED_AT_ONCE: Final = 1_000
AGGREGATES_AT_ONCE: Final = 200

# A payment that is an attempt goes with its intent.
WITH_INTENT: Final[LiteralString] = """
    SELECT document ->> 'intent_id' AS intent FROM receipts
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s
"""
OF_CUSTOMER: Final[LiteralString] = """
    SELECT payment_id AS id FROM receipts WHERE customer_id = %(customer)s
    UNION SELECT id FROM payment_intents WHERE customer_id = %(customer)s
    UNION SELECT id FROM payment_methods WHERE customer_id = %(customer)s
    UNION SELECT id FROM customer_records WHERE id = %(itself)s
    ORDER BY id
"""
# How far the first so many events of the one order go in each shard.
FENCES: Final[LiteralString] = """
    SELECT shard, max(shard_position + least(events, %(size)s - position)) - 1 AS upto
    FROM audit_runs WHERE position < %(size)s GROUP BY shard
"""
# Aggregates in the order in which they were made, each whole as far as it is sealed.
HISTORIES: Final[LiteralString] = """
    SELECT e.shard, e.originator_id, e.originator_version, e.topic, e.state, e.recorded_at
    FROM events AS e
    JOIN unnest(%(shards)s::smallint[], %(upto)s::bigint[]) AS f (shard, upto)
      ON f.shard = e.shard AND e.position <= f.upto
    WHERE e.topic LIKE ANY (%(topics)s::text[])
      AND (%(ids)s::uuid[] IS NULL OR e.originator_id = ANY (%(ids)s::uuid[]))
    ORDER BY e.originator_id, e.originator_version
"""


class NothingSelected(Exception):
    """There is nothing of that in the log. One line that says of what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is wanted: all of it, or what was recorded from a moment up to another, or of one payment, or
    of one customer. `customer`: as payments name them."""

    since: datetime | None = None
    until: datetime | None = None
    payment: UUID | None = None
    customer: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    @property
    def has_whole_histories(self) -> bool:
        """Whether each aggregate is there with all of its events."""
        return self.since is None and self.until is None

    def has(self, at: str) -> bool:
        """Whether what was recorded then is of it."""
        since = None if self.since is None else rfc3339(self.since)
        until = None if self.until is None else rfc3339(self.until)
        return (since is None or since <= at) and (until is None or at < until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """What one event moves, with the event's topic. `amounts`: by account, in minor units."""

    aggregate: UUID
    version: int
    topic: str
    at: datetime
    merchant_id: str
    mode: str
    customer_id: str
    currency: str
    amounts: dict[str, int]


OF_POSTING: Final = frozenset(
    ("shard", "payment_id", "version", "merchant_id", "mode", "customer_id", "currency", "at")
)


class Selected:
    """The events of a selection that are among the first `size` of the log."""

    def __init__(self, connection: Connection[DictRow], selection: Selection, size: int) -> None:
        self._connection, self._selection, self._size = connection, selection, size
        self._mapper, self._model = FlatMapper(FlatJSON()), Balances()

    def events(self) -> Iterator[LoggedEvent]:
        """All of it: in the order of the log; of one payment or customer: thing by thing. Raises
        NothingSelected."""
        of_some = self._selection.payment is not None or self._selection.customer is not None
        for event in self._of_some() if of_some else self._in_order():
            if self._selection.has(event.at):
                yield event

    def postings(self) -> Iterator[Posting]:
        """What the events move, payment by payment in the order in which these were made."""
        if self._selection.payment is None and self._selection.customer is None:
            yield from self._postings(None)
            return
        for ids in self._ids():
            yield from self._postings(ids)

    # --- events --------------------------------------------------------------------------------

    def _in_order(self) -> Iterator[LoggedEvent]:
        since = 0
        while since < self._size:
            found, _ = log.page(self._connection, since, min(FETCHED_AT_ONCE, self._size - since))
            yield from found
            since += FETCHED_AT_ONCE

    def _of_some(self) -> Iterator[LoggedEvent]:
        for ids in self._ids():
            for each in ids:
                for event in log.history(self._connection, each):
                    if event.position is not None and event.position < self._size:
                        yield event

    def _ids(self) -> Iterator[list[UUID]]:
        if self._selection.payment is not None:
            yield self._payment_and_intent(self._selection.payment)
            return
        customer = self._selection.customer
        assert customer is not None
        parameters = {"customer": customer, "itself": _customer_id(customer)}
        is_any = False
        with self._connection.cursor(name="of_customer") as cursor:
            cursor.execute(OF_CUSTOMER, parameters)
            while rows := cursor.fetchmany(AGGREGATES_AT_ONCE):
                is_any = True
                yield [row["id"] for row in rows]
        if not is_any:
            raise NothingSelected(f"there is nothing of a customer {customer}")

    def _payment_and_intent(self, payment: UUID) -> list[UUID]:
        identity = {"shard": shard_of(payment), "payment_id": payment}
        row = self._connection.execute(WITH_INTENT, identity).fetchone()
        if row is None:
            raise NothingSelected("there is no such payment")
        intent = row["intent"]
        return [payment] if intent is None else [decode(Prefix.INTENT, intent), payment]

    # --- postings ------------------------------------------------------------------------------

    def _postings(self, ids: Sequence[UUID] | None) -> Iterator[Posting]:
        for rows in self._histories(ids):
            for posting in self._of_one(rows):
                if self._selection.has(rfc3339(rows[posting.version - 1]["recorded_at"])):
                    yield posting

    def _histories(self, ids: Sequence[UUID] | None) -> Iterator[list[DictRow]]:
        fences = self._connection.execute(FENCES, {"size": self._size}).fetchall()
        parameters = {
            "shards": [row["shard"] for row in fences],
            "upto": [row["upto"] for row in fences],
            "topics": topics_of(self._model),
            "ids": None if ids is None else list(ids),
        }
        with self._connection.cursor(name="histories") as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute(HISTORIES, parameters, binary=True)
            for _, rows in groupby(cursor, key=itemgetter("originator_id")):
                yield list(rows)

    def _of_one(self, rows: Sequence[DictRow]) -> Iterator[Posting]:
        history = [
            self._mapper.domain_event(
                row["originator_id"], row["originator_version"], row["topic"], row["state"]
            )
            for row in rows
        ]
        change = Change(shard=rows[0]["shard"], history=history, new=len(history))
        for entry in self._model.entries(change):
            yield _posting(entry, rows[entry["version"] - 1]["topic"])


def _posting(entry: dict[str, Any], topic: str) -> Posting:
    return Posting(
        aggregate=entry["payment_id"],
        version=entry["version"],
        topic=topic,
        at=entry["at"],
        merchant_id=entry["merchant_id"],
        mode=entry["mode"],
        customer_id=entry["customer_id"],
        currency=entry["currency"],
        amounts={name: amount for name, amount in entry.items() if name not in OF_POSTING},
    )


def _customer_id(customer: str) -> UUID | None:
    """Of one that is known here; others are names that merchants have for theirs."""
    try:
        return decode(Prefix.CUSTOMER, customer)
    except MalformedId:
        return None

"""The event store: a log in 64 shards, on Postgres, behind the event-sourcing library's own ports.

One statement advances the head of an aggregate's shard and inserts its events, so positions are
gapless within a shard, in commit order, and a rollback leaves no hole. There is no table lock and no
NOTIFY: appends to different shards wait for nothing but the disk. Optimistic concurrency is the
primary key (shard, aggregate, version).

What belongs with the events (the idempotency key, the order's slot, the bank call, the receipt) is
written in the same transaction and the same round of the wire.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, LiteralString, NoReturn
from uuid import UUID

import orjson
import psycopg
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    Notification,
    NotSupportedError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, get_topic

from domain.aggregates import event_class
from domain.commands import Cause
from domain.errors import (
    ConcurrentChange,
    KeyAlreadyClaimed,
    LeaseLost,
    OrderAlreadyPaid,
    StoreUnavailable,
    TokenAlreadyUsed,
)
from domain.ledger import PaymentLedger
from domain.payment import Payment, rfc3339
from domain.records import (
    AnswerKey,
    AwaitShopper,
    AwaitTransfer,
    BeginCall,
    ClaimKey,
    ContinueCall,
    EndCall,
    EraseLater,
    ForgetCard,
    ForgetPersonalData,
    FreeOrderSlot,
    KeepCard,
    KeepPersonalData,
    LiveByClock,
    Record,
    RespondToDispute,
    TakeOrderSlot,
    UseToken,
)
from infrastructure import (
    bank_calls,
    clock_customers,
    dispute_responses,
    idempotency,
    order_slots,
    personal_data,
    stored_cards,
)
from infrastructure.clock import RandomIds
from infrastructure.database import Pool, nothing_was_written, unavailability_named
from infrastructure.fault_points import reached
from infrastructure.shards import shard_of
from infrastructure.statements import Part, compose
from projections.registry import INLINE, InlineProjection


class UnknownEventVersion(Exception):
    """The stored event was written by newer code, and would be misread by this."""


# Made once, since to make one takes as long as to use it.
COMPACT: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


class FlatJSON(Transcoder):
    """Event state as compact JSON with sorted keys: the same event is the same bytes."""

    def encode(self, obj: Any) -> bytes:
        return COMPACT.encode(obj).encode()

    def decode(self, data: bytes) -> Any:
        return json.loads(str(data, "utf-8"))  # it need not find out how it is encoded


class FlatMapper(Mapper[UUID]):
    """Events to and from plain JSON: `at` is the time, and nothing says how Python spells it."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        state = dict(vars(domain_event))
        originator_id = state.pop("originator_id")
        originator_version = state.pop("originator_version")
        state["at"] = rfc3339(state.pop("timestamp"))
        class_version = getattr(type(domain_event), "class_version", 1)
        if class_version > 1:
            state["class_version"] = class_version
        return StoredEvent(
            originator_id=originator_id,
            originator_version=originator_version,
            topic=get_topic(type(domain_event)),
            state=self.transcoder.encode(state),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Any:
        """The event as it was. Raises UnknownEventVersion."""
        return self.domain_event(
            stored_event.originator_id,
            stored_event.originator_version,
            stored_event.topic,
            stored_event.state,
        )

    def domain_event(
        self, originator_id: UUID | str, originator_version: int, topic: str, stored_state: bytes
    ) -> Any:
        """The same, of the columns of the log."""
        kind, known = _class_and_version(topic)
        state = self.transcoder.decode(stored_state)
        stored = state.pop("class_version", 1)
        if stored != known:
            _upcast(kind, state, stored, known)
        state["timestamp"] = datetime.fromisoformat(state.pop("at"))
        state["originator_id"] = originator_id
        state["originator_version"] = originator_version
        event = object.__new__(kind)
        object.__setattr__(event, "__dict__", state)
        return event


@cache
def _class_and_version(topic: str) -> tuple[Any, int]:
    """The class of the events with this topic, and the newest version of it that is known."""
    kind = event_class(topic)
    return kind, getattr(kind, "class_version", 1)


def _upcast(kind: Any, state: dict[str, Any], stored: int, known: int) -> None:
    if stored > known:
        raise UnknownEventVersion(
            f"{kind.TOPIC} version {stored} is newer than {known}, the newest known here"
        )
    for version in range(stored, known):
        getattr(kind, f"upcast_v{version}_v{version + 1}")(state)


HEAD: Final[LiteralString] = """
    UPDATE shard_heads
    SET position = position + %(count)s, hash = sha256(hash || %(digests)s)
    WHERE shard = %(shard)s
    RETURNING position - %(count)s AS base, hash
"""
# The number of calls of ours, checked: one who lost the lease writes nothing at all.
HELD: Final[LiteralString] = "SELECT require_lease(count(*)) AS ok FROM leased"
INSERT: Final[LiteralString] = """
    INSERT INTO events (
        shard, position, originator_id, originator_version, event_id, topic, state, cause,
        recorded_at, digest, chain_hash
    )
    SELECT
        %(shard)s, head.base + e.place, e.originator_id, e.version, e.event_id, e.topic, e.state,
        %(cause)s, e.recorded_at, e.digest, head.hash
    FROM unnest(
        %(each_originator_id)b::uuid[], %(each_version)b::bigint[], %(each_event_id)b::uuid[],
        %(each_topic)b::text[], %(each_state)b::bytea[], %(each_at)b::timestamptz[],
        %(each_digests)b::bytea[]
    ) WITH ORDINALITY
        AS e (originator_id, version, event_id, topic, state, recorded_at, digest, place),
    head
"""
# The same for one event, which most appends are of, and without arrays.
INSERT_ONE: Final[LiteralString] = """
    INSERT INTO events (
        shard, position, originator_id, originator_version, event_id, topic, state, cause,
        recorded_at, digest, chain_hash
    )
    SELECT
        %(shard)s, head.base + 1, %(originator_id)s, %(version)s, %(event_id)s, %(topic)s,
        %(state)s, %(cause)s, %(at)s::timestamptz, %(digests)s, head.hash
    FROM head
"""
IF_HELD: Final[LiteralString] = ", held WHERE held.ok"
SELECT_EVENTS: Final[LiteralString] = """
    SELECT originator_id, originator_version, topic, state FROM events
    WHERE shard = %(shard)s AND originator_id = %(originator_id)s
      AND originator_version > %(gt)s AND originator_version <= %(lte)s
    ORDER BY originator_version
"""
WAS_RECORDED: Final[LiteralString] = """
    SELECT digest FROM events
    WHERE shard = %(shard)s AND originator_id = %(originator_id)s
      AND originator_version = %(version)s
"""

BROKEN_CONSTRAINTS: Final[Mapping[str, Callable[[], Exception]]] = {
    "bank_calls_pkey": partial(ConcurrentChange, "bank_calls_pkey"),
    "idempotency_keys_pkey": partial(KeyAlreadyClaimed, "idempotency_keys_pkey"),
    "order_slots_pkey": partial(
        OrderAlreadyPaid,
        "The order has a payment that is pending, authorized or captured.",
        param="order_id",
    ),
    "used_tokens_pkey": partial(TokenAlreadyUsed, "The token was used before. Make another."),
}
# Each partition of the log has the key under a name of its own.
EVENTS_PKEY: Final = re.compile(r"events_\w+_pkey")
LEASE_LOST: Final = "CF001"
# Whoever has waited longer for the store has waited long enough: it is not asked a second time.
PATIENCE_SECONDS: Final = 0.5
MAX_VERSION: Final = 2**62


def event_digest(
    *,
    event_id: UUID,
    originator_id: UUID | str,
    originator_version: int,
    topic: str,
    recorded_at: str,
    state: str,
    cause: str,
) -> bytes:
    """SHA-256 of everything that is known of one event, as anyone can compute it again: the compact
    JSON array of these seven as strings, in this order, in UTF-8."""
    fields = [
        event_id,
        originator_id,
        str(originator_version),
        topic,
        recorded_at,
        state,
        cause,
    ]
    return hashlib.sha256(orjson.dumps(fields)).digest()


def cause_text(cause: Cause) -> str:
    """The cause as it is stored: compact JSON with sorted keys, what is not known left out."""
    fields = {
        "actor": cause.actor,
        "request_id": cause.request_id,
        "idempotency_key": cause.idempotency_key,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return orjson.dumps(known, option=orjson.OPT_SORT_KEYS).decode()


class ShardedRecorder(ApplicationRecorder):
    """Appends to and reads from the sharded log, with what is written beside the events."""

    def __init__(self, pool: Pool, inline: Sequence[InlineProjection] = INLINE) -> None:
        self._pool = pool
        self._inline = inline
        self._ids = RandomIds()

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        cause: Cause | None = None,
        history: Sequence[Payment.Event] = (),
        beside: Sequence[Record] = (),
        tries: int = 1,
        **_: Any,
    ) -> None:
        """Appends events of one aggregate, or of several in one shard, and with them `beside` and the
        rows that `history`, all events of each aggregate, has in the inline read models. All of it,
        or none.

        `tries`: how often, while the store fails at once. Raises ConcurrentChange,
        KeyAlreadyClaimed, OrderAlreadyPaid, LeaseLost, StoreUnavailable.
        """
        if not stored_events:
            if beside:
                raise ValueError("nothing is recorded beside no event")
            return
        batch = self._batch(stored_events, cause or Cause(actor="system"))
        statement, parameters = self._statement(batch, history, beside)
        patient_until = time.monotonic() + PATIENCE_SECONDS
        for tries_left in reversed(range(tries)):
            try:
                self._append(statement, parameters)
            except (StoreUnavailable, ConcurrentChange, LeaseLost) as error:
                is_late = time.monotonic() > patient_until
                if _may_be_recorded(error, is_late=is_late) and self._was_recorded(batch):
                    return
                if is_late or tries_left == 0 or not isinstance(error, StoreUnavailable):
                    raise
            else:
                return

    def _append(self, statement: LiteralString, parameters: dict[str, Any]) -> None:
        reached("append.begun")
        with broken_rules_named(), unavailability_named(), self._pool.connection() as connection:
            connection.writer.execute(statement, parameters, prepare=True)
        reached("append.committed")

    def _statement(
        self, batch: dict[str, Any], history: Sequence[Payment.Event], beside: Sequence[Record]
    ) -> tuple[LiteralString, dict[str, Any]]:
        """The append and all that goes with it, as one statement: all of it or none."""
        # Postgres carries out what nothing refers to from the last to the first: so the idempotency
        # key, which comes first in `beside`, is the first to say no. Nothing but the choice between
        # two refusals hangs on it.
        parts = [PARTS[type(record)](record) for record in reversed(beside)]
        for originator_id, of_one in groupby(history, key=attrgetter("originator_id")):
            parts += self._rows(batch, originator_id, list(of_one))
        last = INSERT_ONE if batch["count"] == 1 else INSERT
        if any(part.name == "leased" for part in parts):
            parts.append(Part("held", HELD, {}))
            last += IF_HELD
        head = {name: batch[name] for name in ("count", "digests", "shard")}
        return compose([*parts, Part("head", HEAD, head)], last, batch)

    def _rows(
        self, batch: dict[str, Any], originator_id: UUID, history: Sequence[Payment.Event]
    ) -> Iterator[Part]:
        """The rows that the new events of one aggregate change."""
        since = batch["since"].get(originator_id)
        if since is None:
            return
        kind = get_topic(type(history[0])).partition(".")[0]
        for projection in self._inline:
            if projection.aggregate != kind:
                continue
            for row in projection.rows(batch["shard"], history):
                if row["version"] >= since:
                    yield Part(projection.name, projection.UPSERT, row)

    def _batch(self, stored_events: Sequence[StoredEvent], cause: Cause) -> dict[str, Any]:
        """What all appends are told by, and the columns of the events: of one, or arrays of each."""
        shard, since = _shard_and_since(stored_events)
        text = cause_text(cause)
        columns = [self._columns(event, text) for event in stored_events]
        last = columns[-1]
        batch = {
            "shard": shard,
            "since": since,
            "count": len(columns),
            "cause": text,
            "last": (last["originator_id"], last["version"], last["digests"]),
        }
        if len(columns) == 1:
            return batch | last
        each = {f"each_{name}": [event[name] for event in columns] for name in last}
        return batch | each | {"digests": b"".join(each["each_digests"])}

    def _columns(self, event: StoredEvent, cause: str) -> dict[str, Any]:
        """Of one event."""
        event_id = self._ids.new()
        recorded_at = orjson.loads(event.state)["at"]
        return {
            "originator_id": event.originator_id,
            "version": event.originator_version,
            "event_id": event_id,
            "topic": event.topic,
            "state": event.state,
            "at": recorded_at,
            "digests": event_digest(
                event_id=event_id,
                originator_id=event.originator_id,
                originator_version=event.originator_version,
                topic=event.topic,
                recorded_at=recorded_at,
                state=event.state.decode(),
                cause=cause,
            ),
        }

    def _was_recorded(self, batch: dict[str, Any]) -> bool:
        """Whether the last event of the batch is in the log, and is ours."""
        originator_id, version, digest = batch["last"]
        identity = {"shard": batch["shard"], "originator_id": originator_id, "version": version}
        try:
            with unavailability_named(), self._pool.connection() as connection:
                row = connection.execute(WAS_RECORDED, identity).fetchone()
        except StoreUnavailable:
            return False  # nobody knows; whoever can ask again finds out
        return row is not None and bytes(row["digest"]) == digest

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The events of one aggregate, in order of version."""
        assert isinstance(originator_id, UUID)
        parameters = {
            "shard": shard_of(originator_id),
            "originator_id": originator_id,
            "gt": 0 if gt is None else gt,
            "lte": MAX_VERSION if lte is None else lte,
        }
        with self._pool.connection() as connection:
            rows = connection.execute(SELECT_EVENTS, parameters).fetchall()
        events = [
            StoredEvent(
                originator_id=row["originator_id"],
                originator_version=row["originator_version"],
                topic=row["topic"],
                state=bytes(row["state"]),
            )
            for row in rows
        ]
        return (events[::-1] if desc else events)[:limit]

    # The log has a position in each shard and none over all, so the library's single sequence of
    # notifications cannot be offered: a reader of one would lose events.

    def select_notifications(self, *_: Any, **__: Any) -> Sequence[Notification]:
        """Not offered."""
        _one_sequence_not_offered()

    def max_notification_id(self) -> int | None:
        """Not offered."""
        _one_sequence_not_offered()

    def subscribe(self, *_: Any, **__: Any) -> Subscription[ApplicationRecorder]:
        """Not offered."""
        _one_sequence_not_offered()


class ShardedFactory(InfrastructureFactory[TrackingRecorder]):
    """Gives the library's Application our recorder."""

    def __init__(self, env: Environment, pool: Pool) -> None:
        super().__init__(env)
        self._pool = pool

    def application_recorder(self) -> ApplicationRecorder:
        """The log."""
        return ShardedRecorder(self._pool)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:  # noqa: ARG002
        """The same; there are no snapshots, since payments are short."""
        return self.application_recorder()

    def tracking_recorder(self, *_: Any, **__: Any) -> TrackingRecorder:
        """Not offered: followers keep their own positions, one for each shard."""
        _one_sequence_not_offered()

    def process_recorder(self) -> ProcessRecorder:
        """Not offered, for the same reason."""
        _one_sequence_not_offered()


class PostgresPaymentLedger(PaymentLedger):
    """The ledger on the sharded log."""

    def __init__(self, pool: Pool, **ports: Any) -> None:
        self._pool = pool
        super().__init__({}, **ports)

    def construct_factory(self, env: Environment) -> ShardedFactory:
        """Ours, on the pool that the process shares."""
        return ShardedFactory(env, self._pool)

    def construct_mapper(self) -> FlatMapper:
        """Plain JSON."""
        return FlatMapper(FlatJSON())


def _shard_and_since(stored_events: Sequence[StoredEvent]) -> tuple[int, dict[UUID, int]]:
    """The shard, and the first new version of each aggregate. Raises NotSupportedError unless one
    shard has them all."""
    since: dict[UUID, int] = {}
    for event in stored_events:
        assert isinstance(event.originator_id, UUID)
        since.setdefault(event.originator_id, event.originator_version)
    shard, *others = {shard_of(originator_id) for originator_id in since}
    if others:
        raise NotSupportedError("one append is to one shard: shards share no transaction")
    return shard, since


# What the owner of each record's table writes.
PARTS: Final[Mapping[type[Record], Callable[[Any], Part]]] = {
    ClaimKey: idempotency.claim,
    AnswerKey: idempotency.answer,
    TakeOrderSlot: order_slots.take,
    FreeOrderSlot: order_slots.free,
    BeginCall: bank_calls.begin,
    ContinueCall: bank_calls.go_on,
    EndCall: bank_calls.leave,
    AwaitShopper: bank_calls.leave,
    AwaitTransfer: bank_calls.leave,
    KeepCard: stored_cards.keep,
    ForgetCard: stored_cards.forget,
    UseToken: stored_cards.use_up,
    KeepPersonalData: personal_data.keep,
    ForgetPersonalData: personal_data.forget,
    RespondToDispute: dispute_responses.respond,
    LiveByClock: clock_customers.bind,
    EraseLater: personal_data.erase_later,
}


def _may_be_recorded(
    error: StoreUnavailable | ConcurrentChange | LeaseLost, *, is_late: bool
) -> bool:
    """Whether it is worth a look: perhaps only the acknowledgement was lost, now or a try before, which
    then is who changed the payment or ended the call."""
    if not isinstance(error, StoreUnavailable):
        return True
    return not is_late and not nothing_was_written(error)


@contextmanager
def broken_rules_named() -> Iterator[None]:
    """Turns the database's words for a broken rule into ours."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if error.sqlstate == LEASE_LOST:
            raise LeaseLost(str(error)) from error
        constraint = error.diag.constraint_name or ""
        if EVENTS_PKEY.fullmatch(constraint):
            raise ConcurrentChange(constraint) from error
        if constraint in BROKEN_CONSTRAINTS:
            rule = BROKEN_CONSTRAINTS[constraint]()
            raise rule from error
        raise


def _one_sequence_not_offered() -> NoReturn:
    raise NotSupportedError("the log is followed shard by shard; it has no single sequence")

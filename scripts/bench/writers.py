"""Writers: as many as are wanted, each appending as fast as it is let, as threads in several
processes, so that Python's one lock a process is not what is measured."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from domain.bank import Operation
from domain.commands import Audience, Cause, Claim, Mode, Tenant
from domain.ids import Prefix, encode
from domain.ledger import LEASE_SECONDS
from domain.payment import Payment
from domain.records import (
    AnswerKey,
    BankCall,
    BeginCall,
    ClaimKey,
    EndCall,
    Record,
    StoredAnswer,
    TakeOrderSlot,
)
from infrastructure.clock import RandomIds
from infrastructure.database import open_pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from projections.registry import INLINE
from scripts.bench import stock

# As many as there are cores, as one would run a server.
MOST_PROCESSES: Final = os.cpu_count() or 1
# Until all processes are there and connected.
START_SECONDS: Final = 4.0
READY_SECONDS: Final = 60.0
TENANT: Final = Tenant("mer_01jd3xk5v8e2m9q4w7r6t0y1b2", Mode.LIVE)
KEY_ID: Final = "key_01jd3xk5v8e2m9q4w7r6t0y1b2"
HOLD_ENDS: Final = "2099-11-27T12:00:01.987654Z"
SEALED_CARD: Final = b"0" * 248  # as long as the vault makes one
FINGERPRINT: Final = b"0" * 48
MAPPER: Final = FlatMapper(FlatJSON())
ASKED: Final = {
    "amount_minor": 5000,
    "card_brand": "visa",
    "card_exp_month": 12,
    "card_exp_year": 2030,
    "card_last4": "1111",
    "currency": "USD",
    "customer_id": "cus_123",
    "merchant_id": TENANT.merchant_id,
    "metadata": {"channel": "web", "items": 3},
    "mode": TENANT.mode.value,
    "originator_topic": "payment",
}

Append = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A payment's first event, and what is written beside it."""

    payment_id: UUID
    stored: StoredEvent
    call: BankCall
    beside: tuple[Record, ...]

    @property
    def event(self) -> Payment.Event:
        """The same, as the ledger has it."""
        event: Payment.Event = MAPPER.to_domain_event(self.stored)
        return event


def asked(ids: RandomIds, customer_id: str = "cus_123") -> Asked:
    """The first transaction of a new payment's authorization."""
    payment_id = ids.new()
    order_id = f"ORD-{payment_id.hex}"
    cause = Cause(
        actor=KEY_ID,
        request_id=encode(Prefix.REQUEST, payment_id),
        idempotency_key=f"{order_id}-authorize",
    )
    at = datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
    state = {**ASKED, "order_id": order_id, "customer_id": customer_id, "at": at}
    call = BankCall(
        payment_id=payment_id,
        tenant=TENANT,
        operation=Operation.AUTHORIZATION,
        bank_key=f"{encode(Prefix.PAYMENT, payment_id)}-authorization-1",
        cause=cause,
        audience=Audience(family="gateway"),
        sealed_card=SEALED_CARD,
    )
    assert cause.idempotency_key is not None
    assert cause.request_id is not None
    claim = Claim(tenant=TENANT, key=cause.idempotency_key, fingerprint=FINGERPRINT)
    return Asked(
        payment_id=payment_id,
        stored=_stored(payment_id, 1, "payment.authorization_requested", state),
        call=call,
        beside=(
            ClaimKey(claim=claim, payment_id=payment_id, request_id=cause.request_id),
            TakeOrderSlot(tenant=TENANT, order_id=order_id, payment_id=payment_id),
            BeginCall(call=call, lease_seconds=LEASE_SECONDS),
        ),
    )


def _stored(payment_id: UUID, version: int, topic: str, state: dict[str, Any]) -> StoredEvent:
    return StoredEvent(
        originator_id=payment_id,
        originator_version=version,
        topic=topic,
        state=FlatJSON().encode(state),
    )


SAMPLE: Final = asked(RandomIds())


# --- what a writer appends ------------------------------------------------------------------------


def first_event(ids: RandomIds) -> StoredEvent:
    """A new payment's, like all others but for the id: made for next to nothing."""
    return StoredEvent(
        originator_id=ids.new(),
        originator_version=1,
        topic=SAMPLE.stored.topic,
        state=SAMPLE.stored.state,
    )


def append_first_event(recorder: ShardedRecorder, ids: RandomIds) -> None:
    """A payment's first event, and nothing beside it."""
    recorder.insert_events([first_event(ids)], cause=SAMPLE.call.cause)


def append_first_transaction(recorder: ShardedRecorder, ids: RandomIds) -> None:
    """A payment's first event with all that goes with it: key, slot, call, receipt."""
    payment = asked(ids)
    recorder.insert_events(
        [payment.stored],
        cause=payment.call.cause,
        history=[payment.event],
        beside=payment.beside,
    )


def append_authorization(
    recorder: ShardedRecorder, ids: RandomIds, customer_id: str = "cus_123"
) -> UUID:
    """Both transactions of an authorization; the payment's id."""
    payment = asked(ids, customer_id)
    first = payment.event
    recorder.insert_events(
        [payment.stored], cause=payment.call.cause, history=[first], beside=payment.beside
    )
    held = {
        "bank_authorization_id": f"auth_{payment.payment_id}",
        "expires_at": HOLD_ENDS,
        "at": datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z",
    }
    second = _stored(payment.payment_id, 2, "payment.authorized", held)
    key = payment.call.cause.idempotency_key
    assert key is not None
    answer = StoredAnswer(status=201, body=b'"%s"' % (b" " * 698))
    recorder.insert_events(
        [second],
        cause=payment.call.cause,
        history=[first, MAPPER.to_domain_event(second)],
        beside=[EndCall(call=payment.call), AnswerKey(tenant=TENANT, key=key, answer=answer)],
    )
    return payment.payment_id


# Events that one call of each appends.
EVENTS: Final = {"bare": 1, "tx1": 1, "stock": 1, "authorizations": 2}


def _appender(kind: str, url: str, threads: int) -> Append:
    ids = RandomIds()
    if kind == "stock":
        library = stock.recorder(url)

        def append_to_the_library() -> None:
            library.insert_events([first_event(ids)])

        return append_to_the_library
    pool = open_pool(url, size=threads)
    ours = ShardedRecorder(pool, inline=() if kind == "bare" else INLINE)
    appends: dict[str, Callable[[ShardedRecorder, RandomIds], object]] = {
        "bare": append_first_event,
        "tx1": append_first_transaction,
        "authorizations": append_authorization,
    }
    append = appends[kind]

    def append_to_ours() -> None:
        append(ours, ids)

    return append_to_ours


# --- many of them ---------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Written:
    """What writers did in the seconds that were measured."""

    events: int = 0
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Events."""
        return self.events / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many writers of one kind, for so long."""

    kind: str
    url: str
    writers: int
    seconds: float
    warm_up_seconds: float = 1.0
    begins_at: float = 0.0


def write(load: Load) -> Written:
    """Runs the writers, in several processes."""
    processes = min(load.writers, MOST_PROCESSES)
    shares = [load.writers // processes + (n < load.writers % processes) for n in range(processes)]
    load = replace(load, begins_at=time.time() + START_SECONDS)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = list(pool.map(_write_in_threads, [replace(load, writers=it) for it in shares]))
    return Written(
        events=sum(each.events for each in done),
        seconds=load.seconds,
        milliseconds=sorted(value for each in done for value in each.milliseconds),
    )


def _write_in_threads(load: Load) -> Written:
    append = _appender(load.kind, load.url, load.writers)
    append()  # connected, and the statement prepared
    taken: list[list[float]] = [[] for _ in range(load.writers)]
    threads = [threading.Thread(target=_write_one, args=(load, append, it)) for it in taken]
    time.sleep(max(0.0, load.begins_at - time.time()))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    milliseconds = [value for each in taken for value in each]
    events = len(milliseconds) * EVENTS[load.kind]
    return Written(events=events, seconds=load.seconds, milliseconds=milliseconds)


def _write_one(load: Load, append: Append, milliseconds: list[float]) -> None:
    """Counts what ended between the warm-up's end and the measurement's."""
    measured_from = load.begins_at + load.warm_up_seconds
    measured_to = measured_from + load.seconds
    while (began := time.time()) < measured_to:
        append()
        ended = time.time()
        if measured_from <= ended < measured_to:
            milliseconds.append(round((ended - began) * 1000, 3))


# --- in the background ----------------------------------------------------------------------------


class Background:
    """Authorizations by so many writers, for as long as a block lasts."""

    def __init__(self, url: str, writers: int) -> None:
        self._url, self._writers = url, writers
        self.events = 0
        self.seconds = 0.0

    @property
    def per_second(self) -> float:
        """Events written."""
        return self.events / self.seconds if self.seconds else 0.0

    @contextmanager
    def writing(self) -> Iterator["Background"]:
        """From when all writers are at it."""
        context = multiprocessing.get_context("spawn")
        stopping, counted = context.Event(), context.Value("q", 0)
        number = min(self._writers, MOST_PROCESSES)
        shares = [self._writers // number + (n < self._writers % number) for n in range(number)]
        ready = context.Barrier(number + 1)
        processes = [
            context.Process(
                target=_write_until, args=(self._url, share, ready, stopping, counted), daemon=True
            )
            for share in shares
        ]
        for process in processes:
            process.start()
        ready.wait(READY_SECONDS)
        began = time.perf_counter()
        try:
            yield self
        finally:
            stopping.set()
            for process in processes:
                process.join()
            self.seconds = time.perf_counter() - began
            self.events = counted.value


def _write_until(url: str, writers: int, ready: Any, stopping: Any, counted: Any) -> None:
    append = _appender("authorizations", url, writers)
    append()
    ready.wait(READY_SECONDS)

    def write_on() -> None:
        while not stopping.is_set():
            append()
            with counted.get_lock():
                counted.value += EVENTS["authorizations"]

    threads = [threading.Thread(target=write_on) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- what one of them says to the database --------------------------------------------------------


class Heard:
    """Stands where a pool of connections would, and keeps what is said to the database."""

    def __init__(self) -> None:
        self.statement = ""
        self.parameters: dict[str, Any] = {}

    def connection(self) -> "Heard":
        """Itself."""
        return self

    def __enter__(self) -> "Heard":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def writer(self) -> "Heard":
        """Itself."""
        return self

    def execute(self, statement: str, parameters: dict[str, Any], **_: Any) -> None:
        """Keeps it."""
        self.statement, self.parameters = statement, parameters

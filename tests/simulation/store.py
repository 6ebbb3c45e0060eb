"""The tables, and the wire to them: every transaction may be refused, may be written and not
acknowledged, may be written after we were told that it was not, and may be where a process dies.

What is on our side of the wire is the real code, the tries and the looking whether a commit was ours
included; the tables are those of `tests/fakes.py`, which pass the same contract as Postgres.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, LiteralString, TypeVar, cast
from uuid import UUID

from eventsourcing.persistence import ApplicationRecorder, StoredEvent
from eventsourcing.utils import Environment
from psycopg import OperationalError

from domain.bank import ActionRequired, UnderWay, Unknown
from domain.commands import Cause, Tenant
from domain.errors import (
    ConcurrentChange,
    DomainError,
    KeyAlreadyClaimed,
    LeaseLost,
    StoreUnavailable,
)
from domain.ledger import PaymentLedger
from domain.payment import Payment, ReviewReason, Status
from domain.records import BankCall, Record
from infrastructure.database import Pool, unavailability_named
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from infrastructure.idempotency import Claimed
from projections.receipts import Receipts
from tests.fakes import (
    InMemoryBankCalls,
    InMemoryFactory,
    InMemoryKeys,
    InMemoryRecorder,
    InMemoryStore,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

R = TypeVar("R")

TRANSIT_SECONDS: Final = (0.0002, 0.004)
SLOW_SECONDS: Final = (0.1, 1.8)
LATE_SECONDS: Final = (0.001, 2.0)
NOTICES_SECONDS: Final = (0.001, 1.5)


class Wire:
    """Transactions, from any process to the one database."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.is_down = False

    def write(self, what: str, work: Callable[[], R]) -> R:
        """Carries `work` out in a transaction. Raises OperationalError where we cannot know."""
        world = self._world
        self._reach(what)
        if world.befalls("store_commits_late"):
            self._commit_later(what, work)
            raise OperationalError("the connection was lost, and not the statement")
        result = work()
        if world.befalls("store_acknowledgement_lost"):
            self._notice()
            raise OperationalError("the connection was lost after the commit")
        self._return(what)
        return result

    def read(self, what: str, work: Callable[[], R]) -> R:
        """The same, for what changes nothing."""
        self._reach(what)
        result = work()
        self._return(what)
        return result

    def _reach(self, what: str) -> None:
        world = self._world
        world.cross("store request", what)
        slow = world.befalls("store_slow")
        world.scheduler.pause(world.choices.between(*(SLOW_SECONDS if slow else TRANSIT_SECONDS)))
        if self.is_down or world.befalls("store_refuses"):
            self._notice()
            raise OperationalError("the database is out of reach")

    def _notice(self) -> None:
        self._world.scheduler.pause(self._world.choices.between(*NOTICES_SECONDS))

    def _return(self, what: str) -> None:
        world = self._world
        world.scheduler.pause(world.choices.between(*TRANSIT_SECONDS))
        world.cross("store reply", what)

    def _commit_later(self, what: str, work: Callable[[], object]) -> None:
        world = self._world

        def land() -> None:
            try:
                work()
            except (DomainError, ConcurrentChange, KeyAlreadyClaimed, LeaseLost) as error:
                # Nobody is there any more to be told.
                world.trace("store", f"{what} failed late", type(error).__name__)

        world.scheduler.after(world.choices.between(*LATE_SECONDS), land)
        self._notice()


class SimulatedStore(InMemoryStore):
    """The tables; each change of them is told to the checks."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.database_clock)
        self._world = world

    def record(
        self,
        stored_events: Sequence[StoredEvent],
        cause: Cause,
        history: Sequence[Payment.Event],
        beside: Sequence[Record],
    ) -> None:
        """As the fake's."""
        super().record(stored_events, cause, history, beside)
        payment_id = stored_events[0].originator_id
        assert isinstance(payment_id, UUID)
        topics = [event.topic for event in stored_events]
        self._world.trace("store", f"records of {payment_id}", topics)
        self._world.checks.recorded(payment_id, beside)


class SimulatedRecorder(ShardedRecorder):
    """The real recorder's tries and doubts, on those tables."""

    def __init__(self, wire: Wire, store: InMemoryStore) -> None:
        super().__init__(cast("Pool", None), ())
        self._wire = wire
        self._store = store
        self._plain = InMemoryRecorder(store)

    def _batch(self, stored_events: Sequence[StoredEvent], cause: Cause) -> dict[str, Any]:
        return {"events": stored_events, "cause": cause}

    def _statement(
        self, batch: dict[str, Any], history: Sequence[Payment.Event], beside: Sequence[Record]
    ) -> tuple[LiteralString, dict[str, Any]]:
        return "", {"stored_events": batch["events"], "cause": batch["cause"]} | {
            "history": tuple(history),  # as it is now, also if it is written late
            "beside": beside,
        }

    def _append(self, _statement: LiteralString, parameters: dict[str, Any]) -> None:
        self._wire.write("append", lambda: self._store.record(**parameters))

    def _was_recorded(self, batch: dict[str, Any]) -> bool:
        ours = batch["events"][-1]

        def look() -> bool:
            log = self._store.tables.events.get(ours.originator_id, [])
            return any(event is ours for event in log)

        try:
            with unavailability_named():
                return self._wire.read("was it recorded", look)
        except StoreUnavailable:
            return False

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """As the fake's, over the wire."""

        def select() -> Sequence[StoredEvent]:
            return self._plain.select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)

        return self._wire.read("select events", select)


class SimulatedFactory(InMemoryFactory):
    """Gives the library's Application that recorder."""

    def __init__(self, env: Environment, wire: Wire, store: InMemoryStore) -> None:
        super().__init__(env, store)
        self._wire = wire

    def application_recorder(self) -> ApplicationRecorder:
        return SimulatedRecorder(self._wire, self._store)


class SimulatedBankCalls(InMemoryBankCalls):
    """Leases, over the wire."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.store)
        self._world = world

    def park(self, call: BankCall, answer: Unknown | ActionRequired | UnderWay) -> None:
        assert isinstance(answer, Unknown), "its bank asks no shopper, and no other bank"
        world = self._world
        plain = super().park

        def park() -> None:
            plain(call, answer)
            world.trace("store", f"parks {call.bank_key}", answer.reason)
            world.checks.parked(call)

        with unavailability_named():
            world.wire.write("park", park)

    def take_due(self, limit: int, lease_seconds: float) -> Sequence[BankCall]:
        world = self._world
        plain = super().take_due

        def take() -> Sequence[BankCall]:
            taken = plain(limit, lease_seconds)
            for call in taken:
                world.trace("store", f"leases {call.bank_key}", call.fence)
                world.checks.leased(call)
            return taken

        return world.wire.write("take due", take)


class SimulatedKeys(InMemoryKeys):
    """Idempotency keys, over the wire."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.store)
        self._wire = world.wire

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        plain = super().find
        return self._wire.read("find key", lambda: plain(tenant, key))


class SimulatedPool:
    """A pool of connections, for the few statements that are asked for outside of any port."""

    def __init__(self, world: "World") -> None:
        self._world = world

    @contextmanager
    def connection(self) -> Iterator["SimulatedPool"]:
        yield self

    def execute(self, statement: str, parameters: dict[str, Any]) -> "Rows":
        answers = {Receipts.BY_ID: self._by_id, Receipts.PAST_THEIR_TIME: self._past_their_time}
        return self._world.wire.read("select", lambda: Rows(answers[statement](parameters)))

    def _by_id(self, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        tables, payment_id = self._world.store.tables, parameters["payment_id"]
        if payment_id not in tables.receipts:
            return []
        if self._tenant(payment_id).merchant_id != parameters["merchant_id"]:
            return []
        return [{"document": tables.receipts[payment_id]}]

    def _past_their_time(self, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        before: datetime = parameters["before"]
        found = [
            (expires_at, payment_id)
            for payment_id, receipt in self._world.store.tables.receipts.items()
            if receipt["status"] == Status.AUTHORIZED
            and receipt["pending_operation"] is None
            and not any(
                each["reason"] == ReviewReason.BANK_DISAGREES for each in receipt["reviews"]
            )
            and (expires_at := receipt["authorization_expires_at"]) is not None
            and datetime.fromisoformat(expires_at) < before
        ]
        rows = []
        for _, payment_id in sorted(found)[: parameters["limit"]]:
            tenant = self._tenant(payment_id)
            rows.append(
                {"payment_id": payment_id}
                | {"merchant_id": tenant.merchant_id, "mode": tenant.mode.value}
            )
        return rows

    def _tenant(self, payment_id: UUID) -> Tenant:
        return self._world.checks.tenants[payment_id]


class Rows:
    """What a statement found."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def fetchone(self) -> dict[str, Any] | None:
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[dict[str, Any]]:
        return self._rows


class SimulatedLedger(PaymentLedger):
    """The real ledger of one process, on those tables."""

    def __init__(self, world: "World", **ports: Any) -> None:
        self._world = world
        super().__init__({}, bank_calls=world.parts.bank_calls(world), **ports)

    def construct_factory(self, env: Environment) -> SimulatedFactory:
        return SimulatedFactory(env, self._world.wire, self._world.store)

    def construct_mapper(self) -> FlatMapper:
        return FlatMapper(FlatJSON())

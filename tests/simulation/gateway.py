"""Our processes: APIs that answer requests and workers that finish what was left over.

Each is made of the real code, from the route's handler and the idempotency rules down to the bank
driver; it dies with its memory, and another takes its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from api.app import _api_error
from api.errors import ApiError
from api.fields import validated
from api.gateway import outputs, routes
from api.gateway.inputs import MomentQuery
from api.http import Answer, Call, error_answer
from api.idempotent import once
from api.payments import refunds
from domain.commands import Mode, Tenant
from domain.errors import ConcurrentChange, DomainError, LeaseLost, StoreUnavailable
from domain.ids import Prefix, encode, uuid7
from infrastructure.api_keys import ApiKey, KeyType
from infrastructure.bank.driver import BankDriver
from infrastructure.duties import guarded
from infrastructure.services import Services
from infrastructure.settings import read_settings
from infrastructure.vault import FernetVault
from infrastructure.worker import POLL_SECONDS, Worker
from tests.builders import NOON
from tests.simulation.bank import SimulatedClient
from tests.simulation.scheduler import Host, HostClock
from tests.simulation.store import (
    SimulatedBankCalls,
    SimulatedKeys,
    SimulatedLedger,
    SimulatedPool,
    SimulatedStore,
)

if TYPE_CHECKING:
    from tests.simulation.world import World

REQUEST_DEADLINE_SECONDS: Final = 10.0
BANK_TIMEOUT_SECONDS: Final = 5.0
RESTART_SECONDS: Final = (0.5, 15.0)
STOPPED_SECONDS: Final = (20.0, 90.0)
STALLED_SECONDS: Final = (0.1, 6.0)
# All else is a 500, and a bug.
EXPECTED: Final = (
    ApiError,
    DomainError,
    StoreUnavailable,
    LeaseLost,
    ConcurrentChange,
    OperationalError,
    PoolTimeout,
)
COMMANDS: Final = {
    route.path: route for route in (*routes.ROUTES, *refunds.ROUTES) if route.is_command
}


class SeededIds:
    """UUIDs of version 7, the same in every run."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._next = 0

    def new(self) -> UUID:
        self._next += 1
        milliseconds = int((NOON.timestamp() + self._world.scheduler.now) * 1000)
        return uuid7(unix_milliseconds=milliseconds, random_bits=self._next)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A client's request."""

    tenant: Tenant
    path: str
    key: str
    body: dict[str, Any]


class Process:
    """One life of one process of ours."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.host = Host(name)
        self.clock = HostClock(world.scheduler, world.skew_of(name))
        parts = world.parts
        driver = parts.driver(
            SimulatedClient(world),
            self.clock,
            profile="ficmart",
            timeout_seconds=BANK_TIMEOUT_SECONDS,
        )
        self.ledger = parts.ledger(
            world,
            bank=driver,
            clock=self.clock,
            ids=world.ids,
            vault=world.vault,
            answers=parts.answers,
        )
        services = SimpleNamespace(
            settings=read_settings({}),
            clock=self.clock,
            ids=world.ids,
            pool=SimulatedPool(world),
            ledger=self.ledger,
            idempotency_keys=SimulatedKeys(world),
            fingerprints=world.fingerprints,
        )
        self.services = cast("Services", services)

    def spawn(self, work: Callable[[], object]) -> None:
        """Work in a thread of this process."""
        self.world.scheduler.spawn(self.host, work)


class Api(Process):
    """Answers requests."""

    def answer(self, asked: Asked) -> Answer:
        """One command, through the same gates as in the application, but for its key and its limits."""
        call = self._call(asked.tenant, asked.path, asked.key)
        route = COMMANDS[asked.path]
        assert route.body is not None
        assert route.pending is not None
        body, pending = route.body, route.pending
        try:
            answer = once(
                call,
                route.method,
                asked.body,
                lambda: route.handler(call, validated(body, asked.body, is_text=False)),
                pending,
            )
        except Exception as error:  # noqa: BLE001 - as the application's last handler
            return self._told(error, call)
        self.world.checks.answered(asked, answer)
        return answer

    def receipt(self, tenant: Tenant, payment_id: str) -> Answer:
        """One query."""
        call = self._call(tenant, outputs.receipt_url(payment_id), None)
        try:
            return routes.get_receipt(call, MomentQuery(), payment_id=payment_id)
        except Exception as error:  # noqa: BLE001 - as the application's last handler
            return self._told(error, call)

    def _told(self, error: Exception, call: Call) -> Answer:
        if not isinstance(error, EXPECTED):
            self.world.checks.crashed(error)
        return error_answer(_api_error(error), call.dialect, call.request_id)

    def _call(self, tenant: Tenant, path: str, key: str | None) -> Call:
        return Call(
            services=self.services,
            request_id=encode(Prefix.REQUEST, self.world.ids.new()),
            key=an_api_key(tenant),
            dialect="own",
            deadline=self.clock.monotonic() + REQUEST_DEADLINE_SECONDS,
            path=path,
            idempotency_key=key,
        )


def an_api_key(tenant: Tenant) -> ApiKey:
    return ApiKey(
        key_id=f"key_{tenant.merchant_id}",
        prefix="sk_test_",
        merchant_id=tenant.merchant_id,
        merchant=tenant.merchant_id,
        mode=Mode.TEST,
        type=KeyType.SECRET,
        scopes=frozenset(),
        created_at=NOON,
        expires_at=None,
        revoked_at=None,
        last_used_at=None,
        is_suspended=False,
    )


class WorkerProcess(Process):
    """Does what `Worker.run` does, but for the pruning of old rows, in tasks instead of threads."""

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        self.worker: Worker = world.parts.worker(self.services)
        threads = cast("Any", Threads(self))
        self._rounds: list[Callable[[], object]] = [
            partial(self.worker._expire_if_due, threads),
            partial(self.worker.take_up, threads),
        ]
        self.spawn(self._run)

    def _run(self) -> None:
        while True:
            for each in self._rounds:
                guarded(partial(self.reporting, each))
            self.world.scheduler.pause(POLL_SECONDS)

    def reporting(self, work: Callable[[], object]) -> None:
        """What the worker would survive, and log as a bug, is one here."""
        try:
            work()
        except (OperationalError, PoolTimeout, StoreUnavailable):
            raise
        except Exception as error:
            self.world.checks.crashed(error)
            raise


class Threads:
    """An executor whose threads are tasks."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def submit(self, guarded: Callable[..., object], work: Callable[[], object]) -> "Submitted":
        submitted = Submitted()

        def run() -> None:
            try:
                guarded(partial(self._process.reporting, work))
            finally:
                submitted.is_done = True

        self._process.spawn(run)
        return submitted


class Submitted:
    """As much of a future as the worker looks at."""

    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        return self.is_done


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What our processes are made of; a test that breaks one shows that the checks see it."""

    driver: type[BankDriver] = BankDriver
    ledger: type[SimulatedLedger] = SimulatedLedger
    store: type[SimulatedStore] = SimulatedStore
    bank_calls: type[SimulatedBankCalls] = SimulatedBankCalls
    vault: Any = FernetVault
    worker: type[Worker] = Worker
    answers: Any = outputs


class Deployment:
    """So many APIs and workers, each of which is started again when it died."""

    def __init__(self, world: "World", *, apis: int, workers: int) -> None:
        self._world = world
        self.apis = [Api(world, f"api-{n}") for n in range(1, apis + 1)]
        self.workers = [WorkerProcess(world, f"worker-{n}") for n in range(1, workers + 1)]

    def kill(self, host: Host) -> None:
        """Kills the process, and starts another in its place after a while."""
        seconds = self._world.choices.between(*RESTART_SECONDS)
        self._world.scheduler.after(seconds, lambda: self._start_again(host))
        self._world.scheduler.kill(host)

    def _start_again(self, host: Host) -> None:
        world = self._world
        world.trace("host", host.name, "starts again")
        for place, api in enumerate(self.apis):
            if api.host is host:
                self.apis[place] = Api(world, host.name)
        for place, worker in enumerate(self.workers):
            if worker.host is host:
                self.workers[place] = WorkerProcess(world, host.name)

    def go_on(self) -> None:
        """Workers that are stopped go on; APIs that are remain so, and wake up when they do."""
        for worker in self.workers:
            self._world.scheduler.go_on(worker.host)

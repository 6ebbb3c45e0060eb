"""The worker: finishes what requests did not, and sweeps.

Any number of workers may run, on any hosts: each leases what it takes up. A worker that dies is
nothing to anyone but that its leases run out first.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from domain.bank import Unknown
from domain.commands import Audience, Cause, ExpireAuthorization, Tenant
from domain.errors import ConcurrentChange, LeaseLost, PaymentStateConflict
from domain.ids import Prefix, encode
from domain.ledger import Reply, Settled
from domain.payment import Payment
from domain.records import BankCall
from infrastructure.duties import ACTOR, WORKER_FAMILY, Duties, duties_of, guarded
from infrastructure.fault_points import reached
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.services import Services, build_deliverer
from infrastructure.vault import VaultKeyUnusable
from projections.receipts import Receipts

CALLS_AT_ONCE: Final = 48
POLL_SECONDS: Final = 0.5
EXPIRY_SECONDS: Final = 2.0
EXPIRIES_AT_ONCE: Final = 8
# The bank's clock may be a little behind ours, and its word is the one that counts.
EXPIRY_GRACE: Final = timedelta(seconds=5)

# Who is waited for.
SHOPPER: Final = "awaits_shopper"
OTHER_BANK: Final = "awaits_transfer"
RECEIPTS: Final = Receipts()

log = structlog.get_logger(__name__)
RESUMED = Counter(
    "counterfoil_calls_resumed_total", "Bank calls taken up by a worker.", ["operation", "outcome"]
)


class Worker:
    """One worker process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._busy: set[Future[object]] = set()
        self._expiring: set[UUID] = set()
        self._next_expiry = 0.0

    def stop(self) -> None:
        """Asks the worker to finish what it is at, and no more."""
        self._stopping.set()

    def run(self) -> None:
        """Works until `stop`. Failures of the database are waited out."""
        engine = ProjectionEngine(self._services.pool, self._services.clock.monotonic)
        deliverer = build_deliverer(self._services)
        beside = [
            threading.Thread(target=engine.run, args=(self._stopping,), name="projections"),
            threading.Thread(target=deliverer.run, args=(self._stopping,), name="deliveries"),
        ]
        for thread in beside:
            thread.start()
        # Expiries have threads of their own: what is leased must never wait behind them.
        with (
            Duties(duties_of(self._services, self._stopping), self._stopping),
            ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call") as callers,
            ThreadPoolExecutor(EXPIRIES_AT_ONCE, thread_name_prefix="expiry") as sweepers,
        ):
            while not self._stopping.is_set():
                guarded(partial(self._expire_if_due, sweepers))
                guarded(partial(self.take_up, callers))
                self._stopping.wait(POLL_SECONDS)
        for thread in beside:
            thread.join()

    def take_up(self, executor: ThreadPoolExecutor) -> int:
        """Starts on the calls whose time has come, as many as there is room for; how many."""
        self._busy = {future for future in self._busy if not future.done()}
        room = CALLS_AT_ONCE - len(self._busy)
        if room == 0:
            return 0
        ledger = self._services.ledger
        deadline = self._deadline()
        calls = ledger.bank_calls.take_due(room, ledger.lease_seconds)
        for call in calls:
            self._busy.add(executor.submit(guarded, partial(self.resume, call, deadline)))
        return len(calls)

    def resume(self, call: BankCall, deadline: float) -> None:
        """Takes one call up, to its outcome or until it is parked again. `deadline` is counted from
        before the lease was: one that waited too long is not put to the bank any more."""
        reached("worker.resumed")
        try:
            reply = self._services.ledger.resume(call, deadline=deadline)
        except (LeaseLost, ConcurrentChange):
            outcome = "lost"
        except VaultKeyUnusable as error:
            # Nothing went out: the call must not look as if it had.
            unknown = Unknown(reason=str(error), unanswered=False, reached=False)
            self._services.ledger.bank_calls.park(call, unknown)
            outcome = "unreadable"
        else:
            outcome = _outcome(reply)
        RESUMED.labels(call.operation.value, outcome).inc()
        # They are looked for every few seconds: nobody wants to read that.
        tell = log.debug if outcome in (SHOPPER, OTHER_BANK) else log.info
        tell(
            "bank call resumed",
            bank_key=call.bank_key,
            operation=call.operation.value,
            attempts=call.attempts,
            outcome=outcome,
        )

    def _expire_if_due(self, executor: ThreadPoolExecutor) -> None:
        now = self._services.clock.monotonic()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRY_SECONDS
            self.release_expired(executor)

    def release_expired(self, executor: ThreadPoolExecutor) -> int:
        """Starts on the holds that are past their time, which the bank does not release by itself;
        how many."""
        before = self._services.clock.now() - EXPIRY_GRACE
        with self._services.pool.connection() as connection:
            found = RECEIPTS.past_their_time(connection, before, EXPIRIES_AT_ONCE)
        new = [each for each in found if each[0] not in self._expiring]
        for payment_id, tenant in new:
            self._expiring.add(payment_id)
            executor.submit(guarded, partial(self.expire, payment_id, tenant))
        return len(new)

    def expire(self, payment_id: UUID, tenant: Tenant) -> None:
        """Releases one hold, unless somebody was first."""
        reached("worker.expired")
        command = ExpireAuthorization(
            tenant=tenant,
            cause=Cause(actor=ACTOR),
            audience=Audience(family=WORKER_FAMILY),
            deadline=self._deadline(),
            payment_id=payment_id,
        )
        try:
            with suppress(PaymentStateConflict, ConcurrentChange, LeaseLost):
                reply = self._services.ledger.expire(command)
                outcome = "settled" if isinstance(reply, Settled) else "parked"
                shown = encode(Prefix.PAYMENT, payment_id)
                log.info("hold past its time", payment_id=shown, outcome=outcome)
        finally:
            self._expiring.discard(payment_id)

    def _deadline(self) -> float:
        """When a call that is begun now has to be done; well within its lease."""
        return self._services.clock.monotonic() + self._services.settings.worker_call_seconds


def _outcome(reply: Reply) -> str:
    """What came of taking a call up."""
    if isinstance(reply, Settled):
        return "settled"
    if reply.action_url is not None:
        return SHOPPER
    return OTHER_BANK if isinstance(reply.history[-1], Payment.TransferAccepted) else "parked"

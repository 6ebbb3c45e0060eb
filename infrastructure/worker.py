"""The worker: finishes what requests did not, and sweeps.

Any number of workers may run, on any hosts: each leases what it takes up. A worker that dies is
nothing to anyone but that its leases run out first.
"""

import threading
from collections.abc import Callable
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
from domain.errors import (
    ConcurrentChange,
    LeaseLost,
    PaymentStateConflict,
    StoreUnavailable,
)
from domain.ids import Prefix, encode
from domain.ledger import Reply, Settled
from domain.payment import Payment
from domain.records import BankCall
from infrastructure.audit.duties import (
    PUSHING_PAUSE_SECONDS,
    SEALING_PAUSE_SECONDS,
    Sealing,
)
from infrastructure.audit.pushes import Pushes
from infrastructure.billing_desk import BillingDesk
from infrastructure.database import UNAVAILABLE
from infrastructure.dispute_desk import DisputeDesk
from infrastructure.fault_points import reached
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.rate_limiter import PostgresWindows
from infrastructure.reconciliation_schedule import ReconciliationSchedule
from infrastructure.services import Services, bank_disputes, build_deliverer
from infrastructure.vault import VaultKeyUnusable
from projections.receipts import Receipts

CALLS_AT_ONCE: Final = 48
POLL_SECONDS: Final = 0.5
SWEEP_SECONDS: Final = 600.0
EXPIRY_SECONDS: Final = 2.0
ERASURE_SECONDS: Final = 10.0
EXPIRIES_AT_ONCE: Final = 8
DISPUTES_SECONDS: Final = 2.0
PUSHED_IN_SECONDS: Final = 2.0
# The bank's clock may be a little behind ours, and its word is the one that counts.
EXPIRY_GRACE: Final = timedelta(seconds=5)

ACTOR: Final = "worker"
WORKER_FAMILY: Final = "worker"
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
        self._busy: set[Future[None]] = set()
        self._expiring: set[UUID] = set()
        self._next_sweep = self._next_expiry = self._next_erasure = 0.0
        self._next_disputes = 0.0
        self._reconciling: Future[None] | None = None
        self._disputing: Future[None] | None = None
        self._billing: Future[None] | None = None
        self._schedule = ReconciliationSchedule(services, self._stopping, Cause(actor=ACTOR))

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
            threading.Thread(target=self._seal, name="sealing"),
        ]
        # A place outside may be slow to the last: nobody waits for it, not even whoever stops us.
        pushing = threading.Thread(target=self._push, name="pushing", daemon=True)
        for thread in (*beside, pushing):
            thread.start()
        # Expiries have threads of their own: what is leased must never wait behind them.
        with (
            ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="call") as callers,
            ThreadPoolExecutor(EXPIRIES_AT_ONCE, thread_name_prefix="expiry") as sweepers,
            ThreadPoolExecutor(1, thread_name_prefix="reconciliation") as reconciler,
            ThreadPoolExecutor(1, thread_name_prefix="disputes") as desk,
            ThreadPoolExecutor(1, thread_name_prefix="billing") as biller,
        ):
            while not self._stopping.is_set():
                self._guarded(self._sweep_if_due)
                self._guarded(partial(self._expire_if_due, sweepers))
                self._guarded(self._erase_if_due)
                self._guarded(partial(self.take_up, callers))
                self._reconcile_if_due(reconciler)
                self._work_on_disputes_if_due(desk)
                self._bill_if_due(biller)
                self._stopping.wait(POLL_SECONDS)
        for thread in beside:
            thread.join()
        pushing.join(PUSHED_IN_SECONDS)

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
            self._busy.add(executor.submit(self._guarded, partial(self.resume, call, deadline)))
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
            executor.submit(self._guarded, partial(self.expire, payment_id, tenant))
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

    def _erase_if_due(self) -> None:
        now = self._services.clock.monotonic()
        if now >= self._next_erasure:
            self._next_erasure = now + ERASURE_SECONDS
            self._services.erasure.carry_out_due(Cause(actor=ACTOR))

    def _reconcile_if_due(self, executor: ThreadPoolExecutor) -> None:
        is_at_it = self._reconciling is not None and not self._reconciling.done()
        if not is_at_it and self._schedule.is_due_to_look():
            self._reconciling = executor.submit(self._guarded, self._schedule.reconcile_if_due)

    def _work_on_disputes_if_due(self, executor: ThreadPoolExecutor) -> None:
        now = self._services.clock.monotonic()
        is_at_it = self._disputing is not None and not self._disputing.done()
        if is_at_it or now < self._next_disputes:
            return
        self._next_disputes = now + DISPUTES_SECONDS
        self._disputing = executor.submit(self._guarded, self.work_on_disputes)

    def work_on_disputes(self) -> int:
        """What the bank tells of disputes, and what it is to be told, where it has any; how much."""
        services = self._services
        if not services.ledger.bank.capabilities.disputes:
            return 0
        bank = bank_disputes(services)
        return DisputeDesk(services.pool, services.ledger, bank, Cause(actor=ACTOR)).work()

    def _bill_if_due(self, executor: ThreadPoolExecutor) -> None:
        if self._billing is None or self._billing.done():
            self._billing = executor.submit(self._guarded, self.bill)

    def bill(self) -> int:
        """What falls due of subscriptions; how many steps that were."""
        services = self._services
        desk = BillingDesk(
            pool=services.pool,
            billing=services.billing,
            wallet=services.wallet,
            clocks=services.test_clocks,
            clock=services.clock,
            cause=Cause(actor=ACTOR),
            audience=Audience(family=WORKER_FAMILY),
            call_seconds=services.settings.worker_call_seconds,
        )
        return desk.work()

    def _seal(self) -> None:
        """Puts the log into one order and signs it, wherever no other worker does."""
        services = self._services
        sealing = Sealing(services.pool, services.settings, services.clock)
        self._repeat(sealing.step, SEALING_PAUSE_SECONDS)
        self._guarded(sealing.end)

    def _push(self) -> None:
        """Tells places outside what was signed."""
        pushes = Pushes(self._services.pool, self._services.settings.checkpoint_push)
        self._repeat(lambda: pushes.step() > 0, PUSHING_PAUSE_SECONDS)

    def _repeat(self, step: Callable[[], bool], pause_seconds: float) -> None:
        """Again and again until we stop, with a pause unless a step says that there is more."""
        is_more = False

        def once() -> None:
            nonlocal is_more
            is_more = step()

        while not self._stopping.is_set():
            is_more = False
            self._guarded(once)
            if not is_more:
                self._stopping.wait(pause_seconds)

    def _deadline(self) -> float:
        """When a call that is begun now has to be done; well within its lease."""
        return self._services.clock.monotonic() + self._services.settings.worker_call_seconds

    def _sweep_if_due(self) -> None:
        now = self._services.clock.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        keys = self._services.idempotency_keys.prune()
        windows = PostgresWindows(self._services.pool).prune()
        cvcs = self._services.cards.forget_old_cvcs()
        tokens = self._services.cards.forget_old_tokens()
        if keys or windows or cvcs or tokens:
            log.info(
                "swept", idempotency_keys=keys, rate_limit_windows=windows, cvcs=cvcs, tokens=tokens
            )

    def _guarded(self, work: Callable[[], object]) -> None:
        """The worker outlives whatever happens to one piece of its work."""
        try:
            work()
        except (*UNAVAILABLE, StoreUnavailable) as error:
            log.warning("the database is out of reach", error=type(error).__name__)
        except Exception:
            log.exception("a piece of work failed")


def _outcome(reply: Reply) -> str:
    """What came of taking a call up."""
    if isinstance(reply, Settled):
        return "settled"
    if reply.action_url is not None:
        return SHOPPER
    return OTHER_BANK if isinstance(reply.history[-1], Payment.TransferAccepted) else "parked"

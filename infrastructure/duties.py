"""What a worker does again and again beside what it takes up of payments: old rows are pruned, deleted
customers erased, the bank's books compared, disputes heard of, subscriptions billed, the log sealed and
its head told outside. Each duty has a thread of its own, so that none waits for another.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

import structlog

from domain.commands import Audience, Cause
from domain.errors import StoreUnavailable
from infrastructure.audit.duties import PUSHING_PAUSE_SECONDS, SEALING_PAUSE_SECONDS, Sealing
from infrastructure.audit.pushes import Pushes
from infrastructure.billing_desk import BillingDesk
from infrastructure.database import UNAVAILABLE
from infrastructure.dispute_desk import DisputeDesk
from infrastructure.rate_limiter import PostgresWindows
from infrastructure.reconciliation_schedule import LOOK_EVERY_SECONDS, ReconciliationSchedule
from infrastructure.services import Services, bank_disputes

SWEEP_SECONDS: Final = 600.0
# Rows of one kind: so many fit well into the time that a statement may take.
SWEPT_AT_ONCE: Final = 1_000
ERASURE_SECONDS: Final = 10.0
DISPUTES_SECONDS: Final = 2.0
BILLING_SECONDS: Final = 0.5
# How long a worker that stops waits for a duty that may hang.
LET_GO_SECONDS: Final = 2.0

ACTOR: Final = "worker"
WORKER_FAMILY: Final = "worker"

log = structlog.get_logger(__name__)


def guarded(work: Callable[[], object]) -> object:
    """What `work` returns; None where it fails. The worker outlives whatever happens to one piece of
    its work."""
    try:
        return work()
    except (*UNAVAILABLE, StoreUnavailable) as error:
        log.warning("the database is out of reach", error=type(error).__name__)
    except Exception:
        log.exception("a piece of work failed")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """`step`: some of it; True where there is more at once. `rest_seconds`: the pause where there is
    not. `end`: what is left to do when the worker stops. `may_hang`: then it is not waited for."""

    name: str
    step: Callable[[], object]
    rest_seconds: float
    end: Callable[[], object] | None = None
    may_hang: bool = False

    def carry_out(self, stopping: threading.Event) -> None:
        """Until `stopping`."""
        while not stopping.is_set():
            if guarded(self.step) is not True:
                stopping.wait(self.rest_seconds)
        if self.end is not None:
            guarded(self.end)


class Duties:
    """All of them, from when the block is entered until the worker stops."""

    def __init__(self, duties: Sequence[Duty], stopping: threading.Event) -> None:
        self._threads = [
            threading.Thread(
                target=duty.carry_out, args=(stopping,), name=duty.name, daemon=duty.may_hang
            )
            for duty in duties
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for thread in self._threads:
            thread.join(LET_GO_SECONDS if thread.daemon else None)


def duties_of(services: Services, stopping: threading.Event) -> tuple[Duty, ...]:
    """One worker's."""
    schedule = ReconciliationSchedule(services, stopping, Cause(actor=ACTOR))
    sealing = Sealing(services.pool, services.settings, services.clock)
    pushes = Pushes(services.pool, services.settings.checkpoint_push)
    return (
        Duty(name="sweep", step=lambda: sweep(services), rest_seconds=SWEEP_SECONDS),
        Duty(name="erasure", step=lambda: erase(services, stopping), rest_seconds=ERASURE_SECONDS),
        Duty(
            name="reconciliation",
            step=schedule.reconcile_if_due,
            rest_seconds=LOOK_EVERY_SECONDS,
        ),
        Duty(
            name="disputes",
            step=lambda: work_on_disputes(services),
            rest_seconds=DISPUTES_SECONDS,
        ),
        Duty(name="billing", step=billing_desk(services).work, rest_seconds=BILLING_SECONDS),
        Duty(
            name="sealing",
            step=sealing.step,
            rest_seconds=SEALING_PAUSE_SECONDS,
            end=sealing.end,
        ),
        Duty(
            name="pushing",
            step=lambda: pushes.step() > 0,
            rest_seconds=PUSHING_PAUSE_SECONDS,
            may_hang=True,  # a place outside may be slow to the last
        ),
    )


def sweep(services: Services) -> bool:
    """Prunes what is kept for a while only, some of each kind; whether there may be more of any. One kind
    that cannot be pruned now keeps no other from it."""
    kinds: dict[str, Callable[[int], int]] = {
        "cvcs": services.cards.forget_old_cvcs,
        "tokens": services.cards.forget_old_tokens,
        "used_tokens": services.cards.forget_used_tokens,
        "idempotency_keys": services.idempotency_keys.prune,
        "rate_limit_windows": PostgresWindows(services.pool).prune,
    }
    pruned = {kind: guarded(partial(prune, SWEPT_AT_ONCE)) for kind, prune in kinds.items()}
    if any(pruned.values()):
        log.info("swept", **pruned)
    if None in pruned.values():
        log.warning(
            "not all was swept", left=[kind for kind, rows in pruned.items() if rows is None]
        )
    return SWEPT_AT_ONCE in pruned.values()


def erase(services: Services, stopping: threading.Event) -> None:
    """Erases once more who was deleted, after whatever was on its way then."""
    services.erasure.carry_out_due(Cause(actor=ACTOR), stopping.is_set)


def work_on_disputes(services: Services) -> int:
    """What the bank tells of disputes, and what it is to be told, where it has any; how much."""
    if not services.ledger.bank.capabilities.disputes:
        return 0
    bank = bank_disputes(services)
    return DisputeDesk(services.pool, services.ledger, bank, Cause(actor=ACTOR)).work()


def billing_desk(services: Services) -> BillingDesk:
    """Where what falls due of subscriptions is done."""
    return BillingDesk(
        pool=services.pool,
        billing=services.billing,
        wallet=services.wallet,
        clocks=services.test_clocks,
        clock=services.clock,
        cause=Cause(actor=ACTOR),
        audience=Audience(family=WORKER_FAMILY),
        call_seconds=services.settings.worker_call_seconds,
    )

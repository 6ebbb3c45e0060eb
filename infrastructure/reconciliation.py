"""The reconciliation: every receipt against the bank's record, a page at a time.

A page is done when each of its payments was compared as it is now, or has an operation outstanding,
or is one of which the bank, though it is well, does not say what it has. A bank that is not well ends
the run where it is: nothing is made of what it does not have meanwhile.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter as Metric

from domain.bank_records import BankRecords
from domain.commands import Cause, Tenant
from domain.errors import ConcurrentChange, OperationInProgress
from domain.ids import Prefix, encode
from domain.ledger import PaymentLedger
from domain.payment import Difference
from domain.ports import Clock
from domain.reconciliation import RecordNotTold, differences
from infrastructure.bank.records import Stopped
from infrastructure.database import Pool
from infrastructure.reconciliation_runs import (
    HELD_SECONDS,
    Finding,
    Page,
    ReconciliationRuns,
    Report,
    Run,
    held,
)
from infrastructure.shards import SHARDS
from projections.receipts import Receipts

# What is asked of the bank, at most, where nothing else is said.
RATE_PER_SECOND: Final = 10.0
PAYMENTS_IN_A_PAGE: Final = 50
# So many payments are begun for each that can be at the bank: none is waited for while there is room,
# and a killed run loses no more than these.
BEGUN_FOR_EACH_AT_ONCE: Final = 2
# The bank takes up to two seconds for an answer, and the pace is kept all the same.
LONGEST_ANSWER_SECONDS: Final = 2.0
MOST_AT_ONCE: Final = 64
HOLD_AGAIN_SECONDS: Final = HELD_SECONDS / 6
# How often a payment is compared anew because it changed meanwhile; one that is so busy is for the
# next run.
TIMES_COMPARED: Final = 5
RECEIPTS: Final = Receipts()

Progress = Callable[[int, int], None]

log = structlog.get_logger(__name__)
FOUND = Metric(
    "counterfoil_differences_found_total", "Differences from the bank's records, as seen.", ["kind"]
)


class BankNotWell(Exception):
    """The bank says that it is not well, or says nothing. What was done is kept."""


class Outcome(Enum):
    """What came of one payment."""

    CHECKED = "checked"
    SKIPPED = "skipped"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One payment, and where it differs."""

    payment_id: UUID
    outcome: Outcome
    found: Sequence[Difference] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A page whose payments are being compared."""

    shard: int
    after: UUID
    compared: Sequence[Future[Compared]]


class Reconciliation:
    """Compares the payments of a run. `rate_per_second`: at which `records` asks, which says how many
    payments are to be at the bank at once for that."""

    def __init__(
        self,
        *,
        pool: Pool,
        ledger: PaymentLedger,
        runs: ReconciliationRuns,
        records: BankRecords,
        clock: Clock,
        rate_per_second: float = RATE_PER_SECOND,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._runs = runs
        self._records = records
        self._clock = clock
        self._at_once = min(MOST_AT_ONCE, ceil(rate_per_second * LONGEST_ANSWER_SECONDS))
        self._given_up = threading.Event()

    def carry_out(self, run: Run, cause: Cause, progress: Progress | None = None) -> Report:
        """Goes on with `run` to its end. `progress` is told payments done, and of how many.

        Raises BankNotWell, RunLost, and Stopped where `records` is told to stop; then what was done is
        kept, and the run can be gone on with.
        """
        with held(self._runs, run):
            if not self._records.is_well():
                raise BankNotWell
            with ThreadPoolExecutor(self._at_once, thread_name_prefix="reconcile") as executor:
                try:
                    self._every_page(run, cause, executor, progress)
                except BaseException:
                    self._given_up.set()  # nothing more is asked for a page that will not be kept
                    raise
            return self._runs.finish(run)

    def _every_page(
        self, run: Run, cause: Cause, executor: ThreadPoolExecutor, progress: Progress | None
    ) -> None:
        """Pages are begun while others wait for the bank, and done in their order: so the cursor of
        a shard never passes what is not done."""
        done, of = 0, 0 if progress is None else self._count(run)
        begun: deque[_Begun] = deque()
        for begun_page in self._pages(run, cause, executor):
            if begun_page is not None:
                begun.append(begun_page)
            while begun and (begun_page is None or self._are_enough(begun)):
                page = begun.popleft()
                self._runs.advance(run, self._done(run, page))
                done += len(page.compared)
                if progress is not None:
                    progress(min(done, of), of)

    def _are_enough(self, begun: Iterable["_Begun"]) -> bool:
        return sum(len(page.compared) for page in begun) > BEGUN_FOR_EACH_AT_ONCE * self._at_once

    def _count(self, run: Run) -> int:
        """How many payments are left to do."""
        with self._pool.connection() as connection:
            return sum(
                RECEIPTS.count_changed(connection, shard, self._runs.after(run, shard), run.since)
                for shard in range(SHARDS)
            )

    def _pages(
        self, run: Run, cause: Cause, executor: ThreadPoolExecutor
    ) -> Iterator["_Begun | None"]:
        """Every page, begun; None at the end."""
        for shard in range(SHARDS):
            after = self._runs.after(run, shard)
            while payments := self._next_page(run, shard, after):
                futures = [executor.submit(self._compared, *each, cause) for each in payments]
                after = payments[-1][0]
                yield _Begun(shard=shard, after=after, compared=futures)
        yield None

    def _next_page(self, run: Run, shard: int, after: UUID) -> list[tuple[UUID, Tenant]]:
        with self._pool.connection() as connection:
            return RECEIPTS.changed(connection, shard, after, run.since, PAYMENTS_IN_A_PAGE)

    def _done(self, run: Run, page: "_Begun") -> Page:
        compared = [future.result() for future in self._as_they_come(run, page.compared)]
        counts = Counter(each.outcome for each in compared)
        return Page(
            shard=page.shard,
            after=page.after,
            checked=counts[Outcome.CHECKED],
            skipped=counts[Outcome.SKIPPED],
            unanswered=counts[Outcome.UNANSWERED],
            findings=[
                Finding(payment_id=each.payment_id, difference=difference)
                for each in compared
                for difference in each.found
            ],
        )

    def _as_they_come(
        self, run: Run, futures: Sequence[Future[Compared]]
    ) -> Iterator[Future[Compared]]:
        """However long the bank takes, the run is held."""
        waiting = set(futures)
        held_at = self._clock.monotonic()
        while waiting:
            done, waiting = wait(waiting, timeout=HOLD_AGAIN_SECONDS, return_when=FIRST_COMPLETED)
            yield from done
            if self._clock.monotonic() - held_at >= HOLD_AGAIN_SECONDS:
                self._runs.hold(run)
                held_at = self._clock.monotonic()

    # --- one payment ---------------------------------------------------------------------------

    def _compared(self, payment_id: UUID, tenant: Tenant, cause: Cause) -> Compared:
        """The payment as it is now. One that changed while it was looked at is looked at again."""
        for _ in range(TIMES_COMPARED):
            if self._given_up.is_set():
                raise Stopped
            payment = self._ledger.payment(payment_id, tenant)
            if payment.running is not None:
                break
            try:
                found = differences(payment, self._records, now=self._clock.now())
                if found:
                    self._ledger.note_differences(payment, found, cause)
            except (ConcurrentChange, OperationInProgress):
                continue
            except RecordNotTold as error:
                return self._not_told(payment_id, error)
            self._count_found(payment_id, found)
            return Compared(payment_id=payment_id, outcome=Outcome.CHECKED, found=found)
        return Compared(payment_id=payment_id, outcome=Outcome.SKIPPED)

    def _not_told(self, payment_id: UUID, error: RecordNotTold) -> Compared:
        if not error.bank_is_well:
            raise BankNotWell from error
        shown = encode(Prefix.PAYMENT, payment_id)
        log.warning("the bank does not say what it has", payment_id=shown, reason=str(error))
        return Compared(payment_id=payment_id, outcome=Outcome.UNANSWERED)

    def _count_found(self, payment_id: UUID, found: Sequence[Difference]) -> None:
        for difference in found:
            FOUND.labels(difference.kind.value).inc()
            log.warning(
                "the bank's record differs",
                payment_id=encode(Prefix.PAYMENT, payment_id),
                kind=difference.kind.value,
                ours=difference.ours,
                bank=difference.bank,
            )

"""What falls due of subscriptions, done by a worker: periods begin, invoices are tried, first payments
are given up. Any number of workers may look at the same: what one has done is due no more, and what two
try at once only one can record."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, LiteralString, TypeVar
from uuid import UUID

import structlog

from domain.billing import Billing, Wallet
from domain.commands import Audience, Cause, Command, Mode, Tenant
from domain.errors import (
    BankUnavailable,
    ConcurrentChange,
    IntentStateConflict,
    InvoiceStateConflict,
    LeaseLost,
    StoreUnavailable,
    SubscriptionStateConflict,
)
from domain.ids import Prefix, encode
from domain.payment import rfc3339
from domain.ports import Clock
from infrastructure.database import UNAVAILABLE, Pool
from infrastructure.fault_points import reached
from infrastructure.test_clocks import TestClock, TestClocks

AT_ONCE: Final = 200
THREADS: Final = 8
CLOCKS_AT_ONCE: Final = 20
# What falls due of one clock before others have their turn.
STEPS_AT_ONCE: Final = 50
# How long what has to wait is not looked at again: it is not to stand in the way of what need not.
WAIT_SECONDS: Final = 30.0

DUE: Final[LiteralString] = """
    (SELECT 'subscription' AS kind, id, merchant_id, mode, document ->> 'due_at' AS due_at
     FROM subscriptions
     WHERE document ->> 'clock_id' IS NULL AND document ->> 'due_at' <= %(now)s
       AND NOT id || (document ->> 'due_at') = ANY(%(waiting)s::text[])
     ORDER BY document ->> 'due_at' LIMIT %(limit)s)
    UNION ALL
    (SELECT 'invoice', id, merchant_id, mode, document ->> 'due_at' FROM invoices
     WHERE document ->> 'clock_id' IS NULL AND document ->> 'due_at' <= %(now)s
       AND NOT id || (document ->> 'due_at') = ANY(%(waiting)s::text[])
     ORDER BY document ->> 'due_at' LIMIT %(limit)s)
    ORDER BY due_at LIMIT %(limit)s
"""
# Invoices before the subscriptions of the same moment: what one of them decides, the other is told.
NEXT_BY_CLOCK: Final[LiteralString] = """
    (SELECT 'subscription' AS kind, id, merchant_id, mode, document ->> 'due_at' AS due_at
     FROM subscriptions
     WHERE document ->> 'clock_id' = %(clock_id)s AND document ->> 'due_at' <= %(now)s
       AND NOT id || (document ->> 'due_at') = ANY(%(waiting)s::text[])
     ORDER BY document ->> 'due_at' LIMIT 1)
    UNION ALL
    (SELECT 'invoice', id, merchant_id, mode, document ->> 'due_at' FROM invoices
     WHERE document ->> 'clock_id' = %(clock_id)s AND document ->> 'due_at' <= %(now)s
       AND NOT id || (document ->> 'due_at') = ANY(%(waiting)s::text[])
     ORDER BY document ->> 'due_at' LIMIT 1)
    ORDER BY due_at, kind LIMIT 1
"""
# Not those that wait for a shopper, who may never come.
IS_PAYING: Final[LiteralString] = """
    SELECT count(*) > 0 AS is_paying FROM invoices AS i
    JOIN payment_intents AS t
      ON t.shard = i.shard AND t.id = (i.document ->> 'intent_uuid')::uuid
    JOIN receipts AS r
      ON r.shard = t.shard AND r.payment_id = (t.document ->> 'last_payment')::uuid
    WHERE i.document ->> 'clock_id' = %(clock_id)s AND (i.document ->> 'is_attempted')::boolean
      AND r.document ->> 'action_url' IS NULL
"""
# Something else has to happen first: a payment that is under way, or one that somebody has made.
WAITS: Final = (IntentStateConflict, InvoiceStateConflict, SubscriptionStateConflict)


class Taken(StrEnum):
    """What came of a step."""

    DONE = "done"
    WAITS = "waits"
    LATER = "later"  # somebody else was first, or the bank is down


OUT_OF_REACH: Final = (*UNAVAILABLE, StoreUnavailable)

Thing = TypeVar("Thing")
Done = TypeVar("Done")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that is due, `when` it is by the time that its customer lives by."""

    kind: str
    id: UUID
    tenant: Tenant
    when: datetime


class BillingDesk:
    """What a worker does about subscriptions."""

    def __init__(
        self,
        *,
        pool: Pool,
        billing: Billing,
        wallet: Wallet,
        clocks: TestClocks,
        clock: Clock,
        cause: Cause,
        audience: Audience,
        call_seconds: float,
        at_once: int = AT_ONCE,
    ) -> None:
        self._pool = pool
        self._billing = billing
        self._wallet = wallet
        self._clocks = clocks
        self._clock = clock
        self._cause = cause
        self._audience = audience
        self._call_seconds = call_seconds
        self._at_once = at_once
        self._waiting: dict[str, float] = {}  # what is due, and until when it is left alone

    def work(self) -> int:
        """What is due now, and what clocks of tests make due; how many steps that were."""
        return self.work_by_the_clock() + self.advance_clocks()

    def work_by_the_clock(self) -> int:
        """What is due by real time."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        self._waiting = {due: end for due, end in self._waiting.items() if end > monotonic}
        waiting = list(self._waiting)
        rows = self._rows(DUE, now=rfc3339(now), limit=self._at_once, waiting=waiting)
        taken = dict(zip(map(_due, rows), self._all(self._taker(now), rows), strict=True))
        for due, outcome in taken.items():
            if outcome in (Taken.WAITS, None):
                self._waiting[due] = monotonic + WAIT_SECONDS
        return sum(outcome is Taken.DONE for outcome in taken.values())

    def _taker(self, now: datetime) -> Callable[[dict[str, Any]], Taken]:
        return lambda row: self.take(_step(row, now))

    def advance_clocks(self) -> int:
        """Each clock that is on its way: what falls due, in order."""
        clocks = self._clocks.advancing(CLOCKS_AT_ONCE)
        return sum(steps or 0 for steps in self._all(self.advance, clocks))

    def _all(self, work: Callable[[Thing], Done], things: Sequence[Thing]) -> list[Done | None]:
        """What came of each, at the same time; None where it failed, which is no other's business. Raises
        what says that the database is out of reach."""
        if not things:
            return []
        with ThreadPoolExecutor(THREADS, thread_name_prefix="billing") as executor:
            return list(_results([executor.submit(work, each) for each in things]))

    def advance(self, clock: TestClock) -> int:
        """Takes a clock further, to its target if nothing is left to do; how many steps that were."""
        public_id = encode(Prefix.TEST_CLOCK, clock.id)
        waiting: list[str] = []  # what, and when: once it goes on, it waits no more
        for taken in range(STEPS_AT_ONCE):
            (paying,) = self._rows(IS_PAYING, clock_id=public_id)
            if paying["is_paying"]:
                return taken
            now = rfc3339(clock.target_time)
            rows = self._rows(NEXT_BY_CLOCK, clock_id=public_id, now=now, waiting=waiting)
            if not rows:
                self._clocks.arrive(clock)
                return taken
            due_at = datetime.fromisoformat(rows[0]["due_at"])
            self._clocks.reach(clock.id, due_at)
            reached("clock.reached")
            match self.take(_step(rows[0], due_at)):
                case Taken.LATER:
                    return taken
                case Taken.WAITS:
                    waiting.append(_due(rows[0]))
                case Taken.DONE:
                    pass
        return STEPS_AT_ONCE

    def take(self, step: Step) -> Taken:
        """Takes one step, unless somebody was first."""
        try:
            if step.kind == "invoice":
                self._collect(step)
            else:
                subscription = self._billing.subscription(step.id, step.tenant)
                self._billing.go_on(subscription, self._cause, when=step.when)
        except WAITS:
            return Taken.WAITS
        except (BankUnavailable, ConcurrentChange, LeaseLost) as error:
            log.info("a step of billing is left for later", reason=type(error).__name__)
            return Taken.LATER
        return Taken.DONE

    def _collect(self, step: Step) -> None:
        command = Command(
            tenant=step.tenant,
            cause=self._cause,
            audience=self._audience,
            deadline=self._clock.monotonic() + self._call_seconds,
        )
        due = self._billing.due(step.id, step.tenant)
        self._billing.collect(due, self._wallet, command, when=step.when)

    def _rows(self, statement: LiteralString, **parameters: Any) -> Sequence[dict[str, Any]]:
        with self._pool.connection() as connection:
            return connection.execute(statement, parameters).fetchall()


def _results(futures: Iterable[Future[Done]]) -> Iterator[Done | None]:
    for future in futures:
        error = future.exception()
        if error is None:
            yield future.result()
        elif isinstance(error, Exception) and not isinstance(error, OUT_OF_REACH):
            log.error("a step of billing failed", exc_info=error)
            yield None
        else:
            raise error


def _due(row: dict[str, Any]) -> str:
    """What, and when it is due: once it goes on, that is another."""
    return f"{row['id']}{row['due_at']}"


def _step(row: dict[str, Any], when: datetime) -> Step:
    tenant = Tenant(row["merchant_id"], Mode(row["mode"]))
    return Step(kind=row["kind"], id=row["id"], tenant=tenant, when=when)

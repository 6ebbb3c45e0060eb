"""A subscription over a year and more of a clock that tests move, with cards that decline, a bank that
stalls and forgets, processes that die, and merchants who change their minds: its periods have no gaps, and
each is paid once at most.
"""

import contextlib
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from domain.billing import Billing, RetryTerms
from domain.billing_periods import Interval
from domain.commands import Audience, Cause, Command, Instrument, Tenant
from domain.errors import DomainError, IntentStateConflict, LeaseLost, PaymentMethodNotFound
from domain.ids import Prefix, decode
from domain.intents import PaymentIntents
from domain.invoice import Invoice, InvoiceStatus, intent_of
from domain.ledger import LEASE_SECONDS
from domain.payment import rfc3339
from domain.subscription import ENDED, Plan, Subscription, SubscriptionStatus
from infrastructure import billing_desk
from infrastructure.billing_desk import BillingDesk
from infrastructure.test_clocks import TestClock
from projections.invoices import Invoices
from projections.subscriptions import Subscriptions
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    NOON,
    a_card,
    a_subscription,
    a_tenant,
    an_empty_card,
    dollars,
)
from tests.fakes import InMemoryLedger, Misfortune

CLOCK = "clock_00000000000000000000000001"
CLOCK_ID = decode(Prefix.TEST_CLOCK, CLOCK)
CAUSE = Cause(actor="worker")
CARDS = {"pm_good": a_card(), "pm_empty": an_empty_card()}
RETRIES = RetryTerms()
ROUNDS = 60

misfortunes = st.lists(st.sampled_from(Misfortune), max_size=3)
plans = st.builds(
    Plan,
    unit=st.just(dollars(5)),
    interval=st.sampled_from([Interval.WEEK, Interval.MONTH, Interval.YEAR]),
    interval_count=st.integers(1, 2),
)
anchors = st.sampled_from([NOON, NOON.replace(month=1, day=31), NOON.replace(month=2, day=28)])
wishes = st.sampled_from([*CARDS, "pm_gone"])


class Died(BaseException):
    """The process is no more."""


class Purse:
    """The port `Wallet`, with a card that is there no more."""

    def instrument(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        del tenant, customer_id
        if method_id not in CARDS:
            raise PaymentMethodNotFound("There is no such payment method.")
        return Instrument(method_id=method_id, means=CARDS[method_id], fingerprint="0f")


class Clocks:
    """One clock, in memory."""

    def __init__(self, at: datetime) -> None:
        self.frozen = self.target = at
        self.is_ready = True

    def advance(self, days: int) -> None:
        self.target, self.is_ready = self.frozen + timedelta(days=days), False

    def advancing(self, limit: int) -> list[TestClock]:
        del limit
        return [] if self.is_ready else [self.clock()]

    def clock(self) -> TestClock:
        return TestClock(
            id=CLOCK_ID,
            tenant=a_tenant(),
            name=None,
            frozen_time=self.frozen,
            target_time=self.target,
            is_ready=self.is_ready,
            created_at=self.frozen,
        )

    def reach(self, clock_id: UUID, at: datetime) -> None:
        assert clock_id == CLOCK_ID
        self.frozen = min(self.target, max(self.frozen, at))

    def arrive(self, clock: TestClock) -> None:
        assert clock.target_time == self.target
        self.frozen, self.is_ready = self.target, True


class DeskInMemory(BillingDesk):
    """The worker's desk on what the ledger in memory has: what is due is what the read models say."""

    ledger: InMemoryLedger

    def _rows(self, statement: LiteralString, **parameters: Any) -> list[dict[str, Any]]:
        if statement == billing_desk.IS_PAYING:
            return [{"is_paying": self._is_paying()}]
        assert statement == billing_desk.NEXT_BY_CLOCK
        rows = [
            {"kind": kind, "id": each.id, "merchant_id": each.tenant.merchant_id, "mode": "test"}
            | {"due_at": document["due_at"]}
            for kind, each, document in documents(self.ledger)
            if document["due_at"] is not None
            and document["due_at"] <= parameters["now"]
            and f"{each.id}{document['due_at']}" not in parameters["waiting"]
        ]
        return sorted(rows, key=lambda row: (row["due_at"], row["kind"]))[:1]

    def _is_paying(self) -> bool:
        return any(document.get("is_attempted") for _, _, document in documents(self.ledger))


def documents(ledger: InMemoryLedger) -> list[tuple[str, Any, dict[str, Any]]]:
    """What there is of subscriptions and invoices, as the read models have it."""
    found: list[tuple[str, Any, dict[str, Any]]] = []
    for aggregate_id in ledger.store.tables.events:
        each: Any = ledger.repository.get(aggregate_id)
        if isinstance(each, Subscription):
            found.append(("subscription", each, Subscriptions().fold(each.history)))
        elif isinstance(each, Invoice):
            found.append(("invoice", each, Invoices().fold(each.history)))
    return found


class SubscriptionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        self.bank = self.ledger.fake_bank
        self.dies_at: int | None = None
        self.ended_as: SubscriptionStatus | None = None
        self.restart()

    @initialize(plan=plans, anchor=anchors, method=wishes, luck=misfortunes)
    def subscribe(self, plan: Plan, anchor: datetime, method: str, luck: list[Misfortune]) -> None:
        self.clocks = Clocks(anchor)
        subscription = a_subscription(
            plan,
            anchor=anchor,
            clock_id=CLOCK,
            payment_method_id=method,
            subscription_id=self.ledger.ids.new(),
        )
        self.id = subscription.id
        due, intent = self.billing.begin(subscription, when=anchor)
        if method not in CARDS:
            self.ledger.record((subscription, due.invoice, intent), CAUSE, ())
            return
        instrument = Purse().instrument(a_tenant(), method, "cus_1")
        self.unlucky(
            luck, lambda: self.billing.pay(due, instrument, self.command(), intent, when=anchor)
        )

    # --- what happens ---

    @rule(days=st.integers(1, 45), luck=misfortunes)
    def time_goes_by(self, days: int, luck: list[Misfortune]) -> None:
        self.clocks.advance(days)
        self.unlucky(luck, lambda: self.desk().advance_clocks())
        self.arrive()

    @rule(days=st.integers(20, 45), calls=st.integers(0, 3))
    def a_worker_dies_on_the_way(self, days: int, calls: int) -> None:
        self.clocks.advance(days)
        dies_after(self.ledger, calls)
        with contextlib.suppress(Died):
            self.desk().advance_clocks()
        self.restart()
        self.arrive()

    @rule(method=wishes, ends=st.booleans())
    def the_merchant_changes_it(self, method: str, ends: bool) -> None:
        subscription = self.subscription()
        with contextlib.suppress(DomainError):
            subscription.update(
                payment_method_id=method,
                description=None,
                metadata={},
                cancel_at_period_end=ends,
                at=self.ledger.clock.now(),
            )
        if subscription.pending_events:
            self.ledger.record((subscription,), CAUSE, ())

    @rule(luck=misfortunes)
    def the_newest_invoice_is_paid_by_hand(self, luck: list[Misfortune]) -> None:
        newest = self.subscription().latest_invoice_id
        assert newest is not None
        instrument = Purse().instrument(a_tenant(), "pm_good", "cus_1")

        def pay() -> None:
            due = self.billing.due(newest, a_tenant())
            with contextlib.suppress(DomainError):
                self.billing.pay(due, instrument, self.command(), when=self.clocks.frozen)

        self.unlucky(luck, pay)

    @precondition(lambda self: self.ended_as is None)
    @rule(really=st.sampled_from([True, False, False, False]))
    def it_is_canceled(self, really: bool) -> None:
        subscription = self.subscription()
        if really and not subscription.has_ended:
            with contextlib.suppress(DomainError):
                ending = self.billing.cancel(subscription, CAUSE, when=self.clocks.frozen)
                self.ledger.record((subscription, *ending.changed), CAUSE, ending.records)

    # --- what always holds ---

    @invariant()
    def periods_have_no_gap_and_none_is_missing(self) -> None:
        subscription, told = self.subscription(), self.invoices()
        assert len(told) == subscription.periods
        starts = [each.period_start for each in told]
        ends = [each.period_end for each in told]
        assert starts[0] == subscription.anchor
        assert starts[1:] == ends[:-1]
        assert all(start < end for start, end in zip(starts, ends, strict=True))
        assert starts[-1] <= self.clocks.frozen
        if subscription.status in (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE):
            assert self.clocks.frozen < subscription.ends

    @invariant()
    def each_invoice_is_paid_once_at_most_and_the_bank_says_the_same(self) -> None:
        taken = Counter(
            self.bank.holds[each.hold_id].key.partition("-")[0]
            for each in self.bank.captures.values()
        )
        assert all(number == 1 for number in taken.values())
        for invoice in self.invoices():
            intent = PaymentIntents(self.ledger).intent(intent_of(invoice.id), a_tenant())
            payments = [self.ledger.payment(each, a_tenant()) for each in intent.attempts]
            captured = [each for each in payments if each.captured_minor > 0]
            assert len(captured) == (invoice.status is InvoiceStatus.PAID)
            assert sum(each.captured_minor for each in captured) in (0, invoice.money.amount_minor)

    @invariant()
    def it_stands_as_its_newest_invoice_does(self) -> None:
        subscription, newest = self.subscription(), self.invoices()[-1]
        if self.ended_as is not None:
            assert subscription.status is self.ended_as
        if subscription.status in ENDED:
            self.ended_as = subscription.status
        is_paid = newest.status is InvoiceStatus.PAID
        if subscription.status is SubscriptionStatus.ACTIVE:
            assert is_paid or newest.attempts == 0 or newest.is_attempted
        if subscription.status in (SubscriptionStatus.INCOMPLETE, SubscriptionStatus.PAST_DUE):
            assert not is_paid

    @invariant()
    def a_rebuild_of_the_history_is_what_is_stored(self) -> None:
        for _, each, document in documents(self.ledger):
            if isinstance(each, Subscription):
                assert document["current_period_end"] == rfc3339(each.ends)

    # --- how ---

    def restart(self) -> None:
        self.ledger = InMemoryLedger(beside=self.ledger)
        self.billing = Billing(self.ledger, RETRIES)
        self.ledger.follow = self.billing.follow

    def desk(self) -> DeskInMemory:
        clocks: Any = self.clocks
        pool: Any = None
        desk = DeskInMemory(
            pool=pool,
            billing=self.billing,
            wallet=Purse(),
            clocks=clocks,
            clock=self.ledger.clock,
            cause=CAUSE,
            audience=Audience(family="worker"),
            call_seconds=30.0,
        )
        desk.ledger = self.ledger
        return desk

    def command(self) -> Command:
        return Command(
            tenant=a_tenant(),
            cause=CAUSE,
            audience=Audience(family="worker"),
            deadline=FAR_DEADLINE,
        )

    def unlucky(self, luck: list[Misfortune], what: Any) -> None:
        self.bank.will_suffer(*luck)
        what()
        self.bank.has_recovered()
        self.settle()

    def settle(self) -> None:
        """What waits for an outcome gets one."""
        for _ in range(ROUNDS):
            self.ledger.steppable.advance(60.0)
            calls = self.ledger.bank_calls.take_due(10, LEASE_SECONDS)
            for call in calls:
                with contextlib.suppress(LeaseLost):
                    self.ledger.resume(call, deadline=FAR_DEADLINE)
            if not self.ledger.store.tables.calls:
                return
        raise AssertionError("there is always something left")

    def arrive(self) -> None:
        """Workers go on until the clock is where it should be."""
        for _ in range(ROUNDS):
            self.settle()
            if self.clocks.is_ready:
                return
            self.desk().advance_clocks()
        raise AssertionError("the clock never arrived")

    def subscription(self) -> Subscription:
        return self.billing.subscription(self.id, a_tenant())

    def invoices(self) -> list[Invoice]:
        found = [each for kind, each, _ in documents(self.ledger) if kind == "invoice"]
        return sorted(found, key=lambda each: each.period_start)


def dies_after(ledger: InMemoryLedger, calls: int) -> None:
    """The process dies at its bank call of that number: half of the time before, half after the bank
    has done it."""
    perform, left = ledger.bank.perform, [calls]

    def dying(request: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            perform(request)
        if left[0] <= 0:
            raise Died
        return perform(request)

    ledger.bank = MortalBank(ledger.fake_bank, dying)


class MortalBank:
    """The same bank, in a process that is about to die."""

    def __init__(self, bank: Any, perform: Any) -> None:
        self._bank = bank
        self.perform = perform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bank, name)


TestSubscriptionMachine = SubscriptionMachine.TestCase
TestSubscriptionMachine.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_an_invoices_intent_cannot_be_given_up_by_itself() -> None:
    machine = SubscriptionMachine()
    plan = Plan(unit=dollars(5), interval=Interval.MONTH)
    machine.subscribe(plan=plan, anchor=NOON, method="pm_empty", luck=[])
    (invoice,) = machine.invoices()
    intents = PaymentIntents(machine.ledger)
    intent = intents.intent(intent_of(invoice.id), a_tenant())

    with contextlib.suppress(IntentStateConflict):
        intent.cancel(None, intents.last_attempt(intent), at=NOON)
        raise AssertionError("it was given up")

    assert intent.pending_events == []

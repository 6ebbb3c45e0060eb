"""Somebody who subscribed, in memory, with those who bill them and a shopper who may be asked to approve."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from domain.billing import Billing, Due, RetryTerms
from domain.billing_periods import Interval
from domain.commands import Audience, Cause, Command, Instrument, Tenant
from domain.errors import PaymentMethodNotFound
from domain.intents import PaymentIntents
from domain.invoice import Invoice, intent_of
from domain.ledger import LEASE_SECONDS, Reply
from domain.payment import Payment
from domain.subscription import Plan, Subscription
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    NOON,
    a_card,
    a_challenged_card,
    a_subscription,
    a_tenant,
    an_empty_card,
    confirm,
    dollars,
)
from tests.fakes import InMemoryLedger

CAUSE: Final = Cause(actor="worker")
GOOD, EMPTY, ASKED, GONE = "pm_good", "pm_empty", "pm_asked", "pm_gone"
CARDS: Final = {GOOD: a_card(), EMPTY: an_empty_card(), ASKED: a_challenged_card()}
RETRIES: Final = RetryTerms()
PLAN: Final = Plan(unit=dollars(5), interval=Interval.MONTH)


def instrument(method_id: str) -> Instrument:
    return Instrument(method_id=method_id, means=CARDS[method_id], fingerprint="0f")


class Purse:
    """The port `Wallet`. `meanwhile`: what happens before the method is found, or is not."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._meanwhile = meanwhile

    def instrument(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        del tenant, customer_id
        self._meanwhile()
        if method_id not in CARDS:
            raise PaymentMethodNotFound("There is no such payment method.")
        return instrument(method_id)


class Subscriber:
    """By this method; `when` is the time that they live by."""

    def __init__(self, method: str, plan: Plan = PLAN, anchor: datetime = NOON) -> None:
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        self.bank = self.ledger.fake_bank
        self.billing = Billing(self.ledger, RETRIES)
        self.ledger.follow = self.billing.follow
        self.when = anchor
        new = a_subscription(
            plan,
            subscription_id=self.ledger.ids.new(),
            payment_method_id=method,
            clock_id="clock_1",
            anchor=anchor,
        )
        self.id = new.id
        due, intent = self.billing.begin(new, when=anchor)
        self.billing.pay(due, instrument(method), self.command(), intent, when=anchor)

    def command(self) -> Command:
        return Command(
            tenant=a_tenant(),
            cause=CAUSE,
            audience=Audience(family="worker"),
            deadline=FAR_DEADLINE,
        )

    # --- what merchants and shoppers do ---

    def pays_by(self, method: str) -> None:
        subscription = self.subscription()
        subscription.update(
            payment_method_id=method,
            description=None,
            metadata={},
            cancel_at_period_end=False,
            at=NOON,
        )
        if subscription.pending_events:
            self.ledger.record((subscription,), CAUSE, ())

    def pay_by_hand(self, method: str = GOOD) -> Reply:
        return self.billing.pay(self.due(), instrument(method), self.command(), when=self.when)

    def confirm(self, method: str) -> None:
        """As a shopper does, by the invoice's payment intent."""
        asked = confirm(intent_of(self.invoice().id), instrument=instrument(method))
        PaymentIntents(self.ledger).confirm(asked)

    def cancel(self) -> None:
        subscription = self.subscription()
        ending = self.billing.cancel(subscription, CAUSE, when=self.when)
        self.ledger.record((subscription, *ending.changed), CAUSE, ending.records)

    def shopper_decides(self, *, approves: bool) -> None:
        for bank_id in list(self.bank.challenges):
            self.bank.shopper_decides(bank_id, approves=approves)

    # --- what workers do ---

    def go_on(self) -> None:
        self.billing.go_on(self.subscription(), CAUSE, when=self.when)

    def lives_on(self, days: int) -> None:
        self.when += timedelta(days=days)

    def goes_on_when_due(self) -> None:
        self.when = max(self.when, self.subscription().ends)
        self.go_on()

    def next_period(self) -> None:
        self.when = self.subscription().ends
        self.go_on()

    def collect(self, purse: Purse | None = None) -> None:
        self.billing.collect(self.due(), purse or Purse(), self.command(), when=self.when)

    def come_round(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.ledger.steppable.advance(LEASE_SECONDS + 1)
            for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
                self.ledger.resume(call, deadline=FAR_DEADLINE)

    # --- how it stands ---

    def subscription(self) -> Subscription:
        return self.billing.subscription(self.id, a_tenant())

    def due(self) -> Due:
        """The newest invoice, with the subscription."""
        newest = self.subscription().latest_invoice_id
        assert newest is not None
        return self.billing.due(newest, a_tenant())

    def invoice(self) -> Invoice:
        return self.due().invoice

    def invoices(self) -> list[Invoice]:
        """From the first."""
        every: list[Any] = [*map(self.ledger.repository.get, self.ledger.store.tables.events)]
        invoices = [each for each in every if isinstance(each, Invoice)]
        return sorted(invoices, key=lambda each: each.period_start)

    def payments(self, invoice: Invoice | None = None) -> list[Payment]:
        """Of the newest invoice, or of that one."""
        intent_id = intent_of((invoice or self.invoice()).id)
        intent = PaymentIntents(self.ledger).intent(intent_id, a_tenant())
        return [self.payment(each) for each in intent.attempts]

    def payment(self, payment_id: UUID) -> Payment:
        return self.ledger.payment(payment_id, a_tenant())

    def held_minor(self) -> int:
        """What the bank has set aside, and not taken."""
        return sum(hold.amount_minor for hold in self.bank.holds.values() if hold.ended_by is None)

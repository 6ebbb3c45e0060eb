"""Invoices and the payments that they are paid by: whoever is at it at once, what was paid stays paid, what
came of one attempt is not taken for what came of another, and what has ended takes no money any more."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.billing import Billing, Due, RetryTerms
from domain.billing_periods import Interval
from domain.commands import Audience, Cause, Command, Instrument, Tenant
from domain.errors import (
    InvoiceStateConflict,
    PaymentMethodNotFound,
    SubscriptionStateConflict,
)
from domain.intents import PaymentIntents
from domain.invoice import Invoice, InvoiceStatus, intent_of
from domain.ledger import LEASE_SECONDS, Pending
from domain.payment import Difference, DifferenceKind, Payment, Status
from domain.subscription import INCOMPLETE_FOR, Plan, Subscription, SubscriptionStatus
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
from tests.fakes import InMemoryLedger, Misfortune

CAUSE = Cause(actor="worker")
CARDS = {"pm_good": a_card(), "pm_empty": an_empty_card(), "pm_asked": a_challenged_card()}
MONTH = timedelta(days=31)


def instrument(method_id: str) -> Instrument:
    return Instrument(method_id=method_id, means=CARDS[method_id], fingerprint="0f")


class Purse:
    """The port `Wallet`. What is `meanwhile` happens before the method is found, or not."""

    def __init__(self, meanwhile: Any = None) -> None:
        self.meanwhile = meanwhile

    def instrument(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        del tenant, customer_id
        if self.meanwhile is not None:
            self.meanwhile()
        if method_id not in CARDS:
            raise PaymentMethodNotFound("There is no such payment method.")
        return instrument(method_id)


class Subscriber:
    """Somebody who subscribed by this method, and those who bill them."""

    def __init__(self, method: str) -> None:
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        self.bank = self.ledger.fake_bank
        self.billing = Billing(self.ledger, RetryTerms())
        self.ledger.follow = self.billing.follow
        new = a_subscription(
            Plan(unit=dollars(5), interval=Interval.MONTH),
            subscription_id=self.ledger.ids.new(),
            payment_method_id=method,
        )
        self.id = new.id
        due, intent = self.billing.begin(new, when=NOON)
        self.billing.pay(due, instrument(method), self.command(), intent, when=NOON)

    def command(self) -> Command:
        return Command(
            tenant=a_tenant(),
            cause=CAUSE,
            audience=Audience(family="worker"),
            deadline=FAR_DEADLINE,
        )

    def pays_by(self, method: str) -> None:
        subscription = self.subscription()
        subscription.update(
            payment_method_id=method,
            description=None,
            metadata={},
            cancel_at_period_end=False,
            at=NOON,
        )
        self.ledger.record((subscription,), CAUSE, ())

    def next_period(self) -> None:
        self.billing.go_on(self.subscription(), CAUSE, when=self.subscription().ends)

    def collect(self, when: datetime, purse: Purse | None = None) -> None:
        self.billing.collect(self.due(), purse or Purse(), self.command(), when=when)

    def pay_by_hand(self, method: str = "pm_good") -> None:
        self.billing.pay(self.due(), instrument(method), self.command(), when=NOON + MONTH)

    def confirm(self, method: str) -> Payment:
        """As a shopper does, by the invoice's payment intent."""
        asked = confirm(intent_of(self.invoice().id), instrument=instrument(method))
        PaymentIntents(self.ledger).confirm(asked)
        return self.payments()[-1]

    def cancel(self, when: datetime = NOON) -> None:
        subscription = self.subscription()
        ending = self.billing.cancel(subscription, CAUSE, when=when)
        self.ledger.record((subscription, *ending.changed), CAUSE, ending.records)

    def shopper_approves(self) -> None:
        (bank_id,) = self.bank.challenges
        self.bank.shopper_decides(bank_id, approves=True)

    def workers_come_round(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.ledger.steppable.advance(LEASE_SECONDS + 1)
            for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
                self.ledger.resume(call, deadline=FAR_DEADLINE)

    def subscription(self) -> Subscription:
        return self.billing.subscription(self.id, a_tenant())

    def due(self) -> Due:
        """The newest invoice, with the subscription."""
        newest = self.subscription().latest_invoice_id
        assert newest is not None
        return self.billing.due(newest, a_tenant())

    def invoice(self) -> Invoice:
        return self.due().invoice

    def payments(self) -> list[Payment]:
        intent = PaymentIntents(self.ledger).intent(intent_of(self.invoice().id), a_tenant())
        return [self.payment(each) for each in intent.attempts]

    def payment(self, payment_id: UUID) -> Payment:
        return self.ledger.payment(payment_id, a_tenant())


def test_an_invoice_that_somebody_paid_meanwhile_is_not_tried_again_for_want_of_a_method() -> None:
    subscriber = Subscriber("pm_good")
    subscriber.pays_by("pm_detached")
    subscriber.next_period()

    with pytest.raises(InvoiceStateConflict):
        subscriber.collect(NOON + MONTH, Purse(meanwhile=subscriber.pay_by_hand))

    invoice = subscriber.invoice()
    assert (invoice.status, invoice.attempts, invoice.next_attempt_at) == (
        InvoiceStatus.PAID,
        1,
        None,
    )
    assert subscriber.subscription().status is SubscriptionStatus.ACTIVE


def test_an_attempt_that_is_under_way_has_not_failed_for_want_of_a_method() -> None:
    subscriber = Subscriber("pm_good")
    subscriber.pays_by("pm_detached")
    subscriber.next_period()
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)

    with pytest.raises(InvoiceStateConflict):
        subscriber.collect(NOON + MONTH, Purse(meanwhile=subscriber.pay_by_hand))

    assert subscriber.invoice().is_attempted
    subscriber.workers_come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID


def test_what_is_found_of_an_earlier_attempt_says_nothing_of_the_one_that_is_under_way() -> None:
    subscriber = Subscriber("pm_good")
    subscriber.pays_by("pm_empty")
    subscriber.next_period()
    subscriber.collect(NOON + MONTH)
    (declined,) = subscriber.payments()
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)
    subscriber.pay_by_hand()

    found = Difference(kind=DifferenceKind.STATE, ours="declined", bank="approved")
    subscriber.ledger.note_differences(subscriber.payment(declined.id), [found], CAUSE)

    invoice = subscriber.invoice()
    assert (invoice.is_attempted, invoice.attempts) == (True, 2)
    subscriber.workers_come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID


@pytest.mark.parametrize("by", ["invoice", "intent"])
def test_what_is_canceled_while_a_shopper_is_asked_takes_no_money_any_more(by: str) -> None:
    subscriber = Subscriber("pm_asked" if by == "invoice" else "pm_empty")
    if by == "intent":
        subscriber.confirm("pm_asked")

    subscriber.cancel()
    subscriber.shopper_approves()
    subscriber.workers_come_round()

    assert subscriber.subscription().status is SubscriptionStatus.CANCELED
    assert subscriber.invoice().status is InvoiceStatus.VOID
    assert subscriber.payments()[-1].status is Status.VOIDED
    assert subscriber.bank.captures == {}
    assert all(hold.ended_by is not None for hold in subscriber.bank.holds.values())
    assert subscriber.ledger.store.tables.calls == {}


def test_what_never_began_takes_no_money_though_the_shopper_approves_at_last() -> None:
    subscriber = Subscriber("pm_asked")

    subscriber.billing.go_on(subscriber.subscription(), CAUSE, when=NOON + INCOMPLETE_FOR)
    subscriber.shopper_approves()
    subscriber.workers_come_round()

    assert subscriber.subscription().status is SubscriptionStatus.INCOMPLETE_EXPIRED
    assert subscriber.invoice().status is InvoiceStatus.VOID
    assert subscriber.bank.captures == {}


def test_what_is_being_paid_is_not_canceled_until_that_is_known() -> None:
    subscriber = Subscriber("pm_empty")
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)
    subscriber.pay_by_hand()

    with pytest.raises(InvoiceStateConflict, match="just now"):
        subscriber.cancel()

    subscriber.workers_come_round()
    assert subscriber.subscription().status is SubscriptionStatus.ACTIVE


def test_a_payment_whose_invoice_changed_too_often_is_pending_and_not_unheard_of() -> None:
    subscriber = Subscriber("pm_good")
    subscriber.next_period()
    follow = subscriber.billing.follow

    def others_are_faster(payment: Payment) -> Any:
        following = follow(payment)
        if following:
            invoice = subscriber.invoice()
            invoice.trigger_event(Invoice.CollectionStopped, when="2030-01-01T00:00:00.000000Z")
            subscriber.ledger.record((invoice,), CAUSE, ())
        return following

    subscriber.ledger.follow = others_are_faster
    reply = subscriber.billing.pay(
        subscriber.due(), instrument("pm_good"), subscriber.command(), when=NOON + MONTH
    )
    subscriber.ledger.follow = follow

    assert isinstance(reply, Pending)
    subscriber.workers_come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID
    assert len(subscriber.bank.captures) == 2


def test_nothing_is_canceled_twice() -> None:
    subscriber = Subscriber("pm_good")
    subscriber.cancel()

    with pytest.raises(SubscriptionStateConflict):
        subscriber.cancel()

"""What is done with subscriptions: each step is one append of the subscription, its newest invoice and
that one's payment intent, which are in one shard, and any step can be taken again by anyone.

What became of a payment is recorded on its invoice and its subscription in the append that records it on
the payment, whoever asked for it: so no step is lost between the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.domain import Aggregate

from domain.commands import Cause, Command, ConfirmIntent, Instrument, Tenant
from domain.customer import Customer
from domain.errors import (
    DomainError,
    IntentStateConflict,
    InvoiceNotFound,
    InvoiceStateConflict,
    Refusal,
    SubscriptionNotFound,
)
from domain.ids import MalformedId, Prefix, beside, decode, encode
from domain.intents import PaymentIntents
from domain.invoice import Invoice, intent_of, invoice_of
from domain.ledger import PaymentLedger, Reply
from domain.payment import Payment, Status
from domain.payment_intent import INVOICES, Attempt, PaymentIntent, Terms
from domain.records import Record
from domain.subscription import Subscription, SubscriptionStatus

REQUESTED: Final = "cancellation_requested"
NOT_PAID: Final = "payment_failed"
NOT_CAPTURED: Final = "payment_canceled"
# What a payment is in once nothing of it was taken, for good.
CAME_TO_NOTHING: Final = frozenset({Status.DECLINED, Status.VOIDED, Status.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryTerms:
    """When an invoice that was not paid is tried again, in days after it was first tried, and what
    becomes of its subscription after the last time."""

    days: tuple[int, ...] = (1, 3, 5, 7)
    cancels: bool = True

    def next_after(self, attempt: int, at: datetime) -> datetime | None:
        """When the attempt after that one, from 1, is due, which failed `at`; None after the last."""
        if attempt > len(self.days):
            return None
        before = self.days[attempt - 2] if attempt > 1 else 0
        return at + timedelta(days=self.days[attempt - 1] - before)


class Wallet(Protocol):
    """What a customer's stored methods are."""

    def instrument(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        """What an attempt is paid with, off session. Raises DomainError where it can be used no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What changes with a subscription that ends, and is to be recorded with it."""

    changed: Sequence[Aggregate] = ()
    records: Sequence[Record] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One period that is to be paid: new, or as it was read."""

    subscription: Subscription
    invoice: Invoice


class Billing:
    """The steps of subscriptions. Refusals are DomainErrors, and leave nothing behind."""

    def __init__(self, ledger: PaymentLedger, retries: RetryTerms) -> None:
        self._ledger = ledger
        self._retries = retries

    # --- reading -------------------------------------------------------------------------------

    def subscription(self, subscription_id: UUID, tenant: Tenant) -> Subscription:
        """The subscription as it is. Raises SubscriptionNotFound, also for another's."""
        found = self._found(subscription_id)
        if not isinstance(found, Subscription) or found.tenant != tenant:
            raise SubscriptionNotFound("There is no such subscription.")
        return found

    def invoice(self, invoice_id: UUID, tenant: Tenant) -> Invoice:
        """The invoice as it is. Raises InvoiceNotFound, also for another's."""
        found = self._found(invoice_id)
        if not isinstance(found, Invoice) or found.tenant != tenant:
            raise InvoiceNotFound("There is no such invoice.")
        return found

    def due(self, invoice_id: UUID, tenant: Tenant) -> Due:
        """The invoice with its subscription. Raises InvoiceNotFound."""
        invoice = self.invoice(invoice_id, tenant)
        subscription = self.subscription(invoice.subscription_id, tenant)
        return Due(subscription=subscription, invoice=invoice)

    def _found(self, aggregate_id: UUID) -> object:
        try:
            found: object = self._ledger.repository.get(aggregate_id)
        except AggregateNotFoundError:
            return None
        return found

    # --- commands ------------------------------------------------------------------------------

    def begin(self, subscription: Subscription, *, when: datetime) -> tuple[Due, PaymentIntent]:
        """The next period of a subscription, with its invoice and that one's intent, decided and not
        recorded yet. Raises SubscriptionStateConflict, CurrencyUnsupported."""
        at = self._ledger.clock.now()
        number = subscription.periods
        invoice_id = beside(self._ledger.ids.new(), subscription.id)
        subscription.begin_period(invoice_id, when=when, at=at)
        invoice = Invoice.create(
            invoice_id=invoice_id,
            tenant=subscription.tenant,
            subscription_id=subscription.id,
            customer_id=subscription.customer_id,
            money=subscription.plan.money,
            period=subscription.period(number),
            is_first=number == 0,
            clock_id=subscription.clock_id,
            when=when,
            at=at,
        )
        return Due(subscription=subscription, invoice=invoice), self._intent(subscription, invoice)

    def _intent(self, subscription: Subscription, invoice: Invoice) -> PaymentIntent:
        terms = Terms(
            money=invoice.money,
            customer_id=subscription.customer_id,
            payment_method_id=subscription.payment_method_id,
            description=subscription.description,
            metadata={},
        )
        return PaymentIntent.create(
            intent_id=intent_of(invoice.id),
            tenant=invoice.tenant,
            family=INVOICES,
            terms=terms,
            at=self._ledger.clock.now(),
        )

    def pay(
        self,
        due: Due,
        instrument: Instrument,
        command: Command,
        new: PaymentIntent | None = None,
        *,
        when: datetime,
    ) -> Reply:
        """Makes an attempt. `new`: its intent, where that is recorded with it. Raises
        InvoiceStateConflict, and what `PaymentIntents.confirm` raises."""
        invoice, subscription = due.invoice, due.subscription
        at = self._ledger.clock.now()
        invoice.begin_attempt(instrument.method_id, when=when, at=at)
        confirm = ConfirmIntent(
            tenant=command.tenant,
            cause=command.cause,
            audience=command.audience,
            deadline=command.deadline,
            claim=command.claim,
            intent_id=intent_of(invoice.id),
            instrument=instrument,
        )
        made: tuple[Aggregate, ...] = (invoice,)
        if subscription.pending_events:
            made = (subscription, invoice)
        return PaymentIntents(self._ledger).confirm(confirm, new, made=made)

    # --- steps that are due --------------------------------------------------------------------

    def go_on(self, subscription: Subscription, cause: Cause, *, when: datetime) -> None:
        """What is due of a subscription: it never began, it ends, or its next period begins. Raises
        SubscriptionStateConflict where nothing is, ConcurrentChange."""
        at = self._ledger.clock.now()
        if subscription.status is SubscriptionStatus.INCOMPLETE:
            self._give_up(subscription, cause, when=when)
        elif when >= subscription.ends and self._ends_with_its_period(subscription):
            subscription.cancel(REQUESTED, when=when, at=at)
            self._ledger.record((subscription,), cause, ())
        else:
            due, intent = self.begin(subscription, when=when)
            self._ledger.record((due.subscription, due.invoice, intent), cause, ())

    def _ends_with_its_period(self, subscription: Subscription) -> bool:
        """As the merchant wished; or since its customer was forgotten just as it was subscribed to."""
        if subscription.cancel_at_period_end:
            return True
        try:
            customer = self._found(decode(Prefix.CUSTOMER, subscription.customer_id))
        except MalformedId:
            return False
        return isinstance(customer, Customer) and customer.is_deleted

    def _give_up(self, subscription: Subscription, cause: Cause, *, when: datetime) -> None:
        """On a first payment that never came; so that it cannot come any more."""
        subscription.expire(when=when, at=self._ledger.clock.now())
        voided = self._voided(self._newest(subscription), cause, when=when)
        self._ledger.record((subscription, *voided.changed), cause, voided.records)

    def cancel(self, subscription: Subscription, cause: Cause, *, when: datetime) -> Ending:
        """Ends a subscription now, decided and not recorded yet. Raises SubscriptionStateConflict;
        InvoiceStateConflict, IntentStateConflict while the first payment is made; ConcurrentChange."""
        waits = subscription.status is SubscriptionStatus.INCOMPLETE
        subscription.cancel(REQUESTED, when=when, at=self._ledger.clock.now())
        invoice = self._newest(subscription)
        if waits:
            return self._voided(invoice, cause, when=when)
        invoice.stop_collection(when=when, at=self._ledger.clock.now())
        return Ending(changed=[invoice] if invoice.pending_events else [])

    def _newest(self, subscription: Subscription) -> Invoice:
        assert subscription.latest_invoice_id is not None, "it has a period from the first"
        return self.invoice(subscription.latest_invoice_id, subscription.tenant)

    def _voided(self, invoice: Invoice, cause: Cause, *, when: datetime) -> Ending:
        """It is not to be paid any more, and a shopper who is asked to approve is asked in vain."""
        at = self._ledger.clock.now()
        intents = PaymentIntents(self._ledger)
        intent = intents.intent(intent_of(invoice.id), invoice.tenant)
        last = intents.last_payment(intent)
        if last is None or last.action_url is None:
            invoice.refuse_unless_payable()
        invoice.void(when=when, at=at)
        intent.give_up(None if last is None else Attempt.of(last), at=at)
        if last is None or last.action_url is None:
            return Ending(changed=[invoice, intent])
        last.request_withdrawal(at=at)
        return Ending(
            changed=[invoice, intent, last], records=[self._ledger.withdrawal(last, cause)]
        )

    def collect(
        self, due: Due, wallet: Wallet, command: Command, *, when: datetime
    ) -> Reply | None:
        """Tries a due invoice by its customer's stored method, or leaves it where the subscription has
        ended. None where no bank was asked. Raises IntentStateConflict and InvoiceStateConflict while
        somebody else pays it, BankUnavailable, ConcurrentChange."""
        subscription, invoice = due.subscription, due.invoice
        if subscription.has_ended:
            invoice.stop_collection(when=when, at=self._ledger.clock.now())
            if invoice.pending_events:
                self._ledger.record((invoice,), command.cause, ())
            return None
        try:
            instrument = wallet.instrument(
                invoice.tenant, subscription.payment_method_id, subscription.customer_id
            )
            return self.pay(due, instrument, command, when=when)
        except (IntentStateConflict, InvoiceStateConflict):
            raise
        except DomainError as error:
            if error.refusal is Refusal.UNAVAILABLE:
                raise
            again = self.due(invoice.id, invoice.tenant)
            again.invoice.refuse_unless_payable()
            self._failed(again, error.code, None, when=when)
            changed = [each for each in (again.subscription, again.invoice) if each.pending_events]
            self._ledger.record(changed, command.cause, ())
            return None

    # --- what became of payments ---------------------------------------------------------------

    def follow(self, payment: Payment) -> Sequence[Aggregate]:
        """What changes with a payment, to be recorded with it: nothing but where it is an invoice's, and
        has its outcome."""
        due = self.after(payment)
        if due is None:
            return ()
        return [each for each in (due.subscription, due.invoice) if each.pending_events]

    def after(self, payment: Payment) -> Due | None:
        """The invoice that the payment is of, with its subscription, as its outcome leaves them; None
        where it is none's, or has no outcome yet."""
        invoice_id = _invoice_of(payment)
        if invoice_id is None or payment.running is not None:
            return None
        due = self.due(invoice_id, payment.tenant)
        invoice = due.invoice
        when = self._ledger.clock.now() if invoice.clock_id is None else invoice.when
        payment_id = encode(Prefix.PAYMENT, payment.id)
        if payment.captured_minor > 0:
            self._paid(due, payment_id, when=when)
        elif payment.status in CAME_TO_NOTHING and self._is_attempt_of(payment, invoice):
            self._failed(due, _why(payment), payment_id, when=invoice.when)
        return due

    def _is_attempt_of(self, payment: Payment, invoice: Invoice) -> bool:
        """Whether it is what the invoice waits for: something may be found of an earlier attempt."""
        if not invoice.is_attempted:
            return False
        intent = PaymentIntents(self._ledger).intent(intent_of(invoice.id), invoice.tenant)
        return intent.attempts[-1] == payment.id

    def _paid(self, due: Due, payment_id: str, *, when: datetime) -> None:
        at = self._ledger.clock.now()
        due.invoice.pay(payment_id, when=when, at=at)
        if due.invoice.pending_events and _is_newest(due):
            due.subscription.newest_was_paid(when=when, at=at)

    def _failed(self, due: Due, code: str, payment_id: str | None, *, when: datetime) -> None:
        """A first invoice is left to people until it is given up; any other is tried again."""
        invoice, subscription, at = due.invoice, due.subscription, self._ledger.clock.now()
        waits = subscription.status is SubscriptionStatus.INCOMPLETE or subscription.has_ended
        attempt = invoice.attempts + (0 if invoice.is_attempted else 1)
        again = None if waits else self._retries.next_after(attempt, when)
        invoice.fail(code, payment_id, again, when=when, at=at)
        if waits:
            return
        if _is_newest(due):
            subscription.newest_was_not_paid(when=when, at=at)
        if again is None and self._retries.cancels:
            subscription.cancel(NOT_PAID, when=when, at=at)


def _is_newest(due: Due) -> bool:
    return due.subscription.latest_invoice_id == due.invoice.id


def _invoice_of(payment: Payment) -> UUID | None:
    if payment.intent_id is None:
        return None
    try:
        return invoice_of(decode(Prefix.INTENT, payment.intent_id))
    except MalformedId:
        return None


def _why(payment: Payment) -> str:
    """The bank's word."""
    for event in reversed(payment.history):
        if isinstance(event, Payment.AuthorizationDeclined | Payment.CaptureDeclined):
            return event.code
    return NOT_CAPTURED

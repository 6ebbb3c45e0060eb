"""An invoice: one period of a subscription, to be paid by its customer's stored method.

It has one payment intent, whose id follows from its own; an intent has one payment at a time and is paid
once at most, and so is the invoice. `when` in an event is the time that the customer lives by, which may
be a test's clock; what an event is recorded at is its timestamp.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.commands import Mode, Tenant
from domain.errors import InvoiceStateConflict
from domain.money import Money

VERSION_SHIFT: Final = 76
OF_INTENT: Final = 8


class InvoiceStatus(StrEnum):
    """Whether it is to be paid."""

    OPEN = "open"
    PAID = "paid"
    VOID = "void"


def intent_of(invoice_id: UUID) -> UUID:
    """The id of the invoice's payment intent: the same, as a UUID of version 8."""
    return UUID(int=invoice_id.int & ~(0xF << VERSION_SHIFT) | OF_INTENT << VERSION_SHIFT)


def invoice_of(intent_id: UUID) -> UUID | None:
    """The invoice whose payment intent this is; None where it is none's."""
    if intent_id.version != OF_INTENT:
        return None
    return UUID(int=intent_id.int & ~(0xF << VERSION_SHIFT) | 7 << VERSION_SHIFT)


class Invoice(Aggregate):
    """What is to be paid for one period, and how far that is."""

    TOPIC = "invoice"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        subscription_id: str,
        customer_id: str,
        amount_minor: int,
        currency: str,
        period_start: str,
        period_end: str,
        billing_reason: str,
        clock_id: str | None,
        when: str,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.subscription_id = UUID(subscription_id)
        self.customer_id = customer_id
        self.money = Money(amount_minor, currency)
        self.period_start = datetime.fromisoformat(period_start)
        self.period_end = datetime.fromisoformat(period_end)
        self.is_first = billing_reason == FIRST
        self.clock_id = clock_id
        self.status = InvoiceStatus.OPEN
        self.attempts = 0
        self.is_attempted = False
        self.when = datetime.fromisoformat(when)
        self.next_attempt_at: datetime | None = self.when
        self.history: list[Invoice.Event] = []

    class Event(AggregateEvent):
        """A fact about one invoice; `timestamp` is when it was recorded."""

        TOPIC = "invoice.event"

        def mutate(self, aggregate: Any) -> Any:
            invoice = super().mutate(aggregate)
            assert isinstance(invoice, Invoice)
            invoice.history.append(self)
            return invoice

    class Created(Event, AggregateCreated):
        """A period is to be paid. `subscription_id`: a UUID; `billing_reason`: `subscription_create` for
        the first period, else `subscription_cycle`; `clock_id`: of a test's clock. Times in RFC 3339."""

        TOPIC = "invoice.created"
        merchant_id: str
        mode: str
        subscription_id: str
        customer_id: str
        amount_minor: int
        currency: str
        period_start: str
        period_end: str
        billing_reason: str
        clock_id: str | None
        when: str

        def mutate(self, aggregate: Any) -> Any:
            invoice = AggregateCreated.mutate(self, aggregate)
            assert isinstance(invoice, Invoice)
            invoice.history.append(self)
            return invoice

    class AttemptBegun(Event):
        """Its intent was confirmed by this payment method, in the same append."""

        TOPIC = "invoice.attempt_begun"
        payment_method_id: str
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.attempts += 1
            aggregate.is_attempted = True
            aggregate.next_attempt_at = None
            aggregate.when = datetime.fromisoformat(self.when)

    class AttemptFailed(Event):
        """Nothing was paid. `payment_id`: None where no bank was asked; `next_attempt_at`: None where
        nobody tries again by themselves."""

        TOPIC = "invoice.attempt_failed"
        code: str
        payment_id: str | None
        next_attempt_at: str | None
        when: str

        def apply(self, aggregate: Any) -> None:
            if not aggregate.is_attempted:
                aggregate.attempts += 1
            aggregate.is_attempted = False
            aggregate.next_attempt_at = (
                None
                if self.next_attempt_at is None
                else datetime.fromisoformat(self.next_attempt_at)
            )
            aggregate.when = datetime.fromisoformat(self.when)

    class Paid(Event):
        """The money was taken."""

        TOPIC = "invoice.paid"
        payment_id: str
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = InvoiceStatus.PAID
            aggregate.is_attempted = False
            aggregate.next_attempt_at = None
            aggregate.when = datetime.fromisoformat(self.when)

    class CollectionStopped(Event):
        """Nobody tries again by themselves; it can still be paid."""

        TOPIC = "invoice.collection_stopped"
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.next_attempt_at = None
            aggregate.when = datetime.fromisoformat(self.when)

    class Voided(Event):
        """It is not to be paid any more."""

        TOPIC = "invoice.voided"
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = InvoiceStatus.VOID
            aggregate.is_attempted = False
            aggregate.next_attempt_at = None
            aggregate.when = datetime.fromisoformat(self.when)

    # --- what may be asked ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        *,
        invoice_id: UUID,
        tenant: Tenant,
        subscription_id: UUID,
        customer_id: str,
        money: Money,
        period: tuple[datetime, datetime],
        is_first: bool,
        clock_id: str | None,
        when: datetime,
        at: datetime,
    ) -> Self:
        """A new one, due `when` it is made."""
        return cls._create(
            cls.Created,
            id=invoice_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            subscription_id=str(subscription_id),
            customer_id=customer_id,
            amount_minor=money.amount_minor,
            currency=money.currency,
            period_start=rfc3339(period[0]),
            period_end=rfc3339(period[1]),
            billing_reason=FIRST if is_first else LATER,
            clock_id=clock_id,
            when=rfc3339(when),
        )

    def begin_attempt(self, method_id: str, *, when: datetime, at: datetime) -> None:
        """Tries to have it paid. Raises InvoiceStateConflict."""
        self.refuse_unless_payable()
        self.trigger_event(
            self.AttemptBegun, payment_method_id=method_id, when=rfc3339(when), timestamp=at
        )

    def refuse_unless_payable(self) -> None:
        """Raises InvoiceStateConflict where it is paid or void, or being paid just now."""
        self._refuse_unless_open()
        if self.is_attempted:
            raise InvoiceStateConflict(
                "The invoice is being paid just now.", code="operation_in_progress"
            )

    def _refuse_unless_open(self) -> None:
        if self.status is not InvoiceStatus.OPEN:
            raise InvoiceStateConflict(f"The invoice is {self.status}.", code="invoice_not_open")

    def pay(self, payment_id: str, *, when: datetime, at: datetime) -> None:
        """Records that the money was taken; once, and also of what is void by now."""
        if self.status is not InvoiceStatus.PAID:
            self.trigger_event(self.Paid, payment_id=payment_id, when=rfc3339(when), timestamp=at)

    def fail(
        self,
        code: str,
        payment_id: str | None,
        next_attempt_at: datetime | None,
        *,
        when: datetime,
        at: datetime,
    ) -> None:
        """Records that an attempt came to nothing. Raises InvoiceStateConflict."""
        self._refuse_unless_open()
        self.trigger_event(
            self.AttemptFailed,
            code=code,
            payment_id=payment_id,
            next_attempt_at=None if next_attempt_at is None else rfc3339(next_attempt_at),
            when=rfc3339(when),
            timestamp=at,
        )

    def stop_collection(self, *, when: datetime, at: datetime) -> None:
        """Leaves it to people."""
        if self.next_attempt_at is not None:
            self.trigger_event(self.CollectionStopped, when=rfc3339(when), timestamp=at)

    def void(self, *, when: datetime, at: datetime) -> None:
        """It is not to be paid any more; an attempt that waits for its shopper is given up with it.
        Raises InvoiceStateConflict."""
        self._refuse_unless_open()
        self.trigger_event(self.Voided, when=rfc3339(when), timestamp=at)


FIRST: Final = "subscription_create"
LATER: Final = "subscription_cycle"


def rfc3339(at: datetime) -> str:
    """UTC with microseconds and a Z; fixed in width, so that it sorts as time does."""
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"

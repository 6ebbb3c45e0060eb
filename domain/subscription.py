"""A subscription: a customer pays for one period after the other, until it is canceled.

How it stands follows from its newest invoice. `when` in an event is the time that the customer lives by,
which may be a test's clock; what an event is recorded at is its timestamp.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.billing_periods import Interval, period_start
from domain.commands import Metadata, Mode, Tenant
from domain.errors import SubscriptionStateConflict
from domain.invoice import rfc3339
from domain.money import Money

# How long a first payment is waited for.
INCOMPLETE_FOR: Final = timedelta(hours=23)


class SubscriptionStatus(StrEnum):
    """How it stands. `incomplete`: the first invoice was never paid."""

    INCOMPLETE = "incomplete"
    INCOMPLETE_EXPIRED = "incomplete_expired"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    CANCELED = "canceled"


ENDED: Final = frozenset({SubscriptionStatus.INCOMPLETE_EXPIRED, SubscriptionStatus.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is paid how often: `unit` times `quantity` each period. `product`: the merchant's name or id
    of it."""

    unit: Money
    interval: Interval
    interval_count: int = 1
    quantity: int = 1
    product: str | None = None
    product_name: str | None = None

    @property
    def money(self) -> Money:
        """What one period costs."""
        return Money(self.unit.amount_minor * self.quantity, self.unit.currency)


class Subscription(Aggregate):
    """Who pays what for which periods, and by what."""

    TOPIC = "subscription"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        customer_id: str,
        payment_method_id: str,
        unit_minor: int,
        currency: str,
        quantity: int,
        interval: str,
        interval_count: int,
        product: str | None,
        product_name: str | None,
        description: str | None,
        metadata: Metadata,
        cancel_at_period_end: bool,
        clock_id: str | None,
        anchor: str,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.customer_id, self.payment_method_id = customer_id, payment_method_id
        self.plan = Plan(
            unit=Money(unit_minor, currency),
            interval=Interval(interval),
            interval_count=interval_count,
            quantity=quantity,
            product=product,
            product_name=product_name,
        )
        self.description = description
        self.metadata = dict(metadata)
        self.cancel_at_period_end = cancel_at_period_end
        self.clock_id = clock_id
        self.anchor = datetime.fromisoformat(anchor)
        self.status = SubscriptionStatus.INCOMPLETE
        self.periods = 0
        self.latest_invoice_id: UUID | None = None
        self.history: list[Subscription.Event] = []

    class Event(AggregateEvent):
        """A fact about one subscription; `timestamp` is when it was recorded."""

        TOPIC = "subscription.event"

        def mutate(self, aggregate: Any) -> Any:
            subscription = super().mutate(aggregate)
            assert isinstance(subscription, Subscription)
            subscription.history.append(self)
            return subscription

    class Created(Event, AggregateCreated):
        """A customer subscribed. `anchor`: RFC 3339, from which all periods are counted; `clock_id`: of
        a test's clock."""

        TOPIC = "subscription.created"
        merchant_id: str
        mode: str
        customer_id: str
        payment_method_id: str
        unit_minor: int
        currency: str
        quantity: int
        interval: str
        interval_count: int
        product: str | None
        product_name: str | None
        description: str | None
        metadata: Metadata
        cancel_at_period_end: bool
        clock_id: str | None
        anchor: str

        def mutate(self, aggregate: Any) -> Any:
            subscription = AggregateCreated.mutate(self, aggregate)
            assert isinstance(subscription, Subscription)
            subscription.history.append(self)
            return subscription

    class PeriodBegun(Event):
        """The next period, with its invoice, in one append. `number`: from 0; `invoice_id`: a UUID."""

        TOPIC = "subscription.period_begun"
        number: int
        invoice_id: str
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.periods = self.number + 1
            aggregate.latest_invoice_id = UUID(self.invoice_id)

    class Updated(Event):
        """Something else is said of it: all of it, as it is now."""

        TOPIC = "subscription.updated"
        payment_method_id: str
        description: str | None
        metadata: Metadata
        cancel_at_period_end: bool

        def apply(self, aggregate: Any) -> None:
            aggregate.payment_method_id = self.payment_method_id
            aggregate.description = self.description
            aggregate.metadata = dict(self.metadata)
            aggregate.cancel_at_period_end = self.cancel_at_period_end

    class Activated(Event):
        """Its newest invoice is paid."""

        TOPIC = "subscription.activated"
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = SubscriptionStatus.ACTIVE

    class WentPastDue(Event):
        """Its newest invoice was not paid when it should have been."""

        TOPIC = "subscription.went_past_due"
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = SubscriptionStatus.PAST_DUE

    class Expired(Event):
        """The first invoice was not paid in time: it never began."""

        TOPIC = "subscription.expired"
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = SubscriptionStatus.INCOMPLETE_EXPIRED

    class Canceled(Event):
        """It ended. `reason`: `cancellation_requested`, or `payment_failed` after the last retry."""

        TOPIC = "subscription.canceled"
        reason: str
        when: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = SubscriptionStatus.CANCELED

    # --- what may be asked ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        *,
        subscription_id: UUID,
        tenant: Tenant,
        customer_id: str,
        payment_method_id: str,
        plan: Plan,
        description: str | None,
        metadata: Metadata,
        cancel_at_period_end: bool,
        clock_id: str | None,
        anchor: datetime,
        at: datetime,
    ) -> Self:
        """A new one, without a period."""
        return cls._create(
            cls.Created,
            id=subscription_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            customer_id=customer_id,
            payment_method_id=payment_method_id,
            unit_minor=plan.unit.amount_minor,
            currency=plan.unit.currency,
            quantity=plan.quantity,
            interval=plan.interval.value,
            interval_count=plan.interval_count,
            product=plan.product,
            product_name=plan.product_name,
            description=description,
            metadata=dict(metadata),
            cancel_at_period_end=cancel_at_period_end,
            clock_id=clock_id,
            anchor=rfc3339(anchor),
        )

    def begin_period(self, invoice_id: UUID, *, when: datetime, at: datetime) -> None:
        """Goes on to the next period, which is due. Raises SubscriptionStateConflict."""
        self._refuse_ended()
        if self.periods > 0 and (self.status is SubscriptionStatus.INCOMPLETE or when < self.ends):
            raise SubscriptionStateConflict("The next period is not due.", code="not_due")
        self.trigger_event(
            self.PeriodBegun,
            number=self.periods,
            invoice_id=str(invoice_id),
            when=rfc3339(when),
            timestamp=at,
        )

    def update(
        self,
        *,
        payment_method_id: str,
        description: str | None,
        metadata: Metadata,
        cancel_at_period_end: bool,
        at: datetime,
    ) -> None:
        """Says something else of it. Raises SubscriptionStateConflict once it has ended."""
        now: dict[str, Any] = {
            "payment_method_id": payment_method_id,
            "description": description,
            "metadata": dict(metadata),
            "cancel_at_period_end": cancel_at_period_end,
        }
        if all(getattr(self, name) == value for name, value in now.items()):
            return
        self._refuse_ended()
        self.trigger_event(self.Updated, **now, timestamp=at)

    def newest_was_paid(self, *, when: datetime, at: datetime) -> None:
        """Its newest invoice is paid; what has ended stays so."""
        if self.status in (SubscriptionStatus.INCOMPLETE, SubscriptionStatus.PAST_DUE):
            self.trigger_event(self.Activated, when=rfc3339(when), timestamp=at)

    def newest_was_not_paid(self, *, when: datetime, at: datetime) -> None:
        """Its newest invoice is due yet."""
        if self.status is SubscriptionStatus.ACTIVE:
            self.trigger_event(self.WentPastDue, when=rfc3339(when), timestamp=at)

    def expire(self, *, when: datetime, at: datetime) -> None:
        """Gives up on the first payment. Raises SubscriptionStateConflict."""
        waits = self.status is SubscriptionStatus.INCOMPLETE
        if not waits or when < self.anchor + INCOMPLETE_FOR:
            raise SubscriptionStateConflict("It is not time yet.", code="not_due")
        self.trigger_event(self.Expired, when=rfc3339(when), timestamp=at)

    def cancel(self, reason: str, *, when: datetime, at: datetime) -> None:
        """Ends it. Raises SubscriptionStateConflict where it has ended."""
        self._refuse_ended()
        self.trigger_event(self.Canceled, reason=reason, when=rfc3339(when), timestamp=at)

    def _refuse_ended(self) -> None:
        if self.has_ended:
            raise SubscriptionStateConflict(
                f"The subscription is {self.status}.", code="subscription_canceled"
            )

    # --- how it stands -------------------------------------------------------------------------

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows."""
        return self.status in ENDED

    @property
    def ends(self) -> datetime:
        """When the newest period ends, which is when the next begins."""
        return self.period(self.periods - 1)[1]

    def period(self, number: int) -> tuple[datetime, datetime]:
        """From when to when the period of that number is, from 0."""
        start, end = (
            period_start(self.anchor, self.plan.interval, self.plan.interval_count, each)
            for each in (number, number + 1)
        )
        return start, end

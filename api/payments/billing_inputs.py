"""What subscriptions, invoices and clocks of tests are asked with: in Stripe's words, or in plain ones."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from api.errors import invalid
from api.fields import Amount, Currency, Reference, Strict, WholeNumber
from api.payments.inputs import (
    Anything,
    Expandable,
    ListQuery,
    MetadataChange,
    Text,
    TextOrNone,
    Truth,
    listed,
)
from domain.billing_periods import MOST_AT_ONCE, Interval
from domain.money import MAXIMUM_AMOUNT_MINOR, Money
from domain.subscription import Plan

MOST_OF_ONE: Final = 1_000_000
Intervals = Literal["day", "week", "month", "year"]
Count = Annotated[WholeNumber, Field(ge=1, le=max(MOST_AT_ONCE.values()))]
# A period or two on, there is still a calendar.
LATEST_CLOCK: Final = int(datetime(9990, 1, 1, tzinfo=UTC).timestamp())
ClockTime = Annotated[WholeNumber, Field(ge=0, le=LATEST_CLOCK, description="Unix seconds.")]
Quantity = Annotated[WholeNumber, Field(ge=1, le=MOST_OF_ONE)]


class RecurringInput(Strict):
    """How often."""

    interval: Intervals
    interval_count: Count = 1
    usage_type: Literal["licensed"] = "licensed"


class ProductInput(Strict):
    """What it is called."""

    name: Annotated[Text, Field(min_length=1)]
    description: Anything = None
    metadata: Anything = None


class PriceInput(Strict):
    """What one of it costs each time."""

    currency: Currency
    unit_amount: Amount
    recurring: RecurringInput
    product: TextOrNone = None
    product_data: ProductInput | None = None
    tax_behavior: Anything = None


class ItemInput(Strict):
    """What is subscribed to."""

    price_data: PriceInput
    quantity: Quantity = 1


class SubscriptionInput(Expandable):
    """A customer subscribes: by one of `items`, or by `amount`, `currency` and `interval`."""

    customer: Reference
    items: (
        Annotated[list[ItemInput], BeforeValidator(listed), Field(min_length=1, max_length=1)]
        | None
    ) = None
    amount: Amount | None = None
    currency: Currency | None = None
    interval: Intervals | None = None
    interval_count: Count | None = None
    product: TextOrNone = None
    default_payment_method: TextOrNone = None
    description: TextOrNone = None
    metadata: MetadataChange = None
    cancel_at_period_end: Truth = False
    collection_method: Literal["charge_automatically"] = "charge_automatically"
    payment_behavior: Literal["allow_incomplete"] = "allow_incomplete"
    off_session: Anything = None
    payment_settings: Anything = None
    proration_behavior: Anything = None

    def plan(self) -> Plan:
        """What is paid how often. Raises ApiError that names the field."""
        plan = self._of_item() if self.items is not None else self._in_plain_words()
        most = MOST_AT_ONCE[plan.interval]
        where = "" if self.items is None else "items[0][price_data][recurring]"
        if plan.interval_count > most:
            param = f"{where}[interval_count]" if where else "interval_count"
            raise invalid(
                "invalid_param", f"{param} must be at most {most} {plan.interval}s.", param
            )
        if plan.unit.amount_minor * plan.quantity > MAXIMUM_AMOUNT_MINOR:
            param = "items[0][quantity]"
            raise invalid(
                "amount_too_large", f"It may cost at most {MAXIMUM_AMOUNT_MINOR} in all.", param
            )
        return plan

    def _of_item(self) -> Plan:
        assert self.items is not None
        plain = ("amount", "interval", "interval_count", "product")
        for name in plain:
            if getattr(self, name) is not None:
                raise invalid("invalid_param", f"Give items or {name}, not both.", name)
        (item,) = self.items
        price = item.price_data
        if price.product is None and price.product_data is None:
            param = "items[0][price_data][product]"
            raise invalid("missing_param", f"{param} or product_data is required.", param)
        if self.currency not in (None, price.currency):
            raise invalid("invalid_param", "The price is in another currency.", "currency")
        return Plan(
            unit=Money(price.unit_amount, price.currency),
            interval=Interval(price.recurring.interval),
            interval_count=price.recurring.interval_count,
            quantity=item.quantity,
            product=price.product,
            product_name=price.product_data.name if price.product_data else None,
        )

    def _in_plain_words(self) -> Plan:
        for name in ("amount", "currency", "interval"):
            if getattr(self, name) is None:
                message = f"{name} is required, or items."
                raise invalid("missing_param", message, name)
        assert self.amount is not None
        assert self.currency is not None
        assert self.interval is not None
        return Plan(
            unit=Money(self.amount, self.currency),
            interval=Interval(self.interval),
            interval_count=self.interval_count or 1,
            product=self.product,
        )


class SubscriptionChange(Expandable):
    """What may change about a subscription."""

    default_payment_method: TextOrNone = None
    description: TextOrNone = None
    metadata: MetadataChange = None
    cancel_at_period_end: Truth | None = None
    off_session: Anything = None
    payment_behavior: Anything = None
    proration_behavior: Anything = None


class CancelSubscriptionInput(Expandable):
    """It ends now. Nothing is given back."""

    invoice_now: Literal[False] | None = None
    prorate: Literal[False] | None = None
    cancellation_details: Anything = None


class SubscriptionsQuery(ListQuery):
    """Which subscriptions: those that have not ended, unless `status` says another."""

    customer: Text | None = None
    status: (
        Literal[
            "active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due"
        ]
        | None
    ) = None
    test_clock: Text | None = None

    def wanted(self) -> list[str] | None:
        """Which statuses; None: whichever."""
        match self.status:
            case "all":
                return None
            case None:
                return ["active", "incomplete", "past_due"]
            case "ended":
                return ["canceled", "incomplete_expired"]
            case status:
                return [status]


class InvoicesQuery(ListQuery):
    """Which invoices."""

    customer: Text | None = None
    subscription: Text | None = None
    status: Literal["open", "paid", "void"] | None = None


class PayInvoiceInput(Expandable):
    """Pay it now, by this method or by the subscription's."""

    payment_method: TextOrNone = None
    off_session: Anything = None


class ClockInput(Expandable):
    """A clock that says `frozen_time`, until it is moved."""

    frozen_time: ClockTime
    name: TextOrNone = None


class AdvanceInput(Expandable):
    """When it shall be."""

    frozen_time: ClockTime


class ClocksQuery(ListQuery):
    """Which clocks."""

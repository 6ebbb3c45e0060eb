"""What the calls take. All of it is optional but what is `Required`; None is null, which unsets."""

from collections.abc import Mapping, Sequence
from typing import Literal, Required, TypedDict

Metadata = Mapping[str, str | int | float | bool | None]
Reason = Literal["duplicate", "fraudulent", "requested_by_customer"]
CancellationReason = Literal["abandoned", "duplicate", "fraudulent", "requested_by_customer"]


class Options(TypedDict, total=False):
    """What every call takes beside its own parameters."""

    api_key: str
    idempotency_key: str
    expand: Sequence[str]


class Created(TypedDict, total=False):
    """A range of creation times, in Unix seconds."""

    gt: int
    gte: int
    lt: int
    lte: int


class ListParams(Options, total=False):
    """Which page of a list, 1 to 100 on one."""

    limit: int
    starting_after: str
    ending_before: str
    created: Created


class Address(TypedDict, total=False):
    """A postal address."""

    line1: str | None
    line2: str | None
    city: str | None
    state: str | None
    postal_code: str | None
    country: str | None


class Person(TypedDict, total=False):
    """Who is billed."""

    name: str | None
    email: str | None
    phone: str | None
    address: Address | None


class Shipping(TypedDict, total=False):
    """Where to."""

    name: Required[str]
    address: Required[Address]
    carrier: str | None
    phone: str | None
    tracking_number: str | None


class Card(TypedDict, total=False):
    """A card as it was typed, or a token that stands for one."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str
    token: str


class CardChange(TypedDict, total=False):
    """What may change about a card."""

    exp_month: int
    exp_year: int


class CustomerParams(Options, total=False):
    """Somebody who pays."""

    name: str | None
    email: str | None
    phone: str | None
    address: Address | None
    description: str | None
    metadata: Metadata | None


class CustomerListParams(ListParams, total=False):
    """Which customers."""

    email: str


class MethodData(TypedDict, total=False):
    """A payment method that is made on the way."""

    type: Required[Literal["card"]]
    card: Required[Card]
    billing_details: Person
    metadata: Metadata


class MethodParams(Options, total=False):
    """A payment method."""

    type: Required[Literal["card"]]
    card: Required[Card]
    billing_details: Person
    metadata: Metadata


class MethodChange(Options, total=False):
    """What may change about a payment method."""

    card: CardChange
    billing_details: Person
    metadata: Metadata | None


class AttachParams(Options, total=False):
    """Whose the payment method shall be."""

    customer: Required[str]


class MethodListParams(ListParams, total=False):
    """Which payment methods."""

    customer: str
    type: Literal["card"]


class _Attempt(Options, total=False):
    payment_method: str | None
    payment_method_data: MethodData
    return_url: str
    cvc: str
    client_secret: str


class _Terms(_Attempt, total=False):
    customer: str | None
    description: str | None
    receipt_email: str | None
    shipping: Shipping | None
    statement_descriptor: str | None
    statement_descriptor_suffix: str | None
    metadata: Metadata | None
    payment_method_types: Sequence[str]
    capture_method: Literal["automatic", "automatic_async", "manual"]


class IntentParams(_Terms, total=False):
    """What is to be paid, in minor units; `confirm` makes the first attempt at once."""

    amount: Required[int]
    currency: Required[str]
    confirmation_method: Literal["automatic", "manual"]
    confirm: bool


class IntentChange(_Terms, total=False):
    """What may change before an attempt."""

    amount: int
    currency: str


class ConfirmParams(_Attempt, total=False):
    """An attempt, with this method or the intent's own."""

    receipt_email: str | None
    shipping: Shipping | None


class RetrieveIntentParams(Options, total=False):
    """A publishable key needs the intent's secret."""

    client_secret: str


class CaptureParams(Options, total=False):
    """How much of what is held is taken: all of it if nothing is said."""

    amount_to_capture: int


class CancelParams(Options, total=False):
    """Why it is given up."""

    cancellation_reason: CancellationReason


class IntentListParams(ListParams, total=False):
    """Which intents."""

    customer: str


class ChargeListParams(ListParams, total=False):
    """Which charges."""

    customer: str
    payment_intent: str


class RefundParams(Options, total=False):
    """Exactly one of `payment_intent`, `charge` and `payment_id`; all that is left if no amount is said."""

    payment_intent: str
    charge: str
    payment_id: str
    amount: int
    reason: Reason
    metadata: Metadata


class RefundListParams(ListParams, total=False):
    """Which refunds."""

    payment_intent: str
    charge: str
    payment_id: str
    status: Literal["succeeded", "pending", "failed"]


class EventListParams(ListParams, total=False):
    """Which events."""

    type: str
    types: Sequence[str]


class BalanceParams(Options, total=False):
    """Whose balance, as of when: RFC 3339 or Unix seconds."""

    customer_id: str
    as_of: str

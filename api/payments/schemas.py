"""The shapes of what the payments family answers. Stripe's objects have more fields than are named
here: what is named is what hangs together with money."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import ListOut, Minor, PaymentId

Metadata = dict[str, str | int | float | bool]


class StripeShaped(BaseModel):
    """Something with fields beyond those that are named."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")


class CustomerOut(StripeShaped):
    """Somebody who pays."""

    id: Annotated[str, Field(pattern=r"^cus_[0-9a-z]{26}$")]
    object: Literal["customer"]
    email: str | None
    name: str | None
    phone: str | None
    test_clock: str | None
    created: int
    updated: int
    metadata: Metadata


class CustomerList(ListOut):
    """A page of customers."""

    data: list[CustomerOut]


class CardFaceOut(StripeShaped):
    """What may be shown of a card."""

    brand: str
    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")]
    exp_month: int
    exp_year: int
    fingerprint: str | None
    funding: str
    country: str


class AccountFaceOut(StripeShaped):
    """What may be shown of an account."""

    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")]
    sort_code: Annotated[str, Field(pattern=r"^[0-9]{6}$")]
    fingerprint: str | None


class PaymentMethodOut(StripeShaped):
    """A card or an account that may be used again."""

    id: Annotated[str, Field(pattern=r"^pm_[0-9a-z]{26}$")]
    object: Literal["payment_method"]
    type: Literal["card", "bacs_debit"]
    card: CardFaceOut | None = None
    bacs_debit: AccountFaceOut | None = None
    customer: str | None
    created: int
    metadata: Metadata


class PaymentMethodList(ListOut):
    """A page of payment methods."""

    data: list[PaymentMethodOut]


class TokenOut(StripeShaped):
    """A card that may be used once."""

    id: Annotated[str, Field(pattern=r"^tok_[0-9a-z]{26}$")]
    object: Literal["token"]
    card: CardFaceOut
    created: int
    livemode: bool
    type: Literal["card"]
    used: bool


class SourceOut(StripeShaped):
    """What a payment was paid with: a card's face, or an account's `sort_code`."""

    type: Literal["card", "bank_transfer", "apple_pay"]
    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")]


class PaymentOut(StripeShaped):
    """A payment. While a shopper has to approve there is a `next_action`, as an intent has it; where it
    failed, `failure_code` and `failure_message`."""

    id: PaymentId
    object: Literal["payment"]
    amount: Minor
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    status: Literal["succeeded", "pending", "requires_action", "failed", "authorized", "canceled"]
    source: SourceOut
    customer_id: str | None
    description: str | None
    amount_refunded: Minor
    created: int
    metadata: Metadata


class PaymentList(ListOut):
    """A page of payments."""

    data: list[PaymentOut]


class IntentOut(StripeShaped):
    """What is to be paid, and how far that is."""

    id: Annotated[str, Field(pattern=r"^pi_[0-9a-z]{26}$")]
    object: Literal["payment_intent"]
    amount: Minor
    amount_capturable: Minor
    amount_received: Minor
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    status: Literal[
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "requires_capture",
        "succeeded",
        "canceled",
    ]
    capture_method: Literal["automatic", "manual"]
    client_secret: str
    created: int
    description: str | None
    metadata: Metadata


class IntentList(ListOut):
    """A page of payment intents."""

    data: list[IntentOut]


class ChargeOut(StripeShaped):
    """A payment, in another vocabulary."""

    id: Annotated[str, Field(pattern=r"^ch_[0-9a-z]{26}$")]
    object: Literal["charge"]
    amount: Minor
    amount_captured: Minor
    amount_refunded: Minor
    captured: bool
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    paid: bool
    refunded: bool
    status: Literal["succeeded", "pending", "failed"]
    created: int
    metadata: Metadata


class ChargeList(ListOut):
    """A page of charges."""

    data: list[ChargeOut]


class DisputeOut(StripeShaped):
    """A payment that its cardholder says was not right."""

    id: Annotated[str, Field(pattern=r"^dp_[0-9a-z]{26}$")]
    object: Literal["dispute"]
    amount: Minor
    charge: str
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    evidence: dict[str, str | None]
    evidence_details: dict[str, int | bool | None]
    payment_intent: str | None
    reason: str
    status: Literal["needs_response", "under_review", "won", "lost"]
    created: int
    metadata: Metadata


class DisputeList(ListOut):
    """A page of disputes."""

    data: list[DisputeOut]


class SubscriptionOut(StripeShaped):
    """What a customer pays for, period by period."""

    id: Annotated[str, Field(pattern=r"^sub_[0-9a-z]{26}$")]
    object: Literal["subscription"]
    amount: Minor
    cancel_at_period_end: bool
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    current_period_end: int
    current_period_start: int
    customer: Any
    interval: Literal["day", "week", "month", "year"]
    interval_count: int
    status: Literal["incomplete", "incomplete_expired", "active", "past_due", "canceled"]
    created: int
    metadata: Metadata


class SubscriptionList(ListOut):
    """A page of subscriptions."""

    data: list[SubscriptionOut]


class InvoiceOut(StripeShaped):
    """One period of a subscription, to be paid."""

    id: Annotated[str, Field(pattern=r"^in_[0-9a-z]{26}$")]
    object: Literal["invoice"]
    amount_due: Minor
    amount_paid: Minor
    amount_remaining: Minor
    attempt_count: int
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    next_payment_attempt: int | None
    period_end: int
    period_start: int
    status: Literal["open", "paid", "void"]
    created: int


class InvoiceList(ListOut):
    """A page of invoices."""

    data: list[InvoiceOut]


class TestClockOut(StripeShaped):
    """A clock that a test moves."""

    __test__ = False

    id: Annotated[str, Field(pattern=r"^clock_[0-9a-z]{26}$")]
    object: Literal["test_helpers.test_clock"]
    frozen_time: int
    name: str | None
    status: Literal["ready", "advancing"]
    created: int


class TestClockList(ListOut):
    """A page of clocks."""

    __test__ = False

    data: list[TestClockOut]


class BalanceTransactionOut(StripeShaped):
    """What raised or lowered the balance: a capture; a refund, below zero; or a dispute's money, away and back."""

    id: Annotated[str, Field(pattern=r"^txn_[0-9a-z]{26}$")]
    object: Literal["balance_transaction"]
    amount: int
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    created: int
    net: int
    fee: Literal[0]
    source: str | dict[str, Any]
    status: Literal["available"]
    type: Literal["adjustment", "charge", "refund"]


class BalanceTransactionList(ListOut):
    """A page of balance transactions."""

    data: list[BalanceTransactionOut]


class EventDataOut(StripeShaped):
    """What an event is about, as it stood then; and what changed, where that is told."""

    object: dict[str, Any]
    previous_attributes: dict[str, Any] | None


class EventRequestOut(StripeShaped):
    """By which request it came about; null where it was by none."""

    id: str | None
    idempotency_key: str | None


class EventOut(StripeShaped):
    """Something that merchants are told of."""

    id: Annotated[str, Field(pattern=r"^evt_[0-9a-z]{26}$")]
    object: Literal["event"]
    api_version: str
    created: int
    data: EventDataOut
    livemode: bool
    pending_webhooks: int
    request: EventRequestOut
    type: str


class EventList(ListOut):
    """A page of events."""

    data: list[EventOut]


class EndpointOut(StripeShaped):
    """Where a merchant is told of events. `disabled_reason`: `requested`, or `unreachable` where it
    answered nothing well for three days."""

    id: Annotated[str, Field(pattern=r"^we_[0-9a-z]{26}$")]
    object: Literal["webhook_endpoint"]
    api_version: str | None
    application: None
    created: int
    updated: int
    description: str | None
    disabled_reason: Literal["requested", "unreachable"] | None
    enabled_events: list[str]
    livemode: bool
    metadata: Metadata
    status: Literal["enabled", "disabled"]
    url: str


class EndpointWithSecretOut(EndpointOut):
    """The same, with the secret that its deliveries are signed with: it is shown this once."""

    secret: Annotated[str, Field(pattern=r"^whsec_[0-9A-Za-z+/]{40}$")]


class EndpointList(ListOut):
    """A page of webhook endpoints."""

    data: list[EndpointOut]


class AttemptOut(StripeShaped):
    """One attempt to deliver. `error`: why there is no status; `response`: how the answer
    began, null once somebody of whom was told was erased."""

    at: int
    duration_ms: int
    status_code: int | None
    error: str | None
    response: str | None


class DeliveryOut(StripeShaped):
    """An event and an endpoint that is to be told of it. What is told of an attempt is of the last."""

    id: Annotated[str, Field(pattern=r"^whd_[0-9a-z]{26}$")]
    object: Literal["webhook_delivery"]
    event: str
    type: str
    webhook_endpoint: str
    status: Literal["pending", "succeeded", "failed"]
    created: int
    next_attempt_at: int | None
    attempts: int
    status_code: int | None
    duration_ms: int | None
    error: str | None
    response: str | None
    history: list[AttemptOut]


class DeliveryList(ListOut):
    """A page of deliveries."""

    data: list[DeliveryOut]


class SearchOut(StripeShaped):
    """A page of what was found, newest first. `next_page`: what to ask for next as `page`."""

    object: Literal["search_result"]
    has_more: bool
    next_page: str | None
    page: str | None
    query: str
    url: str


class IntentSearch(SearchOut):
    """Payment intents that were found."""

    data: list[IntentOut]


class ChargeSearch(SearchOut):
    """Charges that were found."""

    data: list[ChargeOut]


class CustomerSearch(SearchOut):
    """Customers that were found."""

    data: list[CustomerOut]

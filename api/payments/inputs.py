"""What the payments family takes: JSON or a form, to what the domain knows, and nowhere else."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from api.errors import invalid
from api.fields import (
    AccountNumber,
    Amount,
    CardCvc,
    CardNumber,
    Currency,
    MetadataMap,
    Month,
    Reference,
    SortCode,
    Strict,
    WholeNumber,
    Year,
    is_text_only,
    metadata,
    whole_number,
)
from api.lists import PageQuery
from api.payments.dispute_objects import EVIDENCE_FIELDS
from domain.errors import (
    BalanceTransactionNotFound,
    CustomerNotFound,
    DisputeNotFound,
    EventNotFound,
    IntentNotFound,
    InvoiceNotFound,
    NotFound,
    PaymentMethodNotFound,
    PaymentNotFound,
    RefundNotFound,
    SubscriptionNotFound,
    TestClockNotFound,
    TokenNotFound,
    WebhookDeliveryNotFound,
    WebhookEndpointNotFound,
)
from domain.ids import MalformedId, Prefix, decode
from domain.money import MAXIMUM_AMOUNT_MINOR
from infrastructure.webhooks.urls import LONGEST_URL
from projections.api_events import TYPES

DEEPEST_EXPANSION: Final = 4
MOST_EXPANSIONS: Final = 20
LONGEST_TEXT: Final = 500
LONGEST_EVIDENCE: Final = 150_000
# One at sign, and a name with a dot after it: whether anybody reads it, only a letter tells.
EMAIL: Final = re.compile(
    r"[^\s@<>\"(),:;\[\]\\]+@[^\s@<>\"(),:;\[\]\\.]+(\.[^\s@<>\"(),:;\[\]\\.]+)+"
)
TRUTHS: Final = {"true": True, "false": False}


def _or_none(value: Any) -> Any:
    """An empty text unsets, as null does."""
    return None if value == "" else value


def _email(value: Any) -> Any:
    if isinstance(value, str) and value and not EMAIL.fullmatch(value):
        raise PydanticCustomError("email", "must be an email address")
    return _or_none(value)


def _truth(value: Any, info: ValidationInfo) -> Any:
    if is_text_only(info) and isinstance(value, str) and value in TRUTHS:
        return TRUTHS[value]
    if not isinstance(value, bool):
        raise PydanticCustomError("bool", "must be true or false")
    return value


def listed(value: Any) -> Any:
    """A list, also where a form has it by index."""
    if isinstance(value, dict) and value and all(name.isdigit() for name in value):
        return [value[name] for name in sorted(value, key=int)]
    return value


def _expansions(value: Any) -> Any:
    value = listed(value)
    if isinstance(value, list) and all(isinstance(path, str) for path in value):
        if len(value) > MOST_EXPANSIONS:
            raise PydanticCustomError("expand", f"takes at most {MOST_EXPANSIONS} references")
        if any(path.count(".") >= DEEPEST_EXPANSION for path in value):
            raise PydanticCustomError("expand", f"goes at most {DEEPEST_EXPANSION} levels deep")
    return value


def _metadata_change(value: Any, info: ValidationInfo) -> Any:
    """As metadata is given, but that null removes a key, as an empty text does, and `""` all of them."""
    if isinstance(value, dict):
        given = {name: "" if item is None else item for name, item in value.items()}
        return metadata(given, info)
    return value if value in ("", None) else metadata(value, info)


Truth = Annotated[bool, BeforeValidator(_truth)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
TextOrNone = Annotated[Text | None, BeforeValidator(_or_none)]
EmailOrNone = Annotated[Text | None, BeforeValidator(_email), Field(examples=["dev@example.com"])]
Expand = Annotated[list[str], BeforeValidator(_expansions)]
Anything = Annotated[Any, Field(description="Accepted, and without effect.")]
Texts = Annotated[list[str], BeforeValidator(listed)]


MetadataChange = Annotated[
    dict[str, str | int | float | bool] | Literal[""] | None, BeforeValidator(_metadata_change)
]


class Expandable(Strict):
    """What may be answered with things in the place of references."""

    expand: Expand = Field(default_factory=list)


class ExpandQuery(Expandable):
    """A thing, with things in the place of references."""


class ListQuery(PageQuery, Expandable):
    """Which page of a list."""


class BalanceQuery(Strict):
    """Whose balance: all of the merchant's, or one customer's; now, or as of a moment."""

    customer_id: Reference | None = None
    as_of: Annotated[str, Field(description="RFC 3339, or Unix seconds.")] | None = None


# --- customers ----------------------------------------------------------------------------------


class AddressInput(Strict):
    """A postal address."""

    city: TextOrNone = None
    country: TextOrNone = None
    line1: TextOrNone = None
    line2: TextOrNone = None
    postal_code: TextOrNone = None
    state: TextOrNone = None


AddressOrNone = Annotated[AddressInput | None, BeforeValidator(_or_none)]


class CustomerInput(Expandable):
    """Somebody who pays. All of it can be erased, but for the metadata's place in history."""

    email: EmailOrNone = None
    name: TextOrNone = None
    phone: TextOrNone = None
    address: AddressOrNone = None
    description: TextOrNone = None
    metadata: MetadataChange = None
    test_clock: TextOrNone = None

    def personal(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Who it is, after what is set here was changed."""
        return merged(self, before, ("email", "name", "phone", "address", "description"))


class CustomersQuery(ListQuery):
    """Which customers."""

    email: Text | None = None


# --- payment methods ----------------------------------------------------------------------------


class CardInput(Strict):
    """A card as the shopper typed it, or a token that stands for one. Never shown again."""

    number: CardNumber | None = None
    exp_month: Month | None = None
    exp_year: Year | None = None
    cvc: CardCvc | None = None
    token: Text | None = None


class BillingInput(Strict):
    """Who is billed."""

    address: AddressOrNone = None
    email: TextOrNone = None
    name: TextOrNone = None
    phone: TextOrNone = None


class AccountInput(Strict):
    """An account at a British bank. Its number is never shown again."""

    account_number: AccountNumber
    sort_code: SortCode


class MethodData(Strict):
    """A payment method that is made on the way: a card, or an account with its holder's name in
    `billing_details`."""

    type: Literal["card", "bacs_debit"]
    card: CardInput | None = None
    bacs_debit: AccountInput | None = None
    billing_details: BillingInput | None = None
    metadata: MetadataMap = Field(default_factory=dict)
    allow_redisplay: Anything = None


class MethodInput(MethodData, Expandable):
    """A payment method."""


class TokensCardInput(Strict):
    """A card as the shopper typed it. Never shown again."""

    number: CardNumber
    exp_month: Month
    exp_year: Year
    cvc: CardCvc | None = None


class TokenInput(Expandable):
    """A card, to be used once."""

    card: TokensCardInput


class CardChange(Strict):
    """What may change about a card."""

    exp_month: Month | None = None
    exp_year: Year | None = None


class MethodChange(Expandable):
    """What may change about a payment method."""

    card: CardChange | None = None
    billing_details: BillingInput | None = None
    metadata: MetadataChange = None
    allow_redisplay: Anything = None


class AttachInput(Expandable):
    """Whose the payment method shall be."""

    customer: Reference


class NothingInput(Expandable):
    """No parameters, but for what to expand."""


class MethodsQuery(ListQuery):
    """Which payment methods."""

    customer: Text | None = None
    type: Literal["card", "bacs_debit"] | None = None


# --- payments -----------------------------------------------------------------------------------

LEAST_PAYMENT_MINOR: Final = 50


def _enough(value: Any, info: ValidationInfo) -> Any:
    amount = whole_number(value, info)
    if amount < LEAST_PAYMENT_MINOR:
        raise PydanticCustomError(
            "amount_too_small", f"must be at least {LEAST_PAYMENT_MINOR} (minor units)"
        )
    return amount


PaidAmount = Annotated[
    Amount,
    BeforeValidator(
        _enough,
        json_schema_input_type=Annotated[
            int, Field(ge=LEAST_PAYMENT_MINOR, le=MAXIMUM_AMOUNT_MINOR)
        ],
    ),
]


class HeldAccountInput(AccountInput):
    """An account, and whose it is."""

    account_holder_name: Reference


class SourceInput(Strict):
    """What is paid with: a card by `token` or by `number`, `exp_month`, `exp_year` and `cvc`; an account
    at another bank by `bank_account`; a wallet by `token`."""

    type: Literal["card", "bank_transfer", "apple_pay"]
    token: Reference | None = None
    number: CardNumber | None = None
    exp_month: Month | None = None
    exp_year: Year | None = None
    cvc: CardCvc | None = None
    bank_account: HeldAccountInput | None = None

    @property
    def given(self) -> set[str]:
        """Which fields there are, besides the type."""
        return {name for name in self.model_fields_set if getattr(self, name) is not None} - {
            "type"
        }


class PaymentInput(Strict):
    """Take money at once."""

    amount: PaidAmount
    currency: Currency
    source: SourceInput
    customer_id: Reference | None = None
    description: TextOrNone = None
    metadata: MetadataMap = Field(default_factory=dict)


class ConfirmPaymentInput(Strict):
    """Where the shopper returns to who has to approve."""

    return_url: Annotated[str, Field(min_length=1, max_length=1000)]


class PaymentsQuery(PageQuery):
    """Which payments."""

    customer_id: Reference | None = None
    status: (
        Literal["succeeded", "pending", "requires_action", "failed", "authorized", "canceled"]
        | None
    ) = None


# --- payment intents ----------------------------------------------------------------------------


class _CardOptions(Strict):
    cvc: CardCvc | None = None
    request_three_d_secure: Anything = None
    capture_method: Anything = None
    setup_future_usage: Anything = None


class MethodOptions(Strict):
    """Options of an attempt: a fresh CVC."""

    card: _CardOptions | None = None


class _Harmless(Strict):
    """What Stripe's clients send, and nothing hangs on."""

    use_stripe_sdk: Anything = None
    automatic_payment_methods: Anything = None
    off_session: Anything = None
    setup_future_usage: Anything = None
    mandate_data: Anything = None
    error_on_requires_action: Anything = None
    return_url: TextOrNone = None


class AttemptInput(_Harmless, Expandable):
    """What an attempt is paid with, and where its shopper goes."""

    payment_method: TextOrNone = None
    payment_method_data: MethodData | None = None
    payment_method_options: MethodOptions | None = None
    cvc: CardCvc | None = None
    client_secret: str | None = None

    @property
    def fresh_cvc(self) -> str | None:
        """The CVC that came with this attempt."""
        options = self.payment_method_options
        return self.cvc or (options.card.cvc if options and options.card else None)


class ShippingInput(Strict):
    """Where to."""

    address: AddressInput
    name: Text
    carrier: TextOrNone = None
    phone: TextOrNone = None
    tracking_number: TextOrNone = None


ShippingOrNone = Annotated[ShippingInput | None, BeforeValidator(_or_none)]


class TermsInput(AttemptInput):
    """What may be said of an intent whenever it is made or changed."""

    customer: TextOrNone = None
    customer_id: TextOrNone = None
    description: TextOrNone = None
    receipt_email: TextOrNone = None
    shipping: ShippingOrNone = None
    statement_descriptor: TextOrNone = None
    statement_descriptor_suffix: TextOrNone = None
    metadata: MetadataChange = None
    payment_method_types: Texts | None = None
    capture_method: Literal["automatic", "automatic_async", "manual"] | None = None

    def whose(self) -> tuple[str, str | None]:
        """By which field a customer is named, and which. Raises ApiError."""
        if self.customer is not None and self.customer_id is not None:
            raise invalid("invalid_param", "Give customer or customer_id, not both.", "customer_id")
        if self.customer_id is not None:
            return "customer_id", self.customer_id
        return "customer", self.customer


class IntentInput(TermsInput):
    """What a merchant wants to be paid."""

    amount: Amount
    currency: Currency
    confirmation_method: Literal["automatic", "manual"] = "automatic"
    confirm: Truth = False


class IntentChange(TermsInput):
    """What may change before an attempt."""

    amount: Amount | None = None
    currency: Currency | None = None


class ConfirmInput(AttemptInput):
    """Make an attempt."""

    receipt_email: TextOrNone = None
    shipping: ShippingOrNone = None
    capture_method: Literal["automatic", "automatic_async", "manual"] | None = None
    payment_method_types: Texts | None = None


class CaptureIntentInput(Expandable):
    """Take what is held."""

    amount_to_capture: Amount | None = None
    final_capture: Anything = None
    metadata: MetadataChange = None
    statement_descriptor: TextOrNone = None
    statement_descriptor_suffix: TextOrNone = None


class CancelIntentInput(Expandable):
    """Give it up."""

    cancellation_reason: (
        Literal["abandoned", "duplicate", "fraudulent", "requested_by_customer"] | None
    ) = None


class IntentQuery(Expandable):
    """An intent; with its secret, for a publishable key."""

    client_secret: str | None = None


class IntentsQuery(ListQuery):
    """Which intents."""

    customer: Text | None = None


class ChargesQuery(ListQuery):
    """Which charges."""

    customer: Text | None = None
    payment_intent: Text | None = None


# --- disputes -----------------------------------------------------------------------------------


def _evidence(value: Any) -> Any:
    """Texts by the names that there are; an empty one unsets."""
    if not isinstance(value, dict):
        raise PydanticCustomError("evidence", "must be an object of texts")
    for name, text in value.items():
        if name not in EVIDENCE_FIELDS:
            raise PydanticCustomError("evidence", "has a field that there is none of")
        if not (text is None or isinstance(text, str)):
            raise PydanticCustomError("evidence", "must be an object of texts")
    if sum(len(text or "") for text in value.values()) > LONGEST_EVIDENCE:
        raise PydanticCustomError("evidence", f"may have at most {LONGEST_EVIDENCE} characters")
    return {name: text or None for name, text in value.items()}


class DisputeChange(Expandable):
    """What is said on a dispute; with `submit`, to the bank."""

    evidence: Annotated[dict[str, str | None], BeforeValidator(_evidence)] = Field(
        default_factory=dict
    )
    metadata: MetadataChange = None
    submit: Truth = False


class DisputesQuery(ListQuery):
    """Which disputes."""

    charge: Text | None = None
    payment_intent: Text | None = None


# --- refunds ------------------------------------------------------------------------------------


class _NamesPayment(Strict):
    payment_id: str | None = None
    charge: str | None = None
    payment_intent: str | None = None

    def named(self) -> tuple[str, UUID] | None:
        """By which field a payment, or the intent that it is an attempt of, is named, and which; None
        for none. Raises ApiError, PaymentNotFound, IntentNotFound."""
        fields = ("payment_id", "charge", "payment_intent")
        given = [name for name in fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise invalid(
                "invalid_param", "Give one of payment_id, charge and payment_intent.", given[1]
            )
        if self.payment_intent is not None:
            return "payment_intent", uuid_of(Prefix.INTENT, self.payment_intent, "payment_intent")
        if self.charge is not None:
            return "charge", uuid_of(Prefix.CHARGE, self.charge, "charge")
        if self.payment_id is not None:
            return "payment_id", uuid_of(Prefix.PAYMENT, self.payment_id, "payment_id")
        return None


class RefundInput(_NamesPayment, Expandable):
    """Give money back."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["payment_id"]},
                {"required": ["charge"]},
                {"required": ["payment_intent"]},
            ]
        }
    )

    amount: Amount | None = None
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None
    metadata: MetadataMap = Field(default_factory=dict)

    @property
    def by_charge(self) -> bool:
        """Whether it is asked for in the intents' vocabulary, and so spelled `re_`."""
        return self.payment_id is None

    def payment(self) -> tuple[str, UUID]:
        """As `named`, but that something has to be. Raises ApiError, PaymentNotFound, IntentNotFound."""
        named = self.named()
        if named is None:
            raise invalid("missing_param", "payment_id is required.", "payment_id")
        return named


class RefundChange(Expandable):
    """What may change about a refund."""

    metadata: MetadataChange = None


class RefundsQuery(PageQuery, _NamesPayment, Expandable):
    """Which refunds."""

    status: Literal["succeeded", "pending", "failed"] | None = None


class BalanceTransactionsQuery(ListQuery):
    """Which balance transactions: of a type, of a charge or a refund, in a currency."""

    type: Literal["adjustment", "charge", "refund"] | None = None
    source: Text | None = None
    currency: Currency | None = None


# --- searches and events ------------------------------------------------------------------------


class SearchQuery(Expandable):
    """What is sought: `field:'value'` and the like, joined by AND or by OR."""

    query: Annotated[str, Field(examples=["status:'succeeded' AND amount>1000"])]
    limit: Annotated[WholeNumber, Field(ge=1, le=100)] = 10
    page: Annotated[str, Field(description="The `next_page` of the page before.")] | None = None


def _event_type(value: Any) -> Any:
    """A type that there is, or a group of them, as in `charge.*`."""
    if not isinstance(value, str) or not _types_like(value):
        raise PydanticCustomError("event_type", "must be a type of event, or a group as charge.*")
    return value


def _types_like(kind: str) -> set[str]:
    if kind == "*":
        return set(TYPES)
    group = kind.removesuffix("*") if kind.endswith(".*") else None
    return {each for each in TYPES if each == kind or (group and each.startswith(group))}


EventType = Annotated[str, BeforeValidator(_event_type)]


class EventsQuery(ListQuery):
    """Which events: of a type, or of several."""

    type: EventType | None = None
    types: Annotated[list[EventType], BeforeValidator(listed), Field(max_length=20)] = Field(
        default_factory=list
    )

    @model_validator(mode="after")
    def one_way(self) -> "EventsQuery":
        """They are named in one way."""
        if self.type is not None and self.types:
            raise PydanticCustomError("both", "takes type or types, not both")
        return self

    def wanted(self) -> list[str] | None:
        """Which types; None: all."""
        kinds = [*self.types, *([] if self.type is None else [self.type])]
        return sorted({each for kind in kinds for each in _types_like(kind)}) or None


# --- webhooks -----------------------------------------------------------------------------------

LONGEST_VERSION: Final = 40
MOST_EVENTS: Final = 100
LONGEST_OVERLAP_SECONDS: Final = 7 * 86_400

EventTypes = Annotated[
    list[EventType],
    BeforeValidator(listed),
    Field(
        min_length=1,
        max_length=MOST_EVENTS,
        description="Types of events, groups of them as `charge.*`, or `*` for all.",
        examples=[["payment.succeeded", "refund.*"]],
    ),
]
Url = Annotated[
    str, Field(max_length=LONGEST_URL, examples=["https://shop.example/webhooks/payments"])
]


def _each_once(kinds: list[str] | None) -> list[str]:
    return list(dict.fromkeys(kinds or []))


class EndpointInput(Expandable):
    """Where to be told of which events."""

    url: Url
    enabled_events: EventTypes
    api_version: Annotated[str, Field(max_length=LONGEST_VERSION)] | None = None
    description: TextOrNone = None
    metadata: MetadataMap = Field(default_factory=dict)

    def wanted(self) -> list[str]:
        """Which events."""
        return _each_once(self.enabled_events)


class EndpointChange(Expandable):
    """What may change about an endpoint. `disabled`: whether it is told of nothing for now."""

    url: Url | None = None
    enabled_events: EventTypes | None = None
    description: TextOrNone = None
    metadata: MetadataChange = None
    disabled: Truth | None = None

    def wanted(self) -> list[str]:
        """Which events, where that is to be changed."""
        return _each_once(self.enabled_events)


class RotationInput(Expandable):
    """How long the old secret signs as well."""

    expires_in: Annotated[
        WholeNumber, Field(ge=0, le=LONGEST_OVERLAP_SECONDS, description="Seconds.")
    ] = 86_400


class ResendInput(Expandable):
    """To which endpoint; to all that want the event, where none is named."""

    webhook_endpoint: TextOrNone = None


class DeliveriesQuery(ListQuery):
    """Which deliveries."""

    status: Literal["pending", "succeeded", "failed"] | None = None
    event: Text | None = None


def merged(given: Strict, before: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """`before`, with those of `names` that were given set to what was given, and what is null gone."""
    after = dict(before)
    for name in names:
        if name in given.model_fields_set:
            value = getattr(given, name)
            after[name] = value.model_dump() if isinstance(value, Strict) else value
    return {name: value for name, value in after.items() if value is not None}


NOT_FOUND: Final[Mapping[Prefix, tuple[type[NotFound], str]]] = {
    Prefix.CUSTOMER: (CustomerNotFound, "There is no such customer."),
    Prefix.PAYMENT_METHOD: (PaymentMethodNotFound, "There is no such payment method."),
    Prefix.INTENT: (IntentNotFound, "There is no such payment intent."),
    Prefix.PAYMENT: (PaymentNotFound, "There is no such payment."),
    Prefix.CHARGE: (PaymentNotFound, "There is no such charge."),
    Prefix.TOKEN: (TokenNotFound, "There is no such token."),
    Prefix.EVENT: (EventNotFound, "There is no such event."),
    Prefix.DISPUTE: (DisputeNotFound, "There is no such dispute."),
    Prefix.SUBSCRIPTION: (SubscriptionNotFound, "There is no such subscription."),
    Prefix.INVOICE: (InvoiceNotFound, "There is no such invoice."),
    Prefix.TEST_CLOCK: (TestClockNotFound, "There is no such test clock."),
    Prefix.REFUND: (RefundNotFound, "There is no such refund."),
    Prefix.BALANCE_TRANSACTION: (
        BalanceTransactionNotFound,
        "There is no such balance transaction.",
    ),
    Prefix.WEBHOOK_ENDPOINT: (WebhookEndpointNotFound, "There is no such webhook endpoint."),
    Prefix.WEBHOOK_DELIVERY: (WebhookDeliveryNotFound, "There is no such delivery."),
}


def missing(prefix: Prefix, param: str | None = None) -> NotFound:
    """There is no such thing, for this key at least."""
    error, message = NOT_FOUND[prefix]
    return error(message, param=param)


def uuid_of(prefix: Prefix, text: str, param: str | None = None) -> UUID:
    """What a public id names. Raises NotFound."""
    try:
        return decode(prefix, text)
    except MalformedId as error:
        raise missing(prefix, param) from error

"""The shapes of what is answered, for the OpenAPI document and for the tests that hold us to it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from domain.payment import ReviewReason, Status

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
PaymentId = Annotated[str, Field(pattern=r"^pay_[0-9a-z]{26}$")]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]
Minor = Annotated[int, Field(ge=0, description="Minor units.")]


class Out(BaseModel):
    """Something that is answered: these fields, all of them, and no others."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class CardOut(Out):
    """What may be shown of a card."""

    brand: str
    last4: Annotated[str, Field(pattern=r"^[0-9]{4}$")]
    exp_month: int
    exp_year: int


class BankIdsOut(Out):
    """The bank's ids for what it did."""

    authorization_id: str | None
    capture_id: str | None
    void_id: str | None
    refund_ids: list[str]


class ReviewOut(Out):
    """What cannot be resolved by machine."""

    reason: ReviewReason
    since: Moment


class FailureOut(Out):
    """The last operation that the bank refused."""

    operation: Literal["authorization", "capture", "void", "refund", "transfer"]
    code: str
    message: str


class StepOut(Out):
    """When the payment entered a status."""

    status: Status
    at: Moment


class ReceiptOut(Out):
    """How a payment stands, and how it came to that."""

    object: Literal["receipt"]
    payment_id: PaymentId
    order_id: str | None
    customer_id: str | None
    amount: Minor
    currency: str
    status: Status
    amount_captured: Minor
    amount_refunded: Minor
    card: CardOut | None
    bank: BankIdsOut
    pending_operation: Literal["authorization", "capture", "void", "refund", "transfer"] | None
    needs_review: ReviewOut | None
    failure: FailureOut | None
    authorization_expires_at: Moment | None
    timeline: list[StepOut]
    created_at: Moment
    updated_at: Moment
    version: int
    metadata: dict[str, str | int | float | bool]


class InclusionOut(Out):
    """That the log has an event (RFC 6962, 2.1.1): `hashes` lead from `leaf_hash` to `root_hash`, which
    is that of the signed checkpoint of this size. All in base64."""

    position: Annotated[int, Field(ge=0)]
    tree_size: Annotated[int, Field(ge=1)]
    leaf_hash: Base64
    root_hash: Base64
    hashes: list[Base64]


class ReceiptProofOut(InclusionOut):
    """That the log has the event that made the receipt what it is: the payment's, of the receipt's
    version. `leaf`: what is hashed of it, which names both."""

    leaf: Base64


class ProvenReceiptOut(ReceiptOut):
    """A receipt with its proof; null until a signed checkpoint covers its last event."""

    proof: ReceiptProofOut | None


class ReceiptAnswer(RootModel[ReceiptOut | ProvenReceiptOut]):
    """A receipt, with a proof where one is asked for."""


class RefundOut(Out):
    """Money given back."""

    id: Annotated[str, Field(pattern=r"^(rfnd|re)_[0-9a-z]{26}$")]
    object: Literal["refund"]
    payment_id: PaymentId
    charge: str | dict[str, Any]
    payment_intent: str | dict[str, Any] | None
    amount: Minor
    currency: str
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None
    status: Literal["succeeded", "pending", "failed"]
    created: int
    metadata: dict[str, str | int | float | bool]


class OrderOut(Out):
    """An order, by its payments."""

    object: Literal["order"]
    order_id: str
    status: Status
    payment_id: PaymentId
    ok_to_ship: bool
    payments: list[ReceiptOut]


class ListOut(Out):
    """A page of a list, newest first."""

    object: Literal["list"]
    has_more: bool
    next_cursor: str | None
    url: str


class ReceiptList(ListOut):
    """A page of receipts."""

    data: list[ReceiptOut]


class RefundList(ListOut):
    """A page of refunds."""

    data: list[RefundOut]


class ErrorDetails(BaseModel):
    """What went wrong. `param` names the field, where one is to blame."""

    type: str
    code: str
    message: str
    param: str | None = None
    decline_code: str | None = None
    payment_id: str | None = None
    request_id: str | None = None


class ErrorOut(Out):
    """Every failure has this shape."""

    error: ErrorDetails


class HealthOut(Out):
    """The service is up."""

    status: Literal["ok"]
    version: str
    timestamp: Moment


class AmountOut(Out):
    """An amount in one currency."""

    amount: int
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]


class SourceTypesOut(Out):
    """An amount by how it was paid."""

    card: int


class AvailableOut(AmountOut):
    """An amount in one currency, by how it was paid."""

    source_types: SourceTypesOut


class BalanceOut(Out):
    """What is held, captured, refunded and disputed, by currency. `available`: captured, and neither
    refunded nor taken back by the bank for a cardholder who disputes it."""

    object: Literal["balance"]
    available: list[AvailableOut]
    pending: list[AvailableOut]
    held: list[AmountOut]
    captured: list[AmountOut]
    refunded: list[AmountOut]
    disputed: list[AmountOut]
    livemode: bool

"""What the gateway family takes: JSON to commands, and nowhere else."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.fields import (
    Amount,
    CardCvc,
    CardNumber,
    Currency,
    MetadataMap,
    Month,
    Reference,
    Strict,
    WholeNumber,
    Year,
)
from api.lists import PageQuery
from domain.cards import Card
from domain.errors import PaymentNotFound
from domain.ids import MalformedId, Prefix, decode
from domain.payment import Status


class CardInput(Strict):
    """A card, as the shopper typed it. It is never stored in clear, and never shown again."""

    number: CardNumber
    exp_month: Month
    exp_year: Year
    cvc: CardCvc

    def card(self) -> Card:
        """The same, as the domain has it."""
        return Card(
            number=self.number, exp_month=self.exp_month, exp_year=self.exp_year, cvc=self.cvc
        )


class AuthorizationInput(Strict):
    """Reserve money for an order."""

    order_id: Reference
    customer_id: Reference
    amount: Amount
    currency: Currency = "USD"
    card: CardInput | None = None
    payment_method: Annotated[str, Field(max_length=255, examples=["pm_card_visa"])] | None = None
    metadata: MetadataMap = Field(default_factory=dict)

    cvc: CardCvc | None = None

    @model_validator(mode="after")
    def fresh_cvc_of_a_method(self) -> "AuthorizationInput":
        """A card has its own."""
        if self.cvc is not None and self.payment_method is None:
            raise PydanticCustomError("cvc", "takes cvc with payment_method only")
        return self


class _OfPayment(Strict):
    payment_id: Annotated[str, Field(examples=["pay_01jd3xk5v8e2m9q4w7r6t0y1b2"])]

    def uuid(self) -> UUID:
        """The payment that is meant. Raises PaymentNotFound."""
        return payment_uuid(self.payment_id, param="payment_id")


class CaptureInput(_OfPayment):
    """Take the money that is held."""

    amount: Amount | None = None


class VoidInput(_OfPayment):
    """Release the money that is held."""


class ReceiptsQuery(PageQuery):
    """Which receipts."""

    order_id: Reference | None = None
    customer_id: Reference | None = None
    status: Status | None = Field(default=None, strict=False)


class MomentQuery(Strict):
    """A receipt as it stood: at a time, or at a version; and with the proof of its last event."""

    as_of: Annotated[str, Field(description="RFC 3339, or Unix seconds.")] | None = None
    version: Annotated[WholeNumber, Field(ge=1, le=10**9)] | None = None
    proof: Literal["true", "false"] = "false"

    @model_validator(mode="after")
    def one_moment(self) -> "MomentQuery":
        """One moment is asked for."""
        if self.as_of is not None and self.version is not None:
            raise PydanticCustomError("both", "takes as_of or version, not both")
        return self


def payment_uuid(text: str, *, param: str | None = None) -> UUID:
    """The payment that a public id names. Raises PaymentNotFound for what is none."""
    try:
        return decode(Prefix.PAYMENT, text)
    except MalformedId as error:
        raise PaymentNotFound("There is no such payment.", param=param) from error

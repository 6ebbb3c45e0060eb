"""What the asynchronous family takes: JSON to commands, and nowhere else."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from api.fields import Amount, Currency, MetadataMap, Reference, Strict
from domain.errors import IntentNotFound, PaymentNotFound
from domain.ids import MalformedId, Prefix, decode

MethodId = Annotated[str, Field(max_length=255, examples=["pm_fake_visa"])]


class AsyncIntentInput(Strict):
    """What a merchant wants to be paid. `customer_id` is a reference of the merchant's own."""

    amount: Amount
    currency: Currency
    customer_id: Reference | None = None
    payment_method_id: MethodId | None = None
    capture_method: Literal["automatic", "manual"] = "automatic"
    metadata: MetadataMap = Field(default_factory=dict)


class AsyncConfirmInput(Strict):
    """Make the attempt; with this payment method, where that is not the intent's."""

    payment_method_id: MethodId | None = None


class ConfirmQuery(Strict):
    """How the attempt is to end, in test mode: `failure`, without asking the bank."""

    force: Literal["failure"] | None = None


class AsyncRefundInput(Strict):
    """Give money back: all that is left, or part of it."""

    payment_id: Annotated[str, Field(examples=["pay_01jd3xk5v8e2m9q4w7r6t0y1b2"])]
    amount: Amount | None = None
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None

    def uuid(self) -> UUID:
        """The payment that is meant. Raises PaymentNotFound."""
        try:
            return decode(Prefix.PAYMENT, self.payment_id)
        except MalformedId as error:
            raise PaymentNotFound("There is no such payment.", param="payment_id") from error


def intent_uuid(text: str) -> UUID:
    """The payment intent that a public id names. Raises IntentNotFound."""
    try:
        return decode(Prefix.INTENT, text)
    except MalformedId as error:
        raise IntentNotFound("There is no such payment intent.") from error

"""The shapes of what the asynchronous family answers."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas import Minor, Moment, Out, PaymentId

IntentId = Annotated[str, Field(pattern=r"^pi_[0-9a-z]{26}$")]
IntentStatus = Literal[
    "requires_confirmation", "processing", "requires_capture", "succeeded", "failed", "canceled"
]
SettledStatus = Literal["requires_capture", "succeeded", "failed", "canceled"]


class NewAsyncIntentOut(Out):
    """What is to be paid."""

    id: IntentId
    status: Literal["requires_confirmation"]
    amount: Minor
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    customer_id: str | None
    payment_method_id: str | None
    capture_method: Literal["automatic", "manual"]
    client_secret: str
    metadata: dict[str, str | int | float | bool]


class AsyncIntentOut(NewAsyncIntentOut):
    """What is to be paid, and how far that is."""

    status: IntentStatus  # type: ignore[assignment]
    created_at: Moment
    updated_at: Moment


class ConfirmedOut(Out):
    """It is being paid, in the background."""

    id: IntentId
    status: Literal["processing"]


class ResultOut(Out):
    """What came of it. `auth_code` is null where the bank held nothing."""

    payment_id: PaymentId
    payment_intent_id: IntentId
    status: SettledStatus
    captured_amount: Minor
    auth_code: Annotated[str, Field(pattern=r"^[0-9A-Z]{1,6}$")] | None
    receipt_url: str


class TooEarlyOut(Out):
    """Nothing came of it yet: the intent's status, in the place of a result."""

    error: Literal["requires_confirmation", "processing"]


class AsyncRefundOut(Out):
    """Money given back."""

    id: Annotated[str, Field(pattern=r"^re_[0-9a-z]{26}$")]
    payment_id: PaymentId
    amount: Minor
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None
    status: Literal["succeeded", "pending", "failed"]
    created_at: Moment

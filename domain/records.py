"""What is written beside events, in the same database transaction: all of it or none of it.

A recorder is handed these values by `PaymentLedger` and writes each into the table it belongs to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from domain.bank import Operation
from domain.commands import Audience, Cause, Claim, Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimKey:
    """The idempotency key is taken; raises KeyAlreadyClaimed when it was.

    `payment_id`: of the payment whose outcome is the answer, or of what the request made. `answer`:
    where it is known already.
    """

    claim: Claim
    payment_id: UUID
    request_id: str
    answer: "StoredAnswer | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What was answered, byte for byte: HTTP status, headers of its own, body."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKey:
    """The idempotency key has its answer, for ever."""

    tenant: Tenant
    key: str
    answer: StoredAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOrderSlot:
    """The order has a live payment; raises OrderAlreadyPaid when it had one."""

    tenant: Tenant
    order_id: str
    payment_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeOrderSlot:
    """The order's payment is live no more, so that another may be tried."""

    tenant: Tenant
    order_id: str
    payment_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class BankCall:
    """A question put to the bank that has no recorded outcome yet.

    `attempts`: how often it was taken up before this time. `unanswered`: how many of those may have
    reached the bank and got no answer. `contradictions`: how many of the last ones got an answer
    that cannot be, one after the other. `reached`: one of them went out at all. `age_seconds`: since
    it was first put. `fence`: who holds the lease; it grows each time the call is taken up, so that
    one who lost it changes nothing. `sealed_card`: a card or an account, encrypted, and gone when the
    bank needs it no more: with the row when the call has its outcome, and before that once it waits for
    a shopper or for another bank. `superseded_key`: the idempotency key of the command that this one
    took the call over from, which has the same outcome.
    """

    payment_id: UUID
    tenant: Tenant
    operation: Operation
    bank_key: str
    cause: Cause
    audience: Audience
    sealed_card: bytes | None = None
    return_url: str | None = None
    attempts: int = 0
    unanswered: int = 0
    contradictions: int = 0
    reached: bool = False
    age_seconds: float = field(default=0.0, compare=False)
    fence: int = 1
    superseded_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginCall:
    """The call is outstanding, and leased to us for `lease_seconds`; or, when it is not `ours`, left to
    a worker, which takes it up after so long."""

    call: BankCall
    lease_seconds: float
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EndCall:
    """The call has its outcome; raises LeaseLost when it is not ours to end."""

    call: BankCall


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitShopper:
    """The call waits for a shopper, with nobody at it until it is looked again, and without the card;
    raises LeaseLost when it is not ours to leave."""

    call: BankCall


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitTransfer:
    """The same of a transfer that is under way: the account is not kept any longer either."""

    call: BankCall


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepCard:
    """A payment method's or a token's card, or a method's account, is in the vault; its CVC for a while
    only. `is_for_once`: all of it is."""

    method_id: UUID
    sealed_number: bytes
    sealed_cvc: bytes | None
    is_for_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UseToken:
    """The token is used up, and its card is in the vault no more; raises TokenAlreadyUsed when it
    was."""

    token_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCard:
    """It is there no more. `cvc_only`: the CVC, which was used."""

    method_id: UUID
    cvc_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepPersonalData:
    """Who somebody is, of whom the log keeps a reference only. `owner`: of the aggregate that they
    are, or that it was said with; `document`: JSON values."""

    owner: UUID
    tenant: Tenant
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPersonalData:
    """It is there no more."""

    owner: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondToDispute:
    """The bank is to be told what the merchant answered. `kind`: evidence, or acceptance."""

    dispute_id: UUID
    kind: str
    bank_dispute_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveByClock:
    """The customer's subscriptions live by a clock that tests move."""

    customer_id: UUID
    clock_id: UUID
    tenant: Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseLater:
    """All that is known of a deleted customer is erased once more, after so long at the latest."""

    customer_id: UUID
    tenant: Tenant
    after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueCall:
    """The call has its outcome or is given up, and what follows is outstanding in its place, leased to
    us for `lease_seconds`; raises LeaseLost when somebody took it up meanwhile."""

    call: BankCall
    following: BankCall
    lease_seconds: float


Record = (
    ClaimKey
    | AnswerKey
    | TakeOrderSlot
    | FreeOrderSlot
    | BeginCall
    | ContinueCall
    | AwaitShopper
    | AwaitTransfer
    | EndCall
    | KeepCard
    | ForgetCard
    | UseToken
    | KeepPersonalData
    | ForgetPersonalData
    | RespondToDispute
    | LiveByClock
    | EraseLater
)


def claimed_by(
    claim: Claim | None, cause: Cause, made: UUID, answer: StoredAnswer
) -> list[ClaimKey]:
    """The idempotency key of a command that has its answer at once. `made`: what it was about."""
    if claim is None:
        return []
    assert cause.request_id is not None
    return [ClaimKey(claim=claim, payment_id=made, request_id=cause.request_id, answer=answer)]

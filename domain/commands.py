"""Everything that can be asked of the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from domain.accounts import Means
from domain.cards import Card
from domain.money import Money

if TYPE_CHECKING:
    from domain.payment import CaptureMethod, Status

Metadata = Mapping[str, str | int | float | bool]


class Mode(StrEnum):
    """Test and live data never mix."""

    TEST = "test"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose data it is: a merchant (`mer_…`), in one mode."""

    merchant_id: str
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why something was recorded: which request, under which idempotency key, by whom.

    `actor` is an API key's id (`key_…`), `worker`, or an operator's name.
    """

    actor: str
    request_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An idempotency key and what it was used for. `fingerprint` is a keyed hash of the request."""

    tenant: Tenant
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who will read the answer: a published family, in its own words or in Stripe's. `expand`: which
    references are to be answered as the things themselves."""

    family: str
    dialect: str = "own"
    expand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What every command carries. `deadline`: on the monotonic clock, seconds; after it, a 202."""

    tenant: Tenant
    cause: Cause
    audience: Audience
    deadline: float
    claim: Claim | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizePayment(Command):
    """Reserve `money` on `card` for an order, which may have one live payment. `method_id` and
    `fingerprint`: of the payment method that the card is of. `return_url`: where the shopper goes after
    approving, if the bank asks for that."""

    order_id: str
    customer_id: str
    money: Money
    card: Card
    metadata: Metadata = field(default_factory=dict)
    method_id: str | None = None
    fingerprint: str | None = None
    return_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MakePayment(Command):
    """Take `money` at once: of a card, which is held and captured by one request, or by a transfer from
    an account, which a worker sees through. `method_id`: a token, where it was given by one."""

    customer_id: str | None
    money: Money
    means: Means
    method_id: str | None = None
    fingerprint: str
    description: str | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """What an attempt is paid with. `method_id`: the payment method's public id, or a test token's
    name; `fingerprint`: a keyed hash of the card's or the account's number."""

    method_id: str
    means: Means
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmIntent(Command):
    """Make an attempt. `starts_in_seconds`: a worker makes it, after so long, and nobody waits for it.
    `capture_method`: where it is to be another than the intent's. `test_outcome`: `failure` to be declined without asking the bank. `once_only`: not after another."""

    intent_id: UUID
    instrument: Instrument
    return_url: str | None = None
    capture_method: "CaptureMethod | None" = None
    starts_in_seconds: float | None = None
    test_outcome: str | None = None
    once_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelIntent(Command):
    """Give an intent up, and release what it holds."""

    intent_id: UUID
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureIntent(Command):
    """Take what an intent holds, or `amount_minor` of it. `changes`: of its terms, such as move no
    money."""

    intent_id: UUID
    amount_minor: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePayment(Command):
    """Take what is held, or `amount_minor` of it."""

    payment_id: UUID
    amount_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoidPayment(Command):
    """Release what is held."""

    payment_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireAuthorization(Command):
    """Release a hold that is past its time, since the bank does not do so by itself."""

    payment_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundPayment(Command):
    """Give back all that is left of a capture, or `amount_minor` of it.

    `by_charge`: the refund is spelled `re_` for ever, because it was asked for by a charge's id.
    """

    payment_id: UUID
    amount_minor: int | None = None
    reason: str | None = None
    metadata: Metadata = field(default_factory=dict)
    by_charge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvePayment:
    """Say what became of a payment that no machine can make certain. No bank is asked.

    `status`: as an operator found it. `bank_id`: of the hold, the capture, the void or the refund
    that makes it so. `amount_minor`: of a capture or a refund that the ledger knows nothing of, where
    it is not all of it. `expires_at`: of a hold, where that is known.
    """

    tenant: Tenant
    cause: Cause
    payment_id: UUID
    status: "Status"
    bank_id: str | None
    reason: str
    amount_minor: int | None = None
    expires_at: datetime | None = None

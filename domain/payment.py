"""A payment: from asking for a hold to money given back.

Commands decide, against the one table of what is allowed in which status, and record events; events
only assign, since they run again at every replay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.accounts import AccountFace
from domain.bank import (
    AlreadyDone,
    Approved,
    BankCapabilities,
    Contradicted,
    Declined,
    Operation,
    Outcome,
    Rejected,
)
from domain.cards import CardFace
from domain.commands import Metadata, Mode, Tenant
from domain.dispute import DECIDED, Dispute, DisputeNotice, DisputeStatus
from domain.errors import (
    AmountTooLarge,
    AmountTooSmall,
    DisputeNotFound,
    OperationInProgress,
    PartialAmountUnsupported,
    PaymentStateConflict,
    RefundExceedsPayment,
)
from domain.ids import Prefix, encode
from domain.money import MINIMUM_AMOUNT_MINOR, Money


class Status(StrEnum):
    """The last certain state of a payment."""

    PENDING = "pending"
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    REFUNDED = "refunded"
    VOIDED = "voided"
    DECLINED = "declined"
    EXPIRED = "expired"


LIVE: Final = frozenset({Status.PENDING, Status.AUTHORIZED, Status.CAPTURED})
"""An order has at most one payment in these."""


class ReviewReason(StrEnum):
    """Why a payment cannot be made certain by machine."""

    POSSIBLE_ORPHAN_HOLD = "possible_orphan_hold"
    CAPTURE_ID_UNKNOWN = "capture_id_unknown"
    REFUND_ID_UNKNOWN = "refund_id_unknown"
    BANK_DISAGREES = "bank_disagrees"


class DifferenceKind(StrEnum):
    """How the bank's record of a payment can differ from ours."""

    MISSING = "missing"  # the bank does not have what it once said that it had
    AMOUNT = "amount"
    CURRENCY = "currency"
    STATE = "state"
    REFERENCE = "reference"  # it belongs to something else there
    UNKNOWN_AUTHORIZATION = "unknown_authorization"  # the bank did what we have as not done,
    UNKNOWN_CAPTURE = "unknown_capture"  # or did it under an id that we do not have
    UNKNOWN_VOID = "unknown_void"
    UNKNOWN_REFUND = "unknown_refund"
    UNKNOWN_TRANSFER = "unknown_transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing on which the bank's record and ours do not agree, and what each of them says."""

    kind: DifferenceKind
    ours: str
    bank: str


FIRST: Final = 1
ALLOWED: Final = ""

# Which command is allowed in which status, and under which code it is refused in the others.
COMMANDS_BY_STATUS: Final[Mapping[Operation, Mapping[Status, str]]] = {
    Operation.CAPTURE: {
        Status.PENDING: "operation_in_progress",
        Status.AUTHORIZED: ALLOWED,
        Status.CAPTURED: "payment_already_captured",
        Status.REFUNDED: "payment_already_refunded",
        Status.VOIDED: "payment_voided",
        Status.DECLINED: "payment_declined",
        Status.EXPIRED: "authorization_expired",
    },
    Operation.VOID: {
        Status.PENDING: "operation_in_progress",
        Status.AUTHORIZED: ALLOWED,
        Status.CAPTURED: "payment_already_captured",
        Status.REFUNDED: "payment_already_refunded",
        Status.VOIDED: "payment_already_voided",
        Status.DECLINED: "payment_declined",
        Status.EXPIRED: "authorization_expired",
    },
    Operation.REFUND: {
        Status.PENDING: "operation_in_progress",
        Status.AUTHORIZED: "payment_not_captured",
        Status.CAPTURED: ALLOWED,
        Status.REFUNDED: "payment_already_refunded",
        Status.VOIDED: "payment_not_captured",
        Status.DECLINED: "payment_not_captured",
        Status.EXPIRED: "payment_not_captured",
    },
}

AUTHORIZATION_EXPIRED: Final = "authorization_expired"
BANK_PROTOCOL_ERROR: Final = "bank_protocol_error"
AUTHENTICATION_REQUIRED: Final = "authentication_required"


class CaptureMethod(StrEnum):
    """Who decides when a hold is taken: the bank's yes to it, or a command."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a payment is an attempt of, and how it goes on by itself.

    `intent_id` and `payment_method_id`: public ids. `card_fingerprint`: a keyed hash, the same for the
    same card, or account. `test_outcome`: `failure` to be declined without asking the bank, in test mode.
    """

    intent_id: str | None = None
    payment_method_id: str | None = None
    card_fingerprint: str | None = None
    capture_method: CaptureMethod = CaptureMethod.MANUAL
    description: str | None = None
    test_outcome: str | None = None


BY_COMMAND: Final = Origin()
"""A payment that was asked for as such, and is captured when that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningOperation:
    """An ask to the bank without an outcome. `amount_minor`: what it would move or hold."""

    operation: Operation
    amount_minor: int
    number: int  # the version of the event that asked
    refund_id: str | None = None
    on_expiry: bool = False

    @classmethod
    def authorizing(cls, amount_minor: int) -> Self:
        """The first of every payment."""
        return cls(operation=Operation.AUTHORIZATION, amount_minor=amount_minor, number=FIRST)


class Begun(AggregateCreated):
    """What every first event says: whose payment it is, of how much, and of what."""

    merchant_id: str
    mode: str
    order_id: str | None
    customer_id: str | None
    amount_minor: int
    currency: str
    metadata: Metadata
    intent_id: str | None
    payment_method_id: str | None
    description: str | None
    test_outcome: str | None

    def mutate(self, aggregate: Any) -> Any:
        payment = super().mutate(aggregate)
        assert isinstance(payment, Payment)
        payment.history.append(self)  # type: ignore[arg-type]  # an Event of theirs, all the same
        return payment


class Payment(Aggregate):
    """One attempt to be paid: one hold, at most one capture, refunds up to what was captured."""

    TOPIC = "payment"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        order_id: str | None,
        customer_id: str | None,
        amount_minor: int,
        currency: str,
        intent_id: str | None,
        payment_method_id: str | None,
        test_outcome: str | None,
        capture_method: str = CaptureMethod.AUTOMATIC.value,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.order_id, self.customer_id = order_id, customer_id
        self.money = Money(amount_minor, currency)
        self.intent_id = intent_id
        self.payment_method_id = payment_method_id
        self.capture_method = CaptureMethod(capture_method)
        self.test_outcome = test_outcome
        self.status = Status.PENDING
        self.running: RunningOperation | None = RunningOperation.authorizing(amount_minor)
        self.action_url: str | None = None
        self.awaited_authorization_id: str | None = None
        self.is_given_up = False  # while its shopper was waited for
        self.awaited_transfer_id: str | None = None
        self.authorization_id: str | None = None
        self.authorization_expires_at: str | None = None
        self.capture_id: str | None = None
        self.void_id: str | None = None
        self.bank_refund_ids: dict[str, str | None] = {}
        self.refunds_metadata: dict[str, Metadata] = {}
        self.captured_minor = 0
        self.refunded_minor = 0
        self.reviews: dict[ReviewReason, datetime] = {}
        self.differences: set[Difference] = set()
        self.disputes: dict[str, Dispute] = {}
        self.history: list[Payment.Event] = []

    # --- what happened -------------------------------------------------------------------------

    class Event(AggregateEvent):
        """A fact about one payment; `timestamp` is when it was recorded."""

        TOPIC = "payment.event"

        def mutate(self, aggregate: Any) -> Any:
            payment = super().mutate(aggregate)
            assert isinstance(payment, Payment)
            payment.history.append(self)
            return payment

    class AuthorizationRequested(Begun, Event):
        """The bank is about to be asked for a hold. The card's number is not here, nor its CVC."""

        TOPIC = "payment.authorization_requested"
        class_version = 2
        card_brand: str
        card_last4: str
        card_exp_month: int
        card_exp_year: int
        card_fingerprint: str | None
        capture_method: str

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Before there were intents, every payment was asked for as such."""
            state.update(
                intent_id=None,
                payment_method_id=None,
                card_fingerprint=None,
                capture_method=CaptureMethod.MANUAL.value,
                description=None,
                test_outcome=None,
            )

    class TransferRequested(Begun, Event):
        """The bank is about to be asked for money from an account at another bank. The account's number
        is not here, nor its holder's name."""

        TOPIC = "payment.transfer_requested"
        account_last4: str
        account_sort_code: str
        account_fingerprint: str

        def mutate(self, aggregate: Any) -> Any:
            payment = super().mutate(aggregate)
            payment.running = RunningOperation(
                operation=Operation.TRANSFER, amount_minor=self.amount_minor, number=FIRST
            )
            return payment

    class TransferAccepted(Event):
        """The bank has asked the other one, and will say under this id what becomes of it."""

        TOPIC = "payment.transfer_accepted"
        bank_transfer_id: str

        def apply(self, aggregate: Any) -> None:
            aggregate.awaited_transfer_id = self.bank_transfer_id

    class Transferred(Event):
        """The money is there. It can be given back under the same id."""

        TOPIC = "payment.transferred"
        bank_transfer_id: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.CAPTURED
            aggregate.capture_id = self.bank_transfer_id
            aggregate.captured_minor = aggregate.money.amount_minor
            aggregate.running = None

    class TransferDeclined(Event):
        """No money comes. `code`: the bank's word, or `bank_protocol_error`."""

        TOPIC = "payment.transfer_declined"
        code: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.DECLINED
            aggregate.running = None

    class ActionRequired(Event):
        """The bank holds nothing until the shopper approves at `url`, a page of the bank's, under the
        id that the hold will have."""

        TOPIC = "payment.action_required"
        bank_authorization_id: str
        url: str

        def apply(self, aggregate: Any) -> None:
            aggregate.action_url = self.url
            aggregate.awaited_authorization_id = self.bank_authorization_id

    class Authorized(Event):
        """The bank holds the money. `expires_at`: RFC 3339, when the bank will not capture any more."""

        TOPIC = "payment.authorized"
        bank_authorization_id: str
        expires_at: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.AUTHORIZED
            aggregate.authorization_id = self.bank_authorization_id
            aggregate.authorization_expires_at = self.expires_at
            aggregate.action_url = None
            aggregate.running = None

    class AuthorizationDeclined(Event):
        """The bank holds nothing. `code`: the bank's word, or `bank_protocol_error`."""

        TOPIC = "payment.authorization_declined"
        code: str

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.DECLINED
            aggregate.action_url = None
            aggregate.running = None

    class CaptureRequested(Event):
        """The bank is about to be asked to take `amount_minor` of the hold."""

        TOPIC = "payment.capture_requested"
        amount_minor: int

        def apply(self, aggregate: Any) -> None:
            aggregate.running = RunningOperation(
                operation=Operation.CAPTURE,
                amount_minor=self.amount_minor,
                number=self.originator_version,
            )

    class Captured(Event):
        """The money was taken. `bank_capture_id` is None when the bank did it and forgot."""

        TOPIC = "payment.captured"
        bank_capture_id: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.CAPTURED
            aggregate.capture_id = self.bank_capture_id
            aggregate.captured_minor = aggregate.running.amount_minor
            aggregate.running = None

    class CaptureDeclined(Event):
        """The money was not taken; the hold is as it was."""

        TOPIC = "payment.capture_declined"
        code: str

        def apply(self, aggregate: Any) -> None:
            aggregate.running = None

    class VoidRequested(Event):
        """The bank is about to be asked to release the hold. `on_expiry`: because it ran out."""

        TOPIC = "payment.void_requested"
        on_expiry: bool

        def apply(self, aggregate: Any) -> None:
            aggregate.is_given_up |= aggregate.status is Status.PENDING
            aggregate.action_url = None
            aggregate.running = RunningOperation(
                operation=Operation.VOID,
                amount_minor=aggregate.money.amount_minor,
                number=self.originator_version,
                on_expiry=self.on_expiry,
            )

    class Voided(Event):
        """The hold was released because somebody asked. The id may have been forgotten: no harm."""

        TOPIC = "payment.voided"
        bank_void_id: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.VOIDED
            aggregate.void_id = self.bank_void_id
            aggregate.running = None

    class Expired(Event):
        """The hold was released because it was too late to capture it."""

        TOPIC = "payment.expired"
        bank_void_id: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.status = Status.EXPIRED
            aggregate.void_id = self.bank_void_id
            aggregate.running = None

    class VoidDeclined(Event):
        """The hold was not released by this ask. Where there is none yet, the shopper may still make
        one, and the authorization goes on."""

        TOPIC = "payment.void_declined"
        code: str

        def apply(self, aggregate: Any) -> None:
            first = RunningOperation.authorizing(aggregate.money.amount_minor)
            aggregate.running = first if aggregate.status is Status.PENDING else None

    class RefundRequested(Event):
        """The bank is about to be asked to give `amount_minor` back."""

        TOPIC = "payment.refund_requested"
        refund_id: str
        amount_minor: int
        reason: str | None
        metadata: Metadata

        def apply(self, aggregate: Any) -> None:
            aggregate.refunds_metadata[self.refund_id] = dict(self.metadata)
            aggregate.running = RunningOperation(
                operation=Operation.REFUND,
                amount_minor=self.amount_minor,
                number=self.originator_version,
                refund_id=self.refund_id,
            )

    class Refunded(Event):
        """The money of one refund was given back. The id is None when the bank did it and forgot."""

        TOPIC = "payment.refunded"
        refund_id: str
        bank_refund_id: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.refunded_minor += aggregate.running.amount_minor
            aggregate.bank_refund_ids[self.refund_id] = self.bank_refund_id
            if aggregate.refunded_minor == aggregate.captured_minor:
                aggregate.status = Status.REFUNDED
            aggregate.running = None

    class RefundDeclined(Event):
        """Nothing was given back by this refund."""

        TOPIC = "payment.refund_declined"
        refund_id: str
        code: str

        def apply(self, aggregate: Any) -> None:
            aggregate.running = None

    class RefundUpdated(Event):
        """Something else is said about a refund. `metadata`: all of it, as it is now."""

        TOPIC = "payment.refund_updated"
        refund_id: str
        metadata: Metadata

        def apply(self, aggregate: Any) -> None:
            aggregate.refunds_metadata[self.refund_id] = dict(self.metadata)

    class ReviewNeeded(Event):
        """Something about the payment cannot be made certain by machine."""

        TOPIC = "payment.review_needed"
        reason: str

        def apply(self, aggregate: Any) -> None:
            aggregate.reviews[ReviewReason(self.reason)] = self.timestamp

    class ReviewResolved(Event):
        """An operator decided what is true: `decided` is a status, `bank_id` the id that was given
        with it. What follows from it are events of their own, before this one."""

        TOPIC = "payment.review_resolved"
        decided: str
        bank_id: str | None
        reason: str

        def apply(self, aggregate: Any) -> None:
            aggregate.reviews.clear()

    class BankIdFound(Event):
        """The bank's id of something that it did and had forgotten. `refund_id`: ours, of a refund."""

        TOPIC = "payment.bank_id_found"
        operation: str
        bank_id: str
        refund_id: str | None

        def apply(self, aggregate: Any) -> None:
            match Operation(self.operation):
                case Operation.AUTHORIZATION:
                    aggregate.authorization_id = self.bank_id
                case Operation.CAPTURE | Operation.TRANSFER:
                    aggregate.capture_id = self.bank_id
                case Operation.VOID:
                    aggregate.void_id = self.bank_id
                case Operation.REFUND:
                    aggregate.bank_refund_ids[self.refund_id] = self.bank_id

    class DifferenceFound(Event):
        """The bank's record says something else than ours. `ours` and `bank`: what each of us says."""

        TOPIC = "payment.difference_found"
        kind: str
        ours: str
        bank: str

        def apply(self, aggregate: Any) -> None:
            aggregate.differences.add(
                Difference(kind=DifferenceKind(self.kind), ours=self.ours, bank=self.bank)
            )

    class DisputeOpened(Event):
        """The cardholder disputes the payment, and the bank took `amount_minor` back. `dispute_id`:
        ours. `evidence_due_by`: RFC 3339, until when the bank listens."""

        TOPIC = "payment.dispute_opened"
        dispute_id: str
        bank_dispute_id: str
        amount_minor: int
        reason: str
        evidence_due_by: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.disputes[self.dispute_id] = Dispute(
                bank_id=self.bank_dispute_id,
                amount_minor=self.amount_minor,
                status=DisputeStatus.NEEDS_RESPONSE,
            )

    class DisputeEvidenceGiven(Event):
        """The merchant said something on it. `fields`: what, by name and never by value; `metadata`:
        all of it, as it is now. `is_submitted`: the bank is to be told."""

        TOPIC = "payment.dispute_evidence_given"
        dispute_id: str
        fields: list[str]
        metadata: Metadata
        is_submitted: bool

        def apply(self, aggregate: Any) -> None:
            _set_dispute(aggregate, self.dispute_id, metadata=dict(self.metadata))
            if self.is_submitted:
                _set_dispute(aggregate, self.dispute_id, status=DisputeStatus.UNDER_REVIEW)

    class DisputeAccepted(Event):
        """The merchant gave it up; the bank is to be told."""

        TOPIC = "payment.dispute_accepted"
        dispute_id: str

        def apply(self, aggregate: Any) -> None:
            _set_dispute(aggregate, self.dispute_id, status=DisputeStatus.LOST)

    class DisputeWon(Event):
        """The bank decided for the merchant, and gave the money back."""

        TOPIC = "payment.dispute_won"
        dispute_id: str

        def apply(self, aggregate: Any) -> None:
            _set_dispute(aggregate, self.dispute_id, status=DisputeStatus.WON)

    class DisputeLost(Event):
        """The bank decided for the cardholder."""

        TOPIC = "payment.dispute_lost"
        dispute_id: str

        def apply(self, aggregate: Any) -> None:
            _set_dispute(aggregate, self.dispute_id, status=DisputeStatus.LOST)

    # --- what may be asked ---------------------------------------------------------------------

    @classmethod
    def request_authorization(
        cls,
        *,
        payment_id: UUID,
        tenant: Tenant,
        order_id: str | None,
        customer_id: str | None,
        money: Money,
        card: CardFace,
        metadata: Metadata,
        at: datetime,
        origin: Origin = BY_COMMAND,
    ) -> Self:
        """A new payment that is about to ask the bank for a hold of `money`."""
        return cls._create(
            cls.AuthorizationRequested,
            id=payment_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            order_id=order_id,
            customer_id=customer_id,
            amount_minor=money.amount_minor,
            currency=money.currency,
            card_brand=card.brand,
            card_last4=card.last4,
            card_exp_month=card.exp_month,
            card_exp_year=card.exp_year,
            metadata=dict(metadata),
            intent_id=origin.intent_id,
            payment_method_id=origin.payment_method_id,
            card_fingerprint=origin.card_fingerprint,
            capture_method=origin.capture_method.value,
            description=origin.description,
            test_outcome=origin.test_outcome,
        )

    @classmethod
    def request_transfer(
        cls,
        *,
        payment_id: UUID,
        tenant: Tenant,
        order_id: str | None,
        customer_id: str | None,
        money: Money,
        account: AccountFace,
        metadata: Metadata,
        at: datetime,
        origin: Origin,
    ) -> Self:
        """A new payment that is about to ask the bank for a transfer of `money`."""
        assert origin.card_fingerprint is not None, "an account has one as a card has"
        return cls._create(
            cls.TransferRequested,
            id=payment_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            order_id=order_id,
            customer_id=customer_id,
            amount_minor=money.amount_minor,
            currency=money.currency,
            account_last4=account.last4,
            account_sort_code=account.sort_code,
            account_fingerprint=origin.card_fingerprint,
            metadata=dict(metadata),
            intent_id=origin.intent_id,
            payment_method_id=origin.payment_method_id,
            description=origin.description,
            test_outcome=origin.test_outcome,
        )

    def request_capture(
        self, amount_minor: int | None, bank: BankCapabilities, *, at: datetime
    ) -> None:
        """Decides to take the hold, or `amount_minor` of it. Raises PaymentStateConflict,
        AmountTooLarge, PartialAmountUnsupported."""
        self._refuse_unless_allowed(Operation.CAPTURE)
        held = self.money.amount_minor
        amount = held if amount_minor is None else amount_minor
        _refuse_too_small(amount)
        if amount > held:
            raise AmountTooLarge(f"At most {held} can be captured.", param="amount")
        if amount < held and not bank.partial_amounts:
            raise PartialAmountUnsupported(
                f"The bank captures full amounts only: {held}.", param="amount"
            )
        self.trigger_event(self.CaptureRequested, amount_minor=amount, timestamp=at)

    def go_on(self, bank: BankCapabilities, *, at: datetime) -> None:
        """Decides what follows by itself from what was recorded last: a hold that is to be captured
        automatically is, and one that the bank will not capture is released, as is one that the
        shopper approved after it was given up."""
        if self.status is not Status.AUTHORIZED or self.running is not None:
            return
        last = next(event for event in reversed(self.history) if not isinstance(event, REMARKS))
        is_automatic = self.capture_method is CaptureMethod.AUTOMATIC
        goes_on = is_automatic and ReviewReason.BANK_DISAGREES not in self.reviews
        match last:
            case self.Authorized() if self.is_given_up:
                self.request_void(at=at)
            case self.Authorized() if goes_on:
                self.request_capture(None, bank, at=at)
            case self.CaptureDeclined() if goes_on:
                self.request_void(at=at)
            case _:
                pass

    def request_void(self, *, at: datetime) -> None:
        """Decides to release the hold. Raises PaymentStateConflict."""
        self._refuse_unless_allowed(Operation.VOID)
        self.trigger_event(self.VoidRequested, on_expiry=False, timestamp=at)

    def request_withdrawal(self, *, at: datetime) -> None:
        """Decides to give up what waits for its shopper: the bank is to hold nothing, whether it has
        approved it by now or not. Raises OperationInProgress where nothing waits."""
        if self.action_url is None:
            raise OperationInProgress("No shopper is waited for.")
        self.trigger_event(self.VoidRequested, on_expiry=False, timestamp=at)

    def request_expiry(self, *, at: datetime) -> None:
        """Decides to release a hold that is past its time. Raises PaymentStateConflict, also for one
        that is not."""
        self._refuse_unless_allowed(Operation.VOID)
        expires_at = self.authorization_expires_at
        if expires_at is None or at < datetime.fromisoformat(expires_at):
            raise PaymentStateConflict("The hold is not past its time.", code="not_expired")
        self.trigger_event(self.VoidRequested, on_expiry=True, timestamp=at)

    def request_refund(
        self,
        refund_id: str,
        amount_minor: int | None,
        bank: BankCapabilities,
        *,
        reason: str | None,
        metadata: Metadata,
        at: datetime,
    ) -> None:
        """Decides to give back what is left of the capture, or `amount_minor` of it. Raises
        PaymentStateConflict, RefundExceedsPayment, PartialAmountUnsupported."""
        self._refuse_unless_allowed(Operation.REFUND)
        self._refuse_disputed()
        if self.capture_id is None:
            raise PaymentStateConflict(
                "The bank's id of the capture is unknown, so it cannot be refunded until that is "
                "resolved.",
                code=ReviewReason.CAPTURE_ID_UNKNOWN.value,
            )
        left = self.captured_minor - self.refunded_minor
        amount = left if amount_minor is None else amount_minor
        _refuse_too_small(amount)
        if amount > left:
            raise RefundExceedsPayment(f"At most {left} can be refunded.", param="amount")
        if amount < self.captured_minor and not bank.partial_amounts:
            raise PartialAmountUnsupported(
                f"The bank refunds full amounts only: {self.captured_minor}.", param="amount"
            )
        self.trigger_event(
            self.RefundRequested,
            refund_id=refund_id,
            amount_minor=amount,
            reason=reason,
            metadata=dict(metadata),
            timestamp=at,
        )

    def _refuse_disputed(self) -> None:
        if any(dispute.keeps_the_money for dispute in self.disputes.values()):
            raise PaymentStateConflict(
                "The payment is disputed, and the bank has taken the money back: it cannot be "
                "refunded as well.",
                code="charge_disputed",
            )

    def update_refund(self, refund_id: str, metadata: Metadata, *, at: datetime) -> None:
        """Says something else about a refund. Raises OperationInProgress: while the bank is asked about
        the payment, nothing is to come between."""
        if dict(metadata) == self.refunds_metadata[refund_id]:
            return
        self._refuse_while_running()
        self.trigger_event(
            self.RefundUpdated, refund_id=refund_id, metadata=dict(metadata), timestamp=at
        )

    def _refuse_unless_allowed(self, operation: Operation) -> None:
        self._refuse_while_running()
        code = COMMANDS_BY_STATUS[operation][self.status]
        if code != ALLOWED:
            raise PaymentStateConflict(
                f"A payment that is {self.status} does not allow a {operation}.", code=code
            )

    def _refuse_while_running(self) -> None:
        if self.running is not None:
            raise OperationInProgress(
                f"The payment has a pending {self.running.operation}; ask again when it is settled."
            )

    # --- what the bank answered ----------------------------------------------------------------

    def require_action(self, bank_id: str, url: str, *, maybe_held: bool, at: datetime) -> None:
        """Records that the shopper has to approve at `url` what the bank has as `bank_id`. `maybe_held`:
        an earlier ask went unanswered, and may have made a hold of which we do not know."""
        self.trigger_event(
            self.ActionRequired, bank_authorization_id=bank_id, url=url, timestamp=at
        )
        if maybe_held:
            self._need_review(ReviewReason.POSSIBLE_ORPHAN_HOLD, at)

    def give_up_on_shopper(self, *, at: datetime) -> None:
        """Records that the shopper never came. The bank's page should have closed before that; since
        it says that it has not, there may be a hold yet."""
        self.trigger_event(self.AuthorizationDeclined, code=AUTHENTICATION_REQUIRED, timestamp=at)
        self._need_review(ReviewReason.POSSIBLE_ORPHAN_HOLD, at)

    def accept_transfer(self, bank_id: str, *, at: datetime) -> None:
        """Records that the bank has begun the transfer, under its id."""
        self.trigger_event(self.TransferAccepted, bank_transfer_id=bank_id, timestamp=at)

    def settle(
        self, answer: Outcome, *, attempts_before: int, unanswered_before: int, at: datetime
    ) -> None:
        """Records what became of the running operation.

        `attempts_before` counts the earlier attempts of the same operation that may have reached the
        bank, `unanswered_before` those of them that nobody answered.
        """
        running = self.running
        assert running is not None, "an answer without a question"
        maybe_ours = attempts_before > 0 or (
            isinstance(answer, AlreadyDone) and answer.after_attempts > 0
        )
        if running.operation in (Operation.CAPTURE, Operation.VOID):
            # Of a hold that an earlier operation may have ended, "already" may speak of that one.
            maybe_ours = maybe_ours and ReviewReason.BANK_DISAGREES not in self.reviews
        match running.operation:
            case Operation.AUTHORIZATION:
                self._settle_authorization(answer, unanswered_before=unanswered_before, at=at)
            case Operation.CAPTURE:
                self._settle_capture(answer, unanswered_before, maybe_ours=maybe_ours, at=at)
            case Operation.VOID:
                self._settle_void(answer, running, unanswered_before, maybe_ours=maybe_ours, at=at)
            case Operation.REFUND:
                self._settle_refund(
                    answer, running, unanswered_before, maybe_ours=maybe_ours, at=at
                )
                self._doubt_a_partial_refund(answer, running, unanswered_before, at)
            case Operation.TRANSFER:
                self._settle_transfer(answer, unanswered_before, at=at)

    def _settle_authorization(
        self, answer: Outcome, *, unanswered_before: int, at: datetime
    ) -> None:
        match answer:
            case Approved(bank_id=bank_id, expires_at=expires_at, replayed=replayed):
                self.trigger_event(
                    self.Authorized,
                    bank_authorization_id=bank_id,
                    expires_at=None if expires_at is None else rfc3339(expires_at),
                    timestamp=at,
                )
            case _:
                replayed = False
                self.trigger_event(self.AuthorizationDeclined, code=_code_of(answer), timestamp=at)
        # A replay is the answer to one of them, and to one only. What the bank contradicts itself about
        # it may well hold. Once a shopper was waited for, we only looked, and silence leaves nothing open.
        in_doubt = unanswered_before > replayed and self.awaited_authorization_id is None
        if in_doubt or isinstance(answer, Contradicted):
            self._need_review(ReviewReason.POSSIBLE_ORPHAN_HOLD, at)
        if isinstance(answer, Contradicted):
            self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _settle_transfer(self, answer: Outcome, unanswered_before: int, *, at: datetime) -> None:
        match answer:
            case Approved(bank_id=bank_id):
                self.trigger_event(self.Transferred, bank_transfer_id=bank_id, timestamp=at)
            case _:
                self.trigger_event(self.TransferDeclined, code=_code_of(answer), timestamp=at)
                # Before the bank has said under which id, a no may not be about what nobody answered.
                is_open = unanswered_before > 0 and self.awaited_transfer_id is None
                if is_open or isinstance(answer, AlreadyDone | Contradicted):
                    self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _settle_capture(
        self, answer: Outcome, unanswered_before: int, *, maybe_ours: bool, at: datetime
    ) -> None:
        match answer:
            case Approved(bank_id=bank_id):
                self.trigger_event(self.Captured, bank_capture_id=bank_id, timestamp=at)
            case AlreadyDone() if maybe_ours:
                self.trigger_event(self.Captured, bank_capture_id=None, timestamp=at)
                self._need_review(ReviewReason.CAPTURE_ID_UNKNOWN, at)
            case _:
                self.trigger_event(self.CaptureDeclined, code=_code_of(answer), timestamp=at)
                if _disagrees(answer) or _is_doubtful(answer, unanswered_before):
                    self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _settle_void(
        self,
        answer: Outcome,
        running: RunningOperation,
        unanswered_before: int,
        *,
        maybe_ours: bool,
        at: datetime,
    ) -> None:
        released = self.Expired if running.on_expiry else self.Voided
        match answer:
            case Approved(bank_id=bank_id):
                self.trigger_event(released, bank_void_id=bank_id, timestamp=at)
            case AlreadyDone() if maybe_ours or self.status is Status.PENDING:
                # What waited for its shopper can only have been refused, or given up by us.
                self.trigger_event(released, bank_void_id=None, timestamp=at)
            case _:
                self.trigger_event(self.VoidDeclined, code=_code_of(answer), timestamp=at)
                doubtful = running.on_expiry or _is_doubtful(answer, unanswered_before)
                if _disagrees(answer) or doubtful:
                    self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _settle_refund(
        self,
        answer: Outcome,
        running: RunningOperation,
        unanswered_before: int,
        *,
        maybe_ours: bool,
        at: datetime,
    ) -> None:
        refund_id = running.refund_id
        match answer:
            case Approved(bank_id=bank_id):
                self.trigger_event(
                    self.Refunded, refund_id=refund_id, bank_refund_id=bank_id, timestamp=at
                )
            case AlreadyDone() if maybe_ours:
                self.trigger_event(
                    self.Refunded, refund_id=refund_id, bank_refund_id=None, timestamp=at
                )
                self._need_review(ReviewReason.REFUND_ID_UNKNOWN, at)
            case _:
                self.trigger_event(
                    self.RefundDeclined, refund_id=refund_id, code=_code_of(answer), timestamp=at
                )
                disagrees = isinstance(answer, AlreadyDone | Contradicted)
                if disagrees or _is_doubtful(answer, unanswered_before):
                    self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _doubt_a_partial_refund(
        self, answer: Outcome, running: RunningOperation, unanswered_before: int, at: datetime
    ) -> None:
        """The bank gives a part back as often as it is asked, unlike the whole: what nobody answered
        may have been given back as well."""
        replayed = isinstance(answer, Approved) and answer.replayed
        if running.amount_minor < self.captured_minor and unanswered_before > replayed:
            self._need_review(ReviewReason.REFUND_ID_UNKNOWN, at)

    # --- what the bank tells of disputes -------------------------------------------------------

    def note_dispute(self, notice: DisputeNotice, dispute_id: str, *, at: datetime) -> None:
        """Records what is new in what the bank tells, once however often it does. `dispute_id`: for a
        dispute that is not known yet. Raises OperationInProgress while the capture has no outcome, and
        while anything else is asked of the bank: nothing is to come between."""
        self._refuse_while_running()
        if self.capture_id not in (None, notice.bank_capture_id) or self.captured_minor == 0:
            raise OperationInProgress("The capture that is disputed is not known yet.")
        known = [each for each, d in self.disputes.items() if d.bank_id == notice.bank_dispute_id]
        if not known:
            due_by = notice.evidence_due_by
            self.trigger_event(
                self.DisputeOpened,
                dispute_id=dispute_id,
                bank_dispute_id=notice.bank_dispute_id,
                amount_minor=notice.amount_minor,
                reason=notice.reason,
                evidence_due_by=None if due_by is None else rfc3339(due_by),
                timestamp=at,
            )
        self._note_decision(notice, (known or [dispute_id])[0], at)

    def _note_decision(self, notice: DisputeNotice, dispute_id: str, at: datetime) -> None:
        """What was given up or lost may be won after all: the bank's last word is where the money is. But
        that what was won is lost, and how much was taken again, is for a person to find out."""
        known = self.disputes[dispute_id].status
        if notice.status is DisputeStatus.WON and known is not DisputeStatus.WON:
            self.trigger_event(self.DisputeWon, dispute_id=dispute_id, timestamp=at)
        elif notice.status is DisputeStatus.LOST and known not in DECIDED:
            self.trigger_event(self.DisputeLost, dispute_id=dispute_id, timestamp=at)
        elif notice.status is DisputeStatus.LOST and known is DisputeStatus.WON:
            self._need_review(ReviewReason.BANK_DISAGREES, at)

    def give_evidence(
        self,
        dispute_id: str,
        *,
        fields: list[str],
        metadata: Metadata,
        is_submitted: bool,
        at: datetime,
    ) -> None:
        """Says something on a dispute, and submits it once. `fields`: of the evidence, by name, that
        changed; `metadata`: all of it. Raises DisputeNotFound, PaymentStateConflict; OperationInProgress
        while the bank is asked about the payment."""
        dispute = self.dispute(dispute_id)
        if fields or is_submitted:
            self._refuse_unless_open(dispute)
        if fields or is_submitted or dict(metadata) != dict(dispute.metadata):
            self._refuse_while_running()
            self.trigger_event(
                self.DisputeEvidenceGiven,
                dispute_id=dispute_id,
                fields=sorted(fields),
                metadata=dict(metadata),
                is_submitted=is_submitted,
                timestamp=at,
            )

    def accept_dispute(self, dispute_id: str, *, at: datetime) -> None:
        """Gives it up. Raises DisputeNotFound, PaymentStateConflict."""
        self._refuse_unless_open(self.dispute(dispute_id))
        self.trigger_event(self.DisputeAccepted, dispute_id=dispute_id, timestamp=at)

    def dispute(self, dispute_id: str) -> Dispute:
        """One of its disputes. Raises DisputeNotFound."""
        if dispute_id not in self.disputes:
            raise DisputeNotFound("There is no such dispute.")
        return self.disputes[dispute_id]

    def _refuse_unless_open(self, dispute: Dispute) -> None:
        if dispute.status is not DisputeStatus.NEEDS_RESPONSE:
            raise PaymentStateConflict(
                f"The dispute is {dispute.status}, and nothing more can be said on it.",
                code="dispute_not_open",
            )

    # --- what the bank's records say -----------------------------------------------------------

    def note_difference(self, difference: Difference, *, at: datetime) -> None:
        """Records that the bank's record differs, once for each difference. Raises
        OperationInProgress: what is running may be what differs."""
        if self.running is not None:
            raise OperationInProgress("The payment has a pending operation, which may explain it.")
        if difference not in self.differences:
            self.trigger_event(
                self.DifferenceFound,
                kind=difference.kind.value,
                ours=difference.ours,
                bank=difference.bank,
                timestamp=at,
            )
            self._need_review(ReviewReason.BANK_DISAGREES, at)

    def _need_review(self, reason: ReviewReason, at: datetime) -> None:
        if reason not in self.reviews:
            self.trigger_event(self.ReviewNeeded, reason=reason.value, timestamp=at)


# What is said about a payment beside what was asked and what became of it.
REMARKS: Final = (
    Payment.ReviewNeeded,
    Payment.ReviewResolved,
    Payment.BankIdFound,
    Payment.DifferenceFound,
    Payment.DisputeOpened,
    Payment.DisputeEvidenceGiven,
    Payment.DisputeAccepted,
    Payment.DisputeWon,
    Payment.DisputeLost,
    Payment.RefundUpdated,
)


def _set_dispute(payment: Payment, dispute_id: str, **changes: Any) -> None:
    payment.disputes[dispute_id] = replace(payment.disputes[dispute_id], **changes)


def bank_key(payment_id: UUID, operation: Operation, number: int) -> str:
    """The bank's idempotency key of an operation, its own for ever: no other of any payment has it.
    `number`: the version of the event that asked."""
    return f"{encode(Prefix.PAYMENT, payment_id)}-{operation}-{number}"


def _refuse_too_small(amount_minor: int) -> None:
    if amount_minor < MINIMUM_AMOUNT_MINOR:
        raise AmountTooSmall(f"At least {MINIMUM_AMOUNT_MINOR} must be moved.", param="amount")


_TWO_DIGITS: Final = tuple(f"{number:02d}" for number in range(60))


def rfc3339(at: datetime) -> str:
    """UTC with microseconds and a Z; fixed in width, so that it sorts as time does."""
    if at.tzinfo is UTC:  # as nearly always; written out, since `isoformat` takes far longer
        # fmt: off
        return "%04d-%s-%sT%s:%s:%s.%06dZ" % (  # noqa: UP031 - and an f-string twice
            at.year, _TWO_DIGITS[at.month], _TWO_DIGITS[at.day], _TWO_DIGITS[at.hour],
            _TWO_DIGITS[at.minute], _TWO_DIGITS[at.second], at.microsecond,
        )
        # fmt: on
    return at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _code_of(answer: Outcome) -> str:
    match answer:
        case Declined(code=code) | AlreadyDone(code=code):
            return code
        case Rejected():
            return BANK_PROTOCOL_ERROR
        case Contradicted():
            return ReviewReason.BANK_DISAGREES.value
        case Approved():
            raise AssertionError("an approval is not a no")


def _is_doubtful(answer: Outcome, unanswered_before: int) -> bool:
    """Whether a no that is none about the operation leaves open what became of an earlier ask that
    nobody answered. A bank that did it says so before it says that it is too late."""
    return unanswered_before > 0 and _code_of(answer) != AUTHORIZATION_EXPIRED


def _disagrees(answer: Outcome) -> bool:
    """Whether the bank's no contradicts what we know, rather than our clock or our request."""
    match answer:
        case Declined(code=code):
            return code != AUTHORIZATION_EXPIRED
        case AlreadyDone() | Contradicted():
            return True
        case Rejected() | Approved():
            return False

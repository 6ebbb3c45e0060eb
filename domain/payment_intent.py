"""A payment intent: what a merchant wants to be paid, over as many attempts as it takes.

Each confirmation is one attempt, and each attempt is one payment, in the same shard as its intent so
that both begin in one transaction. What became of the money is the payment's to say: the intent's
status follows from its latest payment, so that there is no second truth about a capture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.commands import Metadata, Mode, Tenant
from domain.errors import IntentStateConflict
from domain.money import Money
from domain.payment import CaptureMethod, Payment, Status


class IntentStatus(StrEnum):
    """Where an intent stands, in the words of the published interface."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    REQUIRES_CAPTURE = "requires_capture"
    SUCCEEDED = "succeeded"
    CANCELED = "canceled"


# What may be changed whenever it is.
MOVES_NO_MONEY: Final = frozenset(
    {"description", "metadata", "statement_descriptor", "statement_descriptor_suffix"}
)
BEFORE_AN_ATTEMPT: Final = frozenset(
    {IntentStatus.REQUIRES_PAYMENT_METHOD, IntentStatus.REQUIRES_CONFIRMATION}
)
# Which command is allowed in which statuses; in all others it is refused before any effect.
ALLOWED_IN: Final[Mapping[str, frozenset[IntentStatus]]] = {
    "update": BEFORE_AN_ATTEMPT | {IntentStatus.REQUIRES_ACTION},
    "confirm": BEFORE_AN_ATTEMPT,
    "capture": frozenset({IntentStatus.REQUIRES_CAPTURE}),
    "cancel": BEFORE_AN_ATTEMPT | {IntentStatus.REQUIRES_ACTION, IntentStatus.REQUIRES_CAPTURE},
}


# What a payment that is settled makes of its intent.
FOR_SURE: Final[Mapping[Status, IntentStatus]] = {
    Status.CAPTURED: IntentStatus.SUCCEEDED,
    Status.REFUNDED: IntentStatus.SUCCEEDED,
    Status.VOIDED: IntentStatus.CANCELED,
    Status.EXPIRED: IntentStatus.CANCELED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How the payment of an attempt stands, as far as its intent is concerned."""

    status: Status
    is_running: bool  # something is asked of the bank
    waits_for_shopper: bool = False

    @classmethod
    def of(cls, payment: Payment) -> Self:
        """The attempt that `payment` is."""
        return cls(
            status=payment.status,
            is_running=payment.running is not None,
            waits_for_shopper=payment.action_url is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is wanted. `payment_method_id` and `customer_id` are public ids or the family's references.

    Nobody's name, address or email is here: those are kept apart, where they can be erased.
    """

    money: Money
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    confirmation_method: str = "automatic"
    payment_method_types: tuple[str, ...] = ("card",)
    payment_method_id: str | None = None
    customer_id: str | None = None
    description: str | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    metadata: Metadata


# The family of the intents that invoices are paid by.
INVOICES: Final = "invoices"


class PaymentIntent(Aggregate):
    """What is wanted, which attempts were made, and whether it was given up."""

    TOPIC = "payment_intent"

    def __init__(
        self, *, merchant_id: str, mode: str, family: str, terms: Mapping[str, Any]
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.family = family
        self.terms = _terms(terms)
        self.attempts: list[UUID] = []
        self.is_method_new = True  # since the last attempt
        self.canceled_at: datetime | None = None
        self.cancellation_reason: str | None = None
        self.history: list[PaymentIntent.Event] = []

    # --- what happened -------------------------------------------------------------------------

    class Event(AggregateEvent):
        """A fact about one intent; `timestamp` is when it was recorded."""

        TOPIC = "payment_intent.event"

        def mutate(self, aggregate: Any) -> Any:
            intent = super().mutate(aggregate)
            assert isinstance(intent, PaymentIntent)
            intent.history.append(self)
            return intent

    class Created(Event, AggregateCreated):
        """A merchant wants to be paid. `family`: of the interface that it was asked through; `terms`:
        as `Terms`, amounts in minor units."""

        TOPIC = "payment_intent.created"
        merchant_id: str
        mode: str
        family: str
        terms: Mapping[str, Any]

        def mutate(self, aggregate: Any) -> Any:
            intent = AggregateCreated.mutate(self, aggregate)
            assert isinstance(intent, PaymentIntent)
            intent.history.append(self)
            return intent

    class Updated(Event):
        """Something else is wanted. `terms`: all of them, as they are now."""

        TOPIC = "payment_intent.updated"
        terms: Mapping[str, Any]

        def apply(self, aggregate: Any) -> None:
            terms = _terms(self.terms)
            if terms.payment_method_id != aggregate.terms.payment_method_id:
                aggregate.is_method_new = True
            aggregate.terms = terms

    class AttemptBegun(Event):
        """A payment was begun, as the intent's next attempt, by this payment method."""

        TOPIC = "payment_intent.attempt_begun"
        payment_id: str
        payment_method_id: str

        def apply(self, aggregate: Any) -> None:
            aggregate.attempts.append(UUID(self.payment_id))
            aggregate.is_method_new = False
            aggregate.terms = _with(aggregate.terms, payment_method_id=self.payment_method_id)

    class Canceled(Event):
        """No more attempt is made; a hold, if there is one, is about to be released, and what waits for
        its shopper to be given up."""

        TOPIC = "payment_intent.canceled"
        cancellation_reason: str | None

        def apply(self, aggregate: Any) -> None:
            aggregate.canceled_at = self.timestamp
            aggregate.cancellation_reason = self.cancellation_reason

    # --- what may be asked ---------------------------------------------------------------------

    @classmethod
    def create(
        cls, *, intent_id: UUID, tenant: Tenant, family: str, terms: Terms, at: datetime
    ) -> Self:
        """A new intent."""
        return cls._create(
            cls.Created,
            id=intent_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            family=family,
            terms=_stored(terms),
        )

    def update(
        self,
        terms: Terms,
        last: Attempt | None,
        *,
        at: datetime,
        also_personal: bool = False,
    ) -> None:
        """Wants something else. `last`: the last attempt, after which only what moves no money may
        change. `also_personal`: what is kept apart from the log changes with it. Raises
        IntentStateConflict."""
        if _said(terms) != _said(self.terms):
            self.refuse_unless_allowed("update", last)
        if terms != self.terms or also_personal:
            self.trigger_event(self.Updated, terms=_stored(terms), timestamp=at)

    def say(self, changes: Mapping[str, Any], *, at: datetime) -> None:
        """Changes terms that move no money, whenever it is."""
        assert set(changes) <= MOVES_NO_MONEY
        terms = _with(self.terms, **changes)
        if terms != self.terms:
            self.trigger_event(self.Updated, terms=_stored(terms), timestamp=at)

    def begin_attempt(
        self, payment_id: UUID, method_id: str, last: Attempt | None, *, at: datetime
    ) -> None:
        """The next attempt. `last`: the one before. Raises IntentStateConflict."""
        self.refuse_unless_allowed("confirm", last)
        self.trigger_event(
            self.AttemptBegun,
            payment_id=str(payment_id),
            payment_method_id=method_id,
            timestamp=at,
        )

    def cancel(self, reason: str | None, last: Attempt | None, *, at: datetime) -> None:
        """Gives it up. Raises IntentStateConflict."""
        self.refuse_unless_allowed("cancel", last)
        self.trigger_event(self.Canceled, cancellation_reason=reason, timestamp=at)

    def give_up(self, last: Attempt | None, *, at: datetime) -> None:
        """With the invoice that it is of, which is not to be paid any more; what waits for its shopper
        is given up with it. Raises IntentStateConflict."""
        self._refuse_by_status("cancel", last)
        self.trigger_event(self.Canceled, cancellation_reason="void_invoice", timestamp=at)

    def refuse_unless_allowed(self, command: str, last: Attempt | None) -> None:
        """Raises IntentStateConflict where the status, which follows from `last`, does not allow
        the command; and where it is an invoice's, which says what is wanted and for how long."""
        if self.family == INVOICES and command in ("update", "cancel"):
            raise IntentStateConflict(
                f"The payment intent is an invoice's, and does not allow to {command} it.",
                status=self.status(last).value,
            )
        self._refuse_by_status(command, last)

    def _refuse_by_status(self, command: str, last: Attempt | None) -> None:
        status = self.status(last)
        if status not in ALLOWED_IN[command]:
            raise IntentStateConflict(
                f"A payment intent that is {status} does not allow to {command} it.",
                status=status.value,
            )

    # --- how it stands -------------------------------------------------------------------------

    def status(self, attempt: Attempt | None) -> IntentStatus:
        """The status, from the last attempt, which is None before the first."""
        return status_of(
            attempt,
            has_method=self.terms.payment_method_id is not None,
            is_method_new=self.is_method_new,
            is_canceled=self.canceled_at is not None,
        )


def status_of(
    attempt: Attempt | None, *, has_method: bool, is_method_new: bool, is_canceled: bool
) -> IntentStatus:
    """The status of an intent. `is_method_new`: since the last attempt."""
    if attempt is None or attempt.status is Status.DECLINED:
        if is_canceled:
            return IntentStatus.CANCELED
        ready = has_method and is_method_new
        return IntentStatus.REQUIRES_CONFIRMATION if ready else IntentStatus.REQUIRES_PAYMENT_METHOD
    if attempt.status is Status.PENDING and attempt.waits_for_shopper:
        return IntentStatus.REQUIRES_ACTION
    if attempt.status is Status.AUTHORIZED and not attempt.is_running:
        return IntentStatus.REQUIRES_CAPTURE
    return FOR_SURE.get(attempt.status, IntentStatus.PROCESSING)


def _said(terms: Terms) -> dict[str, Any]:
    """What of the terms an attempt hangs on."""
    return {name: value for name, value in _stored(terms).items() if name not in MOVES_NO_MONEY}


def _stored(terms: Terms) -> dict[str, Any]:
    """The terms as an event keeps them."""
    fields = {name: getattr(terms, name) for name in Terms.__slots__ if name != "money"}
    return fields | {
        "amount_minor": terms.money.amount_minor,
        "currency": terms.money.currency,
        "capture_method": terms.capture_method.value,
        "payment_method_types": list(terms.payment_method_types),
        "metadata": dict(terms.metadata),
    }


def _terms(stored: Mapping[str, Any]) -> Terms:
    fields = dict(stored)
    money = Money(fields.pop("amount_minor"), fields.pop("currency"))
    return Terms(
        **fields
        | {
            "money": money,
            "capture_method": CaptureMethod(fields["capture_method"]),
            "payment_method_types": tuple(fields["payment_method_types"]),
        }
    )


def _with(terms: Terms, **changes: Any) -> Terms:
    return _terms(_stored(terms) | changes)

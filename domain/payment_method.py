"""A payment method: a card that may be used again. The number is in the vault, and nowhere else."""

from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.cards import CardFace
from domain.commands import Metadata, Mode, Tenant
from domain.errors import PaymentMethodStateConflict

CARD: Final = "card"


class PaymentMethod(Aggregate):
    """A card by its face, and whose it is. Detached, its number is gone for good."""

    TOPIC = "payment_method"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        type: str,  # noqa: A002 - the field's name
        card_brand: str,
        card_last4: str,
        card_exp_month: int,
        card_exp_year: int,
        fingerprint: str,
        metadata: Metadata,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.type = type
        self.card = CardFace(
            brand=card_brand, last4=card_last4, exp_month=card_exp_month, exp_year=card_exp_year
        )
        self.fingerprint = fingerprint
        self.metadata = dict(metadata)
        self.customer_id: str | None = None
        self.is_detached = False
        self.history: list[PaymentMethod.Event] = []

    class Event(AggregateEvent):
        """A fact about one payment method; `timestamp` is when it was recorded."""

        TOPIC = "payment_method.event"

        def mutate(self, aggregate: Any) -> Any:
            method = super().mutate(aggregate)
            assert isinstance(method, PaymentMethod)
            method.history.append(self)
            return method

    class Created(Event, AggregateCreated):
        """A card was given. `fingerprint`: a keyed hash of its number, the same for the same card."""

        TOPIC = "payment_method.created"
        merchant_id: str
        mode: str
        type: str
        card_brand: str
        card_last4: str
        card_exp_month: int
        card_exp_year: int
        fingerprint: str
        metadata: Metadata

        def mutate(self, aggregate: Any) -> Any:
            method = AggregateCreated.mutate(self, aggregate)
            assert isinstance(method, PaymentMethod)
            method.history.append(self)
            return method

    class Updated(Event):
        """`metadata`: all of it, as it is now. The card's expiry, which a bank may prolong."""

        TOPIC = "payment_method.updated"
        metadata: Metadata
        card_exp_month: int
        card_exp_year: int

        def apply(self, aggregate: Any) -> None:
            aggregate.metadata = dict(self.metadata)
            card = aggregate.card
            aggregate.card = CardFace(
                brand=card.brand,
                last4=card.last4,
                exp_month=self.card_exp_month,
                exp_year=self.card_exp_year,
            )

    class Attached(Event):
        """It is a customer's now."""

        TOPIC = "payment_method.attached"
        customer_id: str

        def apply(self, aggregate: Any) -> None:
            aggregate.customer_id = self.customer_id

    class Detached(Event):
        """It is nobody's any more, and can be used no more: the number was erased with this."""

        TOPIC = "payment_method.detached"

        def apply(self, aggregate: Any) -> None:
            aggregate.customer_id = None
            aggregate.is_detached = True

    @classmethod
    def create(
        cls,
        *,
        method_id: UUID,
        tenant: Tenant,
        card: CardFace,
        fingerprint: str,
        metadata: Metadata,
        at: datetime,
    ) -> Self:
        """A new payment method."""
        return cls._create(
            cls.Created,
            id=method_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            type=CARD,
            card_brand=card.brand,
            card_last4=card.last4,
            card_exp_month=card.exp_month,
            card_exp_year=card.exp_year,
            fingerprint=fingerprint,
            metadata=dict(metadata),
        )

    def update(
        self,
        *,
        metadata: Metadata,
        exp_month: int,
        exp_year: int,
        at: datetime,
        also_personal: bool = False,
    ) -> None:
        """Says something else about it. `also_personal`: what is kept apart from the log changes with
        it. Raises PaymentMethodStateConflict."""
        self.refuse_detached()
        face = (self.card.exp_month, self.card.exp_year)
        if also_personal or (dict(metadata), (exp_month, exp_year)) != (self.metadata, face):
            self.trigger_event(
                self.Updated,
                metadata=dict(metadata),
                card_exp_month=exp_month,
                card_exp_year=exp_year,
                timestamp=at,
            )

    def attach(self, customer_id: str, *, at: datetime) -> None:
        """Gives it to a customer. Raises PaymentMethodStateConflict where another has it."""
        self.refuse_detached()
        if self.customer_id == customer_id:
            return
        if self.customer_id is not None:
            raise PaymentMethodStateConflict(
                "The payment method is attached to another customer.",
                code="payment_method_already_attached",
            )
        self.trigger_event(self.Attached, customer_id=customer_id, timestamp=at)

    def detach(self, *, at: datetime) -> None:
        """Takes it away for good. Raises PaymentMethodStateConflict."""
        if self.customer_id is None:
            raise PaymentMethodStateConflict(
                "The payment method is attached to nobody.", code="payment_method_not_attached"
            )
        self.trigger_event(self.Detached, timestamp=at)

    def erase(self, *, at: datetime) -> None:
        """Takes it away, whoever has it: with its customer, all of it goes."""
        if not self.is_detached:
            self.trigger_event(self.Detached, timestamp=at)

    def refuse_detached(self) -> None:
        """Raises PaymentMethodStateConflict where it can be used no more."""
        if self.is_detached:
            raise PaymentMethodStateConflict(
                "The payment method was detached, and cannot be used again.",
                code="payment_method_detached",
            )

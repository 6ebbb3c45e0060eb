"""A payment method: a card or an account that may be used again. The number is in the vault, and nowhere
else."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.accounts import AccountFace
from domain.cards import CardFace
from domain.commands import Metadata, Mode, Tenant
from domain.errors import PaymentMethodStateConflict

CARD: Final = "card"
ACCOUNT: Final = "bacs_debit"
"""An account at a British bank, in the word of Stripe's clients."""


class PaymentMethod(Aggregate):
    """A card or an account by its face, and whose it is. Detached, its number is gone for good."""

    TOPIC = "payment_method"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        type: str,  # noqa: A002 - the field's name
        card_brand: str | None,
        card_last4: str | None,
        card_exp_month: int | None,
        card_exp_year: int | None,
        account_last4: str | None,
        account_sort_code: str | None,
        fingerprint: str,
        metadata: Metadata,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.type = type
        self.face = _face(
            (card_brand, card_last4, card_exp_month, card_exp_year),
            (account_last4, account_sort_code),
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
        """A card was given, or an account. `fingerprint`: a keyed hash of its number, the same for the
        same one."""

        TOPIC = "payment_method.created"
        class_version = 2
        merchant_id: str
        mode: str
        type: str
        card_brand: str | None
        card_last4: str | None
        card_exp_month: int | None
        card_exp_year: int | None
        account_last4: str | None
        account_sort_code: str | None
        fingerprint: str
        metadata: Metadata

        @staticmethod
        def upcast_v1_v2(state: dict[str, Any]) -> None:
            """Every method was a card."""
            state.update(account_last4=None, account_sort_code=None)

        def mutate(self, aggregate: Any) -> Any:
            method = AggregateCreated.mutate(self, aggregate)
            assert isinstance(method, PaymentMethod)
            method.history.append(self)
            return method

    class Updated(Event):
        """`metadata`: all of it, as it is now. The card's expiry, which a bank may prolong; an account
        has none."""

        TOPIC = "payment_method.updated"
        metadata: Metadata
        card_exp_month: int | None
        card_exp_year: int | None

        def apply(self, aggregate: Any) -> None:
            aggregate.metadata = dict(self.metadata)
            if isinstance(aggregate.face, CardFace) and self.card_exp_month and self.card_exp_year:
                aggregate.face = replace(
                    aggregate.face, exp_month=self.card_exp_month, exp_year=self.card_exp_year
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
        face: CardFace | AccountFace,
        fingerprint: str,
        metadata: Metadata,
        at: datetime,
    ) -> Self:
        """A new payment method."""
        card = face if isinstance(face, CardFace) else None
        account = face if isinstance(face, AccountFace) else None
        return cls._create(
            cls.Created,
            id=method_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            type=CARD if card else ACCOUNT,
            card_brand=card and card.brand,
            card_last4=card and card.last4,
            card_exp_month=card and card.exp_month,
            card_exp_year=card and card.exp_year,
            account_last4=account and account.last4,
            account_sort_code=account and account.sort_code,
            fingerprint=fingerprint,
            metadata=dict(metadata),
        )

    def update(
        self,
        *,
        metadata: Metadata,
        exp_month: int | None = None,
        exp_year: int | None = None,
        at: datetime,
        also_personal: bool = False,
    ) -> None:
        """Says something else about it; of a card's expiry, what is given. `also_personal`: what is kept
        apart from the log changes with it. Raises PaymentMethodStateConflict."""
        self.refuse_detached()
        before = _expiry(self.face)
        expiry = (exp_month or before[0], exp_year or before[1])
        if also_personal or (dict(metadata), expiry) != (self.metadata, before):
            self.trigger_event(
                self.Updated,
                metadata=dict(metadata),
                card_exp_month=expiry[0],
                card_exp_year=expiry[1],
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


def _face(card: tuple[Any, ...], account: tuple[Any, ...]) -> CardFace | AccountFace:
    if card[0] is None:
        last4, sort_code = account
        return AccountFace(last4=last4, sort_code=sort_code)
    brand, last4, exp_month, exp_year = card
    return CardFace(brand=brand, last4=last4, exp_month=exp_month, exp_year=exp_year)


def _expiry(face: CardFace | AccountFace) -> tuple[int | None, int | None]:
    return (face.exp_month, face.exp_year) if isinstance(face, CardFace) else (None, None)

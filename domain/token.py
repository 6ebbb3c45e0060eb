"""A token: a card that may be used once, within the hour. The number is in the vault, and nowhere else."""

from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.cards import CardFace
from domain.commands import Mode, Tenant

GOOD_FOR: Final = timedelta(hours=1)


class Token(Aggregate):
    """A card by its face. That it was used is said by what it was used for."""

    TOPIC = "token"

    def __init__(
        self,
        *,
        merchant_id: str,
        mode: str,
        card_brand: str,
        card_last4: str,
        card_exp_month: int,
        card_exp_year: int,
        fingerprint: str,
    ) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.card = CardFace(
            brand=card_brand, last4=card_last4, exp_month=card_exp_month, exp_year=card_exp_year
        )
        self.fingerprint = fingerprint
        self.history: list[Token.Event] = []

    class Event(AggregateEvent):
        """A fact about one token; `timestamp` is when it was recorded."""

        TOPIC = "token.event"

    class Created(Event, AggregateCreated):
        """A card was given. `fingerprint`: a keyed hash of its number, the same for the same card."""

        TOPIC = "token.created"
        merchant_id: str
        mode: str
        card_brand: str
        card_last4: str
        card_exp_month: int
        card_exp_year: int
        fingerprint: str

        def mutate(self, aggregate: Any) -> Any:
            token = AggregateCreated.mutate(self, aggregate)
            assert isinstance(token, Token)
            token.history.append(self)
            return token

    @classmethod
    def create(
        cls, *, token_id: UUID, tenant: Tenant, card: CardFace, fingerprint: str, at: datetime
    ) -> Self:
        """A new token."""
        return cls._create(
            cls.Created,
            id=token_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            card_brand=card.brand,
            card_last4=card.last4,
            card_exp_month=card.exp_month,
            card_exp_year=card.exp_year,
            fingerprint=fingerprint,
        )

    def is_expired(self, at: datetime) -> bool:
        """Whether its hour has passed."""
        return at >= self.created_on + GOOD_FOR

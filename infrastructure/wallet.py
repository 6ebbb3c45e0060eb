"""What customers left to be paid with, off session: payment methods whose cards are in the vault, and
names that stand for cards in test mode."""

from typing import Any

from eventsourcing.application import AggregateNotFoundError

from domain.card_tokens import card_of_test_token
from domain.cards import Card, CardFace
from domain.commands import Instrument, Mode, Tenant
from domain.errors import CardsOnFileUnsupported, PaymentMethodNotFound
from domain.ids import MalformedId, Prefix, decode
from domain.ledger import PaymentLedger
from domain.payment_method import PaymentMethod
from infrastructure.stored_cards import StoredCards


class StoredWallet:
    """The port `Wallet`."""

    def __init__(self, ledger: PaymentLedger, cards: StoredCards) -> None:
        self._ledger = ledger
        self._cards = cards

    def instrument(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        """What an attempt is paid with. Raises PaymentMethodNotFound, also where it is not that
        customer's; PaymentMethodStateConflict; CardsOnFileUnsupported."""
        capabilities = self._ledger.bank.capabilities
        if not capabilities.cvc_optional:
            raise CardsOnFileUnsupported("The bank takes no card on file without its CVC.")
        if tenant.mode is Mode.TEST:
            card = card_of_test_token(method_id, extended=capabilities.cvc_optional)
            if card is not None:
                return Instrument(
                    method_id=method_id,
                    means=card,
                    fingerprint=self._cards.fingerprint(card.number),
                )
        return self._stored(tenant, method_id, customer_id)

    def _stored(self, tenant: Tenant, method_id: str, customer_id: str) -> Instrument:
        method = self._method(tenant, method_id)
        if method is None:
            raise PaymentMethodNotFound("There is no such payment method.")
        method.refuse_detached()
        kept = self._cards.find(method.id)
        if method.customer_id != customer_id or kept is None:
            raise PaymentMethodNotFound("The payment method is not the customer's.")
        if not isinstance(method.face, CardFace):
            raise PaymentMethodNotFound("The payment method is no card.")
        number, cvc = kept
        face = method.face
        card = Card(number=number, exp_month=face.exp_month, exp_year=face.exp_year, cvc=cvc)
        return Instrument(method_id=method_id, means=card, fingerprint=method.fingerprint)

    def _method(self, tenant: Tenant, method_id: str) -> PaymentMethod | None:
        try:
            found: Any = self._ledger.repository.get(decode(Prefix.PAYMENT_METHOD, method_id))
        except (MalformedId, AggregateNotFoundError):
            return None
        is_theirs = isinstance(found, PaymentMethod) and found.tenant == tenant
        return found if is_theirs else None

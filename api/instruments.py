"""What an attempt is paid with, in whatever family it was asked for: a payment method whose card is in
the vault, or a name that stands for a card in test mode."""

from typing import Any

from eventsourcing.application import AggregateNotFoundError

from api.errors import invalid
from api.http import Call
from domain.card_tokens import card_of_test_token
from domain.cards import Card
from domain.commands import Instrument, Mode
from domain.errors import PaymentMethodNotFound
from domain.ids import MalformedId, Prefix, decode, encode
from domain.payment_method import PaymentMethod


def card_in_test_mode(call: Call, token: str) -> Card | None:
    """The card that a test token stands for, in test mode, as far as the bank in use knows it."""
    if call.tenant.mode is not Mode.TEST:
        return None
    extended = call.services.ledger.bank.capabilities.cvc_optional
    return card_of_test_token(token, extended=extended)


def instrument(
    call: Call,
    public_id: str,
    cvc: str | None = None,
    *,
    param: str = "payment_method",
    whose: str | None = None,
) -> Instrument:
    """What an attempt is paid with. `param`: the field that names it; `whose`: the customer who pays.
    Raises PaymentMethodNotFound, PaymentMethodStateConflict, and ApiError where it is another
    customer's, or where the bank needs a CVC and none is kept."""
    services = call.services
    of_test = card_in_test_mode(call, public_id)
    if of_test is not None:
        fingerprint = services.cards.fingerprint(of_test.number)
        return Instrument(method_id=public_id, card=of_test, fingerprint=fingerprint)
    method = _method(call, public_id)
    if method is None:
        raise _missing(param)
    method.refuse_detached()
    if method.customer_id not in (None, whose):
        raise invalid("invalid_param", "The payment method is another customer's.", param)
    kept = services.cards.find(method.id)
    if kept is None:
        raise _missing(param)
    number, kept_cvc = kept
    cvc = cvc or kept_cvc
    face = method.card
    card = Card(number=number, exp_month=face.exp_month, exp_year=face.exp_year, cvc=cvc)
    return paid_by(call, method, card)


def paid_by(call: Call, method: PaymentMethod, card: Card) -> Instrument:
    """What an attempt is paid with, by the whole card of a method. Raises ApiError where the bank needs
    a CVC and there is none."""
    if card.cvc is None and not call.services.ledger.bank.capabilities.cvc_optional:
        raise invalid("missing_param", "The bank needs the card's CVC again: give cvc.", "cvc")
    public_id = encode(Prefix.PAYMENT_METHOD, method.id)
    return Instrument(method_id=public_id, card=card, fingerprint=method.fingerprint)


def _method(call: Call, public_id: str) -> PaymentMethod | None:
    """The payment method, where this tenant has one of that id."""
    try:
        found: Any = call.services.ledger.repository.get(decode(Prefix.PAYMENT_METHOD, public_id))
    except (MalformedId, AggregateNotFoundError):
        return None
    return found if isinstance(found, PaymentMethod) and found.tenant == call.tenant else None


def _missing(param: str) -> PaymentMethodNotFound:
    return PaymentMethodNotFound("There is no such payment method.", param=param)

"""What is paid with, in whatever family it was asked for: a payment method whose card or account is in
the vault, a token, which is used up with that, or a name that stands for either in test mode."""

from dataclasses import dataclass
from typing import Any

from eventsourcing.application import AggregateNotFoundError

from api.errors import invalid
from api.http import Call
from domain.accounts import BankAccount, Means
from domain.card_tokens import account_of_test_token, card_of_test_token
from domain.cards import Card, CardFace
from domain.commands import Instrument, Mode
from domain.errors import PaymentMethodNotFound, TokenAlreadyUsed, TokenExpired, TokenNotFound
from domain.ids import MalformedId, Prefix, decode, encode
from domain.payment_method import PaymentMethod
from domain.records import ForgetCard, Record, UseToken
from domain.token import Token
from infrastructure import personal_data


@dataclass(frozen=True, slots=True)
class GivenCard:
    """A whole card, and what has to be recorded with its use."""

    card: Card
    records: tuple[Record, ...] = ()


def card_in_test_mode(call: Call, token: str) -> Card | None:
    """The card that a test token stands for, in test mode, as far as the bank in use knows it."""
    if call.tenant.mode is not Mode.TEST:
        return None
    extended = call.services.ledger.bank.capabilities.cvc_optional
    return card_of_test_token(token, extended=extended)


def card_of_token(call: Call, text: str, *, param: str) -> GivenCard:
    """The card that a token stands for, which is used up with this. `param`: the field that names it.
    Raises TokenNotFound, TokenAlreadyUsed, TokenExpired."""
    of_test = card_in_test_mode(call, text)
    if of_test is not None:
        return GivenCard(of_test)
    token = _found(call, Token, Prefix.TOKEN, text)
    if token is None:
        raise TokenNotFound("There is no such token.", param=param)
    kept = call.services.cards.find(token.id)
    if kept is None and token.is_expired(call.services.clock.now()):
        raise TokenExpired("The token has expired. Make another.", param=param)
    if kept is None:
        raise TokenAlreadyUsed("The token was used before. Make another.", param=param)
    card = _whole_card(token.card, *kept)
    return GivenCard(card, (UseToken(token_id=token.id), ForgetCard(method_id=token.id)))


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
    of_test = _in_test_mode(call, public_id)
    if of_test is not None:
        print_of = fingerprint(call, of_test)
        return Instrument(method_id=public_id, means=of_test, fingerprint=print_of)
    method = _found(call, PaymentMethod, Prefix.PAYMENT_METHOD, public_id)
    if method is None:
        raise _missing(param)
    method.refuse_detached()
    if method.customer_id not in (None, whose):
        raise invalid("invalid_param", "The payment method is another customer's.", param)
    kept = call.services.cards.find(method.id)
    if kept is None:
        raise _missing(param)
    number, kept_cvc = kept
    if isinstance(method.face, CardFace):
        return paid_by(call, method, _whole_card(method.face, number, cvc or kept_cvc))
    return paid_by(call, method, _whole_account(call, method, number))


def paid_by(call: Call, method: PaymentMethod, means: Means) -> Instrument:
    """What an attempt is paid with, by the whole card or account of a method. Raises ApiError where the
    bank needs a CVC and there is none."""
    refuse_without_cvc(call, means, "cvc")
    public_id = encode(Prefix.PAYMENT_METHOD, method.id)
    return Instrument(method_id=public_id, means=means, fingerprint=method.fingerprint)


def refuse_without_cvc(call: Call, means: Means, param: str) -> None:
    """Raises ApiError where the bank needs a card's CVC and there is none."""
    lacks_it = isinstance(means, Card) and means.cvc is None
    if lacks_it and not call.services.ledger.bank.capabilities.cvc_optional:
        raise invalid("missing_param", "The bank needs the card's CVC: give cvc.", param)


def fingerprint(call: Call, means: Means) -> str:
    """A keyed hash of the number, the same for the same card or account."""
    match means:
        case Card(number=number):
            return call.services.cards.fingerprint(number)
        case BankAccount(number=number, sort_code=sort_code):
            return call.services.cards.fingerprint(f"{sort_code}-{number}")


def _in_test_mode(call: Call, name: str) -> Means | None:
    """What a test token stands for, in test mode."""
    card = card_in_test_mode(call, name)
    if card is not None or call.tenant.mode is not Mode.TEST:
        return card
    return account_of_test_token(name)


def _whole_card(face: CardFace, number: str, cvc: str | None) -> Card:
    return Card(number=number, exp_month=face.exp_month, exp_year=face.exp_year, cvc=cvc)


def _whole_account(call: Call, method: PaymentMethod, number: str) -> BankAccount:
    """The account of a method, with its holder's name, which is kept apart."""
    assert not isinstance(method.face, CardFace)
    with call.services.pool.connection() as connection:
        billing = personal_data.of(connection, [method.id]).get(method.id, {})
    name = billing.get("name")
    if not name:
        raise invalid(
            "missing_param",
            "The bank needs the name of the account's holder: give the method billing_details[name].",
            "billing_details[name]",
        )
    return BankAccount(number=number, sort_code=method.face.sort_code, holder_name=name)


def _found(call: Call, kind: type[Any], prefix: Prefix, public_id: str) -> Any:
    """The aggregate of that kind, where this tenant has one of that id."""
    try:
        found: Any = call.services.ledger.repository.get(decode(prefix, public_id))
    except (MalformedId, AggregateNotFoundError):
        return None
    return found if isinstance(found, kind) and found.tenant == call.tenant else None


def _missing(param: str) -> PaymentMethodNotFound:
    return PaymentMethodNotFound("There is no such payment method.", param=param)

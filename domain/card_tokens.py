"""Test tokens: names that stand for cards, or accounts, in test mode, so that no number need be sent.

None is a real card. In the partner's own profile only its four cards exist, so every token of a
decline stands for the one that it declines.
"""

from collections.abc import Mapping
from typing import Final

from domain.accounts import BankAccount
from domain.cards import Card


def _card(number: str, exp_month: int, exp_year: int, cvc: str) -> Card:
    return Card(number=number, exp_month=exp_month, exp_year=exp_year, cvc=cvc)


GOOD: Final = _card("4242424242424242", 6, 2030, "456")
DECLINED_BY_FICMART: Final = _card("5555555555554444", 9, 2030, "789")

_GOOD_TOKENS: Final = frozenset({"pm_fake_visa", "pm_card_visa", "tok_visa_4242", "tok_visa"})
_CHALLENGED: Final = frozenset({"pm_card_threeDSecure2Required", "tok_3ds"})
CHALLENGED: Final = _card("4000002500003155", 12, 2034, "123")
_DISPUTED: Final[Mapping[str, str]] = {
    "createDispute": "4000000000000259",
    "createDisputeProductNotReceived": "4000000000002685",
}
_WALLET_PREFIX: Final = "tok_apple_"

_DECLINES: Final[Mapping[str, str]] = {
    "chargeDeclined": "4000000000000002",
    "visa_chargeDeclined": "4000000000000002",
    "chargeDeclinedInsufficientFunds": "4000000000009995",
    "visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "chargeDeclinedExpiredCard": "4000000000000069",
    "chargeDeclinedIncorrectCvc": "4000000000000127",
    "chargeDeclinedProcessingError": "4000000000000119",
}


def card_of_test_token(token: str, *, extended: bool) -> Card | None:
    """The card that `token` stands for, or None. `extended`: the bank knows more than four cards."""
    if token in _GOOD_TOKENS or (token.startswith(_WALLET_PREFIX) and token != _WALLET_PREFIX):
        return GOOD
    if token in _CHALLENGED:
        return CHALLENGED if extended else None
    for prefix in ("pm_card_", "tok_"):
        disputed = _DISPUTED.get(token.removeprefix(prefix)) if token.startswith(prefix) else None
        if disputed is not None:
            return _card(disputed, 12, 2034, "123") if extended else None
        number = _DECLINES.get(token.removeprefix(prefix)) if token.startswith(prefix) else None
        if number is not None:
            return _card(number, 12, 2034, "123") if extended else DECLINED_BY_FICMART
    return None


# Accounts from which a transfer comes, and from which none does, and why.
_ACCOUNTS: Final[Mapping[str, str]] = {
    "pm_bacsDebit_success": "00012345",
    "pm_bacsDebit_insufficientFunds": "22222227",
    "pm_bacsDebit_debitNotAuthorized": "33333335",
}


def account_of_test_token(token: str) -> BankAccount | None:
    """The account that `token` stands for, or None."""
    number = _ACCOUNTS.get(token)
    if number is None:
        return None
    return BankAccount(number=number, sort_code="108800", holder_name="Jenny Rosen")

"""Money is an integer of minor units and a currency."""

import pytest

from domain.bank import BankCapabilities
from domain.money import (
    ISO_4217,
    MAXIMUM_AMOUNT_MINOR,
    MINIMUM_AMOUNT_MINOR,
    MINOR_DIGITS,
    Money,
    in_major_units,
)
from tests.builders import ANY_AMOUNT, FULL_AMOUNTS


def test_the_range_is_the_published_one() -> None:
    assert (MINIMUM_AMOUNT_MINOR, MAXIMUM_AMOUNT_MINOR) == (1, 99_999_999)


@pytest.mark.parametrize("currency", ["USD", "EUR", "JPY", "KWD", "GBP", "VES", "SLE", "ZWG"])
def test_currencies_of_two_no_and_three_decimals_are_known(currency: str) -> None:
    assert currency in ISO_4217


@pytest.mark.parametrize("code", ["usd", "XXX", "XAU", "XTS", "BTC", "US", "USDT", ""])
def test_what_nobody_pays_in_is_no_currency(code: str) -> None:
    assert code not in ISO_4217


def test_every_currency_is_three_capitals() -> None:
    assert all(len(code) == 3 and code.isalpha() and code.isupper() for code in ISO_4217)


def test_equal_amounts_of_two_currencies_are_not_equal_money() -> None:
    assert Money(5000, "USD") == Money(5000, "USD")
    assert Money(5000, "USD") != Money(5000, "EUR")


@pytest.mark.parametrize(
    ("bank", "currency", "takes"),
    [(FULL_AMOUNTS, "USD", True), (FULL_AMOUNTS, "EUR", False), (ANY_AMOUNT, "EUR", True)],
)
def test_a_bank_takes_its_own_currencies_or_any(
    bank: BankCapabilities, currency: str, takes: bool
) -> None:
    assert bank.takes(currency) is takes


def test_only_currencies_that_there_are_have_other_digits_than_two() -> None:
    assert set(MINOR_DIGITS) <= ISO_4217


@pytest.mark.parametrize(
    ("amount", "currency", "written"),
    [
        (5000, "USD", "50.00"),
        (5, "USD", "0.05"),
        (-5, "EUR", "-0.05"),
        (0, "USD", "0.00"),
        (5000, "JPY", "5000"),
        (-7, "JPY", "-7"),
        (5001, "KWD", "5.001"),
        (99_999_999, "BHD", "99999.999"),
    ],
)
def test_an_amount_is_written_in_the_digits_of_its_currency(
    amount: int, currency: str, written: str
) -> None:
    assert in_major_units(amount, currency) == written

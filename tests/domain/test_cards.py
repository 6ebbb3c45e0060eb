"""What can be told of a card without a bank, and what is never shown."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cards import brand_of, passes_luhn
from domain.errors import CardRefused, Refusal
from tests.builders import NOON, a_card

END_OF_2030 = datetime(2031, 1, 1, tzinfo=UTC)  # by the clock of Greenwich
TWELVE_HOURS = timedelta(hours=12)  # until it is midnight everywhere


def with_check_digit(digits: str) -> str:
    """By the textbook: double every second digit from the right, add up, fill up to ten."""
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))]
    return digits + str(-sum(sum(divmod(value, 10)) for value in doubled) % 10)


numbers = st.text("0123456789", min_size=12, max_size=18).map(with_check_digit)


@given(numbers)
def test_a_number_with_its_check_digit_passes(number: str) -> None:
    assert passes_luhn(number)


@given(numbers, st.data())
def test_one_wrong_digit_is_always_noticed(number: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(number) - 1))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))

    assert not passes_luhn(number[:place] + wrong + number[place + 1 :])


@pytest.mark.parametrize(
    "number",
    ["4111111111111111", "4242424242424242", "5555555555554444", "5105105105105100"],
)
def test_the_banks_test_cards_pass(number: str) -> None:
    assert passes_luhn(number)


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        ("4111111111111111", "visa"),
        ("4222222222222", "visa"),
        ("5555555555554444", "mastercard"),
        ("5105105105105100", "mastercard"),
        ("2221000000000009", "mastercard"),
        ("2720990000000007", "mastercard"),
        ("2220990000000000", "unknown"),
        ("2721000000000000", "unknown"),
        ("5000000000000000", "unknown"),
        ("378282246310005", "amex"),
        ("341111111111111", "amex"),
        ("6011111111111117", "discover"),
        ("6440000000000000", "discover"),
        ("6500000000000002", "discover"),
        ("3056930009020004", "diners"),
        ("36227206271667", "diners"),
        ("38520000023237", "diners"),
        ("3566002020360505", "jcb"),
        ("3528000000000000", "jcb"),
        ("3527000000000000", "unknown"),
        ("6205500000000000004", "unionpay"),
        ("9999999999999995", "unknown"),
    ],
)
def test_the_brand_is_told_by_the_first_digits(number: str, brand: str) -> None:
    assert brand_of(number) == brand


def test_a_face_shows_the_last_four_and_no_more() -> None:
    face = a_card(number="378282246310005", exp_month=7, exp_year=2031).face()

    assert (face.brand, face.last4, face.exp_month, face.exp_year) == ("amex", "0005", 7, 2031)


def test_a_card_shows_nothing_when_printed() -> None:
    shown = f"{a_card()} {a_card()!r}"

    assert "4111" not in shown
    assert "123" not in shown


def test_a_wrong_number_is_refused_without_a_bank() -> None:
    with pytest.raises(CardRefused) as refused:
        a_card(number="4111111111111112").check(NOON)

    assert refused.value.code == "incorrect_number"
    assert refused.value.refusal is Refusal.CARD


@pytest.mark.parametrize(
    "at",
    [NOON, END_OF_2030 - timedelta(seconds=1), END_OF_2030 + TWELVE_HOURS - timedelta(seconds=1)],
)
def test_a_card_is_good_to_the_end_of_its_month_wherever_the_shopper_is(at: datetime) -> None:
    a_card(exp_month=12, exp_year=2030).check(at)


@pytest.mark.parametrize("at", [END_OF_2030 + TWELVE_HOURS, END_OF_2030 + timedelta(days=400)])
def test_a_card_is_refused_once_its_month_is_over_everywhere(at: datetime) -> None:
    with pytest.raises(CardRefused) as refused:
        a_card(exp_month=12, exp_year=2030).check(at)

    assert refused.value.code == "expired_card"


def test_an_earlier_month_of_a_later_year_is_not_past() -> None:
    a_card(exp_month=1, exp_year=2027).check(NOON)

"""Cards: what may be known of one for ever (brand, last four, expiry) and what may not (the rest).

A `Card` holds the number and the CVC, exists in memory only, and shows neither when printed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from domain.errors import CardRefused

# A card is good to the end of its month wherever the shopper is: the last place on earth to see
# that midnight is twelve hours behind UTC.
LAST_TIME_ZONE: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFace:
    """What a receipt may show of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Card:
    """A whole card. `number`: 13 to 19 digits; `cvc`: 3 or 4 digits, or None where none was given."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str | None

    def __repr__(self) -> str:
        return "Card(…)"

    def face(self) -> CardFace:
        """The part that may be kept."""
        return CardFace(
            brand=brand_of(self.number),
            last4=self.number[-4:],
            exp_month=self.exp_month,
            exp_year=self.exp_year,
        )

    def check(self, at: datetime) -> None:
        """Refuses a number that fails Luhn and an expiry in the past, which no bank need be asked."""
        if not passes_luhn(self.number):
            raise CardRefused(
                "The card number is incorrect.", code="incorrect_number", param="card[number]"
            )
        local = at - LAST_TIME_ZONE
        if (self.exp_year, self.exp_month) < (local.year, local.month):
            raise CardRefused("The card has expired.", code="expired_card", param="card[exp_year]")


def passes_luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, character in enumerate(reversed(number)):
        digit = int(character) << (place & 1)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


# First digits, as ranges of equal length, of the brands that the published families name.
_BRANDS: Final = (
    ("amex", ((34, 34), (37, 37))),
    ("diners", ((300, 305), (36, 36), (38, 39))),
    ("jcb", ((3528, 3589),)),
    ("visa", ((4, 4),)),
    ("mastercard", ((51, 55), (2221, 2720))),
    ("discover", ((6011, 6011), (644, 649), (65, 65))),
    ("unionpay", ((62, 62),)),
)


def brand_of(number: str) -> str:
    """The brand by the number's first digits, or `unknown`."""
    for brand, ranges in _BRANDS:
        if any(low <= int(number[: len(str(low))]) <= high for low, high in ranges):
            return brand
    return "unknown"

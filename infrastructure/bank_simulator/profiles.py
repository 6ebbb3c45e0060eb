"""What the bank offers: the partner's terms to the letter, or our richer test bench.

A profile is a set of permissions and a book of cards. An operation of a later day is a new field here and a new operation in `operations`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

HAPPY_CARD = "4111111111111111"
DEFAULT_CURRENCY = "USD"
# Ten trillion: no test spends it, and the sums stay far inside 64 bits.
WITHOUT_LIMIT = 1_000_000_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A card as the bank issued it; `balance` in cents."""

    number: str
    cvv: str
    expiry_month: int
    expiry_year: int
    balance: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TestCard:
    """How a well-known test number is treated: any CVV and any future expiry are good.

    `decline` is the code that it is always refused with; `unlimited` skips the funds check. `cvv_fails`:
    it is refused where a CVV is given. `challenged`: its holder has to approve each payment at a page of
    the bank's; `decline_after` is the code that it is refused with even so. `disputed`: for which reason its
    holder disputes whatever was taken.
    """

    __test__ = False  # not a test, whatever pytest reads into the name

    decline: str | None = None
    unlimited: bool = False
    cvv_fails: bool = False
    challenged: bool = False
    decline_after: str | None = None
    disputed: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What callers may do. `partial` covers captures below the hold and several refunds; `challenges`
    asks the holders of some cards to approve, `transfers` takes money from accounts at other banks,
    `disputes` lets holders have their money back until it was decided."""

    name: str
    partial: bool
    currencies: bool
    cvv_required: bool
    challenges: bool = False
    transfers: bool = False
    disputes: bool = False
    cards: tuple[Card, ...]
    test_cards: Mapping[str, TestCard] = field(default_factory=lambda: MappingProxyType({}))


PARTNER_CARDS = (
    Card(number=HAPPY_CARD, cvv="123", expiry_month=12, expiry_year=2030, balance=1_000_000),
    Card(number="4242424242424242", cvv="456", expiry_month=6, expiry_year=2030, balance=50_000),
    Card(number="5555555555554444", cvv="789", expiry_month=9, expiry_year=2030, balance=0),
    Card(number="5105105105105100", cvv="321", expiry_month=3, expiry_year=2020, balance=500_000),
)

_UNLIMITED = TestCard(unlimited=True)
_CHALLENGED = TestCard(unlimited=True, challenged=True)
TEST_CARDS: Mapping[str, TestCard] = MappingProxyType(
    {
        HAPPY_CARD: TestCard(),
        "4242424242424242": _UNLIMITED,
        "5555555555554444": TestCard(decline="insufficient_funds"),
        "5105105105105100": TestCard(decline="card_expired"),
        "4000000000000002": TestCard(decline="card_declined"),
        "4000000000009995": TestCard(decline="insufficient_funds"),
        "4000000000000069": TestCard(decline="card_expired"),
        "4000000000000127": TestCard(decline="invalid_cvv"),
        "4000000000000119": TestCard(decline="processing_error"),
        "4000056655665556": _UNLIMITED,
        "378282246310005": _UNLIMITED,
        "6011111111111117": _UNLIMITED,
        "3056930009020004": _UNLIMITED,
        "3566002020360505": _UNLIMITED,
        "5200828282828210": _UNLIMITED,
        "2223003122003222": _UNLIMITED,
        "4000000000000101": TestCard(unlimited=True, cvv_fails=True),
        "4000000000000341": TestCard(decline="card_declined"),
        "4100000000000019": TestCard(decline="card_declined"),
        "4000000000009987": TestCard(decline="lost_card"),
        "4000000000009979": TestCard(decline="stolen_card"),
        "4000000000000259": TestCard(unlimited=True, disputed="fraudulent"),
        "4000000000002685": TestCard(unlimited=True, disputed="product_not_received"),
        "4000002500003155": _CHALLENGED,
        "4000002760003184": _CHALLENGED,
        "4000000000003220": _CHALLENGED,
        "4000008260003178": TestCard(challenged=True),
        "4000008400001629": TestCard(
            unlimited=True, challenged=True, decline_after="card_declined"
        ),
    }
)


def _bench_cards() -> tuple[Card, ...]:
    issued = {card.number: card for card in PARTNER_CARDS}
    return tuple(
        Card(
            number=number,
            cvv=issued[number].cvv if number in issued else "123",
            expiry_month=issued[number].expiry_month if number in issued else 12,
            expiry_year=issued[number].expiry_year if number in issued else 2030,
            balance=_bench_balance(issued.get(number), card),
        )
        for number, card in TEST_CARDS.items()
    )


def _bench_balance(issued: Card | None, card: TestCard) -> int:
    if card.unlimited:
        return WITHOUT_LIMIT
    return issued.balance if issued else 0


FICMART = Profile(
    name="ficmart", partial=False, currencies=False, cvv_required=True, cards=PARTNER_CARDS
)
EXTENDED = Profile(
    name="extended",
    partial=True,
    currencies=True,
    cvv_required=False,
    challenges=True,
    transfers=True,
    disputes=True,
    cards=_bench_cards(),
    test_cards=TEST_CARDS,
)
PROFILES: Mapping[str, Profile] = MappingProxyType({p.name: p for p in (FICMART, EXTENDED)})

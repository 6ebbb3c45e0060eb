"""Cards that nobody has: wherever such a number is seen, it leaked from us."""

from dataclasses import dataclass
from typing import Final

# Of no issuer, and unlike any amount or time.
CARD_PREFIX: Final = "9417"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopperCard:
    """A card that nobody else has, and that must not be seen anywhere."""

    number: str
    cvc: str

    @classmethod
    def numbered(cls, number: int) -> "ShopperCard":
        digits = f"{CARD_PREFIX}{number * 7_919 % 10**11:011d}"
        doubled = sum(sum(divmod(2 * int(d), 10)) for d in digits[::-2])
        check = -(doubled + sum(int(d) for d in digits[-2::-2])) % 10
        return cls(number=f"{digits}{check}", cvc=f"{number * 1_237 % 10_000:04d}")

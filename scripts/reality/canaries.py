"""Canary cards: numbers and CVCs that no one else has, and the search for them in all that is kept.

The numbers pass the Luhn check and begin alike, so that one glance finds any of them; none was ever
issued. Three digits are found everywhere, so a CVC counts only beside its name.
"""

import base64
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from domain.cards import passes_luhn

FIRST_DIGITS: Final = "40000083"
LENGTH: Final = 16
EXP_MONTH: Final = 12
EXP_YEAR: Final = 2031
LARGEST_PART_BYTES: Final = 64 * 1024 * 1024
OVERLAP_BYTES: Final = 256
NAMED_CVC: Final = re.compile(
    rb"(?:cvc|cvv|cvc2|cvv2|security_?code)[\"'\\:=\s]{1,8}(\d{3,4})(?!\d)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryCard:
    """A card that exists only here and at the simulated bank."""

    number: str
    cvc: str

    def as_sent(self) -> dict[str, object]:
        """As a shop sends it."""
        return {
            "number": self.number,
            "exp_month": EXP_MONTH,
            "exp_year": EXP_YEAR,
            "cvc": self.cvc,
        }


def cards(count: int, rng: random.Random) -> list[CanaryCard]:
    """So many, all different."""
    numbers: dict[str, None] = {}
    while len(numbers) < count:
        digits = FIRST_DIGITS + "".join(rng.choices("0123456789", k=LENGTH - len(FIRST_DIGITS) - 1))
        numbers[next(digits + c for c in "0123456789" if passes_luhn(digits + c))] = None
    return [CanaryCard(number=it, cvc=f"{rng.randrange(1000):03d}") for it in numbers]


class CanarySearch:
    """Looks for the numbers in every spelling that might hide one, and for the CVCs by name."""

    def __init__(
        self, cards: Sequence[CanaryCard], *, seen: str, part_bytes: int = LARGEST_PART_BYTES
    ) -> None:
        """`seen`: a text that is not secret and has to be found where there is anything.
        `part_bytes`: of a file, at a time."""
        self._part_bytes = part_bytes
        self._seen = seen.encode()
        self._by_marker: dict[str, tuple[bytes, bool, frozenset[bytes]]] = {}
        self._cvcs = frozenset(card.cvc.encode() for card in cards)
        for name, spelled in _spellings([card.number for card in cards]).items():
            marker, at_end = _marker(spelled)
            self._by_marker[name] = (marker, at_end, frozenset(spelled))

    def found_in(self, text: bytes) -> list[str]:
        """How a card was found in `text`: the spelling, never the card."""
        found = [
            f"card number, {name}"
            for name, (marker, at_end, spelled) in self._by_marker.items()
            if _has_one(text, marker, spelled, at_end=at_end)
        ]
        named = {match.group(1) for match in NAMED_CVC.finditer(text)}
        return found + ["CVC"] * bool(named & self._cvcs)

    def sees(self, text: bytes) -> bool:
        """Whether the text that is not secret is there: else the search looks past everything."""
        return self._seen in text

    def in_files(self, files: Iterable[Path]) -> tuple[list[str], bool]:
        """Where and how a card was found, and whether the text that is not secret was."""
        found, seen = [], False
        for file in files:
            for part in _parts(file, self._part_bytes):
                found += [f"{file.name}: {how}" for how in self.found_in(part)]
                seen = seen or self.sees(part)
        return found, seen


def _spellings(numbers: list[str]) -> Mapping[str, list[bytes]]:
    raw = [number.encode() for number in numbers]
    return {
        "as it is": raw,
        "with spaces": [_grouped(number, " ") for number in numbers],
        "with hyphens": [_grouped(number, "-") for number in numbers],
        "backwards": [each[::-1] for each in raw],
        "in hexadecimal": [each.hex().encode() for each in raw],
        "in wide characters": [number.encode("utf-16-le") for number in numbers],
        "as packed digits": [bytes.fromhex(number) for number in numbers],
        **{f"in base64, shifted {shift}": [_base64(it, shift) for it in raw] for shift in range(3)},
    }


def _grouped(number: str, between: str) -> bytes:
    return between.join(re.findall("....", number)).encode()


def _base64(raw: bytes, shift: int) -> bytes:
    """What is the same of the number's base64 whatever stands before and behind it."""
    encoded = base64.b64encode(bytes(shift) + raw)
    first = -(-shift * 8 // 6)
    last = (shift + len(raw)) * 8 // 6
    return encoded[first:last]


def _marker(spelled: list[bytes]) -> tuple[bytes, bool]:
    """What all of them begin with, or end with: one look for it is a look for all."""
    first, last = min(spelled), max(spelled)
    begin = _common(first, last)
    ends = [each[::-1] for each in spelled]
    end = _common(min(ends), max(ends))[::-1]
    return (end, True) if len(end) > len(begin) else (begin, False)


def _common(one: bytes, other: bytes) -> bytes:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
    return one[:length]


def _has_one(text: bytes, marker: bytes, spelled: frozenset[bytes], *, at_end: bool) -> bool:
    length = len(next(iter(spelled)))
    at = text.find(marker)
    while at >= 0:
        begin = at + len(marker) - length if at_end else at
        if begin >= 0 and text[begin : begin + length] in spelled:
            return True
        at = text.find(marker, at + 1)
    return False


def _parts(file: Path, length: int) -> Iterator[bytes]:
    """The file in parts that overlap, so that nothing hides on a border; a file that goes away
    meanwhile has no more of them."""
    try:
        with file.open("rb") as opened:
            before = b""
            while part := opened.read(length):
                yield before + part
                before = part[-OVERLAP_BYTES:]
    except FileNotFoundError:
        return

"""The search for cards finds one in every spelling, on every border, and nothing where there is none."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from domain.cards import passes_luhn
from scripts.reality.canaries import FIRST_DIGITS, CanarySearch, cards

CARDS = cards(50, random.Random(1))
SEARCH = CanarySearch(CARDS, seen="ORD-1")


def in_groups(number: str, between: str) -> str:
    return between.join(number[at : at + 4] for at in range(0, 16, 4))


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "spaced": lambda it: in_groups(it, " ").encode(),
    "hyphens": lambda it: in_groups(it, "-").encode(),
    "backwards": lambda it: it[::-1].encode(),
    "hexadecimal": lambda it: it.encode().hex().encode(),
    "wide": lambda it: it.encode("utf-16-le"),
    "packed": bytes.fromhex,
    "json": lambda it: json.dumps({"number": it}).encode(),
    "base64": lambda it: base64.b64encode(it.encode()),
    "base64 behind one": lambda it: base64.b64encode(b"x" + it.encode() + b"and more"),
    "base64 behind two": lambda it: base64.b64encode(b"xx" + it.encode() + b"and more"),
    "base64 behind three": lambda it: base64.b64encode(b"xxx" + it.encode() + b"and more"),
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_a_card_is_found_however_it_is_spelled(spelled: Callable[[str], bytes]) -> None:
    for card in CARDS:
        assert SEARCH.found_in(b"before " + spelled(card.number) + b" behind")


def test_a_cvc_is_found_by_its_name_and_not_by_chance() -> None:
    cvc = CARDS[0].cvc

    assert SEARCH.found_in(f'{{"cvc": "{cvc}"}}'.encode()) == ["CVC"]
    assert SEARCH.found_in(f"cvv={cvc}&x=1".encode()) == ["CVC"]
    assert SEARCH.found_in(f"took {cvc} ms".encode()) == []


def test_what_is_like_a_card_and_is_none_is_not_found() -> None:
    others = {card.number for card in cards(60, random.Random(2))} - {it.number for it in CARDS}
    text = " ".join([*others, "4000008", "3800000 4", FIRST_DIGITS]).encode()

    assert SEARCH.found_in(text) == []


def test_the_cards_are_all_different_and_pass_the_check() -> None:
    assert len({card.number for card in CARDS}) == 50
    assert all(passes_luhn(card.number) and len(card.number) == 16 for card in CARDS)


def test_a_card_across_the_border_of_two_parts_of_a_file_is_found(tmp_path: Path) -> None:
    search = CanarySearch(CARDS, seen="ORD-1", part_bytes=1000)
    file = tmp_path / "heap"
    file.write_bytes(b"\0" * 992 + CARDS[3].number.encode() + b"\0" * 3000 + b"ORD-17")

    found, seen = search.in_files([file, tmp_path / "gone"])

    assert found
    assert set(found) == {"heap: card number, as it is"}
    assert seen

"""The bank's rules, without HTTP."""

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.bank_simulator.books import Books
from infrastructure.bank_simulator.refusals import Refused
from infrastructure.bank_simulator.requests import (
    AccountRequest,
    AuthorizationRequest,
    CaptureRequest,
    RefundRequest,
    VoidRequest,
    is_card_number,
)
from tests.infrastructure.bank_simulator.a_bank import NOON, WEEK, asked, open_books

HAPPY = "4111111111111111"
Step = tuple[str, int, int, bool]
CVVS = {HAPPY: "123", "4242424242424242": "456", "5555555555554444": "789"}


def authorize(books: Books, card: str = HAPPY, amount: int = 5_000, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "card_number": card,
        "cvv": CVVS.get(card, "321"),
        "expiry_month": 12,
        "expiry_year": 2030,
        "amount": amount,
        "currency": "USD",
    }
    return books.authorize(AuthorizationRequest(**(fields | changes)), asked())


def capture(books: Books, hold: Any, amount: int = 5_000, now: float = NOON) -> Any:
    request = CaptureRequest(authorization_id=hold["authorization_id"], amount=amount)
    return books.capture(request, asked(now))


def void(books: Books, hold: Any, now: float = NOON) -> Any:
    return books.void(VoidRequest(authorization_id=hold["authorization_id"]), asked(now))


def refund(books: Books, taken: Any, amount: int = 5_000) -> Any:
    return books.refund(RefundRequest(capture_id=taken["capture_id"], amount=amount), asked())


def balances(books: Books, card: str = HAPPY) -> tuple[int, int]:
    accounts: Any = books.statement(NOON)["accounts"]
    account = next(one for one in accounts if one["card_number"] == card)
    return account["balance"], account["available_balance"]


def refusal(do: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(Refused) as raised:
        do(*arguments, **named)
    return raised.value.code


def test_a_hold_lowers_only_what_is_available(books: Books) -> None:
    authorize(books)
    assert balances(books) == (1_000_000, 995_000)


def test_a_capture_lowers_the_balance(books: Books) -> None:
    capture(books, authorize(books))
    assert balances(books) == (995_000, 995_000)


def test_a_void_gives_the_hold_back(books: Books) -> None:
    void(books, authorize(books))
    assert balances(books) == (1_000_000, 1_000_000)


def test_a_refund_raises_both_balances(books: Books) -> None:
    refund(books, capture(books, authorize(books)))
    assert balances(books) == (1_000_000, 1_000_000)


def test_answers_have_the_published_fields_and_ids(books: Books) -> None:
    hold = authorize(books)
    taken = capture(books, hold)
    given_back = refund(books, taken)
    released = void(books, authorize(books))

    assert list(hold) == [
        "authorization_id", "status", "amount", "currency", "expires_at", "created_at",
    ]  # fmt: skip
    assert hold["created_at"] == "2026-09-21T14:13:20.000000Z"
    assert hold["expires_at"] == "2026-09-28T14:13:20.000000Z"
    assert taken["authorization_id"] == hold["authorization_id"]
    assert given_back["capture_id"] == taken["capture_id"]
    lower_uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    for body, name, prefix in (
        (hold, "authorization_id", "auth"),
        (taken, "capture_id", "cap"),
        (given_back, "refund_id", "ref"),
        (released, "void_id", "void"),
    ):
        assert re.fullmatch(f"{prefix}_{lower_uuid}", body[name])
    statuses = [one["status"] for one in (hold, taken, released, given_back)]
    assert statuses == ["approved", "captured", "voided", "refunded"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"card": "4012888888881881"}, "invalid_card"),
        ({"cvv": "999"}, "invalid_cvv"),
        ({"card": "5105105105105100"}, "card_expired"),
        ({"card": "5105105105105100", "cvv": "999"}, "invalid_cvv"),
        ({"card": "5555555555554444"}, "insufficient_funds"),
        ({"card": "4242424242424242", "amount": 50_001}, "insufficient_funds"),
    ],
)
def test_the_first_failing_check_refuses_and_records_nothing(
    books: Books, changes: dict[str, Any], code: str
) -> None:
    before = books.statement(NOON)
    assert refusal(authorize, books, **changes) == code
    assert books.statement(NOON) == before


def test_the_expiry_that_was_sent_does_not_count(books: Books) -> None:
    authorize(books, expiry_month=1, expiry_year=1999)


def test_held_money_cannot_be_held_twice(books: Books) -> None:
    authorize(books, card="4242424242424242", amount=50_000)
    assert refusal(authorize, books, card="4242424242424242", amount=1) == "insufficient_funds"


@pytest.mark.parametrize("first", [capture, void])
@pytest.mark.parametrize("second", [capture, void])
def test_a_hold_ends_once(books: Books, first: Any, second: Any) -> None:
    hold = authorize(books)
    first(books, hold)
    assert refusal(second, books, hold) == "authorization_already_used"


def test_an_expired_hold_can_be_voided_but_not_captured(books: Books) -> None:
    hold = authorize(books)
    assert refusal(capture, books, hold, now=NOON + WEEK) == "authorization_expired"
    void(books, hold, now=NOON + 2 * WEEK)
    assert balances(books) == (1_000_000, 1_000_000)


def test_an_authorization_says_approved_for_ever(books: Books) -> None:
    captured, voided = authorize(books), authorize(books)
    capture(books, captured)
    void(books, voided)
    for hold in (captured, voided):
        assert books.authorization(hold["authorization_id"], NOON) == hold


def test_captures_and_refunds_can_be_read_again(books: Books) -> None:
    taken = capture(books, authorize(books))
    given_back = refund(books, taken)
    assert books.captured(taken["capture_id"]) == taken
    assert books.refunded(given_back["refund_id"]) == given_back


def test_only_full_amounts(books: Books) -> None:
    hold = authorize(books)
    assert refusal(capture, books, hold, amount=4_999) == "amount_mismatch"
    taken = capture(books, hold)
    assert refusal(refund, books, taken, amount=4_999) == "amount_mismatch"
    refund(books, taken)
    assert refusal(refund, books, taken) == "already_refunded"


def test_unknown_ids_are_told_apart(books: Books) -> None:
    hold = authorize(books)
    taken = capture(books, hold)
    as_capture = {"capture_id": hold["authorization_id"]}
    as_hold = {"authorization_id": taken["capture_id"]}
    assert refusal(refund, books, as_capture) == "capture_not_found"
    assert refusal(void, books, as_hold) == "authorization_not_found"
    assert refusal(capture, books, as_hold) == "authorization_not_found"
    assert refusal(books.authorization, taken["capture_id"], NOON) == "not_found"


def test_the_partner_knows_none_of_the_extended_cards(books: Books) -> None:
    assert refusal(authorize, books, card="378282246310005") == "invalid_card"
    assert refusal(authorize, books, card="4000000000000002") == "invalid_card"


def test_a_partial_capture_releases_the_rest(extended_books: Books) -> None:
    capture(extended_books, authorize(extended_books), amount=2_000)
    assert balances(extended_books) == (998_000, 998_000)


def test_a_hold_is_captured_once_even_in_part(extended_books: Books) -> None:
    hold = authorize(extended_books)
    assert refusal(capture, extended_books, hold, amount=5_001) == "amount_mismatch"
    capture(extended_books, hold, amount=2_000)
    again = refusal(capture, extended_books, hold, amount=3_000)
    assert again == "authorization_already_used"


def test_refunds_add_up_to_the_capture_at_most(extended_books: Books) -> None:
    taken = capture(extended_books, authorize(extended_books))
    refund(extended_books, taken, amount=2_000)
    assert refusal(refund, extended_books, taken, amount=3_001) == "refund_exceeds_capture"
    refund(extended_books, taken, amount=3_000)
    assert refusal(refund, extended_books, taken, amount=1) == "already_refunded"
    assert balances(extended_books) == (1_000_000, 1_000_000)


def test_a_currency_is_echoed_from_hold_to_refund(extended_books: Books) -> None:
    hold = authorize(extended_books, currency="EUR")
    taken = capture(extended_books, hold)
    given_back = refund(extended_books, taken)
    assert {body["currency"] for body in (hold, taken, given_back)} == {"EUR"}


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("5555555555554444", "insufficient_funds"),
        ("5105105105105100", "card_expired"),
        ("4000000000000002", "card_declined"),
        ("4000000000009995", "insufficient_funds"),
        ("4000000000000069", "card_expired"),
        ("4000000000000127", "invalid_cvv"),
        ("4000000000000119", "processing_error"),
    ],
)
def test_declining_test_cards_decline(extended_books: Books, card: str, code: str) -> None:
    assert refusal(authorize, extended_books, card=card, amount=1) == code


@pytest.mark.parametrize(
    "card",
    [
        "4242424242424242", "4000056655665556", "378282246310005", "6011111111111117",
        "3056930009020004", "3566002020360505",
    ],
)  # fmt: skip
def test_unlimited_test_cards_take_any_cvv_and_future_expiry(
    extended_books: Books, card: str
) -> None:
    for cvv in ("", "000", "9999"):
        authorize(extended_books, card=card, amount=10**12, cvv=cvv, expiry_year=2044)
    assert refusal(authorize, extended_books, card=card, expiry_year=2020) == "card_expired"


def test_an_account_can_be_opened_and_topped_up(books: Books) -> None:
    request = AccountRequest(
        card_number="4012888888881881", cvv="111", expiry_month=1, expiry_year=2031, balance=700
    )
    books.deposit(request)
    assert books.deposit(request)["available_balance"] == 1_400
    authorize(books, card="4012888888881881", amount=1_400, cvv="111")


def test_more_money_for_the_happy_card_is_given_once(tmp_path: Path) -> None:
    books = open_books(tmp_path, "ficmart")
    for _ in range(2):
        books.fund_happy_card(5_000_000)
    assert balances(books) == (5_000_000, 5_000_000)


def test_card_numbers_pass_the_luhn_check() -> None:
    assert is_card_number("4111111111111111")
    for wrong in ("4111111111111112", "411111111111", "41111111111111111111", "", "４" * 16):
        assert not is_card_number(wrong)


@settings(max_examples=40, deadline=None)
@given(
    profile=st.sampled_from(["ficmart", "extended"]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["hold", "capture", "void", "refund"]),
            st.integers(0, 5),
            st.integers(1, 60_000),
            st.booleans(),
        ),
        max_size=25,
    ),
)
def test_the_accounts_are_the_sum_of_the_journal(profile: str, steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        books = open_books(Path(folder), profile)
        holds: list[Any] = []
        captures: list[Any] = []
        for step in steps:
            with contextlib.suppress(Refused):
                _take_step(books, holds, captures, step)
            _check_sums(books)


def _take_step(books: Books, holds: list[Any], captures: list[Any], taken_step: Step) -> None:
    step, which, amount, whole = taken_step
    if step == "hold":
        holds.append(authorize(books, card="4111111111111111", amount=amount))
    elif step == "refund" and captures:
        taken = captures[which % len(captures)]
        refund(books, taken, amount=taken["amount"] if whole else amount)
    elif holds:
        hold = holds[which % len(holds)]
        if step == "capture":
            captures.append(capture(books, hold, amount=hold["amount"] if whole else amount))
        elif step == "void":
            void(books, hold)


def _check_sums(books: Books) -> None:
    journal: Any = books.statement(NOON)["transactions"]
    total = dict.fromkeys(("AUTH_HOLD", "CAPTURE", "VOID", "REFUND"), 0)
    for one in journal:
        total[one["type"]] += one["amount"]
    ended = {one["reference_id"] for one in journal if one["type"] in {"CAPTURE", "VOID"}}
    holds = (one for one in journal if one["type"] == "AUTH_HOLD" and one["id"] not in ended)
    held = sum(one["amount"] for one in holds)
    balance, available = balances(books)

    assert balance == 1_000_000 - total["CAPTURE"] + total["REFUND"]
    assert available == balance - held
    assert 0 <= available <= balance
    assert total["REFUND"] <= total["CAPTURE"]

"""The comparison finds what it is there to find: each promise is broken once, by hand."""

import json
from typing import Any, Final

import pytest

from scripts.reality import books
from scripts.reality.shoppers import Answer, Ask

PAYMENT: Final = "pay_1"
CARD: Final = "4000008300000000"


def entry(kind: str, number: int, *, amount: int = 500, of: str | None = None) -> dict[str, Any]:
    return {
        "id": f"{kind}_{number}",
        "type": kind,
        "reference_id": of,
        "idempotency_key": f"{PAYMENT}-{kind.lower()}-{number}",
        "amount": amount,
    }


def a_ledger(*transactions: dict[str, Any], spent: int = 0) -> dict[str, Any]:
    account = {"card_number": CARD, "deposited": 2000, "balance": 2000 - spent}
    return {"transactions": list(transactions), "accounts": [account]}


def a_receipt(status: str = "captured", **changes: Any) -> dict[str, Any]:
    captured = 500 if status in books.CAPTURED else 0
    capture_id = "CAPTURE_3" if captured else None
    hold = "AUTH_HOLD_1"
    bank: dict[str, Any] = {"authorization_id": hold, "capture_id": capture_id, "refund_ids": []}
    return {
        "payment_id": PAYMENT,
        "order_id": "ORD-1",
        "status": status,
        "amount": 500,
        "amount_captured": captured,
        "amount_refunded": 0,
        "pending_operation": None,
        "bank": bank,
        **changes,
    }


HOLD: Final = entry("AUTH_HOLD", 1)
OTHER_HOLD: Final = entry("AUTH_HOLD", 2)
CAPTURE: Final = entry("CAPTURE", 3, of="AUTH_HOLD_1")
OTHER_CAPTURE: Final = entry("CAPTURE", 4, of="AUTH_HOLD_2")
VOID: Final = entry("VOID", 5, of="AUTH_HOLD_1")
REFUND: Final = entry("REFUND", 6, of="CAPTURE_3")


def differences(
    ledger: dict[str, Any], *receipts: dict[str, Any], flags: set[str] | None = None
) -> list[str]:
    return books.differences(ledger, receipts, {PAYMENT: flags or set()})


@pytest.mark.parametrize(
    ("ledger", "receipt"),
    [
        (a_ledger(HOLD, CAPTURE, spent=500), a_receipt()),
        (a_ledger(HOLD), a_receipt("authorized")),
        (a_ledger(HOLD, VOID), a_receipt("voided")),
    ],
)
def test_books_that_are_equal_are_found_equal(
    ledger: dict[str, Any], receipt: dict[str, Any]
) -> None:
    assert differences(ledger, receipt) == []
    assert books.double_charges(ledger, [receipt]) == []
    assert books.unexplained_holds(ledger, [receipt], {}) == []
    assert books.balances(ledger, [receipt], {"ORD-1": CARD}) == []


@pytest.mark.parametrize(
    ("ledger", "receipt", "said"),
    [
        (a_ledger(HOLD), a_receipt(), "500 captured, and 0"),
        (a_ledger(HOLD, CAPTURE), a_receipt("authorized"), "0 captured, and 500"),
        (a_ledger(HOLD, CAPTURE, REFUND), a_receipt(), "0 refunded, and 500"),
        (a_ledger(HOLD), a_receipt("voided"), "released here or there"),
        (a_ledger(HOLD, VOID), a_receipt("authorized"), "released here or there"),
        (a_ledger(CAPTURE), a_receipt(), "does not hold what it should"),
        (a_ledger(HOLD, OTHER_HOLD, OTHER_CAPTURE), a_receipt(), "another hold than ours"),
        (a_ledger(entry("AUTH_HOLD", 1, amount=7)), a_receipt("authorized"), "another amount"),
        (a_ledger(HOLD), a_receipt("authorized", pending_operation="void"), "still pending"),
        (
            a_ledger(HOLD, CAPTURE),
            a_receipt(bank={**a_receipt()["bank"], "capture_id": "cap_other"}),
            "ids of the captures",
        ),
        (a_ledger({**HOLD, "idempotency_key": "pay_2-x-1"}), a_receipt("declined"), "we do not"),
    ],
)
def test_a_difference_is_found_and_named(
    ledger: dict[str, Any], receipt: dict[str, Any], said: str
) -> None:
    assert said in " ".join(differences(ledger, receipt))


def test_an_id_that_the_bank_forgot_is_explained_by_its_review_and_by_nothing_else() -> None:
    receipt = a_receipt(bank={**a_receipt()["bank"], "capture_id": None})
    ledger = a_ledger(HOLD, CAPTURE)

    assert differences(ledger, receipt, flags={"capture_id_unknown"}) == []
    assert differences(ledger, receipt, flags={"possible_orphan_hold"}) != []


def test_two_captures_of_a_payment_or_of_an_order_are_a_double_charge() -> None:
    twice = a_ledger(HOLD, OTHER_HOLD, CAPTURE, OTHER_CAPTURE)
    receipts = [a_receipt(), a_receipt(payment_id="pay_2")]

    assert books.double_charges(twice, [a_receipt()]) == [f"{PAYMENT} was captured 2 times"]
    assert books.double_charges(a_ledger(), receipts) == ["ORD-1 was paid 2 times"]
    assert "given back" in books.double_charges(a_ledger(HOLD, REFUND), [a_receipt()])[0]


def test_a_second_hold_has_to_be_on_the_list_of_possible_orphans_until_it_is_released() -> None:
    receipt = a_receipt("authorized")
    two = a_ledger(HOLD, OTHER_HOLD)
    released = a_ledger(HOLD, OTHER_HOLD, {**VOID, "reference_id": "AUTH_HOLD_2"})

    assert len(books.unexplained_holds(two, [receipt], {})) == 1
    assert books.unexplained_holds(two, [receipt], {PAYMENT: {books.ORPHAN}}) == []
    assert books.unexplained_holds(released, [receipt], {}) == []


def test_a_hold_of_a_payment_that_was_declined_is_unexplained() -> None:
    receipt = a_receipt("declined", bank={"authorization_id": None, "capture_id": None})

    assert len(books.unexplained_holds(a_ledger(HOLD), [receipt], {})) == 1


def test_a_balance_that_is_a_cent_off_is_found() -> None:
    ledger = a_ledger(HOLD, CAPTURE, spent=501)

    assert len(books.balances(ledger, [a_receipt()], {"ORD-1": CARD})) == 1


# --- answers ---


def an_answer(status: int, *, replayed: bool = False, **body: Any) -> Answer:
    return Answer(status=status, body=json.dumps(body).encode(), replayed=replayed, seconds=0.1)


def an_error(status: int, code: str, **fields: Any) -> Answer:
    return an_answer(status, error={"code": code, **fields})


ASK: Final = Ask("key-1", "/v1/captures", {"payment_id": PAYMENT}, 1)
DONE: Final = an_answer(201, payment_id=PAYMENT)


def broken(given: list[Answer], now: Answer | None) -> list[str]:
    return books.broken_answers([ASK], {ASK.key: given}, {ASK.key: now})


def test_an_answer_that_is_replayed_stands() -> None:
    replay = Answer(status=201, body=DONE.body, replayed=True, seconds=0.1)

    assert broken([an_answer(202, payment_id=PAYMENT), DONE], replay) == []
    assert broken([], DONE) == []
    assert broken([an_error(409, "operation_in_progress"), DONE], replay) == []


@pytest.mark.parametrize(
    "now",
    [
        None,
        an_answer(202, payment_id=PAYMENT),
        an_error(409, "request_in_progress"),
        DONE,  # executed now, for the first time as far as anyone there knows
        an_answer(201, replayed=True, payment_id="pay_2"),
        an_answer(402, replayed=True, error={"code": "x", "payment_id": PAYMENT}),
        an_error(409, "payment_voided"),
    ],
)
def test_an_answer_that_was_given_and_is_not_any_more_is_broken(now: Answer | None) -> None:
    assert len(broken([DONE], now)) == 1


def test_a_key_that_was_told_to_wait_was_promised_an_outcome_and_one_that_was_refused_was_not() -> (
    None
):
    refused = an_error(409, "order_already_paid")

    assert books.is_promised([refused, an_answer(202, payment_id=PAYMENT)])
    assert books.is_promised([an_error(402, "card_declined", payment_id=PAYMENT)])
    assert not books.is_promised([refused, an_error(503, "service_unavailable")])
    assert books.without_answer([ASK], {ASK.key: [an_error(503, "x")]}) == [ASK.key]
    assert books.without_answer([ASK], {ASK.key: [refused]}) == []


def test_a_refusal_has_to_be_true_of_the_payment_as_it_ends() -> None:
    answers = {ASK.key: [an_error(409, "payment_already_captured")]}

    assert books.untrue_refusals([ASK], answers, [a_receipt()]) == []
    assert len(books.untrue_refusals([ASK], answers, [a_receipt("voided")])) == 1


def test_an_answer_that_no_gateway_should_give_is_named() -> None:
    answers = {ASK.key: [DONE, an_error(500, "internal_server_error")]}

    assert books.unexpected(answers, {201}) == ["key-1: 500 internal_server_error"]

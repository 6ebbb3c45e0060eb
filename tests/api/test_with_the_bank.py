"""The API on the real driver, with the partner in a process of its own."""

import json
import time
from typing import Any

import pytest

from api.schemas import ReceiptOut, RefundOut
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    Api,
    Caller,
    an_api,
    an_authorization,
    brief,
    error_of,
    fresh,
    refusal,
    shaped,
)
from tests.builders import UNKNOWN_VISA
from tests.infrastructure.bank_simulator.a_bank import Bank

EIGHT_DAYS = 8 * 24 * 3600


@pytest.fixture
def merchant(api_over_the_wire: Api) -> Caller:
    return api_over_the_wire.merchant()


@pytest.fixture
def extended_merchant(extended_api_over_the_wire: Api, extended_simulator: Bank) -> Caller:
    extended_simulator.faults(reset=True)
    return extended_api_over_the_wire.merchant()


def entries_of(bank: Bank, payment_id: str) -> list[tuple[str, int]]:
    """What the bank's books have of a payment, as type and amount."""
    return [
        (entry["type"], entry["amount"])
        for entry in bank.ledger()["transactions"]
        if str(entry["idempotency_key"]).startswith(payment_id)
    ]


def test_a_payment_is_held_taken_and_given_back_once(merchant: Caller, simulator: Bank) -> None:
    payment_id = merchant.captured()["payment_id"]
    shaped(RefundOut, merchant.refund(payment_id), 201)

    receipt = merchant.receipt(payment_id)

    assert brief(receipt, "status", "amount_refunded") == ("refunded", 5000)
    done = {"AUTH_HOLD": 5000, "CAPTURE": 5000, "REFUND": 5000}
    assert dict(entries_of(simulator, payment_id)) == done
    assert len(entries_of(simulator, payment_id)) == 3


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (EMPTY_CARD, "insufficient_funds"),
        (GOOD_CARD | {"cvc": "999"}, "incorrect_cvc"),
        (GOOD_CARD | {"number": UNKNOWN_VISA}, "incorrect_number"),
    ],
)
def test_the_partners_declines_are_told_in_our_words(
    merchant: Caller, simulator: Bank, card: dict[str, Any], code: str
) -> None:
    error = error_of(merchant.authorize(card=card), 402)

    assert error["code"] == code
    assert entries_of(simulator, error["payment_id"]) == []


def test_a_bank_that_fails_once_is_asked_again_and_holds_once(
    merchant: Caller, simulator: Bank
) -> None:
    simulator.faults(fail_before=1)

    receipt = merchant.authorized()

    assert entries_of(simulator, receipt["payment_id"]) == [("AUTH_HOLD", 5000)]


def test_a_silent_bank_is_a_202_soon_and_its_hold_is_found_later(
    api_over_the_wire: Api, merchant: Caller, simulator: Bank
) -> None:
    simulator.faults(hang_after={"count": 1, "milliseconds": 4000}, forget=0.0)
    body, key = an_authorization(), fresh("key")

    began = time.monotonic()
    waiting = shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 202)
    took = time.monotonic() - began
    api_over_the_wire.worker_has_been_at_it(merchant)
    final = shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 201)

    assert took < 5
    assert brief(waiting, "status", "pending_operation") == ("pending", "authorization")
    assert brief(final, "status", "needs_review") == ("authorized", None)
    assert entries_of(simulator, final["payment_id"]) == [("AUTH_HOLD", 5000)]


def test_half_an_answer_is_no_outcome(merchant: Caller, simulator: Bank) -> None:
    simulator.faults(garble=1)

    receipt = shaped(ReceiptOut, merchant.authorize(), 202)

    assert brief(receipt, "status", "pending_operation") == ("pending", "authorization")


@pytest.mark.parametrize("fault", ["mismatch", "wrong_currency"])
def test_an_answer_of_something_else_is_not_believed(
    merchant: Caller, simulator: Bank, fault: str
) -> None:
    simulator.faults(**{fault: 1})

    receipt = merchant.receipt(json.loads(merchant.authorize().data)["payment_id"])

    (hold,) = entries_of(simulator, receipt["payment_id"])
    assert hold == ("AUTH_HOLD", 5000)
    known = {entry["id"] for entry in simulator.ledger()["transactions"]}
    assert receipt["bank"]["authorization_id"] in {None, *known}


def test_a_bank_that_is_not_there_is_a_202_and_no_decline(shared_database_url: str) -> None:
    with an_api(shared_database_url, BANK_URL="http://127.0.0.1:9") as api:
        merchant = api.merchant()

        began = time.monotonic()
        receipt = shaped(ReceiptOut, merchant.authorize(), 202)

    assert receipt["status"] == "pending"
    assert time.monotonic() - began < 10


def test_a_request_is_answered_by_its_deadline_however_long_the_bank_takes(
    shared_database_url: str, simulator: Bank
) -> None:
    simulator.faults(hang={"count": 10, "milliseconds": 6000})
    url = f"http://127.0.0.1:{simulator.port}"
    with an_api(shared_database_url, BANK_URL=url, REQUEST_DEADLINE_SECONDS="1") as api:
        merchant = api.merchant()

        began = time.monotonic()
        shaped(ReceiptOut, merchant.authorize(), 202)

    assert time.monotonic() - began < 4
    simulator.faults(reset=True)


def test_a_hold_that_ran_out_is_not_captured_and_may_be_voided(
    merchant: Caller, simulator: Bank
) -> None:
    payment_id = merchant.authorized()["payment_id"]
    simulator.faults(clock_offset_seconds=EIGHT_DAYS)

    response = merchant.capture(payment_id)

    expired = (409, "invalid_request_error", "authorization_expired", None)
    assert refusal(response) == expired
    assert merchant.receipt(payment_id)["status"] == "authorized"


def test_the_extended_bank_takes_parts_and_other_currencies(
    extended_merchant: Caller, extended_simulator: Bank
) -> None:
    payment_id = extended_merchant.authorized(currency="eur", amount=3000)["payment_id"]

    captured = shaped(ReceiptOut, extended_merchant.capture(payment_id, amount=2000), 201)
    parts = [
        shaped(RefundOut, extended_merchant.refund(payment_id, amount=amount), 201)["amount"]
        for amount in (500, 1500)
    ]

    assert brief(captured, "currency", "amount_captured") == ("EUR", 2000)
    assert parts == [500, 1500]
    assert extended_merchant.receipt(payment_id)["status"] == "refunded"
    assert sorted(entries_of(extended_simulator, payment_id)) == [
        ("AUTH_HOLD", 3000),
        ("CAPTURE", 2000),
        ("REFUND", 500),
        ("REFUND", 1500),
    ]


@pytest.mark.parametrize(
    ("token", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("tok_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
def test_the_extended_bank_declines_each_token_in_its_own_way(
    extended_merchant: Caller, token: str, code: str, decline_code: str | None
) -> None:
    error = error_of(extended_merchant.authorize(card=None, payment_method=token), 402)

    assert brief(error, "code", "decline_code") == (code, decline_code)

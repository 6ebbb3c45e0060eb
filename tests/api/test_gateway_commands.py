"""Authorize, capture, void, refund: what is answered, and what the bank is asked."""

from typing import Any

import pytest

from api.gateway.inputs import payment_uuid
from api.schemas import ReceiptOut, RefundOut
from domain.bank import Declined, Operation, Rejected
from domain.commands import Mode
from domain.payment import COMMANDS_BY_STATUS, Payment, Status
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    OLD_CARD,
    SMALL_CARD,
    Api,
    Caller,
    an_authorization,
    brief,
    error_of,
    fresh,
    json_of,
    refusal,
    shaped,
)
from tests.builders import UNKNOWN_VISA
from tests.fakes import FakeBank, Misfortune

INVALID = "invalid_request_error"
MISFORTUNE = Misfortune.FAILS


# --- the life of a payment ----------------------------------------------------------------------


def test_an_authorization_is_answered_with_its_receipt(merchant: Caller) -> None:
    body = an_authorization(order_id="ORD-1", metadata={"basket": "b-1", "n": 2, "vip": True})

    response = merchant.post("/v1/authorizations", body)
    receipt = shaped(ReceiptOut, response, 201)

    assert response.headers["Location"] == f"/v1/receipts/{receipt['payment_id']}"
    first, second = receipt["timeline"]
    assert receipt == {
        "object": "receipt",
        "payment_id": receipt["payment_id"],
        "order_id": "ORD-1",
        "customer_id": "cus_123",
        "amount": 5000,
        "currency": "USD",
        "status": "authorized",
        "amount_captured": 0,
        "amount_refunded": 0,
        "card": {"brand": "visa", "last4": "1111", "exp_month": 12, "exp_year": 2030},
        "bank": {
            "authorization_id": "auth_1",
            "capture_id": None,
            "void_id": None,
            "refund_ids": [],
        },
        "pending_operation": None,
        "needs_review": None,
        "failure": None,
        "authorization_expires_at": receipt["authorization_expires_at"],
        "timeline": [
            {"status": "pending", "at": first["at"]},
            {"status": "authorized", "at": second["at"]},
        ],
        "created_at": first["at"],
        "updated_at": second["at"],
        "version": 2,
        "metadata": {"basket": "b-1", "n": 2, "vip": True},
    }
    assert receipt["authorization_expires_at"].endswith("Z")


def test_a_capture_takes_all_of_the_hold(merchant: Caller, bank: FakeBank) -> None:
    payment_id = merchant.authorized()["payment_id"]

    response = merchant.capture(payment_id)
    receipt = shaped(ReceiptOut, response, 201)

    assert response.headers["Location"] == f"/v1/receipts/{payment_id}"
    assert brief(receipt, "status", "amount_captured", "version") == ("captured", 5000, 4)
    assert receipt["bank"]["capture_id"] in bank.captures
    assert [step["status"] for step in receipt["timeline"]] == ["pending", "authorized", "captured"]
    assert bank.captured_minor() == 5000


def test_a_void_releases_the_hold(merchant: Caller, bank: FakeBank) -> None:
    authorized = merchant.authorized()

    receipt = shaped(ReceiptOut, merchant.void(authorized["payment_id"]), 201)

    assert receipt["status"] == "voided"
    hold = bank.holds[authorized["bank"]["authorization_id"]]
    assert receipt["bank"]["void_id"] == hold.ended_by


def test_a_refund_gives_all_of_it_back(merchant: Caller, bank: FakeBank) -> None:
    payment_id = merchant.captured()["payment_id"]

    response = merchant.refund(payment_id, reason="duplicate", metadata={"case": "7"})
    refund = shaped(RefundOut, response, 201)

    assert response.headers["Location"] == f"/v1/refunds/{refund['id']}"
    assert refund == {
        "id": refund["id"],
        "object": "refund",
        "payment_id": payment_id,
        "charge": payment_id.replace("pay_", "ch_"),
        "payment_intent": None,
        "amount": 5000,
        "currency": "USD",
        "reason": "duplicate",
        "status": "succeeded",
        "created": refund["created"],
        "metadata": {"case": "7"},
    }
    assert refund["id"].startswith("rfnd_")
    receipt = merchant.receipt(payment_id)
    assert brief(receipt, "status", "amount_refunded") == ("refunded", 5000)
    assert len(receipt["bank"]["refund_ids"]) == 1
    assert bank.refunded_minor() == 5000


def test_the_currency_is_dollars_unless_it_is_given_and_may_be_in_lower_case(
    merchant: Caller,
) -> None:
    by_default = merchant.authorized(currency=None)
    in_lower_case = merchant.authorized(currency="usd")

    assert by_default["currency"] == in_lower_case["currency"] == "USD"


def test_a_form_is_taken_as_json_is(merchant: Caller) -> None:
    order_id = fresh("ORD")
    form = {
        "order_id": order_id,
        "customer_id": "cus_123",
        "amount": "5000",
        "currency": "usd",
        "card[number]": GOOD_CARD["number"],
        "card[exp_month]": "12",
        "card[exp_year]": "2030",
        "card[cvc]": "123",
        "metadata[basket]": "b 1",
    }

    response = merchant.post("/v1/authorizations", data=form)

    receipt = shaped(ReceiptOut, response, 201)
    assert brief(receipt, "order_id", "amount", "currency") == (order_id, 5000, "USD")
    assert receipt["metadata"] == {"basket": "b 1"}


# --- what is declined, and what is refused ------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        (EMPTY_CARD, "insufficient_funds", "insufficient_funds"),
        (GOOD_CARD | {"cvc": "999"}, "incorrect_cvc", None),
        (GOOD_CARD | {"number": UNKNOWN_VISA}, "incorrect_number", None),
    ],
    ids=["funds", "cvc", "number"],
)
def test_a_decline_is_a_402_that_names_a_payment_which_is_declined(
    merchant: Caller, card: dict[str, Any], code: str, decline_code: str | None
) -> None:
    response = merchant.authorize(card=card)

    error = error_of(response, 402)
    assert brief(error, "type", "code", "decline_code") == ("card_error", code, decline_code)
    receipt = merchant.receipt(error["payment_id"])
    assert receipt["status"] == "declined"
    assert brief(receipt["failure"], "operation", "code") == ("authorization", code)


@pytest.mark.parametrize(
    ("bank_code", "code", "decline_code"),
    [
        ("insufficient_funds", "insufficient_funds", "insufficient_funds"),
        ("invalid_cvv", "incorrect_cvc", None),
        ("card_expired", "expired_card", None),
        ("invalid_card", "incorrect_number", None),
        ("processing_error", "processing_error", None),
        ("card_declined", "card_declined", "generic_decline"),
        ("a_word_of_next_year", "card_declined", "generic_decline"),
    ],
)
def test_the_words_of_the_bank_are_told_in_ours(
    merchant: Caller, bank: FakeBank, bank_code: str, code: str, decline_code: str | None
) -> None:
    bank.will_answer(Declined(code=bank_code))

    error = error_of(merchant.authorize(), 402)

    assert brief(error, "code", "decline_code") == (code, decline_code)


@pytest.mark.parametrize(
    ("card", "code", "param"),
    [
        (GOOD_CARD | {"number": "4111111111111112"}, "incorrect_number", "card[number]"),
        (OLD_CARD, "expired_card", "card[exp_year]"),
    ],
    ids=["luhn", "expired"],
)
def test_what_needs_no_bank_to_tell_is_a_402_without_a_payment(
    api: Api, merchant: Caller, card: dict[str, Any], code: str, param: str
) -> None:
    before = api.behind()

    response = merchant.authorize(card=card)

    assert refusal(response) == (402, "card_error", code, param)
    assert "payment_id" not in error_of(response, 402)
    assert api.behind() == before


def test_an_order_with_a_live_payment_takes_no_other(merchant: Caller, bank: FakeBank) -> None:
    order_id = merchant.authorized()["order_id"]

    while_authorized = merchant.authorize(order_id=order_id)
    payment_id = json_of(merchant.get(f"/v1/orders/{order_id}"))["payment_id"]
    merchant.capture(payment_id)
    while_captured = merchant.authorize(order_id=order_id)

    conflict = (409, INVALID, "order_already_paid", "order_id")
    assert refusal(while_authorized) == refusal(while_captured) == conflict
    assert len(bank.requests) == 2


@pytest.mark.parametrize("end", ["declined", "voided", "refunded"])
def test_an_order_whose_payment_has_ended_may_be_tried_again(merchant: Caller, end: str) -> None:
    order_id = getattr(merchant, end)()["order_id"]

    receipt = merchant.authorized(order_id=order_id, card=SMALL_CARD)

    assert receipt["status"] == "authorized"


def test_two_merchants_may_have_orders_of_one_name(api: Api) -> None:
    order_id = fresh("ORD")

    for merchant in (api.merchant(), api.merchant()):
        assert merchant.authorized(order_id=order_id)["order_id"] == order_id


# --- which command in which state ---------------------------------------------------------------


def a_payment_that_is(status: Status, merchant: Caller, bank: FakeBank, api: Api) -> str:
    """A payment in `status`, by way of the API where there is one."""
    match status:
        case Status.PENDING:
            bank.will_suffer(*[MISFORTUNE] * 4)
            receipt = shaped(ReceiptOut, merchant.authorize(), 202)
        case Status.EXPIRED:
            receipt = merchant.authorized()
            expire(api, merchant, receipt["payment_id"])
        case _:
            receipt = getattr(merchant, status.value)()
    payment_id: str = receipt["payment_id"]
    return payment_id


def expire(api: Api, merchant: Caller, payment_id: str) -> None:
    """What the sweep does to a hold that has run out."""
    assert merchant.record is not None
    ledger = api.services.ledger
    payment = ledger.payment(payment_uuid(payment_id), merchant.record.tenant)
    now = api.services.clock.now()
    payment.trigger_event(Payment.VoidRequested, on_expiry=True, timestamp=now)
    payment.trigger_event(Payment.Expired, bank_void_id="void_9", timestamp=now)
    ledger.save(payment, history=payment.history)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_a_command_that_the_state_does_not_allow_is_a_409_and_asks_the_bank_nothing(
    api: Api, merchant: Caller, bank: FakeBank, operation: Operation, status: Status
) -> None:
    payment_id = a_payment_that_is(status, merchant, bank, api)
    before, asked = api.behind(), len(bank.requests)

    response = getattr(merchant, operation.value)(payment_id)

    code = COMMANDS_BY_STATUS[operation][status]
    if not code:
        assert response.status_code == 201
        return
    assert refusal(response) == (409, INVALID, code, None)
    assert api.behind() == before
    assert len(bank.requests) == asked


@pytest.mark.parametrize("first", ["capture", "void", "refund"])
@pytest.mark.parametrize("second", ["capture", "void", "refund"])
def test_a_command_beside_one_that_is_running_is_refused(
    api: Api, merchant: Caller, bank: FakeBank, first: str, second: str
) -> None:
    receipt = merchant.captured() if first == "refund" else merchant.authorized()
    bank.will_suffer(*[MISFORTUNE] * 4)
    assert getattr(merchant, first)(receipt["payment_id"]).status_code == 202
    before, asked = api.behind(), len(bank.requests)

    response = getattr(merchant, second)(receipt["payment_id"])

    assert refusal(response) == (409, INVALID, "operation_in_progress", None)
    assert api.behind() == before
    assert len(bank.requests) == asked


# --- amounts and currencies ---------------------------------------------------------------------


def test_a_bank_of_full_amounts_is_not_asked_for_parts(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    authorized, captured = merchant.authorized(), merchant.captured()
    before, asked = api.behind(), len(bank.requests)

    part_of_hold = merchant.capture(authorized["payment_id"], amount=4999)
    part_of_capture = merchant.refund(captured["payment_id"], amount=1)

    refused = (400, INVALID, "partial_amount_unsupported", "amount")
    assert refusal(part_of_hold) == refusal(part_of_capture) == refused
    assert api.behind() == before
    assert len(bank.requests) == asked


@pytest.mark.parametrize("kind", ["merchant", "extended_merchant"])
def test_more_than_the_hold_is_not_captured(kind: str, request: pytest.FixtureRequest) -> None:
    merchant: Caller = request.getfixturevalue(kind)
    payment_id = merchant.authorized()["payment_id"]

    response = merchant.capture(payment_id, amount=5001)

    assert refusal(response) == (400, INVALID, "amount_too_large", "amount")


@pytest.mark.parametrize("kind", ["merchant", "extended_merchant"])
def test_more_than_was_captured_is_not_given_back(
    kind: str, request: pytest.FixtureRequest
) -> None:
    merchant: Caller = request.getfixturevalue(kind)
    payment_id = merchant.captured()["payment_id"]

    response = merchant.refund(payment_id, amount=5001)

    assert refusal(response) == (409, INVALID, "refund_exceeds_payment", "amount")


def test_the_full_amount_may_be_said(merchant: Caller) -> None:
    payment_id = merchant.authorized()["payment_id"]

    captured = shaped(ReceiptOut, merchant.capture(payment_id, amount=5000), 201)
    refund = shaped(RefundOut, merchant.refund(payment_id, amount=5000), 201)

    assert captured["amount_captured"] == refund["amount"] == 5000


def test_parts_are_captured_and_given_back_where_the_bank_can(extended_merchant: Caller) -> None:
    payment_id = extended_merchant.authorized()["payment_id"]

    captured = shaped(ReceiptOut, extended_merchant.capture(payment_id, amount=4000), 201)
    first = shaped(RefundOut, extended_merchant.refund(payment_id, amount=1500), 201)
    between = extended_merchant.receipt(payment_id)
    too_much = extended_merchant.refund(payment_id, amount=2501)
    rest = shaped(RefundOut, extended_merchant.refund(payment_id), 201)

    assert captured["amount_captured"] == 4000
    assert (first["amount"], rest["amount"]) == (1500, 2500)
    assert brief(between, "status", "amount_refunded") == ("captured", 1500)
    assert refusal(too_much) == (409, INVALID, "refund_exceeds_payment", "amount")
    after = extended_merchant.receipt(payment_id)
    assert brief(after, "status", "amount_refunded") == ("refunded", 4000)
    assert len(after["bank"]["refund_ids"]) == 2


def test_another_currency_than_the_bank_takes_is_refused_before_any_effect(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    before = api.behind()

    response = merchant.authorize(currency="EUR")

    assert refusal(response) == (400, INVALID, "currency_unsupported", "currency")
    assert api.behind() == before
    assert bank.requests == []


@pytest.mark.parametrize("currency", ["EUR", "jpy", "KWD"])
def test_minor_units_are_minor_units_in_every_currency(
    extended_merchant: Caller, extended_bank: FakeBank, currency: str
) -> None:
    receipt = extended_merchant.authorized(currency=currency, amount=1)

    assert brief(receipt, "amount", "currency") == (1, currency.upper())
    assert extended_bank.requests[-1].money.amount_minor == 1


def test_the_largest_amount_is_taken(extended_merchant: Caller, extended_bank: FakeBank) -> None:
    extended_bank.deposit(str(GOOD_CARD["number"]), 99_999_999)

    assert extended_merchant.authorized(amount=99_999_999)["amount"] == 99_999_999


# --- cards by name ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", ["pm_fake_visa", "pm_card_visa", "tok_visa_4242", "tok_apple_1234"]
)
def test_a_test_token_stands_for_a_card(merchant: Caller, bank: FakeBank, token: str) -> None:
    receipt = merchant.authorized(card=None, payment_method=token)

    assert receipt["card"] == {
        "brand": "visa",
        "last4": "4242",
        "exp_month": 6,
        "exp_year": 2030,
    }
    assert bank.requests[-1].card is not None
    assert bank.requests[-1].card.cvc == "456"


@pytest.mark.parametrize("token", ["pm_card_chargeDeclined", "tok_chargeDeclinedExpiredCard"])
def test_a_token_of_a_decline_is_declined_by_the_partner(merchant: Caller, token: str) -> None:
    error = error_of(merchant.authorize(card=None, payment_method=token), 402)

    assert error["code"] == "insufficient_funds"
    assert merchant.receipt(error["payment_id"])["card"]["last4"] == "4444"


@pytest.mark.parametrize("token", ["pm_unknown", "tok_", "tok_apple_", "4242", "pay_1", ""])
def test_an_unknown_method_is_a_404(merchant: Caller, token: str) -> None:
    response = merchant.authorize(card=None, payment_method=token)

    missing = (404, "resource_missing", "payment_method_not_found", "payment_method")
    assert refusal(response) == missing


def test_a_test_token_is_unknown_to_a_live_key(api: Api) -> None:
    live = api.merchant(mode=Mode.LIVE)

    response = live.authorize(card=None, payment_method="pm_card_visa")

    missing = (404, "resource_missing", "payment_method_not_found", "payment_method")
    assert refusal(response) == missing


def test_a_card_and_a_method_are_one_too_many(merchant: Caller) -> None:
    response = merchant.authorize(payment_method="pm_card_visa")

    assert refusal(response) == (400, INVALID, "invalid_param", "payment_method")


def test_neither_a_card_nor_a_method_is_too_little(merchant: Caller) -> None:
    assert refusal(merchant.authorize(card=None)) == (400, INVALID, "missing_param", "card")


# --- what the bank makes of it ------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation", [each for each in Operation if each is not Operation.TRANSFER]
)
def test_a_request_that_the_bank_calls_malformed_is_a_502_and_gains_no_state(
    merchant: Caller, bank: FakeBank, operation: Operation
) -> None:
    begin = {Operation.REFUND: merchant.captured}.get(operation, merchant.authorized)
    before = None if operation is Operation.AUTHORIZATION else begin()
    bank.will_answer(Rejected(reason="invalid_amount"))

    if before is None:
        response = merchant.authorize()
    else:
        response = getattr(merchant, operation.value)(before["payment_id"])

    error = error_of(response, 502)
    assert brief(error, "type", "code") == ("api_error", "bank_protocol_error")
    receipt = merchant.receipt(error["payment_id"])
    assert receipt["status"] == ("declined" if before is None else before["status"])
    failure = (operation.value, "bank_protocol_error")
    assert brief(receipt["failure"], "operation", "code") == failure
    assert receipt["pending_operation"] is None
    assert receipt["bank"]["capture_id"] == (before and before["bank"]["capture_id"])


def test_a_capture_after_the_hold_ran_out_is_authorization_expired(
    merchant: Caller, bank: FakeBank
) -> None:
    payment_id = merchant.authorized()["payment_id"]
    bank.will_answer(Declined(code="authorization_expired"))

    response = merchant.capture(payment_id)

    assert refusal(response) == (409, INVALID, "authorization_expired", None)
    receipt = merchant.receipt(payment_id)
    assert brief(receipt, "status", "needs_review") == ("authorized", None)
    assert shaped(ReceiptOut, merchant.void(payment_id), 201)["status"] == "voided"


def test_a_capture_that_the_bank_refuses_for_good_needs_review(
    merchant: Caller, bank: FakeBank
) -> None:
    receipt = merchant.authorized()
    bank.holds[receipt["bank"]["authorization_id"]].ended_by = "somebody else"

    response = merchant.capture(receipt["payment_id"])

    assert refusal(response) == (409, INVALID, "capture_refused", None)
    after = merchant.receipt(receipt["payment_id"])
    assert after["status"] == "authorized"
    assert after["needs_review"]["reason"] == "bank_disagrees"
    assert after["needs_review"]["since"].endswith("Z")


def test_a_refund_that_the_bank_refuses_for_good_has_failed(
    merchant: Caller, bank: FakeBank
) -> None:
    payment_id = merchant.captured()["payment_id"]
    bank.will_answer(Declined(code="refund_exceeds_capture"))

    refund = shaped(RefundOut, merchant.refund(payment_id), 201)

    assert refund["status"] == "failed"
    receipt = merchant.receipt(payment_id)
    assert brief(receipt, "status", "amount_refunded") == ("captured", 0)

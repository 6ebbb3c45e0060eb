"""The bank fails, or is silent: a 202 now, the truth later, and never a second effect."""

from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.schemas import ReceiptOut, RefundOut
from domain.bank import Declined, Operation
from tests.api.an_api import (
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
from tests.fakes import FakeBank, Misfortune

FAILURES = [Misfortune.FAILS] * 4
COMMANDS = [Operation.CAPTURE, Operation.VOID, Operation.REFUND]

Ask = Callable[[], TestResponse]


def about_to(merchant: Caller, operation: Operation) -> tuple[dict[str, Any] | None, Ask]:
    """The receipt before `operation`, and the request for it, always under one key."""
    key = fresh("key")
    if operation is Operation.AUTHORIZATION:
        body = an_authorization()
        return None, lambda: merchant.post("/v1/authorizations", body, key=key)
    before = merchant.captured() if operation is Operation.REFUND else merchant.authorized()
    fields = {"payment_id": before["payment_id"]}
    return before, lambda: merchant.post(f"/v1/{operation}s", fields, key=key)


@pytest.mark.parametrize("misfortunes", [FAILURES, [Misfortune.SILENT_BEFORE]])
@pytest.mark.parametrize("operation", [Operation.AUTHORIZATION, Operation.CAPTURE, Operation.VOID])
def test_without_an_outcome_in_time_the_answer_is_a_202_with_the_last_certain_state(
    merchant: Caller, bank: FakeBank, operation: Operation, misfortunes: list[Misfortune]
) -> None:
    before, ask = about_to(merchant, operation)
    bank.will_suffer(*misfortunes)

    response = ask()

    receipt = shaped(ReceiptOut, response, 202)
    assert receipt["status"] == ("pending" if before is None else before["status"])
    assert receipt["pending_operation"] == operation
    assert response.headers["Location"] == f"/v1/receipts/{receipt['payment_id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert merchant.receipt(receipt["payment_id"]) == receipt


@pytest.mark.parametrize("misfortunes", [FAILURES, [Misfortune.SILENT_BEFORE]])
def test_a_refund_without_an_outcome_is_a_pending_refund(
    merchant: Caller, bank: FakeBank, misfortunes: list[Misfortune]
) -> None:
    before, ask = about_to(merchant, Operation.REFUND)
    bank.will_suffer(*misfortunes)

    response = ask()

    refund = shaped(RefundOut, response, 202)
    assert refund["status"] == "pending"
    assert response.headers["Location"] == f"/v1/refunds/{refund['id']}"
    assert int(response.headers["Retry-After"]) > 0
    assert shaped(RefundOut, merchant.get(response.headers["Location"]), 200) == refund
    assert before is not None
    receipt = merchant.receipt(before["payment_id"])
    assert brief(receipt, "status", "pending_operation") == ("captured", "refund")


@pytest.mark.parametrize("operation", [*COMMANDS, Operation.AUTHORIZATION])
def test_the_same_key_gets_a_202_while_there_is_none_and_then_the_outcome_for_ever(
    api: Api, merchant: Caller, bank: FakeBank, operation: Operation
) -> None:
    _, ask = about_to(merchant, operation)
    bank.will_suffer(*FAILURES)

    first, again = ask(), ask()
    api.worker_has_been_at_it(merchant)
    final, repeated = ask(), ask()

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.data == again.data
    assert again.headers["Retry-After"] == first.headers["Retry-After"]
    assert final.status_code == repeated.status_code == 201, final.text
    assert final.data == repeated.data
    assert final.headers["Idempotent-Replayed"] == "true"
    assert final.headers["Location"] == first.headers["Location"]
    assert len({request.key for request in bank.requests[-2:]}) == 1


def test_a_decline_that_comes_late_is_what_the_same_key_gets(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    body, key = an_authorization(), fresh("key")
    bank.will_suffer(*FAILURES)
    waiting = shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 202)
    bank.will_answer(Declined(code="insufficient_funds"))

    api.worker_has_been_at_it(merchant)
    response = merchant.post("/v1/authorizations", body, key=key)

    error = error_of(response, 402)
    assert brief(error, "code", "payment_id") == ("insufficient_funds", waiting["payment_id"])
    assert response.headers["Idempotent-Replayed"] == "true"
    assert merchant.receipt(waiting["payment_id"])["status"] == "declined"
    assert merchant.authorized(order_id=body["order_id"])["status"] == "authorized"


@pytest.mark.parametrize("operation", [*COMMANDS, Operation.AUTHORIZATION])
def test_what_was_done_in_silence_is_found_and_not_done_again(
    api: Api, merchant: Caller, bank: FakeBank, operation: Operation
) -> None:
    before, ask = about_to(merchant, operation)
    bank.will_suffer(Misfortune.SILENT_AFTER)
    assert ask().status_code == 202

    api.worker_has_been_at_it(merchant)
    final = ask()

    assert final.status_code == 201, final.text
    payment_id = json_of(final)["payment_id"]
    receipt = merchant.receipt(payment_id)
    assert brief(receipt, "pending_operation", "needs_review") == (None, None)
    assert before is None or before["status"] != receipt["status"]
    assert bank.done[bank.requests[-1].key] == 1


@pytest.mark.parametrize(
    ("operation", "status", "reason"),
    [
        (Operation.AUTHORIZATION, "authorized", "possible_orphan_hold"),
        (Operation.CAPTURE, "captured", "capture_id_unknown"),
        (Operation.VOID, "voided", None),
        (Operation.REFUND, "refunded", "refund_id_unknown"),
    ],
)
def test_what_the_bank_did_and_forgot_is_told_to_a_person(
    api: Api,
    merchant: Caller,
    bank: FakeBank,
    *,
    operation: Operation,
    status: str,
    reason: str | None,
) -> None:
    _, ask = about_to(merchant, operation)
    bank.will_suffer(Misfortune.FORGETS)
    assert ask().status_code == 202

    api.worker_has_been_at_it(merchant)
    final = ask()

    assert final.status_code == 201, final.text
    receipt = merchant.receipt(json_of(final)["payment_id"])
    assert receipt["status"] == status
    review = receipt["needs_review"]
    assert (review and review["reason"]) == reason


def test_a_capture_without_an_id_is_not_refunded(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    before, ask = about_to(merchant, Operation.CAPTURE)
    bank.will_suffer(Misfortune.FORGETS)
    ask()
    api.worker_has_been_at_it(merchant)
    assert before is not None

    response = merchant.refund(before["payment_id"])

    assert refusal(response) == (409, "invalid_request_error", "capture_id_unknown", None)


def test_a_worker_that_does_not_get_an_answer_leaves_it_pending(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    _, ask = about_to(merchant, Operation.AUTHORIZATION)
    bank.will_suffer(*FAILURES, *FAILURES)
    ask()

    api.worker_has_been_at_it(merchant)

    assert shaped(ReceiptOut, ask(), 202)["status"] == "pending"


def test_an_order_whose_payment_is_pending_takes_no_other(merchant: Caller, bank: FakeBank) -> None:
    bank.will_suffer(*FAILURES)
    order_id = shaped(ReceiptOut, merchant.authorize(), 202)["order_id"]

    response = merchant.authorize(order_id=order_id)

    conflict = (409, "invalid_request_error", "order_already_paid", "order_id")
    assert refusal(response) == conflict

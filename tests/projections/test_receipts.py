"""What a receipt says in each of the lives that a payment can have."""

from datetime import timedelta
from typing import Any

import pytest

from domain.bank import AlreadyDone, Declined
from domain.ids import Prefix, encode
from domain.payment import Payment, Status, rfc3339
from projections.receipts import fold
from tests.builders import NOON, Story, a_payment, a_payment_that_is, an_approval

ALREADY = AlreadyDone(code="authorization_already_used", after_attempts=0)


def receipt_of(story: Story) -> dict[str, Any]:
    return fold(story.payment.history)


def at(seconds: int) -> str:
    return rfc3339(NOON + timedelta(seconds=seconds))


def timeline(receipt: dict[str, Any]) -> list[str]:
    return [step["status"] for step in receipt["timeline"]]


def test_a_new_payments_receipt_says_what_was_asked() -> None:
    payment = a_payment(metadata={"gift": True})

    assert fold(payment.history) == {
        "payment_id": encode(Prefix.PAYMENT, payment.id),
        "order_id": "ORD-1001",
        "customer_id": "cus_123",
        "amount": 5000,
        "currency": "USD",
        "status": "pending",
        "amount_captured": 0,
        "amount_refunded": 0,
        "card": {"brand": "visa", "last4": "1111", "exp_month": 12, "exp_year": 2030},
        "bank": {"authorization_id": None, "capture_id": None, "void_id": None, "refund_ids": []},
        "pending_operation": "authorization",
        "pending_amount": 5000,
        "reviews": [],
        "failure": None,
        "authorization_expires_at": None,
        "timeline": [{"status": "pending", "at": at(0)}],
        "created_at": at(0),
        "updated_at": at(0),
        "version": 1,
        "metadata": {"gift": True},
    }


@pytest.mark.parametrize(
    ("status", "steps"),
    [
        (Status.PENDING, ["pending"]),
        (Status.AUTHORIZED, ["pending", "authorized"]),
        (Status.CAPTURED, ["pending", "authorized", "captured"]),
        (Status.REFUNDED, ["pending", "authorized", "captured", "refunded"]),
        (Status.VOIDED, ["pending", "authorized", "voided"]),
        (Status.DECLINED, ["pending", "declined"]),
        (Status.EXPIRED, ["pending", "authorized", "expired"]),
    ],
)
def test_the_timeline_is_every_status_that_was_certain(status: Status, steps: list[str]) -> None:
    receipt = fold(a_payment_that_is(status).history)

    assert receipt["status"] == status
    assert timeline(receipt) == steps
    assert receipt["timeline"][-1]["at"] == receipt["updated_at"]


def test_a_whole_life_leaves_the_banks_ids_and_the_amounts() -> None:
    receipt = receipt_of(Story().authorized().captured(4000).refunded(1500).refunded())

    assert receipt["bank"] == {
        "authorization_id": "auth_1",
        "capture_id": "cap_1",
        "void_id": None,
        "refund_ids": ["ref_4", "ref_6"],
    }
    assert (receipt["amount_captured"], receipt["amount_refunded"]) == (4000, 4000)
    assert receipt["authorization_expires_at"] == rfc3339(NOON + timedelta(days=7))


@pytest.mark.parametrize(
    ("story", "operation", "status"),
    [
        (Story(), "authorization", "pending"),
        (Story().authorized().asked_to_capture(), "capture", "authorized"),
        (Story().authorized().asked_to_void(), "void", "authorized"),
        (Story().authorized().asked_to_release(), "void", "authorized"),
        (Story().authorized().captured().asked_to_refund(10), "refund", "captured"),
    ],
    ids=["authorization", "capture", "void", "release", "refund"],
)
def test_a_pending_operation_is_said_beside_the_last_certain_status(
    story: Story, operation: str, status: str
) -> None:
    receipt = receipt_of(story)

    assert (receipt["pending_operation"], receipt["status"]) == (operation, status)


@pytest.mark.parametrize("status", [status for status in Status if status != Status.PENDING])
def test_nothing_is_pending_once_it_is_settled(status: Status) -> None:
    receipt = fold(a_payment_that_is(status).history)

    assert (receipt["pending_operation"], receipt["pending_amount"]) == (None, None)


@pytest.mark.parametrize(
    ("story", "operation"),
    [
        (Story().declined("invalid_cvv"), "authorization"),
        (Story().authorized().asked_to_capture().declined("invalid_cvv"), "capture"),
        (Story().authorized().asked_to_void().declined("invalid_cvv"), "void"),
        (Story().authorized().captured().asked_to_refund().declined("invalid_cvv"), "refund"),
    ],
    ids=["authorization", "capture", "void", "refund"],
)
def test_a_failure_is_said_with_its_operation_and_the_banks_word(
    story: Story, operation: str
) -> None:
    failure = receipt_of(story)["failure"]

    assert (failure["operation"], failure["code"]) == (operation, "invalid_cvv")


def test_a_failure_is_forgotten_once_it_was_made_good() -> None:
    story = Story().authorized().asked_to_capture().declined("authorization_expired")

    assert receipt_of(story.captured())["failure"] is None


def test_what_the_bank_did_and_forgot_counts_without_its_id() -> None:
    story = Story().authorized().asked_to_capture().answered(ALREADY, attempts=1)

    receipt = receipt_of(story)

    assert (receipt["status"], receipt["amount_captured"]) == ("captured", 5000)
    assert receipt["bank"]["capture_id"] is None
    assert [review["reason"] for review in receipt["reviews"]] == ["capture_id_unknown"]


def test_a_forgotten_refund_counts_without_its_id() -> None:
    story = Story().authorized().captured().asked_to_refund().answered(ALREADY, attempts=1)

    receipt = receipt_of(story)

    assert (receipt["status"], receipt["amount_refunded"]) == ("refunded", 5000)
    assert receipt["bank"]["refund_ids"] == []


def test_every_review_is_said_with_its_time() -> None:
    story = Story().answered(an_approval(), attempts=1, unanswered=True)
    story.asked_to_capture().answered(Declined(code="something_new"))

    receipt = receipt_of(story)

    assert receipt["reviews"] == [
        {"reason": "possible_orphan_hold", "since": at(1)},
        {"reason": "bank_disagrees", "since": at(3)},
    ]
    assert receipt["status"] == "authorized"


def test_a_receipt_is_of_the_version_of_its_last_event() -> None:
    history = Story().authorized().captured().payment.history

    versions = [fold(history[:end])["version"] for end in (1, 2, 3, 4)]

    assert versions == [1, 2, 3, 4]


def test_a_receipt_of_part_of_a_history_is_how_it_stood_then() -> None:
    history = Story().authorized().captured().refunded().payment.history

    statuses = [fold(history[:end])["status"] for end in range(1, 7)]

    assert statuses == ["pending", "authorized", "authorized", "captured", "captured", "refunded"]


def test_an_event_that_receipts_do_not_know_is_a_bug() -> None:
    payment = a_payment()
    unknown = Payment.Event(originator_id=payment.id, originator_version=2, timestamp=NOON)

    with pytest.raises(AssertionError):
        fold([*payment.history, unknown])

"""What is said of each refund, and by which ids it is found."""

import pytest

from domain.bank import AlreadyDone
from domain.ids import MalformedId, Prefix, encode
from projections.refunds import fold, uuid_of
from tests.builders import Story, an_approval, an_id


def test_a_payment_that_was_never_refunded_has_none() -> None:
    assert fold(Story().authorized().captured().payment.history) == []


def test_a_refund_says_what_was_asked_and_what_became_of_it() -> None:
    refund_id = encode(Prefix.REFUND, an_id(5))
    story = Story().authorized().captured()
    story.asked_to_refund(1200, refund_id=refund_id, reason="duplicate", metadata={"n": 1})

    (pending,) = fold(story.payment.history)
    (succeeded,) = fold(story.answered(an_approval("ref_1")).payment.history)

    assert pending["status"] == "pending"
    assert succeeded == pending | {
        "status": "succeeded",
        "bank_refund_id": "ref_1",
        "updated_at": succeeded["updated_at"],
        "version": 6,
    }
    assert (pending["id"], pending["amount"], pending["currency"]) == (refund_id, 1200, "USD")
    assert (pending["reason"], pending["metadata"]) == ("duplicate", {"n": 1})
    assert pending["payment_id"] == encode(Prefix.PAYMENT, story.payment.id)
    assert succeeded["updated_at"] > succeeded["created_at"]


def test_a_refused_refund_has_failed_by_the_banks_word() -> None:
    story = Story().authorized().captured().asked_to_refund().declined("refund_exceeds_capture")

    (failed,) = fold(story.payment.history)

    assert (failed["status"], failed["failure_code"]) == ("failed", "refund_exceeds_capture")


def test_a_refund_that_the_bank_did_and_forgot_succeeded_without_its_id() -> None:
    already = AlreadyDone(code="already_refunded", after_attempts=0)
    story = Story().authorized().captured().asked_to_refund().answered(already, attempts=1)

    (forgotten,) = fold(story.payment.history)

    assert (forgotten["status"], forgotten["bank_refund_id"]) == ("succeeded", None)


def test_refunds_are_told_in_the_order_in_which_they_were_asked() -> None:
    story = Story().authorized().captured().refunded(1).asked_to_refund(2).declined()
    story.refunded(3).asked_to_refund(4)

    refunds = fold(story.payment.history)

    assert [(refund["amount"], refund["status"]) for refund in refunds] == [
        (1, "succeeded"),
        (2, "failed"),
        (3, "succeeded"),
        (4, "pending"),
    ]


def test_either_spelling_finds_the_refund() -> None:
    refund_id = an_id()

    assert uuid_of(encode(Prefix.REFUND, refund_id)) == refund_id
    assert uuid_of(encode(Prefix.CHARGE_REFUND, refund_id)) == refund_id


@pytest.mark.parametrize("text", ["", "re_", "rfnd_1", "pay_" + "0" * 26, "rfnd_8" + "0" * 25])
def test_what_names_no_refund_is_malformed(text: str) -> None:
    with pytest.raises(MalformedId):
        uuid_of(text)

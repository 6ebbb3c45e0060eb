"""What each answer of the bank makes of each operation."""

from copy import deepcopy
from datetime import timedelta

import pytest

from domain.bank import AlreadyDone, Approved, Contradicted, Declined, Outcome, Rejected
from domain.payment import Payment, ReviewReason, Status, rfc3339
from tests.builders import NOON, Story, an_approval

ALREADY = AlreadyDone(code="authorization_already_used", after_attempts=0)
ALREADY_AFTER_A_TRY = AlreadyDone(code="authorization_already_used", after_attempts=1)
REJECTED = Rejected(reason="invalid_amount")
CONTRADICTED = Contradicted(reason="HTTP 400 authorization_not_found")


def last(payment: Payment) -> Payment.Event:
    """The event that the answer made, not counting reviews."""
    return next(e for e in reversed(payment.history) if not isinstance(e, Payment.ReviewNeeded))


def reviews(payment: Payment) -> list[ReviewReason]:
    return list(payment.reviews)


# --- authorization ---


def test_an_approved_authorization_holds_the_money_until_it_expires() -> None:
    expires_at = NOON + timedelta(days=7)

    payment = Story().answered(an_approval("auth_9", expires_at=expires_at)).payment

    assert payment.status == Status.AUTHORIZED
    assert payment.authorization_id == "auth_9"
    assert payment.authorization_expires_at == rfc3339(expires_at)
    assert payment.running is None
    assert reviews(payment) == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Declined(code="insufficient_funds"), "insufficient_funds"),
        (Declined(code="invalid_cvv"), "invalid_cvv"),
        (REJECTED, "bank_protocol_error"),
        (ALREADY, "authorization_already_used"),
    ],
)
def test_any_other_answer_to_an_authorization_is_a_decline(answer: Outcome, code: str) -> None:
    payment = Story().answered(answer).payment

    declined = last(payment)
    assert isinstance(declined, Payment.AuthorizationDeclined)
    assert declined.code == code
    assert payment.status == Status.DECLINED
    assert payment.authorization_id is None


@pytest.mark.parametrize(
    "answer",
    [an_approval("auth_2"), Declined(code="insufficient_funds"), REJECTED, ALREADY],
    ids=["approved", "declined", "rejected", "already"],
)
def test_a_hold_may_be_orphaned_when_silence_was_followed_by_an_answer_of_its_own(
    answer: Outcome,
) -> None:
    payment = Story().answered(answer, attempts=1, unanswered=True).payment

    assert reviews(payment) == [ReviewReason.POSSIBLE_ORPHAN_HOLD]
    assert payment.status == (
        Status.AUTHORIZED if isinstance(answer, Approved) else Status.DECLINED
    )


def test_no_hold_is_orphaned_when_the_answer_after_silence_is_a_replay() -> None:
    replay = an_approval("auth_1", replayed=True)

    payment = Story().answered(replay, attempts=1, unanswered=True).payment

    assert payment.status == Status.AUTHORIZED
    assert reviews(payment) == []


@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("attempts", [0, 1, 5])
def test_no_hold_is_orphaned_by_failures_that_were_received(attempts: int, replayed: bool) -> None:
    answer = an_approval("auth_1", replayed=replayed)

    payment = Story().answered(answer, attempts=attempts, unanswered=False).payment

    assert reviews(payment) == []


# --- capture ---


def test_an_approved_capture_takes_what_was_asked() -> None:
    payment = Story().authorized().asked_to_capture(1200).answered(an_approval("cap_9")).payment

    assert payment.status == Status.CAPTURED
    assert (payment.capture_id, payment.captured_minor) == ("cap_9", 1200)
    assert payment.running is None


@pytest.mark.parametrize(
    ("answer", "attempts"), [(ALREADY, 1), (ALREADY_AFTER_A_TRY, 0), (ALREADY, 3)]
)
def test_a_capture_already_done_after_a_try_of_ours_is_ours_with_an_unknown_id(
    answer: Outcome, attempts: int
) -> None:
    payment = Story().authorized().asked_to_capture().answered(answer, attempts=attempts).payment

    assert payment.status == Status.CAPTURED
    assert (payment.capture_id, payment.captured_minor) == (None, 5000)
    assert reviews(payment) == [ReviewReason.CAPTURE_ID_UNKNOWN]


def test_a_capture_already_done_that_we_never_tried_is_a_disagreement() -> None:
    payment = Story().authorized().asked_to_capture().answered(ALREADY).payment

    assert payment.status == Status.AUTHORIZED
    assert payment.captured_minor == 0
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


@pytest.mark.parametrize(
    ("answer", "code", "review"),
    [
        (Declined(code="authorization_expired"), "authorization_expired", []),
        (Declined(code="something_new"), "something_new", [ReviewReason.BANK_DISAGREES]),
        (REJECTED, "bank_protocol_error", []),
    ],
)
def test_a_refused_capture_leaves_the_hold(
    answer: Outcome, code: str, review: list[ReviewReason]
) -> None:
    payment = Story().authorized().asked_to_capture().answered(answer).payment

    declined = last(payment)
    assert isinstance(declined, Payment.CaptureDeclined)
    assert declined.code == code
    assert (payment.status, payment.running) == (Status.AUTHORIZED, None)
    assert reviews(payment) == review


# --- void ---


def test_an_approved_void_releases_the_hold() -> None:
    payment = Story().authorized().asked_to_void().answered(an_approval("void_9")).payment

    voided = last(payment)
    assert isinstance(voided, Payment.Voided)
    assert voided.bank_void_id == "void_9"
    assert (payment.status, payment.running) == (Status.VOIDED, None)


def test_a_release_on_expiry_makes_the_payment_expired() -> None:
    payment = Story().authorized().asked_to_release().answered(an_approval("void_9")).payment

    assert isinstance(last(payment), Payment.Expired)
    assert payment.status == Status.EXPIRED


@pytest.mark.parametrize(
    ("answer", "attempts"), [(ALREADY, 1), (ALREADY_AFTER_A_TRY, 0), (ALREADY, 3)]
)
@pytest.mark.parametrize("on_expiry", [False, True])
def test_a_void_already_done_after_a_try_of_ours_needs_no_id_and_no_review(
    answer: Outcome, attempts: int, on_expiry: bool
) -> None:
    story = Story().authorized()
    asked = story.asked_to_release() if on_expiry else story.asked_to_void()

    payment = asked.answered(answer, attempts=attempts).payment

    assert payment.status == (Status.EXPIRED if on_expiry else Status.VOIDED)
    assert reviews(payment) == []


def test_a_void_already_done_that_we_never_tried_is_a_disagreement() -> None:
    payment = Story().authorized().asked_to_void().answered(ALREADY).payment

    assert payment.status == Status.AUTHORIZED
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Declined(code="authorization_expired"), "authorization_expired"),
        (REJECTED, "bank_protocol_error"),
    ],
)
def test_a_refused_void_leaves_the_hold(answer: Outcome, code: str) -> None:
    payment = Story().authorized().asked_to_void().answered(answer).payment

    declined = last(payment)
    assert isinstance(declined, Payment.VoidDeclined)
    assert declined.code == code
    assert (payment.status, payment.running) == (Status.AUTHORIZED, None)


# --- refund ---


def test_an_approved_refund_gives_back_what_was_asked() -> None:
    story = Story().authorized().captured().asked_to_refund(1200, refund_id="rfnd_1")

    payment = story.answered(an_approval("ref_9")).payment

    refunded = last(payment)
    assert isinstance(refunded, Payment.Refunded)
    assert (refunded.refund_id, refunded.bank_refund_id) == ("rfnd_1", "ref_9")
    assert (payment.status, payment.refunded_minor) == (Status.CAPTURED, 1200)


@pytest.mark.parametrize(
    ("answer", "attempts"), [(ALREADY, 1), (ALREADY_AFTER_A_TRY, 0), (ALREADY, 3)]
)
def test_a_refund_already_done_after_a_try_of_ours_is_ours_with_an_unknown_id(
    answer: Outcome, attempts: int
) -> None:
    story = Story().authorized().captured().asked_to_refund()

    payment = story.answered(answer, attempts=attempts).payment

    assert (payment.status, payment.refunded_minor) == (Status.REFUNDED, 5000)
    assert reviews(payment) == [ReviewReason.REFUND_ID_UNKNOWN]


def test_a_refund_already_done_that_we_never_tried_is_a_disagreement() -> None:
    payment = Story().authorized().captured().asked_to_refund().answered(ALREADY).payment

    assert (payment.status, payment.refunded_minor) == (Status.CAPTURED, 0)
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Declined(code="refund_exceeds_capture"), "refund_exceeds_capture"),
        (REJECTED, "bank_protocol_error"),
    ],
)
def test_a_refused_refund_gives_nothing_back_and_can_be_asked_again(
    answer: Outcome, code: str
) -> None:
    story = Story().authorized().captured().asked_to_refund().answered(answer)

    declined = last(story.payment)
    assert isinstance(declined, Payment.RefundDeclined)
    assert declined.code == code
    assert reviews(story.payment) == []
    assert story.refunded().payment.status == Status.REFUNDED


# --- what cannot be ---


@pytest.mark.parametrize(
    ("story", "kept"),
    [
        (Story().authorized().asked_to_capture(), Status.AUTHORIZED),
        (Story().authorized().asked_to_void(), Status.AUTHORIZED),
        (Story().authorized().asked_to_release(), Status.AUTHORIZED),
        (Story().authorized().captured().asked_to_refund(), Status.CAPTURED),
    ],
    ids=["capture", "void", "release", "refund"],
)
def test_an_answer_that_cannot_be_gains_no_state_and_needs_a_person(
    story: Story, kept: Status
) -> None:
    payment = Story(deepcopy(story.payment)).answered(CONTRADICTED, attempts=6).payment

    assert (payment.status, payment.running) == (kept, None)
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


def test_an_authorization_that_the_bank_contradicts_itself_about_may_be_a_hold() -> None:
    payment = Story().answered(CONTRADICTED, attempts=6).payment

    assert payment.status == Status.DECLINED
    assert set(reviews(payment)) == {
        ReviewReason.POSSIBLE_ORPHAN_HOLD,
        ReviewReason.BANK_DISAGREES,
    }


# --- two that end one hold ---


def test_a_hold_that_a_doubted_void_may_have_ended_is_not_taken_to_be_captured() -> None:
    story = Story().authorized().asked_to_void()
    story.answered(REJECTED, attempts=1, unanswered=True)

    payment = story.asked_to_capture().answered(ALREADY, attempts=1).payment

    assert (payment.status, payment.captured_minor) == (Status.AUTHORIZED, 0)
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


def test_a_hold_that_a_doubted_capture_may_have_ended_is_not_taken_to_be_released() -> None:
    story = Story().authorized().asked_to_capture()
    story.answered(CONTRADICTED, attempts=6)

    payment = story.asked_to_void().answered(ALREADY_AFTER_A_TRY).payment

    assert payment.status == Status.AUTHORIZED
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


def test_a_capture_that_came_too_late_leaves_no_doubt_who_released_the_hold() -> None:
    story = Story().authorized().asked_to_capture()
    story.answered(Declined(code="authorization_expired"))

    payment = story.asked_to_release().answered(ALREADY, attempts=1).payment

    assert (payment.status, reviews(payment)) == (Status.EXPIRED, [])


# --- all ---


def test_a_review_is_asked_for_once() -> None:
    story = Story().authorized()

    for _ in range(3):
        story.asked_to_capture().answered(ALREADY)

    asked = [e for e in story.payment.history if isinstance(e, Payment.ReviewNeeded)]
    assert len(asked) == 1


def test_an_answer_without_a_question_is_a_bug() -> None:
    story = Story().authorized()

    with pytest.raises(AssertionError):
        story.answered(an_approval())


def test_times_are_of_one_width_and_sort_as_text() -> None:
    moments = [NOON, NOON + timedelta(microseconds=1), NOON + timedelta(seconds=9, microseconds=10)]

    texts = [rfc3339(moment) for moment in moments]

    assert texts[0] == "2026-11-20T12:00:00.000000Z"
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {27}


# --- a no after silence ---


@pytest.mark.parametrize("operation", ["capture", "void", "refund"])
@pytest.mark.parametrize("answer", [REJECTED, Declined(code="refund_exceeds_capture")])
def test_a_no_that_is_none_about_the_operation_leaves_open_what_silence_did(
    operation: str, answer: Outcome
) -> None:
    story = Story().authorized()
    if operation == "capture":
        story.asked_to_capture()
    elif operation == "void":
        story.asked_to_void()
    else:
        story.captured().asked_to_refund()

    story.answered(answer, attempts=1, unanswered=True)

    assert reviews(story.payment) == [ReviewReason.BANK_DISAGREES]


def test_a_bank_that_says_too_late_did_not_capture_before() -> None:
    story = Story().authorized().asked_to_capture()

    story.answered(Declined(code="authorization_expired"), attempts=1, unanswered=True)

    assert reviews(story.payment) == []


# --- one operation after another that is in doubt ---


def test_already_after_a_capture_in_doubt_is_no_void() -> None:
    doubted = Story().authorized().asked_to_capture().answered(CONTRADICTED, attempts=6)

    payment = doubted.asked_to_void().answered(ALREADY_AFTER_A_TRY, attempts=1).payment

    assert payment.status is Status.AUTHORIZED
    assert isinstance(last(payment), Payment.VoidDeclined)
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


def test_already_after_a_void_in_doubt_is_no_capture() -> None:
    doubted = Story().authorized().asked_to_void().answered(CONTRADICTED, attempts=6)

    payment = doubted.asked_to_capture().answered(ALREADY_AFTER_A_TRY, attempts=1).payment

    assert payment.status is Status.AUTHORIZED
    assert isinstance(last(payment), Payment.CaptureDeclined)
    assert reviews(payment) == [ReviewReason.BANK_DISAGREES]


def test_an_approval_is_one_also_after_an_operation_in_doubt() -> None:
    doubted = Story().authorized().asked_to_capture().answered(CONTRADICTED, attempts=6)

    assert doubted.asked_to_void().answered(an_approval("void_1")).payment.status is Status.VOIDED

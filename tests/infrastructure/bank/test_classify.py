"""The bank's words, each with what it means for each operation."""

from datetime import UTC, datetime
from typing import Any

import pytest

from domain.bank import (
    AlreadyDone,
    Answer,
    Approved,
    Declined,
    Operation,
    Rejected,
    UnderWay,
    Unknown,
)
from infrastructure.bank.client import Reply
from infrastructure.bank.driver import classify, classify_look
from tests.builders import a_bank_request, dollars

OF_THE_CARD = ["insufficient_funds", "invalid_card", "invalid_cvv", "card_expired"]
OUR_OWN_FAULT = ["invalid_amount", "amount_mismatch", "missing_idempotency_key"]
ALREADY = {
    Operation.AUTHORIZATION: [],
    Operation.CAPTURE: ["authorization_already_used", "already_captured"],
    Operation.VOID: ["authorization_already_used", "already_voided"],
    Operation.REFUND: ["already_refunded"],
    Operation.TRANSFER: [],
}
OURS = [(operation, code) for operation, codes in ALREADY.items() for code in codes]
ANOTHERS = [
    (operation, code)
    for operation in Operation
    for code in sorted({word for words in ALREADY.values() for word in words})
    if code not in ALREADY[operation]
]
TROUBLE = [
    (500, "internal_error"),
    (400, "internal_error"),
    (404, "not_found"),
    (400, "a_word_we_never_heard"),
    (503, "internal_error"),
]
ON_AN_ID = [Operation.CAPTURE, Operation.VOID, Operation.REFUND]
BANK_IDS = {Operation.CAPTURE: "auth_1", Operation.VOID: "auth_1", Operation.REFUND: "cap_1"}
APPROVALS: dict[Operation, dict[str, Any]] = {
    Operation.AUTHORIZATION: {
        "authorization_id": "auth_1",
        "status": "approved",
        "amount": 5000,
        "currency": "USD",
        "expires_at": "2026-11-27T12:00:00Z",
        "created_at": "2026-11-20T12:00:00Z",
    },
    Operation.CAPTURE: {
        "capture_id": "cap_1",
        "authorization_id": "auth_1",
        "status": "captured",
        "amount": 5000,
        "currency": "USD",
        "captured_at": "2026-11-20T12:00:00Z",
    },
    Operation.VOID: {
        "void_id": "void_1",
        "authorization_id": "auth_1",
        "status": "voided",
        "voided_at": "2026-11-20T12:00:00Z",
    },
    Operation.REFUND: {
        "refund_id": "ref_1",
        "capture_id": "cap_1",
        "status": "refunded",
        "amount": 5000,
        "currency": "USD",
        "refunded_at": "2026-11-20T12:00:00Z",
    },
    Operation.TRANSFER: {
        "transfer_id": "trf_1",
        "status": "settled",
        "amount": 5000,
        "currency": "USD",
        "created_at": "2026-11-20T12:00:00Z",
        "settled_at": "2026-11-20T12:00:02Z",
    },
}


def understood(
    operation: Operation,
    status: int,
    body: dict[str, Any] | None,
    *,
    replayed: bool = False,
    attempts: int = 0,
) -> Answer:
    request = a_bank_request(operation, bank_id=BANK_IDS.get(operation), money=dollars(50))
    reply = Reply(status=status, body=body, replayed=replayed)
    return classify(request, reply, attempts=attempts)


def refused(operation: Operation, status: int, code: str, *, attempts: int = 0) -> Answer:
    body = {"error": code, "message": "words"}
    return understood(operation, status, body, attempts=attempts)


def is_silence(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.unanswered and not answer.contradicts


def is_answered(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and not (answer.unanswered or answer.contradicts)


def contradicts(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.contradicts and not answer.unanswered


def contradicts_and_did_something(answer: Answer) -> bool:
    return isinstance(answer, Unknown) and answer.contradicts and answer.unanswered


@pytest.mark.parametrize("code", OF_THE_CARD)
def test_a_word_about_the_card_declines_an_authorization(code: str) -> None:
    status = 402 if code == "insufficient_funds" else 400

    assert refused(Operation.AUTHORIZATION, status, code) == Declined(code=code)


@pytest.mark.parametrize("operation", ON_AN_ID)
@pytest.mark.parametrize("code", OF_THE_CARD)
def test_a_word_about_the_card_ends_nothing_that_has_an_id(operation: Operation, code: str) -> None:
    assert is_answered(refused(operation, 400, code))


@pytest.mark.parametrize("status", [400, 402, 500])
def test_the_word_decides_and_not_the_status(status: int) -> None:
    answer = refused(Operation.AUTHORIZATION, status, "insufficient_funds")

    assert answer == Declined(code="insufficient_funds")


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("code", OUR_OWN_FAULT)
def test_a_malformed_request_is_our_own_fault(operation: Operation, code: str) -> None:
    assert refused(operation, 400, code) == Rejected(reason=code)


@pytest.mark.parametrize("operation", Operation)
def test_plain_text_with_a_400_is_our_own_fault(operation: Operation) -> None:
    assert isinstance(understood(operation, 400, None), Rejected)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("status", [202, 204, 302, 307, 408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [None, {}, {"message": "Endpoint request timed out"}])
def test_what_somebody_says_in_the_banks_place_is_silence_of_the_banks(
    operation: Operation, status: int, body: dict[str, Any] | None
) -> None:
    assert is_silence(understood(operation, status, body))


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize(
    "code", ["", "nul\x00", "\ud800", "x" * 65, "Insufficient Funds", 7, None, ["internal_error"]]
)
def test_what_is_no_word_is_silence_and_is_not_repeated(operation: Operation, code: object) -> None:
    answer = understood(operation, 400, {"error": code})

    assert answer == Unknown(reason="HTTP 400 without a code", unanswered=True)


@pytest.mark.parametrize(("operation", "code"), OURS)
@pytest.mark.parametrize("attempts", [0, 2])
def test_what_was_done_before_is_already_done_after_so_many_attempts(
    operation: Operation, code: str, attempts: int
) -> None:
    answer = refused(operation, 400, code, attempts=attempts)

    assert answer == AlreadyDone(code=code, after_attempts=attempts)


@pytest.mark.parametrize(("operation", "code"), ANOTHERS)
def test_what_another_operation_did_before_is_nothing_of_this_ones(
    operation: Operation, code: str
) -> None:
    assert contradicts(refused(operation, 400, code, attempts=2))


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID])
def test_an_authorization_that_ran_out_is_a_no(operation: Operation) -> None:
    answer = refused(operation, 400, "authorization_expired")

    assert answer == Declined(code="authorization_expired")


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Operation.AUTHORIZATION, "authorization_expired"),
        (Operation.REFUND, "authorization_expired"),
        (Operation.AUTHORIZATION, "refund_exceeds_capture"),
        (Operation.CAPTURE, "refund_exceeds_capture"),
        (Operation.VOID, "refund_exceeds_capture"),
    ],
)
def test_a_no_to_another_operation_is_none_to_this_one(operation: Operation, code: str) -> None:
    assert contradicts(refused(operation, 400, code))


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize(("status", "code"), TROUBLE)
def test_the_banks_own_trouble_is_an_unknown_outcome_that_was_answered(
    operation: Operation, status: int, code: str
) -> None:
    assert is_answered(refused(operation, status, code))


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("replayed", [False, True])
def test_an_approval_has_the_banks_id(operation: Operation, replayed: bool) -> None:
    answer = understood(operation, 200, APPROVALS[operation], replayed=replayed)

    ids = {
        "authorization": "auth_1",
        "capture": "cap_1",
        "void": "void_1",
        "refund": "ref_1",
        "transfer": "trf_1",
    }
    assert isinstance(answer, Approved)
    assert (answer.bank_id, answer.replayed) == (ids[operation], replayed)


MISMATCHES = [
    (Operation.AUTHORIZATION, {"amount": 4999}),
    (Operation.AUTHORIZATION, {"amount": "5000"}),
    (Operation.AUTHORIZATION, {"amount": None}),
    (Operation.AUTHORIZATION, {"currency": "EUR"}),
    (Operation.AUTHORIZATION, {"status": "declined"}),
    (Operation.AUTHORIZATION, {"authorization_id": None}),
    (Operation.AUTHORIZATION, {"authorization_id": ""}),
    (Operation.AUTHORIZATION, {"authorization_id": 7}),
    (Operation.AUTHORIZATION, {"authorization_id": "auth_1\x00"}),
    (Operation.AUTHORIZATION, {"authorization_id": "auth_\ud800"}),
    (Operation.AUTHORIZATION, {"authorization_id": "auth_1\n"}),
    (Operation.AUTHORIZATION, {"authorization_id": "a" * 256}),
    (Operation.AUTHORIZATION, {"amount": True}),
    (Operation.AUTHORIZATION, {"amount": 5000.0}),
    (Operation.AUTHORIZATION, {"expires_at": "0001-01-01T00:00:00+14:00"}),
    (Operation.AUTHORIZATION, {"expires_at": "9999-12-31T23:59:59-14:00"}),
    (Operation.AUTHORIZATION, {"expires_at": None}),
    (Operation.AUTHORIZATION, {"expires_at": "tomorrow"}),
    (Operation.AUTHORIZATION, {"expires_at": "2026-11-27T12:00:00"}),
    (Operation.CAPTURE, {"amount": 4999}),
    (Operation.CAPTURE, {"currency": "EUR"}),
    (Operation.CAPTURE, {"authorization_id": "auth_2"}),
    (Operation.CAPTURE, {"status": "approved"}),
    (Operation.CAPTURE, {"capture_id": None}),
    (Operation.VOID, {"authorization_id": "auth_2"}),
    (Operation.VOID, {"status": "captured"}),
    (Operation.VOID, {"void_id": None}),
    (Operation.REFUND, {"amount": 4999}),
    (Operation.REFUND, {"currency": "EUR"}),
    (Operation.REFUND, {"capture_id": "cap_2"}),
    (Operation.REFUND, {"status": "captured"}),
    (Operation.REFUND, {"refund_id": None}),
]


@pytest.mark.parametrize(("operation", "other"), MISMATCHES, ids=str)
def test_an_approval_of_something_else_contradicts(
    operation: Operation, other: dict[str, Any]
) -> None:
    answer = understood(operation, 200, APPROVALS[operation] | other)

    assert contradicts_and_did_something(answer)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("body", [{}, {"error": "insufficient_funds"}])
def test_an_approval_of_nothing_contradicts(operation: Operation, body: dict[str, Any]) -> None:
    assert contradicts_and_did_something(understood(operation, 200, body))


@pytest.mark.parametrize("operation", ON_AN_ID)
@pytest.mark.parametrize("code", ["authorization_not_found", "capture_not_found"])
def test_an_id_of_its_own_that_the_bank_does_not_know_contradicts(
    operation: Operation, code: str
) -> None:
    assert contradicts(refused(operation, 400, code))


@pytest.mark.parametrize("operation", Operation)
def test_a_200_that_cannot_be_read_is_no_answer(operation: Operation) -> None:
    answer = understood(operation, 200, None)

    assert isinstance(answer, Unknown)
    assert answer.unanswered


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-27T12:00:00Z", datetime(2026, 11, 27, 12, tzinfo=UTC)),
        ("2026-11-27T12:00:00.5Z", datetime(2026, 11, 27, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-27T12:00:00.123456Z", datetime(2026, 11, 27, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-27T12:00:00.123456789Z", datetime(2026, 11, 27, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-27T12:00:00.999999999Z", datetime(2026, 11, 27, 12, 0, 0, 999_999, tzinfo=UTC)),
        ("2026-11-27T14:00:00.1+02:00", datetime(2026, 11, 27, 12, 0, 0, 100_000, tzinfo=UTC)),
        ("2026-11-27T07:00:00-05:00", datetime(2026, 11, 27, 12, tzinfo=UTC)),
    ],
)
def test_times_are_read_to_the_microsecond_in_utc(text: str, moment: datetime) -> None:
    body = APPROVALS[Operation.AUTHORIZATION] | {"expires_at": text}

    answer = understood(Operation.AUTHORIZATION, 200, body)

    assert isinstance(answer, Approved)
    assert answer.expires_at == moment
    assert answer.expires_at.tzinfo is UTC


PENDING = APPROVALS[Operation.TRANSFER] | {"status": "pending", "settled_at": None}


@pytest.mark.parametrize("replayed", [False, True])
def test_a_transfer_that_is_pending_is_under_way(replayed: bool) -> None:
    answer = understood(Operation.TRANSFER, 200, PENDING, replayed=replayed)

    assert answer == UnderWay(bank_id="trf_1", replayed=replayed)


def test_a_transfer_that_failed_is_declined_by_its_code() -> None:
    failed = PENDING | {"status": "failed", "code": "debit_not_authorized"}

    assert understood(Operation.TRANSFER, 200, failed) == Declined(code="debit_not_authorized")
    for code in (None, "", "not a code", 5):
        answer = understood(Operation.TRANSFER, 200, failed | {"code": code})
        assert contradicts_and_did_something(answer)


@pytest.mark.parametrize("other", [{"amount": 4999}, {"currency": "GBP"}, {"transfer_id": 5}])
def test_another_transfer_than_was_asked_for_is_as_doubtful_as_silence(
    other: dict[str, Any],
) -> None:
    for status in ("pending", "settled"):
        answer = understood(Operation.TRANSFER, 200, PENDING | other | {"status": status})
        assert contradicts_and_did_something(answer)


def test_a_look_at_a_transfer_leaves_nothing_open() -> None:
    request = a_bank_request(Operation.TRANSFER, bank_id="trf_1", account=None)

    def looked(**body: Any) -> Answer:
        return classify_look(request, Reply(status=200, body=PENDING | body, replayed=False))

    assert looked() == UnderWay(bank_id="trf_1")
    assert looked(status="settled") == Approved(bank_id="trf_1")
    assert looked(status="failed", code="insufficient_funds") == Declined(code="insufficient_funds")
    assert contradicts(looked(transfer_id="trf_2"))
    assert contradicts(looked(amount=1))

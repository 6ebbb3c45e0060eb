"""When the bank is asked again, and when it must not be."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from domain.bank import (
    AlreadyDone,
    Answer,
    Approved,
    Contradicted,
    Declined,
    Operation,
    Rejected,
    Unknown,
)
from infrastructure.bank.client import HEALTH_TIMEOUT_SECONDS, BankClient
from infrastructure.bank.driver import EXTENDED, FICMART, MAX_TRIES, BankDriver
from infrastructure.clock import SystemClock
from tests.builders import ANY_AMOUNT, FULL_AMOUNTS, a_bank_request, a_card
from tests.infrastructure.bank.a_bad_bank import (
    BadBank,
    Behaviour,
    hangs_up,
    is_silent,
    refuses,
    says,
)
from tests.infrastructure.bank.test_classify import APPROVALS, BANK_IDS
from tests.patience import stopwatch

FAILS = refuses(500, "internal_error")
PLAIN_400 = says(400, b"invalid request body")
UNWELL = says(503, {"status": "unhealthy"})
WELL = says(200, {"status": "healthy"})
NOT_AGAIN_SECONDS = 2.0  # not enough to ask a second time
SHORT_SECONDS = 0.3  # for an answer that does not come


def approves(operation: Operation = Operation.AUTHORIZATION) -> Behaviour:
    return says(200, APPROVALS[operation])


def remembers(operation: Operation = Operation.AUTHORIZATION) -> Behaviour:
    return says(200, APPROVALS[operation], X_Idempotent_Replayed="true")


@pytest.fixture
def bank() -> Iterator[BadBank]:
    with BadBank() as bank:
        yield bank


def perform(
    url: str,
    operation: Operation = Operation.AUTHORIZATION,
    *,
    timeout_seconds: float = 5.0,
    **overrides: Any,
) -> Answer:
    client = BankClient(url, connections=1)
    driver = BankDriver(client, SystemClock(), profile="ficmart", timeout_seconds=timeout_seconds)
    request = a_bank_request(operation, bank_id=BANK_IDS.get(operation), **overrides)
    return driver.perform(request)


def test_the_profiles_say_what_each_bank_can_do() -> None:
    assert (FICMART, EXTENDED) == (FULL_AMOUNTS, ANY_AMOUNT)


def test_an_authorization_is_in_the_banks_words(bank: BadBank) -> None:
    bank.will(approves())

    perform(bank.url, key="a-key")

    (heard,) = bank.heard
    assert (heard.path, heard.key) == ("/api/v1/authorizations", "a-key")
    assert heard.body == {
        "card_number": "4111111111111111",
        "cvv": "123",
        "expiry_month": 12,
        "expiry_year": 2030,
        "amount": 5000,
    }


@pytest.mark.parametrize(
    ("operation", "path", "body"),
    [
        (Operation.CAPTURE, "/api/v1/captures", {"authorization_id": "auth_1", "amount": 5000}),
        (Operation.VOID, "/api/v1/voids", {"authorization_id": "auth_1"}),
        (Operation.REFUND, "/api/v1/refunds", {"capture_id": "cap_1", "amount": 5000}),
    ],
)
def test_each_operation_is_in_the_banks_words(
    bank: BadBank, operation: Operation, path: str, body: dict[str, Any]
) -> None:
    bank.will(approves(operation))

    answer = perform(bank.url, operation)

    assert isinstance(answer, Approved)
    assert (bank.heard[0].path, bank.heard[0].body) == (path, body)


def test_the_extended_bank_is_told_the_currency_and_needs_no_cvc(bank: BadBank) -> None:
    bank.will(approves())
    client = BankClient(bank.url, connections=1)
    driver = BankDriver(client, SystemClock(), profile="extended", timeout_seconds=5.0)

    driver.perform(a_bank_request(card=a_card(cvc=None)))

    assert bank.heard[0].body["currency"] == "USD"
    assert "cvv" not in bank.heard[0].body


# --- failures that were received ---


@pytest.mark.parametrize("failures", [1, 2, MAX_TRIES - 1])
@pytest.mark.parametrize("operation", Operation)
def test_a_received_failure_is_asked_again_under_the_same_key(
    bank: BadBank, operation: Operation, failures: int
) -> None:
    bank.will(*[FAILS] * failures, approves(operation))

    answer = perform(bank.url, operation, key="a-key")

    assert isinstance(answer, Approved)
    assert [heard.key for heard in bank.heard] == ["a-key"] * (failures + 1)
    assert len({str(heard.body) for heard in bank.heard}) == 1


def test_the_bank_is_not_asked_for_ever(bank: BadBank) -> None:
    bank.will(*[FAILS] * (MAX_TRIES + 5))

    answer = perform(bank.url)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert len(bank.heard) == MAX_TRIES


def test_the_bank_is_not_asked_again_when_there_is_no_time_to_hear_it_out(bank: BadBank) -> None:
    bank.will(FAILS, approves())

    answer = perform(bank.url, seconds_left=NOT_AGAIN_SECONDS)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert len(bank.heard) == 1


@pytest.mark.parametrize("seconds_left", [0.0, -3.0])
def test_the_bank_is_not_asked_at_all_when_there_is_no_time(
    bank: BadBank, seconds_left: float
) -> None:
    bank.will(is_silent)

    answer = perform(bank.url, seconds_left=seconds_left)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert bank.heard == []


def test_a_bank_that_cannot_be_reached_knows_of_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    answer = perform(f"http://127.0.0.1:{port}")

    assert isinstance(answer, Unknown)
    assert not answer.unanswered


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        (refuses(402, "insufficient_funds"), Declined(code="insufficient_funds")),
        (refuses(400, "invalid_amount"), Rejected(reason="invalid_amount")),
    ],
)
def test_an_outcome_is_not_asked_again(bank: BadBank, behaviour: Behaviour, answer: Answer) -> None:
    bank.will(behaviour)

    assert perform(bank.url) == answer
    assert len(bank.heard) == 1


# --- silence ---


@pytest.mark.parametrize("silence", [is_silent, hangs_up], ids=["silent", "hangs up"])
@pytest.mark.parametrize("operation", Operation)
def test_silence_is_never_asked_again_at_once(
    bank: BadBank, operation: Operation, silence: Behaviour
) -> None:
    bank.will(silence, approves(operation))

    answer = perform(bank.url, operation, timeout_seconds=SHORT_SECONDS)

    assert isinstance(answer, Unknown)
    assert answer.unanswered
    assert len(bank.heard) == 1


def test_silence_after_a_failure_is_not_asked_again_either(bank: BadBank) -> None:
    bank.will(FAILS, hangs_up, approves())

    answer = perform(bank.url)

    assert isinstance(answer, Unknown)
    assert answer.unanswered
    assert len(bank.heard) == 2


@pytest.mark.parametrize("operation", Operation)
def test_an_approval_of_something_else_is_looked_at_again_under_the_same_key(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(says(200, APPROVALS[operation] | {"status": "odd"}), remembers(operation))

    answer = perform(bank.url, operation, key="a-key")

    assert isinstance(answer, Approved)
    assert [heard.key for heard in bank.posts] == ["a-key", "a-key"]


@pytest.mark.parametrize("operation", Operation)
def test_what_is_remembered_of_this_request_answers_no_earlier_one(
    bank: BadBank, operation: Operation
) -> None:
    """Or a hold that was made in silence before it, and forgotten, would be thought of no more."""
    bank.will(says(200, APPROVALS[operation] | {"status": "odd"}), remembers(operation))

    answer = perform(bank.url, operation, attempts_before=1)

    assert isinstance(answer, Approved)
    assert not answer.replayed


@pytest.mark.parametrize("operation", Operation)
def test_an_approval_of_something_else_is_not_done_once_more(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(says(200, APPROVALS[operation] | {"status": "odd"}), PLAIN_400, approves(operation))

    answer = perform(bank.url, operation)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.contradicts) == (True, True)
    assert [heard.body == {} for heard in bank.posts] == [False, True]


@pytest.mark.parametrize("operation", Operation)
def test_an_approval_that_stays_of_something_else_is_never_believed(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(*[says(200, APPROVALS[operation] | {"status": "odd"})] * MAX_TRIES)

    answer = perform(bank.url, operation)

    assert isinstance(answer, Unknown)
    assert answer.contradicts
    assert len(bank.posts) == 2


@pytest.mark.parametrize("operation", Operation)
def test_a_bank_that_remembers_something_else_did_nothing_more(
    bank: BadBank, operation: Operation
) -> None:
    odd = APPROVALS[operation] | {"status": "odd"}
    bank.will(says(200, odd, X_Idempotent_Replayed="true"))

    answer = perform(bank.url, operation, ask_only=True, attempts_before=1)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.contradicts) == (False, True)


@pytest.mark.parametrize("status", [302, 502, 503, 504])
def test_what_a_proxy_says_is_not_asked_again_at_once(bank: BadBank, status: int) -> None:
    bank.will(says(status, b"<html>", Location="/elsewhere"), approves())

    answer = perform(bank.url)

    assert isinstance(answer, Unknown)
    assert answer.unanswered
    assert len(bank.heard) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_what_a_proxy_says_in_words_of_its_own_is_not_asked_again_at_once(
    bank: BadBank, status: int
) -> None:
    bank.will(refuses(status, "upstream_timeout"), approves())

    answer = perform(bank.url)

    assert answer == Unknown(reason=f"HTTP {status} upstream_timeout", unanswered=True)
    assert len(bank.heard) == 1


# --- a card that the bank does not know ---


def test_a_card_is_not_taken_for_unknown_on_the_first_word(bank: BadBank) -> None:
    bank.will(refuses(400, "invalid_card"), approves())

    assert isinstance(perform(bank.url), Approved)


def test_a_card_that_is_unknown_twice_is_declined(bank: BadBank) -> None:
    bank.will(refuses(400, "invalid_card"), refuses(400, "invalid_card"))

    assert perform(bank.url) == Declined(code="invalid_card")


def test_silence_at_the_second_word_is_silence(bank: BadBank) -> None:
    bank.will(refuses(400, "invalid_card"), hangs_up)

    answer = perform(bank.url)

    assert isinstance(answer, Unknown)
    assert answer.unanswered


def test_a_second_word_is_not_asked_for_when_there_is_no_time_to_hear_it_out(
    bank: BadBank,
) -> None:
    bank.will(refuses(400, "invalid_card"), is_silent)

    answer = perform(bank.url, seconds_left=NOT_AGAIN_SECONDS)

    assert len(bank.heard) == 1
    assert not (isinstance(answer, Unknown) and answer.unanswered)


# --- asking first, after silence ---


def test_the_bank_is_first_asked_what_it_remembers_without_the_card(bank: BadBank) -> None:
    bank.will(remembers())

    answer = perform(bank.url, ask_first=True, attempts_before=1, key="a-key")

    assert isinstance(answer, Approved)
    assert answer.replayed
    assert [(heard.method, heard.path) for heard in bank.heard] == [
        ("GET", "/health"),
        ("POST", "/api/v1/authorizations"),
    ]
    assert (bank.heard[1].key, bank.heard[1].body) == ("a-key", {})


def test_what_a_well_bank_does_not_remember_is_asked_again(bank: BadBank) -> None:
    bank.will(PLAIN_400, approves())

    answer = perform(bank.url, ask_first=True, attempts_before=1)

    assert isinstance(answer, Approved)
    assert not answer.replayed
    assert [heard.body == {} for heard in bank.posts] == [True, False]


@pytest.mark.parametrize("health", [[UNWELL], [hangs_up]])
def test_a_bank_that_is_not_well_is_not_asked(bank: BadBank, health: list[Behaviour]) -> None:
    bank.health_will(*health)

    answer = perform(bank.url, ask_first=True, attempts_before=1)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert bank.posts == []


def test_a_bank_that_fell_ill_meanwhile_is_not_believed_to_have_forgotten(bank: BadBank) -> None:
    bank.health_will(says(200, {"status": "healthy"}), UNWELL)
    bank.will(PLAIN_400, approves())

    answer = perform(bank.url, ask_first=True, attempts_before=1)

    assert isinstance(answer, Unknown)
    assert len(bank.posts) == 1


@pytest.mark.parametrize("silence", [is_silent, hangs_up], ids=["silent", "hangs up"])
def test_silence_at_the_question_is_not_followed_by_the_request(
    bank: BadBank, silence: Behaviour
) -> None:
    bank.will(silence, approves())

    answer = perform(bank.url, ask_first=True, attempts_before=1, timeout_seconds=SHORT_SECONDS)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert len(bank.posts) == 1


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID])
def test_what_the_bank_does_once_only_is_simply_asked_again(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(remembers(operation))

    answer = perform(bank.url, operation, ask_first=True, attempts_before=1)

    assert isinstance(answer, Approved)
    assert [heard.body == {} for heard in bank.heard] == [False]


@pytest.mark.parametrize(
    "trouble",
    [FAILS, refuses(400, "internal_error"), says(503, b"busy"), refuses(404, "not_found")],
    ids=["500", "400 internal_error", "503", "404"],
)
def test_a_failure_at_the_question_is_no_word_about_the_key(
    bank: BadBank, trouble: Behaviour
) -> None:
    bank.will(trouble, approves())

    answer = perform(bank.url, ask_first=True, attempts_before=1)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert len(bank.posts) == 1


@pytest.mark.parametrize("well_before", [0, 1])
def test_a_bank_that_does_not_say_whether_it_is_well_takes_no_more_time_than_there_is(
    bank: BadBank, well_before: int
) -> None:
    bank.health_will(*[WELL] * well_before, is_silent)
    bank.will(PLAIN_400)

    with stopwatch() as watch:
        answer = perform(bank.url, ask_first=True, attempts_before=1, seconds_left=0.3)

    assert isinstance(answer, Unknown)
    assert watch.seconds < HEALTH_TIMEOUT_SECONDS


# --- asking only, after so long that the bank may have forgotten ---


@pytest.mark.parametrize("operation", [Operation.AUTHORIZATION, Operation.REFUND])
def test_what_the_bank_may_have_forgotten_is_not_put_to_it_again(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(PLAIN_400, approves(operation))

    answer = perform(bank.url, operation, ask_only=True, attempts_before=9)

    assert isinstance(answer, Contradicted)
    assert [heard.body for heard in bank.posts] == [{}]


def test_what_the_bank_still_remembers_is_not_too_old(bank: BadBank) -> None:
    bank.will(remembers())

    answer = perform(bank.url, ask_only=True, attempts_before=9)

    assert isinstance(answer, Approved)
    assert answer.replayed


def test_a_bank_that_is_not_well_may_not_have_forgotten(bank: BadBank) -> None:
    bank.health_will(UNWELL)

    answer = perform(bank.url, ask_only=True, attempts_before=9)

    assert isinstance(answer, Unknown)
    assert bank.posts == []


# --- what went out, went out ---


def test_what_was_heard_once_reached_the_bank_whatever_comes_after(bank: BadBank) -> None:
    def fails_and_is_gone(bank: BadBank, line: socket.socket) -> None:
        bank.stop_listening()
        body = b'{"error": "internal_error", "message": "words"}'
        head = f"HTTP/1.1 500 Words\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        line.shutdown(socket.SHUT_RDWR)

    bank.will(fails_and_is_gone)

    answer = perform(bank.url, Operation.CAPTURE)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.reached) == (False, True)
    assert "not reached" in answer.reason


# --- already done ---

ALREADY = {
    Operation.CAPTURE: "authorization_already_used",
    Operation.VOID: "authorization_already_used",
    Operation.REFUND: "already_refunded",
}


@pytest.mark.parametrize("operation", ALREADY)
def test_what_is_already_done_after_a_failure_is_looked_for_in_the_banks_memory(
    bank: BadBank, operation: Operation
) -> None:
    bank.will(FAILS, refuses(400, ALREADY[operation]), remembers(operation))

    answer = perform(bank.url, operation)

    assert isinstance(answer, Approved)
    assert answer.replayed
    assert bank.posts[-1].body == {}


@pytest.mark.parametrize("operation", ALREADY)
def test_a_bank_that_is_not_well_is_not_believed_to_have_forgotten_what_it_did(
    bank: BadBank, operation: Operation
) -> None:
    bank.health_will(says(200, {"status": "healthy"}), UNWELL)
    bank.will(FAILS, refuses(400, ALREADY[operation]), PLAIN_400)

    answer = perform(bank.url, operation)

    assert isinstance(answer, Unknown)
    assert answer.reached


def test_what_is_already_done_after_an_earlier_take_up_is_looked_for_too(bank: BadBank) -> None:
    bank.will(refuses(400, "already_refunded"), remembers(Operation.REFUND))

    answer = perform(bank.url, Operation.REFUND, attempts_before=1)

    assert isinstance(answer, Approved)


def test_what_the_bank_did_and_forgot_is_already_done(bank: BadBank) -> None:
    bank.will(FAILS, refuses(400, "authorization_already_used"), PLAIN_400)

    answer = perform(bank.url, Operation.CAPTURE)

    assert answer == AlreadyDone(code="authorization_already_used", after_attempts=1)


def test_what_is_already_done_at_our_first_try_is_not_ours(bank: BadBank) -> None:
    bank.will(refuses(400, "authorization_already_used"))

    answer = perform(bank.url, Operation.CAPTURE)

    assert answer == AlreadyDone(code="authorization_already_used", after_attempts=0)
    assert len(bank.heard) == 1


def test_silence_at_the_look_into_the_banks_memory_leaves_the_outcome_unknown(
    bank: BadBank,
) -> None:
    bank.will(FAILS, refuses(400, "authorization_already_used"), hangs_up)

    assert isinstance(perform(bank.url, Operation.CAPTURE), Unknown)

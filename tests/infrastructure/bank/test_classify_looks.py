"""What the bank says of an authorization that has a shopper to wait for, with what each of it means."""

from typing import Any

import pytest

from domain.bank import ActionRequired, Answer, Approved, Declined, Operation, Unknown
from infrastructure.bank.client import Reply
from infrastructure.bank.driver import classify, classify_look
from tests.builders import a_bank_request, dollars
from tests.infrastructure.bank.test_classify import APPROVALS

URL = "http://127.0.0.1:8787/challenges/abc"
WAITS: dict[str, Any] = {
    "authorization_id": "auth_1",
    "status": "requires_action",
    "amount": 5000,
    "currency": "USD",
    "action_url": URL,
    "created_at": "2026-11-20T12:00:00Z",
}
REFUSED = WAITS | {"status": "declined", "code": "authentication_required"}
WRONG: list[dict[str, Any]] = [
    {"amount": 4999},
    {"amount": True},
    {"amount": 5000.0},
    {"currency": "EUR"},
    {"currency": None},
]
WRONG_QUESTIONS: list[dict[str, Any]] = [
    *WRONG,
    {"authorization_id": None},
    {"authorization_id": "auth 1"},
    {"authorization_id": "a" * 256},
    {"action_url": None},
    {"action_url": "javascript:alert(1)"},
    {"action_url": "https://"},
    {"action_url": "https://bank.test/ space"},
    {"action_url": "https://bank.test/" + "a" * 2000},
]


def asked(body: dict[str, Any] | None, status: int = 200, *, replayed: bool = False) -> Answer:
    reply = Reply(status=status, body=body, replayed=replayed)
    return classify(a_bank_request(money=dollars(50)), reply, attempts=0)


def looked(body: dict[str, Any] | None, status: int = 200) -> Answer:
    request = a_bank_request(money=dollars(50), bank_id="auth_1", card=None)
    return classify_look(request, Reply(status=status, body=body, replayed=False))


@pytest.mark.parametrize("replayed", [True, False])
def test_a_question_to_the_shopper_is_one(replayed: bool) -> None:
    expected = ActionRequired(bank_id="auth_1", url=URL, replayed=replayed)

    assert asked(WAITS, replayed=replayed) == expected


@pytest.mark.parametrize("wrong", WRONG_QUESTIONS)
def test_a_question_about_something_else_contradicts(wrong: dict[str, Any]) -> None:
    answer = asked(WAITS | wrong)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.contradicts) == (True, True)


def test_what_is_seen_is_what_became_of_it() -> None:
    assert looked(WAITS) == ActionRequired(bank_id="auth_1", url=URL)
    assert isinstance(looked(APPROVALS[Operation.AUTHORIZATION]), Approved)
    assert looked(REFUSED) == Declined(code="authentication_required")


@pytest.mark.parametrize("body", [WAITS, REFUSED, APPROVALS[Operation.AUTHORIZATION]])
@pytest.mark.parametrize("wrong", [*WRONG, {"authorization_id": "auth_2"}, {"status": "odd"}])
def test_a_record_of_something_else_contradicts_and_leaves_nothing_open(
    body: dict[str, Any], wrong: dict[str, Any]
) -> None:
    answer = looked(body | wrong)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.contradicts) == (False, True)


@pytest.mark.parametrize("code", [None, "", "No Code", 7])
def test_a_no_without_a_word_is_none(code: object) -> None:
    answer = looked(REFUSED | {"code": code})

    assert isinstance(answer, Unknown)
    assert answer.contradicts


@pytest.mark.parametrize(
    ("status", "body", "contradicts"),
    [
        (404, {"error": "not_found"}, True),
        (500, {"error": "internal_error"}, False),
        (502, None, False),
        (200, None, False),
        (404, None, False),
    ],
)
def test_what_is_not_seen_leaves_nothing_open(
    status: int, body: dict[str, Any] | None, contradicts: bool
) -> None:
    answer = looked(body, status)

    assert isinstance(answer, Unknown)
    assert (answer.unanswered, answer.contradicts) == (False, contradicts)

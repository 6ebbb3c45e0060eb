"""Payment intents: which status follows from what, and what is allowed in which."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from domain.errors import IntentStateConflict
from domain.payment import LIVE, Status
from domain.payment_intent import (
    ALLOWED_IN,
    Attempt,
    IntentStatus,
    PaymentIntent,
    Terms,
    status_of,
)
from tests.builders import NOON, a_tenant, an_id, dollars

WAITS = Attempt(status=Status.PENDING, is_running=True, waits_for_shopper=True)
COMMANDS = sorted(ALLOWED_IN)


def attempt(status: Status, *, is_running: bool = False) -> Attempt:
    return Attempt(status=status, is_running=is_running or status is Status.PENDING)


# Which last attempt makes which status, with a method that was tried and no word of giving up.
BY_ATTEMPT = [
    (attempt(Status.PENDING), IntentStatus.PROCESSING),
    (WAITS, IntentStatus.REQUIRES_ACTION),
    (attempt(Status.AUTHORIZED), IntentStatus.REQUIRES_CAPTURE),
    (attempt(Status.AUTHORIZED, is_running=True), IntentStatus.PROCESSING),
    (attempt(Status.CAPTURED), IntentStatus.SUCCEEDED),
    (attempt(Status.CAPTURED, is_running=True), IntentStatus.SUCCEEDED),
    (attempt(Status.REFUNDED), IntentStatus.SUCCEEDED),
    (attempt(Status.VOIDED), IntentStatus.CANCELED),
    (attempt(Status.EXPIRED), IntentStatus.CANCELED),
    (attempt(Status.DECLINED), IntentStatus.REQUIRES_PAYMENT_METHOD),
]


def an_intent(**terms: Any) -> PaymentIntent:
    wanted = Terms(money=dollars(20), metadata={}, **terms)
    return PaymentIntent.create(
        intent_id=an_id(), tenant=a_tenant(), family="payment_intents", terms=wanted, at=NOON
    )


@pytest.mark.parametrize(("last", "status"), BY_ATTEMPT)
def test_the_status_follows_from_the_last_attempt(last: Attempt, status: IntentStatus) -> None:
    found = status_of(last, has_method=True, is_method_new=False, is_canceled=False)

    assert found is status


def test_every_status_of_a_payment_makes_one_of_an_intent() -> None:
    assert {last.status for last, _ in BY_ATTEMPT} == set(Status)
    assert {status for _, status in BY_ATTEMPT} == set(IntentStatus) - {
        IntentStatus.REQUIRES_CONFIRMATION
    }


def test_before_an_attempt_it_is_the_method_that_is_wanted_and_then_a_word() -> None:
    assert an_intent().status(None) is IntentStatus.REQUIRES_PAYMENT_METHOD
    ready = an_intent(payment_method_id="pm_card_visa")
    assert ready.status(None) is IntentStatus.REQUIRES_CONFIRMATION


def test_another_method_after_a_decline_can_be_confirmed() -> None:
    intent = an_intent(payment_method_id="pm_card_visa")
    intent.begin_attempt(an_id(), "pm_card_visa", None, at=NOON)
    declined = attempt(Status.DECLINED)
    assert intent.status(declined) is IntentStatus.REQUIRES_PAYMENT_METHOD

    intent.update(replace(intent.terms, payment_method_id="pm_other"), declined, at=NOON)

    assert intent.status(declined) is IntentStatus.REQUIRES_CONFIRMATION


@pytest.mark.parametrize(
    ("command", "found"), list(product(COMMANDS, BY_ATTEMPT)), ids=lambda each: str(each)[:40]
)
def test_a_command_is_refused_where_the_status_does_not_allow_it(
    command: str, found: tuple[Attempt, IntentStatus]
) -> None:
    last, status = found
    intent = an_intent(payment_method_id="pm_card_visa")
    intent.begin_attempt(an_id(), "pm_card_visa", None, at=NOON)
    before = intent.version

    if status in ALLOWED_IN[command]:
        intent.refuse_unless_allowed(command, last)
    else:
        with pytest.raises(IntentStateConflict) as refused:
            intent.refuse_unless_allowed(command, last)
        assert refused.value.status == status.value
    assert intent.version == before


@pytest.mark.parametrize("last", [last for last, _ in BY_ATTEMPT if last.status in LIVE])
def test_nothing_is_tried_while_an_attempt_may_still_succeed(last: Attempt) -> None:
    intent = an_intent(payment_method_id="pm_card_visa")
    intent.begin_attempt(an_id(), "pm_card_visa", None, at=NOON)

    with pytest.raises(IntentStateConflict):
        intent.begin_attempt(an_id(), "pm_card_visa", last, at=NOON)

    assert len(intent.attempts) == 1


def test_what_was_given_up_is_tried_no_more() -> None:
    intent = an_intent(payment_method_id="pm_card_visa")
    intent.cancel("abandoned", None, at=NOON)

    assert intent.status(None) is IntentStatus.CANCELED
    for command in COMMANDS:
        with pytest.raises(IntentStateConflict):
            intent.refuse_unless_allowed(command, None)


def test_an_update_that_changes_nothing_is_none() -> None:
    intent = an_intent()
    intent.update(intent.terms, None, at=NOON)

    assert intent.version == 1

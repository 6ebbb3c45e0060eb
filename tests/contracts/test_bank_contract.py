"""What every bank behind the port answers, whatever it is made of."""

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from domain.bank import (
    AlreadyDone,
    Answer,
    Approved,
    BankRequest,
    Contradicted,
    Declined,
    Operation,
    Rejected,
    Unknown,
)
from domain.cards import Card
from tests.builders import (
    EXPIRED_MASTERCARD,
    FULL_AMOUNTS,
    UNKNOWN_VISA,
    a_bank_request,
    a_card,
    a_small_card,
    an_empty_card,
    dollars,
)
from tests.contracts.banks import Partner
from tests.fakes import Misfortune

# Transfers take a while, and are held to a contract of their own.
ON_A_CARD = [each for each in Operation if each is not Operation.TRANSFER]


def approved(answer: Answer) -> Approved:
    assert isinstance(answer, Approved), answer
    return answer


def held(partner: Partner) -> str:
    return approved(partner.bank.perform(a_bank_request())).bank_id


def captured(partner: Partner) -> str:
    return approved(partner.bank.perform(about(Operation.CAPTURE, held(partner)))).bank_id


def about(operation: Operation, bank_id: str, **overrides: object) -> BankRequest:
    return a_bank_request(operation, bank_id=bank_id, **overrides)


def begun(partner: Partner, operation: Operation) -> BankRequest:
    """A request for `operation` on something that is ready for it."""
    match operation:
        case Operation.AUTHORIZATION:
            return a_bank_request()
        case Operation.REFUND:
            return about(operation, captured(partner))
        case _:
            return about(operation, held(partner))


def again(request: BankRequest, *, attempts: int = 1, ask_first: bool = False) -> BankRequest:
    """The same question, put later by whoever took the call up."""
    return BankRequest(
        operation=request.operation,
        key=request.key,
        money=request.money,
        bank_id=request.bank_id,
        card=request.card,
        ask_first=ask_first,
        attempts_before=attempts,
        seconds_left=request.seconds_left,
    )


def test_it_takes_full_amounts_of_dollars_with_a_cvc(partner: Partner) -> None:
    assert partner.bank.capabilities == FULL_AMOUNTS


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_what_is_asked_is_approved_under_an_id_of_its_kind(
    partner: Partner, operation: Operation
) -> None:
    request = begun(partner, operation)
    prefixes = {"authorization": "auth_", "capture": "cap_", "void": "void_", "refund": "ref_"}

    answer = approved(partner.bank.perform(request))

    assert answer.bank_id.startswith(prefixes[operation])
    assert not answer.replayed
    assert partner.done_under(request.key) == 1


def test_a_hold_lasts_seven_days(partner: Partner) -> None:
    partner.days_pass(0)

    answer = approved(partner.bank.perform(a_bank_request()))

    assert answer.expires_at is not None
    assert answer.expires_at.tzinfo is UTC
    other = approved(partner.bank.perform(a_bank_request()))
    assert other.expires_at is not None
    assert other.expires_at - answer.expires_at < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (an_empty_card(), "insufficient_funds"),
        (a_card(cvc="999"), "invalid_cvv"),
        (a_card(number=EXPIRED_MASTERCARD, cvc="321", exp_month=3), "card_expired"),
        (a_card(number=UNKNOWN_VISA), "invalid_card"),
    ],
)
def test_a_card_that_is_no_good_is_declined_by_the_banks_own_word(
    partner: Partner, card: Card, code: str
) -> None:
    request = a_bank_request(card=card)

    answer = partner.bank.perform(request)

    assert answer == Declined(code=code)
    assert partner.done_under(request.key) == 0


def test_more_than_the_card_has_is_declined(partner: Partner) -> None:
    answer = partner.bank.perform(a_bank_request(card=a_small_card(), money=dollars(501)))

    assert answer == Declined(code="insufficient_funds")


def test_a_decline_is_not_remembered(partner: Partner) -> None:
    request = a_bank_request(card=an_empty_card(), money=dollars(50))
    first = partner.bank.perform(request)
    partner.deposit(an_empty_card().number, 5000)

    second = approved(partner.bank.perform(request))

    assert isinstance(first, Declined)
    assert not second.replayed


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_the_same_key_again_is_a_replay_and_does_nothing(
    partner: Partner, operation: Operation
) -> None:
    request = begun(partner, operation)
    first = approved(partner.bank.perform(request))

    second = approved(partner.bank.perform(request))

    assert (second.bank_id, second.replayed) == (first.bank_id, True)
    assert second.expires_at == first.expires_at
    assert partner.done_under(request.key) == 1


@pytest.mark.parametrize("first", [Operation.CAPTURE, Operation.VOID])
@pytest.mark.parametrize("second", [Operation.CAPTURE, Operation.VOID])
def test_a_hold_ends_once(partner: Partner, first: Operation, second: Operation) -> None:
    hold = held(partner)
    approved(partner.bank.perform(about(first, hold)))
    request = about(second, hold)

    answer = partner.bank.perform(request)

    assert answer == AlreadyDone(code="authorization_already_used", after_attempts=0)
    assert partner.done_under(request.key) == 0


def test_a_capture_is_refunded_once(partner: Partner) -> None:
    capture = captured(partner)
    approved(partner.bank.perform(about(Operation.REFUND, capture)))

    answer = partner.bank.perform(about(Operation.REFUND, capture))

    assert answer == AlreadyDone(code="already_refunded", after_attempts=0)


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.REFUND])
def test_a_part_of_an_amount_is_our_own_fault(partner: Partner, operation: Operation) -> None:
    whole = begun(partner, operation)
    assert whole.bank_id is not None

    answer = partner.bank.perform(about(operation, whole.bank_id, money=dollars(49)))

    assert answer == Rejected(reason="amount_mismatch")


def test_a_hold_that_ran_out_is_not_captured_but_released(partner: Partner) -> None:
    hold = held(partner)
    partner.days_pass(8)

    captured_late = partner.bank.perform(about(Operation.CAPTURE, hold))
    released = partner.bank.perform(about(Operation.VOID, hold))

    assert captured_late == Declined(code="authorization_expired")
    assert approved(released).bank_id.startswith("void_")


@pytest.mark.parametrize(
    ("operation", "bank_id"),
    [
        (Operation.CAPTURE, "auth_00000000-0000-4000-8000-000000000000"),
        (Operation.VOID, "auth_00000000-0000-4000-8000-000000000000"),
        (Operation.REFUND, "cap_00000000-0000-4000-8000-000000000000"),
    ],
)
def test_an_id_that_the_bank_does_not_find_ends_nothing(
    partner: Partner, operation: Operation, bank_id: str
) -> None:
    answer = partner.bank.perform(about(operation, bank_id, seconds_left=1.0))

    assert isinstance(answer, Unknown)
    assert answer.contradicts
    assert not answer.unanswered


@pytest.mark.parametrize("operation", ON_A_CARD)
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_failures_that_are_received_are_asked_again_under_the_same_key(
    partner: Partner, operation: Operation, failures: int
) -> None:
    request = begun(partner, operation)
    partner.will_suffer(operation, *[Misfortune.FAILS] * failures)

    answer = approved(partner.bank.perform(request))

    assert not answer.replayed
    assert partner.done_under(request.key) == 1


def test_too_many_failures_are_an_unknown_outcome_that_was_answered(partner: Partner) -> None:
    request = a_bank_request()
    partner.will_suffer(Operation.AUTHORIZATION, *[Misfortune.FAILS] * 4)

    answer = partner.bank.perform(request)

    assert isinstance(answer, Unknown)
    assert not answer.unanswered
    assert partner.done_under(request.key) == 0


@pytest.mark.parametrize(
    ("misfortune", "done"),
    [(Misfortune.SILENT_BEFORE, 0), (Misfortune.SILENT_AFTER, 1), (Misfortune.FORGETS, 1)],
)
@pytest.mark.parametrize("operation", ON_A_CARD)
def test_silence_is_an_unknown_outcome_and_is_not_asked_again_at_once(
    partner: Partner, operation: Operation, misfortune: Misfortune, done: int
) -> None:
    request = begun(partner, operation)
    partner.will_suffer(operation, misfortune)

    answer = partner.bank.perform(request)

    assert isinstance(answer, Unknown)
    assert answer.unanswered
    assert partner.done_under(request.key) == done


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_a_lost_answer_is_had_again_under_the_same_key(
    partner: Partner, operation: Operation
) -> None:
    request = begun(partner, operation)
    partner.will_suffer(operation, Misfortune.SILENT_AFTER)
    partner.bank.perform(request)

    answer = approved(partner.bank.perform(again(request, ask_first=True)))

    assert answer.replayed
    assert partner.done_under(request.key) == 1


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_what_was_not_done_is_done_when_it_is_asked_again(
    partner: Partner, operation: Operation
) -> None:
    request = begun(partner, operation)
    partner.will_suffer(operation, Misfortune.SILENT_BEFORE)
    partner.bank.perform(request)

    answer = approved(partner.bank.perform(again(request, ask_first=True)))

    assert not answer.replayed
    assert partner.done_under(request.key) == 1


def test_a_forgotten_hold_is_made_again(partner: Partner) -> None:
    request = a_bank_request()
    partner.will_suffer(Operation.AUTHORIZATION, Misfortune.FORGETS)
    partner.bank.perform(request)

    answer = approved(partner.bank.perform(again(request, ask_first=True)))

    assert not answer.replayed
    assert partner.done_under(request.key) == 2


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Operation.CAPTURE, "authorization_already_used"),
        (Operation.VOID, "authorization_already_used"),
        (Operation.REFUND, "already_refunded"),
    ],
)
def test_what_was_done_and_forgotten_is_already_done(
    partner: Partner, operation: Operation, code: str
) -> None:
    request = begun(partner, operation)
    partner.will_suffer(operation, Misfortune.FORGETS)
    partner.bank.perform(request)

    answer = partner.bank.perform(again(request))

    assert answer == AlreadyDone(code=code, after_attempts=0)
    assert partner.done_under(request.key) == 1


# --- so late that the bank may have forgotten ---


@pytest.mark.parametrize("operation", [Operation.AUTHORIZATION, Operation.REFUND])
def test_what_the_bank_remembers_can_be_asked_for_alone(
    partner: Partner, operation: Operation
) -> None:
    request = begun(partner, operation)
    first = approved(partner.bank.perform(request))

    answer = approved(partner.bank.perform(replace(request, ask_only=True, attempts_before=1)))

    assert (answer.bank_id, answer.replayed) == (first.bank_id, True)
    assert partner.done_under(request.key) == 1


@pytest.mark.parametrize("operation", [Operation.AUTHORIZATION, Operation.REFUND])
def test_nothing_is_done_by_asking_alone(partner: Partner, operation: Operation) -> None:
    request = replace(begun(partner, operation), ask_only=True, attempts_before=1)

    answer = partner.bank.perform(request)

    assert isinstance(answer, Contradicted)
    assert partner.done_under(request.key) == 0


def test_the_bank_forgets_a_key_after_a_day(partner: Partner) -> None:
    request = a_bank_request()
    partner.days_pass(0)
    approved(partner.bank.perform(request))
    partner.days_pass(2)

    alone = partner.bank.perform(replace(request, ask_only=True, attempts_before=1))
    again = approved(partner.bank.perform(request))

    assert isinstance(alone, Contradicted)
    assert not again.replayed
    assert partner.done_under(request.key) == 2


# --- down ---


def test_a_bank_that_answers_takes_new_authorizations(partner: Partner) -> None:
    partner.bank.perform(a_bank_request())

    assert partner.bank.admits()


def test_a_bank_that_is_down_takes_none_until_it_has_answered_a_few_times(
    partner: Partner,
) -> None:
    hold = held(partner)
    partner.goes_down()
    while_down = partner.bank.admits()

    taken = partner.bank.perform(about(Operation.CAPTURE, hold))
    after_one = partner.bank.admits()
    for _ in range(2):
        partner.bank.perform(a_bank_request())

    assert isinstance(taken, Approved)
    assert (while_down, after_one, partner.bank.admits()) == (False, False, True)

"""What every bank that has shoppers approve answers, whatever it is made of."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.bank import (
    ActionRequired,
    AlreadyDone,
    Approved,
    BankRequest,
    Declined,
    Operation,
    Unknown,
)
from domain.bank_records import BankRecord
from tests.builders import ANY_AMOUNT, a_bank_request, a_challenged_card, dollars
from tests.contracts.banks import ChallengingPartner
from tests.fakes import Misfortune

NOT_APPROVED = Declined(code="authentication_required")


def a_challenged_request() -> BankRequest:
    return a_bank_request(card=a_challenged_card(), return_url="https://shop.example/?order=1")


def asked(partner: ChallengingPartner, request: BankRequest) -> ActionRequired:
    answer = partner.bank.perform(request)
    assert isinstance(answer, ActionRequired), answer
    return answer


def later(request: BankRequest, answer: ActionRequired) -> BankRequest:
    """As the ledger asks once it knows what waits: without the card."""
    return replace(request, bank_id=answer.bank_id, card=None, attempts_before=1)


def test_it_has_shoppers_approve_and_takes_transfers(challenging: ChallengingPartner) -> None:
    assert challenging.bank.capabilities == ANY_AMOUNT
    assert ANY_AMOUNT.three_d_secure
    assert ANY_AMOUNT.bank_transfers


def test_nothing_is_held_before_the_shopper_approves(challenging: ChallengingPartner) -> None:
    request = a_challenged_request()

    answer = asked(challenging, request)

    assert answer.bank_id.startswith("auth_")
    assert answer.url.startswith("http")
    assert not answer.replayed
    assert challenging.bank.perform(later(request, answer)) == answer
    assert challenging.done_under(request.key) == 0


def test_what_the_shopper_approved_is_held_under_the_id_that_waited(
    challenging: ChallengingPartner,
) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    challenging.shopper_decides(waiting, approves=True)

    answer = challenging.bank.perform(later(request, waiting))

    assert isinstance(answer, Approved)
    assert answer.bank_id == waiting.bank_id
    assert answer.expires_at is not None
    assert challenging.done_under(request.key) == 1
    capture = a_bank_request(Operation.CAPTURE, bank_id=answer.bank_id)
    assert isinstance(challenging.bank.perform(capture), Approved)
    assert isinstance(challenging.bank.perform(later(request, waiting)), Approved)


def test_what_the_shopper_refused_is_declined(challenging: ChallengingPartner) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    challenging.shopper_decides(waiting, approves=False)
    challenging.shopper_decides(waiting, approves=True)  # too late

    assert challenging.bank.perform(later(request, waiting)) == NOT_APPROVED
    assert challenging.done_under(request.key) == 0


def test_what_no_shopper_came_for_within_a_day_is_declined(challenging: ChallengingPartner) -> None:
    challenging.days_pass(0)
    request = a_challenged_request()
    waiting = asked(challenging, request)
    challenging.days_pass(1)
    challenging.shopper_decides(waiting, approves=True)  # too late

    assert challenging.bank.perform(later(request, waiting)) == NOT_APPROVED
    assert challenging.done_under(request.key) == 0


def test_the_memory_of_the_key_says_for_ever_that_the_shopper_has_to_approve(
    challenging: ChallengingPartner,
) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    challenging.shopper_decides(waiting, approves=True)

    again = asked(challenging, replace(request, attempts_before=1, ask_first=True))

    assert again == replace(waiting, replayed=True)
    assert challenging.done_under(request.key) == 1


def test_an_answer_that_was_lost_is_had_again(challenging: ChallengingPartner) -> None:
    request = a_challenged_request()
    challenging.will_suffer(Operation.AUTHORIZATION, Misfortune.SILENT_AFTER)
    silence = challenging.bank.perform(request)

    answer = asked(challenging, replace(request, attempts_before=1, ask_first=True))

    assert isinstance(silence, Unknown)
    assert silence.unanswered
    assert answer.replayed


def test_an_id_that_it_does_not_know_ends_nothing(challenging: ChallengingPartner) -> None:
    stranger = a_bank_request(bank_id="auth_00000000-0000-4000-8000-000000000000", card=None)

    answer = challenging.bank.perform(stranger)

    assert isinstance(answer, Unknown)
    assert answer.contradicts
    assert not answer.unanswered


@pytest.mark.parametrize(("approves", "status"), [(None, "requires_action"), (False, "declined")])
def test_its_records_tell_what_waits_from_what_was_refused(
    challenging: ChallengingPartner, approves: bool | None, status: str
) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    if approves is not None:
        challenging.shopper_decides(waiting, approves=approves)

    by_id = challenging.records.look_up(Operation.AUTHORIZATION, waiting.bank_id)
    by_key = challenging.records.remembered(Operation.AUTHORIZATION, request.key)

    assert isinstance(by_id, BankRecord)
    assert isinstance(by_key, BankRecord)
    assert (by_id.status, by_key.status) == (status, "requires_action")
    assert by_id.amount_minor == by_key.amount_minor == dollars(50).amount_minor


def test_a_hold_lasts_from_the_approval(challenging: ChallengingPartner) -> None:
    challenging.days_pass(0)
    first, second = a_challenged_request(), a_challenged_request()
    one, other = asked(challenging, first), asked(challenging, second)
    challenging.shopper_decides(one, approves=True)
    challenging.shopper_decides(other, approves=True)

    holds = [challenging.bank.perform(later(*each)) for each in ((first, one), (second, other))]

    expiries = [hold.expires_at for hold in holds if isinstance(hold, Approved) and hold.expires_at]
    assert len(expiries) == 2
    assert abs(expiries[1] - expiries[0]) < timedelta(minutes=1)


def test_what_is_given_up_before_the_shopper_approves_can_never_be_held(
    challenging: ChallengingPartner,
) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    give_up = a_bank_request(Operation.VOID, bank_id=waiting.bank_id)

    gone = challenging.bank.perform(give_up)
    challenging.shopper_decides(waiting, approves=True)  # too late
    again = challenging.bank.perform(replace(give_up, key=f"{give_up.key}-again"))

    assert isinstance(gone, Approved)
    assert challenging.done_under(request.key) == 0
    assert isinstance(challenging.bank.perform(later(request, waiting)), Declined)
    assert isinstance(again, AlreadyDone)


@pytest.mark.parametrize("approves", [True, False])
def test_what_is_given_up_after_the_shopper_decided_is_held_no_more(
    challenging: ChallengingPartner, approves: bool
) -> None:
    request = a_challenged_request()
    waiting = asked(challenging, request)
    challenging.shopper_decides(waiting, approves=approves)

    answer = challenging.bank.perform(a_bank_request(Operation.VOID, bank_id=waiting.bank_id))

    assert isinstance(answer, Approved if approves else AlreadyDone)
    capture = a_bank_request(Operation.CAPTURE, bank_id=waiting.bank_id)
    assert not isinstance(challenging.bank.perform(capture), Approved)

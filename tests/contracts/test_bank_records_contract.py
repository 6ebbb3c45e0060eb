"""What every bank behind the port says of its records, whatever it is made of."""

from datetime import UTC

import pytest

from domain.bank import Approved, BankRequest, Operation
from domain.bank_records import BankRecord, NoRecord, NotTold
from tests.builders import a_bank_request, an_empty_card
from tests.contracts.banks import RecordKeeper
from tests.contracts.test_bank_contract import ON_A_CARD, about, approved, begun, captured, held
from tests.fakes import Misfortune

LOOKED_UP = [Operation.AUTHORIZATION, Operation.CAPTURE, Operation.REFUND]
STATUSES = {
    Operation.AUTHORIZATION: "approved",
    Operation.CAPTURE: "captured",
    Operation.VOID: "voided",
    Operation.REFUND: "refunded",
}
NOBODYS = {
    Operation.AUTHORIZATION: "auth_00000000-0000-4000-8000-000000000000",
    Operation.CAPTURE: "cap_00000000-0000-4000-8000-000000000000",
    Operation.REFUND: "ref_00000000-0000-4000-8000-000000000000",
}


def done(keeper: RecordKeeper, operation: Operation) -> tuple[BankRequest, Approved]:
    request = begun(keeper, operation)
    return request, approved(keeper.bank.perform(request))


def a_record(request: BankRequest, answer: Approved) -> BankRecord:
    """As the bank ought to have it."""
    has_money = request.operation is not Operation.VOID
    return BankRecord(
        operation=request.operation,
        bank_id=answer.bank_id,
        status=STATUSES[request.operation],
        amount_minor=request.money.amount_minor if has_money else None,
        currency=request.money.currency if has_money else None,
        about=request.bank_id,
        expires_at=answer.expires_at,
    )


@pytest.mark.parametrize("operation", LOOKED_UP)
def test_what_was_done_is_on_record_under_its_id(
    keeper: RecordKeeper, operation: Operation
) -> None:
    request, answer = done(keeper, operation)

    told = keeper.records.look_up(operation, answer.bank_id)

    assert told == a_record(request, answer)


def test_a_hold_is_approved_for_ever_whatever_became_of_it(keeper: RecordKeeper) -> None:
    captured_hold, voided_hold = held(keeper), held(keeper)
    approved(keeper.bank.perform(about(Operation.CAPTURE, captured_hold)))
    approved(keeper.bank.perform(about(Operation.VOID, voided_hold)))

    for hold in (captured_hold, voided_hold):
        told = keeper.records.look_up(Operation.AUTHORIZATION, hold)
        assert isinstance(told, BankRecord)
        assert told.status == "approved"
        assert told.expires_at is not None
        assert told.expires_at.tzinfo is UTC


@pytest.mark.parametrize("operation", LOOKED_UP)
def test_what_was_never_done_is_on_no_record(keeper: RecordKeeper, operation: Operation) -> None:
    assert keeper.records.look_up(operation, NOBODYS[operation]) == NoRecord()


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_what_was_done_is_remembered_under_our_key(
    keeper: RecordKeeper, operation: Operation
) -> None:
    request, answer = done(keeper, operation)

    told = keeper.records.remembered(operation, request.key)

    assert told == a_record(request, answer)
    assert keeper.done_under(request.key) == 1


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_a_question_under_a_key_that_the_bank_does_not_know_does_nothing(
    keeper: RecordKeeper, operation: Operation
) -> None:
    request = begun(keeper, operation)

    told = keeper.records.remembered(operation, request.key)

    assert told == NoRecord()
    assert keeper.done_under(request.key) == 0
    assert not approved(keeper.bank.perform(request)).replayed


def test_a_decline_and_what_was_forgotten_are_not_remembered(keeper: RecordKeeper) -> None:
    declined = a_bank_request(card=an_empty_card())
    keeper.bank.perform(declined)
    forgotten = begun(keeper, Operation.CAPTURE)
    keeper.will_suffer(Operation.CAPTURE, Misfortune.FORGETS)
    keeper.bank.perform(forgotten)

    told = [keeper.records.remembered(each.operation, each.key) for each in (declined, forgotten)]

    assert told == [NoRecord(), NoRecord()]


def test_a_bank_that_is_not_well_is_believed_in_nothing_that_it_lacks(keeper: RecordKeeper) -> None:
    request = begun(keeper, Operation.REFUND)
    capture = captured(keeper)
    keeper.loses_its_database()

    told = [
        keeper.records.look_up(Operation.CAPTURE, capture),
        keeper.records.remembered(Operation.REFUND, request.key),
    ]

    assert not keeper.records.is_well()
    for each in told:
        assert isinstance(each, NotTold)
        assert not each.bank_is_well

"""What every bank that takes money from accounts at others answers, whatever it is made of."""

from dataclasses import replace

import pytest

from domain.bank import Approved, BankRequest, Declined, Operation, UnderWay, Unknown
from domain.bank_records import BankRecord
from tests.builders import a_bank_request, an_account, dollars
from tests.contracts.banks import ChallengingPartner
from tests.fakes import FAILING_ACCOUNTS, Misfortune


@pytest.fixture
def bank(challenging: ChallengingPartner) -> ChallengingPartner:
    """Its calendar stands where it did."""
    challenging.days_pass(0)
    return challenging


def asked(partner: ChallengingPartner, request: BankRequest) -> UnderWay:
    answer = partner.bank.perform(request)
    assert isinstance(answer, UnderWay), answer
    return answer


def a_request(**account: str) -> BankRequest:
    return a_bank_request(Operation.TRANSFER, account=an_account(**account))


def later(request: BankRequest, answer: UnderWay) -> BankRequest:
    """As the ledger asks once it knows what is under way: without the account."""
    return replace(request, bank_id=answer.bank_id, account=None, attempts_before=1)


def test_a_transfer_takes_a_while_and_then_the_money_is_there(bank: ChallengingPartner) -> None:
    request = a_request()

    answer = asked(bank, request)
    at_first = bank.bank.perform(later(request, answer))
    bank.days_pass(1)
    then = bank.bank.perform(later(request, answer))

    assert answer.bank_id.startswith("trf_")
    assert not answer.replayed
    assert at_first == answer
    assert then == Approved(bank_id=answer.bank_id)


@pytest.mark.parametrize(("number", "code"), FAILING_ACCOUNTS.items())
def test_from_some_accounts_nothing_comes(bank: ChallengingPartner, number: str, code: str) -> None:
    request = a_request(number=number)
    answer = asked(bank, request)
    bank.days_pass(1)

    assert bank.bank.perform(later(request, answer)) == Declined(code=code)


@pytest.mark.parametrize("misfortune", [Misfortune.SILENT_AFTER, Misfortune.FORGETS])
def test_asked_for_again_it_is_the_same_transfer(
    bank: ChallengingPartner, misfortune: Misfortune
) -> None:
    request = a_request()
    bank.will_suffer(Operation.TRANSFER, misfortune)
    silence = bank.bank.perform(request)

    again = asked(bank, replace(request, attempts_before=1, ask_first=True))
    once_more = asked(bank, replace(request, attempts_before=2, ask_first=True))

    assert isinstance(silence, Unknown)
    assert silence.unanswered
    assert again.bank_id == once_more.bank_id


def test_it_is_the_same_when_the_key_is_remembered_no_more(bank: ChallengingPartner) -> None:
    request = a_request()
    first = asked(bank, request)
    bank.days_pass(2)

    again = bank.bank.perform(replace(request, attempts_before=1))

    assert again == Approved(bank_id=first.bank_id)


def test_what_came_is_given_back_in_parts_too_and_never_more(bank: ChallengingPartner) -> None:
    request = a_request()
    transfer = asked(bank, request)
    refund = a_bank_request(Operation.REFUND, bank_id=transfer.bank_id, money=dollars(20))
    too_early = bank.bank.perform(refund)
    bank.days_pass(1)

    parts = [
        bank.bank.perform(replace(refund, key=f"{refund.key}-{number}")) for number in range(3)
    ]

    assert isinstance(too_early, Unknown)
    assert too_early.contradicts
    assert [type(part) for part in parts] == [Approved, Approved, Declined]


def test_an_id_that_it_does_not_know_ends_nothing(bank: ChallengingPartner) -> None:
    stranger = a_bank_request(
        Operation.TRANSFER, bank_id="trf_00000000-0000-4000-8000-000000000000", account=None
    )

    answer = bank.bank.perform(stranger)

    assert isinstance(answer, Unknown)
    assert answer.contradicts
    assert not answer.unanswered


def test_its_records_tell_what_is_under_way_from_what_came(bank: ChallengingPartner) -> None:
    request = a_request()
    transfer = asked(bank, request)
    early = bank.records.look_up(Operation.TRANSFER, transfer.bank_id)
    by_key = bank.records.remembered(Operation.TRANSFER, request.key)
    bank.days_pass(1)
    late = bank.records.look_up(Operation.TRANSFER, transfer.bank_id)

    told = [early, by_key, late]

    records = [each for each in told if isinstance(each, BankRecord)]
    assert [each.status for each in records] == ["pending", "pending", "settled"]
    assert {each.amount_minor for each in records} == {dollars(50).amount_minor}

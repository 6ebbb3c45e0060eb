"""A payment whose shopper has to approve: waited for, up to a day, and never more than once held."""

from uuid import UUID

import pytest

from domain.bank import ActionRequired, Contradicted, Unknown
from domain.errors import OperationInProgress
from domain.ledger import LEASE_SECONDS, SHOPPER_AWAITED_SECONDS, Pending, Settled
from domain.payment import Payment, ReviewReason, Status
from domain.reconciliation import differences
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_challenged_card,
    a_tenant,
    authorize,
    capture,
    dollars,
    resolve,
    void,
)
from tests.fakes import FakeRecords, InMemoryLedger, Misfortune

HOUR = 3600.0
WAITING = ActionRequired(bank_id="auth_1", url="https://bank.test/challenges/auth_1")


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger(capabilities=ANY_AMOUNT)


def challenged(ledger: InMemoryLedger, key: str | None = None, dollars_: int = 50) -> UUID:
    reply = ledger.authorize(authorize(key, card=a_challenged_card(), money=dollars(dollars_)))
    assert isinstance(reply, Pending)
    assert reply.action_url is not None
    return reply.history[0].originator_id


def the_worker_comes_round(ledger: InMemoryLedger, seconds: float = 3.0) -> None:
    ledger.steppable.advance(seconds)
    for call in ledger.bank_calls.take_due(10, LEASE_SECONDS):
        ledger.resume(call, deadline=FAR_DEADLINE)


def payment(ledger: InMemoryLedger, payment_id: UUID) -> Payment:
    return ledger.payment(payment_id, a_tenant())


def decide(ledger: InMemoryLedger, *, approves: bool) -> None:
    (bank_id,) = ledger.fake_bank.challenges
    ledger.fake_bank.shopper_decides(bank_id, approves=approves)


def test_an_approved_payment_goes_on_to_be_captured(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger, "key-1")
    the_worker_comes_round(ledger)
    decide(ledger, approves=True)
    the_worker_comes_round(ledger)

    assert payment(ledger, payment_id).status == Status.AUTHORIZED
    assert isinstance(ledger.capture(capture(payment_id)), Settled)
    assert ledger.store.tables.answers.keys() == {(a_tenant(), "key-1")}


def test_a_refused_payment_is_declined_by_the_banks_word(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)
    decide(ledger, approves=False)
    the_worker_comes_round(ledger)

    declined = payment(ledger, payment_id)
    last = declined.history[-1]
    assert isinstance(last, Payment.AuthorizationDeclined)
    assert (last.code, declined.action_url) == ("authentication_required", None)
    assert declined.reviews == {}


def test_money_is_looked_for_when_the_shopper_has_approved(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger, dollars_=99_000)
    decide(ledger, approves=True)
    the_worker_comes_round(ledger)

    last = payment(ledger, payment_id).history[-1]
    assert isinstance(last, Payment.AuthorizationDeclined)
    assert last.code == "insufficient_funds"


def test_a_shopper_who_never_comes_is_given_up_and_nothing_is_in_doubt(
    ledger: InMemoryLedger,
) -> None:
    payment_id = challenged(ledger)
    the_worker_comes_round(ledger, 12 * HOUR)
    still = payment(ledger, payment_id)
    the_worker_comes_round(ledger, 12 * HOUR)

    given_up = payment(ledger, payment_id)
    assert still.status == Status.PENDING
    assert (given_up.status, given_up.reviews) == (Status.DECLINED, {})


def test_a_bank_whose_page_is_still_open_after_a_day_may_hold_money_yet(
    ledger: InMemoryLedger,
) -> None:
    payment_id = challenged(ledger)
    ledger.fake_bank.will_answer(WAITING)
    the_worker_comes_round(ledger, SHOPPER_AWAITED_SECONDS)

    given_up = payment(ledger, payment_id)
    assert given_up.status == Status.DECLINED
    assert set(given_up.reviews) == {ReviewReason.POSSIBLE_ORPHAN_HOLD}


def test_a_bank_that_is_down_for_a_day_makes_nobody_give_up(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)
    decide(ledger, approves=True)
    ledger.fake_bank.will_answer(Unknown(reason="not reached", unanswered=False))
    the_worker_comes_round(ledger, SHOPPER_AWAITED_SECONDS)
    down = payment(ledger, payment_id)
    the_worker_comes_round(ledger, 30.0)

    assert down.status == Status.PENDING
    assert payment(ledger, payment_id).status == Status.AUTHORIZED


def test_it_is_looked_less_and_less_often(ledger: InMemoryLedger) -> None:
    challenged(ledger)
    asked = len(ledger.fake_bank.requests)
    for _ in range(1800):
        the_worker_comes_round(ledger, 2.0)

    assert 120 < len(ledger.fake_bank.requests) - asked < 300


def test_what_cannot_be_is_heard_out_and_then_said(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)
    ledger.fake_bank.will_answer(Contradicted(reason="HTTP 404 not_found"))
    the_worker_comes_round(ledger)

    reviews = set(payment(ledger, payment_id).reviews)
    assert reviews == {ReviewReason.POSSIBLE_ORPHAN_HOLD, ReviewReason.BANK_DISAGREES}


def test_silence_while_it_is_looked_is_asked_again_and_leaves_no_doubt(
    ledger: InMemoryLedger,
) -> None:
    payment_id = challenged(ledger)
    decide(ledger, approves=True)
    ledger.fake_bank.will_suffer(*[Misfortune.SILENT_BEFORE] * 4)
    the_worker_comes_round(ledger)
    the_worker_comes_round(ledger, 30.0)

    done = payment(ledger, payment_id)
    assert (done.status, done.reviews) == (Status.AUTHORIZED, {})


def test_an_operator_can_decide_for_a_shopper_who_is_waited_for(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)

    ledger.resolve(resolve(payment_id, Status.DECLINED))

    decided = payment(ledger, payment_id)
    assert (decided.status, decided.action_url) == (Status.DECLINED, None)


def test_nothing_else_is_done_while_the_shopper_is_waited_for(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)

    with pytest.raises(OperationInProgress):
        ledger.void(void(payment_id))
    with pytest.raises(OperationInProgress):
        ledger.capture(capture(payment_id))


@pytest.mark.parametrize("approves", [True, False])
def test_the_banks_records_do_not_differ(ledger: InMemoryLedger, approves: bool) -> None:
    payment_id = challenged(ledger)
    decide(ledger, approves=approves)
    the_worker_comes_round(ledger)
    records = FakeRecords(ledger.fake_bank)

    found = differences(payment(ledger, payment_id), records, now=ledger.clock.now())

    assert found == []


def test_a_shopper_who_approves_what_was_given_up_is_found(ledger: InMemoryLedger) -> None:
    payment_id = challenged(ledger)
    ledger.resolve(resolve(payment_id, Status.DECLINED))
    decide(ledger, approves=True)
    records = FakeRecords(ledger.fake_bank)

    (found,) = differences(payment(ledger, payment_id), records, now=ledger.clock.now())

    assert found.kind == "unknown_authorization"

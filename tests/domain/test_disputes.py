"""Disputes: what the bank tells is recorded once and in its order, the money is where the bank says that it
is, and nothing comes between an operation and its outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.commands import Cause
from domain.dispute import DisputeNotice, DisputeStatus
from domain.disputes import Disputes
from domain.errors import OperationInProgress, PaymentStateConflict, RefundExceedsPayment
from domain.ledger import LEASE_SECONDS, Settled
from domain.payment import Payment, ReviewReason, Status
from projections import disputes
from projections.balance_transactions import moves
from projections.balances import postings
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    NOON,
    Story,
    a_notice,
    a_tenant,
    authorize,
    capture,
    refund,
)
from tests.fakes import InMemoryLedger, Misfortune

CAUSE = Cause(actor="worker")
NEEDS, REVIEWED, WON, LOST = DisputeStatus

stories = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["dsp_1", "dsp_2"]), st.sampled_from(DisputeStatus)),
        st.sampled_from(["says", "submits", "gives up", "refunds"]),
    ),
    max_size=12,
)


def withdrawn_minor(payment: Payment) -> int:
    return -sum(posting.disputed for posting in postings(payment.history))


class Shop:
    """A merchant whose payment was captured, at a bank that takes parts."""

    def __init__(self) -> None:
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        reply = self.ledger.authorize(authorize())
        assert isinstance(reply, Settled)
        self.payment_id = reply.history[0].originator_id
        self.ledger.capture(capture(self.payment_id))

    def payment(self) -> Payment:
        return self.ledger.payment(self.payment_id, a_tenant())

    def told(self, status: DisputeStatus = NEEDS, amount_minor: int = 500) -> Payment:
        capture_id = self.payment().capture_id
        notice = a_notice(
            self.payment(), bank_capture_id=capture_id, status=status, amount_minor=amount_minor
        )
        return Disputes(self.ledger).take_in(notice, self.payment_id, a_tenant(), CAUSE)

    def refund_in_doubt(self) -> None:
        self.ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
        self.ledger.refund(refund(self.payment_id, amount_minor=1000))

    def worker_comes_round(self) -> None:
        self.ledger.steppable.advance(LEASE_SECONDS + 1)
        for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
            self.ledger.resume(call, deadline=FAR_DEADLINE)


def test_a_notice_waits_for_the_refund_that_is_under_way() -> None:
    shop = Shop()
    shop.refund_in_doubt()

    with pytest.raises(OperationInProgress):
        shop.told()
    shop.worker_comes_round()
    shop.told()

    payment = shop.payment()
    assert payment.refunded_minor == 1000
    assert withdrawn_minor(payment) == 500


def test_nothing_is_said_on_a_dispute_between_a_refund_and_its_outcome() -> None:
    shop = Shop()
    shop.told()
    (dispute_id,) = shop.told(WON).disputes
    shop.refund_in_doubt()

    with pytest.raises(OperationInProgress):
        shop.payment().give_evidence(
            dispute_id, fields=[], metadata={"ticket": "4"}, is_submitted=False, at=NOON
        )

    shop.worker_comes_round()
    assert shop.payment().refunded_minor == 1000


def test_a_refund_that_something_came_between_is_pending_and_made_once() -> None:
    shop = Shop()
    perform = shop.ledger.fake_bank.perform

    def meanwhile(request: object) -> object:
        other = shop.payment()
        other.trigger_event(Payment.ReviewNeeded, reason=ReviewReason.BANK_DISAGREES.value)
        shop.ledger.record((other,), CAUSE, ())
        return perform(request)  # type: ignore[arg-type]

    shop.ledger.fake_bank.perform = meanwhile  # type: ignore[assignment, method-assign]
    reply = shop.ledger.refund(refund(shop.payment_id, amount_minor=1000))
    shop.ledger.fake_bank.perform = perform  # type: ignore[method-assign]

    assert not isinstance(reply, Settled)
    shop.worker_comes_round()
    assert shop.payment().refunded_minor == 1000
    assert shop.ledger.fake_bank.refunded_minor() == 1000


def test_what_was_lost_and_is_won_after_all_is_the_merchants_again() -> None:
    shop = Shop()
    shop.told()

    shop.told(LOST)
    payment = shop.told(WON)

    assert withdrawn_minor(payment) == 0
    assert [each["status"] for each in disputes.fold(payment.history)] == [WON]
    shop.ledger.refund(refund(shop.payment_id))
    assert shop.payment().status is Status.REFUNDED


def test_what_was_won_and_is_said_to_be_lost_needs_a_person() -> None:
    shop = Shop()
    shop.told()
    shop.told(WON)

    payment = shop.told(LOST)

    assert ReviewReason.BANK_DISAGREES in payment.reviews
    assert withdrawn_minor(payment) == 0


def test_more_than_is_left_is_withdrawn_as_the_bank_says_and_sums_to_zero() -> None:
    shop = Shop()
    shop.ledger.refund(refund(shop.payment_id))

    payment = shop.told(amount_minor=9_999_999)

    assert withdrawn_minor(payment) == 9_999_999
    assert all(
        posting.held + posting.captured + posting.refunded + posting.disputed + posting.cardholder
        == 0
        for posting in postings(payment.history)
    )


def applied(history: Story, step: tuple[str, DisputeStatus] | str) -> Story:
    """What happens, as far as it may."""
    match step:
        case (bank_id, status):
            return history.disputed(DisputeStatus(status), 700, bank_id)
        case "refunds":
            return history.refunded(100)
        case "gives up":
            return history.gave_up_dispute()
        case _:
            return history.answered_dispute(submits=step == "submits")


@given(story=stories)
def test_whatever_is_said_the_books_of_a_disputed_payment_agree(
    story: list[tuple[str, DisputeStatus] | str],
) -> None:
    history = Story().authorized().captured()
    for step in story:
        if isinstance(step, str) and step != "refunds" and len(history.payment.disputes) != 1:
            continue
        try:
            applied(history, step)
        except (PaymentStateConflict, RefundExceedsPayment):
            continue

    payment = history.payment
    told = disputes.fold(payment.history)
    assert [(each["id"], each["status"]) for each in told] == [
        (name, each.status) for name, each in payment.disputes.items()
    ]
    kept = [each for each in payment.disputes.values() if each.keeps_the_money]
    assert withdrawn_minor(payment) == 700 * len(kept)
    moved = sum(amount for *_, amount in moves(payment.history))
    assert moved == payment.captured_minor - payment.refunded_minor - withdrawn_minor(payment)
    assert len({each.bank_id for each in payment.disputes.values()}) == len(payment.disputes)


def test_a_notice_is_one_thing_however_often_it_is_told() -> None:
    shop = Shop()

    for _ in range(3):
        shop.told()
    once = shop.payment().version
    shop.told(NEEDS)

    assert shop.payment().version == once
    assert len(shop.payment().disputes) == 1


def test_a_notice_of_another_capture_waits() -> None:
    shop = Shop()
    notice: DisputeNotice = a_notice(shop.payment(), bank_capture_id="cap_another")

    with pytest.raises(OperationInProgress):
        Disputes(shop.ledger).take_in(notice, shop.payment_id, a_tenant(), CAUSE)

    assert shop.payment().disputes == {}

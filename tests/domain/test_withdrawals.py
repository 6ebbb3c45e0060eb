"""An intent that is given up while its shopper is asked: canceled, and then nothing is held and nothing
ever will be; or not canceled at all."""

from collections.abc import Iterable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.bank import Declined, Operation, Unknown
from domain.errors import ConcurrentChange, IntentStateConflict, LeaseLost
from domain.intents import PaymentIntents
from domain.ledger import LEASE_SECONDS, Pending, Settled
from domain.payment import CaptureMethod, Payment, ReviewReason, Status
from domain.payment_intent import Attempt, IntentStatus
from domain.reconciliation import differences
from domain.records import StoredAnswer
from projections.balances import postings
from projections.operations import steps
from projections.receipts import fold
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_tenant,
    an_intent,
    cancel,
    confirm,
    dollars,
    resolve,
)
from tests.fakes import FakeRecords, InMemoryLedger, Misfortune

ENOUGH_ROUNDS = 40
DECIDED = ("approves", "refuses")


class Shop:
    """A merchant whose shopper is asked to approve an intent."""

    def __init__(self, capture_method: CaptureMethod = CaptureMethod.AUTOMATIC) -> None:
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        self.intents = PaymentIntents(self.ledger)
        self.bank = self.ledger.fake_bank
        self.intent_id = self.ledger.ids.new()
        intent = an_intent(self.intent_id, capture_method=capture_method)
        reply = self.intents.confirm(confirm(self.intent_id, "confirm"), intent)
        assert isinstance(reply, Pending)
        self.payment_id: UUID = reply.history[0].originator_id

    def cancel(self, key: str = "cancel") -> Pending | Settled | StoredAnswer:
        return self.intents.cancel(
            cancel(self.intent_id, key), lambda *_: StoredAnswer(status=200, body=b"")
        )

    def shopper(self, decision: str) -> None:
        (bank_id,) = self.bank.challenges
        self.bank.shopper_decides(bank_id, approves=decision == "approves")

    def worker_comes_round(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.ledger.steppable.advance(LEASE_SECONDS + 1)
            for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
                self.ledger.resume(call, deadline=FAR_DEADLINE)

    def payment(self) -> Payment:
        return self.ledger.payment(self.payment_id, a_tenant())

    def status(self) -> IntentStatus:
        payment = self.payment()
        status = self.intents.intent(self.intent_id, a_tenant()).status(Attempt.of(payment))
        receipt = fold(payment.history)
        assert (receipt["status"], receipt.get("action_url")) == (
            payment.status,
            payment.action_url,
        )
        return status

    def held_minor(self) -> int:
        """What the bank still holds or has taken."""
        open_holds = [hold for hold in self.bank.holds.values() if hold.ended_by is None]
        return sum(hold.amount_minor for hold in open_holds) + self.bank.captured_minor()


def assert_nothing_is_wrong(shop: Shop) -> None:
    """Neither in our books, nor beside the bank's."""
    payment = shop.payment()
    assert sum(posting.held + posting.captured for posting in postings(payment.history)) == (
        shop.held_minor()
    )
    assert differences(payment, FakeRecords(shop.bank), now=shop.ledger.clock.now()) == []
    assert list(steps(payment.history))
    assert shop.ledger.store.tables.calls == {}


def test_what_is_given_up_can_be_approved_no_more() -> None:
    shop = Shop()

    reply = shop.cancel()
    shop.shopper("approves")
    shop.worker_comes_round(3)

    assert isinstance(reply, Settled)
    assert (shop.status(), shop.payment().status) == (IntentStatus.CANCELED, Status.VOIDED)
    assert shop.held_minor() == 0
    assert_nothing_is_wrong(shop)


def test_both_commands_keys_have_an_answer() -> None:
    shop = Shop()

    shop.cancel()

    answered = {key for _, key in shop.ledger.store.tables.answers}
    assert answered == {"confirm", "cancel"}


@pytest.mark.parametrize("decision", DECIDED)
def test_what_was_decided_and_not_looked_at_yet_is_given_up_all_the_same(decision: str) -> None:
    shop = Shop()
    shop.shopper(decision)

    shop.cancel()

    assert shop.status() is IntentStatus.CANCELED
    assert shop.held_minor() == 0
    assert_nothing_is_wrong(shop)


def test_a_worker_that_sees_the_approval_too_late_records_nothing() -> None:
    shop = Shop()
    shop.shopper("approves")
    shop.ledger.steppable.advance(3)
    (call,) = shop.ledger.bank_calls.take_due(10, LEASE_SECONDS)
    at_it = shop.payment()

    shop.cancel()

    with pytest.raises((LeaseLost, ConcurrentChange)):
        shop.ledger.complete(at_it, call, deadline=FAR_DEADLINE)
    assert shop.status() is IntentStatus.CANCELED
    assert shop.held_minor() == 0
    assert_nothing_is_wrong(shop)


def test_what_went_on_before_is_not_given_up() -> None:
    shop = Shop()
    shop.shopper("approves")
    shop.worker_comes_round()

    with pytest.raises(IntentStateConflict):
        shop.cancel()

    assert shop.status() is IntentStatus.SUCCEEDED
    assert shop.held_minor() == dollars(50).amount_minor


def test_while_the_bank_does_not_answer_it_is_processing_and_not_canceled() -> None:
    shop = Shop()
    shop.bank.will_suffer(Misfortune.SILENT_BEFORE)

    reply = shop.cancel()

    assert isinstance(reply, Pending)
    assert shop.status() is IntentStatus.PROCESSING
    with pytest.raises(IntentStateConflict):
        shop.cancel("again")
    shop.worker_comes_round(3)
    assert shop.status() is IntentStatus.CANCELED
    assert_nothing_is_wrong(shop)


@pytest.mark.parametrize("decision", DECIDED)
def test_where_the_bank_does_not_let_go_the_hold_is_released_when_there_is_one(
    decision: str,
) -> None:
    shop = Shop()
    shop.bank.will_answer(Declined(code="not_now"))

    shop.cancel()
    between = shop.status()
    shop.shopper(decision)
    shop.worker_comes_round(2)

    assert between is IntentStatus.PROCESSING
    assert shop.status() is IntentStatus.CANCELED
    assert shop.held_minor() == 0
    assert set(shop.payment().reviews) == {ReviewReason.BANK_DISAGREES}
    assert_nothing_is_wrong(shop)


@pytest.mark.parametrize("found", [Status.AUTHORIZED, Status.DECLINED, Status.VOIDED])
def test_an_operator_can_say_what_became_of_it(found: Status) -> None:
    shop = Shop()
    shop.bank.will_answer(Unknown(reason="down", unanswered=False))
    shop.cancel()

    bank_id = {Status.AUTHORIZED: "auth_9", Status.VOIDED: "void_9"}.get(found)
    shop.ledger.resolve(resolve(shop.payment_id, found, bank_id=bank_id))

    assert shop.payment().status == found
    assert shop.payment().running is None


@given(
    story=st.lists(
        st.sampled_from(["cancel", "worker", *DECIDED, *(each.name for each in Misfortune)]),
        max_size=12,
    ),
    capture_method=st.sampled_from(CaptureMethod),
)
def test_whatever_happens_what_is_canceled_holds_nothing(
    story: Iterable[str], capture_method: CaptureMethod
) -> None:
    shop = Shop(capture_method)
    for number, what in enumerate(story):
        if what == "cancel":
            try:
                shop.cancel(f"cancel-{number}")
            except IntentStateConflict:
                continue
        elif what == "worker":
            shop.worker_comes_round()
        elif what in DECIDED:
            shop.shopper(what)
        else:
            shop.bank.will_suffer(Misfortune[what])
        if shop.status() is IntentStatus.CANCELED:
            assert shop.held_minor() == 0
    shop.bank.has_recovered()
    shop.shopper("approves")
    shop.worker_comes_round(ENOUGH_ROUNDS)

    ended, whole = shop.status(), dollars(50).amount_minor
    holds_nothing = {IntentStatus.CANCELED, IntentStatus.REQUIRES_PAYMENT_METHOD}
    assert ended in holds_nothing | {IntentStatus.SUCCEEDED, IntentStatus.REQUIRES_CAPTURE}
    assert shop.held_minor() == (0 if ended in holds_nothing else whole)
    assert {call.operation for call in shop.bank.requests} <= set(Operation)

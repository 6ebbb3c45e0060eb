"""Commands in any order, at a bank that fails, stalls and forgets, by processes that lose their
leases: whatever happens, the ledger tells one story and the bank's books agree with it.
"""

import contextlib
from collections import Counter
from itertools import count
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from domain.bank import Operation
from domain.errors import DomainError, KeyAlreadyClaimed, LeaseLost
from domain.ids import Prefix, decode
from domain.ledger import LEASE_SECONDS, Reply
from domain.money import Money
from domain.payment import LIVE, Payment, ReviewReason, Status, bank_key
from domain.records import BankCall
from projections import receipts, refunds
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_card,
    a_challenged_card,
    a_small_card,
    a_tenant,
    an_empty_card,
    authorize,
    capture,
    refund,
    resolve,
    void,
)
from tests.fakes import InMemoryLedger, Misfortune

NEXT = {
    Status.PENDING: {Status.AUTHORIZED, Status.DECLINED},
    Status.AUTHORIZED: {Status.CAPTURED, Status.VOIDED, Status.EXPIRED},
    Status.CAPTURED: {Status.REFUNDED},
}
BY_OPERATOR = "void_by_operator"
AN_ID = {
    Status.AUTHORIZED: "auth_1",
    Status.CAPTURED: "cap_1",
    Status.REFUNDED: "ref_1",
    Status.VOIDED: "void_1",
    Status.EXPIRED: "void_1",
}
MANY = 8  # more than a run of misfortunes can take to settle one call

orders = st.sampled_from(["ORD-1", "ORD-2"])
cards = st.sampled_from([a_card(), a_card(), a_challenged_card(), a_small_card(), an_empty_card()])
amounts = st.one_of(st.none(), st.integers(1, 30_000))
misfortunes = st.lists(st.sampled_from(Misfortune), max_size=4)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
        self.bank = self.ledger.fake_bank
        self.tables_seen: dict[tuple[Any, str], Any] = {}
        self.statuses: dict[UUID, Status] = {}
        self.leases: list[BankCall] = []
        self.used_keys: list[str] = []
        self.numbers = count(1)

    # --- what happens ---

    @rule(order=orders, card=cards, amount=st.integers(1, 60_000), luck=misfortunes)
    def authorize(self, order: str, card: Any, amount: int, luck: list[Misfortune]) -> None:
        money = Money(amount, "USD")
        key = self.a_key()
        self.ask(
            lambda: self.ledger.authorize(authorize(key, order_id=order, card=card, money=money)),
            luck,
        )

    @precondition(lambda self: self.payments())
    @rule(data=st.data(), amount=amounts, luck=misfortunes)
    def capture(self, data: st.DataObject, amount: int | None, luck: list[Misfortune]) -> None:
        asked = capture(self.a_payment_id(data), self.a_key(), amount_minor=amount)
        self.ask(lambda: self.ledger.capture(asked), luck)

    @precondition(lambda self: self.payments())
    @rule(data=st.data(), luck=misfortunes)
    def void(self, data: st.DataObject, luck: list[Misfortune]) -> None:
        asked = void(self.a_payment_id(data), self.a_key())
        self.ask(lambda: self.ledger.void(asked), luck)

    @precondition(lambda self: self.payments())
    @rule(data=st.data(), amount=amounts, luck=misfortunes)
    def refund(self, data: st.DataObject, amount: int | None, luck: list[Misfortune]) -> None:
        asked = refund(self.a_payment_id(data), self.a_key(), amount_minor=amount)
        self.ask(lambda: self.ledger.refund(asked), luck)

    @precondition(lambda self: self.ledger.store.tables.claims)
    @rule(data=st.data(), order=orders)
    def use_a_key_again(self, data: st.DataObject, order: str) -> None:
        _, key = data.draw(st.sampled_from(list(self.ledger.store.tables.claims)))
        asked, before = len(self.bank.requests), self.versions()
        with contextlib.suppress(KeyAlreadyClaimed):
            self.ledger.authorize(authorize(key, order_id=order))
            raise AssertionError("a key was claimed twice")
        assert len(self.bank.requests) == asked
        assert self.versions() == before

    @rule(seconds=st.sampled_from([1, 20, 31]), luck=misfortunes, dies=st.booleans())
    def the_worker_comes_round(self, seconds: float, luck: list[Misfortune], dies: bool) -> None:
        self.ledger.steppable.advance(seconds)
        for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
            self.leases.append(call)
            if not dies:
                self.ask(lambda call=call: self.resume(call), luck)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), approves=st.booleans())
    def a_shopper_decides(self, data: st.DataObject, approves: bool) -> None:
        self.bank.shopper_decides(data.draw(st.sampled_from(self.waiting())), approves=approves)

    def waiting(self) -> list[str]:
        """The bank's ids of what shoppers were told to approve."""
        return [
            payment.awaited_authorization_id
            for payment in self.payments()
            if payment.action_url is not None and payment.awaited_authorization_id is not None
        ]

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def a_worker_wakes_up_with_an_old_lease(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.leases))
        outstanding = self.ledger.store.tables.calls.get(call.payment_id)
        if outstanding is not None and lease_of(outstanding.call) == lease_of(call):
            return  # it is not old
        before = self.versions()
        with contextlib.suppress(LeaseLost):
            self.resume(call)
            raise AssertionError("whoever lost the lease changed something")
        assert self.versions() == before

    @precondition(lambda self: self.undecided())
    @rule(data=st.data())
    def an_operator_says_what_is_in_the_banks_books(self, data: st.DataObject) -> None:
        payment_id = data.draw(st.sampled_from(self.undecided()))
        payment = self.ledger.payment(payment_id, a_tenant())
        found = self.truth_about(payment)
        if found is None:
            return
        status, bank_id, amount_minor = found
        self.ledger.resolve(
            resolve(payment.id, status, bank_id, amount_minor=amount_minor, tenant=payment.tenant)
        )
        payment = self.ledger.payment(payment.id, payment.tenant)
        assert (payment.status, payment.running, payment.reviews) == (status, None, {})

    @precondition(lambda self: self.payments())
    @rule(data=st.data())
    def an_operator_says_what_cannot_be(self, data: st.DataObject) -> None:
        payment = self.ledger.payment(self.a_payment_id(data), a_tenant())
        status = data.draw(st.sampled_from(Status))
        can_be = {payment.status, *reachable(payment.status)}
        running = payment.running is not None
        certain = not running and not payment.reviews
        if status in can_be and not certain:
            return
        before = everything(self.ledger)
        with contextlib.suppress(DomainError):
            self.ledger.resolve(resolve(payment.id, status, AN_ID.get(status)))
            raise AssertionError("what cannot be was recorded")
        assert everything(self.ledger) == before

    def undecided(self) -> list[UUID]:
        """Which nobody is at work on."""
        return [
            payment.id
            for payment in self.payments()
            if (payment.running is None and payment.reviews)
            or self.ledger.bank_calls.unattended(payment.id) is not None
        ]

    def truth_about(self, payment: Payment) -> tuple[Status, str | None, int | None] | None:
        """As an operator finds it at the bank, once the holds that nobody knows of are released;
        None where there is more to say than one decision can."""
        hold_id = payment.authorization_id or self.first_hold_of(payment)
        self.release_others(payment, hold_id)
        if hold_id is None:
            return Status.DECLINED, None, None
        ended_by = self.bank.holds[hold_id].ended_by
        if ended_by is None:
            return Status.AUTHORIZED, hold_id, None
        if ended_by.startswith("void_"):
            return Status.VOIDED, ended_by, None
        return self.truth_about_refunds(payment, ended_by)

    def truth_about_refunds(
        self, payment: Payment, capture_id: str
    ) -> tuple[Status, str | None, int | None] | None:
        taken = self.bank.captures[capture_id]
        known = set(payment.bank_refund_ids.values())
        unknown = [each for each in taken.given_back if each not in known]
        lacking = [each for each, bank_id in payment.bank_refund_ids.items() if bank_id is None]
        all_of_it = sum(taken.given_back.values()) == taken.amount_minor
        status = Status.REFUNDED if all_of_it else Status.CAPTURED
        if not unknown:
            return status, capture_id, None
        if len(unknown) > 1 or (lacking and payment.running is not None):
            return None
        amount = None if lacking else taken.given_back[unknown[0]]
        return status, unknown[0], amount

    def first_hold_of(self, payment: Payment) -> str | None:
        key = bank_key(payment.id, Operation.AUTHORIZATION, 1)
        return next((each for each, hold in self.bank.holds.items() if hold.key == key), None)

    def release_others(self, payment: Payment, hold_id: str | None) -> None:
        key = bank_key(payment.id, Operation.AUTHORIZATION, 1)
        for each, hold in self.bank.holds.items():
            if hold.key == key and each != hold_id and hold.ended_by is None:
                hold.ended_by = BY_OPERATOR
                self.bank.deposit(hold.card_number, hold.amount_minor)

    def teardown(self) -> None:
        """Once the bank is well, everything settles, and the books agree."""
        self.bank.has_recovered()
        for _ in range(MANY):
            for bank_id in self.waiting():
                self.bank.shopper_decides(bank_id, approves=True)
            self.ledger.steppable.advance(LEASE_SECONDS)
            for call in self.ledger.bank_calls.take_due(100, LEASE_SECONDS):
                self.resume(call)
        assert self.ledger.store.tables.calls == {}
        self.the_banks_books_agree()
        tables = self.ledger.store.tables
        assert set(tables.answers) == set(tables.claims)

    # --- what always holds ---

    @invariant()
    def statuses_follow_the_lifecycle(self) -> None:
        for payment in self.payments():
            before = self.statuses.get(payment.id, Status.PENDING)
            assert payment.status == before or payment.status in reachable(before)
            self.statuses[payment.id] = payment.status

    @invariant()
    def versions_have_no_gaps(self) -> None:
        for log in self.ledger.store.tables.events.values():
            assert [e.originator_version for e in log] == list(range(1, len(log) + 1))

    @invariant()
    def no_more_is_given_back_than_taken_nor_taken_than_held(self) -> None:
        for payment in self.payments():
            assert 0 <= payment.refunded_minor <= payment.captured_minor
            assert payment.captured_minor <= payment.money.amount_minor
            captured = payment.status in (Status.CAPTURED, Status.REFUNDED)
            assert captured == (payment.captured_minor > 0)

    @invariant()
    def an_order_has_one_live_payment_at_most_and_its_slot_is_its_own(self) -> None:
        live = [payment for payment in self.payments() if payment.status in LIVE]
        taken = {(p.tenant, p.order_id): p.id for p in live}
        assert len(taken) == len(live)
        assert taken == self.ledger.store.tables.slots

    @invariant()
    def a_payment_with_something_running_has_one_outstanding_call(self) -> None:
        running = {p.id: p.running.operation for p in self.payments() if p.running is not None}
        calls = self.ledger.store.tables.calls
        assert {payment_id: each.call.operation for payment_id, each in calls.items()} == running

    @invariant()
    def a_key_has_one_answer_at_most_and_it_never_changes(self) -> None:
        tables = self.ledger.store.tables
        assert set(tables.answers) <= set(tables.claims)
        for key, answer in self.tables_seen.items():
            assert tables.answers[key] == answer
        self.tables_seen = dict(tables.answers)

    @invariant()
    def receipts_tell_what_the_payment_is(self) -> None:
        for payment in self.payments():
            receipt = self.ledger.store.tables.receipts[payment.id]
            assert receipt == receipts.fold(payment.history)
            assert receipt["status"] == payment.status
            assert receipt.get("action_url") == payment.action_url
            assert receipt["amount_captured"] == payment.captured_minor
            assert receipt["amount_refunded"] == payment.refunded_minor
            running = payment.running and payment.running.operation
            assert receipt["pending_operation"] == running
            assert [r["reason"] for r in receipt["reviews"]] == list(payment.reviews)
            assert receipt["version"] == payment.version

    @invariant()
    def refunds_add_up_to_what_was_given_back(self) -> None:
        for payment in self.payments():
            rows = refunds.fold(payment.history)
            by_status = Counter[str]()
            for row in rows:
                by_status[row["status"]] += row["amount"]
            assert by_status["succeeded"] == payment.refunded_minor
            refunding = payment.running and payment.running.operation == Operation.REFUND
            assert any(row["status"] == "pending" for row in rows) == bool(refunding)

    @invariant()
    def what_the_bank_did_twice_is_said_to_need_a_review(self) -> None:
        for payment in self.payments():
            if payment.running is None and payment.authorization_id is not None:
                twice = [key for key in self.bank_keys(payment) if self.bank.done[key] > 1]
                assert not twice or payment.reviews or was_decided(payment)

    @invariant()
    def a_hold_that_we_do_not_know_of_is_said_to_be_possible(self) -> None:
        for payment in self.payments():
            every = self.bank.holds_under(self.bank_keys(payment)[0])
            holds = len([hold for hold in every if hold.ended_by != BY_OPERATOR])
            known = payment.authorization_id is not None
            if payment.status != Status.PENDING and holds > known:
                assert ReviewReason.POSSIBLE_ORPHAN_HOLD in payment.reviews

    def the_banks_books_agree(self) -> None:
        """About each payment that needs no review."""
        for payment in self.payments():
            if payment.authorization_id is None or payment.reviews:
                continue
            hold = self.bank.holds[payment.authorization_id]
            assert (hold.ended_by is None) == (payment.status == Status.AUTHORIZED)
            taken = self.bank.captures.get(payment.capture_id or "")
            assert payment.captured_minor == (taken.amount_minor if taken else 0)
            given_back = sum(taken.given_back.values()) if taken else 0
            assert payment.refunded_minor == given_back

    # --- steps ---

    def ask(self, command: Any, luck: list[Misfortune]) -> None:
        """Any command may be refused; then nothing changed and no bank was asked."""
        before, asked, claims = self.versions(), len(self.bank.requests), self.claims()
        self.bank.has_recovered()
        self.bank.will_suffer(*luck)
        try:
            command()
        except DomainError:
            assert self.versions() == before
            assert len(self.bank.requests) == asked
            assert self.claims() == claims

    def resume(self, call: BankCall) -> Reply:
        return self.ledger.resume(call, deadline=FAR_DEADLINE)

    def a_key(self) -> str:
        return f"key-{next(self.numbers)}"

    def a_payment_id(self, data: st.DataObject) -> UUID:
        return data.draw(st.sampled_from(list(self.ledger.store.tables.events)))

    def payments(self) -> list[Payment]:
        """Each replayed from what is stored."""
        ids = self.ledger.store.tables.events
        return [self.ledger.payment(payment_id, a_tenant()) for payment_id in ids]

    def versions(self) -> dict[UUID, int]:
        return {each: len(log) for each, log in self.ledger.store.tables.events.items()}

    def claims(self) -> set[Any]:
        return set(self.ledger.store.tables.claims)

    def bank_keys(self, payment: Payment) -> list[str]:
        return [r.key for r in self.bank.requests if self.payment_of(r.key) == payment.id]

    def payment_of(self, key: str) -> UUID:
        return decode(Prefix.PAYMENT, key.partition("-")[0])


def was_decided(payment: Payment) -> bool:
    return any(isinstance(event, Payment.ReviewResolved) for event in payment.history)


def everything(ledger: InMemoryLedger) -> tuple[Any, ...]:
    tables = ledger.store.tables.copy()
    return tables.events, tables.calls, tables.slots, tables.answers


def lease_of(call: BankCall) -> tuple[str, int]:
    return call.bank_key, call.fence


def reachable(status: Status) -> set[Status]:
    """Every status that can come after, at once or later."""
    following = NEXT.get(status, set())
    return following.union(*(reachable(each) for each in following))


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

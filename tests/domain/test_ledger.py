"""The ledger's commands against a bank: what is recorded, what is undone, what is finished later."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from domain.bank import AlreadyDone, Declined, Operation, Rejected, Unknown
from domain.commands import Mode, Tenant
from domain.errors import (
    CardRefused,
    CurrencyUnsupported,
    DomainError,
    KeyAlreadyClaimed,
    LeaseLost,
    OperationInProgress,
    OrderAlreadyPaid,
    PaymentNotFound,
    PaymentStateConflict,
    RefundExceedsPayment,
)
from domain.ids import Prefix, encode
from domain.ledger import (
    CONTRADICTIONS_HEARD_OUT,
    LEASE_SECONDS,
    RESERVED_SECONDS,
    Pending,
    Reply,
    Settled,
)
from domain.money import Money
from domain.payment import Payment, ReviewReason, Status
from domain.records import BankCall
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_card,
    a_tenant,
    an_empty_card,
    an_id,
    authorize,
    capture,
    dollars,
    refund,
    void,
)
from tests.fakes import InMemoryLedger, Misfortune, SteppableClock

SILENCE = Unknown(reason="no answer", unanswered=True)
CONTRADICTION = Unknown(
    reason="HTTP 400 authorization_not_found", unanswered=False, contradicts=True
)
FAILURE = Unknown(reason="HTTP 500 internal_error", unanswered=False)


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def payment_of(ledger: InMemoryLedger, reply: Reply) -> Payment:
    return ledger.payment(reply.history[0].originator_id, a_tenant())


def settled(reply: Reply) -> Settled:
    assert isinstance(reply, Settled)
    return reply


def pending(reply: Reply) -> Pending:
    assert isinstance(reply, Pending)
    return reply


def authorized(ledger: InMemoryLedger) -> Payment:
    return payment_of(ledger, settled(ledger.authorize(authorize())))


def captured(ledger: InMemoryLedger) -> Payment:
    payment = authorized(ledger)
    return payment_of(ledger, settled(ledger.capture(capture(payment.id))))


def ask(
    ledger: InMemoryLedger,
    operation: Operation,
    payment_id: UUID,
    key: str | None = None,
    tenant: Tenant | None = None,
) -> Reply:
    carried: dict[str, Any] = {"key": key, "tenant": tenant or a_tenant()}
    match operation:
        case Operation.CAPTURE:
            return ledger.capture(capture(payment_id, **carried))
        case Operation.VOID:
            return ledger.void(void(payment_id, **carried))
        case _:
            return ledger.refund(refund(payment_id, **carried))


def taken_up(ledger: InMemoryLedger, seconds: float = LEASE_SECONDS) -> BankCall:
    """The one call that is due after so long."""
    ledger.steppable.advance(seconds)
    (call,) = ledger.bank_calls.take_due(10, LEASE_SECONDS)
    return call


# --- the happy path ---


def test_money_is_held_taken_and_given_back(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)

    ledger.capture(capture(payment.id))
    reply = ledger.refund(refund(payment.id))

    final = payment_of(ledger, reply)
    assert (final.status, final.captured_minor, final.refunded_minor) == (
        Status.REFUNDED,
        5000,
        5000,
    )
    assert ledger.fake_bank.captured_minor() == ledger.fake_bank.refunded_minor() == 5000
    assert ledger.store.tables.calls == {}


def test_a_held_payment_can_be_released(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)

    reply = ledger.void(void(payment.id))

    assert payment_of(ledger, reply).status == Status.VOIDED
    assert [hold.ended_by for hold in ledger.fake_bank.holds.values()] == ["void_2"]


def test_each_step_is_two_commits_of_what_was_asked_and_what_became_of_it(
    ledger: InMemoryLedger,
) -> None:
    payment = captured(ledger)

    assert [type(event) for event in payment.history] == [
        Payment.AuthorizationRequested,
        Payment.Authorized,
        Payment.CaptureRequested,
        Payment.Captured,
    ]


def test_every_event_carries_the_cause_of_its_command(ledger: InMemoryLedger) -> None:
    reply = ledger.authorize(authorize("key-1"))

    causes = ledger.store.tables.causes[reply.history[0].originator_id]
    assert [cause.idempotency_key for cause in causes] == ["key-1", "key-1"]
    assert {cause.actor for cause in causes} == {"key_1"}


def test_the_bank_is_asked_under_a_key_of_the_payment_the_operation_and_its_number(
    ledger: InMemoryLedger,
) -> None:
    payment = captured(ledger)
    ledger.refund(refund(payment.id))

    public_id = encode(Prefix.PAYMENT, payment.id)
    assert [request.key for request in ledger.fake_bank.requests] == [
        f"{public_id}-authorization-1",
        f"{public_id}-capture-3",
        f"{public_id}-refund-5",
    ]


def test_each_operation_names_what_it_is_about(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)
    ledger.refund(refund(payment.id))

    first, second, third = ledger.fake_bank.requests
    assert (first.bank_id, first.card) == (None, a_card())
    assert (second.bank_id, second.card) == (payment.authorization_id, None)
    assert (third.bank_id, third.card) == (payment.capture_id, None)


def test_the_bank_has_the_time_of_the_request_less_what_the_answer_needs(
    ledger: InMemoryLedger,
) -> None:
    ledger.authorize(authorize(deadline=ledger.steppable.monotonic() + 10))

    (request,) = ledger.fake_bank.requests
    assert request.seconds_left == 10 - RESERVED_SECONDS


def test_several_refunds_are_asked_under_several_keys() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)

    for amount in (1000, 1500):
        ledger.refund(refund(payment.id, amount_minor=amount))

    assert ledger.fake_bank.refunded_minor() == 2500
    keys = [r.key for r in ledger.fake_bank.requests if r.operation == Operation.REFUND]
    assert len(set(keys)) == 2


@pytest.mark.parametrize(("by_charge", "prefix"), [(False, "rfnd_"), (True, "re_")])
def test_a_refund_is_spelled_by_how_it_was_asked_for(
    ledger: InMemoryLedger, by_charge: bool, prefix: str
) -> None:
    payment = captured(ledger)

    reply = ledger.refund(refund(payment.id, by_charge=by_charge))

    event = reply.history[-1]
    assert isinstance(event, Payment.Refunded)
    assert event.refund_id.startswith(prefix)


# --- idempotency keys ---


def test_a_settled_command_answers_its_key(ledger: InMemoryLedger) -> None:
    reply = settled(ledger.authorize(authorize("key-1")))

    assert ledger.store.tables.answers[a_tenant(), "key-1"] == reply.answer
    assert json.loads(reply.answer.body)["outcome"] == "Authorized"


def test_a_decline_answers_its_key_too(ledger: InMemoryLedger) -> None:
    reply = settled(ledger.authorize(authorize("key-1", card=an_empty_card())))

    assert ledger.store.tables.answers[a_tenant(), "key-1"] == reply.answer
    assert reply.answer.status == 402


def test_a_key_is_claimed_once_and_the_second_asks_no_bank(ledger: InMemoryLedger) -> None:
    ledger.authorize(authorize("key-1"))

    with pytest.raises(KeyAlreadyClaimed):
        ledger.authorize(authorize("key-1", order_id="ORD-2"))

    assert len(ledger.fake_bank.requests) == 1
    assert list(ledger.store.tables.slots) == [(a_tenant(), "ORD-1001")]


def test_the_same_request_again_is_told_by_its_key_and_not_by_its_order(
    ledger: InMemoryLedger,
) -> None:
    ledger.authorize(authorize("key-1"))

    with pytest.raises(KeyAlreadyClaimed):
        ledger.authorize(authorize("key-1"))


def test_a_key_of_another_mode_or_merchant_is_another_key(ledger: InMemoryLedger) -> None:
    ledger.authorize(authorize("key-1"))

    live = ledger.authorize(authorize("key-1", tenant=a_tenant(mode=Mode.LIVE)))
    other = ledger.authorize(authorize("key-1", tenant=a_tenant("mer_other")))

    assert isinstance(live, Settled)
    assert isinstance(other, Settled)


def test_a_command_without_a_key_stores_no_answer(ledger: InMemoryLedger) -> None:
    ledger.authorize(authorize())

    assert ledger.store.tables.claims == {}
    assert ledger.store.tables.answers == {}


def test_a_key_stays_unanswered_while_the_outcome_is_unknown(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE)

    ledger.authorize(authorize("key-1"))

    assert (a_tenant(), "key-1") in ledger.store.tables.claims
    assert ledger.store.tables.answers == {}


# --- one live payment an order ---


def test_an_order_has_one_live_payment(ledger: InMemoryLedger) -> None:
    authorized(ledger)

    with pytest.raises(OrderAlreadyPaid) as refused:
        ledger.authorize(authorize("key-2"))

    assert refused.value.code == "order_already_paid"
    assert len(ledger.fake_bank.requests) == 1
    assert ledger.store.tables.claims == {}


def test_an_order_is_taken_while_its_payment_is_pending(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE)
    ledger.authorize(authorize())

    with pytest.raises(OrderAlreadyPaid):
        ledger.authorize(authorize())


def test_orders_of_two_merchants_or_modes_are_two(ledger: InMemoryLedger) -> None:
    ledger.authorize(authorize())

    ledger.authorize(authorize(tenant=a_tenant(mode=Mode.LIVE)))
    ledger.authorize(authorize(tenant=a_tenant("mer_other")))

    assert len(ledger.fake_bank.holds) == 3


def test_a_decline_frees_the_order_for_another_card(ledger: InMemoryLedger) -> None:
    ledger.authorize(authorize(card=an_empty_card()))

    reply = ledger.authorize(authorize())

    assert payment_of(ledger, reply).status == Status.AUTHORIZED


def test_a_void_frees_the_order(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    ledger.void(void(payment.id))

    assert authorized(ledger).id != payment.id


def test_a_full_refund_frees_the_order_and_a_partial_one_does_not() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)
    ledger.refund(refund(payment.id, amount_minor=4999))

    with pytest.raises(OrderAlreadyPaid):
        ledger.authorize(authorize())
    ledger.refund(refund(payment.id, amount_minor=1))

    assert authorized(ledger).status == Status.AUTHORIZED


@pytest.mark.parametrize(
    "answer",
    [
        Declined(code="authorization_expired"),
        Rejected(reason="invalid_amount"),
        AlreadyDone(code="already_captured", after_attempts=0),
    ],
)
def test_a_refused_capture_keeps_the_order(
    ledger: InMemoryLedger, answer: Declined | Rejected | AlreadyDone
) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_answer(answer)

    ledger.capture(capture(payment.id))

    assert ledger.store.tables.slots == {(a_tenant(), "ORD-1001"): payment.id}


# --- refusals leave nothing behind ---


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        ({"card": a_card(number="4111111111111112")}, CardRefused),
        ({"card": a_card(exp_year=2025)}, CardRefused),
        ({"money": Money(5000, "EUR")}, CurrencyUnsupported),
    ],
)
def test_what_we_can_tell_ourselves_reaches_no_bank_and_leaves_nothing(
    ledger: InMemoryLedger, overrides: dict[str, Any], error: type[DomainError]
) -> None:
    with pytest.raises(error):
        ledger.authorize(authorize("key-1", **overrides))

    tables = ledger.store.tables
    assert ledger.fake_bank.requests == []
    assert (tables.events, tables.claims, tables.slots, tables.calls) == ({}, {}, {}, {})


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_a_refused_command_claims_no_key_and_reaches_no_bank(
    ledger: InMemoryLedger, operation: Operation
) -> None:
    payment = authorized(ledger)
    ledger.void(void(payment.id))
    before = ledger.payment(payment.id, a_tenant()).version

    with pytest.raises(PaymentStateConflict):
        ask(ledger, operation, payment.id, "key-1")

    assert ledger.store.tables.claims == {}
    assert len(ledger.fake_bank.requests) == 2
    assert ledger.payment(payment.id, a_tenant()).version == before


def test_capture_before_authorization_is_refused_and_records_nothing(
    ledger: InMemoryLedger,
) -> None:
    ledger.fake_bank.will_answer(SILENCE)
    reply = ledger.authorize(authorize())
    payment_id = reply.history[0].originator_id

    with pytest.raises(OperationInProgress):
        ledger.capture(capture(payment_id, "key-2"))

    assert ledger.payment(payment_id, a_tenant()).version == 1
    assert ledger.store.tables.claims == {}


@pytest.mark.parametrize("tenant", [a_tenant("mer_other"), a_tenant(mode=Mode.LIVE)])
@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_anothers_payment_is_not_there(
    ledger: InMemoryLedger, tenant: Tenant, operation: Operation
) -> None:
    payment = authorized(ledger)

    with pytest.raises(PaymentNotFound) as refused:
        ask(ledger, operation, payment.id, "key-1", tenant)

    assert refused.value.code == "payment_not_found"
    assert len(ledger.fake_bank.requests) == 1
    assert ledger.store.tables.claims == {}


def test_an_unknown_payment_is_not_there(ledger: InMemoryLedger) -> None:
    with pytest.raises(PaymentNotFound):
        ledger.capture(capture(an_id(999)))


def test_a_payment_can_be_seen_as_it_was(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)

    statuses = [ledger.payment(payment.id, a_tenant(), version=v).status for v in (1, 2, 3, 4)]

    assert statuses == [Status.PENDING, Status.AUTHORIZED, Status.AUTHORIZED, Status.CAPTURED]


def test_a_payment_was_not_there_before_its_first_event(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)

    with pytest.raises(PaymentNotFound):
        ledger.payment(payment.id, a_tenant(), version=0)


# --- unknown outcomes ---


@pytest.mark.parametrize("unknown", [SILENCE, FAILURE])
def test_an_unknown_outcome_is_parked_and_the_payment_stays_as_it_was(
    ledger: InMemoryLedger, unknown: Unknown
) -> None:
    ledger.fake_bank.will_answer(unknown)

    reply = pending(ledger.authorize(authorize("key-1")))

    payment = payment_of(ledger, reply)
    assert (payment.status, payment.version) == (Status.PENDING, 1)
    assert ledger.store.tables.calls[payment.id].parked


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_any_parked_operation_is_completed_under_the_same_key(
    ledger: InMemoryLedger, operation: Operation
) -> None:
    payment = captured(ledger) if operation == Operation.REFUND else authorized(ledger)
    ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
    pending(ask(ledger, operation, payment.id))

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    assert isinstance(reply, Settled)
    assert payment_of(ledger, reply).reviews == {}
    first, second = ledger.fake_bank.requests[-2:]
    assert (first.key, first.ask_first) == (second.key, False)
    assert second.attempts_before == 1


def test_an_authorization_whose_answer_was_lost_is_found_again_and_held_once(
    ledger: InMemoryLedger,
) -> None:
    ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
    ledger.authorize(authorize("key-1"))

    reply = settled(ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE))

    payment = payment_of(ledger, reply)
    assert (payment.status, payment.reviews) == (Status.AUTHORIZED, {})
    assert len(ledger.fake_bank.holds) == 1
    assert ledger.store.tables.answers[a_tenant(), "key-1"] == reply.answer


def test_a_resumed_authorization_has_its_card_and_asks_first_only_after_silence(
    ledger: InMemoryLedger,
) -> None:
    ledger.fake_bank.will_answer(FAILURE, SILENCE)
    ledger.authorize(authorize())
    ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    asked = ledger.fake_bank.requests
    assert [request.card for request in asked] == [a_card()] * 3
    assert [request.ask_first for request in asked] == [False, False, True]
    assert [request.attempts_before for request in asked] == [0, 1, 2]


def test_a_hold_that_the_bank_forgot_is_made_twice_and_the_payment_says_so(
    ledger: InMemoryLedger,
) -> None:
    ledger.fake_bank.will_suffer(Misfortune.FORGETS)
    ledger.authorize(authorize())

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    payment = payment_of(ledger, reply)
    assert payment.status == Status.AUTHORIZED
    assert list(payment.reviews) == [ReviewReason.POSSIBLE_ORPHAN_HOLD]
    assert len(ledger.fake_bank.holds_under(ledger.fake_bank.requests[0].key)) == 2


def test_a_replay_of_the_second_try_tells_nothing_of_the_first(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_suffer(Misfortune.FORGETS, Misfortune.SILENT_AFTER)
    ledger.authorize(authorize())
    ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    assert len(ledger.fake_bank.holds) == 2
    assert list(payment_of(ledger, reply).reviews) == [ReviewReason.POSSIBLE_ORPHAN_HOLD]


def test_a_decline_after_silence_frees_the_order_and_is_reviewed(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE, Declined(code="insufficient_funds"))
    ledger.authorize(authorize())

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    payment = payment_of(ledger, reply)
    assert payment.status == Status.DECLINED
    assert list(payment.reviews) == [ReviewReason.POSSIBLE_ORPHAN_HOLD]
    assert ledger.store.tables.slots == {}


def test_failures_that_were_received_orphan_no_hold(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(FAILURE, FAILURE)
    ledger.authorize(authorize())
    ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    assert payment_of(ledger, reply).reviews == {}
    assert len(ledger.fake_bank.holds) == 1


def test_an_ask_that_died_in_flight_counts_as_unanswered(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_answer(FAILURE)
    ledger.capture(capture(payment.id))
    taken_up(ledger)  # and whoever took it is never heard of again

    call = taken_up(ledger)

    assert (call.unanswered, call.attempts) == (True, 2)


def test_a_capture_that_the_bank_did_and_forgot_is_captured_with_an_unknown_id(
    ledger: InMemoryLedger,
) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_suffer(Misfortune.FORGETS)
    ledger.capture(capture(payment.id))

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    final = payment_of(ledger, reply)
    assert (final.status, final.capture_id) == (Status.CAPTURED, None)
    assert list(final.reviews) == [ReviewReason.CAPTURE_ID_UNKNOWN]


def test_a_part_that_the_bank_gave_back_twice_is_said_to_need_a_review() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)
    ledger.fake_bank.will_suffer(Misfortune.FORGETS)
    ledger.refund(refund(payment.id, amount_minor=1000))

    reply = ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    assert ledger.fake_bank.refunded_minor() == 2000
    assert payment_of(ledger, reply).reviews != {}


def test_a_contradiction_is_heard_out_before_it_is_believed(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_answer(*[CONTRADICTION] * (CONTRADICTIONS_HEARD_OUT + 1))
    pending(ledger.capture(capture(payment.id)))

    replies = [
        ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)
        for _ in range(CONTRADICTIONS_HEARD_OUT)
    ]

    assert [isinstance(reply, Pending) for reply in replies[:-1]] == [True] * 5
    final = payment_of(ledger, settled(replies[-1]))
    assert (final.status, final.running) == (Status.AUTHORIZED, None)
    assert list(final.reviews) == [ReviewReason.BANK_DISAGREES]


def test_a_single_contradiction_after_a_long_outage_ends_nothing(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    outage = [FAILURE] * (CONTRADICTIONS_HEARD_OUT + 1)
    ledger.fake_bank.will_answer(*outage, CONTRADICTION)
    ledger.capture(capture(payment.id))
    for _ in range(CONTRADICTIONS_HEARD_OUT):
        pending(ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE))

    pending(ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE))


def test_another_command_waits_for_the_pending_one(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_answer(SILENCE)
    ledger.capture(capture(payment.id))

    with pytest.raises(OperationInProgress):
        ledger.void(void(payment.id, "key-2"))

    assert ledger.store.tables.claims == {}
    assert len(ledger.fake_bank.requests) == 2


# --- leases ---


def test_whoever_lost_the_lease_changes_nothing(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE)
    reply = pending(ledger.authorize(authorize("key-1")))
    stale = taken_up(ledger)
    taken_up(ledger)
    before = payment_of(ledger, reply).version

    with pytest.raises(LeaseLost):
        ledger.resume(stale, deadline=FAR_DEADLINE)

    assert payment_of(ledger, reply).version == before
    assert ledger.store.tables.answers == {}


def test_whoever_lost_the_lease_parks_nothing(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE, SILENCE)
    ledger.authorize(authorize())
    stale, current = taken_up(ledger), taken_up(ledger)
    before = replace(ledger.store.tables.calls[current.payment_id])

    with pytest.raises(LeaseLost):
        ledger.resume(stale, deadline=FAR_DEADLINE)

    assert ledger.store.tables.calls[current.payment_id] == before


def test_a_call_that_another_settled_is_lost_and_nothing_is_asked(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE)
    ledger.authorize(authorize())
    stale, current = taken_up(ledger), taken_up(ledger)
    ledger.resume(current, deadline=FAR_DEADLINE)
    asked = len(ledger.fake_bank.requests)

    with pytest.raises(LeaseLost):
        ledger.resume(stale, deadline=FAR_DEADLINE)

    assert len(ledger.fake_bank.requests) == asked


def test_a_call_that_another_settled_is_never_put_in_the_name_of_the_next_operation(
    ledger: InMemoryLedger,
) -> None:
    payment = authorized(ledger)
    ledger.fake_bank.will_answer(SILENCE)
    ledger.capture(capture(payment.id))
    stale, current = taken_up(ledger), taken_up(ledger)
    ledger.resume(current, deadline=FAR_DEADLINE)
    ledger.fake_bank.will_answer(SILENCE)
    ledger.refund(refund(payment.id))
    asked = len(ledger.fake_bank.requests)

    with pytest.raises(LeaseLost):
        ledger.resume(stale, deadline=FAR_DEADLINE)

    assert len(ledger.fake_bank.requests) == asked
    assert ledger.payment(payment.id, a_tenant()).refunded_minor == 0


# --- two at once ---


class InterruptedClock(SteppableClock):
    """Something else happens just when this clock is first looked at."""

    def __init__(self, interruption: Callable[[], object]) -> None:
        super().__init__()
        self._interruptions = [interruption]

    def now(self) -> datetime:
        if self._interruptions:
            self._interruptions.pop()()
        return super().now()


def test_a_command_is_decided_anew_when_another_was_recorded_first(ledger: InMemoryLedger) -> None:
    payment = authorized(ledger)
    other = InMemoryLedger(beside=ledger)
    ledger.clock = InterruptedClock(lambda: other.void(void(payment.id)))

    with pytest.raises(PaymentStateConflict) as refused:
        ledger.capture(capture(payment.id, "key-2"))

    assert refused.value.code == "payment_voided"
    assert ledger.fake_bank.captures == {}
    assert ledger.store.tables.claims == {}


def test_a_command_that_is_still_allowed_when_decided_anew_is_carried_out() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)
    other = InMemoryLedger(beside=ledger)
    first = refund(payment.id, amount_minor=1000)
    ledger.clock = InterruptedClock(lambda: other.refund(first))

    ledger.refund(refund(payment.id, amount_minor=1500))

    assert ledger.payment(payment.id, a_tenant()).refunded_minor == 2500
    assert ledger.fake_bank.refunded_minor() == 2500


def test_two_refunds_at_once_never_give_back_more_than_was_taken() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)
    other = InMemoryLedger(beside=ledger)
    first = refund(payment.id, amount_minor=3000)
    ledger.clock = InterruptedClock(lambda: other.refund(first))

    with pytest.raises(RefundExceedsPayment):
        ledger.refund(refund(payment.id, amount_minor=3000))

    assert ledger.fake_bank.refunded_minor() == 3000


def test_the_card_is_gone_with_the_call_once_it_is_settled(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(SILENCE)
    reply = ledger.authorize(authorize())
    payment_id = reply.history[0].originator_id
    sealed = ledger.store.tables.calls[payment_id].call.sealed_card

    ledger.resume(taken_up(ledger), deadline=FAR_DEADLINE)

    assert sealed is not None
    assert payment_id not in ledger.store.tables.calls


def test_amounts_above_the_cards_balance_are_declined_by_the_bank(ledger: InMemoryLedger) -> None:
    reply = settled(ledger.authorize(authorize(money=dollars(10_001))))

    declined = reply.history[-1]
    assert isinstance(declined, Payment.AuthorizationDeclined)
    assert declined.code == "insufficient_funds"

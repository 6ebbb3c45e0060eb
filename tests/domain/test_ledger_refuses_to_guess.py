"""What is too old to repeat, and what is not begun while the bank is down."""

from dataclasses import replace

import pytest

from domain.bank import Operation, Unknown
from domain.commands import AuthorizePayment
from domain.errors import (
    BankUnavailable,
    CardRefused,
    CurrencyUnsupported,
    KeyAlreadyClaimed,
    OrderAlreadyPaid,
)
from domain.ledger import LEASE_SECONDS, REPEATED_FOR_SECONDS, Pending, Settled
from domain.money import Money
from domain.payment import Payment, ReviewReason, Status
from infrastructure.bank_calls import LONGEST_PAUSE_SECONDS
from infrastructure.bank_simulator.remembered import KEPT_SECONDS
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_card,
    a_tenant,
    authorize,
    capture,
    refund,
    void,
)
from tests.fakes import InMemoryLedger, Misfortune

FAILURES = [Misfortune.FAILS] * 4
DAY = 24 * 3600.0


def resumed_after(ledger: InMemoryLedger, seconds: float) -> Payment:
    """The one call that is due, taken up after so long; the payment then."""
    ledger.steppable.advance(seconds)
    (call,) = ledger.bank_calls.take_due(10, LEASE_SECONDS)
    reply = ledger.resume(call, deadline=FAR_DEADLINE)
    return ledger.payment(reply.history[0].originator_id, a_tenant())


def captured(ledger: InMemoryLedger) -> Payment:
    reply = ledger.authorize(authorize())
    payment_id = reply.history[0].originator_id
    assert isinstance(ledger.capture(capture(payment_id)), Settled)
    return ledger.payment(payment_id, a_tenant())


# --- too old to repeat ---


@pytest.mark.parametrize(
    "misfortunes",
    [[Misfortune.SILENT_BEFORE], [Misfortune.SILENT_AFTER], [Misfortune.FORGETS], FAILURES],
    ids=["not done", "done", "forgotten", "failed"],
)
def test_a_hold_that_the_bank_may_have_forgotten_is_not_made_again(
    misfortunes: list[Misfortune],
) -> None:
    ledger = InMemoryLedger()
    ledger.fake_bank.will_suffer(*misfortunes)
    assert isinstance(ledger.authorize(authorize("key-1")), Pending)
    holds = len(ledger.fake_bank.holds)

    payment = resumed_after(ledger, DAY + 1)

    assert len(ledger.fake_bank.holds) == holds
    assert payment.status == Status.DECLINED
    assert ReviewReason.POSSIBLE_ORPHAN_HOLD in payment.reviews
    assert ledger.store.tables.calls == {}
    assert ledger.store.tables.answers[a_tenant(), "key-1"].status == 402


def test_a_hold_that_the_bank_still_remembers_is_found_however_late() -> None:
    ledger = InMemoryLedger()
    ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
    ledger.authorize(authorize())

    payment = resumed_after(ledger, REPEATED_FOR_SECONDS + 60)

    assert (payment.status, payment.reviews) == (Status.AUTHORIZED, {})
    assert len(ledger.fake_bank.holds) == 1


def test_what_never_reached_the_bank_may_be_asked_however_late() -> None:
    ledger = InMemoryLedger()
    not_reached = Unknown(reason="refused", unanswered=False, reached=False)
    ledger.fake_bank.will_answer(not_reached)
    ledger.authorize(authorize())

    payment = resumed_after(ledger, 2 * DAY)

    assert (payment.status, payment.reviews) == (Status.AUTHORIZED, {})


def test_a_part_that_the_bank_may_have_given_back_is_not_given_back_again() -> None:
    ledger = InMemoryLedger(capabilities=ANY_AMOUNT)
    payment = captured(ledger)
    ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
    ledger.refund(refund(payment.id, amount_minor=1000))

    payment = resumed_after(ledger, DAY + 1)

    assert ledger.fake_bank.refunded_minor() == 1000
    assert payment.refunded_minor == 0
    assert ReviewReason.BANK_DISAGREES in payment.reviews


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_what_the_bank_does_once_is_asked_again_however_late(operation: Operation) -> None:
    ledger = InMemoryLedger()
    if operation is Operation.REFUND:
        payment_id = captured(ledger).id
    else:
        payment_id = ledger.authorize(authorize()).history[0].originator_id
    ledger.fake_bank.will_suffer(Misfortune.SILENT_AFTER)
    match operation:
        case Operation.CAPTURE:
            ledger.capture(capture(payment_id))
        case Operation.VOID:
            ledger.void(void(payment_id))
        case _:
            ledger.refund(refund(payment_id))

    payment = resumed_after(ledger, DAY + 1)

    ended = {"capture": Status.CAPTURED, "void": Status.VOIDED, "refund": Status.REFUNDED}
    assert payment.status == ended[operation]


def test_nothing_is_repeated_up_to_when_the_bank_forgets() -> None:
    assert REPEATED_FOR_SECONDS + LONGEST_PAUSE_SECONDS + LEASE_SECONDS < KEPT_SECONDS


# --- not begun while the bank is down ---


def test_a_new_authorization_is_not_begun_while_the_bank_is_down() -> None:
    ledger = InMemoryLedger()
    ledger.fake_bank.goes_down()

    with pytest.raises(BankUnavailable) as refused:
        ledger.authorize(authorize("key-1"))

    assert refused.value.code == "bank_unavailable"
    assert ledger.fake_bank.requests == []
    tables = ledger.store.tables
    assert (tables.events, tables.claims, tables.calls, tables.slots) == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("again", "refusal"),
    [
        (authorize("key-1", order_id="ORD-2"), KeyAlreadyClaimed),
        (authorize("key-2", order_id="ORD-1"), OrderAlreadyPaid),
    ],
)
def test_what_the_bank_was_never_asked_is_given_back(
    again: AuthorizePayment, refusal: type[Exception]
) -> None:
    ledger = InMemoryLedger()
    ledger.authorize(authorize("key-1", order_id="ORD-1"))
    before = ledger.fake_bank.not_begun

    with pytest.raises(refusal):
        ledger.authorize(again)

    assert (before, ledger.fake_bank.not_begun) == (0, 1)


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_nothing_that_was_begun_is_held_up_while_the_bank_is_down(operation: Operation) -> None:
    ledger = InMemoryLedger()
    payment = captured(ledger)
    other = ledger.authorize(authorize(order_id="ORD-2")).history[0].originator_id
    ledger.fake_bank.goes_down()
    before = len(ledger.fake_bank.requests)

    match operation:
        case Operation.CAPTURE:
            reply = ledger.capture(capture(other))
        case Operation.VOID:
            reply = ledger.void(void(other))
        case _:
            reply = ledger.refund(refund(payment.id))

    assert isinstance(reply, Settled)
    assert len(ledger.fake_bank.requests) == before + 1


def test_an_authorization_that_was_begun_is_taken_up_while_the_bank_is_down() -> None:
    ledger = InMemoryLedger()
    ledger.fake_bank.will_suffer(*FAILURES)
    ledger.authorize(authorize())
    ledger.fake_bank.goes_down()

    payment = resumed_after(ledger, LEASE_SECONDS)

    assert payment.status == Status.AUTHORIZED


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (authorize(money=Money(5000, "EUR")), CurrencyUnsupported),
        (authorize(card=replace(a_card(), number="4111111111111112")), CardRefused),
    ],
)
def test_what_could_never_be_begun_is_told_so_first(
    command: object, refusal: type[Exception]
) -> None:
    ledger = InMemoryLedger()
    ledger.fake_bank.goes_down()

    with pytest.raises(refusal):
        ledger.authorize(command)  # type: ignore[arg-type]

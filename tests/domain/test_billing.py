"""Invoices and the payments that they are paid by: whoever is at it at once, what was paid stays paid, what
came of one attempt is not taken for what came of another, and what has ended takes no money any more."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

import pytest
from eventsourcing.domain import Aggregate
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import (
    ConcurrentChange,
    DomainError,
    InvoiceStateConflict,
    SubscriptionStateConflict,
)
from domain.invoice import Invoice, InvoiceStatus, rfc3339
from domain.ledger import Pending
from domain.payment import Difference, DifferenceKind, Payment, Status
from domain.subscription import INCOMPLETE_FOR, SubscriptionStatus
from projections.invoices import Invoices
from projections.subscriptions import Subscriptions
from tests.domain.a_subscriber import (
    ASKED,
    CAUSE,
    EMPTY,
    GONE,
    GOOD,
    Purse,
    Subscriber,
)
from tests.fakes import Misfortune

SUBSCRIBES_BY = (GOOD, EMPTY, ASKED)
# Each thing that may happen, by whoever does it.
STEPS: Final[Mapping[str, Callable[[Subscriber], object]]] = {
    "time goes by": lambda it: it.lives_on(8),
    "it goes on": lambda it: it.goes_on_when_due(),
    "it is collected": lambda it: it.collect(),
    "a card is detached": lambda it: it.pays_by(GONE),
    "a good card is named": lambda it: it.pays_by(GOOD),
    "an empty card is named": lambda it: it.pays_by(EMPTY),
    "it is paid by hand": lambda it: it.pay_by_hand(),
    "the shopper pays": lambda it: it.confirm(GOOD),
    "the shopper pays and is asked": lambda it: it.confirm(ASKED),
    "the shopper approves": lambda it: it.shopper_decides(approves=True),
    "the shopper refuses": lambda it: it.shopper_decides(approves=False),
    "the bank is silent": lambda it: it.bank.will_suffer(Misfortune.SILENT_AFTER),
    "workers come round": lambda it: it.come_round(1),
    "it is canceled": lambda it: it.cancel(),
}


def test_an_invoice_that_somebody_paid_meanwhile_is_not_tried_again_for_want_of_a_method() -> None:
    subscriber = Subscriber(GOOD)
    subscriber.pays_by(GONE)
    subscriber.next_period()

    with pytest.raises(InvoiceStateConflict):
        subscriber.collect(Purse(meanwhile=subscriber.pay_by_hand))

    invoice = subscriber.invoice()
    assert (invoice.status, invoice.attempts, invoice.next_attempt_at) == (
        InvoiceStatus.PAID,
        1,
        None,
    )
    assert subscriber.subscription().status is SubscriptionStatus.ACTIVE


def test_an_attempt_that_is_under_way_has_not_failed_for_want_of_a_method() -> None:
    subscriber = Subscriber(GOOD)
    subscriber.pays_by(GONE)
    subscriber.next_period()
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)

    with pytest.raises(InvoiceStateConflict):
        subscriber.collect(Purse(meanwhile=subscriber.pay_by_hand))

    assert subscriber.invoice().is_attempted
    subscriber.come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID


def test_what_is_found_of_an_earlier_attempt_says_nothing_of_the_one_that_is_under_way() -> None:
    subscriber = Subscriber(GOOD)
    subscriber.pays_by(EMPTY)
    subscriber.next_period()
    subscriber.collect()
    (declined,) = subscriber.payments()
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)
    subscriber.pay_by_hand()

    found = Difference(kind=DifferenceKind.STATE, ours="declined", bank="approved")
    subscriber.ledger.note_differences(subscriber.payment(declined.id), [found], CAUSE)

    invoice = subscriber.invoice()
    assert (invoice.is_attempted, invoice.attempts) == (True, 2)
    subscriber.come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID


@pytest.mark.parametrize("by", ["invoice", "intent"])
def test_what_is_canceled_while_a_shopper_is_asked_takes_no_money_any_more(by: str) -> None:
    subscriber = Subscriber(ASKED if by == "invoice" else EMPTY)
    if by == "intent":
        subscriber.confirm(ASKED)

    subscriber.cancel()
    subscriber.shopper_decides(approves=True)
    subscriber.come_round()

    assert subscriber.subscription().status is SubscriptionStatus.CANCELED
    assert subscriber.invoice().status is InvoiceStatus.VOID
    assert subscriber.payments()[-1].status is Status.VOIDED
    assert subscriber.bank.captures == {}
    assert subscriber.held_minor() == 0
    assert subscriber.ledger.store.tables.calls == {}


def test_what_never_began_takes_no_money_though_the_shopper_approves_at_last() -> None:
    subscriber = Subscriber(ASKED)
    subscriber.when += INCOMPLETE_FOR

    subscriber.go_on()
    subscriber.shopper_decides(approves=True)
    subscriber.come_round()

    assert subscriber.subscription().status is SubscriptionStatus.INCOMPLETE_EXPIRED
    assert subscriber.invoice().status is InvoiceStatus.VOID
    assert subscriber.bank.captures == {}


def test_what_is_being_paid_is_not_canceled_until_that_is_known() -> None:
    subscriber = Subscriber(EMPTY)
    subscriber.bank.will_suffer(Misfortune.SILENT_AFTER)
    subscriber.pay_by_hand()

    with pytest.raises(InvoiceStateConflict, match="just now"):
        subscriber.cancel()

    subscriber.come_round()
    assert subscriber.subscription().status is SubscriptionStatus.ACTIVE


def test_a_payment_whose_invoice_changed_too_often_is_pending_and_not_unheard_of() -> None:
    subscriber = Subscriber(GOOD)
    subscriber.next_period()

    def others_are_faster(payment: Payment) -> Sequence[Aggregate]:
        following = subscriber.billing.follow(payment)
        if following:
            invoice = subscriber.invoice()
            invoice.trigger_event(Invoice.CollectionStopped, when=rfc3339(subscriber.when))
            subscriber.ledger.record((invoice,), CAUSE, ())
        return following

    subscriber.ledger.follow = others_are_faster
    reply = subscriber.pay_by_hand()
    subscriber.ledger.follow = subscriber.billing.follow

    assert isinstance(reply, Pending)
    subscriber.come_round()
    assert subscriber.invoice().status is InvoiceStatus.PAID
    assert len(subscriber.bank.captures) == 2


def test_nothing_is_canceled_twice() -> None:
    subscriber = Subscriber(GOOD)
    subscriber.cancel()

    with pytest.raises(SubscriptionStateConflict):
        subscriber.cancel()


# --- whatever happens ---


def assert_the_books_agree(subscriber: Subscriber) -> None:
    """What is said of subscription, invoices and payments is one story, and the read models tell it."""
    subscription, invoices = subscriber.subscription(), subscriber.invoices()
    document = Subscriptions().fold(subscription.history)
    assert document["status"] == subscription.status
    assert document["current_period_end"] == rfc3339(subscription.ends)
    assert [each.period_end for each in invoices[:-1]] == [
        each.period_start for each in invoices[1:]
    ]
    for invoice in invoices:
        captured = [each for each in subscriber.payments(invoice) if each.captured_minor > 0]
        assert len(captured) == (invoice.status is InvoiceStatus.PAID)
        row = Invoices().fold(invoice.history)
        due_at = invoice.next_attempt_at
        assert (row["status"], row["attempts"], row["is_attempted"], row["due_at"]) == (
            invoice.status,
            invoice.attempts,
            invoice.is_attempted,
            None if due_at is None else rfc3339(due_at),
        )
        assert not (invoice.is_attempted and due_at)


def what_is_over(subscriber: Subscriber) -> dict[UUID, str]:
    """What stays as it is: how a subscription ended, and what was paid or is not to be paid any more."""
    subscription = subscriber.subscription()
    ended = {subscription.id: str(subscription.status)} if subscription.has_ended else {}
    invoices = subscriber.invoices()
    return ended | {
        each.id: str(each.status) for each in invoices if each.status is not InvoiceStatus.OPEN
    }


def assert_everybody_is_heard(subscriber: Subscriber) -> None:
    """Then nothing is held or waited for, and as much was taken as was paid."""
    subscriber.bank.has_recovered()
    subscriber.shopper_decides(approves=True)
    subscriber.come_round(6)
    assert subscriber.ledger.store.tables.calls == {}
    assert subscriber.held_minor() == 0
    paid = [each for each in subscriber.invoices() if each.status is InvoiceStatus.PAID]
    assert len(subscriber.bank.captures) == len(paid)
    assert not any(each.is_attempted for each in subscriber.invoices())


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(SUBSCRIBES_BY), story=st.lists(st.sampled_from([*STEPS]), max_size=14)
)
def test_whatever_happens_an_invoice_is_paid_once_at_most_and_what_has_ended_stays_so(
    method: str, story: list[str]
) -> None:
    subscriber = Subscriber(method)
    over: dict[UUID, str] = {}
    for step in [*story, None]:
        with suppress(DomainError, ConcurrentChange):
            if step is not None:
                STEPS[step](subscriber)
        if step is None:
            assert_everybody_is_heard(subscriber)
        assert_the_books_agree(subscriber)
        is_over = what_is_over(subscriber)
        assert over.items() <= is_over.items()
        over = is_over

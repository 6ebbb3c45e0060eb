"""What a store keeps while a shopper is waited for, in memory and on Postgres."""

from uuid import UUID

import pytest

from domain.bank import ActionRequired, Declined, Unknown
from domain.errors import LeaseLost, OperationInProgress
from domain.ledger import LEASE_SECONDS, Pending, Settled
from domain.payment import Payment, ReviewReason, Status
from domain.records import AwaitShopper, BankCall
from tests.builders import FAR_DEADLINE, a_tenant, an_approval, authorize, void
from tests.contracts.stores import Store

WAITING = ActionRequired(bank_id="auth_1", url="https://bank.test/challenges/1")
RETURN_URL = "https://shop.example/?order=1"
A_FEW_SECONDS = 3.0
TENANT = a_tenant()


def challenged(store: Store, *before: Unknown) -> UUID:
    store.bank.will_answer(*before, WAITING)
    reply = store.ledger.authorize(authorize("key-1", return_url=RETURN_URL))
    assert isinstance(reply, Pending)
    return reply.history[0].originator_id


def take_up(store: Store, seconds: float = A_FEW_SECONDS) -> BankCall:
    store.pass_time(seconds)
    (call,) = store.calls.take_due(10, LEASE_SECONDS)
    return call


def payment(store: Store, payment_id: UUID) -> Payment:
    return store.ledger.payment(payment_id, TENANT)


def test_a_payment_waits_with_the_address_and_without_the_card(store: Store) -> None:
    payment_id = challenged(store)

    waiting = payment(store, payment_id)
    receipt = store.receipt(payment_id, TENANT)
    call = take_up(store)

    assert (waiting.status, waiting.action_url) == (Status.PENDING, WAITING.url)
    assert receipt is not None
    assert (receipt["status"], receipt["action_url"]) == ("pending", WAITING.url)
    assert receipt["pending_operation"] == "authorization"
    assert call.sealed_card is None
    assert call.return_url == RETURN_URL
    found = store.find(TENANT, "key-1")
    assert found is not None
    assert found.pending


def test_the_place_to_return_to_is_kept_for_whoever_asks_later(store: Store) -> None:
    store.bank.will_answer(Unknown(reason="HTTP 500", unanswered=False), WAITING)
    store.ledger.authorize(authorize(return_url=RETURN_URL))

    store.ledger.resume(take_up(store), deadline=FAR_DEADLINE)

    assert [request.return_url for request in store.bank.requests] == [RETURN_URL] * 2


def test_it_is_looked_again_every_few_seconds_without_an_event(store: Store) -> None:
    payment_id = challenged(store)
    store.bank.will_answer(WAITING, WAITING)
    for _ in range(2):
        reply = store.ledger.resume(take_up(store), deadline=FAR_DEADLINE)
        assert isinstance(reply, Pending)
        assert reply.action_url == WAITING.url

    assert payment(store, payment_id).version == 2
    looks = store.bank.requests[1:]
    assert [(look.bank_id, look.card) for look in looks] == [("auth_1", None)] * 2


def test_what_is_approved_goes_on_by_itself(store: Store) -> None:
    payment_id = challenged(store)
    store.bank.will_answer(an_approval("auth_1"))

    reply = store.ledger.resume(take_up(store), deadline=FAR_DEADLINE)

    assert isinstance(reply, Settled)
    done = payment(store, payment_id)
    assert (done.status, done.authorization_id, done.action_url) == (
        Status.AUTHORIZED,
        "auth_1",
        None,
    )
    receipt = store.receipt(payment_id, TENANT)
    assert receipt is not None
    assert "action_url" not in receipt
    found = store.find(TENANT, "key-1")
    assert found is not None
    assert found.answer is not None


def test_what_is_refused_is_declined_and_frees_the_order(store: Store) -> None:
    payment_id = challenged(store)
    store.bank.will_answer(Declined(code="authentication_required"))

    store.ledger.resume(take_up(store), deadline=FAR_DEADLINE)

    assert payment(store, payment_id).status == Status.DECLINED
    assert store.slot(TENANT, "ORD-1001") is None


def test_whoever_lost_the_lease_asks_no_shopper(store: Store) -> None:
    store.bank.will_answer(Unknown(reason="HTTP 500", unanswered=False))
    reply = store.ledger.authorize(authorize())
    old = reply.call if isinstance(reply, Pending) else None
    assert old is not None
    take_up(store)
    before = store.everything()
    store.bank.will_answer(WAITING)

    with pytest.raises(LeaseLost):
        store.ledger.resume(old, deadline=FAR_DEADLINE)
    with pytest.raises(LeaseLost):
        store.calls.park(old, WAITING)

    assert store.everything() == before


def test_a_worker_that_died_while_it_looked_leaves_no_doubt(store: Store) -> None:
    payment_id = challenged(store)
    take_up(store)
    store.bank.will_answer(an_approval("auth_1"))

    store.ledger.resume(take_up(store, LEASE_SECONDS), deadline=FAR_DEADLINE)

    done = payment(store, payment_id)
    assert (done.status, done.reviews) == (Status.AUTHORIZED, {})


def test_what_went_unanswered_before_the_shopper_was_asked_stays_in_doubt(store: Store) -> None:
    silence = Unknown(reason="no answer", unanswered=True)
    store.bank.will_answer(silence, WAITING)
    reply = store.ledger.authorize(authorize())
    payment_id = reply.history[0].originator_id

    store.ledger.resume(take_up(store, 20.0), deadline=FAR_DEADLINE)

    waiting = payment(store, payment_id)
    assert waiting.action_url == WAITING.url
    assert set(waiting.reviews) == {ReviewReason.POSSIBLE_ORPHAN_HOLD}


def test_a_payment_that_waits_is_not_voided(store: Store) -> None:
    payment_id = challenged(store)

    with pytest.raises(OperationInProgress):
        store.ledger.void(void(payment_id))


def test_a_call_awaits_its_shopper_only_with_what_is_recorded(store: Store) -> None:
    """The event and the waiting are one transaction."""
    store.bank.will_answer(Unknown(reason="HTTP 500", unanswered=False))
    reply = store.ledger.authorize(authorize())
    stale = payment(store, reply.history[0].originator_id)
    call = take_up(store)
    other = payment(store, stale.id)
    other.require_action("auth_2", WAITING.url, maybe_held=False, at=store.ledger.clock.now())
    beside = [AwaitShopper(call=call)]
    store.ledger.save(other, history=other.history, beside=beside)

    assert payment(store, stale.id).action_url == WAITING.url
    assert take_up(store).sealed_card is None

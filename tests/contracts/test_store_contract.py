"""What the ledger's store promises, in memory and on Postgres: all of it, or none."""

from dataclasses import replace
from uuid import UUID

import pytest

from domain.bank import AlreadyDone, Declined, Operation, Unknown
from domain.commands import Mode
from domain.errors import ConcurrentChange, KeyAlreadyClaimed, LeaseLost, OrderAlreadyPaid
from domain.ids import Prefix, decode
from domain.ledger import LEASE_SECONDS, Pending, Reply, Settled
from domain.payment import Payment, Status
from domain.records import (
    AnswerKey,
    BankCall,
    BeginCall,
    ClaimKey,
    EndCall,
    FreeOrderSlot,
    Record,
    StoredAnswer,
    TakeOrderSlot,
)
from projections import receipts, refunds
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    NOON,
    Story,
    a_bank_call,
    a_cause,
    a_claim,
    a_payment,
    a_tenant,
    an_empty_card,
    authorize,
    capture,
    refund,
    resolve,
    void,
)
from tests.contracts.stores import Store
from tests.fakes import Misfortune

SILENCE = Unknown(reason="no answer", unanswered=True)
FAILURE = Unknown(reason="HTTP 500 internal_error", unanswered=False)
FAILED_CAPTURE = Declined(code="authorization_expired")
LOST_REFUND = AlreadyDone(code="already_refunded", after_attempts=0)
TENANT = a_tenant()


def record(store: Store, payment: Payment, *beside: Record) -> None:
    """One transaction, as the ledger makes them."""
    store.ledger.save(payment, cause=a_cause(), history=payment.history, beside=beside)


def begin(payment: Payment) -> BeginCall:
    return BeginCall(call=a_bank_call(payment), lease_seconds=LEASE_SECONDS)


def the_claim_of(payment: Payment, key: str = "key-1") -> ClaimKey:
    return ClaimKey(claim=a_claim(key), payment_id=payment.id, request_id="req_1")


def the_slot_for(payment: Payment) -> TakeOrderSlot:
    assert payment.order_id is not None
    return TakeOrderSlot(tenant=payment.tenant, order_id=payment.order_id, payment_id=payment.id)


def begun(store: Store) -> tuple[Payment, BankCall]:
    """A payment whose authorization is at the bank, with all that belongs to it."""
    payment = a_payment()
    asked = begin(payment)
    record(store, payment, the_claim_of(payment), the_slot_for(payment), asked)
    return payment, asked.call


def finish(store: Store, payment: Payment, call: BankCall, how: str) -> None:
    if how == "park":
        store.calls.park(call, FAILURE)
    else:
        record(store, payment, EndCall(call=call))


def again(store: Store, payment: Payment) -> Payment:
    return store.ledger.payment(payment.id, payment.tenant)


def authorized(store: Store) -> UUID:
    reply = store.ledger.authorize(authorize())
    assert isinstance(reply, Settled)
    return reply.history[0].originator_id


def captured(store: Store) -> UUID:
    payment_id = authorized(store)
    assert isinstance(store.ledger.capture(capture(payment_id)), Settled)
    return payment_id


def take_up(store: Store, seconds: float = LEASE_SECONDS) -> BankCall:
    """The one call that is due after so long."""
    store.pass_time(seconds)
    (call,) = store.calls.take_due(10, LEASE_SECONDS)
    return call


def resumed(store: Store, call: BankCall) -> Reply:
    return store.ledger.resume(call, deadline=FAR_DEADLINE)


# --- events ---


def test_what_is_recorded_is_read_back(store: Store) -> None:
    payment = Story(a_payment(metadata={"n": 1, "x": 0.5, "b": True, "text": '東京 \\ "'})).payment
    Story(payment).authorized().captured(1200).refunded(200)

    record(store, payment)

    loaded = again(store, payment)
    assert loaded == payment
    assert loaded.history == payment.history
    assert [vars(event) for event in loaded.history] == [vars(event) for event in payment.history]


def test_a_payment_is_read_as_of_each_version(store: Store) -> None:
    story = Story().authorized().captured()
    record(store, story.payment)

    versions = [store.ledger.payment(story.payment.id, TENANT, version=v) for v in (1, 2, 3, 4)]

    assert [payment.version for payment in versions] == [1, 2, 3, 4]
    assert versions[1].status == Status.AUTHORIZED


def test_events_are_appended_in_several_transactions(store: Store) -> None:
    story = Story()
    for step in (story.authorized, story.asked_to_capture, story.declined):
        record(store, story.payment)
        step()
    record(store, story.payment)

    assert again(store, story.payment).history == story.payment.history


def test_the_second_of_two_changes_to_one_version_is_refused(store: Store) -> None:
    story = Story().authorized()
    record(store, story.payment)
    one, other = again(store, story.payment), again(store, story.payment)
    one.request_void(at=NOON)
    other.request_capture(None, ANY_AMOUNT, at=NOON)
    record(store, one)

    with pytest.raises(ConcurrentChange):
        record(store, other)

    assert again(store, story.payment).history == one.history


def test_a_payment_is_made_once(store: Store) -> None:
    payment = a_payment()
    twin = a_payment(payment_id=payment.id)
    record(store, payment)

    with pytest.raises(ConcurrentChange):
        record(store, twin)


# --- all or nothing ---


def refusable(store: Store) -> list[tuple[type[Exception], Payment, tuple[Record, ...]]]:
    """Transactions that each break one rule, after much that breaks none."""
    first, call = begun(store)
    fresh, other_order = a_payment(order_id="ORD-2"), a_payment(order_id="ORD-3")
    changed = again(store, first)
    Story(changed).authorized()
    stale = a_payment(payment_id=first.id, order_id="ORD-4")
    fine = (the_claim_of(fresh, "key-2"), the_slot_for(fresh), begin(fresh))
    return [
        (KeyAlreadyClaimed, fresh, (*fine, the_claim_of(fresh, "key-1"))),
        (OrderAlreadyPaid, other_order, (begin(other_order), the_slot_for(first))),
        (ConcurrentChange, fresh, (*fine, begin(first))),
        (ConcurrentChange, stale, (the_claim_of(stale, "key-3"), the_slot_for(stale))),
        (
            LeaseLost,
            changed,
            (
                AnswerKey(tenant=TENANT, key="key-1", answer=StoredAnswer(status=201, body=b"")),
                FreeOrderSlot(tenant=TENANT, order_id="ORD-1001", payment_id=first.id),
                EndCall(call=replace(call, fence=call.fence + 1)),
            ),
        ),
    ]


@pytest.mark.parametrize("case", range(5))
def test_nothing_of_a_refused_transaction_remains(store: Store, case: int) -> None:
    error, payment, beside = refusable(store)[case]
    before = store.everything()

    with pytest.raises(error):
        record(store, payment, *beside)

    assert store.everything() == before


def test_the_key_is_looked_at_before_the_order(store: Store) -> None:
    begun(store)
    second = a_payment()

    with pytest.raises(KeyAlreadyClaimed):
        record(store, second, the_claim_of(second), the_slot_for(second), begin(second))


def test_a_refusal_does_not_harm_the_transactions_after_it(store: Store) -> None:
    error, payment, beside = refusable(store)[0]
    with pytest.raises(error):
        record(store, payment, *beside)

    other = a_payment(order_id="ORD-9")
    record(store, other, the_slot_for(other), begin(other))

    assert again(store, other).version == 1
    assert store.slot(TENANT, "ORD-9") == other.id


# --- keys ---


def test_a_claimed_key_is_found_with_what_it_was_used_for(store: Store) -> None:
    payment, _ = begun(store)

    claimed = store.find(TENANT, "key-1")

    assert claimed is not None
    assert (claimed.fingerprint, claimed.payment_id) == (b"fingerprint", payment.id)
    assert (claimed.answer, claimed.pending) == (None, False)


def test_a_key_is_its_merchants_and_its_modes(store: Store) -> None:
    begun(store)

    assert store.find(a_tenant("mer_other"), "key-1") is None
    assert store.find(a_tenant(mode=Mode.LIVE), "key-1") is None
    assert store.find(TENANT, "key-2") is None


def test_an_answer_is_kept_byte_for_byte(store: Store) -> None:
    payment, call = begun(store)
    answer = StoredAnswer(
        status=402,
        body=b'{"a" : "\xc3\xa9\\u00e9"}\n',
        headers=(("Location", "/x"), ("Retry-After", "2")),
    )
    Story(payment).declined()

    record(store, payment, EndCall(call=call), AnswerKey(tenant=TENANT, key="key-1", answer=answer))

    claimed = store.find(TENANT, "key-1")
    assert claimed is not None
    assert (claimed.answer, claimed.pending) == (answer, False)


def test_a_key_is_pending_once_its_call_is_parked_or_its_lease_ran_out(store: Store) -> None:
    payment = a_payment()
    call = a_bank_call(payment, cause=a_cause("key-1"))
    record(store, payment, the_claim_of(payment), BeginCall(call=call, lease_seconds=30))

    at_work = store.find(TENANT, "key-1")
    store.pass_time(31)
    run_out = store.find(TENANT, "key-1")
    store.calls.park(call, FAILURE)
    parked = store.find(TENANT, "key-1")

    assert [each and each.pending for each in (at_work, run_out, parked)] == [False, True, True]


# --- leases ---


def test_a_call_is_not_due_while_its_lease_lasts(store: Store) -> None:
    begun(store)

    store.pass_time(LEASE_SECONDS - 5)

    assert list(store.calls.take_due(10, LEASE_SECONDS)) == []


def test_a_call_whose_lease_ran_out_went_unanswered_and_is_taken_up_once(store: Store) -> None:
    payment, call = begun(store)

    taken = take_up(store)

    assert taken == replace(call, attempts=1, unanswered=True, fence=taken.fence)
    assert taken.fence > call.fence
    assert taken.payment_id == payment.id
    assert list(store.calls.take_due(10, LEASE_SECONDS)) == []


def test_a_call_is_taken_up_as_it_was_left(store: Store) -> None:
    payment = a_payment()
    call = a_bank_call(payment, cause=a_cause("key-1"), sealed_card=b"\x00sealed\xff")
    record(store, payment, BeginCall(call=call, lease_seconds=LEASE_SECONDS))
    store.calls.park(call, FAILURE)

    taken = take_up(store)

    assert taken == replace(call, attempts=1, reached=True, fence=taken.fence)


def test_a_call_that_never_went_out_is_known_not_to_have_reached_the_bank(store: Store) -> None:
    payment, call = begun(store)
    never_sent = Unknown(reason="not reached", unanswered=False, reached=False)
    store.calls.park(call, never_sent)

    taken = take_up(store)

    assert (taken.reached, taken.unanswered, taken.attempts) == (False, 0, 1)
    assert payment.id == taken.payment_id


def test_a_call_that_was_heard_once_has_reached_the_bank_for_good(store: Store) -> None:
    _, call = begun(store)
    never_sent = Unknown(reason="not reached", unanswered=False, reached=False)
    store.calls.park(call, FAILURE)
    store.calls.park(take_up(store), never_sent)

    assert take_up(store).reached


def test_a_call_knows_how_long_ago_it_was_first_put(store: Store) -> None:
    begun(store)

    ages = [take_up(store, seconds).age_seconds for seconds in (LEASE_SECONDS, 3600.0)]

    assert ages == pytest.approx([LEASE_SECONDS, LEASE_SECONDS + 3600], abs=20)


def test_each_time_it_is_taken_up_a_call_counts_and_has_a_higher_fence(store: Store) -> None:
    _, call = begun(store)

    taken = [take_up(store) for _ in range(4)]

    assert [each.attempts for each in taken] == [1, 2, 3, 4]
    fences = [call.fence, *(each.fence for each in taken)]
    assert fences == sorted(set(fences))


def test_no_more_calls_are_taken_than_asked_for_and_the_oldest_first(store: Store) -> None:
    payments = [a_payment(order_id=f"ORD-{number}") for number in range(5)]
    for number, payment in enumerate(payments):
        record(store, payment, BeginCall(call=a_bank_call(payment), lease_seconds=number))
    store.pass_time(LEASE_SECONDS)

    first, second = store.calls.take_due(3, LEASE_SECONDS), store.calls.take_due(3, LEASE_SECONDS)

    assert {call.payment_id for call in first} == {payment.id for payment in payments[:3]}
    assert {call.payment_id for call in second} == {payment.id for payment in payments[3:]}


@pytest.mark.parametrize(("unknown", "quiet"), [(SILENCE, True), (FAILURE, False)])
def test_a_parked_call_waits_longer_after_silence_than_after_failure(
    store: Store, unknown: Unknown, quiet: bool
) -> None:
    _, call = begun(store)

    store.calls.park(call, unknown)

    assert list(store.calls.take_due(10, LEASE_SECONDS)) == []
    store.pass_time(2)
    soon = store.calls.take_due(10, LEASE_SECONDS)
    assert (list(soon) == []) is quiet
    if quiet:
        assert take_up(store, 18).unanswered


def test_how_long_a_call_is_quiet_after_silence_is_up_to_the_bank(hurried_store: Store) -> None:
    _, call = begun(hurried_store)

    hurried_store.calls.park(call, SILENCE)

    hurried_store.pass_time(6)
    assert list(hurried_store.calls.take_due(10, LEASE_SECONDS)) == []
    assert take_up(hurried_store, 1).unanswered


def test_silence_once_is_remembered_through_failures(store: Store) -> None:
    _, call = begun(store)
    store.calls.park(call, SILENCE)
    store.calls.park(take_up(store), FAILURE)

    early = [list(store.calls.take_due(10, LEASE_SECONDS))]
    store.pass_time(15)
    early.append(list(store.calls.take_due(10, LEASE_SECONDS)))

    assert early == [[], []]
    assert take_up(store, 6).unanswered


@pytest.mark.parametrize("attempts", [1, 5, 30, 1_000, 5_000])
def test_a_bank_that_fails_for_days_is_asked_every_half_minute(store: Store, attempts: int) -> None:
    _, call = begun(store)

    store.calls.park(replace(call, attempts=attempts), FAILURE)

    assert not take_up(store, 31).unanswered


@pytest.mark.parametrize("attempt", ["park", "end"])
def test_whoever_lost_the_lease_changes_nothing(store: Store, attempt: str) -> None:
    payment, stale = begun(store)
    take_up(store)
    before = store.everything()
    Story(payment).authorized()

    with pytest.raises(LeaseLost):
        finish(store, payment, stale, attempt)

    assert store.everything() == before


@pytest.mark.parametrize("attempt", ["park", "end"])
def test_a_lease_of_an_operation_that_is_over_is_not_one_of_the_next(
    store: Store, attempt: str
) -> None:
    payment, stale = begun(store)
    story = Story(payment).authorized()
    record(store, payment, EndCall(call=stale))
    story.asked_to_capture()
    record(store, payment, begin(payment))
    before = store.everything()
    Story(payment).answered(FAILED_CAPTURE)

    with pytest.raises(LeaseLost):
        finish(store, payment, stale, attempt)

    assert store.everything() == before


def test_a_call_that_ended_is_neither_ended_again_nor_parked(store: Store) -> None:
    payment, call = begun(store)
    Story(payment).authorized()
    record(store, payment, EndCall(call=call))
    late = again(store, payment)
    late.request_void(at=NOON)

    with pytest.raises(LeaseLost):
        store.calls.park(call, FAILURE)
    with pytest.raises(LeaseLost):
        record(store, late, EndCall(call=call))

    assert again(store, payment).version == 2


def test_a_payment_has_one_outstanding_call(store: Store) -> None:
    payment, _ = begun(store)
    late = again(store, payment)
    Story(late).authorized().asked_to_capture()

    with pytest.raises(ConcurrentChange):
        record(store, late, begin(late))

    assert again(store, payment).version == 1


# --- order slots, through the ledger's own commands ---


def test_an_authorized_payment_has_its_order(store: Store) -> None:
    payment_id = authorized(store)

    assert store.slot(TENANT, "ORD-1001") == payment_id
    with pytest.raises(OrderAlreadyPaid) as refused:
        store.ledger.authorize(authorize())
    assert refused.value.code == "order_already_paid"


def test_an_order_is_its_merchants_and_its_modes(store: Store) -> None:
    authorized(store)

    store.ledger.authorize(authorize(tenant=a_tenant("mer_other")))
    store.ledger.authorize(authorize(tenant=a_tenant(mode=Mode.LIVE)))

    assert store.slot(a_tenant("mer_other"), "ORD-1001") is not None


def test_a_decline_frees_the_order(store: Store) -> None:
    store.ledger.authorize(authorize(card=an_empty_card()))

    assert store.slot(TENANT, "ORD-1001") is None
    assert authorized(store) == store.slot(TENANT, "ORD-1001")


def test_a_void_frees_the_order(store: Store) -> None:
    store.ledger.void(void(authorized(store)))

    assert store.slot(TENANT, "ORD-1001") is None


def test_a_full_refund_frees_the_order_and_a_partial_one_does_not(store: Store) -> None:
    store.bank.capabilities = ANY_AMOUNT
    payment_id = captured(store)

    store.ledger.refund(refund(payment_id, amount_minor=4999))
    after_part = store.slot(TENANT, "ORD-1001")
    store.ledger.refund(refund(payment_id))

    assert (after_part, store.slot(TENANT, "ORD-1001")) == (payment_id, None)


def test_a_payment_frees_no_order_that_is_anothers(store: Store) -> None:
    payment_id = authorized(store)
    other = a_payment(order_id="ORD-2")
    foreign = FreeOrderSlot(tenant=TENANT, order_id="ORD-1001", payment_id=other.id)

    record(store, other, foreign)

    assert store.slot(TENANT, "ORD-1001") == payment_id


# --- receipts, and the ledger as a whole ---


def test_receipts_and_refunds_are_there_with_the_events(store: Store) -> None:
    store.bank.capabilities = ANY_AMOUNT
    payment_id = captured(store)
    reply = store.ledger.refund(refund(payment_id, amount_minor=1200, reason="duplicate"))

    (expected,) = refunds.fold(reply.history)
    refund_id = decode(Prefix.REFUND, expected["id"])
    assert store.receipt(payment_id, TENANT) == receipts.fold(reply.history)
    assert store.refund(refund_id, TENANT) == expected


def test_an_unknown_outcome_is_parked_and_completed_later(store: Store) -> None:
    store.bank.will_suffer(Misfortune.SILENT_AFTER)
    reply = store.ledger.authorize(authorize("key-1"))
    pending = store.find(TENANT, "key-1")

    final = resumed(store, take_up(store))

    assert isinstance(reply, Pending)
    assert isinstance(final, Settled)
    answered = store.find(TENANT, "key-1")
    assert pending is not None
    assert pending.pending
    assert answered is not None
    assert answered.answer == final.answer
    assert len(store.bank.holds) == 1


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_any_operation_is_completed_later(store: Store, operation: Operation) -> None:
    payment_id = captured(store) if operation == Operation.REFUND else authorized(store)
    store.bank.will_suffer(Misfortune.SILENT_AFTER)
    match operation:
        case Operation.CAPTURE:
            reply = store.ledger.capture(capture(payment_id))
        case Operation.VOID:
            reply = store.ledger.void(void(payment_id))
        case _:
            reply = store.ledger.refund(refund(payment_id))

    final = resumed(store, take_up(store))

    assert isinstance(reply, Pending)
    assert isinstance(final, Settled)
    assert store.ledger.payment(payment_id, TENANT).running is None


# --- operators ------------------------------------------------------------------------------------


def test_a_call_that_somebody_is_at_is_not_unattended(store: Store) -> None:
    payment, call = begun(store)

    at_work = store.calls.unattended(payment.id)
    store.calls.park(call, FAILURE)
    parked = store.calls.unattended(payment.id)
    taken = take_up(store)
    at_work_again = store.calls.unattended(payment.id)
    store.pass_time(LEASE_SECONDS)
    died = store.calls.unattended(payment.id)

    assert (at_work, at_work_again) == (None, None)
    assert parked is not None
    assert died is not None
    assert (parked.fence, died.fence) == (call.fence, taken.fence)
    assert replace(parked, reached=call.reached) == call


def test_no_call_is_not_unattended(store: Store) -> None:
    assert store.calls.unattended(authorized(store)) is None


def test_a_decision_is_written_whole(store: Store) -> None:
    store.bank.will_answer(SILENCE)
    reply = store.ledger.authorize(authorize("key-1"))
    payment_id = reply.history[0].originator_id

    store.ledger.resolve(resolve(payment_id, Status.DECLINED))

    claimed = store.find(TENANT, "key-1")
    receipt = store.receipt(payment_id, TENANT)
    assert claimed is not None
    assert claimed.answer is not None
    assert claimed.answer.status == 402
    assert store.slot(TENANT, "ORD-1001") is None
    assert store.calls.unattended(payment_id) is None
    assert receipt is not None
    assert (receipt["status"], receipt["reviews"]) == (Status.DECLINED, [])


def test_a_decision_on_a_call_that_was_taken_up_meanwhile_leaves_nothing(store: Store) -> None:
    payment, call = begun(store)
    store.calls.park(call, FAILURE)
    looked_at = store.calls.unattended(payment.id)
    assert looked_at is not None
    take_up(store)
    before = store.everything()
    again_loaded = again(store, payment)
    again_loaded.settle(FAILED_CAPTURE, attempts_before=0, unanswered_before=0, at=NOON)

    with pytest.raises(LeaseLost):
        record(store, again_loaded, EndCall(call=looked_at))

    assert store.everything() == before


def test_an_id_that_is_found_is_written_into_the_older_refund(store: Store) -> None:
    story = Story(a_payment()).authorized().captured().asked_to_refund(1000)
    story.answered(LOST_REFUND, attempts=1).refunded(500).refunded(250).refunded(125)
    record(store, story.payment)

    store.ledger.resolve(resolve(story.payment.id, Status.CAPTURED, "ref_found"))

    every = story.payment.bank_refund_ids
    rows = [store.refund(refunds.uuid_of(each), TENANT) for each in every]
    assert rows == refunds.fold(again(store, story.payment).history)
    assert rows[0] is not None
    assert rows[0]["bank_refund_id"] == "ref_found"

"""What an operator may decide, what follows from it, and what cannot be."""

import json
from typing import Any

import pytest

from domain.bank import AlreadyDone, Operation, Unknown
from domain.errors import (
    BankIdRefused,
    DomainError,
    LeaseLost,
    NothingToResolve,
    OperationInProgress,
    OrderAlreadyPaid,
    PaymentStateConflict,
    ResolutionRefused,
)
from domain.ledger import LEASE_SECONDS, Pending, Reply, Settled
from domain.payment import Payment, Status
from domain.records import BankCall
from domain.resolution import RESOLVED_AS_NOT_DONE
from projections import receipts, refunds
from tests.builders import (
    FAR_DEADLINE,
    Story,
    a_payment_that_is,
    a_tenant,
    a_transfer,
    authorize,
    capture,
    refund,
    resolve,
    void,
)
from tests.fakes import InMemoryLedger

SILENCE = Unknown(reason="no answer", unanswered=True)
LOST = AlreadyDone(code="already_refunded", after_attempts=0)
AN_ID = {
    Status.AUTHORIZED: "auth_1",
    Status.CAPTURED: "cap_9",
    Status.REFUNDED: "ref_9",
    Status.VOIDED: "void_9",
    Status.EXPIRED: "void_9",
}


def new_events(story: Story, version: int) -> list[str]:
    return [type(event).__name__ for event in story.payment.history[version:]]


def asked(operation: Operation) -> Story:
    """With this operation at the bank, and no answer."""
    match operation:
        case Operation.AUTHORIZATION:
            return Story()
        case Operation.CAPTURE:
            return Story().authorized().asked_to_capture()
        case Operation.VOID:
            return Story().authorized().asked_to_void()
        case Operation.REFUND:
            return Story().authorized().captured().asked_to_refund()
        case Operation.TRANSFER:
            return Story(a_transfer())


# --- what is outstanding --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "found", "bank_id", "events", "is_then"),
    [
        (Operation.AUTHORIZATION, Status.AUTHORIZED, "auth_7", ["Authorized"], Status.AUTHORIZED),
        (Operation.AUTHORIZATION, Status.DECLINED, None, ["AuthorizationDeclined"], Status.DECLINED),
        (Operation.CAPTURE, Status.CAPTURED, "cap_7", ["Captured"], Status.CAPTURED),
        (Operation.CAPTURE, Status.AUTHORIZED, None, ["CaptureDeclined"], Status.AUTHORIZED),
        (Operation.CAPTURE, Status.VOIDED, "void_7", ["CaptureDeclined", "VoidRequested", "Voided"], Status.VOIDED),
        (Operation.VOID, Status.VOIDED, None, ["Voided"], Status.VOIDED),
        (Operation.VOID, Status.EXPIRED, "void_7", ["Expired"], Status.EXPIRED),
        (Operation.VOID, Status.AUTHORIZED, "auth_1", ["VoidDeclined"], Status.AUTHORIZED),
        (Operation.VOID, Status.CAPTURED, "cap_7", ["VoidDeclined", "CaptureRequested", "Captured"], Status.CAPTURED),
        (Operation.REFUND, Status.REFUNDED, "ref_7", ["Refunded"], Status.REFUNDED),
        (Operation.REFUND, Status.CAPTURED, None, ["RefundDeclined"], Status.CAPTURED),
        (Operation.REFUND, Status.CAPTURED, "cap_1", ["RefundDeclined"], Status.CAPTURED),
        (Operation.TRANSFER, Status.CAPTURED, "trf_7", ["Transferred"], Status.CAPTURED),
        (Operation.TRANSFER, Status.DECLINED, None, ["TransferDeclined"], Status.DECLINED),
    ],
)  # fmt: skip
def test_an_operators_word_is_the_outcome_of_what_is_outstanding(
    operation: Operation,
    found: Status,
    bank_id: str | None,
    events: list[str],
    is_then: Status,
) -> None:
    story = asked(operation)
    version = story.payment.version

    story.resolved(found, bank_id)

    assert new_events(story, version) == [*events, "ReviewResolved"]
    assert (story.payment.status, story.payment.running) == (is_then, None)
    assert story.payment.reviews == {}


def test_a_part_that_is_being_refunded_leaves_the_payment_captured() -> None:
    story = Story().authorized().captured().asked_to_refund(1000)

    story.resolved(Status.CAPTURED, "ref_7")

    assert (story.payment.status, story.payment.refunded_minor) == (Status.CAPTURED, 1000)


@pytest.mark.parametrize(
    ("operation", "found", "bank_id"),
    [
        (Operation.AUTHORIZATION, Status.AUTHORIZED, None),
        (Operation.AUTHORIZATION, Status.AUTHORIZED, "cap_7"),
        (Operation.AUTHORIZATION, Status.CAPTURED, "cap_7"),
        (Operation.AUTHORIZATION, Status.VOIDED, None),
        (Operation.CAPTURE, Status.CAPTURED, None),
        (Operation.CAPTURE, Status.DECLINED, None),
        (Operation.CAPTURE, Status.REFUNDED, "ref_7"),
        (Operation.CAPTURE, Status.AUTHORIZED, "auth_another"),
        (Operation.VOID, Status.DECLINED, None),
        (Operation.REFUND, Status.REFUNDED, None),
        (Operation.REFUND, Status.REFUNDED, "cap_1"),
        (Operation.REFUND, Status.CAPTURED, "ref_7"),
        (Operation.REFUND, Status.AUTHORIZED, None),
        (Operation.REFUND, Status.VOIDED, "void_7"),
    ],
)
def test_what_cannot_have_become_of_it_is_refused(
    operation: Operation, found: Status, bank_id: str | None
) -> None:
    with pytest.raises(DomainError):
        asked(operation).resolved(found, bank_id)


def test_a_refund_cannot_be_resolved_by_one_that_is_recorded() -> None:
    story = Story().authorized().captured().refunded(1000)
    (known,) = story.payment.bank_refund_ids.values()

    with pytest.raises(BankIdRefused):
        story.asked_to_refund(1000).resolved(Status.CAPTURED, known)


# --- reviews ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "events"),
    [
        (Status.AUTHORIZED, []),
        (Status.CAPTURED, ["CaptureRequested", "Captured"]),
        (Status.VOIDED, ["VoidRequested", "Voided"]),
        (Status.EXPIRED, ["VoidRequested", "Expired"]),
    ],
)
def test_what_the_bank_did_without_our_knowing_is_recorded_as_an_ask_and_its_outcome(
    found: Status, events: list[str]
) -> None:
    story = Story().authorized().differing()
    version = story.payment.version

    story.resolved(found, AN_ID[found])

    assert new_events(story, version) == [*events, "ReviewResolved"]
    assert (story.payment.status, story.payment.reviews) == (found, {})
    receipt = receipts.fold(story.payment.history)
    assert (receipt["status"], receipt["reviews"]) == (found, [])
    assert receipt["pending_operation"] is None
    assert "differences" not in receipt


def test_a_capture_of_a_part_is_recorded_as_one() -> None:
    story = Story().authorized().differing().resolved(Status.CAPTURED, "cap_9", amount_minor=4000)

    assert (story.payment.status, story.payment.captured_minor) == (Status.CAPTURED, 4000)


def test_all_that_is_left_was_refunded() -> None:
    story = Story().authorized().captured().refunded(1000).differing()

    story.resolved(Status.REFUNDED, "ref_9")

    assert (story.payment.status, story.payment.refunded_minor) == (Status.REFUNDED, 5000)
    first, second = refunds.fold(story.payment.history)
    assert (first["amount"], second["amount"]) == (1000, 4000)
    assert (second["status"], second["bank_refund_id"]) == ("succeeded", "ref_9")


def test_a_part_that_was_refunded_without_our_knowing_is_recorded_with_its_amount() -> None:
    story = Story().authorized().captured().differing()

    story.resolved(Status.CAPTURED, "ref_9", amount_minor=1500)

    assert (story.payment.status, story.payment.refunded_minor) == (Status.CAPTURED, 1500)


@pytest.mark.parametrize("is_now", [s for s in Status if s is not Status.PENDING])
@pytest.mark.parametrize("found", Status)
def test_the_table_of_what_is_allowed_decides_what_can_have_happened(
    is_now: Status, found: Status
) -> None:
    possible = {
        (Status.AUTHORIZED, Status.CAPTURED),
        (Status.AUTHORIZED, Status.VOIDED),
        (Status.AUTHORIZED, Status.EXPIRED),
        (Status.CAPTURED, Status.REFUNDED),
    }
    story = Story(a_payment_that_is(is_now)).differing()
    same = is_now == found

    if same or (is_now, found) in possible:
        story.resolved(found, None if same else AN_ID[found])
        assert story.payment.status == found
    else:
        with pytest.raises(PaymentStateConflict, match=r"cannot have become|cannot be found"):
            story.resolved(found, AN_ID.get(found))


@pytest.mark.parametrize("is_now", [s for s in Status if s is not Status.PENDING])
def test_what_is_certain_is_not_to_be_resolved(is_now: Status) -> None:
    with pytest.raises(NothingToResolve):
        Story(a_payment_that_is(is_now)).resolved(is_now)


def test_an_id_that_the_bank_had_forgotten_is_filled_in_and_refunds_are_possible() -> None:
    story = Story().authorized().capture_lost()

    story.resolved(Status.CAPTURED, "cap_9")

    assert story.payment.capture_id == "cap_9"
    assert receipts.fold(story.payment.history)["bank"]["capture_id"] == "cap_9"
    assert story.refunded().payment.status == Status.REFUNDED


@pytest.mark.parametrize("bank_id", [None, "ref_9", "trf_9"])
def test_a_capture_without_an_id_is_no_end_of_a_review(bank_id: str | None) -> None:
    with pytest.raises(BankIdRefused, match="cap_"):
        Story().authorized().capture_lost().resolved(Status.CAPTURED, bank_id, amount_minor=10)


def test_a_transfer_that_came_is_all_of_it() -> None:
    story = Story(a_transfer())

    with pytest.raises(ResolutionRefused):
        story.resolved(Status.CAPTURED, "trf_9", amount_minor=10)


def test_the_id_of_a_refund_is_filled_in_where_it_was_lacking() -> None:
    story = Story().authorized().captured().asked_to_refund(1000).answered(LOST, attempts=1)
    story.refunded(500)

    story.resolved(Status.CAPTURED, "ref_9")

    first, second = refunds.fold(story.payment.history)
    assert (first["amount"], first["bank_refund_id"]) == (1000, "ref_9")
    assert second["bank_refund_id"] != "ref_9"
    assert "ref_9" in receipts.fold(story.payment.history)["bank"]["refund_ids"]


@pytest.mark.parametrize(
    ("status", "bank_id"),
    [
        (Status.AUTHORIZED, "auth_another"),
        (Status.CAPTURED, "cap_another"),
        (Status.VOIDED, "void_another"),
        (Status.CAPTURED, "ref_9"),
        (Status.REFUNDED, "ref_9"),
    ],
)
def test_an_id_of_something_else_is_refused(status: Status, bank_id: str) -> None:
    with pytest.raises((BankIdRefused, ResolutionRefused)):
        Story(a_payment_that_is(status)).differing().resolved(status, bank_id)


@pytest.mark.parametrize(
    "bank_id", ["", "cap_", "capture_1", "CAP_1", "cap_1\n", "cap_é", "cap_" + "1" * 65, "rfnd_1"]
)
def test_a_malformed_id_is_refused(bank_id: str) -> None:
    with pytest.raises(BankIdRefused):
        Story().authorized().capture_lost().resolved(Status.CAPTURED, bank_id)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501])
def test_a_reason_is_one_line(reason: str) -> None:
    with pytest.raises(ResolutionRefused):
        Story().authorized().differing().resolved(Status.AUTHORIZED, reason=reason)


@pytest.mark.parametrize("amount", [0, 5001])
def test_no_more_can_have_been_captured_than_was_held(amount: int) -> None:
    with pytest.raises(ResolutionRefused):
        Story().authorized().differing().resolved(Status.CAPTURED, "cap_9", amount_minor=amount)


@pytest.mark.parametrize("amount", [4999, 5001])
def test_a_payment_is_refunded_only_by_all_that_is_left(amount: int) -> None:
    story = Story().authorized().captured().differing()

    with pytest.raises(ResolutionRefused):
        story.resolved(Status.REFUNDED, "ref_9", amount_minor=amount)


def test_an_amount_has_no_meaning_for_a_release() -> None:
    with pytest.raises(ResolutionRefused):
        Story().authorized().differing().resolved(Status.VOIDED, amount_minor=10)


# --- the ledger -------------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger()


def payment_of(ledger: InMemoryLedger, reply: Reply) -> Payment:
    return ledger.payment(reply.history[0].originator_id, a_tenant())


def authorized(ledger: InMemoryLedger) -> Payment:
    reply = ledger.authorize(authorize("key-a"))
    assert isinstance(reply, Settled)
    return payment_of(ledger, reply)


def outstanding(ledger: InMemoryLedger, operation: Operation) -> Payment:
    """Parked: the bank was silent."""
    if operation is Operation.AUTHORIZATION:
        ledger.fake_bank.will_answer(SILENCE)
        return payment_of(ledger, ledger.authorize(authorize("key-1")))
    payment = authorized(ledger)
    if operation is Operation.REFUND:
        ledger.capture(capture(payment.id))
    ledger.fake_bank.will_answer(SILENCE)
    match operation:
        case Operation.CAPTURE:
            reply = ledger.capture(capture(payment.id, "key-1"))
        case Operation.VOID:
            reply = ledger.void(void(payment.id, "key-1"))
        case _:
            reply = ledger.refund(refund(payment.id, "key-1"))
    assert isinstance(reply, Pending)
    return payment_of(ledger, reply)


def everything(ledger: InMemoryLedger) -> dict[str, Any]:
    tables = ledger.store.tables.copy()
    return {name: getattr(tables, name) for name in ("events", "calls", "slots", "answers")}


def stored_answer(ledger: InMemoryLedger, key: str = "key-1") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(ledger.store.tables.answers[a_tenant(), key].body)
    return body


@pytest.mark.parametrize(
    ("operation", "found", "bank_id", "outcome"),
    [
        (Operation.AUTHORIZATION, Status.AUTHORIZED, "auth_7", "Authorized"),
        (Operation.AUTHORIZATION, Status.DECLINED, None, "AuthorizationDeclined"),
        (Operation.CAPTURE, Status.CAPTURED, "cap_7", "Captured"),
        (Operation.CAPTURE, Status.VOIDED, None, "CaptureDeclined"),
        (Operation.VOID, Status.VOIDED, None, "Voided"),
        (Operation.REFUND, Status.REFUNDED, "ref_7", "Refunded"),
        (Operation.REFUND, Status.CAPTURED, None, "RefundDeclined"),
    ],
)
def test_whoever_asked_is_answered_by_what_became_of_what_they_asked(
    ledger: InMemoryLedger, operation: Operation, found: Status, bank_id: str | None, outcome: str
) -> None:
    payment = outstanding(ledger, operation)

    ledger.resolve(resolve(payment.id, found, bank_id))

    assert ledger.store.tables.calls == {}
    assert stored_answer(ledger)["outcome"] == outcome
    assert stored_answer(ledger)["operation"] == operation


def test_the_operator_is_the_cause(ledger: InMemoryLedger) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)

    ledger.resolve(resolve(payment.id, Status.CAPTURED, "cap_7"))

    assert [cause.actor for cause in ledger.store.tables.causes[payment.id][-2:]] == ["ada", "ada"]


@pytest.mark.parametrize(
    ("found", "is_free"),
    [(Status.DECLINED, True), (Status.AUTHORIZED, False)],
)
def test_the_order_is_free_when_its_payment_is_live_no_more(
    ledger: InMemoryLedger, found: Status, is_free: bool
) -> None:
    payment = outstanding(ledger, Operation.AUTHORIZATION)

    ledger.resolve(resolve(payment.id, found, AN_ID.get(found)))

    if is_free:
        assert isinstance(ledger.authorize(authorize("key-2")), Settled)
    else:
        with pytest.raises(OrderAlreadyPaid):
            ledger.authorize(authorize("key-2"))


def test_it_is_refused_while_somebody_is_at_work_and_changes_nothing(
    ledger: InMemoryLedger,
) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)
    ledger.steppable.advance(LEASE_SECONDS)
    (call,) = ledger.bank_calls.take_due(1, LEASE_SECONDS)
    before = everything(ledger)

    with pytest.raises(OperationInProgress):
        ledger.resolve(resolve(payment.id, Status.CAPTURED, "cap_7"))

    assert everything(ledger) == before
    assert isinstance(ledger.resume(call, deadline=FAR_DEADLINE), Settled)


def test_who_died_at_work_is_nobody(ledger: InMemoryLedger) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)
    ledger.steppable.advance(LEASE_SECONDS)
    ledger.bank_calls.take_due(1, LEASE_SECONDS)
    ledger.steppable.advance(LEASE_SECONDS)

    ledger.resolve(resolve(payment.id, Status.CAPTURED, "cap_7"))

    assert ledger.payment(payment.id, a_tenant()).status == Status.CAPTURED


def test_who_wakes_up_after_the_decision_changes_nothing(ledger: InMemoryLedger) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)
    ledger.steppable.advance(LEASE_SECONDS)
    (call,) = ledger.bank_calls.take_due(1, LEASE_SECONDS)
    ledger.steppable.advance(LEASE_SECONDS)
    ledger.resolve(resolve(payment.id, Status.AUTHORIZED))
    before = everything(ledger)

    with pytest.raises(LeaseLost):
        ledger.resume(call, deadline=FAR_DEADLINE)

    assert everything(ledger) == before


def test_who_takes_the_call_up_between_the_look_and_the_decision_keeps_it(
    ledger: InMemoryLedger,
) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)
    ledger.steppable.advance(LEASE_SECONDS)
    look = ledger.bank_calls.unattended
    taken: list[BankCall] = []

    class QuickWorker:
        """Takes the call up as soon as somebody has looked."""

        def unattended(self, payment_id: Any) -> Any:
            call = look(payment_id)
            taken.extend(calls.take_due(1, LEASE_SECONDS))
            return call

    calls, ledger.bank_calls = ledger.bank_calls, QuickWorker()  # type: ignore[assignment]
    with pytest.raises(LeaseLost):
        ledger.resolve(resolve(payment.id, Status.CAPTURED, "cap_7"))
    ledger.bank_calls = calls

    assert ledger.payment(payment.id, a_tenant()).running is not None
    assert isinstance(ledger.resume(taken[0], deadline=FAR_DEADLINE), Settled)


def test_a_refused_decision_changes_nothing(ledger: InMemoryLedger) -> None:
    payment = outstanding(ledger, Operation.CAPTURE)
    before = everything(ledger)

    with pytest.raises(DomainError):
        ledger.resolve(resolve(payment.id, Status.DECLINED))

    assert everything(ledger) == before
    assert RESOLVED_AS_NOT_DONE not in repr(before)

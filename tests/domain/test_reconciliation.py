"""Where the bank's records differ from a payment, and where they cannot be said to."""

from dataclasses import replace
from datetime import timedelta

import pytest

from domain.bank import AlreadyDone, Answer, Declined, Operation, Unknown
from domain.bank_records import BankRecord, NoRecord, NotTold
from domain.errors import ConcurrentChange, OperationInProgress
from domain.ledger import Reply
from domain.payment import Difference, DifferenceKind, Payment, ReviewReason, Status, bank_key
from domain.reconciliation import REMEMBERED_FOR, RecordNotTold, differences, operations
from domain.records import StoredAnswer
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    a_bank_request,
    a_card,
    a_cause,
    a_tenant,
    an_account,
    an_empty_card,
    authorize,
    capture,
    dollars,
    make_payment,
    refund,
    resolve,
    void,
)
from tests.fakes import FakeRecords, InMemoryLedger

NO = Declined(code="authorization_expired")


@pytest.fixture
def ledger() -> InMemoryLedger:
    return InMemoryLedger(capabilities=ANY_AMOUNT)


@pytest.fixture
def records(ledger: InMemoryLedger) -> FakeRecords:
    return FakeRecords(ledger.fake_bank)


def payment_of(ledger: InMemoryLedger, reply: Reply) -> Payment:
    return ledger.payment(reply.history[0].originator_id, a_tenant())


def again(ledger: InMemoryLedger, payment: Payment) -> Payment:
    return ledger.payment(payment.id, a_tenant())


def authorized(ledger: InMemoryLedger, order_id: str = "ORD-1") -> Payment:
    return payment_of(ledger, ledger.authorize(authorize(order_id=order_id)))


def captured(ledger: InMemoryLedger, order_id: str = "ORD-1") -> Payment:
    payment = authorized(ledger, order_id)
    return payment_of(ledger, ledger.capture(capture(payment.id)))


def found(ledger: InMemoryLedger, payment: Payment, records: FakeRecords) -> list[Difference]:
    return differences(again(ledger, payment), records, now=ledger.clock.now())


def answered(
    ledger: InMemoryLedger, payment: Payment, operation: Operation, answer: Answer
) -> Payment:
    """Asked for, and settled by `answer`, of which the bank's books know nothing."""
    ledger.fake_bank.will_answer(answer)
    match operation:
        case Operation.CAPTURE:
            reply = ledger.capture(capture(payment.id))
        case Operation.VOID:
            reply = ledger.void(void(payment.id))
        case _:
            reply = ledger.refund(refund(payment.id))
    return payment_of(ledger, reply)


def done_all_the_same(ledger: InMemoryLedger, payment: Payment, operation: Operation) -> str:
    """The bank does what was last asked under our key, and remembers it; its id."""
    (asked,) = [each for each in operations(payment) if each.operation is operation]
    is_refund = operation is Operation.REFUND
    bank_id = payment.capture_id if is_refund else payment.authorization_id
    request = a_bank_request(operation, key=asked.key, bank_id=bank_id)
    answer = ledger.fake_bank.perform(request)
    assert not isinstance(answer, Unknown | Declined)
    return answer.bank_id  # type: ignore[union-attr]


def test_payments_as_the_bank_has_them_do_not_differ(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    held, taken = authorized(ledger, "ORD-1"), captured(ledger, "ORD-2")
    partly, wholly = captured(ledger, "ORD-3"), captured(ledger, "ORD-4")
    ledger.refund(refund(partly.id, amount_minor=1000))
    ledger.refund(refund(partly.id, amount_minor=500))
    ledger.refund(refund(wholly.id))
    released = authorized(ledger, "ORD-5")
    ledger.void(void(released.id))
    declined = payment_of(ledger, ledger.authorize(authorize(order_id="6", card=an_empty_card())))
    in_part = authorized(ledger, "ORD-7")
    ledger.capture(capture(in_part.id, amount_minor=10))

    for payment in (held, taken, partly, wholly, released, declined, in_part):
        assert found(ledger, payment, records) == []
    # Every id but a void's was looked up, and the one that was declined asked for by our key.
    assert len(records.looks) == 1 + 2 + 4 + 3 + 1 + 1 + 2


@pytest.mark.parametrize("which", ["authorization", "capture", "refund"])
def test_what_the_bank_does_not_have_any_more_is_missing(
    ledger: InMemoryLedger, records: FakeRecords, which: str
) -> None:
    payment = payment_of(ledger, ledger.refund(refund(captured(ledger).id)))
    (refund_id,) = payment.bank_refund_ids.values()
    ids = {"capture": payment.capture_id, "refund": refund_id}
    bank_id = ids.get(which) or payment.authorization_id
    assert bank_id is not None
    records.will_tell(bank_id, NoRecord())

    (difference,) = found(ledger, payment, records)

    assert difference == Difference(kind=DifferenceKind.MISSING, ours=bank_id, bank="not_found")


@pytest.mark.parametrize(
    ("changed", "kind", "said"),
    [
        ({"amount_minor": 4000}, DifferenceKind.AMOUNT, ("5000", "4000")),
        ({"currency": "EUR"}, DifferenceKind.CURRENCY, ("USD", "EUR")),
        ({"status": "reversed"}, DifferenceKind.STATE, ("captured", "reversed")),
        ({"about": "auth_99"}, DifferenceKind.REFERENCE, ("auth_1", "auth_99")),
    ],
)
def test_what_the_bank_has_otherwise_is_a_difference_of_its_kind(
    ledger: InMemoryLedger,
    records: FakeRecords,
    changed: dict[str, object],
    kind: DifferenceKind,
    said: tuple[str, str],
) -> None:
    payment = captured(ledger)
    bank_id = payment.capture_id
    assert bank_id is not None
    record = records.look_up(Operation.CAPTURE, bank_id)
    assert isinstance(record, BankRecord)
    records.will_tell(bank_id, replace(record, **changed))  # type: ignore[arg-type]

    (difference,) = found(ledger, payment, records)

    expected = Difference(kind=kind, ours=f"{bank_id} {said[0]}", bank=f"{bank_id} {said[1]}")
    assert difference == expected


def test_a_record_of_something_else_is_a_difference(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    payment, other = captured(ledger, "ORD-1"), captured(ledger, "ORD-2")
    assert payment.capture_id is not None
    assert other.capture_id is not None
    records.will_tell(payment.capture_id, records.look_up(Operation.CAPTURE, other.capture_id))

    (difference,) = found(ledger, payment, records)

    assert (difference.kind, difference.bank) == (DifferenceKind.REFERENCE, other.capture_id)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (Operation.CAPTURE, DifferenceKind.UNKNOWN_CAPTURE),
        (Operation.VOID, DifferenceKind.UNKNOWN_VOID),
        (Operation.REFUND, DifferenceKind.UNKNOWN_REFUND),
    ],
)
def test_what_was_done_though_we_say_it_was_not_is_found_by_our_key(
    ledger: InMemoryLedger, records: FakeRecords, operation: Operation, kind: DifferenceKind
) -> None:
    payment = captured(ledger) if operation is Operation.REFUND else authorized(ledger)
    payment = answered(ledger, payment, operation, NO)
    assert found(ledger, payment, records) == []
    bank_id = done_all_the_same(ledger, payment, operation)

    (difference,) = found(ledger, payment, records)

    assert difference == Difference(kind=kind, ours=f"no {operation}", bank=bank_id)


def test_a_hold_of_a_declined_payment_is_found_by_our_key(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    payment = payment_of(ledger, ledger.authorize(authorize(card=an_empty_card())))
    key = bank_key(payment.id, Operation.AUTHORIZATION, 1)
    held = ledger.fake_bank.perform(a_bank_request(key=key, card=a_card(), money=dollars(50)))

    (difference,) = found(ledger, payment, records)

    assert difference.kind == DifferenceKind.UNKNOWN_AUTHORIZATION
    assert difference.bank == held.bank_id  # type: ignore[union-attr]


def test_the_id_of_a_capture_that_was_lost_is_found_by_our_key(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    already = AlreadyDone(code="authorization_already_used", after_attempts=1)
    payment = answered(ledger, authorized(ledger), Operation.CAPTURE, already)
    bank_id = done_all_the_same(ledger, payment, Operation.CAPTURE)

    (difference,) = found(ledger, payment, records)

    assert difference.kind == DifferenceKind.UNKNOWN_CAPTURE
    assert (difference.ours, difference.bank) == ("capture without an id", bank_id)


def test_what_an_operator_has_recorded_since_differs_no_more(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    payment = answered(ledger, authorized(ledger), Operation.CAPTURE, NO)
    bank_id = done_all_the_same(ledger, payment, Operation.CAPTURE)
    ledger.note_differences(again(ledger, payment), found(ledger, payment, records), a_cause())

    ledger.resolve(resolve(payment.id, Status.CAPTURED, bank_id))

    assert found(ledger, payment, records) == []


def test_a_release_that_was_declined_at_first_needs_no_id(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    payment = answered(ledger, authorized(ledger), Operation.VOID, NO)
    done_all_the_same(ledger, payment, Operation.VOID)
    difference = found(ledger, payment, records)
    ledger.note_differences(again(ledger, payment), difference, a_cause())

    ledger.resolve(resolve(payment.id, Status.VOIDED))

    assert found(ledger, payment, records) == []


@pytest.mark.parametrize(
    ("age", "asks"),
    [
        (REMEMBERED_FOR - timedelta(seconds=1), 1),
        (REMEMBERED_FOR, 0),
    ],
)
def test_the_bank_is_asked_by_our_key_while_it_remembers(
    ledger: InMemoryLedger, records: FakeRecords, age: timedelta, asks: int
) -> None:
    payment = payment_of(ledger, ledger.authorize(authorize(card=an_empty_card())))
    ledger.steppable.advance(age.total_seconds())

    assert found(ledger, payment, records) == []
    assert len(records.looks) == asks


@pytest.mark.parametrize("well", [True, False])
def test_where_the_bank_does_not_tell_nothing_is_said(
    ledger: InMemoryLedger, records: FakeRecords, *, well: bool
) -> None:
    payment = captured(ledger)
    assert payment.capture_id is not None
    records.will_tell(payment.capture_id, NotTold(reason="words", bank_is_well=well))

    with pytest.raises(RecordNotTold) as raised:
        found(ledger, payment, records)

    assert raised.value.bank_is_well is well


# --- what is recorded of it -------------------------------------------------------------------------

OTHER_AMOUNT = Difference(kind=DifferenceKind.AMOUNT, ours="cap_1 5000", bank="cap_1 4000")
GONE = Difference(kind=DifferenceKind.MISSING, ours="auth_1", bank="not_found")


def test_a_difference_is_recorded_once_and_asks_for_a_review(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)

    ledger.note_differences(payment, [OTHER_AMOUNT, GONE], a_cause())
    once = again(ledger, payment)
    ledger.note_differences(again(ledger, payment), [GONE, OTHER_AMOUNT], a_cause())

    assert list(once.reviews) == [ReviewReason.BANK_DISAGREES]
    assert [type(event).__name__ for event in once.history[-3:]] == [
        "DifferenceFound",
        "ReviewNeeded",
        "DifferenceFound",
    ]
    assert again(ledger, payment).version == once.version
    receipt = ledger.store.tables.receipts[payment.id]
    assert [each["kind"] for each in receipt["differences"]] == ["amount", "missing"]


def test_a_difference_that_was_resolved_is_not_recorded_again(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)
    ledger.note_differences(payment, [OTHER_AMOUNT], a_cause())
    ledger.resolve(resolve(payment.id, Status.CAPTURED))

    ledger.note_differences(again(ledger, payment), [OTHER_AMOUNT], a_cause())

    assert again(ledger, payment).reviews == {}


@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_said_of_a_payment_that_has_changed_since(
    ledger: InMemoryLedger, *, known: bool
) -> None:
    payment = authorized(ledger)
    if known:
        ledger.note_differences(again(ledger, payment), [GONE], a_cause())
    stale = again(ledger, payment)
    ledger.capture(capture(payment.id))
    before = again(ledger, payment).version

    with pytest.raises(ConcurrentChange):
        ledger.note_differences(stale, [GONE], a_cause())

    assert again(ledger, payment).version == before


def test_nothing_is_said_of_a_payment_with_something_running(ledger: InMemoryLedger) -> None:
    ledger.fake_bank.will_answer(Unknown(reason="no answer", unanswered=True))
    payment = payment_of(ledger, ledger.authorize(authorize()))

    with pytest.raises(OperationInProgress):
        ledger.note_differences(payment, [GONE], a_cause())


def test_operations_know_the_keys_under_which_they_went_out(ledger: InMemoryLedger) -> None:
    payment = captured(ledger)
    ledger.refund(refund(payment.id, amount_minor=1))
    ledger.refund(refund(payment.id, amount_minor=2))

    keys = [each.key for each in operations(again(ledger, payment))]

    assert keys == [request.key for request in ledger.fake_bank.requests]


# --- money from other banks ------------------------------------------------------------------------


def transferred(ledger: InMemoryLedger, **account: str) -> Payment:
    """Asked for, and looked at until it has its outcome."""
    asked: list[Payment] = []

    def answer(payment: Payment) -> StoredAnswer:
        asked.append(payment)
        return StoredAnswer(status=201, body=b"")

    ledger.transfer(make_payment(means=an_account(**account)), answer)
    while calls := ledger.bank_calls.take_due(1, 30.0):
        ledger.resume(calls[0], deadline=FAR_DEADLINE)
        ledger.steppable.advance(30)
    return again(ledger, asked[0])


def test_transfers_as_the_bank_has_them_do_not_differ(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    came, given_back = transferred(ledger), transferred(ledger)
    ledger.refund(refund(given_back.id, amount_minor=1000))
    failed = transferred(ledger, number="22222227")

    assert (came.status, failed.status) == (Status.CAPTURED, Status.DECLINED)
    for payment in (came, given_back, failed):
        assert found(ledger, payment, records) == []
    # The bank remembers of the one that failed that it was pending, and then says what it is now.
    assert len(records.looks) == 1 + 2 + 2


def test_a_transfer_that_came_though_we_say_that_it_did_not_is_a_difference(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    failed = transferred(ledger, number="22222227")
    (transfer,) = ledger.fake_bank.transfers.values()
    transfer.account_number = "12345678"

    (difference,) = found(ledger, failed, records)

    assert difference == Difference(
        kind=DifferenceKind.UNKNOWN_TRANSFER, ours="no transfer", bank=transfer.bank_id
    )


def test_a_transfer_of_another_amount_is_a_difference(
    ledger: InMemoryLedger, records: FakeRecords
) -> None:
    payment = transferred(ledger)
    (transfer,) = ledger.fake_bank.transfers.values()
    transfer.taken.amount_minor = 4000

    (difference,) = found(ledger, payment, records)

    assert difference.kind is DifferenceKind.AMOUNT

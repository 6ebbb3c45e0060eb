"""Which command is allowed when, and how much it may move."""

from datetime import datetime, timedelta

import pytest

from domain.bank import BankCapabilities, Operation
from domain.errors import (
    AmountTooLarge,
    DomainError,
    OperationInProgress,
    PartialAmountUnsupported,
    PaymentStateConflict,
    RefundExceedsPayment,
    Refusal,
)
from domain.payment import COMMANDS_BY_STATUS, LIVE, Payment, ReviewReason, Status
from tests.builders import (
    ANY_AMOUNT,
    FULL_AMOUNTS,
    NOON,
    Story,
    a_payment,
    a_payment_that_is,
    an_approval,
)

# As it is published, row by row.
PUBLISHED = """
    |         | pending               | authorized           | captured                 | refunded                 | voided                 | declined             | expired               |
    | capture | operation_in_progress | yes                  | payment_already_captured | payment_already_refunded | payment_voided         | payment_declined     | authorization_expired |
    | void    | operation_in_progress | yes                  | payment_already_captured | payment_already_refunded | payment_already_voided | payment_declined     | authorization_expired |
    | refund  | operation_in_progress | payment_not_captured | yes                      | payment_already_refunded | payment_not_captured   | payment_not_captured | payment_not_captured  |
"""


def published() -> list[tuple[Operation, Status, str]]:
    header, *rows = [
        [cell.strip() for cell in line.strip(" |").split("|")]
        for line in PUBLISHED.split("\n")[1:-1]
    ]
    return [
        (Operation(row[0]), Status(status), code)
        for row in rows
        for status, code in zip(header[-7:], row[1:], strict=True)
    ]


ALLOWED = [(operation, status) for operation, status, code in published() if code == "yes"]
REFUSED = [case for case in published() if case[2] != "yes"]


def ask(payment: Payment, operation: Operation) -> None:
    story = Story(payment)
    match operation:
        case Operation.CAPTURE:
            story.asked_to_capture()
        case Operation.VOID:
            story.asked_to_void()
        case _:
            story.asked_to_refund()


def test_the_published_table_has_a_cell_for_every_command_in_every_status() -> None:
    cells = {(operation, status) for operation, status, _ in published()}

    assert len(cells) == 3 * len(Status)
    assert cells == {(op, status) for op, row in COMMANDS_BY_STATUS.items() for status in row}


@pytest.mark.parametrize(("operation", "status"), ALLOWED)
def test_what_the_table_allows_is_asked_of_the_bank(operation: Operation, status: Status) -> None:
    payment = a_payment_that_is(status)

    ask(payment, operation)

    assert payment.running is not None
    assert payment.running.operation == operation
    assert payment.status == status


@pytest.mark.parametrize(("operation", "status", "code"), REFUSED)
def test_what_the_table_refuses_is_told_by_its_code_and_records_nothing(
    operation: Operation, status: Status, code: str
) -> None:
    payment = a_payment_that_is(status)
    before = payment.version

    with pytest.raises(PaymentStateConflict) as refused:
        ask(payment, operation)

    assert refused.value.code == code
    assert refused.value.refusal is Refusal.CONFLICT
    assert payment.version == before


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
@pytest.mark.parametrize(
    "running",
    [
        Story().authorized().asked_to_capture().payment,
        Story().authorized().asked_to_void().payment,
        Story().authorized().asked_to_release().payment,
        Story().authorized().captured().asked_to_refund(10).payment,
    ],
    ids=["capture", "void", "release", "refund"],
)
def test_nothing_else_is_begun_while_an_operation_runs(
    operation: Operation, running: Payment
) -> None:
    before = running.version

    with pytest.raises(OperationInProgress) as refused:
        ask(running, operation)

    assert refused.value.code == "operation_in_progress"
    assert running.version == before


def test_an_order_is_taken_by_what_is_pending_authorized_or_captured() -> None:
    assert {Status.PENDING, Status.AUTHORIZED, Status.CAPTURED} == LIVE


def test_a_new_payment_asks_for_the_whole_hold() -> None:
    payment = a_payment()

    assert payment.status == Status.PENDING
    assert payment.running is not None
    assert payment.running.operation == Operation.AUTHORIZATION
    assert payment.running.amount_minor == 5000
    assert payment.version == 1


def test_an_event_holds_neither_the_number_nor_the_cvc() -> None:
    asked = a_payment().history[0]

    assert "4111111111111111" not in repr(vars(asked))
    assert "cvc" not in repr(vars(asked)).lower()
    assert vars(asked)["card_last4"] == "1111"


def test_a_capture_is_of_the_whole_hold_unless_less_is_asked() -> None:
    whole = Story().authorized().asked_to_capture().payment
    part = Story().authorized().asked_to_capture(1200).payment

    assert whole.running is not None
    assert whole.running.amount_minor == 5000
    assert part.running is not None
    assert part.running.amount_minor == 1200


@pytest.mark.parametrize("bank", [FULL_AMOUNTS, ANY_AMOUNT], ids=["full", "any"])
def test_more_than_is_held_is_never_captured(bank: BankCapabilities) -> None:
    payment = Story().authorized().payment

    with pytest.raises(AmountTooLarge) as refused:
        payment.request_capture(5001, bank, at=NOON)

    assert (refused.value.code, refused.value.param) == ("amount_too_large", "amount")
    assert payment.running is None


@pytest.mark.parametrize("amount", [None, 5000])
def test_a_bank_of_full_amounts_captures_and_refunds_full_amounts(amount: int | None) -> None:
    story = Story(bank=FULL_AMOUNTS).authorized().captured(amount).refunded(amount)

    assert story.payment.status == Status.REFUNDED


def test_a_bank_of_full_amounts_captures_no_part() -> None:
    payment = Story().authorized().payment

    with pytest.raises(PartialAmountUnsupported) as refused:
        payment.request_capture(4999, FULL_AMOUNTS, at=NOON)

    assert refused.value.code == "partial_amount_unsupported"
    assert payment.running is None


def test_a_bank_of_full_amounts_refunds_no_part() -> None:
    story = Story(bank=FULL_AMOUNTS).authorized().captured()

    with pytest.raises(PartialAmountUnsupported):
        story.asked_to_refund(4999)

    assert story.payment.running is None


def test_a_refund_is_of_all_that_is_left_unless_less_is_asked() -> None:
    story = Story().authorized().captured(4000).refunded(1500).asked_to_refund()

    assert story.payment.running is not None
    assert story.payment.running.amount_minor == 2500


def test_partial_refunds_add_up_to_a_refunded_payment() -> None:
    story = Story().authorized().captured(3000)

    statuses = [story.refunded(amount).payment.status for amount in (1000, 1999, 1)]

    assert statuses == [Status.CAPTURED, Status.CAPTURED, Status.REFUNDED]
    assert story.payment.refunded_minor == 3000


@pytest.mark.parametrize("bank", [FULL_AMOUNTS, ANY_AMOUNT], ids=["full", "any"])
def test_more_than_was_captured_is_never_refunded(bank: BankCapabilities) -> None:
    story = Story(bank=bank).authorized().captured()

    with pytest.raises(RefundExceedsPayment) as refused:
        story.asked_to_refund(5001)

    assert (refused.value.code, refused.value.param) == ("refund_exceeds_payment", "amount")
    assert refused.value.refusal is Refusal.CONFLICT


def test_more_than_is_left_is_never_refunded() -> None:
    story = Story().authorized().captured(3000).refunded(2000)

    with pytest.raises(RefundExceedsPayment):
        story.asked_to_refund(1001)

    assert story.payment.refunded_minor == 2000
    assert story.payment.running is None


def test_a_part_that_was_never_captured_is_not_refunded() -> None:
    story = Story().authorized().captured(3000)

    with pytest.raises(RefundExceedsPayment):
        story.asked_to_refund(3001)


@pytest.mark.parametrize("amount", [0, -1, -5000])
def test_an_amount_below_the_least_is_neither_captured_nor_refunded(amount: int) -> None:
    authorized, captured = Story().authorized(), Story().authorized().captured()

    with pytest.raises(DomainError):
        authorized.asked_to_capture(amount)
    with pytest.raises(DomainError):
        captured.asked_to_refund(amount)


def test_a_capture_whose_id_is_unknown_is_not_refunded() -> None:
    story = Story().authorized().captured()
    story.payment.capture_id = None

    with pytest.raises(PaymentStateConflict) as refused:
        story.asked_to_refund()

    assert refused.value.code == ReviewReason.CAPTURE_ID_UNKNOWN


def test_a_refund_keeps_the_id_the_reason_and_the_metadata_that_were_asked() -> None:
    story = Story().authorized().captured()

    story.asked_to_refund(100, refund_id="re_1", reason="duplicate", metadata={"n": 1})

    asked = story.payment.history[-1]
    assert isinstance(asked, Payment.RefundRequested)
    assert (asked.refund_id, asked.reason, asked.metadata) == ("re_1", "duplicate", {"n": 1})


def test_a_declined_capture_may_be_asked_again() -> None:
    story = Story().authorized().asked_to_capture().declined("authorization_expired")

    story.asked_to_capture().answered(an_approval("cap_2"))

    assert story.payment.status == Status.CAPTURED
    assert story.payment.capture_id == "cap_2"


HOLD_ENDS = NOON + timedelta(days=7)


@pytest.mark.parametrize("at", [HOLD_ENDS, HOLD_ENDS + timedelta(days=1)])
def test_a_hold_past_its_time_is_released(at: datetime) -> None:
    payment = Story().authorized().payment

    payment.request_expiry(at=at)

    assert payment.running is not None
    assert (payment.running.operation, payment.running.on_expiry) == (Operation.VOID, True)
    assert payment.status == Status.AUTHORIZED


def test_a_hold_that_still_lasts_is_not_released() -> None:
    payment = Story().authorized().payment

    with pytest.raises(PaymentStateConflict):
        payment.request_expiry(at=HOLD_ENDS - timedelta(microseconds=1))

    assert payment.running is None


@pytest.mark.parametrize("status", [status for status in Status if status != Status.AUTHORIZED])
def test_only_a_hold_is_released(status: Status) -> None:
    payment = a_payment_that_is(status)
    before = payment.version

    with pytest.raises(PaymentStateConflict):
        payment.request_expiry(at=HOLD_ENDS)

    assert payment.version == before

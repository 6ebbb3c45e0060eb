"""Comparing a payment with the bank's records of it.

Each thing that we say was done has a record under the bank's id, and it says the same. Each thing
that we say was not done, or of which we lack the id, is asked for by our own key while the bank
remembers it: if the bank did it all the same, that is a difference too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from domain.bank import Operation
from domain.bank_records import BankRecord, BankRecords, NoRecord, NotTold, Told
from domain.payment import Difference, DifferenceKind, Payment, Status, bank_key

# How long the bank remembers the key of what it did.
REMEMBERED_FOR: Final = timedelta(hours=24)
NOT_FOUND: Final = "not_found"
# What the bank remembers of what had to wait for a shopper or for another bank, whatever became of it.
WAITED: Final = frozenset({"requires_action", "pending"})

DONE: Final[Mapping[Operation, str]] = {
    Operation.AUTHORIZATION: "approved",
    Operation.CAPTURE: "captured",
    Operation.VOID: "voided",
    Operation.REFUND: "refunded",
    Operation.TRANSFER: "settled",
}
UNKNOWN: Final[Mapping[Operation, DifferenceKind]] = {
    Operation.AUTHORIZATION: DifferenceKind.UNKNOWN_AUTHORIZATION,
    Operation.CAPTURE: DifferenceKind.UNKNOWN_CAPTURE,
    Operation.VOID: DifferenceKind.UNKNOWN_VOID,
    Operation.REFUND: DifferenceKind.UNKNOWN_REFUND,
    Operation.TRANSFER: DifferenceKind.UNKNOWN_TRANSFER,
}


class RecordNotTold(Exception):
    """The bank did not say what it has on record, so nothing can be said of the payment."""

    def __init__(self, told: NotTold) -> None:
        super().__init__(told.reason)
        self.bank_is_well = told.bank_is_well


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One operation of a payment with its outcome. `bank_id` is None where it was not done, and where
    it was done and the bank forgot."""

    operation: Operation
    key: str
    amount_minor: int
    is_done: bool
    bank_id: str | None
    answered_at: datetime


def differences(payment: Payment, records: BankRecords, *, now: datetime) -> list[Difference]:
    """Where the bank's records differ from `payment`, which has nothing running, in the order in
    which things happened. Raises RecordNotTold."""
    assert payment.running is None, "what is running may have happened or not"
    return [
        difference
        for asked in operations(payment)
        for difference in _of_one(payment, asked, records, now)
    ]


def _of_one(
    payment: Payment, asked: Asked, records: BankRecords, now: datetime
) -> Iterator[Difference]:
    if asked.is_done and asked.bank_id is not None:
        # A void has no record to be looked up.
        if asked.operation is not Operation.VOID:
            yield from _on_record(payment, asked, asked.bank_id, records)
    elif now - asked.answered_at < REMEMBERED_FOR:
        yield from _by_our_key(payment, asked, records)


def _on_record(
    payment: Payment, asked: Asked, bank_id: str, records: BankRecords
) -> Iterator[Difference]:
    """What the bank has under the id that it gave us."""
    record = _told(records.look_up(asked.operation, bank_id))
    if record is None:
        yield Difference(kind=DifferenceKind.MISSING, ours=bank_id, bank=NOT_FOUND)
        return
    if record.bank_id != bank_id:
        yield Difference(kind=DifferenceKind.REFERENCE, ours=bank_id, bank=record.bank_id)
        return
    said = {
        DifferenceKind.AMOUNT: (asked.amount_minor, record.amount_minor),
        DifferenceKind.CURRENCY: (payment.money.currency, record.currency),
        DifferenceKind.STATE: (DONE[asked.operation], record.status),
        DifferenceKind.REFERENCE: (_about(payment, asked.operation), record.about),
    }
    for kind, (ours, banks) in said.items():
        # A capture whose id was lost cannot be compared with what its refund refers to.
        if ours != banks and ours is not None:
            yield Difference(kind=kind, ours=f"{bank_id} {ours}", bank=f"{bank_id} {banks}")


def _by_our_key(payment: Payment, asked: Asked, records: BankRecords) -> Iterator[Difference]:
    """What the bank did though we say that it did not, or under which id it did it."""
    if asked.operation is Operation.VOID and payment.status in (Status.VOIDED, Status.EXPIRED):
        return  # released is released; the id is of no use
    record = _told(records.remembered(asked.operation, asked.key))
    if record is not None and record.status in WAITED:
        record = _held_after_all(asked, record.bank_id, records)
    if record is not None and record.bank_id not in _known_ids(payment):
        ours = f"{asked.operation} without an id" if asked.is_done else f"no {asked.operation}"
        yield Difference(kind=UNKNOWN[asked.operation], ours=ours, bank=record.bank_id)


def _held_after_all(asked: Asked, bank_id: str, records: BankRecords) -> BankRecord | None:
    """The record of what had to wait, if it came to something."""
    record = _told(records.look_up(asked.operation, bank_id))
    approved = record is not None and record.status == DONE[asked.operation]
    return record if approved else None


def _told(told: Told) -> BankRecord | None:
    match told:
        case BankRecord():
            return told
        case NoRecord():
            return None
        case NotTold():
            raise RecordNotTold(told)


def _about(payment: Payment, operation: Operation) -> str | None:
    """What the operation was on, by the bank's id."""
    match operation:
        case Operation.AUTHORIZATION | Operation.TRANSFER:
            return None
        case Operation.CAPTURE | Operation.VOID:
            return payment.authorization_id
        case Operation.REFUND:
            return payment.capture_id


def _known_ids(payment: Payment) -> set[str | None]:
    refunds = payment.bank_refund_ids.values()
    return {payment.authorization_id, payment.capture_id, payment.void_id, *refunds}


# --- what was asked ----------------------------------------------------------------------------------


def operations(payment: Payment) -> Sequence[Asked]:
    """Everything that was asked of the bank and has an outcome, from the first, with the ids as they
    are known now."""
    found: list[Asked] = []
    ask: Payment.Event | None = None
    for event in payment.history:
        if isinstance(event, ASKS):
            ask = event
        elif isinstance(event, OUTCOMES):
            assert ask is not None, "an outcome of nothing"
            # Of an authorization, also where it was to be given up meanwhile, in vain.
            asked = payment.history[0] if isinstance(event, OF_AUTHORIZATION) else ask
            found.append(_with_outcome(payment, asked, event))
    return found


OF_AUTHORIZATION: Final = (Payment.Authorized, Payment.AuthorizationDeclined)
ASKS: Final = (
    Payment.AuthorizationRequested,
    Payment.TransferRequested,
    Payment.CaptureRequested,
    Payment.VoidRequested,
    Payment.RefundRequested,
)
DONE_BY: Final = (
    Payment.Authorized,
    Payment.Captured,
    Payment.Voided,
    Payment.Expired,
    Payment.Refunded,
    Payment.Transferred,
)
OUTCOMES: Final = (
    *DONE_BY,
    Payment.AuthorizationDeclined,
    Payment.CaptureDeclined,
    Payment.VoidDeclined,
    Payment.RefundDeclined,
    Payment.TransferDeclined,
)


def _with_outcome(payment: Payment, ask: Payment.Event, outcome: Payment.Event) -> Asked:
    is_done = isinstance(outcome, DONE_BY)
    operation, amount_minor, bank_id = _terms(payment, ask)
    asked = Asked(
        operation=operation,
        key=bank_key(payment.id, operation, ask.originator_version),
        amount_minor=amount_minor,
        is_done=is_done,
        bank_id=bank_id,
        answered_at=outcome.timestamp,
    )
    return asked if is_done else replace(asked, bank_id=None)


def _terms(payment: Payment, ask: Payment.Event) -> tuple[Operation, int, str | None]:
    """What was asked for, how much of it, and the bank's id if it was done."""
    match ask:
        case Payment.AuthorizationRequested(amount_minor=amount):
            return Operation.AUTHORIZATION, amount, payment.authorization_id
        case Payment.TransferRequested(amount_minor=amount):
            return Operation.TRANSFER, amount, payment.capture_id
        case Payment.CaptureRequested(amount_minor=amount):
            return Operation.CAPTURE, amount, payment.capture_id
        case Payment.VoidRequested():
            return Operation.VOID, payment.money.amount_minor, payment.void_id
        case Payment.RefundRequested(amount_minor=amount, refund_id=refund_id):
            return Operation.REFUND, amount, payment.bank_refund_ids.get(refund_id)
        case _:
            raise AssertionError(f"not an ask: {ask}")

"""What an operator found to be true of a payment, as the events that make it so.

An operator's word is the outcome of what is outstanding, through the events that an answer of the
bank would be. Where nothing is, it lifts the reviews, and what the bank did without our knowing is
recorded as an ask and its outcome. Both heed the one table of what is allowed in which status: what
cannot have become of a payment is refused, whoever says it.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from domain.bank import Operation
from domain.commands import ResolvePayment
from domain.errors import BankIdRefused, NothingToResolve, PaymentStateConflict, ResolutionRefused
from domain.payment import ALLOWED, COMMANDS_BY_STATUS, Payment, RunningOperation, Status, rfc3339

# The code of an outcome that no bank gave.
RESOLVED_AS_NOT_DONE: Final = "resolved_as_not_done"
LONGEST_REASON: Final = 500


class Kind(StrEnum):
    """What the bank's ids name."""

    HOLD = "auth"
    CAPTURE = "cap"
    VOID = "void"
    REFUND = "ref"
    TRANSFER = "trf"


BANK_ID: Final = re.compile(rf"({'|'.join(Kind)})_[0-9A-Za-z-]{{1,64}}")

# Which ids can say more of a payment in that status; one that is pending is in none for certain.
IDS_OF: Final[Mapping[Status, tuple[Kind, ...]]] = {
    Status.AUTHORIZED: (Kind.HOLD,),
    Status.DECLINED: (),
    Status.CAPTURED: (Kind.CAPTURE, Kind.REFUND, Kind.TRANSFER),
    Status.REFUNDED: (Kind.REFUND, Kind.CAPTURE),
    Status.VOIDED: (Kind.VOID,),
    Status.EXPIRED: (Kind.VOID,),
}
LEADS_TO: Final[Mapping[Status, Operation]] = {
    Status.CAPTURED: Operation.CAPTURE,
    Status.VOIDED: Operation.VOID,
    Status.EXPIRED: Operation.VOID,
    Status.REFUNDED: Operation.REFUND,
}


def resolve(payment: Payment, found: ResolvePayment, *, refund_id: str, at: datetime) -> None:
    """Records what `found` says, and what follows. `refund_id`: for a refund that we know nothing of.

    Raises NothingToResolve, ResolutionRefused, BankIdRefused, PaymentStateConflict; the payment is
    not to be used any more then.
    """
    _refuse_malformed(found)
    if payment.running is None and not payment.reviews:
        raise NothingToResolve(
            f"The payment is {payment.status}, for certain, and needs no review."
        )
    _Resolution(payment, found, refund_id, at).record()


class _Resolution:
    """One decision, step by step."""

    def __init__(
        self, payment: Payment, found: ResolvePayment, refund_id: str, at: datetime
    ) -> None:
        self._payment = payment
        self._found = found
        self._refund_id = refund_id
        self._at = at
        self._id_is_placed = found.bank_id is None

    def record(self) -> None:
        payment, found = self._payment, self._found
        while payment.running is not None:  # once more, where what was to be given up was not
            self._settle(payment.running)
        if payment.status != found.status:
            self._catch_up()
        elif not self._id_is_placed:
            self._place_id()
        self._refuse_what_stays_unknown()
        self._record(
            Payment.ReviewResolved,
            decided=found.status.value,
            bank_id=found.bank_id,
            reason=found.reason.strip(),
        )

    # --- what is outstanding -------------------------------------------------------------------

    def _settle(self, running: RunningOperation) -> None:
        match running.operation:
            case Operation.AUTHORIZATION:
                self._settle_authorization()
            case Operation.CAPTURE:
                self._settle_capture(running)
            case Operation.VOID:
                self._settle_void()
            case Operation.REFUND:
                self._settle_refund(running)
            case Operation.TRANSFER:
                self._settle_transfer()

    def _settle_authorization(self) -> None:
        match self._found.status:
            case Status.AUTHORIZED:
                expires_at = self._found.expires_at
                self._record(
                    Payment.Authorized,
                    bank_authorization_id=self._needed(Kind.HOLD),
                    expires_at=None if expires_at is None else rfc3339(expires_at),
                )
            case Status.DECLINED:
                self._not_done(Payment.AuthorizationDeclined)
            case other:
                raise ResolutionRefused(
                    "An authorization without an outcome became authorized or declined; only then "
                    f"can it have become {other}."
                )

    def _settle_transfer(self) -> None:
        match self._found.status:
            case Status.CAPTURED:
                self._refuse_other_amount(self._payment.money.amount_minor)
                self._record(Payment.Transferred, bank_transfer_id=self._needed(Kind.TRANSFER))
            case Status.DECLINED:
                self._not_done(Payment.TransferDeclined)
            case other:
                raise ResolutionRefused(
                    "A transfer without an outcome became captured or declined; only then can it "
                    f"have become {other}."
                )

    def _settle_capture(self, running: RunningOperation) -> None:
        if self._found.status is Status.CAPTURED:
            self._refuse_other_amount(running.amount_minor)
            self._record(Payment.Captured, bank_capture_id=self._needed(Kind.CAPTURE))
        else:
            self._not_done(Payment.CaptureDeclined)

    def _settle_void(self) -> None:
        if self._found.status in (Status.VOIDED, Status.EXPIRED):
            self._release()
        else:
            self._not_done(Payment.VoidDeclined)

    def _settle_refund(self, running: RunningOperation) -> None:
        if self._names(Kind.REFUND):
            self._refuse_other_amount(running.amount_minor)
            bank_id = self._needed(Kind.REFUND)
            self._refuse_known_refund(bank_id)
            self._record(Payment.Refunded, refund_id=running.refund_id, bank_refund_id=bank_id)
            self._refuse_unless_it_is_as_found()
        elif self._found.status is Status.REFUNDED:
            self._needed(Kind.REFUND)
        else:
            self._not_done(Payment.RefundDeclined, refund_id=running.refund_id)

    def _not_done(self, event: type[Payment.Event], **more: str | None) -> None:
        self._record(event, code=RESOLVED_AS_NOT_DONE, **more)

    def _refuse_unless_it_is_as_found(self) -> None:
        is_now, found = self._payment.status, self._found.status
        if is_now != found:
            raise ResolutionRefused(
                f"With that refund the payment is {is_now}, not {found}.", param="as"
            )

    # --- what the bank did without our knowing ---------------------------------------------------

    def _catch_up(self) -> None:
        """Records the ask and the outcome that lead to what was found, if anything allowed does."""
        is_now, found = self._payment.status, self._found.status
        operation = LEADS_TO.get(found)
        if operation is None or self._id_was_used:
            raise ResolutionRefused(f"A payment that is {is_now} cannot have become {found}.")
        code = COMMANDS_BY_STATUS[operation][is_now]
        if code != ALLOWED:
            raise PaymentStateConflict(
                f"A payment that is {is_now} cannot have become {found}: it does not allow a "
                f"{operation}.",
                code=code,
            )
        match operation:
            case Operation.CAPTURE:
                self._was_captured()
            case Operation.VOID:
                on_expiry = found is Status.EXPIRED
                self._record(Payment.VoidRequested, on_expiry=on_expiry)
                self._release()
            case _:
                left = self._payment.captured_minor - self._payment.refunded_minor
                self._refuse_other_amount(left)
                self._was_refunded(left)

    @property
    def _id_was_used(self) -> bool:
        return self._id_is_placed and self._found.bank_id is not None

    def _was_captured(self) -> None:
        held = self._payment.money.amount_minor
        amount = held if self._found.amount_minor is None else self._found.amount_minor
        if not 0 < amount <= held:
            raise ResolutionRefused(f"Between 1 and {held} can have been captured.", param="amount")
        self._record(Payment.CaptureRequested, amount_minor=amount)
        self._record(Payment.Captured, bank_capture_id=self._needed(Kind.CAPTURE))

    def _was_refunded(self, amount_minor: int) -> None:
        bank_id = self._needed(Kind.REFUND)
        self._refuse_known_refund(bank_id)
        self._record(
            Payment.RefundRequested,
            refund_id=self._refund_id,
            amount_minor=amount_minor,
            reason=None,
            metadata={},
        )
        self._record(Payment.Refunded, refund_id=self._refund_id, bank_refund_id=bank_id)

    def _release(self) -> None:
        released = Payment.Expired if self._found.status is Status.EXPIRED else Payment.Voided
        self._record(released, bank_void_id=self._found.bank_id)
        self._id_is_placed = True

    # --- ids -------------------------------------------------------------------------------------

    def _place_id(self) -> None:
        """The id is what we have, or what we lacked, or a refund's that we know nothing of."""
        payment, bank_id = self._payment, self._found.bank_id
        assert bank_id is not None
        match _kind(bank_id):
            case Kind.HOLD:
                self._fill_in(Operation.AUTHORIZATION, payment.authorization_id)
            case Kind.TRANSFER if payment.capture_id is None:
                raise BankIdRefused("The payment is of a card: --bank-id cap_…", param="bank_id")
            case Kind.CAPTURE | Kind.TRANSFER:
                self._fill_in(Operation.CAPTURE, payment.capture_id)
            case Kind.VOID:
                self._fill_in(Operation.VOID, payment.void_id)
            case Kind.REFUND if bank_id not in payment.bank_refund_ids.values():
                self._place_refund_id(bank_id)
            case _:
                pass
        self._id_is_placed = True

    def _fill_in(self, operation: Operation, known: str | None) -> None:
        bank_id = self._found.bank_id
        if known is None:
            self._record(
                Payment.BankIdFound, operation=operation.value, bank_id=bank_id, refund_id=None
            )
        elif known != bank_id:
            raise BankIdRefused(f"The bank's id of the {operation} is {known}.", param="bank_id")

    def _place_refund_id(self, bank_id: str) -> None:
        lacking = [each for each, known in self._payment.bank_refund_ids.items() if known is None]
        if lacking:
            self._record(
                Payment.BankIdFound,
                operation=Operation.REFUND.value,
                bank_id=bank_id,
                refund_id=lacking[0],
            )
            return
        left = self._payment.captured_minor - self._payment.refunded_minor
        amount = self._found.amount_minor
        if amount is None or not 0 < amount < left:
            raise ResolutionRefused(
                "No refund of the payment lacks its bank id. For one that is not recorded, say how "
                f"much it was with --amount: less than {left}, or it is refunded.",
                param="amount",
            )
        self._was_refunded(amount)

    def _needed(self, kind: Kind) -> str:
        bank_id = self._found.bank_id
        if bank_id is None or _kind(bank_id) is not kind:
            raise BankIdRefused(
                f"Say under which id the bank did it: --bank-id {kind}_…", param="bank_id"
            )
        self._id_is_placed = True
        return bank_id

    def _names(self, kind: Kind) -> bool:
        return self._found.bank_id is not None and _kind(self._found.bank_id) is kind

    def _refuse_known_refund(self, bank_id: str) -> None:
        if bank_id in self._payment.bank_refund_ids.values():
            raise BankIdRefused("That refund is recorded.", param="bank_id")

    def _refuse_other_amount(self, amount_minor: int) -> None:
        if self._found.amount_minor not in (None, amount_minor):
            raise ResolutionRefused(f"The amount can only be {amount_minor}.", param="amount")

    def _refuse_what_stays_unknown(self) -> None:
        """Without the capture's id nothing can be refunded: that is no end of a review."""
        if self._payment.status is Status.CAPTURED and self._payment.capture_id is None:
            raise BankIdRefused(
                "The bank's id of the capture is unknown: --bank-id cap_…", param="bank_id"
            )

    def _record(self, event: type[Payment.Event], **fields: object) -> None:
        self._payment.trigger_event(event, timestamp=self._at, **fields)


def _kind(bank_id: str) -> Kind:
    return Kind(bank_id.partition("_")[0])


def _refuse_malformed(found: ResolvePayment) -> None:
    kinds = IDS_OF.get(found.status)
    if kinds is None:
        raise ResolutionRefused(f"A payment cannot be found to be {found.status}.", param="as")
    reason = found.reason.strip()
    if not reason or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise ResolutionRefused(
            f"The reason is one line of 1 to {LONGEST_REASON} characters.", param="reason"
        )
    if found.amount_minor is not None and Kind.CAPTURE not in kinds:
        raise ResolutionRefused("An amount is of a capture or of a refund.", param="amount")
    bank_id = found.bank_id
    if bank_id is None:
        return
    if not BANK_ID.fullmatch(bank_id) or _kind(bank_id) not in kinds:
        wanted = " or ".join(f"{kind}_…" for kind in kinds)
        raise BankIdRefused(
            f"The bank's id for a payment that is {found.status} is {wanted or 'none'}, not that.",
            param="bank_id",
        )

"""What is done with disputes: what the bank tells is recorded once, and what the merchant answers is
recorded first and told to the bank after, as often as it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from domain.commands import Cause, Metadata, Tenant
from domain.dispute import DisputeNotice
from domain.errors import ConcurrentChange
from domain.ids import MalformedId, Prefix, beside, decode, encode
from domain.ledger import DECIDE_ATTEMPTS, OUTCOME_TRIES, PaymentLedger
from domain.payment import Payment
from domain.records import KeepPersonalData, Record, RespondToDispute

EVIDENCE: Final = "evidence"
ACCEPTANCE: Final = "acceptance"


@dataclass(frozen=True, slots=True)
class NotTold:
    """Nobody answered, or nobody who can be believed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notices:
    """The next notices, in order, and the position of the last that there is."""

    notices: Sequence[DisputeNotice]
    latest: int


class BankDisputes(Protocol):
    """Whoever decides disputes."""

    def notices(self, after: int) -> Notices | NotTold:
        """What follows the notice at that position; asking does nothing."""

    def respond(self, kind: str, bank_dispute_id: str, key: str, evidence: str) -> NotTold | None:
        """Tells the bank, under a key that never changes for it; None once it has heard, or will not
        hear any more. `kind`: evidence or acceptance."""


def payment_of(notice: DisputeNotice) -> UUID | None:
    """The payment whose capture is disputed, by our key of it; None where it is no key of ours."""
    try:
        return decode(Prefix.PAYMENT, notice.capture_key.partition("-")[0])
    except MalformedId:
        return None


class Disputes:
    """The commands on disputes. Refusals are DomainErrors, and leave nothing behind."""

    def __init__(self, ledger: PaymentLedger) -> None:
        self._ledger = ledger

    def take_in(
        self, notice: DisputeNotice, payment_id: UUID, tenant: Tenant, cause: Cause
    ) -> Payment:
        """Records what is new in a notice. Raises PaymentNotFound, and OperationInProgress where the
        payment does not know of its capture yet."""
        for attempt in range(1, DECIDE_ATTEMPTS + 1):
            payment = self._ledger.payment(payment_id, tenant)
            dispute_id = encode(Prefix.DISPUTE, beside(self._ledger.ids.new(), payment_id))
            payment.note_dispute(notice, dispute_id, at=self._ledger.clock.now())
            if not payment.pending_events:
                break
            try:
                self._ledger.record((payment,), cause, (), OUTCOME_TRIES)
                break
            except ConcurrentChange:
                if attempt == DECIDE_ATTEMPTS:
                    raise
        return payment

    def evidence(
        self,
        payment: Payment,
        dispute_id: str,
        *,
        before: Mapping[str, Any],
        now: Mapping[str, Any],
        metadata: Metadata,
        is_submitted: bool,
    ) -> list[Record]:
        """Decides to say something on a dispute; what is to be recorded with it. `before`, `now`: the
        evidence. Raises DisputeNotFound, PaymentStateConflict."""
        changed = [name for name in {*before, *now} if before.get(name) != now.get(name)]
        payment.give_evidence(
            dispute_id,
            fields=changed,
            metadata=metadata,
            is_submitted=is_submitted,
            at=self._ledger.clock.now(),
        )
        owner = decode(Prefix.DISPUTE, dispute_id)
        records: list[Record] = []
        if changed:
            kept = KeepPersonalData(owner=owner, tenant=payment.tenant, document=dict(now))
            records.append(kept)
        if is_submitted:
            records.append(_response(payment, dispute_id, EVIDENCE))
        return records

    def acceptance(self, payment: Payment, dispute_id: str) -> list[Record]:
        """Decides to give a dispute up; what is to be recorded with it. Raises DisputeNotFound,
        PaymentStateConflict."""
        payment.accept_dispute(dispute_id, at=self._ledger.clock.now())
        return [_response(payment, dispute_id, ACCEPTANCE)]


def _response(payment: Payment, dispute_id: str, kind: str) -> RespondToDispute:
    return RespondToDispute(
        dispute_id=decode(Prefix.DISPUTE, dispute_id),
        kind=kind,
        bank_dispute_id=payment.dispute(dispute_id).bank_id,
    )

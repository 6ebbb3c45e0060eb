"""What operators decide by name of a payment, whoever's it is."""

import threading
from datetime import datetime
from typing import Any, Final

from domain.bank import Operation
from domain.bank_records import BankRecord
from domain.commands import Cause, ResolvePayment
from domain.errors import PaymentNotFound
from domain.ids import Prefix, decode
from domain.payment import Status
from domain.resolution import BANK_ID
from infrastructure.reconciliation import RATE_PER_SECOND
from infrastructure.services import Services, bank_records
from infrastructure.shards import shard_of
from projections import receipts

RECEIPTS: Final = receipts.Receipts()


def resolve_payment(
    services: Services,
    payment: str,
    *,
    status: str,
    bank_id: str | None,
    reason: str,
    actor: str,
    amount: int | None,
) -> dict[str, Any]:
    """Records the decision; the receipt as it is then. `payment`: its public id. `amount`: minor
    units. When a hold ends is looked up at the bank, where it tells.

    Raises MalformedId, PaymentNotFound, and what `PaymentLedger.resolve` raises.
    """
    payment_id = decode(Prefix.PAYMENT, payment)
    with services.pool.connection() as connection:
        tenant = RECEIPTS.owner(connection, shard_of(payment_id), payment_id)
    if tenant is None:
        raise PaymentNotFound("There is no such payment.")
    resolved = services.ledger.resolve(
        ResolvePayment(
            tenant=tenant,
            cause=Cause(actor=actor),
            payment_id=payment_id,
            status=Status(status),
            bank_id=bank_id,
            reason=reason,
            amount_minor=amount,
            expires_at=_end_of_hold(services, bank_id) if status == Status.AUTHORIZED else None,
        )
    )
    return receipts.fold(resolved.history)


def _end_of_hold(services: Services, bank_id: str | None) -> datetime | None:
    """Without it the hold would not be released when it is past its time."""
    if bank_id is None or not BANK_ID.fullmatch(bank_id):
        return None  # what is no id of the bank's is refused, and is not put to it
    records = bank_records(services, RATE_PER_SECOND, threading.Event())
    told = records.look_up(Operation.AUTHORIZATION, bank_id)
    return told.expires_at if isinstance(told, BankRecord) else None

"""What operators decide by name of a payment, whoever's it is."""

from typing import Any, Final

from domain.commands import Cause, ResolvePayment
from domain.errors import PaymentNotFound
from domain.ids import Prefix, decode
from domain.payment import Status
from infrastructure.services import Services
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
    units.

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
        )
    )
    return receipts.fold(resolved.history)

"""Order slots: one live payment an order, decided by a primary key."""

from typing import Any, Final, LiteralString

from domain.records import FreeOrderSlot, TakeOrderSlot
from infrastructure.statements import Part

TAKE: Final[LiteralString] = """
    INSERT INTO order_slots (merchant_id, mode, order_id, payment_id)
    VALUES (%(merchant_id)s, %(mode)s, %(order_id)s, %(payment_id)s)
"""
FREE: Final[LiteralString] = """
    DELETE FROM order_slots
    WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND order_id = %(order_id)s
      AND payment_id = %(payment_id)s
"""


def take(slot: TakeOrderSlot) -> Part:
    """Breaks `order_slots_pkey` when the order has a live payment."""
    return Part("slot", TAKE, _parameters(slot))


def free(slot: FreeOrderSlot) -> Part:
    """The payment is live no more."""
    return Part("freed", FREE, _parameters(slot))


def _parameters(slot: TakeOrderSlot | FreeOrderSlot) -> dict[str, Any]:
    return {
        "merchant_id": slot.tenant.merchant_id,
        "mode": slot.tenant.mode.value,
        "order_id": slot.order_id,
        "payment_id": slot.payment_id,
    }

"""Who lives by which clock of a test's: who writes the table."""

from typing import Final, LiteralString

from domain.ids import Prefix, encode
from domain.records import LiveByClock
from infrastructure.statements import Part

BIND: Final[LiteralString] = """
    INSERT INTO test_clock_customers (merchant_id, mode, customer_id, clock_id)
    VALUES (%(merchant_id)s, %(mode)s, %(customer_id)s, %(clock_id)s)
"""


def bind(record: LiveByClock) -> Part:
    """From the first, and for ever."""
    return Part(
        "clock_customer",
        BIND,
        {
            "merchant_id": record.tenant.merchant_id,
            "mode": record.tenant.mode.value,
            "customer_id": encode(Prefix.CUSTOMER, record.customer_id),
            "clock_id": record.clock_id,
        },
    )

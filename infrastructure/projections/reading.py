"""Reading a model that follows the log: not before it has everything that was acknowledged by now."""

import time
from typing import Any, Final, LiteralString

from domain.errors import StoreUnavailable
from infrastructure.database import Pool, unavailability_named

WAIT_SECONDS: Final = 1.0
# How long it is waited between looks, at first and at most.
LOOK_SECONDS: Final = 0.005
LONGEST_LOOK_SECONDS: Final = 0.02

HEADS: Final[LiteralString] = """
    SELECT array_agg(h.position ORDER BY h.shard) AS heads FROM shard_heads h
"""
# What the model could not take in would be missing from what is told.
IS_CURRENT: Final[LiteralString] = """
    SELECT count(*) = 0 AND NOT EXISTS (
               SELECT FROM projection_quarantine q
               JOIN projection_generations g
                 ON g.name = q.name AND g.generation = q.generation AND g.slot = 'live'
               CROSS JOIN LATERAL (
                   SELECT merchant_id, mode FROM receipts
                   WHERE shard = q.shard AND payment_id = q.originator_id
                   UNION ALL
                   SELECT merchant_id, mode FROM payment_intents
                   WHERE shard = q.shard AND id = q.originator_id
                   UNION ALL
                   SELECT merchant_id, mode FROM payment_methods
                   WHERE shard = q.shard AND id = q.originator_id
                   UNION ALL
                   SELECT merchant_id, mode FROM customer_records
                   WHERE shard = q.shard AND id = q.originator_id
                   UNION ALL
                   SELECT merchant_id, mode FROM subscriptions
                   WHERE shard = q.shard AND id = q.originator_id
                   UNION ALL
                   SELECT merchant_id, mode FROM invoices
                   WHERE shard = q.shard AND id = q.originator_id
               ) AS a
               WHERE q.name = %(name)s AND a.merchant_id = %(merchant_id)s AND a.mode = %(mode)s
           ) AS is_current
    FROM unnest(%(heads)b::bigint[]) WITH ORDINALITY AS h (position, place)
    LEFT JOIN projection_generations g ON g.name = %(name)s AND g.slot = 'live'
    LEFT JOIN projection_positions p
      ON p.name = g.name AND p.generation = g.generation AND p.shard = h.place - 1
    WHERE p.position IS NULL OR p.position < h.position
"""


class ModelBehind(StoreUnavailable):
    """The read model does not have everything yet; it will, soon."""


def wait_until_current(
    pool: Pool, name: str, *, merchant_id: str, mode: str, seconds: float = WAIT_SECONDS
) -> None:
    """Returns once the live generation of `name` has every event that is in the log now, of this
    merchant all. Raises ModelBehind after `seconds`, StoreUnavailable."""
    give_up_at = time.monotonic() + seconds
    parameters = {
        "heads": _asked(pool, HEADS, {})["heads"],
        "name": name,
        "merchant_id": merchant_id,
        "mode": mode,
    }
    pause = LOOK_SECONDS
    while not _asked(pool, IS_CURRENT, parameters)["is_current"]:
        if time.monotonic() + pause >= give_up_at:
            raise ModelBehind(f"{name} is behind the log")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK_SECONDS)


def _asked(pool: Pool, query: LiteralString, parameters: dict[str, Any]) -> dict[str, Any]:
    """One look. No connection is kept between looks: those who pay need them more."""
    with unavailability_named(), pool.connection() as connection:
        row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row

"""The calls to the bank that have no outcome yet: what was asked, who is at it, when to try again.

`due_at` is when a worker may take the call up: after the lease of whoever is at it, or, once parked,
when asking again makes sense. Time is the database's, one clock for all hosts.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.bank import ActionRequired, Operation, UnderWay, Unknown
from domain.commands import Audience, Cause, Mode, Tenant
from domain.errors import LeaseLost
from domain.records import (
    AwaitShopper,
    AwaitTransfer,
    BankCall,
    BeginCall,
    ContinueCall,
    EndCall,
)
from infrastructure.database import Pool, unavailability_named
from infrastructure.fault_points import reached
from infrastructure.shards import shard_of
from infrastructure.statements import Part

# After silence the first call may still be running at the bank, which gives up on one after 15 s;
# another bank's time is a setting.
QUIET_SECONDS: Final = 20.0
# After a failure that was received, the bank may be asked again soon: 1, 2, 4 … seconds, at most:
LONGEST_PAUSE_SECONDS: Final = 30.0
# Enough to get there; after a thousand, a number is no float any more.
MOST_DOUBLINGS: Final = 5
# A shopper is looked for every two seconds at first, and less and less often up to the longest pause.
SHORTEST_AWAITING_PAUSE_SECONDS: Final = 2.0
AWAITING_PAUSE_SHARE: Final = 1 / 30
# So is a transfer, which may take days.
LONGEST_TRANSFER_PAUSE_SECONDS: Final = 600.0

BEGIN: Final[LiteralString] = """
    INSERT INTO bank_calls (
        shard, payment_id, merchant_id, mode, operation, bank_key, request_id, idempotency_key,
        actor, family, dialect, sealed_card, return_url, attempts, unanswered, contradictions, reached,
        in_flight, parked, fence, due_at, since, expand
    ) VALUES (
        %(shard)s, %(payment_id)s, %(merchant_id)s, %(mode)s, %(operation)s, %(bank_key)s,
        %(request_id)s, %(idempotency_key)s, %(actor)s, %(family)s, %(dialect)s, %(sealed_card)s,
        %(return_url)s, 0, 0, 0, false, %(ours)s, false, %(fence)s,
        clock_timestamp() + make_interval(secs => %(lease_seconds)s), clock_timestamp(),
        %(expand)s
    )
"""
END: Final[LiteralString] = """
    DELETE FROM bank_calls
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s AND bank_key = %(bank_key)s
      AND fence = %(fence)s
    RETURNING fence
"""
# One call in the place of another, which has its outcome.
CONTINUE: Final[LiteralString] = """
    UPDATE bank_calls
    SET operation = %(operation)s, bank_key = %(next_key)s, sealed_card = NULL, attempts = 0,
        unanswered = 0, contradictions = 0, reached = false, in_flight = true, parked = false,
        request_id = %(request_id)s, idempotency_key = %(idempotency_key)s, actor = %(actor)s,
        family = %(family)s, dialect = %(dialect)s, expand = %(expand)s,
        superseded_key = %(superseded_key)s, fence = %(next_fence)s, reason = NULL, waits_for_shopper = false, since = clock_timestamp(),
        due_at = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s AND bank_key = %(bank_key)s
      AND fence = %(fence)s
    RETURNING fence
"""
PARK: Final[LiteralString] = """
    UPDATE bank_calls
    SET parked = true, in_flight = false, unanswered = unanswered + %(unanswered)s::int,
        reached = reached OR %(reached)s,
        contradictions = CASE WHEN %(contradicts)s THEN contradictions + 1 ELSE 0 END,
        reason = %(reason)s, due_at = clock_timestamp() + make_interval(secs => %(pause)s)
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s AND bank_key = %(bank_key)s
      AND fence = %(fence)s
"""
# The bank has what it needs: the card, or the account, is not kept for as long as it takes the shopper,
# or the other bank.
AWAIT: Final[LiteralString] = """
    UPDATE bank_calls
    SET waits_for_shopper = true, parked = true, in_flight = false, reached = true,
        contradictions = 0, sealed_card = NULL, reason = %(reason)s,
        due_at = clock_timestamp() + make_interval(secs => %(pause)s)
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s AND fence = %(fence)s
      AND bank_key = %(bank_key)s
    RETURNING fence
"""
WAITS: Final = "the shopper has not approved yet"
UNDER_WAY: Final = "the transfer is under way"
TAKE_DUE: Final[LiteralString] = """
    UPDATE bank_calls
    SET unanswered = unanswered + in_flight::int, in_flight = true, attempts = attempts + 1,
        fence = fence + 1,
        due_at = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
    WHERE (shard, payment_id) IN (
        SELECT shard, payment_id FROM bank_calls WHERE due_at <= clock_timestamp()
        ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    RETURNING payment_id, merchant_id, mode, operation, bank_key, request_id, idempotency_key,
              superseded_key, actor, family, dialect, expand, sealed_card, return_url, attempts,
              unanswered, contradictions, reached, fence,
              extract(epoch FROM clock_timestamp() - since)::float AS age_seconds
"""
OUTSTANDING: Final[LiteralString] = """
    SELECT payment_id, merchant_id, mode, operation, bank_key, request_id, idempotency_key,
           superseded_key, actor, family, dialect, expand, sealed_card, return_url, attempts,
           unanswered, contradictions, reached, fence,
           extract(epoch FROM clock_timestamp() - since)::float AS age_seconds
    FROM bank_calls
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s
"""
UNATTENDED: Final[LiteralString] = (
    OUTSTANDING + " AND (NOT in_flight OR due_at <= clock_timestamp())"
)
IS_PENDING: Final[LiteralString] = """
    SELECT parked OR due_at <= clock_timestamp() AS pending FROM bank_calls
    WHERE shard = %(shard)s AND payment_id = %(payment_id)s
      AND (idempotency_key = %(key)s OR superseded_key = %(key)s)
"""

STUCK: Final[LiteralString] = """
    SELECT payment_id, operation, reason, since, attempts,
           extract(epoch FROM clock_timestamp() - since)::float AS age_seconds
    FROM bank_calls
    WHERE (parked OR due_at <= clock_timestamp())
      AND NOT (waits_for_shopper AND since > clock_timestamp() - CASE operation
          WHEN 'transfer' THEN interval '7 days' ELSE interval '1 hour' END)
    ORDER BY since
"""


def begin(record: BeginCall) -> Part:
    """Breaks `bank_calls_pkey` when the payment has an outstanding call."""
    call = record.call
    return Part(
        "begun",
        BEGIN,
        {
            "shard": shard_of(call.payment_id),
            "payment_id": call.payment_id,
            "merchant_id": call.tenant.merchant_id,
            "mode": call.tenant.mode.value,
            "operation": call.operation.value,
            "bank_key": call.bank_key,
            **_asked_by(call),
            "sealed_card": call.sealed_card,
            "return_url": call.return_url,
            "fence": call.fence,
            "lease_seconds": record.lease_seconds,
            "ours": record.ours,
        },
    )


def go_on(record: ContinueCall) -> Part:
    """Returns one row, or none when the call is not ours."""
    following = record.following
    return Part(
        "leased",
        CONTINUE,
        _identity(record.call)
        | {
            "operation": following.operation.value,
            "next_key": following.bank_key,
            "next_fence": following.fence,
            "lease_seconds": record.lease_seconds,
            "superseded_key": following.superseded_key,
            **_asked_by(following),
        },
    )


def leave(record: EndCall | AwaitShopper | AwaitTransfer) -> Part:
    """Returns one row, or none when the call is not ours."""
    if isinstance(record, EndCall):
        return Part("leased", END, _identity(record.call))
    return Part("leased", AWAIT, _awaiting(record.call))


class PostgresBankCalls:
    """The port `BankCalls`, on Postgres."""

    def __init__(self, pool: Pool, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._pool = pool
        self._quiet_seconds = quiet_seconds

    def park(self, call: BankCall, answer: Unknown | ActionRequired | UnderWay) -> None:
        """Leaves the call to a worker, not before it makes sense. Raises LeaseLost."""
        if isinstance(answer, Unknown):
            statement, parameters = PARK, self._parking(call, answer)
        else:
            statement, parameters = AWAIT, _awaiting(call)
        reached("park.begun")
        with unavailability_named(), self._pool.connection() as connection:
            if connection.execute(statement, parameters).rowcount != 1:
                raise LeaseLost(call.bank_key)
        reached("park.committed")

    def _parking(self, call: BankCall, unknown: Unknown) -> dict[str, Any]:
        quiet = unknown.unanswered or call.unanswered > 0
        doubled = 2.0 ** min(call.attempts, MOST_DOUBLINGS)
        pause = self._quiet_seconds if quiet else min(doubled, LONGEST_PAUSE_SECONDS)
        return _identity(call) | {
            "unanswered": unknown.unanswered,
            "contradicts": unknown.contradicts,
            "reached": unknown.reached,
            "reason": unknown.reason,
            "pause": pause,
        }

    def take_due(self, limit: int, lease_seconds: float) -> Sequence[BankCall]:
        """Leases calls whose time has come; other workers take others."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                TAKE_DUE, {"limit": limit, "lease_seconds": lease_seconds}
            ).fetchall()
        reached("calls.taken")
        return [_call(row) for row in rows]

    def unattended(self, payment_id: UUID) -> BankCall | None:
        """The payment's call as it stands, unless somebody is at work on it."""
        return self._found(UNATTENDED, payment_id)

    def outstanding(self, payment_id: UUID) -> BankCall | None:
        """The payment's call as it stands, whoever is at work on it."""
        return self._found(OUTSTANDING, payment_id)

    def _found(self, query: LiteralString, payment_id: UUID) -> BankCall | None:
        parameters = {"shard": shard_of(payment_id), "payment_id": payment_id}
        with unavailability_named(), self._pool.connection() as connection:
            row = connection.execute(query, parameters).fetchone()
        return None if row is None else _call(row)

    def stuck(self) -> list[dict[str, Any]]:
        """The calls that nobody is at, oldest first: `payment_id`, `operation`, `reason`, `since`,
        `attempts`, `age_seconds`."""
        with self._pool.connection() as connection:
            return connection.execute(STUCK).fetchall()


def _identity(call: BankCall) -> dict[str, Any]:
    return {
        "shard": shard_of(call.payment_id),
        "payment_id": call.payment_id,
        "bank_key": call.bank_key,
        "fence": call.fence,
    }


def _asked_by(call: BankCall) -> dict[str, Any]:
    """Why it is asked, and who will read the answer."""
    return {
        "request_id": call.cause.request_id,
        "idempotency_key": call.cause.idempotency_key,
        "actor": call.cause.actor,
        "family": call.audience.family,
        "dialect": call.audience.dialect,
        "expand": list(call.audience.expand),
    }


def _awaiting(call: BankCall) -> dict[str, Any]:
    reason = UNDER_WAY if call.operation is Operation.TRANSFER else WAITS
    return _identity(call) | {"reason": reason, "pause": awaiting_pause(call)}


def awaiting_pause(call: BankCall) -> float:
    """Seconds until it is looked again what the shopper decided, or what became of the transfer."""
    pause = call.age_seconds * AWAITING_PAUSE_SHARE
    is_transfer = call.operation is Operation.TRANSFER
    longest = LONGEST_TRANSFER_PAUSE_SECONDS if is_transfer else LONGEST_PAUSE_SECONDS
    return min(max(pause, SHORTEST_AWAITING_PAUSE_SECONDS), longest)


def _call(row: dict[str, Any]) -> BankCall:
    return BankCall(
        payment_id=row["payment_id"],
        tenant=Tenant(row["merchant_id"], Mode(row["mode"])),
        operation=Operation(row["operation"]),
        bank_key=row["bank_key"],
        cause=Cause(
            actor=row["actor"],
            request_id=row["request_id"],
            idempotency_key=row["idempotency_key"],
        ),
        audience=Audience(
            family=row["family"], dialect=row["dialect"], expand=tuple(row["expand"])
        ),
        sealed_card=row["sealed_card"],
        return_url=row["return_url"],
        attempts=row["attempts"],
        unanswered=row["unanswered"],
        contradictions=row["contradictions"],
        reached=row["reached"],
        age_seconds=row["age_seconds"],
        fence=row["fence"],
        superseded_key=row["superseded_key"],
    )

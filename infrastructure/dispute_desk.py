"""Disputes between the bank and the ledger: notices come in and answers go out, each until it arrived.

The bank is asked what followed the last notice that is kept here; what it tells is kept first, with how
far it was read, and recorded after: so nothing is lost and nothing counts twice, whoever is killed, and
one notice that cannot be recorded yet holds up no other payment's.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb

from domain.commands import Cause
from domain.dispute import DisputeNotice, DisputeStatus
from domain.disputes import BankDisputes, Disputes, NotTold, payment_of
from domain.errors import ConcurrentChange, OperationInProgress, PaymentNotFound
from domain.ids import Prefix, encode
from domain.ledger import PaymentLedger
from domain.payment import rfc3339
from infrastructure import personal_data
from infrastructure.bank.driver import rfc3339_time
from infrastructure.database import Pool
from infrastructure.fault_points import reached
from infrastructure.shards import shard_of
from projections.receipts import Receipts

AT_ONCE: Final = 100
FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 3600.0
RECEIPTS: Final = Receipts()

READ_UP_TO: Final[LiteralString] = "SELECT position FROM dispute_feed"
# Of two who read the same notices, one keeps them. Each that is kept is kept with the new place. What waits
# where another is now told of is of a bank that has begun again, and does not know it any more.
KEEP: Final[LiteralString] = """
    WITH moved AS (
        UPDATE dispute_feed SET position = %(position)s WHERE position = %(before)s RETURNING 1
    )
    INSERT INTO dispute_notices (position, notice)
    SELECT * FROM unnest(%(positions)s::bigint[], %(notices)s::jsonb[]) AS n (position, notice)
    WHERE EXISTS (SELECT FROM moved)
    ON CONFLICT (position) DO UPDATE
        SET notice = excluded.notice, tries = 0, due_at = clock_timestamp()
        WHERE dispute_notices.notice <> excluded.notice
"""
BEGIN_AGAIN: Final[LiteralString] = """
    UPDATE dispute_feed SET position = 0 WHERE position = %(before)s
"""
# Of one payment the first: what was told of it later is not to be taken in before.
DUE: Final[LiteralString] = """
    UPDATE dispute_notices SET tries = tries + 1,
           due_at = clock_timestamp() + least(%(first)s * power(2, least(tries, 20)), %(longest)s)
    WHERE position IN (
        SELECT position FROM dispute_notices AS n
        WHERE due_at <= clock_timestamp() AND NOT EXISTS (
            SELECT FROM dispute_notices AS before
            WHERE before.notice ->> 'capture_key' = n.notice ->> 'capture_key'
              AND before.position < n.position
        )
        ORDER BY position LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    )
    RETURNING position, notice
"""
TAKEN_IN: Final[LiteralString] = "DELETE FROM dispute_notices WHERE position = %(position)s"
RESPONSES_DUE: Final[LiteralString] = """
    UPDATE dispute_responses AS r SET tries = tries + 1,
           due_at = clock_timestamp() + least(%(first)s * power(2, least(tries, 20)), %(longest)s)
    FROM (
        SELECT shard, dispute_id, kind FROM dispute_responses WHERE due_at <= clock_timestamp()
        ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS d
    WHERE r.shard = d.shard AND r.dispute_id = d.dispute_id AND r.kind = d.kind
    RETURNING r.dispute_id, r.kind, r.bank_dispute_id
"""
HEARD: Final[LiteralString] = """
    DELETE FROM dispute_responses
    WHERE shard = %(shard)s AND dispute_id = %(dispute_id)s AND kind = %(kind)s
"""
PAUSES: Final = {
    "first": timedelta(seconds=FIRST_PAUSE_SECONDS),
    "longest": timedelta(seconds=LONGEST_PAUSE_SECONDS),
    "limit": AT_ONCE,
}

log = structlog.get_logger(__name__)


class DisputeDesk:
    """What a worker does about disputes."""

    def __init__(self, pool: Pool, ledger: PaymentLedger, bank: BankDisputes, cause: Cause) -> None:
        self._pool = pool
        self._ledger = ledger
        self._bank = bank
        self._cause = cause

    def work(self) -> int:
        """All that is due now, in and out; how many things that was."""
        return self.read() + self.take_in() + self.tell()

    def read(self) -> int:
        """Keeps the bank's next notices; how many."""
        (row,) = self._rows(READ_UP_TO)
        before = row["position"]
        told = self._bank.notices(before)
        if isinstance(told, NotTold):
            log.warning("the bank does not tell of disputes", reason=told.reason)
            return 0
        if told.latest < before:
            log.error("the bank tells of disputes from the beginning", read_up_to=before)
            self._execute(BEGIN_AGAIN, before=before)
            return 0
        if not told.notices:
            return 0
        self._execute(
            KEEP,
            before=before,
            position=told.notices[-1].position,
            positions=[each.position for each in told.notices],
            notices=[Jsonb(_kept(each)) for each in told.notices],
        )
        reached("disputes.kept")
        return len(told.notices)

    def take_in(self) -> int:
        """Records what is kept and due; how many notices that were."""
        taken = 0
        while now := sum(
            self._take_in(_notice(row["notice"])) for row in self._rows(DUE, **PAUSES)
        ):
            taken += now
        return taken

    def _take_in(self, notice: DisputeNotice) -> bool:
        payment_id = payment_of(notice)
        owner = None
        if payment_id is not None:
            with self._pool.connection() as connection:
                owner = RECEIPTS.owner(connection, shard_of(payment_id), payment_id)
        if payment_id is None or owner is None:
            log.error("a dispute of a payment that is not ours", dispute=notice.bank_dispute_id)
            return False
        try:
            Disputes(self._ledger).take_in(notice, payment_id, owner, self._cause)
        except (OperationInProgress, ConcurrentChange, PaymentNotFound) as error:
            log.info("a dispute cannot be recorded yet", reason=str(error))
            return False
        self._execute(TAKEN_IN, position=notice.position)
        return True

    def tell(self) -> int:
        """Tells the bank what merchants answered; how much of it was heard."""
        return sum(
            self._tell(row["dispute_id"], row["kind"], row["bank_dispute_id"])
            for row in self._rows(RESPONSES_DUE, **PAUSES)
        )

    def _tell(self, dispute_id: UUID, kind: str, bank_dispute_id: str) -> bool:
        with self._pool.connection() as connection:
            said = personal_data.of(connection, [dispute_id]).get(dispute_id, {})
        evidence = " ".join(str(each) for each in said.values())
        key = f"{encode(Prefix.DISPUTE, dispute_id)}-{kind}"
        failure = self._bank.respond(kind, bank_dispute_id, key, evidence)
        if failure is not None:
            log.warning("the bank was not told yet", dispute=bank_dispute_id, why=failure.reason)
            return False
        self._execute(HEARD, shard=shard_of(dispute_id), dispute_id=dispute_id, kind=kind)
        return True

    def _rows(self, statement: LiteralString, **parameters: Any) -> Sequence[dict[str, Any]]:
        with self._pool.connection() as connection:
            return connection.execute(statement, parameters).fetchall()

    def _execute(self, statement: LiteralString, **parameters: Any) -> None:
        with self._pool.connection() as connection:
            connection.execute(statement, parameters)


def _kept(notice: DisputeNotice) -> dict[str, Any]:
    due_by = notice.evidence_due_by
    return asdict(notice) | {"evidence_due_by": None if due_by is None else rfc3339(due_by)}


def _notice(kept: dict[str, Any]) -> DisputeNotice:
    due_by, status = rfc3339_time(kept["evidence_due_by"]), DisputeStatus(kept["status"])
    return DisputeNotice(**kept | {"evidence_due_by": due_by, "status": status})

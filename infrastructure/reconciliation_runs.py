"""Runs of the reconciliation: one at a time over all hosts, each to be gone on with by another.

Whoever is at a run holds it for a few seconds at a time, by the database's clock. One who is killed
holds it no longer than that, and the next begins where the last page ended.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.payment import Difference, DifferenceKind
from domain.ports import Ids
from infrastructure.database import UNAVAILABLE, Pool

HELD_SECONDS: Final = 30.0
KEPT_DAYS: Final = 90

RESUME: Final[LiteralString] = """
    UPDATE reconciliations
    SET holder = %(holder)s,
        held_until = clock_timestamp() + make_interval(secs => %(held_seconds)s)
    WHERE finished_at IS NULL AND held_until <= clock_timestamp()
    RETURNING run_id, since
"""
BEGIN: Final[LiteralString] = """
    INSERT INTO reconciliations (run_id, since, started_at, is_whole, holder, held_until)
    VALUES (
        %(run_id)s, %(since)s, clock_timestamp(), true, %(holder)s,
        clock_timestamp() + make_interval(secs => %(held_seconds)s)
    )
    ON CONFLICT DO NOTHING
    RETURNING run_id, since
"""
# Without any run yet, the hours are counted from when there could be one.
BEGIN_IF_DUE: Final[LiteralString] = """
    INSERT INTO reconciliations (run_id, started_at, is_whole, holder, held_until)
    SELECT %(run_id)s, clock_timestamp(), true, %(holder)s,
           clock_timestamp() + make_interval(secs => %(held_seconds)s)
    WHERE clock_timestamp() - make_interval(secs => %(every_seconds)s) >= coalesce(
        (SELECT max(started_at) FROM reconciliations WHERE since IS NULL AND is_whole),
        (SELECT applied_at FROM schema_migrations WHERE name = '0002_reconciliation.sql')
    )
    ON CONFLICT DO NOTHING
    RETURNING run_id, since
"""
UNFINISHED: Final[LiteralString] = """
    SELECT since, greatest(extract(epoch FROM held_until - clock_timestamp()), 0)::float AS held
    FROM reconciliations WHERE finished_at IS NULL
"""
GIVE_UP: Final[LiteralString] = """
    UPDATE reconciliations SET finished_at = clock_timestamp(), is_whole = false
    WHERE finished_at IS NULL AND held_until <= clock_timestamp()
"""
HOLD: Final[LiteralString] = """
    UPDATE reconciliations
    SET held_until = clock_timestamp() + make_interval(secs => %(held_seconds)s)
    WHERE run_id = %(run_id)s AND holder = %(holder)s AND finished_at IS NULL
"""
LET_GO: Final[LiteralString] = """
    UPDATE reconciliations SET held_until = clock_timestamp()
    WHERE run_id = %(run_id)s AND holder = %(holder)s AND finished_at IS NULL
"""
FINISH: Final[LiteralString] = """
    UPDATE reconciliations SET finished_at = clock_timestamp(), held_until = clock_timestamp()
    WHERE run_id = %(run_id)s AND holder = %(holder)s AND finished_at IS NULL
"""
CURSOR: Final[LiteralString] = """
    SELECT after FROM reconciliation_cursors WHERE shard = %(shard)s AND run_id = %(run_id)s
"""
ADVANCE: Final[LiteralString] = """
    INSERT INTO reconciliation_cursors AS c (shard, run_id, after, checked, skipped, unanswered)
    VALUES (
        %(shard)s, %(run_id)s, %(after)s, %(checked)s, %(skipped)s, %(unanswered)s
    )
    ON CONFLICT (shard, run_id) DO UPDATE SET
        after = excluded.after, checked = c.checked + excluded.checked,
        skipped = c.skipped + excluded.skipped, unanswered = c.unanswered + excluded.unanswered
"""
FOUND: Final[LiteralString] = """
    INSERT INTO reconciliation_findings (shard, run_id, payment_id, kind, ours, bank)
    VALUES (%(shard)s, %(run_id)s, %(payment_id)s, %(kind)s, %(ours)s, %(bank)s)
    ON CONFLICT DO NOTHING
"""
COUNTS: Final[LiteralString] = """
    SELECT coalesce(sum(checked), 0)::bigint AS checked,
           coalesce(sum(skipped), 0)::bigint AS skipped,
           coalesce(sum(unanswered), 0)::bigint AS unanswered
    FROM reconciliation_cursors WHERE run_id = %(run_id)s
"""
FINDINGS: Final[LiteralString] = """
    SELECT payment_id, kind, ours, bank FROM reconciliation_findings WHERE run_id = %(run_id)s
    ORDER BY payment_id, kind, ours, bank
"""
# What was found is in the payments' events for ever; how it was found is not needed so long.
FORGET: Final[tuple[LiteralString, ...]] = (
    """
    DELETE FROM reconciliations
    WHERE finished_at < clock_timestamp() - make_interval(days => %(days)s)
    """,
    """
    DELETE FROM reconciliation_cursors
    WHERE run_id NOT IN (SELECT run_id FROM reconciliations)
    """,
    """
    DELETE FROM reconciliation_findings
    WHERE run_id NOT IN (SELECT run_id FROM reconciliations)
    """,
)


class SomebodyIsAtIt(Exception):
    """A run is being made by another process, or was until a few seconds ago."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"for {seconds:.0f} s at most, unless it goes on")
        self.seconds = seconds


class AnotherRunUnfinished(Exception):
    """A run over other payments is not finished."""

    def __init__(self, since: datetime | None) -> None:
        super().__init__("of all payments" if since is None else f"since {since.isoformat()}")
        self.since = since


class RunLost(Exception):
    """The run is no longer ours to go on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that we hold. `since`: only the payments that changed since then."""

    run_id: UUID
    holder: UUID
    since: datetime | None
    is_resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference of one payment."""

    payment_id: UUID
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came of the payments of a shard up to `after`. `skipped`: with an operation outstanding.
    `unanswered`: of which the bank did not say what it has."""

    shard: int
    after: UUID
    checked: int
    skipped: int
    unanswered: int
    findings: Sequence[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a whole run."""

    checked: int
    skipped: int
    unanswered: int
    findings: Sequence[Finding]


class ReconciliationRuns:
    """The table of runs."""

    def __init__(self, pool: Pool, ids: Ids) -> None:
        self._pool = pool
        self._ids = ids

    def take(self, *, since: datetime | None, restart: bool = False) -> Run:
        """Goes on with the unfinished run, or begins one. Raises SomebodyIsAtIt,
        AnotherRunUnfinished."""
        with self._pool.connection() as connection, connection.transaction():
            if restart:
                connection.execute(GIVE_UP)
            unfinished = connection.execute(UNFINISHED).fetchone()
            if unfinished is not None and unfinished["held"] > 0:
                raise SomebodyIsAtIt(unfinished["held"])
            if unfinished is not None and unfinished["since"] != since:
                raise AnotherRunUnfinished(unfinished["since"])
            run = self._resumed_or_begun(connection, BEGIN, {"since": since})
        if run is None:
            raise SomebodyIsAtIt(HELD_SECONDS)
        return run

    def take_if_due(self, every_seconds: float) -> Run | None:
        """Goes on with what somebody left, or begins a run if the last is so long ago."""
        with self._pool.connection() as connection, connection.transaction():
            return self._resumed_or_begun(
                connection, BEGIN_IF_DUE, {"every_seconds": every_seconds}
            )

    def _resumed_or_begun(
        self, connection: Connection[Any], begin: LiteralString, parameters: dict[str, Any]
    ) -> Run | None:
        holder = self._ids.new()
        parameters |= {
            "run_id": self._ids.new(),
            "holder": holder,
            "held_seconds": HELD_SECONDS,
        }
        row = connection.execute(RESUME, parameters).fetchone()
        is_resumed = row is not None
        if row is None:
            row = connection.execute(begin, parameters).fetchone()
        if row is None:
            return None
        return Run(run_id=row["run_id"], holder=holder, since=row["since"], is_resumed=is_resumed)

    def after(self, run: Run, shard: int) -> UUID:
        """The payment of the shard up to which all are done."""
        with self._pool.connection() as connection:
            row = connection.execute(CURSOR, {"run_id": run.run_id, "shard": shard}).fetchone()
        return UUID(int=0) if row is None else row["after"]

    def hold(self, run: Run) -> None:
        """Goes on holding the run. Raises RunLost."""
        with self._pool.connection() as connection:
            _held(connection, run)

    def advance(self, run: Run, page: Page) -> None:
        """Keeps what came of a page. Raises RunLost, and nothing is kept."""
        parameters = {"run_id": run.run_id, "shard": page.shard, "after": page.after}
        counts = {name: getattr(page, name) for name in ("checked", "skipped", "unanswered")}
        with self._pool.connection() as connection, connection.transaction():
            _held(connection, run)
            connection.execute(ADVANCE, parameters | counts)
            for finding in page.findings:
                connection.execute(FOUND, parameters | _row(finding))

    def let_go(self, run: Run) -> None:
        """Leaves the run to whoever comes next, at once."""
        with self._pool.connection() as connection:
            connection.execute(LET_GO, {"run_id": run.run_id, "holder": run.holder})

    def finish(self, run: Run) -> Report:
        """Ends the run; what came of all of it. Raises RunLost."""
        identity = {"run_id": run.run_id, "holder": run.holder}
        with self._pool.connection() as connection, connection.transaction():
            if connection.execute(FINISH, identity).rowcount != 1:
                raise RunLost(str(run.run_id))
            counts = connection.execute(COUNTS, identity).fetchone()
            rows = connection.execute(FINDINGS, identity).fetchall()
            for statement in FORGET:
                connection.execute(statement, {"days": KEPT_DAYS})
        assert counts is not None
        return Report(**counts, findings=[_finding(row) for row in rows])


def _held(connection: Connection[Any], run: Run) -> None:
    parameters = {"run_id": run.run_id, "holder": run.holder, "held_seconds": HELD_SECONDS}
    if connection.execute(HOLD, parameters).rowcount != 1:
        raise RunLost(str(run.run_id))


def _row(finding: Finding) -> dict[str, Any]:
    difference = finding.difference
    return {
        "payment_id": finding.payment_id,
        "kind": difference.kind.value,
        "ours": difference.ours,
        "bank": difference.bank,
    }


def _finding(row: dict[str, Any]) -> Finding:
    kind = DifferenceKind(row["kind"])
    difference = Difference(kind=kind, ours=row["ours"], bank=row["bank"])
    return Finding(payment_id=row["payment_id"], difference=difference)


@contextmanager
def held(runs: ReconciliationRuns, run: Run) -> Iterator[None]:
    """Whatever ends the block, the next may go on at once."""
    try:
        yield
    finally:
        with suppress(*UNAVAILABLE):  # then it is held for its last seconds
            runs.let_go(run)

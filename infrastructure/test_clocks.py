"""Clocks that tests move: the time that a customer's subscriptions live by, in test mode.

A clock stands still until it is moved forwards; then a worker does what falls due on the way, in the order
of its time, and the clock is ready when nothing is left to do. Nothing of a clock is in the log but the
times that were recorded by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.commands import Mode, Tenant
from domain.records import ClaimKey
from infrastructure.claims import at_once, claim
from infrastructure.database import Pool
from projections.pages import BY_CREATION, Page, PageOf, select_page

INSERT: Final[LiteralString] = """
    INSERT INTO test_clocks (id, merchant_id, mode, name, frozen_time, target_time, created_at)
    VALUES (%(id)s, %(merchant_id)s, %(mode)s, %(name)s, %(at)s, %(at)s, %(created_at)s)
"""
COLUMNS: Final[LiteralString] = """
    SELECT id, merchant_id, mode, name, frozen_time, target_time, advancing, created_at
    FROM test_clocks
"""
BY_ID: Final[LiteralString] = (
    COLUMNS
    + """
    WHERE id = %(id)s AND merchant_id = %(merchant_id)s AND mode = %(mode)s AND deleted_at IS NULL
"""
)
ADVANCING: Final[LiteralString] = (
    COLUMNS + "WHERE advancing AND deleted_at IS NULL ORDER BY id LIMIT %(limit)s"
)
ADVANCE: Final[LiteralString] = """
    UPDATE test_clocks SET target_time = %(to)s, advancing = true
    WHERE id = %(id)s AND deleted_at IS NULL AND NOT advancing AND frozen_time < %(to)s
    RETURNING *
"""
# Whoever comes late is not to end the next way that it was sent on.
ARRIVE: Final[LiteralString] = """
    UPDATE test_clocks SET frozen_time = target_time, advancing = false
    WHERE id = %(id)s AND advancing AND target_time = %(target)s
"""
REACH: Final[LiteralString] = """
    UPDATE test_clocks SET frozen_time = least(target_time, greatest(frozen_time, %(at)s))
    WHERE id = %(id)s
"""
DELETE: Final[LiteralString] = """
    UPDATE test_clocks SET deleted_at = clock_timestamp()
    WHERE id = %(id)s AND deleted_at IS NULL AND NOT advancing
"""
OF_CUSTOMERS: Final[LiteralString] = """
    SELECT b.customer_id, b.clock_id FROM test_clock_customers AS b
    JOIN test_clocks AS c ON c.id = b.clock_id AND c.deleted_at IS NULL
    WHERE b.merchant_id = %(merchant_id)s AND b.mode = %(mode)s
      AND b.customer_id = ANY(%(customer_ids)s::text[])
"""
CUSTOMERS_OF: Final[LiteralString] = """
    SELECT customer_id FROM test_clock_customers WHERE clock_id = %(id)s ORDER BY customer_id
"""
PAGE: Final = PageOf(
    select="""
        SELECT * FROM (
            SELECT * FROM test_clocks WHERE deleted_at IS NULL
        ) AS clocks
    """,
    id_column="id",
    filters=BY_CREATION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestClock:
    """A clock. `frozen_time`: what it says; `target_time`: what it will say once all is done that falls
    due until then, which is when it `is_ready`."""

    __test__ = False  # not a test, whatever pytest reads into the name

    id: UUID
    tenant: Tenant
    name: str | None
    frozen_time: datetime
    target_time: datetime
    is_ready: bool
    created_at: datetime


# The idempotency key of the request and what it is answered, of the clock as it is then.
Claiming = Callable[[TestClock], Sequence[ClaimKey]]


class TestClocks:
    """The table of clocks, and who lives by which. What is asked of a clock is done with its idempotency
    key, or not at all: that raises KeyAlreadyClaimed, StoreUnavailable."""

    __test__ = False

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def create(self, clock: TestClock, claiming: Claiming) -> None:
        """A new one, which stands still."""
        new = {"id": clock.id, "name": clock.name, "created_at": clock.created_at}
        with at_once(self._pool) as connection:
            claim(connection, claiming(clock))
            connection.execute(INSERT, {**_of(clock.tenant), **new, "at": clock.frozen_time})

    def find(self, clock_id: UUID, tenant: Tenant) -> TestClock | None:
        """One of this tenant's."""
        rows = self._execute(BY_ID, **_of(tenant), id=clock_id)
        return _clock(rows[0]) if rows else None

    def page(self, tenant: Tenant, page: Page) -> tuple[list[TestClock], bool]:
        """A page of clocks, newest first, and whether there are more."""
        with self._pool.connection() as connection:
            rows, has_more = select_page(connection, PAGE, tenant, page)
        return [_clock(row) for row in rows], has_more

    def advancing(self, limit: int) -> list[TestClock]:
        """Those that are on their way."""
        return [_clock(row) for row in self._execute(ADVANCING, limit=limit)]

    def advance(self, clock_id: UUID, to: datetime, claiming: Claiming) -> TestClock | None:
        """Sends a clock on its way; None where it is on its way already, or would go back."""
        with at_once(self._pool) as connection:
            row = connection.execute(ADVANCE, {"id": clock_id, "to": to}).fetchone()
            if row is None:
                return None
            clock = _clock(row)
            claim(connection, claiming(clock))
        return clock

    def reach(self, clock_id: UUID, at: datetime) -> None:
        """The clock says that much at least."""
        self._execute(REACH, id=clock_id, at=at)

    def arrive(self, clock: TestClock) -> None:
        """Nothing is left to do until its target."""
        self._execute(ARRIVE, id=clock.id, target=clock.target_time)

    def delete(self, clock: TestClock, claiming: Claiming) -> bool:
        """It is there no more; False where it is on its way."""
        with at_once(self._pool) as connection:
            is_gone = connection.execute(DELETE, {"id": clock.id}).rowcount > 0
            if is_gone:
                claim(connection, claiming(clock))
        return is_gone

    def of_customers(self, tenant: Tenant, customer_ids: Sequence[str]) -> dict[str, UUID]:
        """The clocks that these customers live by, where they do."""
        if tenant.mode is not Mode.TEST or not customer_ids:
            return {}
        rows = self._execute(OF_CUSTOMERS, **_of(tenant), customer_ids=list(customer_ids))
        return {row["customer_id"]: row["clock_id"] for row in rows}

    def customers(self, clock_id: UUID) -> list[str]:
        """Who lives by it."""
        return [row["customer_id"] for row in self._execute(CUSTOMERS_OF, id=clock_id)]

    def _execute(self, statement: LiteralString, **parameters: Any) -> list[dict[str, Any]]:
        with self._pool.connection() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []


def _of(tenant: Tenant) -> dict[str, Any]:
    return {"merchant_id": tenant.merchant_id, "mode": tenant.mode.value}


def _clock(row: dict[str, Any]) -> TestClock:
    return TestClock(
        id=row["id"],
        tenant=Tenant(row["merchant_id"], Mode(row["mode"])),
        name=row["name"],
        frozen_time=row["frozen_time"],
        target_time=row["target_time"],
        is_ready=not row["advancing"],
        created_at=row["created_at"],
    )

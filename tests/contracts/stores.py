"""The ledger's store as the contract suite sees it, over memory and over Postgres."""

from typing import Any, Final, LiteralString, Protocol, Self
from uuid import UUID

from domain.commands import Tenant
from domain.ledger import PaymentLedger
from domain.ports import BankCalls
from infrastructure.bank_calls import QUIET_SECONDS, PostgresBankCalls
from infrastructure.database import Pool
from infrastructure.event_store import PostgresPaymentLedger
from infrastructure.idempotency import Claimed, IdempotencyKeys
from infrastructure.shards import shard_of
from projections.receipts import Receipts
from projections.refunds import Refunds
from tests.fakes import (
    FakeBank,
    InMemoryBankCalls,
    InMemoryKeys,
    InMemoryLedger,
    PlainAnswers,
    PlainVault,
    SequentialIds,
    SteppableClock,
)


class Store(Protocol):
    """A ledger with what it wrote laid open."""

    ledger: PaymentLedger
    bank: FakeBank

    @property
    def calls(self) -> BankCalls: ...

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        """The claim on a key."""

    def slot(self, tenant: Tenant, order_id: str) -> UUID | None:
        """The payment that has the order."""

    def receipt(self, payment_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        """The receipt as it would be read."""

    def refund(self, refund_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        """The refund as it would be read."""

    def everything(self) -> dict[str, list[str]]:
        """All rows of all tables, to compare with what they were."""

    def pass_time(self, seconds: float) -> None:
        """Leases run out and pauses end."""


class MemoryStore:
    """On the fakes."""

    def __init__(self, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._in_memory = InMemoryLedger()
        self._calls = InMemoryBankCalls(self._in_memory.store, quiet_seconds=quiet_seconds)
        self.ledger: PaymentLedger = self._in_memory
        self.ledger.bank_calls = self._calls
        self.bank = self._in_memory.fake_bank

    @property
    def calls(self) -> BankCalls:
        return self.ledger.bank_calls

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        return InMemoryKeys(self._in_memory.store).find(tenant, key)

    def slot(self, tenant: Tenant, order_id: str) -> UUID | None:
        return self._in_memory.store.tables.slots.get((tenant, order_id))

    def receipt(self, payment_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        return self._in_memory.store.tables.receipts.get(payment_id)

    def refund(self, refund_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        return self._in_memory.store.refund(refund_id)

    def everything(self) -> dict[str, list[str]]:
        tables = self._in_memory.store.tables
        names = ("events", "causes", "claims", "answers", "slots", "calls", "receipts", "refunds")
        return {name: sorted(map(repr, getattr(tables, name).items())) for name in names}

    def pass_time(self, seconds: float) -> None:
        self._in_memory.steppable.advance(seconds)


SLOT: Final[LiteralString] = """
    SELECT payment_id FROM order_slots
    WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND order_id = %(order_id)s
"""
# The database's own clock cannot be moved, but what it is compared with can.
PASS_TIME: Final[LiteralString] = """
    UPDATE bank_calls SET due_at = due_at - make_interval(secs => %(seconds)s),
                          since = since - make_interval(secs => %(seconds)s)
"""
EMPTY: Final[LiteralString] = """
    RESET ROLE;
    SET session_replication_role = replica;
    TRUNCATE events, bank_calls, order_slots, idempotency_keys, idempotency_answers, receipts,
        refunds;
    SET session_replication_role = origin;
    UPDATE shard_heads SET position = 0, hash = sha256('');
    SET ROLE counterfoil_serving
"""
TABLES: Final[dict[str, LiteralString]] = {
    "events": "SELECT e::text AS row FROM events e",
    "heads": "SELECT h::text AS row FROM shard_heads h",
    "calls": "SELECT c::text AS row FROM bank_calls c",
    "slots": "SELECT s::text AS row FROM order_slots s",
    "keys": "SELECT k::text AS row FROM idempotency_keys k",
    "answers": "SELECT a::text AS row FROM idempotency_answers a",
    "receipts": "SELECT r::text AS row FROM receipts r",
    "refunds": "SELECT r::text AS row FROM refunds r",
}


class PostgresStore:
    """On the real thing, with fakes for what is not the store."""

    def __init__(self, pool: Pool, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        clock = SteppableClock()
        self._pool = pool
        self.bank = FakeBank(clock)
        self.ledger: PaymentLedger = PostgresPaymentLedger(
            pool,
            bank=self.bank,
            bank_calls=PostgresBankCalls(pool, quiet_seconds=quiet_seconds),
            clock=clock,
            ids=SequentialIds(),
            vault=PlainVault(),
            answers=PlainAnswers(),
        )

    @classmethod
    def emptied(cls, pool: Pool, *, quiet_seconds: float = QUIET_SECONDS) -> Self:
        """With nothing in it, as no ledger ever is again."""
        with pool.connection() as connection, connection.transaction():
            connection.execute(EMPTY)
        return cls(pool, quiet_seconds=quiet_seconds)

    @property
    def calls(self) -> BankCalls:
        return self.ledger.bank_calls

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        return IdempotencyKeys(self._pool).find(tenant, key)

    def slot(self, tenant: Tenant, order_id: str) -> UUID | None:
        parameters = {
            "merchant_id": tenant.merchant_id,
            "mode": tenant.mode.value,
            "order_id": order_id,
        }
        with self._pool.connection() as connection:
            row = connection.execute(SLOT, parameters).fetchone()
        return None if row is None else row["payment_id"]

    def receipt(self, payment_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        with self._pool.connection() as connection:
            return Receipts().by_id(connection, shard_of(payment_id), payment_id, tenant)

    def refund(self, refund_id: UUID, tenant: Tenant) -> dict[str, Any] | None:
        with self._pool.connection() as connection:
            return Refunds().by_id(connection, refund_id, tenant)

    def everything(self) -> dict[str, list[str]]:
        with self._pool.connection() as connection:
            return {
                name: sorted(row["row"] for row in connection.execute(query).fetchall())
                for name, query in TABLES.items()
            }

    def pass_time(self, seconds: float) -> None:
        with self._pool.connection() as connection:
            connection.execute(PASS_TIME, {"seconds": seconds})

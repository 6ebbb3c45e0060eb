"""Erasing who a customer is, wherever it was put down: their payment methods and cards, what was said with
their payments and intents, and what is kept of answers, ours for replays and receivers' to deliveries. The log
never had it.

Done when the customer is deleted, as far as a request has time for that; and once more, to the end, by a
worker, when every request that had read of them before is over.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString
from uuid import UUID

from domain.commands import Cause, Mode, Tenant
from domain.errors import ConcurrentChange
from domain.ids import MalformedId, Prefix, decode, encode
from domain.ports import Clock
from domain.records import EraseLater, ForgetCard, ForgetPersonalData, Record
from infrastructure import idempotency, personal_data
from infrastructure.database import Pool
from infrastructure.event_store import PostgresPaymentLedger
from infrastructure.shards import shard_of
from projections.documents import Document, Documents
from projections.pages import Page
from projections.payment_intents import Intents
from projections.payment_methods import Methods
from projections.receipts import Receipts
from projections.webhook_deliveries import WebhookDeliveries

# Longer than any request, and any call of a worker's.
ONCE_MORE_SECONDS: Final = 60
# What a request has for it. What is left then waits for the worker.
REQUEST_SECONDS: Final = 2.0
# After which another worker takes up what one died of.
LEASE_SECONDS: Final = 300
AT_ONCE: Final = 100
METHODS: Final = Methods()
INTENTS: Final = Intents()
RECEIPTS: Final = Receipts()
DELIVERIES: Final = WebhookDeliveries()

TAKE: Final[LiteralString] = """
    UPDATE erasures SET due_at = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE (shard, customer_id) = (
        SELECT shard, customer_id FROM erasures WHERE due_at <= clock_timestamp()
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING shard, customer_id, merchant_id, mode
"""
GIVE_BACK: Final[LiteralString] = """
    UPDATE erasures SET due_at = clock_timestamp()
    WHERE shard = %(shard)s AND customer_id = %(customer_id)s
"""
DONE: Final[LiteralString] = """
    DELETE FROM erasures WHERE shard = %(shard)s AND customer_id = %(customer_id)s
"""


class Erasure:
    """What is erased with a customer."""

    def __init__(self, pool: Pool, ledger: PostgresPaymentLedger, clock: Clock) -> None:
        self._pool, self._ledger, self._clock = pool, ledger, clock

    def later(self, customer_id: UUID, tenant: Tenant) -> EraseLater:
        """The record that has a worker see to it."""
        return EraseLater(customer_id=customer_id, tenant=tenant, after_seconds=ONCE_MORE_SECONDS)

    def begin(self, customer_id: UUID, tenant: Tenant, cause: Cause) -> None:
        """Erases what is known of a deleted customer: who they are, at once; then the rest, from the
        newest, for as long as a request has time."""
        ends_at = self._clock.monotonic() + REQUEST_SECONDS
        for _ in self._steps(customer_id, tenant, cause):
            if self._clock.monotonic() > ends_at:
                return

    def _steps(self, customer_id: UUID, tenant: Tenant, cause: Cause) -> Iterator[None]:
        """All of it, some at each step. May be done again, and is then little."""
        public_id = encode(Prefix.CUSTOMER, customer_id)
        self.forget([customer_id])
        yield
        for methods in self._pages(METHODS, Prefix.PAYMENT_METHOD, tenant, public_id):
            self._erase_methods([each["id"] for each in methods], public_id, tenant, cause)
            yield
        for intents in self._pages(INTENTS, Prefix.INTENT, tenant, public_id):
            used = [each["terms"]["payment_method_id"] for each in intents]
            self._erase_methods(used, public_id, tenant, cause)
            self.forget([decode(Prefix.INTENT, each["id"]) for each in intents])
            yield
        for receipts in self._pages(RECEIPTS, Prefix.PAYMENT, tenant, public_id):
            used = [each.get("payment_method_id") for each in receipts]
            self._erase_methods(used, public_id, tenant, cause)
            self.forget(_of_payments(receipts) + self._nobodys_intents(receipts, tenant))
            yield

    def forget(self, owners: Sequence[UUID]) -> None:
        """Who they are, or who was said to be with them; and what answers tell of it, ours and those
        of receivers that were told."""
        with self._pool.connection() as connection:
            personal_data.forget_all(connection, owners)
            idempotency.redact(connection, owners)
            DELIVERIES.forget_answers(connection, _keys(owners))

    def unsay(self, owners: Sequence[UUID]) -> None:
        """Takes out of answers who they told of: it is somebody else now."""
        with self._pool.connection() as connection:
            idempotency.redact(connection, owners)

    def carry_out_due(self, cause: Cause, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Erases once more, and to the end, what is due; how many customers that are. One whose
        erasure fails is in nobody's way: it is due again later."""
        done = 0
        while not is_stopping() and (row := self._taken()) is not None:
            tenant = Tenant(row["merchant_id"], Mode(row["mode"]))
            steps = self._steps(row["customer_id"], tenant, cause)
            is_left = any(is_stopping() for _ in steps)
            with self._pool.connection() as connection:
                connection.execute(GIVE_BACK if is_left else DONE, row)
            done += not is_left
        return done

    def _taken(self) -> dict[str, Any] | None:
        """One that is due, which nobody else takes for a while."""
        with self._pool.connection() as connection:
            return connection.execute(TAKE, {"seconds": LEASE_SECONDS}).fetchone()

    def _pages(
        self, model: Documents | Receipts, prefix: Prefix, tenant: Tenant, customer: str
    ) -> Iterator[list[Document]]:
        """All of the customer's, a page at a time, from the newest."""
        after, has_more = None, True
        while has_more:
            page = Page(limit=AT_ONCE, after=after, filters={"customer_id": customer})
            with self._pool.connection() as connection:
                found, has_more = model.page(connection, tenant, page)
            if found:
                yield found
                last = found[-1]
                after = decode(prefix, last.get("id") or last["payment_id"])

    def _erase_methods(
        self, public_ids: Sequence[str | None], customer: str, tenant: Tenant, cause: Cause
    ) -> None:
        """Those that are the customer's, or nobody's: what was used only and never attached."""
        with self._pool.connection() as connection:
            found = METHODS.by_ids(connection, tenant, _keys(_uuids(public_ids)))
        theirs = [each for each in found if each["customer_id"] in (None, customer)]
        for each in theirs:
            if not each["is_detached"]:
                with suppress(ConcurrentChange):  # the worker comes by once more
                    self._erase(decode(Prefix.PAYMENT_METHOD, each["id"]), customer, cause)
        self.forget([decode(Prefix.PAYMENT_METHOD, each["id"]) for each in theirs])

    def _erase(self, method_id: UUID, customer: str, cause: Cause) -> None:
        method: Any = self._ledger.repository.get(method_id)
        if method.customer_id not in (None, customer):
            return  # it was attached meanwhile
        method.erase(at=self._clock.now())
        if method.pending_events:
            gone: list[Record] = [
                ForgetCard(method_id=method.id),
                ForgetPersonalData(owner=method.id),
            ]
            self._ledger.record((method,), cause, gone)

    def _nobodys_intents(self, receipts: Sequence[Document], tenant: Tenant) -> list[UUID]:
        """Those that these payments are attempts of and that were taken from the customer since; what
        was given to somebody else is theirs, and what is the customer's is found as such."""
        public_ids = {each["intent_id"] for each in receipts if each.get("intent_id") is not None}
        ids = [decode(Prefix.INTENT, each) for each in public_ids]
        with self._pool.connection() as connection:
            found = INTENTS.by_ids(connection, tenant, _keys(ids))
        return [decode(Prefix.INTENT, each["id"]) for each in found if each["customer_id"] is None]


def _keys(ids: Sequence[UUID]) -> list[tuple[int, UUID]]:
    """As read models are asked by."""
    return [(shard_of(each), each) for each in ids]


def _uuids(public_ids: Sequence[str | None]) -> list[UUID]:
    """Of payment methods; without the names that stand for cards in test mode."""
    found = []
    for each in {each for each in public_ids if each is not None}:
        with suppress(MalformedId):
            found.append(decode(Prefix.PAYMENT_METHOD, each))
    return found


def _of_payments(receipts: Sequence[Document]) -> list[UUID]:
    """Theirs, and those of their disputes."""
    payments = [decode(Prefix.PAYMENT, each["payment_id"]) for each in receipts]
    disputes = [decode(Prefix.DISPUTE, d) for each in receipts for d in each.get("disputes", [])]
    return payments + disputes

"""Erasing who a customer is, wherever it was put down: their payment methods and cards, what was said with
their payments and intents, and what is kept of answers for replays. The log never had it.

Done when the customer is deleted, and once more by a worker when every request that had read of them
before is over; and by a worker alone, where whoever deleted the customer did not get to it.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, LiteralString
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError

from domain.commands import Cause, Mode, Tenant
from domain.errors import ConcurrentChange
from domain.ids import MalformedId, Prefix, decode, encode
from domain.payment_method import PaymentMethod
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

# Longer than any request, and any call of a worker's.
ONCE_MORE_SECONDS: Final = 60
AT_ONCE: Final = 100
METHODS: Final = Methods()
INTENTS: Final = Intents()
RECEIPTS: Final = Receipts()

DUE: Final[LiteralString] = """
    SELECT customer_id, merchant_id, mode FROM erasures WHERE due_at <= clock_timestamp()
    ORDER BY due_at LIMIT %(limit)s
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

    def carry_out(self, customer_id: UUID, tenant: Tenant, cause: Cause) -> None:
        """Erases all that is known of a deleted customer. May be done again, and is then little."""
        public_id = encode(Prefix.CUSTOMER, customer_id)
        self.forget([customer_id])
        for methods in self._pages(METHODS, Prefix.PAYMENT_METHOD, tenant, public_id):
            self._erase_methods([each["id"] for each in methods], public_id, tenant, cause)
        for intents in self._pages(INTENTS, Prefix.INTENT, tenant, public_id):
            used = [each["terms"]["payment_method_id"] for each in intents]
            self._erase_methods(used, public_id, tenant, cause)
            self.forget([decode(Prefix.INTENT, each["id"]) for each in intents])
        for receipts in self._pages(RECEIPTS, Prefix.PAYMENT, tenant, public_id):
            used = [each.get("payment_method_id") for each in receipts]
            self._erase_methods(used, public_id, tenant, cause)
            self.forget(_of_payments(receipts))

    def forget(self, owners: Sequence[UUID]) -> None:
        """Who they are, or who was said to be with them; and what answers tell of it."""
        with self._pool.connection() as connection:
            personal_data.forget_all(connection, owners)
            idempotency.redact(connection, owners)

    def unsay(self, owners: Sequence[UUID]) -> None:
        """Takes out of answers who they told of: it is somebody else now."""
        with self._pool.connection() as connection:
            idempotency.redact(connection, owners)

    def carry_out_due(self, cause: Cause) -> int:
        """Erases once more what is due; how many customers that are."""
        with self._pool.connection() as connection:
            due = connection.execute(DUE, {"limit": AT_ONCE}).fetchall()
        for row in due:
            customer_id = row["customer_id"]
            self.carry_out(customer_id, Tenant(row["merchant_id"], Mode(row["mode"])), cause)
            with self._pool.connection() as connection:
                parameters = {"shard": shard_of(customer_id), "customer_id": customer_id}
                connection.execute(DONE, parameters)
        return len(due)

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
        erased = []
        for public_id in {each for each in public_ids if each is not None}:
            method = self._method(public_id, tenant)
            if method is None or method.customer_id not in (None, customer):
                continue
            erased.append(method.id)
            with suppress(ConcurrentChange):  # the worker comes by once more
                self._erase(method, cause)
        self.forget(erased)

    def _erase(self, method: PaymentMethod, cause: Cause) -> None:
        method.erase(at=self._clock.now())
        if method.pending_events:
            gone: list[Record] = [
                ForgetCard(method_id=method.id),
                ForgetPersonalData(owner=method.id),
            ]
            self._ledger.record((method,), cause, gone)

    def _method(self, public_id: str, tenant: Tenant) -> PaymentMethod | None:
        """None where it is a name that stands for a card in test mode."""
        try:
            found: Any = self._ledger.repository.get(decode(Prefix.PAYMENT_METHOD, public_id))
        except (MalformedId, AggregateNotFoundError):
            return None
        return found if isinstance(found, PaymentMethod) and found.tenant == tenant else None


def _of_payments(receipts: Sequence[Document]) -> list[UUID]:
    """Theirs, those of the intents that they are attempts of, and of their disputes."""
    payments = [decode(Prefix.PAYMENT, each["payment_id"]) for each in receipts]
    intents = {each["intent_id"] for each in receipts if each.get("intent_id") is not None}
    disputes = [decode(Prefix.DISPUTE, d) for each in receipts for d in each.get("disputes", [])]
    return payments + [decode(Prefix.INTENT, each) for each in intents] + disputes

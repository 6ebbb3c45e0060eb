"""What the payments family reads: things by their public ids, put together from the read models and
from what is kept apart of people. Another tenant's things are not there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from api import unguessable
from api.payments import billing_objects, dispute_objects, objects
from api.payments.inputs import missing, uuid_of
from domain.commands import Tenant
from domain.ids import MalformedId, Prefix, decode, encode
from infrastructure import personal_data
from infrastructure.services import Services
from infrastructure.shards import shard_of
from projections.customer_records import CustomerRecords
from projections.disputes import Disputes
from projections.documents import DocumentTable
from projections.invoices import Invoices
from projections.pages import Page
from projections.payment_intents import Intents
from projections.payment_methods import Methods
from projections.receipts import Receipts
from projections.refunds import Refunds
from projections.refunds import uuid_of as uuid_of_refund
from projections.subscriptions import Subscriptions

Document = dict[str, Any]

INTENTS: Final = Intents()
METHODS: Final = Methods()
CUSTOMERS: Final = CustomerRecords()
RECEIPTS: Final = Receipts()
DISPUTES: Final = Disputes()
SUBSCRIPTIONS: Final = Subscriptions()
INVOICES: Final = Invoices()
REFUNDS: Final = Refunds()


@dataclass(frozen=True, slots=True)
class Reader:
    """One tenant's things, as they are published."""

    services: Services
    tenant: Tenant

    # --- one ---

    def customer(self, public_id: str, param: str | None = None) -> Document:
        """A customer, or what is left of a deleted one. Raises CustomerNotFound."""
        record = self.record(CUSTOMERS, Prefix.CUSTOMER, public_id, param)
        if record["is_deleted"]:
            return objects.deleted("customer", record["id"])
        return self.customers([record])[0]

    def payment_method(self, public_id: str, param: str | None = None) -> Document:
        """A payment method. Raises PaymentMethodNotFound."""
        record = self.record(METHODS, Prefix.PAYMENT_METHOD, public_id, param)
        return self.payment_methods([record])[0]

    def intent(
        self,
        public_id: str,
        param: str | None = None,
        known: Mapping[str, Document] | None = None,
    ) -> Document:
        """A payment intent. `known`: receipts that are newer than those that are stored. Raises
        IntentNotFound."""
        return self.intents([self.record(INTENTS, Prefix.INTENT, public_id, param)], known)[0]

    def intent_of(
        self, record: Document, receipt: Document | None, personal: Mapping[str, Any]
    ) -> Document:
        """The intent of a record that may not be stored yet."""
        receipts = {} if receipt is None else {receipt["payment_id"]: receipt}
        return self._intent(record, receipts, personal)

    def charge(self, public_id: str, param: str | None = None) -> Document:
        """A charge. Raises PaymentNotFound."""
        payment_id = uuid_of(Prefix.CHARGE, public_id, param)
        found = self.receipts([payment_id])
        if not found:
            raise missing(Prefix.CHARGE, param)
        return self.charges(list(found.values()))[0]

    def dispute(self, public_id: str, param: str | None = None) -> Document:
        """A dispute. Raises DisputeNotFound."""
        record = self.record(DISPUTES, Prefix.DISPUTE, public_id, param)
        return self.disputes([record])[0]

    def subscription(self, public_id: str, param: str | None = None) -> Document:
        """A subscription. Raises SubscriptionNotFound."""
        record = self.record(SUBSCRIPTIONS, Prefix.SUBSCRIPTION, public_id, param)
        return billing_objects.subscription(record)

    def invoice(self, public_id: str, param: str | None = None) -> Document:
        """An invoice. Raises InvoiceNotFound."""
        return billing_objects.invoice(self.record(INVOICES, Prefix.INVOICE, public_id, param))

    def record(
        self, model: DocumentTable, prefix: Prefix, public_id: str, param: str | None = None
    ) -> Document:
        """What the read model has of it. Raises NotFound."""
        key = uuid_of(prefix, public_id, param)
        with self.services.pool.connection() as connection:
            found = model.by_ids(connection, self.tenant, [(shard_of(key), key)])
        if not found:
            raise missing(prefix, param)
        return found[0]

    # --- many ---

    def things(
        self, prefix: Prefix, public_ids: Sequence[str], newer: Mapping[str, Document]
    ) -> dict[str, Document]:
        """The things of one kind by their public ids, those that are there. `newer`: receipts that are
        newer than those that are stored."""
        found: list[Document]
        match prefix:
            case Prefix.CUSTOMER:
                found = self._customers_or_what_is_left(
                    self._records(CUSTOMERS, prefix, public_ids)
                )
            case Prefix.PAYMENT_METHOD:
                found = self.payment_methods(self._records(METHODS, prefix, public_ids))
            case Prefix.INTENT:
                found = self.intents(self._records(INTENTS, prefix, public_ids), newer)
            case Prefix.CHARGE:
                stored = self.receipts(list(_decoded(prefix, public_ids)))
                found = self.charges([newer.get(r["payment_id"], r) for r in stored.values()])
            case Prefix.DISPUTE:
                found = self.disputes(self._records(DISPUTES, prefix, public_ids))
            case Prefix.SUBSCRIPTION:
                records = self._records(SUBSCRIPTIONS, prefix, public_ids)
                found = [billing_objects.subscription(record) for record in records]
            case Prefix.INVOICE:
                records = self._records(INVOICES, prefix, public_ids)
                found = [billing_objects.invoice(record) for record in records]
            case _:
                found = self._refunds(public_ids)
        return {each["id"]: each for each in found}

    def _records(
        self, model: DocumentTable, prefix: Prefix, public_ids: Sequence[str]
    ) -> list[Document]:
        keys = [(shard_of(each), each) for each in _decoded(prefix, public_ids)]
        with self.services.pool.connection() as connection:
            return model.by_ids(connection, self.tenant, keys)

    def _customers_or_what_is_left(self, records: Sequence[Document]) -> list[Document]:
        gone = [objects.deleted("customer", each["id"]) for each in records if each["is_deleted"]]
        return gone + self.customers([each for each in records if not each["is_deleted"]])

    def _refunds(self, public_ids: Sequence[str]) -> list[Document]:
        wanted = [uuid_of_refund(each) for each in public_ids]
        with self.services.pool.connection() as connection:
            documents = REFUNDS.by_ids(connection, self.tenant, wanted)
        return [objects.refund(document) for document in documents]

    def customers(self, records: Sequence[Document]) -> list[Document]:
        """The customers of these records."""
        personal = self._personal(Prefix.CUSTOMER, records)
        clocks = self.clocks([record["id"] for record in records])
        return [
            objects.customer(record, personal.get(record["id"], {}), clocks.get(record["id"]))
            for record in records
        ]

    def clocks(self, customer_ids: Sequence[str]) -> dict[str, str]:
        """The tests' clocks that these customers live by, where they do."""
        found = self.services.test_clocks.of_customers(self.tenant, customer_ids)
        return {customer: encode(Prefix.TEST_CLOCK, clock) for customer, clock in found.items()}

    def payment_methods(self, records: Sequence[Document]) -> list[Document]:
        """The payment methods of these records."""
        billing = self._personal(Prefix.PAYMENT_METHOD, records)
        return [objects.payment_method(record, billing.get(record["id"], {})) for record in records]

    def intents(
        self, records: Sequence[Document], known: Mapping[str, Document] | None = None
    ) -> list[Document]:
        """The intents of these records. `known`: receipts that are newer than those that are stored."""
        personal = self._personal(Prefix.INTENT, records)
        last = [record["attempts"][-1] for record in records if record["attempts"]]
        receipts = dict(known or {})
        unknown = [decode(Prefix.PAYMENT, each) for each in last if each not in receipts]
        receipts |= {each["payment_id"]: each for each in self.receipts(unknown).values()}
        return [
            self._intent(record, receipts, personal.get(record["id"], {})) for record in records
        ]

    def _intent(
        self, record: Document, receipts: Mapping[str, Document], personal: Mapping[str, Any]
    ) -> Document:
        attempts = [receipts[each] for each in record["attempts"][-1:]]
        return objects.payment_intent(
            record,
            attempts,
            client_secret=self.client_secret(record["id"]),
            personal=personal,
            receipt_url=self.receipt_url(attempts[-1]["payment_id"]) if attempts else "",
        )

    def charges(self, receipts: Sequence[Document]) -> list[Document]:
        """The charges that these payments are."""
        mode = self.tenant.mode.value
        return [
            objects.charge(receipt, mode, self.receipt_url(receipt["payment_id"]))
            for receipt in receipts
        ]

    def disputes(self, records: Sequence[Document]) -> list[Document]:
        """The disputes of these records."""
        evidence, now = self._personal(Prefix.DISPUTE, records), self.services.clock.now()
        return [
            dispute_objects.dispute(record, evidence.get(record["id"], {}), now)
            for record in records
        ]

    def receipts(self, payment_ids: Sequence[UUID]) -> dict[UUID, Document]:
        """The receipts of those that are this tenant's."""
        if not payment_ids:
            return {}
        with self.services.pool.connection() as connection:
            keys = [(shard_of(each), each) for each in payment_ids]
            return RECEIPTS.by_ids(connection, self.tenant, keys)

    def page(self, model: DocumentTable, page: Page) -> tuple[list[Document], bool]:
        """The records of a page, and whether there are more beyond it."""
        with self.services.pool.connection() as connection:
            return model.page(connection, self.tenant, page)

    def personal(self, owner: UUID) -> dict[str, Any]:
        """Who it is, as far as that is known."""
        with self.services.pool.connection() as connection:
            return personal_data.of(connection, [owner]).get(owner, {})

    def _personal(self, prefix: Prefix, records: Sequence[Document]) -> dict[str, dict[str, Any]]:
        owners = {decode(prefix, record["id"]): record["id"] for record in records}
        with self.services.pool.connection() as connection:
            known = personal_data.of(connection, list(owners))
        return {owners[owner]: document for owner, document in known.items()}

    # --- what is not to be guessed ---

    def client_secret(self, intent_id: str) -> str:
        """What a publishable key needs, to be told of the intent."""
        return unguessable.client_secret(self.services, intent_id)

    def receipt_url(self, payment_id: str) -> str:
        """Where a shopper sees the receipt."""
        return unguessable.receipt_url(self.services, payment_id)


def _decoded(prefix: Prefix, public_ids: Sequence[str]) -> Iterator[UUID]:
    """What these ids name; a merchant's own names for things are none of ours."""
    for public_id in public_ids:
        with suppress(MalformedId):
            yield decode(prefix, public_id)

"""Customers as they are: that there is one, and the merchant's own notes. Who it is, is kept apart."""

from collections.abc import Sequence
from typing import Final, LiteralString

from domain.customer import Customer
from domain.ids import Prefix, encode
from domain.payment import rfc3339
from projections.documents import Document, Documents

NAME: Final[LiteralString] = "customer_records"


class CustomerRecords(Documents):
    """The table of customers."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = "customer"
    migration: LiteralString = "0005_intents.sql"

    def fold(self, history: Sequence[Customer.Event]) -> Document:
        """`id`, `mode`, `metadata`, `is_deleted`, `created_at`, `updated_at`."""
        document: Document = {}
        for event in history:
            match event:
                case Customer.Created():
                    document.update(
                        id=encode(Prefix.CUSTOMER, event.originator_id),
                        mode=event.mode,
                        metadata=dict(event.metadata),
                        is_deleted=False,
                        created_at=rfc3339(event.timestamp),
                    )
                case Customer.Updated():
                    document["metadata"] = dict(event.metadata)
                case Customer.Deleted():
                    document |= {"metadata": {}, "is_deleted": True, "is_listed": False}
                case _:
                    raise AssertionError(f"an event that customers do not know: {event}")
            document["updated_at"] = rfc3339(event.timestamp)
        return document

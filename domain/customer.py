"""A customer: somebody who pays. Who that is, is not in the log: only that there is one."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from eventsourcing.domain import Aggregate, AggregateCreated, AggregateEvent

from domain.commands import Metadata, Mode, Tenant


class Customer(Aggregate):
    """A reference that payments can be of. Name, email, phone and address are kept apart."""

    TOPIC = "customer"

    def __init__(self, *, merchant_id: str, mode: str, metadata: Metadata) -> None:
        """The state after the first event, whose fields these are."""
        self.tenant = Tenant(merchant_id, Mode(mode))
        self.metadata = dict(metadata)
        self.is_deleted = False
        self.history: list[Customer.Event] = []

    class Event(AggregateEvent):
        """A fact about one customer; `timestamp` is when it was recorded."""

        TOPIC = "customer.event"

        def mutate(self, aggregate: Any) -> Any:
            customer = super().mutate(aggregate)
            assert isinstance(customer, Customer)
            customer.history.append(self)
            return customer

    class Created(Event, AggregateCreated):
        """There is a customer."""

        TOPIC = "customer.created"
        merchant_id: str
        mode: str
        metadata: Metadata

        def mutate(self, aggregate: Any) -> Any:
            customer = AggregateCreated.mutate(self, aggregate)
            assert isinstance(customer, Customer)
            customer.history.append(self)
            return customer

    class Updated(Event):
        """Something about them changed. `fields`: which personal data did, by name and never by value;
        `metadata`: all of it, as it is now."""

        TOPIC = "customer.updated"
        fields: list[str]
        metadata: Metadata

        def apply(self, aggregate: Any) -> None:
            aggregate.metadata = dict(self.metadata)

    class Deleted(Event):
        """Their personal data was erased with this. Their payments stay."""

        TOPIC = "customer.deleted"

        def apply(self, aggregate: Any) -> None:
            aggregate.metadata = {}
            aggregate.is_deleted = True

    @classmethod
    def create(cls, *, customer_id: UUID, tenant: Tenant, metadata: Metadata, at: datetime) -> Self:
        """A new customer."""
        return cls._create(
            cls.Created,
            id=customer_id,
            timestamp=at,
            merchant_id=tenant.merchant_id,
            mode=tenant.mode.value,
            metadata=dict(metadata),
        )

    def update(self, *, fields: list[str], metadata: Metadata, at: datetime) -> None:
        """Records that something is different now."""
        if fields or dict(metadata) != self.metadata:
            self.trigger_event(
                self.Updated, fields=sorted(fields), metadata=dict(metadata), timestamp=at
            )

    def delete(self, *, at: datetime) -> None:
        """Records that who they are is forgotten."""
        if not self.is_deleted:
            self.trigger_event(self.Deleted, timestamp=at)

"""Customers: created, changed and forgotten."""

from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.lists import asked_page, told_page
from api.payments import objects
from api.payments.commands import done, none_if_deleted, set_in
from api.payments.expand import check, expanded
from api.payments.inputs import (
    CustomerInput,
    CustomersQuery,
    ExpandQuery,
    NothingInput,
    missing,
    uuid_of,
)
from api.payments.reading import CUSTOMERS, Reader
from api.payments.schemas import CustomerList, CustomerOut
from api.payments.subscriptions import cancel_all_of
from api.payments.test_clocks import clock_of
from api.stripe_dialect import tells_what_was_deleted
from domain.customer import Customer
from domain.ids import Prefix
from domain.ledger import Settled
from domain.records import ForgetPersonalData, KeepPersonalData, LiveByClock, Record
from infrastructure import personal_data
from infrastructure.api_keys import Scope

FAMILY: Final = "payments"
KIND: Final = "customer"


def create(call: Call, body: CustomerInput) -> Settled:
    """Somebody who pays."""
    services = call.services
    customer = Customer.create(
        customer_id=services.ids.new(),
        tenant=call.tenant,
        metadata=set_in({}, body.metadata),
        at=services.clock.now(),
    )
    personal = body.personal({})
    kept: list[Record] = [_kept(customer, personal)]
    if body.test_clock is not None:
        clock = clock_of(call, body.test_clock, "test_clock")
        kept.append(LiveByClock(customer_id=customer.id, clock_id=clock.id, tenant=call.tenant))
    told = objects.customer(CUSTOMERS.fold(customer.history), personal, body.test_clock)
    return done(call, customer, told, *kept, status=201)


def update(call: Call, body: CustomerInput, *, customer_id: str) -> Settled:
    """What is given is changed, and nothing else."""
    customer = none_if_deleted(call, Customer, Prefix.CUSTOMER, customer_id)
    if body.test_clock is not None:
        raise invalid("invalid_param", "A customer has a clock from the first.", "test_clock")
    reader = Reader(call.services, call.tenant)
    before = reader.personal(customer.id)
    personal = body.personal(before)
    changed = [name for name in {*before, *personal} if before.get(name) != personal.get(name)]
    customer.update(
        fields=changed,
        metadata=set_in(customer.metadata, body.metadata),
        at=call.services.clock.now(),
    )
    clock = reader.clocks([customer_id]).get(customer_id)
    told = objects.customer(CUSTOMERS.fold(customer.history), personal, clock)
    return done(call, customer, told, _kept(customer, personal))


def _kept(customer: Customer, personal: dict[str, Any]) -> KeepPersonalData:
    return KeepPersonalData(owner=customer.id, tenant=customer.tenant, document=personal)


def delete(call: Call, _body: NothingInput, *, customer_id: str) -> Settled:
    """Who it is is erased for good, with their cards; their payments stay."""
    check(KIND, call.expand)
    customer = none_if_deleted(call, Customer, Prefix.CUSTOMER, customer_id)
    cancel_all_of(call, customer_id)
    customer.delete(at=call.services.clock.now())
    is_told = tells_what_was_deleted(call.dialect)
    body = objects.deleted("customer", customer_id) if is_told else None
    erasure = call.services.erasure
    gone = (ForgetPersonalData(owner=customer.id), erasure.later(customer.id, call.tenant))
    settled = done(call, customer, body, *gone, status=200 if is_told else 204)
    erasure.begin(customer.id, call.tenant, call.cause)
    return settled


def get(call: Call, query: ExpandQuery, *, customer_id: str) -> Answer:
    """One customer."""
    reader = Reader(call.services, call.tenant)
    found = reader.customer(customer_id)
    if found.get("deleted") and not tells_what_was_deleted(call.dialect):
        raise missing(Prefix.CUSTOMER)
    return json_answer(200, expanded(found, query.expand, reader))


def list_customers(call: Call, query: CustomersQuery) -> Answer:
    """Customers, newest first."""
    reader = Reader(call.services, call.tenant)
    wanted: dict[str, Any] = {}
    if query.email is not None:
        with call.services.pool.connection() as connection:
            wanted["ids"] = personal_data.with_email(connection, call.tenant, query.email)

    def cursor(text: str, param: str) -> UUID:
        if reader.record(CUSTOMERS, Prefix.CUSTOMER, text, param)["is_deleted"]:
            raise missing(Prefix.CUSTOMER, param)
        return uuid_of(Prefix.CUSTOMER, text, param)

    page = asked_page(query, wanted, cursor)
    records, has_more = reader.page(CUSTOMERS, page)
    body = told_page(
        reader.customers(records),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/customers",
        handler=create,
        body=CustomerInput,
        scope=Scope.CUSTOMERS_WRITE,
        summary="Create a customer",
        family=FAMILY,
        answers={201: CustomerOut},
    ),
    *(
        Route(
            method=method,
            path="/v1/customers/<customer_id>",
            handler=update,
            name=f"{'update' if method == 'POST' else 'patch'}_customer",
            body=CustomerInput,
            scope=Scope.CUSTOMERS_WRITE,
            summary="Change a customer",
            family=FAMILY,
            answers={200: CustomerOut},
        )
        for method in ("POST", "PATCH")
    ),
    Route(
        method="DELETE",
        path="/v1/customers/<customer_id>",
        handler=delete,
        body=NothingInput,
        scope=Scope.CUSTOMERS_WRITE,
        summary="Erase who a customer is",
        family=FAMILY,
        answers={},
    ),
    Route(
        method="GET",
        path="/v1/customers",
        handler=list_customers,
        query=CustomersQuery,
        scope=Scope.CUSTOMERS_READ,
        summary="List customers, newest first",
        family=FAMILY,
        answers={200: CustomerList},
    ),
    Route(
        method="GET",
        path="/v1/customers/<customer_id>",
        handler=get,
        query=ExpandQuery,
        scope=Scope.CUSTOMERS_READ,
        summary="A customer",
        family=FAMILY,
        answers={200: CustomerOut},
    ),
)

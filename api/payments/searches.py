"""Searches: intents, charges and customers, by what is said of them."""

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.payments.expand import expanded
from api.payments.inputs import SearchQuery
from api.payments.queries import parsed
from api.payments.reading import Reader
from api.payments.schemas import ChargeSearch, CustomerSearch, IntentSearch
from domain.ids import MalformedId, Prefix, decode
from infrastructure import search
from infrastructure.api_keys import Scope
from infrastructure.search import Searched

FAMILY: Final = "payments"
TOTAL: Final = "total_count"

Document = dict[str, Any]


def search_intents(call: Call, query: SearchQuery) -> Answer:
    """Intents, newest first."""
    reader = Reader(call.services, call.tenant)
    return _answer(call, query, search.INTENTS, Prefix.INTENT, reader.intents)


def search_charges(call: Call, query: SearchQuery) -> Answer:
    """Charges, newest first."""
    reader = Reader(call.services, call.tenant)
    return _answer(call, query, search.CHARGES, Prefix.CHARGE, reader.charges)


def search_customers(call: Call, query: SearchQuery) -> Answer:
    """Customers, newest first."""
    reader = Reader(call.services, call.tenant)
    return _answer(call, query, search.CUSTOMERS, Prefix.CUSTOMER, reader.customers)


def _answer(
    call: Call,
    query: SearchQuery,
    searched: Searched,
    prefix: Prefix,
    told: Callable[[Sequence[Document]], list[Document]],
) -> Answer:
    sought = parsed(query.query, searched)
    after = None if query.page is None else _after(prefix, query.page)
    with call.services.pool.connection() as connection:
        records, has_more = search.found(
            connection, searched, call.tenant, sought, limit=query.limit, after=after
        )
        total = (
            {TOTAL: search.count(connection, searched, call.tenant, sought)}
            if TOTAL in query.expand
            else {}
        )
    documents = told(records)
    body = {
        "object": "search_result",
        "data": documents,
        "has_more": has_more,
        "next_page": documents[-1]["id"] if has_more else None,
        "page": query.page,
        "query": query.query,
        "url": call.path,
        **total,
    }
    paths = [path for path in query.expand if path != TOTAL]
    return json_answer(200, expanded(body, paths, Reader(call.services, call.tenant)))


def _after(prefix: Prefix, page: str) -> UUID:
    """The last of the page before."""
    try:
        return decode(prefix, page)
    except MalformedId as error:
        raise invalid("invalid_param", "There is no such page.", "page") from error


def _route(path: str, handler: Any, scope: Scope, summary: str, answer: type[BaseModel]) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        query=SearchQuery,
        scope=scope,
        summary=summary,
        family=FAMILY,
        answers={200: answer},
    )


ROUTES: Final = (
    _route(
        "/v1/payment_intents/search",
        search_intents,
        Scope.PAYMENTS_READ,
        "Search payment intents",
        IntentSearch,
    ),
    _route(
        "/v1/charges/search", search_charges, Scope.PAYMENTS_READ, "Search charges", ChargeSearch
    ),
    _route(
        "/v1/customers/search",
        search_customers,
        Scope.CUSTOMERS_READ,
        "Search customers",
        CustomerSearch,
    ),
)

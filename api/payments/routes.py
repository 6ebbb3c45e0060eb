"""The payments family's routes."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from api.http import Answer, Call, Route, json_answer
from api.moments import moment
from api.payments import (
    balance_transactions,
    charges,
    customers,
    disputes,
    events,
    intents,
    methods,
    outputs,
    payments,
    refunds,
    searches,
    subscriptions,
    test_clocks,
    tokens,
    webhooks,
)
from api.payments.inputs import BalanceQuery
from api.payments.schemas import EventOut
from api.schemas import BalanceOut
from infrastructure.api_keys import Scope
from infrastructure.projections.reading import wait_until_current
from projections.api_events import TYPES
from projections.balances import Balances

FAMILY: Final = "payments"

BALANCES: Final = Balances()
# What is posted to webhook endpoints, by the type of event.
TOLD: Final[Mapping[str, type[BaseModel]]] = dict.fromkeys(sorted(TYPES), EventOut)


def get_balance(call: Call, query: BalanceQuery) -> Answer:
    """What is held, captured, refunded and disputed, by currency."""
    as_of = None if query.as_of is None else moment(query.as_of)
    pool, tenant = call.services.pool, call.tenant
    wait_until_current(pool, BALANCES.name, merchant_id=tenant.merchant_id, mode=tenant.mode.value)
    with pool.connection() as connection:
        rows = BALANCES.of(connection, tenant, customer_id=query.customer_id, as_of=as_of)
    return json_answer(200, outputs.balance(rows, tenant.mode))


ROUTES: Final = (
    *customers.ROUTES,
    *methods.ROUTES,
    *tokens.ROUTES,
    *payments.ROUTES,
    *intents.ROUTES,
    *charges.ROUTES,
    *disputes.ROUTES,
    *subscriptions.ROUTES,
    *test_clocks.ROUTES,
    *refunds.ROUTES,
    *balance_transactions.ROUTES,
    *searches.ROUTES,
    *events.ROUTES,
    *webhooks.ROUTES,
    Route(
        method="GET",
        path="/v1/balance",
        handler=get_balance,
        query=BalanceQuery,
        scope=Scope.PAYMENTS_READ,
        summary="What is held, captured and refunded, now or as of a moment",
        family=FAMILY,
        answers={200: BalanceOut},
    ),
)

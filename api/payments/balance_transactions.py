"""Balance transactions: what raised or lowered the balance, in Stripe's vocabulary."""

from typing import Any, Final
from uuid import UUID

from api.http import Answer, Call, Route, json_answer
from api.lists import asked_page, told_page
from api.payments.expand import expanded
from api.payments.inputs import BalanceTransactionsQuery, ExpandQuery, missing, uuid_of
from api.payments.objects import balance_transaction
from api.payments.reading import Reader
from api.payments.schemas import BalanceTransactionList, BalanceTransactionOut
from domain.ids import Prefix
from infrastructure.api_keys import Scope
from infrastructure.projections.reading import wait_until_current
from projections.balance_transactions import BalanceTransactions

FAMILY: Final = "payments"
TRANSACTIONS: Final = BalanceTransactions()


def get_balance_transaction(call: Call, query: ExpandQuery, *, transaction_id: str) -> Answer:
    """One balance transaction."""
    uuid = uuid_of(Prefix.BALANCE_TRANSACTION, transaction_id)
    _wait(call)
    body = balance_transaction(_row(call, uuid, None))
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def list_balance_transactions(call: Call, query: BalanceTransactionsQuery) -> Answer:
    """Balance transactions, newest first."""
    _wait(call)

    def cursor(text: str, param: str) -> UUID:
        uuid = uuid_of(Prefix.BALANCE_TRANSACTION, text, param)
        _row(call, uuid, param)
        return uuid

    wanted = {"type": query.type, "source": query.source, "currency": query.currency}
    page = asked_page(query, wanted, cursor)
    with call.services.pool.connection() as connection:
        rows, has_more = TRANSACTIONS.page(connection, call.tenant, page)
    body = told_page(
        [balance_transaction(row) for row in rows],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def _wait(call: Call) -> None:
    """For what the caller was answered before. Raises ModelBehind."""
    pool, tenant = call.services.pool, call.tenant
    wait_until_current(
        pool, TRANSACTIONS.name, merchant_id=tenant.merchant_id, mode=tenant.mode.value
    )


def _row(call: Call, uuid: UUID, param: str | None) -> dict[str, Any]:
    with call.services.pool.connection() as connection:
        row = TRANSACTIONS.by_id(connection, call.tenant, uuid)
    if row is None:
        raise missing(Prefix.BALANCE_TRANSACTION, param)
    return row


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/balance_transactions",
        handler=list_balance_transactions,
        query=BalanceTransactionsQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List what raised or lowered the balance, newest first",
        family=FAMILY,
        answers={200: BalanceTransactionList},
    ),
    Route(
        method="GET",
        path="/v1/balance_transactions/<transaction_id>",
        handler=get_balance_transaction,
        query=ExpandQuery,
        scope=Scope.PAYMENTS_READ,
        summary="What raised or lowered the balance",
        family=FAMILY,
        answers={200: BalanceTransactionOut},
    ),
)

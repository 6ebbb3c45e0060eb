"""The list of read models."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString, Protocol

from projections.api_events import ApiEvents
from projections.balance_transactions import BalanceTransactions
from projections.balances import Balances
from projections.changes import ReadModel
from projections.customer_records import CustomerRecords
from projections.customers import Customers
from projections.disputes import Disputes
from projections.invoices import Invoices
from projections.operations import Operations
from projections.payment_intents import Intents
from projections.payment_methods import Methods
from projections.receipts import Receipts
from projections.refunds import Refunds
from projections.subscriptions import Subscriptions
from projections.webhook_deliveries import WebhookDeliveries


class InlineProjection(ReadModel, Protocol):
    """A read model that is written in the transaction that appends the events."""

    aggregate: LiteralString
    UPSERT: LiteralString

    def rows(self, shard: int, history: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows that an aggregate with this history has. `version`: of the event that wrote the row
        last, since an append writes the rows that its own events changed."""


INLINE: Final[tuple[InlineProjection, ...]] = (
    Receipts(),
    Refunds(),
    Disputes(),
    Intents(),
    Methods(),
    CustomerRecords(),
    Subscriptions(),
    Invoices(),
)
FOLLOWING: Final[tuple[ReadModel, ...]] = (
    Balances(),
    BalanceTransactions(),
    Customers(),
    Operations(),
    ApiEvents(),
)
READ_MODELS: Final[tuple[ReadModel, ...]] = (*INLINE, *FOLLOWING)
# What is done about each event once, as it is followed: nothing that a rebuild could make again.
ONCE: Final[tuple[ReadModel, ...]] = (WebhookDeliveries(),)
FOLLOWED: Final[tuple[ReadModel, ...]] = (*FOLLOWING, *ONCE)
ALL: Final[tuple[ReadModel, ...]] = (*READ_MODELS, *ONCE)


def read_model(name: str) -> ReadModel:
    """The one of that name, which can be made again. Raises KeyError."""
    return {each.name: each for each in READ_MODELS}[name]


def followed(name: str) -> ReadModel:
    """The one of that name, whether or not it can be made again. Raises KeyError."""
    return {each.name: each for each in ALL}[name]


def is_inline(name: str) -> bool:
    """Whether it is written with the events, and so never behind them."""
    return any(each.name == name for each in INLINE)

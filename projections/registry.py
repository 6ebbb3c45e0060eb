"""The list of read models."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString, Protocol

from domain.payment import Payment
from projections.receipts import Receipts
from projections.refunds import Refunds


class InlineProjection(Protocol):
    """A read model that is written in the transaction that appends the events."""

    name: LiteralString
    version: int
    UPSERT: LiteralString
    REBUILD: LiteralString
    DELETE_ORPHANS: LiteralString

    def rows(self, shard: int, history: Sequence[Payment.Event]) -> list[dict[str, Any]]:
        """The rows that a payment with this history has; an event changes the last, or adds one."""


INLINE: Final[tuple[InlineProjection, ...]] = (Receipts(), Refunds())

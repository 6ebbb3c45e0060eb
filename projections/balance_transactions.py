"""Balance transactions: what raised or lowered a merchant's balance, one row for each capture, each
transfer that came, each refund, and each time that a dispute took money away or brought it back, in
Stripe's vocabulary. A row has the id of the event that it follows from, so that every making of the table
has the same. Follows the log.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.commands import Tenant
from domain.ids import Prefix, encode
from domain.payment import Begun, Payment
from projections.changes import PAYMENT, Change, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

NAME: Final[LiteralString] = "balance_transactions"
VERSION: Final = 1
CHARGE: Final = "charge"
REFUND: Final = "refund"
ADJUSTMENT: Final = "adjustment"  # by a dispute

Row = dict[str, Any]


def moves(history: Sequence[Payment.Event]) -> Iterator[tuple[int, str, str, int]]:
    """What of a payment moved a balance: the event's version, the type, the public id of what it came
    by, and how much, in minor units, below zero where it was given back."""
    asked = 0
    disputed: dict[str, int] = {}
    for event in history:
        match event:
            case (
                Payment.TransferRequested() | Payment.CaptureRequested() | Payment.RefundRequested()
            ):
                asked = event.amount_minor
            case Payment.Captured() | Payment.Transferred():
                charge_id = encode(Prefix.CHARGE, event.originator_id)
                yield event.originator_version, CHARGE, charge_id, asked
            case Payment.Refunded():
                yield event.originator_version, REFUND, event.refund_id, -asked
            case Payment.DisputeOpened():
                disputed[event.dispute_id] = event.amount_minor
                amount = -event.amount_minor
                yield event.originator_version, ADJUSTMENT, event.dispute_id, amount
            case Payment.DisputeWon():
                amount = disputed[event.dispute_id]
                yield event.originator_version, ADJUSTMENT, event.dispute_id, amount
            case _:
                pass


class BalanceTransactions:
    """The table of balance transactions: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = "0011_intents_completed.sql"

    TABLES: tuple[LiteralString, ...] = ("balance_transactions",)
    CREATE: LiteralString = """
        CREATE TABLE balance_transactions (
            shard       smallint    NOT NULL,
            id          uuid        NOT NULL,
            merchant_id text        NOT NULL,
            mode        text        NOT NULL,
            type        text        NOT NULL,
            source      text        NOT NULL,
            currency    text        NOT NULL,
            amount      bigint      NOT NULL,
            description text,
            created_at  timestamptz NOT NULL,
            CONSTRAINT balance_transactions_pkey PRIMARY KEY (shard, id)
        )
    """
    INDEXES: LiteralString = """
        CREATE INDEX balance_transactions_newest ON balance_transactions (merchant_id, mode, id);
        CREATE INDEX balance_transactions_by_source
            ON balance_transactions (merchant_id, mode, source, id);
    """
    INSERT: LiteralString = """
        INSERT INTO balance_transactions (
            shard, id, merchant_id, mode, type, source, currency, amount, description, created_at
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(id)b::uuid[], %(merchant_id)b::text[], %(mode)b::text[],
            %(type)b::text[], %(source)b::text[], %(currency)b::text[], %(amount)b::bigint[],
            %(description)b::text[], %(created_at)b::timestamptz[]
        )
    """
    PAGE = PageOf(
        select="""
            SELECT id, type, source, currency, amount, description, created_at
            FROM balance_transactions
        """,
        id_column="id",
        filters={
            "id": "id = %(id)s",
            "type": "type = %(type)s",
            "source": "source = %(source)s",
            "currency": "currency = %(currency)s",
            **BY_CREATION,
        },
    )

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The rows of what is new."""
        rows = [row for change in changes for row in _rows(change)]
        return [Write(self.INSERT, columns(rows), into=NAME)] if rows else []

    def by_id(self, connection: Connection[Any], tenant: Tenant, row_id: UUID) -> Row | None:
        """One, or None where this tenant has none of that id."""
        rows, _ = select_page(connection, self.PAGE, tenant, Page(limit=1, filters={"id": row_id}))
        return rows[0] if rows else None

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Row], bool]:
        """A page of rows, newest first, and whether there are more in that direction."""
        return select_page(connection, self.PAGE, tenant, page)


def _rows(change: Change) -> Iterator[Row]:
    first = change.history[0]
    assert isinstance(first, Begun)
    assert len(change.origins) == len(change.history), "a follower reads where events are from"
    known = len(change.history) - change.new
    for version, kind, source, amount in moves(change.history):
        if version > known:
            yield {
                "shard": change.shard,
                "id": change.origins[version - 1].event_id,
                "merchant_id": first.merchant_id,
                "mode": first.mode,
                "type": kind,
                "source": source,
                "currency": first.currency,
                "amount": amount,
                "description": first.description,
                "created_at": change.history[version - 1].timestamp,
            }

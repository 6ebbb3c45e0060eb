"""Refunds: one row for each ask to give money back, and what became of it.

Projected in the transaction that appends the events, as receipts are.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.commands import Tenant
from domain.ids import Prefix, decode, encode
from domain.payment import Begun, Payment, rfc3339
from projections.changes import FIRST_MIGRATION, PAYMENT, Change, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

NAME: Final[LiteralString] = "refunds"
VERSION: Final = 1

# Most payments have none of these. (The first is enough, but for histories that cannot be.)
OF_REFUNDS: Final = frozenset(
    {
        Payment.RefundRequested,
        Payment.Refunded,
        Payment.RefundDeclined,
        Payment.RefundUpdated,
    }
)

Document = dict[str, Any]


def fold(history: Sequence[Payment.Event]) -> list[Document]:
    """The refunds of the payment with this history, oldest first. JSON values only."""
    if OF_REFUNDS.isdisjoint(map(type, history)):
        return []
    refunds: dict[str, Document] = {}
    currency, intent = "", None
    for event in history:
        match event:
            case Begun():
                currency, intent = event.currency, event.intent_id
            case Payment.RefundRequested():
                refunds[event.refund_id] = _first(event, currency)
                if intent is not None:
                    refunds[event.refund_id]["payment_intent"] = intent
            case Payment.Refunded():
                changed = {"status": "succeeded", "bank_refund_id": event.bank_refund_id}
                refunds[event.refund_id] |= changed | _now(event)
            case Payment.RefundDeclined():
                changed = {"status": "failed", "failure_code": event.code}
                refunds[event.refund_id] |= changed | _now(event)
            case Payment.RefundUpdated():
                refunds[event.refund_id] |= {"metadata": event.metadata, **_now(event)}
            case Payment.BankIdFound(refund_id=str(refund_id)):
                refunds[refund_id] |= {"bank_refund_id": event.bank_id, **_now(event)}
            case _:
                pass
    return list(refunds.values())


def _now(event: Payment.Event) -> Document:
    return {"updated_at": rfc3339(event.timestamp), "version": event.originator_version}


def _first(event: Payment.RefundRequested, currency: str) -> Document:
    at = rfc3339(event.timestamp)
    return {
        "id": event.refund_id,
        "payment_id": encode(Prefix.PAYMENT, event.originator_id),
        "amount": event.amount_minor,
        "currency": currency,
        "reason": event.reason,
        "status": "pending",
        "bank_refund_id": None,
        "failure_code": None,
        "created_at": at,
        "updated_at": at,
        "version": event.originator_version,
        "metadata": event.metadata,
    }


def uuid_of(refund_id: str) -> UUID:
    """The UUID in a refund's id, in either spelling. Raises MalformedId."""
    by_charge = refund_id.startswith(Prefix.CHARGE_REFUND)
    return decode(Prefix.CHARGE_REFUND if by_charge else Prefix.REFUND, refund_id)


class Refunds:
    """The table of refunds: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = FIRST_MIGRATION

    TABLES: tuple[LiteralString, ...] = ("refunds",)
    CREATE: LiteralString = """
        CREATE TABLE refunds (
            shard       smallint    NOT NULL,
            payment_id  uuid        NOT NULL,
            refund_id   uuid        NOT NULL,
            merchant_id text        NOT NULL,
            mode        text        NOT NULL,
            status      text        NOT NULL,
            created_at  timestamptz NOT NULL,
            version     bigint      NOT NULL,
            document    jsonb       NOT NULL,
            CONSTRAINT refunds_pkey PRIMARY KEY (shard, refund_id)
        ) WITH (fillfactor = 70)
    """
    INDEXES: LiteralString = """
        CREATE INDEX refunds_newest ON refunds (merchant_id, mode, refund_id);
        CREATE INDEX refunds_by_payment ON refunds (payment_id, refund_id);
        CREATE INDEX refunds_by_status ON refunds (merchant_id, mode, status, refund_id);
    """

    UPSERT: LiteralString = """
        INSERT INTO refunds (
            shard, payment_id, refund_id, merchant_id, mode, status, created_at, version, document
        ) VALUES (
            %(shard)s, %(payment_id)s, %(refund_id)s, %(merchant_id)s, %(mode)s, %(status)s,
            %(created_at)s, %(version)s, %(document)s
        )
        ON CONFLICT (shard, refund_id) DO UPDATE SET
            status = excluded.status, version = excluded.version, document = excluded.document
        WHERE refunds.version < excluded.version
    """
    # The same for many refunds at once.
    UPSERT_MANY: LiteralString = """
        INSERT INTO refunds (
            shard, payment_id, refund_id, merchant_id, mode, status, created_at, version, document
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(payment_id)b::uuid[], %(refund_id)b::uuid[],
            %(merchant_id)b::text[], %(mode)b::text[], %(status)b::text[],
            %(created_at)b::timestamptz[], %(version)b::bigint[], %(document)b::jsonb[]
        )
        ON CONFLICT (shard, refund_id) DO UPDATE SET
            status = excluded.status, version = excluded.version, document = excluded.document
        WHERE refunds.version < excluded.version
    """
    BY_ID: LiteralString = """
        SELECT document FROM refunds
        WHERE refund_id = %(refund_id)s AND merchant_id = %(merchant_id)s AND mode = %(mode)s
    """
    PAGE = PageOf(
        select="SELECT refund_id AS id, document FROM refunds",
        id_column="refund_id",
        filters={
            "ids": "refund_id = ANY(%(ids)s)",
            "payment_id": "payment_id = %(payment_id)s",
            "status": "status = %(status)s",
            **BY_CREATION,
        },
    )

    def rows(self, shard: int, history: Sequence[Payment.Event]) -> list[dict[str, Any]]:
        """A row for each refund of a payment with this history."""
        first = history[0]
        assert isinstance(first, Begun)
        return [
            {
                "shard": shard,
                "payment_id": first.originator_id,
                "refund_id": uuid_of(refund["id"]),
                "merchant_id": first.merchant_id,
                "mode": first.mode,
                "status": refund["status"],
                "created_at": refund["created_at"],
                "version": refund["version"],
                "document": Jsonb(refund),
            }
            for refund in fold(history)
        ]

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The refunds of the payments that went on."""
        rows = [row for change in changes for row in self.rows(change.shard, change.history)]
        return [Write(self.UPSERT_MANY, columns(rows), into=NAME)] if rows else []

    def by_id(
        self, connection: Connection[Any], refund_id: UUID, tenant: Tenant
    ) -> Document | None:
        """One refund, or None where this tenant has none of that id."""
        row = connection.execute(
            self.BY_ID,
            {
                "refund_id": refund_id,
                "merchant_id": tenant.merchant_id,
                "mode": tenant.mode.value,
            },
        ).fetchone()
        return None if row is None else row["document"]

    def by_ids(
        self, connection: Connection[Any], tenant: Tenant, refund_ids: Sequence[UUID]
    ) -> list[Document]:
        """Those of these that this tenant has."""
        wanted = Page(limit=len(refund_ids), filters={"ids": list(refund_ids)})
        return self.page(connection, tenant, wanted)[0]

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Document], bool]:
        """A page of refunds, newest first, and whether there are more in that direction."""
        rows, has_more = select_page(connection, self.PAGE, tenant, page)
        return [row["document"] for row in rows], has_more

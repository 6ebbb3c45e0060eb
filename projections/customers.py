"""Customers: what each has paid, how often, and when last. By merchant, mode, customer and currency.

A customer is whom the payments name; who that is is known elsewhere. Follows the log.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.commands import Tenant
from domain.payment import Begun, Payment, Status
from projections.changes import FIRST_MIGRATION, PAYMENT, Change, Write, columns

NAME: Final[LiteralString] = "customers"
VERSION: Final = 1

COUNTS: Final = (
    "payments",
    "authorized",
    "captured",
    "refunded",
    "voided",
    "declined",
    "expired",
    "amount_captured",
    "amount_refunded",
)
Totals = dict[str, int]
Key = tuple[int, str, str, str, str]


def totals(history: Sequence[Payment.Event]) -> Totals:  # noqa: C901 - one case an event
    """What one payment counts for its customer: itself, the status it is in, and amounts in minor
    units. All zero for no history."""
    counted = dict.fromkeys(COUNTS, 0)
    status, asked = Status.PENDING, 0
    for event in history:
        match event:
            case Begun():
                counted["payments"], asked = 1, event.amount_minor
            case Payment.Authorized():
                status = Status.AUTHORIZED
            case Payment.AuthorizationDeclined() | Payment.TransferDeclined():
                status = Status.DECLINED
            case Payment.CaptureRequested() | Payment.RefundRequested():
                asked = event.amount_minor
            case Payment.Captured() | Payment.Transferred():
                status = Status.CAPTURED
                counted["amount_captured"] += asked
            case Payment.Voided():
                status = Status.VOIDED
            case Payment.Expired():
                status = Status.EXPIRED
            case Payment.Refunded():
                counted["amount_refunded"] += asked
                if counted["amount_refunded"] == counted["amount_captured"]:
                    status = Status.REFUNDED
            case _:
                pass
    if status is not Status.PENDING:
        counted[status.value] = 1
    return counted


class Customers:
    """The table of customers' totals: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = FIRST_MIGRATION

    TABLES: tuple[LiteralString, ...] = ("customer_totals",)
    CREATE: LiteralString = """
        CREATE TABLE customer_totals (
            shard           smallint    NOT NULL,
            merchant_id     text        NOT NULL,
            mode            text        NOT NULL,
            customer_id     text        NOT NULL,
            currency        text        NOT NULL,
            payments        bigint      NOT NULL,
            authorized      bigint      NOT NULL,
            captured        bigint      NOT NULL,
            refunded        bigint      NOT NULL,
            voided          bigint      NOT NULL,
            declined        bigint      NOT NULL,
            expired         bigint      NOT NULL,
            amount_captured bigint      NOT NULL,
            amount_refunded bigint      NOT NULL,
            first_at        timestamptz NOT NULL,
            last_at         timestamptz NOT NULL,
            last_payment_id uuid        NOT NULL,
            CONSTRAINT customer_totals_pkey
                PRIMARY KEY (shard, merchant_id, mode, customer_id, currency)
        ) WITH (fillfactor = 50)
    """
    INDEXES: LiteralString = """
        CREATE INDEX customer_totals_of_merchant
            ON customer_totals (merchant_id, mode, customer_id);
    """
    ADD: LiteralString = """
        INSERT INTO customer_totals AS old (
            shard, merchant_id, mode, customer_id, currency, payments, authorized, captured,
            refunded, voided, declined, expired, amount_captured, amount_refunded,
            first_at, last_at, last_payment_id
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(merchant_id)b::text[], %(mode)b::text[],
            %(customer_id)b::text[], %(currency)b::text[], %(payments)b::bigint[],
            %(authorized)b::bigint[], %(captured)b::bigint[], %(refunded)b::bigint[],
            %(voided)b::bigint[], %(declined)b::bigint[], %(expired)b::bigint[],
            %(amount_captured)b::bigint[], %(amount_refunded)b::bigint[],
            %(first_at)b::timestamptz[], %(last_at)b::timestamptz[], %(last_payment_id)b::uuid[]
        )
        ON CONFLICT (shard, merchant_id, mode, customer_id, currency) DO UPDATE SET
            payments = old.payments + excluded.payments,
            authorized = old.authorized + excluded.authorized,
            captured = old.captured + excluded.captured,
            refunded = old.refunded + excluded.refunded,
            voided = old.voided + excluded.voided,
            declined = old.declined + excluded.declined,
            expired = old.expired + excluded.expired,
            amount_captured = old.amount_captured + excluded.amount_captured,
            amount_refunded = old.amount_refunded + excluded.amount_refunded,
            first_at = least(old.first_at, excluded.first_at),
            last_at = greatest(old.last_at, excluded.last_at),
            last_payment_id = CASE
                WHEN (excluded.last_at, excluded.last_payment_id)
                   > (old.last_at, old.last_payment_id)
                THEN excluded.last_payment_id ELSE old.last_payment_id
            END
    """
    OF: LiteralString = """
        SELECT currency, sum(payments)::bigint AS payments, sum(authorized)::bigint AS authorized,
               sum(captured)::bigint AS captured, sum(refunded)::bigint AS refunded,
               sum(voided)::bigint AS voided, sum(declined)::bigint AS declined,
               sum(expired)::bigint AS expired,
               sum(amount_captured)::bigint AS amount_captured,
               sum(amount_refunded)::bigint AS amount_refunded,
               min(first_at) AS first_at, max(last_at) AS last_at,
               (array_agg(last_payment_id ORDER BY last_at DESC, last_payment_id DESC))[1]
                   AS last_payment_id
        FROM customer_totals
        WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND customer_id = %(customer_id)s
        GROUP BY currency ORDER BY currency
    """

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """What the changes add to each customer's totals."""
        added: defaultdict[Key, Totals] = defaultdict(lambda: dict.fromkeys(COUNTS, 0))
        first: dict[Key, datetime] = {}
        last: dict[Key, tuple[datetime, UUID]] = {}
        for change in changes:
            begun = change.history[0]
            assert isinstance(begun, Begun)
            if begun.customer_id is None:
                continue
            key = (change.shard, begun.merchant_id, begun.mode, begun.customer_id, begun.currency)
            before = totals(change.history[: len(change.history) - change.new])
            after = totals(change.history)
            for name in COUNTS:
                added[key][name] += after[name] - before[name]
            at = begun.timestamp
            first[key] = min(at, first.get(key, at))
            last[key] = max((at, begun.originator_id), last.get(key, (at, begun.originator_id)))
        rows = [_row(key, added[key], first[key], last[key]) for key in sorted(added)]
        return [Write(self.ADD, columns(rows))] if rows else []

    def of(
        self, connection: Connection[Any], tenant: Tenant, customer_id: str
    ) -> list[dict[str, Any]]:
        """A row for each currency in which the customer paid: the counts, `amount_captured`,
        `amount_refunded`, `first_at`, `last_at`, `last_payment_id`."""
        return connection.execute(
            self.OF,
            {
                "merchant_id": tenant.merchant_id,
                "mode": tenant.mode.value,
                "customer_id": customer_id,
            },
        ).fetchall()


def _row(key: Key, added: Totals, first: datetime, last: tuple[datetime, UUID]) -> dict[str, Any]:
    shard, merchant_id, mode, customer_id, currency = key
    return {
        "shard": shard,
        "merchant_id": merchant_id,
        "mode": mode,
        "customer_id": customer_id,
        "currency": currency,
        **added,
        "first_at": first,
        "last_at": last[0],
        "last_payment_id": last[1],
    }

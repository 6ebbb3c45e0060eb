"""Balances: double-entry bookkeeping of every payment, by merchant, customer and currency.

Five accounts: `held` (set aside by the bank for the merchant), `captured` (taken), `refunded` (given
back, so never above zero), `disputed` (taken back by the bank for a cardholder who disputes it, and not above
zero either) and `cardholder`, which is on the other side of each. What one event moves
is one entry, whose five amounts sum to zero; so do all of them together. Follows the log.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, NamedTuple

from psycopg import Connection

from domain.commands import Tenant
from domain.payment import Begun, Payment
from projections.changes import FIRST_MIGRATION, PAYMENT, Change, Row, Write, columns

NAME: Final[LiteralString] = "balances"
VERSION: Final = 1

# All of a merchant's customers together are kept under this one's name, which no customer can have.
EVERYONE: Final = ""
BEFORE_ALL: Final = datetime.min.replace(tzinfo=UTC)


class Posting(NamedTuple):
    """What one event moves, in minor units. The five sum to zero."""

    version: int
    at: datetime
    held: int = 0
    captured: int = 0
    refunded: int = 0
    disputed: int = 0

    @property
    def cardholder(self) -> int:
        """The other side."""
        return -(self.held + self.captured + self.refunded + self.disputed)


def postings(history: Iterable[Payment.Event]) -> Iterator[Posting]:
    """What each event of a payment moves, from the first; events that move nothing are left out.

    An event is never `at` an earlier moment than the one before it, whatever the clocks said.
    """
    hold = held = asked = 0
    disputed: dict[str, int] = {}
    at = BEFORE_ALL
    for event in history:
        version = event.originator_version
        at = max(at, event.timestamp)
        match event:
            case Payment.AuthorizationRequested() | Payment.TransferRequested():
                hold = event.amount_minor
            case Payment.Authorized():
                held = hold
                yield Posting(version=version, at=at, held=hold)
            case Payment.CaptureRequested() | Payment.RefundRequested():
                asked = event.amount_minor
            case Payment.Captured():
                yield Posting(version=version, at=at, held=-hold, captured=asked)
            case Payment.Transferred():
                yield Posting(version=version, at=at, captured=hold)
            case Payment.Voided() | Payment.Expired() if held:  # or else nothing was set aside
                yield Posting(version=version, at=at, held=-hold)
            case Payment.Refunded():
                yield Posting(version=version, at=at, refunded=-asked)
            case Payment.DisputeOpened() | Payment.DisputeWon():
                moved = _disputed(event, disputed)
                yield Posting(version=version, at=at, disputed=moved)
            case _:
                pass


def _disputed(event: Payment.DisputeOpened | Payment.DisputeWon, known: dict[str, int]) -> int:
    """What is taken away, below zero, or brought back. `known`: each dispute's amount."""
    if isinstance(event, Payment.DisputeOpened):
        known[event.dispute_id] = event.amount_minor
        return -event.amount_minor
    return known[event.dispute_id]


class Balances:
    """The tables of entries and of their sums: who writes them, and how they are asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = FIRST_MIGRATION

    TABLES: tuple[LiteralString, ...] = ("balances", "entries")
    CREATE: LiteralString = """
        CREATE TABLE balances (
            shard       smallint NOT NULL,
            merchant_id text     NOT NULL,
            mode        text     NOT NULL,
            customer_id text     NOT NULL,
            currency    text     NOT NULL,
            held        bigint   NOT NULL,
            captured    bigint   NOT NULL,
            refunded    bigint   NOT NULL,
            cardholder  bigint   NOT NULL,
            entries     bigint   NOT NULL,
            disputed    bigint   NOT NULL DEFAULT 0,
            CONSTRAINT balances_pkey PRIMARY KEY (shard, merchant_id, mode, customer_id, currency),
            CONSTRAINT balances_sum CHECK (held + captured + refunded + disputed + cardholder = 0)
        ) WITH (fillfactor = 50);
        CREATE TABLE entries (
            shard       smallint    NOT NULL,
            payment_id  uuid        NOT NULL,
            version     bigint      NOT NULL,
            merchant_id text        NOT NULL,
            mode        text        NOT NULL,
            customer_id text        NOT NULL,
            currency    text        NOT NULL,
            at          timestamptz NOT NULL,
            held        bigint      NOT NULL,
            captured    bigint      NOT NULL,
            refunded    bigint      NOT NULL,
            cardholder  bigint      NOT NULL,
            disputed    bigint      NOT NULL DEFAULT 0,
            CONSTRAINT entries_pkey PRIMARY KEY (shard, payment_id, version),
            CONSTRAINT entries_sum CHECK (held + captured + refunded + disputed + cardholder = 0)
        );
    """
    INDEXES: LiteralString = """
        CREATE INDEX balances_of_merchant ON balances (merchant_id, mode, customer_id);
        CREATE INDEX entries_of_merchant ON entries (merchant_id, mode, at);
        CREATE INDEX entries_of_customer ON entries (merchant_id, mode, customer_id, at);
    """
    INSERT_ENTRIES: LiteralString = """
        INSERT INTO entries (
            shard, payment_id, version, merchant_id, mode, customer_id, currency, at,
            held, captured, refunded, cardholder, disputed
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(payment_id)b::uuid[], %(version)b::bigint[],
            %(merchant_id)b::text[], %(mode)b::text[], %(customer_id)b::text[],
            %(currency)b::text[], %(at)b::timestamptz[], %(held)b::bigint[],
            %(captured)b::bigint[], %(refunded)b::bigint[], %(cardholder)b::bigint[],
            %(disputed)b::bigint[]
        )
    """
    ADD: LiteralString = """
        INSERT INTO balances (
            shard, merchant_id, mode, customer_id, currency,
            held, captured, refunded, cardholder, entries, disputed
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(merchant_id)b::text[], %(mode)b::text[],
            %(customer_id)b::text[], %(currency)b::text[], %(held)b::bigint[],
            %(captured)b::bigint[], %(refunded)b::bigint[], %(cardholder)b::bigint[],
            %(entries)b::bigint[], %(disputed)b::bigint[]
        )
        ON CONFLICT (shard, merchant_id, mode, customer_id, currency) DO UPDATE SET
            held = balances.held + excluded.held,
            captured = balances.captured + excluded.captured,
            refunded = balances.refunded + excluded.refunded,
            cardholder = balances.cardholder + excluded.cardholder,
            entries = balances.entries + excluded.entries,
            disputed = balances.disputed + excluded.disputed
    """
    # A balance of the past is the present one without what came after, so that the recent past,
    # which is asked for most, is near.
    AS_OF: LiteralString = """
        SELECT currency, sum(held)::bigint AS held, sum(captured)::bigint AS captured,
               sum(refunded)::bigint AS refunded, sum(cardholder)::bigint AS cardholder,
               sum(entries)::bigint AS entries, sum(disputed)::bigint AS disputed
        FROM (
            SELECT currency, held, captured, refunded, cardholder, entries, disputed
            FROM balances
            WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s
              AND customer_id = %(customer_id)s
            UNION ALL
            SELECT currency, -held, -captured, -refunded, -cardholder, -1, -disputed
            FROM entries
            WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s
              AND (%(everyone)s OR customer_id = %(customer_id)s) AND at > %(at)s
        ) AS parts
        GROUP BY currency HAVING sum(entries) > 0 ORDER BY currency
    """
    NOW: LiteralString = """
        SELECT currency, sum(held)::bigint AS held, sum(captured)::bigint AS captured,
               sum(refunded)::bigint AS refunded, sum(cardholder)::bigint AS cardholder,
               sum(entries)::bigint AS entries, sum(disputed)::bigint AS disputed
        FROM balances
        WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND customer_id = %(customer_id)s
        GROUP BY currency ORDER BY currency
    """

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The new entries, and what they add to the sums."""
        rows = [row for change in changes for row in self.entries(change)]
        if not rows:
            return []
        return [
            Write(self.INSERT_ENTRIES, columns(rows), into="entries"),
            Write(self.ADD, columns(_sums(rows))),
        ]

    def entries(self, change: Change) -> list[dict[str, Any]]:
        """The rows of `entries` that the new events of one payment make."""
        first = change.history[0]
        assert isinstance(first, Begun)
        known = len(change.history) - change.new
        return [
            {
                "shard": change.shard,
                "payment_id": first.originator_id,
                "version": posting.version,
                "merchant_id": first.merchant_id,
                "mode": first.mode,
                "customer_id": first.customer_id or EVERYONE,
                "currency": first.currency,
                "at": posting.at,
                "held": posting.held,
                "captured": posting.captured,
                "refunded": posting.refunded,
                "cardholder": posting.cardholder,
                "disputed": posting.disputed,
            }
            for posting in postings(change.history)
            if posting.version > known
        ]

    def of(
        self,
        connection: Connection[Any],
        tenant: Tenant,
        *,
        customer_id: str | None = None,
        as_of: datetime | None = None,
    ) -> list[dict[str, Any]]:
        """A row for each currency: `currency`, `held`, `captured`, `refunded` and `disputed`
        (zero or less), `cardholder`, `entries`. All of the merchant's, or one customer's; now, or as of a moment."""
        parameters = {
            "merchant_id": tenant.merchant_id,
            "mode": tenant.mode.value,
            "customer_id": customer_id or EVERYONE,
            "everyone": customer_id is None,
            "at": as_of,
        }
        query = self.NOW if as_of is None else self.AS_OF
        return connection.execute(query, parameters).fetchall()


def _sums(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What the entries add to each balance: to their customer's, and to everyone's."""
    totals: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0])
    for row in rows:
        for customer_id in {row["customer_id"], EVERYONE}:
            key = (row["shard"], row["merchant_id"], row["mode"], customer_id, row["currency"])
            total = totals[key]
            total[0] += row["held"]
            total[1] += row["captured"]
            total[2] += row["refunded"]
            total[3] += row["cardholder"]
            total[4] += 1
            total[5] += row["disputed"]
    names = ("shard", "merchant_id", "mode", "customer_id", "currency")
    amounts = ("held", "captured", "refunded", "cardholder", "entries", "disputed")
    return [
        dict(zip((*names, *amounts), (*key, *totals[key]), strict=True)) for key in sorted(totals)
    ]

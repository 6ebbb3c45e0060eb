"""Receipts: how each payment stands, and how it came to that.

Projected in the transaction that appends the events, so that a receipt never lies, and rebuilt from
the log by the same fold. One row a payment; the row's `document` is the receipt as it is published.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.bank import Operation
from domain.commands import Mode, Tenant
from domain.ids import Prefix, encode
from domain.payment import Begun, CaptureMethod, Payment, Status, rfc3339
from projections.changes import FIRST_MIGRATION, PAYMENT, Change, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

NAME: Final[LiteralString] = "receipts"
VERSION: Final = 1

Document = dict[str, Any]

# To ask an enumeration for a member takes as long as the rest of entering it.
PENDING: Final = Status.PENDING
FAILURE_STAYS: Final = (PENDING, Status.DECLINED)

# What refunds and disputes tell of themselves.
OF_OTHER_DOCUMENTS: Final = (
    Payment.RefundUpdated,
    Payment.DisputeEvidenceGiven,
    Payment.DisputeAccepted,
    Payment.DisputeWon,
    Payment.DisputeLost,
)


def fold(history: Iterable[Payment.Event]) -> Document:
    """The receipt that `history`, a payment's events from the first, amounts to. JSON values only."""
    receipt: Document = {}
    event: Payment.Event
    for event in history:
        if type(event) in ASKS:
            at = None
            _ask(receipt, event)
        else:
            at = rfc3339(event.timestamp)
            _apply(receipt, event, at)
    receipt["updated_at"] = at or rfc3339(event.timestamp)
    receipt["version"] = event.originator_version
    return receipt


ASKS: Final = frozenset({Payment.CaptureRequested, Payment.RefundRequested, Payment.VoidRequested})


def _ask(receipt: Document, event: Payment.Event) -> None:
    """Something is begun, and a receipt does not say when."""
    match event:
        case Payment.CaptureRequested():
            receipt |= {"pending_operation": "capture", "pending_amount": event.amount_minor}
        case Payment.RefundRequested():
            receipt |= {"pending_operation": "refund", "pending_amount": event.amount_minor}
        case Payment.VoidRequested():
            receipt["pending_operation"] = "void"
            receipt.pop("action_url", None)
        case _:
            raise AssertionError(f"nothing is asked for by {event}")


def _apply(receipt: Document, event: Payment.Event, at: str) -> None:
    match event:
        case Payment.AuthorizationRequested():
            receipt.update(_first(event, at))
            _enter(receipt, Status.PENDING, at)
        case Payment.Authorized():
            receipt["bank"]["authorization_id"] = event.bank_authorization_id
            receipt["authorization_expires_at"] = event.expires_at
            _enter(receipt, Status.AUTHORIZED, at)
        case Payment.AuthorizationDeclined():
            receipt["failure"] = {"operation": "authorization", "code": event.code, "at": at}
            _enter(receipt, Status.DECLINED, at)
        case Payment.Captured():
            receipt["bank"]["capture_id"] = event.bank_capture_id
            receipt["amount_captured"] = receipt["pending_amount"]
            _enter(receipt, Status.CAPTURED, at)
        case Payment.Voided() | Payment.Expired():
            receipt["bank"]["void_id"] = event.bank_void_id
            voided = isinstance(event, Payment.Voided)
            _enter(receipt, Status.VOIDED if voided else Status.EXPIRED, at)
        case Payment.Refunded():
            _apply_refund(receipt, event, at)
        case Payment.CaptureDeclined() | Payment.VoidDeclined() | Payment.RefundDeclined():
            operation = receipt["pending_operation"]
            receipt["failure"] = {"operation": operation, "code": event.code, "at": at}
            _go_on_without(receipt)
        case _:
            apply = _apply_to_transfer if isinstance(event, OF_A_TRANSFER) else _apply_remark
            apply(receipt, event, at)


OF_A_TRANSFER: Final = (
    Payment.TransferRequested,
    Payment.TransferAccepted,
    Payment.Transferred,
    Payment.TransferDeclined,
)


def _apply_to_transfer(receipt: Document, event: Payment.Event, at: str) -> None:
    match event:
        case Payment.TransferRequested():
            receipt.update(_first_of_transfer(event, at))
            _enter(receipt, Status.PENDING, at)
        case Payment.Transferred():
            receipt["bank"]["capture_id"] = event.bank_transfer_id
            receipt["amount_captured"] = receipt["amount"]
            _enter(receipt, Status.CAPTURED, at)
        case Payment.TransferDeclined():
            receipt["failure"] = {"operation": "transfer", "code": event.code, "at": at}
            _enter(receipt, Status.DECLINED, at)
        case _:
            pass  # the bank's id of it is one of money only once that has come


def _apply_remark(receipt: Document, event: Payment.Event, at: str) -> None:
    """What is said about the payment, which moves no money."""
    match event:
        case Payment.ActionRequired():
            receipt["action_url"] = event.url  # only while the shopper is waited for
        case Payment.ReviewNeeded():
            receipt["reviews"].append({"reason": event.reason, "since": at})
        case Payment.DifferenceFound():
            differences = receipt.setdefault("differences", [])
            differences.append(
                {"kind": event.kind, "ours": event.ours, "bank": event.bank, "at": at}
            )
        case Payment.BankIdFound(operation=Operation.REFUND):
            receipt["bank"]["refund_ids"].append(event.bank_id)
        case Payment.BankIdFound(operation=Operation.TRANSFER):
            receipt["bank"]["capture_id"] = event.bank_id
        case Payment.BankIdFound():
            receipt["bank"][f"{event.operation}_id"] = event.bank_id
        case Payment.ReviewResolved():
            receipt["reviews"] = []
            receipt.pop("differences", None)
        case Payment.DisputeOpened():
            receipt["disputes"] = [*receipt.get("disputes", []), event.dispute_id]
        case _:
            assert isinstance(event, OF_OTHER_DOCUMENTS), f"receipts do not know {event}"


def _first(event: Payment.AuthorizationRequested, at: str) -> Document:
    card = {
        "brand": event.card_brand,
        "last4": event.card_last4,
        "exp_month": event.card_exp_month,
        "exp_year": event.card_exp_year,
    }
    told = _begun(event, at, "authorization")
    told["card"] = card
    if event.card_fingerprint is not None:
        told["card_fingerprint"] = event.card_fingerprint
    if event.intent_id is None and event.capture_method == CaptureMethod.AUTOMATIC:
        told["is_paid_at_once"] = True
    return told


def _first_of_transfer(event: Payment.TransferRequested, at: str) -> Document:
    return _begun(event, at, "transfer") | {
        "card": None,
        "account": {"last4": event.account_last4, "sort_code": event.account_sort_code},
        "account_fingerprint": event.account_fingerprint,
    }


def _begun(event: Begun, at: str, operation: str) -> Document:
    told: Document = {
        "payment_id": encode(Prefix.PAYMENT, event.originator_id),
        "order_id": event.order_id,
        "customer_id": event.customer_id,
        "amount": event.amount_minor,
        "currency": event.currency,
        "amount_captured": 0,
        "amount_refunded": 0,
        "bank": {"authorization_id": None, "capture_id": None, "void_id": None, "refund_ids": []},
        "pending_operation": operation,
        "pending_amount": event.amount_minor,
        "reviews": [],
        "failure": None,
        "authorization_expires_at": None,
        "timeline": [],
        "created_at": at,
        "metadata": event.metadata,
    }
    # What it is an attempt of; a payment that was asked for as such has none of it.
    if event.intent_id is not None:
        told["intent_id"] = event.intent_id
    if event.payment_method_id is not None:
        told["payment_method_id"] = event.payment_method_id
    if event.description is not None:
        told["description"] = event.description
    return told


def _enter(receipt: Document, status: Status, at: str) -> None:
    """The payment is in another status, for certain."""
    receipt["status"] = told = status.value
    receipt["timeline"].append({"status": told, "at": at})
    if status is not PENDING:
        receipt.pop("action_url", None)
        _settle(receipt)
    if status not in FAILURE_STAYS:
        receipt["failure"] = None


def _go_on_without(receipt: Document) -> None:
    """What was asked for was not done; what waits for its shopper, and was not given up, waits on."""
    _settle(receipt)
    if receipt["status"] == Status.PENDING:
        receipt |= {"pending_operation": "authorization", "pending_amount": receipt["amount"]}


def _settle(receipt: Document) -> None:
    receipt["pending_operation"] = receipt["pending_amount"] = None


def _apply_refund(receipt: Document, event: Payment.Refunded, at: str) -> None:
    receipt["amount_refunded"] += receipt["pending_amount"]
    if event.bank_refund_id is not None:
        receipt["bank"]["refund_ids"].append(event.bank_refund_id)
    if receipt["amount_refunded"] == receipt["amount_captured"]:
        _enter(receipt, Status.REFUNDED, at)
    else:
        receipt["failure"] = None
        _settle(receipt)


# What a payment says of itself, by its receipt, and where that goes into a statement.
STATUS: Final[LiteralString] = "$payment_status"
PAYMENT_STATUS: Final[LiteralString] = """
    CASE
        WHEN status IN ('captured', 'refunded') THEN 'succeeded'
        WHEN status = 'declined' THEN 'failed'
        WHEN status IN ('voided', 'expired') THEN
            CASE WHEN document ? 'is_paid_at_once' THEN 'failed' ELSE 'canceled' END
        WHEN status = 'pending' AND document ? 'action_url' THEN 'requires_action'
        ELSE status
    END
"""


class Receipts:
    """The table of receipts: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = FIRST_MIGRATION

    TABLES: tuple[LiteralString, ...] = ("receipts",)
    CREATE: LiteralString = """
        CREATE TABLE receipts (
            shard        smallint    NOT NULL,
            payment_id   uuid        NOT NULL,
            merchant_id  text        NOT NULL,
            mode         text        NOT NULL,
            order_id     text,
            customer_id  text,
            status       text        NOT NULL,
            needs_review boolean     NOT NULL,
            pending      boolean     NOT NULL,
            created_at   timestamptz NOT NULL,
            expires_at   timestamptz,
            version      bigint      NOT NULL,
            document     jsonb       NOT NULL,
            CONSTRAINT receipts_pkey PRIMARY KEY (shard, payment_id)
        ) WITH (fillfactor = 85)
    """
    # A receipt grows where it is, for which a page of new ones keeps room. Those that are made again
    # have grown: were their pages to keep as much, many would have room for one new receipt, and
    # each of the next would be put into another page of the past.
    INDEXES: LiteralString = """
        CREATE INDEX receipts_by_payment_status
            ON receipts (merchant_id, mode, ($payment_status), payment_id);
        CREATE INDEX receipts_newest ON receipts (merchant_id, mode, payment_id);
        CREATE INDEX receipts_by_order ON receipts (merchant_id, mode, order_id, payment_id);
        CREATE INDEX receipts_by_customer ON receipts (merchant_id, mode, customer_id, payment_id);
        CREATE INDEX receipts_by_status ON receipts (merchant_id, mode, status, payment_id);
        CREATE INDEX receipts_expiring ON receipts (expires_at)
            WHERE status = 'authorized' AND NOT pending;
        CREATE INDEX receipts_to_review ON receipts (created_at) WHERE needs_review;
        ALTER TABLE receipts SET (fillfactor = 70);
    """.replace(STATUS, PAYMENT_STATUS)

    UPSERT: LiteralString = """
        INSERT INTO receipts (
            shard, payment_id, merchant_id, mode, order_id, customer_id, status,
            needs_review, pending, created_at, expires_at, version, document
        ) VALUES (
            %(shard)s, %(payment_id)s, %(merchant_id)s, %(mode)s, %(order_id)s, %(customer_id)s,
            %(status)s, %(needs_review)s, %(pending)s, %(created_at)s, %(expires_at)s,
            %(version)s, %(document)s
        )
        ON CONFLICT (shard, payment_id) DO UPDATE SET
            status = excluded.status, needs_review = excluded.needs_review,
            pending = excluded.pending, expires_at = excluded.expires_at,
            version = excluded.version, document = excluded.document
        WHERE receipts.version < excluded.version
    """
    # The same for many payments at once.
    UPSERT_MANY: LiteralString = """
        INSERT INTO receipts (
            shard, payment_id, merchant_id, mode, order_id, customer_id, status,
            needs_review, pending, created_at, expires_at, version, document
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(payment_id)b::uuid[], %(merchant_id)b::text[],
            %(mode)b::text[], %(order_id)b::text[], %(customer_id)b::text[], %(status)b::text[],
            %(needs_review)b::boolean[], %(pending)b::boolean[], %(created_at)b::timestamptz[],
            %(expires_at)b::timestamptz[], %(version)b::bigint[], %(document)b::jsonb[]
        )
        ON CONFLICT (shard, payment_id) DO UPDATE SET
            status = excluded.status, needs_review = excluded.needs_review,
            pending = excluded.pending, expires_at = excluded.expires_at,
            version = excluded.version, document = excluded.document
        WHERE receipts.version < excluded.version
    """
    BY_ID: LiteralString = """
        SELECT document FROM receipts
        WHERE shard = %(shard)s AND payment_id = %(payment_id)s
          AND merchant_id = %(merchant_id)s AND mode = %(mode)s
    """
    BY_IDS: LiteralString = """
        SELECT r.payment_id, r.document FROM receipts AS r
        JOIN unnest(%(shards)b::smallint[], %(payment_ids)b::uuid[]) AS k (shard, payment_id)
          ON r.shard = k.shard AND r.payment_id = k.payment_id
        WHERE r.merchant_id = %(merchant_id)s AND r.mode = %(mode)s
    """
    OWNER: LiteralString = """
        SELECT merchant_id, mode FROM receipts
        WHERE shard = %(shard)s AND payment_id = %(payment_id)s
    """
    PAST_THEIR_TIME: LiteralString = """
        SELECT payment_id, merchant_id, mode FROM receipts
        WHERE status = 'authorized' AND NOT pending AND expires_at < %(before)s
          AND NOT document @> '{"reviews": [{"reason": "bank_disagrees"}]}'
        ORDER BY expires_at LIMIT %(limit)s
    """
    # `updated_at` has the same width everywhere, so that its text sorts as time does.
    CHANGED: LiteralString = """
        SELECT payment_id, merchant_id, mode FROM receipts
        WHERE shard = %(shard)s AND payment_id > %(after)s
          AND (%(since)s::text IS NULL OR document ->> 'updated_at' >= %(since)s::text)
        ORDER BY payment_id LIMIT %(limit)s
    """
    COUNT_CHANGED: LiteralString = """
        SELECT count(*) AS payments FROM receipts
        WHERE shard = %(shard)s AND payment_id > %(after)s
          AND (%(since)s::text IS NULL OR document ->> 'updated_at' >= %(since)s::text)
    """
    TO_REVIEW: LiteralString = """
        SELECT payment_id, document FROM receipts WHERE needs_review ORDER BY created_at
    """
    PAGE = PageOf(
        select="SELECT payment_id AS id, document FROM receipts",
        id_column="payment_id",
        filters={
            "order_id": "order_id = %(order_id)s",
            "customer_id": "customer_id = %(customer_id)s",
            "payment_ids": "payment_id = ANY(%(payment_ids)s)",
            "status": "status = %(status)s",
            "payment_status": "($payment_status) = %(payment_status)s".replace(
                STATUS, PAYMENT_STATUS
            ),
            **BY_CREATION,
        },
    )

    def rows(self, shard: int, history: Sequence[Payment.Event]) -> list[dict[str, Any]]:
        """The one row of a payment with this history."""
        first, receipt = history[0], fold(history)
        assert isinstance(first, Begun)
        row = {
            "shard": shard,
            "payment_id": first.originator_id,
            "merchant_id": first.merchant_id,
            "mode": first.mode,
            "order_id": first.order_id,
            "customer_id": first.customer_id,
            "status": receipt["status"],
            "needs_review": bool(receipt["reviews"]),
            "pending": receipt["pending_operation"] is not None,
            "created_at": first.timestamp,
            "expires_at": receipt["authorization_expires_at"],
            "version": receipt["version"],
            "document": Jsonb(receipt),
        }
        return [row]

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The receipts of the payments that went on."""
        rows = [row for change in changes for row in self.rows(change.shard, change.history)]
        return [Write(self.UPSERT_MANY, columns(rows), into=NAME)] if rows else []

    def by_id(
        self, connection: Connection[Any], shard: int, payment_id: UUID, tenant: Tenant
    ) -> Document | None:
        """One receipt, or None where this tenant has none of that id."""
        row = connection.execute(
            self.BY_ID,
            {
                "shard": shard,
                "payment_id": payment_id,
                "merchant_id": tenant.merchant_id,
                "mode": tenant.mode.value,
            },
        ).fetchone()
        return None if row is None else row["document"]

    def by_ids(
        self, connection: Connection[Any], tenant: Tenant, keys: Sequence[tuple[int, UUID]]
    ) -> dict[UUID, Document]:
        """The receipts of those of `keys`, shards and payments' ids, that this tenant has."""
        rows = connection.execute(
            self.BY_IDS,
            {
                "shards": [shard for shard, _ in keys],
                "payment_ids": [each for _, each in keys],
                "merchant_id": tenant.merchant_id,
                "mode": tenant.mode.value,
            },
        ).fetchall()
        return {row["payment_id"]: row["document"] for row in rows}

    def owner(self, connection: Connection[Any], shard: int, payment_id: UUID) -> Tenant | None:
        """Whose payment it is: for operators, who are nobody's."""
        identity = {"shard": shard, "payment_id": payment_id}
        row = connection.execute(self.OWNER, identity).fetchone()
        return None if row is None else Tenant(row["merchant_id"], Mode(row["mode"]))

    def past_their_time(
        self, connection: Connection[Any], before: datetime, limit: int
    ) -> list[tuple[UUID, Tenant]]:
        """The payments that are authorized though their hold was to end before `before`. Those of
        which the bank says something else are left to a person; a doubt about another hold is none
        about this one."""
        rows = connection.execute(self.PAST_THEIR_TIME, {"before": before, "limit": limit})
        return [
            (row["payment_id"], Tenant(row["merchant_id"], Mode(row["mode"])))
            for row in rows.fetchall()
        ]

    def changed(
        self,
        connection: Connection[Any],
        shard: int,
        after: UUID,
        since: datetime | None,
        limit: int,
    ) -> list[tuple[UUID, Tenant]]:
        """The next payments of a shard after one, by id; those only that changed `since`."""
        parameters = _changed(shard, after, since) | {"limit": limit}
        return [
            (row["payment_id"], Tenant(row["merchant_id"], Mode(row["mode"])))
            for row in connection.execute(self.CHANGED, parameters).fetchall()
        ]

    def count_changed(
        self, connection: Connection[Any], shard: int, after: UUID, since: datetime | None
    ) -> int:
        """How many `changed` has in all."""
        row = connection.execute(self.COUNT_CHANGED, _changed(shard, after, since)).fetchone()
        return 0 if row is None else row["payments"]

    def to_review(self, connection: Connection[Any]) -> list[Document]:
        """The receipts that need a person, oldest first."""
        return [row["document"] for row in connection.execute(self.TO_REVIEW).fetchall()]

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Document], bool]:
        """A page of receipts, newest first, and whether there are more in that direction."""
        rows, has_more = select_page(connection, self.PAGE, tenant, page)
        return [row["document"] for row in rows], has_more


def _changed(shard: int, after: UUID, since: datetime | None) -> dict[str, Any]:
    return {"shard": shard, "after": after, "since": None if since is None else rfc3339(since)}

"""What merchants are told of: one row for each published event, in the words of the interface.

A row says what happened to what, and when; what that looked like then is the log's to say. Ids follow
from those of the log, so that every making of the table has the same. Follows the log, of all kinds of
aggregates.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.commands import Tenant
from domain.customer import Customer
from domain.invoice import Invoice
from domain.payment import Begun, CaptureMethod, Payment
from domain.payment_intent import PaymentIntent
from domain.payment_method import PaymentMethod
from domain.subscription import Subscription
from projections.changes import PAYMENT, Change, Origin, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

NAME: Final[LiteralString] = "api_events"
VERSION: Final = 1

CANCELED: Final = "payment_intent.canceled"
TYPES: Final = {
    "charge.captured",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.expired",
    "charge.failed",
    "charge.refunded",
    "charge.succeeded",
    "customer.created",
    "customer.deleted",
    "customer.subscription.created",
    "customer.subscription.deleted",
    "customer.subscription.updated",
    "customer.updated",
    "invoice.created",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_succeeded",
    "invoice.voided",
    "payment.authorized",
    "payment.expired",
    "payment.failed",
    "payment.requires_action",
    "payment.succeeded",
    "payment.voided",
    "payment_intent.amount_capturable_updated",
    CANCELED,
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_method.attached",
    "payment_method.detached",
    "refund.created",
    "refund.failed",
    "refund.succeeded",
}
RANDOM_BITS: Final = 62

Event = Any
Row = dict[str, Any]


# What the events of things other than payments are told as; some are told as nothing.
OF_THINGS: Final[Mapping[type[Event], tuple[str, ...]]] = {
    PaymentIntent.Created: ("payment_intent.created",),
    PaymentIntent.Canceled: (CANCELED,),
    PaymentMethod.Attached: ("payment_method.attached",),
    PaymentMethod.Detached: ("payment_method.detached",),
    Customer.Created: ("customer.created",),
    Customer.Updated: ("customer.updated",),
    Customer.Deleted: ("customer.deleted",),
    Subscription.Created: ("customer.subscription.created",),
    Subscription.Updated: ("customer.subscription.updated",),
    Subscription.Activated: ("customer.subscription.updated",),
    Subscription.WentPastDue: ("customer.subscription.updated",),
    Subscription.Expired: ("customer.subscription.updated",),
    Subscription.Canceled: ("customer.subscription.deleted",),
    Invoice.Created: ("invoice.created",),
    Invoice.AttemptFailed: ("invoice.payment_failed",),
    Invoice.Paid: ("invoice.paid", "invoice.payment_succeeded"),
    Invoice.Voided: ("invoice.voided",),
}


def published(first: Event, event: Event) -> tuple[str, ...]:
    """What an event of the log is told as: types of published events, perhaps none. `first`: of the
    same aggregate."""
    if isinstance(event, Subscription.PeriodBegun):
        return () if event.number == 0 else ("customer.subscription.updated",)
    if not isinstance(first, Begun):
        return OF_THINGS.get(type(event), ())
    is_automatic = (
        not isinstance(first, Payment.AuthorizationRequested)
        or first.capture_method == CaptureMethod.AUTOMATIC
    )
    if first.intent_id is not None or not is_automatic:
        return _of_payment(event, is_attempt=first.intent_id is not None, is_automatic=is_automatic)
    return _of_payment_at_once(event)


def _of_payment(event: Payment.Event, *, is_attempt: bool, is_automatic: bool) -> tuple[str, ...]:
    """`is_attempt`: of an intent, which is told of it too."""
    plain: tuple[str, ...] = ()
    of_intent: tuple[str, ...] = ()
    match event:
        case Begun():
            of_intent = ("payment_intent.processing",)
        case Payment.ActionRequired():
            plain, of_intent = ("payment.requires_action",), ("payment_intent.requires_action",)
        case Payment.Authorized() if not is_automatic:
            plain = ("payment.authorized",)
            of_intent = ("charge.succeeded", "payment_intent.amount_capturable_updated")
        case Payment.AuthorizationDeclined() | Payment.TransferDeclined():
            plain = ("payment.failed",)
            of_intent = ("charge.failed", "payment_intent.payment_failed")
        case Payment.Captured() | Payment.Transferred():
            plain = ("payment.succeeded",)
            charge = "charge.succeeded" if is_automatic else "charge.captured"
            of_intent = (charge, "payment_intent.succeeded")
        case Payment.Voided():
            plain, of_intent = ("payment.voided",), (CANCELED,)
        case Payment.Expired():
            plain, of_intent = ("payment.expired",), ("charge.expired", CANCELED)
        case _:
            plain = _of_refund(event)
    return plain + of_intent if is_attempt else plain


def _of_payment_at_once(event: Payment.Event) -> tuple[str, ...]:
    """Of one that was asked for as such and takes the money itself: released, it has failed."""
    if isinstance(event, Payment.Voided | Payment.Expired):
        return ("payment.failed",)
    return _of_payment(event, is_attempt=False, is_automatic=True)


def _of_refund(event: Payment.Event) -> tuple[str, ...]:
    match event:
        case Payment.RefundRequested():
            return ("refund.created",)
        case Payment.Refunded():
            return ("refund.succeeded", "charge.refunded")
        case Payment.RefundDeclined():
            return ("refund.failed",)
        case _:
            return _of_dispute(event)


def _of_dispute(event: Payment.Event) -> tuple[str, ...]:
    match event:
        case Payment.DisputeOpened():
            return ("charge.dispute.created", "charge.dispute.funds_withdrawn")
        case Payment.DisputeEvidenceGiven():
            return ("charge.dispute.updated",)
        case Payment.DisputeWon():
            return ("charge.dispute.closed", "charge.dispute.funds_reinstated")
        case Payment.DisputeLost() | Payment.DisputeAccepted():
            return ("charge.dispute.closed",)
        case _:
            return ()


def id_of(event_id: UUID, kind: str) -> UUID:
    """The id of the published event of that type that an event of the log is told as: made at the same
    millisecond, and otherwise hashed."""
    digest = hashlib.sha256(event_id.bytes + kind.encode()).digest()
    low = int.from_bytes(digest[:8]) & ((1 << RANDOM_BITS) - 1)
    return UUID(int=event_id.int >> RANDOM_BITS << RANDOM_BITS | low)


class ApiEvents:
    """The table of published events: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: tuple[LiteralString, ...] = (
        PAYMENT,
        "payment_intent",
        "payment_method",
        "customer",
        "subscription",
        "invoice",
    )
    migration: LiteralString = "0005_intents.sql"

    TABLES: tuple[LiteralString, ...] = ("api_events",)
    CREATE: LiteralString = """
        CREATE TABLE api_events (
            shard           smallint    NOT NULL,
            id              uuid        NOT NULL,
            merchant_id     text        NOT NULL,
            mode            text        NOT NULL,
            type            text        NOT NULL,
            aggregate_id    uuid        NOT NULL,
            version         bigint      NOT NULL,
            created_at      timestamptz NOT NULL,
            request_id      text,
            idempotency_key text,
            CONSTRAINT api_events_pkey PRIMARY KEY (shard, id)
        )
    """
    INDEXES: LiteralString = """
        CREATE INDEX api_events_newest ON api_events (merchant_id, mode, id);
        CREATE INDEX api_events_by_type ON api_events (merchant_id, mode, type, id);
    """
    INTO: LiteralString = """
        INSERT INTO api_events (
            shard, id, merchant_id, mode, type, aggregate_id, version, created_at, request_id,
            idempotency_key
        )
        SELECT n.shard, n.id, n.merchant_id, n.mode, n.type, n.aggregate_id, n.version,
               n.created_at, n.request_id, n.idempotency_key
        FROM unnest(
            %(shard)b::smallint[], %(id)b::uuid[], %(merchant_id)b::text[], %(mode)b::text[],
            %(type)b::text[], %(aggregate_id)b::uuid[], %(version)b::bigint[],
            %(created_at)b::timestamptz[], %(request_id)b::text[], %(idempotency_key)b::text[]
        ) AS n (
            shard, id, merchant_id, mode, type, aggregate_id, version, created_at, request_id,
            idempotency_key
        )
    """
    ONCE: LiteralString = " ON CONFLICT (shard, id) DO NOTHING"
    # An intent whose hold is still to be released is canceled when that is done, and not before. The
    # events of one append have one hash.
    UNLESS_HELD: LiteralString = """
        WHERE NOT EXISTS (
            SELECT FROM public.events AS c
            JOIN unnest(%(aggregate_id)b::uuid[], %(last_payment)b::uuid[]) AS l (id, payment_id)
              ON l.id = c.originator_id
            JOIN public.events AS v ON v.shard = c.shard AND v.originator_id = l.payment_id
             AND v.topic = 'payment.void_requested' AND v.chain_hash = c.chain_hash
            WHERE c.shard = n.shard AND c.originator_id = n.aggregate_id
              AND c.originator_version = n.version
        )
    """
    PAGE = PageOf(
        select="""
            SELECT id, shard, type, aggregate_id, version, created_at, request_id, idempotency_key
            FROM api_events
        """,
        id_column="id",
        filters={
            "id": "id = %(id)s",
            "types": "type = ANY(%(types)s)",
            **BY_CREATION,
        },
    )

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The published events of what is new."""
        rows, canceled = new_rows(changes)
        found = []
        if rows:
            found.append(Write(self.INTO + self.ONCE, columns(rows), into=NAME))
        if canceled:
            found.append(Write(self.INTO + self.UNLESS_HELD + self.ONCE, columns(canceled)))
        return found

    def by_id(self, connection: Connection[Any], tenant: Tenant, event_id: UUID) -> Row | None:
        """One, or None where this tenant has none of that id."""
        page = Page(limit=1, filters={"id": event_id})
        rows, _ = select_page(connection, self.PAGE, tenant, page)
        return rows[0] if rows else None

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Row], bool]:
        """A page of rows, newest first, and whether there are more in that direction."""
        return select_page(connection, self.PAGE, tenant, page)


def new_rows(changes: Sequence[Change]) -> tuple[list[Row], list[Row]]:
    """The published events of what is new; and, apart, those that are unless a hold is still to be
    released, with `last_payment`."""
    rows: list[Row] = []
    canceled: list[Row] = []
    for change in changes:
        last_payment = _last_payment(change.history)
        for row in _rows(change):
            is_attempted = isinstance(change.history[0], PaymentIntent.Event) and last_payment
            if row["type"] == CANCELED and is_attempted:
                canceled.append({**row, "last_payment": last_payment})
            else:
                rows.append(row)
    return rows, canceled


def _rows(change: Change) -> list[Row]:
    first = change.history[0]
    assert len(change.origins) == len(change.history), "a follower reads where events are from"
    new = list(zip(change.history, change.origins, strict=True))[-change.new :]
    return [
        _row(change.shard, first, event, origin, kind)
        for event, origin in new
        for kind in published(first, event)
    ]


def _row(shard: int, first: Event, event: Event, origin: Origin, kind: str) -> Row:
    cause = json.loads(origin.cause)
    return {
        "shard": shard,
        "id": id_of(origin.event_id, kind),
        "merchant_id": first.merchant_id,
        "mode": first.mode,
        "type": kind,
        "aggregate_id": event.originator_id,
        "version": event.originator_version,
        "created_at": event.timestamp,
        "request_id": cause.get("request_id"),
        "idempotency_key": cause.get("idempotency_key"),
    }


def _last_payment(history: Sequence[Event]) -> str | None:
    begun = [event for event in history if isinstance(event, PaymentIntent.AttemptBegun)]
    return begun[-1].payment_id if begun else None

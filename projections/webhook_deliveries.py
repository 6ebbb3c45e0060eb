"""Which published event is to be told to which endpoint, and what came of it.

Follows the log, and makes each row once, in the transaction that moves on in the log: a row is a thing to
be done, and is sent, tried again and ended by the workers. So it is not made again by a rebuild.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from domain.commands import Tenant
from projections.api_events import ApiEvents, new_rows
from projections.changes import Change, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

NAME: Final[LiteralString] = "webhook_deliveries"
# How long a delivery is tried.
TRIED_DAYS: Final = 3

Row = dict[str, Any]

# Of an event `n` to an endpoint `e`: one row at most. The ids sort by when it happened.
INTO: Final[LiteralString] = """
    INSERT INTO public.webhook_deliveries AS d (
        shard, event_id, endpoint_id, id, merchant_id, mode, type, aggregate_id, version, created_at,
        request_id, idempotency_key, status, due_at, gives_up_at, failures, fence, attempts, tries
    )
    SELECT n.shard, n.id, e.id,
           (substr(n.id::text, 1, 19) || '8' || substr(md5(n.id::text || e.id::text), 1, 3) || '-'
            || substr(md5(n.id::text || e.id::text), 4, 12))::uuid,
           n.merchant_id, n.mode, n.type, n.aggregate_id, n.version, n.created_at, n.request_id,
           n.idempotency_key, 'pending', now(), now() + make_interval(days => %(days)s), 0, 0, 0, '[]'
    FROM unnest(
        %(shard)b::smallint[], %(id)b::uuid[], %(merchant_id)b::text[], %(mode)b::text[],
        %(type)b::text[], %(aggregate_id)b::uuid[], %(version)b::bigint[],
        %(created_at)b::timestamptz[], %(request_id)b::text[], %(idempotency_key)b::text[]
    ) AS n (
        shard, id, merchant_id, mode, type, aggregate_id, version, created_at, request_id,
        idempotency_key
    )
    JOIN public.webhook_endpoints AS e
      ON e.merchant_id = n.merchant_id AND e.mode = n.mode AND e.is_enabled
"""
# `charge.*` is a group of types, and `*` all of them.
WANTED: Final[LiteralString] = """
    EXISTS (
        SELECT FROM unnest(e.enabled_events) AS wanted
        WHERE wanted IN ('*', n.type)
           OR right(wanted, 2) = '.*' AND starts_with(n.type, left(wanted, -1))
    )
"""
# What happened before the endpoint was enabled is not told to it.
SINCE: Final[LiteralString] = """
    (
        SELECT position FROM public.events AS v
        WHERE v.shard = n.shard AND v.originator_id = n.aggregate_id
          AND v.originator_version = n.version
    ) > e.enabled_at[n.shard + 1]
"""
ONCE: Final[LiteralString] = " ON CONFLICT (shard, event_id, endpoint_id) DO NOTHING"
# Asked for by hand: again from the start, whatever became of it before. Who is at it meanwhile has
# lost it.
AGAIN: Final[LiteralString] = """
    ON CONFLICT (shard, event_id, endpoint_id) DO UPDATE SET
        status = excluded.status, due_at = excluded.due_at, gives_up_at = excluded.gives_up_at,
        failures = 0, fence = d.fence + 1
"""
TO_ONE: Final[LiteralString] = "e.id = %(endpoint_id)s"
# What receivers answered may say again what they were told. The ids of published events begin as those do
# of what they tell of; and what is being written to just now is left to whoever comes by once more.
FORGET_ANSWERS: Final[LiteralString] = """
    WITH those AS (
        SELECT d.shard, d.event_id, d.endpoint_id
        FROM unnest(%(shards)b::smallint[], %(owners)b::uuid[]) AS k (shard, owner)
        JOIN public.events AS v ON v.shard = k.shard AND v.originator_id = k.owner
        JOIN public.webhook_deliveries AS d
          ON d.shard = k.shard AND d.aggregate_id = k.owner AND d.event_id
             BETWEEN (substr(v.event_id::text, 1, 19) || '8000-000000000000')::uuid
                 AND (substr(v.event_id::text, 1, 19) || 'bfff-ffffffffffff')::uuid
        WHERE d.tries @? '$[*].response ? (@ != "" && @ != null)'
        FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE public.webhook_deliveries AS d
    SET tries = (
        SELECT jsonb_agg(t.one || '{"response": null}' ORDER BY t.place)
        FROM jsonb_array_elements(d.tries) WITH ORDINALITY AS t (one, place)
    )
    FROM those
    WHERE d.shard = those.shard AND d.event_id = those.event_id
      AND d.endpoint_id = those.endpoint_id
"""
PENDING: Final[LiteralString] = """
    SELECT d.event_id, count(*) AS pending FROM public.webhook_deliveries AS d
    JOIN unnest(%(shards)b::smallint[], %(ids)b::uuid[]) AS k (shard, id)
      ON d.shard = k.shard AND d.event_id = k.id
    JOIN public.webhook_endpoints AS e ON e.id = d.endpoint_id AND e.is_enabled
    WHERE d.status = 'pending' GROUP BY d.event_id
"""


class WebhookDeliveries:
    """The table of deliveries: who makes its rows, and how it is asked."""

    name: LiteralString = NAME
    version = 1
    aggregate: tuple[LiteralString, ...] = ApiEvents.aggregate
    migration: LiteralString = "0008_webhooks.sql"

    TABLES: tuple[LiteralString, ...] = (NAME,)
    CREATE: LiteralString = """
        CREATE TABLE webhook_deliveries (
            shard           smallint    NOT NULL,
            event_id        uuid        NOT NULL,
            endpoint_id     uuid        NOT NULL,
            id              uuid        NOT NULL,
            merchant_id     text        NOT NULL,
            mode            text        NOT NULL,
            type            text        NOT NULL,
            aggregate_id    uuid        NOT NULL,
            version         bigint      NOT NULL,
            created_at      timestamptz NOT NULL,
            request_id      text,
            idempotency_key text,
            status          text        NOT NULL,
            due_at          timestamptz NOT NULL,
            gives_up_at     timestamptz NOT NULL,
            failures        integer     NOT NULL,
            fence           integer     NOT NULL,
            attempts        integer     NOT NULL,
            tries           jsonb       NOT NULL,
            CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (shard, event_id, endpoint_id),
            CONSTRAINT webhook_deliveries_statuses CHECK (
                status IN ('pending', 'succeeded', 'failed')
            )
        )
    """
    INDEXES: LiteralString = """
        CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, due_at)
            WHERE status = 'pending';
        CREATE INDEX webhook_deliveries_newest ON webhook_deliveries (endpoint_id, id);
        CREATE INDEX webhook_deliveries_oldest ON webhook_deliveries (created_at)
    """
    PAGE = PageOf(
        select="""
            SELECT id, event_id, endpoint_id, type, status, due_at, created_at, attempts, tries
            FROM webhook_deliveries
        """,
        id_column="id",
        filters={
            "id": "id = %(id)s",
            "endpoint_id": "endpoint_id = %(endpoint_id)s",
            "event_id": "event_id = %(event_id)s",
            "status": "status = %(status)s",
            **BY_CREATION,
        },
    )

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """A delivery of each new event to each endpoint that wants it."""
        rows, canceled = new_rows(changes)
        to_those = f"{INTO} AND {WANTED} AND {SINCE}"
        found = []
        if rows:
            found.append(Write(to_those + ONCE, {**columns(rows), "days": TRIED_DAYS}))
        if canceled:
            unless_held = to_those + ApiEvents.UNLESS_HELD + ONCE
            found.append(Write(unless_held, {**columns(canceled), "days": TRIED_DAYS}))
        return found

    def send_again(
        self, connection: Connection[Any], event: Row, endpoint_id: UUID | None = None
    ) -> None:
        """Delivers an event, a row of those, again: to one endpoint, or to all that want it."""
        to = WANTED if endpoint_id is None else TO_ONE
        parameters = {**columns([event]), "days": TRIED_DAYS, "endpoint_id": endpoint_id}
        connection.execute(f"{INTO} AND {to} {AGAIN}", parameters)

    def pending(
        self, connection: Connection[Any], events: Sequence[Mapping[str, Any]]
    ) -> dict[UUID, int]:
        """How many deliveries of each of these events are still to be made; nothing for none."""
        parameters = {
            "shards": [event["shard"] for event in events],
            "ids": [event["id"] for event in events],
        }
        rows = connection.execute(PENDING, parameters).fetchall() if events else []
        return {row["event_id"]: row["pending"] for row in rows}

    def forget_answers(
        self, connection: Connection[Any], owners: Sequence[tuple[int, UUID]]
    ) -> None:
        """Takes out of deliveries that told of any of these, by shard and id, what receivers answered."""
        parameters = {
            "shards": [shard for shard, _ in owners],
            "owners": [each for _, each in owners],
        }
        connection.execute(FORGET_ANSWERS, parameters)

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Row], bool]:
        """A page of rows, newest first, and whether there are more in that direction."""
        return select_page(connection, self.PAGE, tenant, page)

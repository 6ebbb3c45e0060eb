"""What is kept beside the log, and what of it belongs to nothing there. One snapshot, in SQL: the rows are
many, and those that are wrong few."""

from typing import Any, Final, LiteralString, NamedTuple

from psycopg import Connection, sql
from psycopg.rows import dict_row

from domain.bank import Operation
from domain.payment import LIVE, bank_key
from infrastructure.shards import SHARDS
from infrastructure.verification.findings import Findings, Kind, named
from projections.changes import PAYMENT
from projections.registry import ALL

FETCHED_AT_ONCE: Final = 1_000


class Search(NamedTuple):
    """A statement that finds orphans of one kind. `aggregate`: the kind of what they are of."""

    table: str
    aggregate: str | None
    says: str
    statement: LiteralString


# Endpoints of webhooks and tests' clocks are in no log. Of an endpoint that is gone only the answer tells
# what the key was of, unless it shows a secret, and so is sealed, or says no more than that it is gone.
KEYS: Final[LiteralString] = """
    SELECT k.payment_id AS owner, k.request_id AS found FROM public.idempotency_keys AS k
    WHERE NOT EXISTS (
        SELECT FROM public.events AS e
        WHERE e.shard = (get_byte(uuid_send(k.payment_id), 15) % 64)::smallint
          AND e.originator_id = k.payment_id
    ) AND NOT EXISTS (SELECT FROM public.webhook_endpoints AS w WHERE w.id = k.payment_id)
      AND NOT EXISTS (SELECT FROM public.test_clocks AS c WHERE c.id = k.payment_id)
      AND position('webhook_endpoint'::bytea IN coalesce(k.body, '')) = 0
      AND NOT coalesce(k.headers, '{}') ? 'sealed' AND k.status IS DISTINCT FROM 204
"""
ANSWERS: Final[LiteralString] = """
    SELECT a.payment_id AS owner, a.request_id AS found FROM public.idempotency_answers AS a
    WHERE NOT EXISTS (
        SELECT FROM public.idempotency_keys AS k
        WHERE (k.merchant_id, k.mode, k.key) = (a.merchant_id, a.mode, a.key)
          AND (k.request_id, k.payment_id) = (a.request_id, a.payment_id)
    )
"""
# A slot is of a payment that asked for it by that name and is still live; and whoever asked for an
# authorization of an order has it to themselves. Intents and payments at once name orders only, and what a
# person decided may have come after the slot was free.
SLOTS: Final[LiteralString] = """
    SELECT s.payment_id IS NOT NULL AS is_slot, coalesce(s.payment_id, r.payment_id) AS owner,
           coalesce(s.order_id, r.order_id) AS found
    FROM public.order_slots AS s
    FULL JOIN (
        SELECT merchant_id, mode, order_id, payment_id, needs_review
               OR document ? 'is_paid_at_once' OR document ->> 'intent_id' IS NOT NULL AS needs_none
        FROM public.receipts WHERE status = ANY (%(live)s) AND order_id IS NOT NULL
    ) AS r ON (s.merchant_id, s.mode, s.order_id, s.payment_id)
            = (r.merchant_id, r.mode, r.order_id, r.payment_id)
    WHERE r.payment_id IS NULL OR (s.payment_id IS NULL AND NOT r.needs_none)
"""
CALLS: Final[LiteralString] = """
    SELECT c.payment_id AS owner, c.operation AS found FROM public.bank_calls AS c
    LEFT JOIN public.receipts AS r ON r.shard = c.shard AND r.payment_id = c.payment_id
    WHERE r.document ->> 'pending_operation' IS DISTINCT FROM c.operation
"""
CALLLESS: Final[LiteralString] = """
    SELECT r.payment_id AS owner, r.document ->> 'pending_operation' AS found
    FROM public.receipts AS r
    WHERE r.pending AND NOT EXISTS (
        SELECT FROM public.bank_calls AS c
        WHERE c.shard = r.shard AND c.payment_id = r.payment_id
    )
"""
# A payment method's, until it is detached, or a token's.
CARDS: Final[LiteralString] = """
    SELECT c.method_id AS owner, c.shard::text AS found FROM public.stored_cards AS c
    LEFT JOIN public.payment_methods AS m ON m.shard = c.shard AND m.id = c.method_id
    WHERE (m.document ->> 'is_detached')::boolean OR NOT EXISTS (
        SELECT FROM public.events AS e WHERE e.shard = c.shard AND e.originator_id = c.method_id
    )
"""
TOKENS: Final[LiteralString] = """
    SELECT t.token_id AS owner, t.shard::text AS found FROM public.used_tokens AS t
    WHERE NOT EXISTS (
        SELECT FROM public.events AS e WHERE e.shard = t.shard AND e.originator_id = t.token_id
    )
"""
ERASURES: Final[LiteralString] = """
    SELECT x.customer_id AS owner, x.shard::text AS found FROM public.erasures AS x
    LEFT JOIN public.customer_records AS c ON c.shard = x.shard AND c.id = x.customer_id
    WHERE (c.document ->> 'is_deleted')::boolean IS NOT TRUE
"""
# Of somebody, of a method or an intent, or, as evidence, of a dispute, which its payment's log tells of.
PEOPLE: Final[LiteralString] = """
    SELECT p.owner, p.shard::text AS found FROM public.personal_data AS p
    WHERE NOT EXISTS (
        SELECT FROM public.events AS e WHERE e.shard = p.shard AND e.originator_id = p.owner
    ) AND NOT EXISTS (SELECT FROM public.disputes AS d WHERE d.shard = p.shard AND d.id = p.owner)
"""

# Which ask of the payment the call is of: the first, or the last of its kind.
KEYS_OF_CALLS: Final[LiteralString] = """
    SELECT c.payment_id AS owner, c.operation, c.bank_key, (r.merchant_id, r.mode)
           IS NOT DISTINCT FROM (c.merchant_id, c.mode) AS is_theirs, coalesce((
               SELECT max(e.originator_version) FROM public.events AS e
               WHERE e.shard = c.shard AND e.originator_id = c.payment_id
                 AND e.topic = 'payment.' || c.operation || '_requested'
           ), 1) AS number
    FROM public.bank_calls AS c
    JOIN public.receipts AS r ON r.shard = c.shard AND r.payment_id = c.payment_id
    WHERE r.document ->> 'pending_operation' = c.operation
"""
OF_NO_SHARD: Final = """
    SELECT DISTINCT shard FROM public.{} WHERE shard < 0 OR shard > {} ORDER BY shard LIMIT {}
"""
# Beside the tables of read models.
OF_SHARDS: Final = (
    "events",
    "shard_heads",
    "audit_cursors",
    "audit_runs",
    "projection_positions",
    "bank_calls",
    "stored_cards",
    "used_tokens",
    "personal_data",
    "erasures",
    "dispute_responses",
)

SEARCHES: Final = (
    Search("idempotency_keys", None, "an idempotency key is of nothing in the log", KEYS),
    Search("idempotency_answers", None, "an answer is of no idempotency key", ANSWERS),
    Search("bank_calls", PAYMENT, "a call to the bank is of no operation that is running", CALLS),
    Search("bank_calls", PAYMENT, "an operation is running that nobody will finish", CALLLESS),
    Search("stored_cards", "payment_method", "a sealed card is of no payment method", CARDS),
    Search("used_tokens", None, "a token was used that there never was", TOKENS),
    Search("erasures", "customer", "the erasure is due of a customer who is there", ERASURES),
    Search("personal_data", None, "personal data is of nobody in the log", PEOPLE),
)


def find_orphans(connection: Connection[Any], findings: Findings) -> None:
    """All of them, as of the snapshot of `connection`."""
    for search in SEARCHES:
        with connection.cursor(name="orphans", row_factory=dict_row) as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            for row in cursor.execute(search.statement):
                findings.add(
                    Kind.ORPHAN,
                    search.says,
                    table=search.table,
                    found=row["found"],
                    **named(row["owner"], search.aggregate),
                )
    _find_wrong_slots(connection, findings)
    _find_other_calls(connection, findings)
    _find_rows_of_no_shard(connection, findings)


def _find_wrong_slots(connection: Connection[Any], findings: Findings) -> None:
    """Slots of nothing, and what should have one and has none."""
    live = sorted(status.value for status in LIVE)
    with connection.cursor(name="slots", row_factory=dict_row) as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        for row in cursor.execute(SLOTS, {"live": live}):
            findings.add(
                Kind.ORPHAN,
                "an order's slot is of no payment that is live"
                if row["is_slot"]
                else "a live payment does not have its order to itself",
                table="order_slots",
                found=row["found"],
                **named(row["owner"], PAYMENT),
            )


def _find_other_calls(connection: Connection[Any], findings: Findings) -> None:
    """Calls to the bank that would be made under another's key, or answered to another."""
    with connection.cursor(name="calls", row_factory=dict_row) as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        for row in cursor.execute(KEYS_OF_CALLS):
            wanted = bank_key(row["owner"], Operation(row["operation"]), row["number"])
            if row["bank_key"] != wanted or not row["is_theirs"]:
                findings.add(
                    Kind.ROW_DIFFERS,
                    "a call to the bank is not the one that was asked for",
                    table="bank_calls",
                    expected=wanted,
                    found=row["bank_key"],
                    **named(row["owner"], PAYMENT),
                )


def _find_rows_of_no_shard(connection: Connection[Any], findings: Findings) -> None:
    """Everything else is looked at shard by shard, and so would miss them."""
    for table in (*OF_SHARDS, *(table for model in ALL for table in model.TABLES)):
        query = sql.SQL(OF_NO_SHARD).format(sql.Identifier(table), SHARDS - 1, FETCHED_AT_ONCE)
        for (shard,) in connection.execute(query).fetchall():
            findings.add(
                Kind.ROW_WITHOUT_EVENTS,
                "there are rows of a shard that there is not",
                table=table,
                shard=shard,
            )

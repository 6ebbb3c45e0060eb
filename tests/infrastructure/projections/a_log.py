"""A log with payments in it, generations that follow it, and what their rows are."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection, sql
from psycopg.rows import DictRow, dict_row

from domain.bank import Operation
from domain.payment import Payment, Status
from infrastructure import processes
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder
from infrastructure.projections.batches import decoded
from infrastructure.projections.follower import Follower, Overtaken
from infrastructure.projections.generations import Generation, Slot, in_slot
from infrastructure.projections.rebuild import Built, rebuild
from infrastructure.shards import shard_of
from projections.balances import EVERYONE
from projections.changes import Change, ReadModel
from projections.registry import FOLLOWING, INLINE, READ_MODELS, read_model

# The read models of payments: what is shown of these is the engine's, and so all others' too.
OF_PAYMENTS: Final = [model for model in READ_MODELS if model.aggregate == "payment"]
INLINE_OF_PAYMENTS: Final = [model for model in INLINE if model.aggregate == "payment"]
NAMES: Final = [model.name for model in OF_PAYMENTS]
FOLLOWING_NAMES: Final = [model.name for model in FOLLOWING]
PATIENCE_SECONDS: Final = 30
MOST_STEPS: Final = 4_000

Rows = dict[str, list[dict[str, Any]]]
mapper = FlatMapper(FlatJSON())

WAITING: Final[LiteralString] = """
    SELECT count(*) AS backends FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
WHOLE_LOG: Final[LiteralString] = """
    SELECT shard, originator_id, 1 AS since, originator_version, topic, state, event_id, cause
    FROM events
    ORDER BY shard, originator_id, originator_version
"""
ORDERED: Final[LiteralString] = "SELECT to_jsonb(t) AS row FROM {} t ORDER BY to_jsonb(t)::text"
UNREADABLE: Final[LiteralString] = """
    WITH head AS (
        UPDATE shard_heads SET position = position + 1 WHERE shard = %(shard)s RETURNING position
    )
    INSERT INTO events (
        shard, position, originator_id, originator_version, event_id, topic, state, cause,
        recorded_at, digest, chain_hash
    )
    SELECT %(shard)s, position, %(id)s, %(version)s, gen_random_uuid(), %(topic)s, %(state)s, '{}',
           clock_timestamp(), '', ''
    FROM head
"""


@contextmanager
def connect(database_url: str) -> Iterator[Connection[DictRow]]:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def append(pool: Pool, *payments: Payment, since: int = 1) -> None:
    """The events of each payment from version `since`, in one transaction each payment."""
    recorder = ShardedRecorder(pool)
    for payment in payments:
        stored = [mapper.to_stored_event(event) for event in payment.history[since - 1 :]]
        recorder.insert_events(stored, history=payment.history)


def append_interleaved(pool: Pool, payments: Sequence[Payment]) -> None:
    """One event of each in turn, as they come when all are paid at once."""
    for _ in append_in_rounds(pool, payments):
        pass


def append_in_rounds(pool: Pool, payments: Sequence[Payment]) -> Iterator[int]:
    """The same, and a halt after each round."""
    recorder = ShardedRecorder(pool)
    for number in range(max(len(payment.history) for payment in payments)):
        for payment in payments:
            for event in payment.history[number : number + 1]:
                history = payment.history[: number + 1]
                recorder.insert_events([mapper.to_stored_event(event)], history=history)
        yield number


def append_unreadable(
    connection: Connection[DictRow],
    payment: Payment,
    topic: str,
    state: bytes = b"{}",
    *,
    after: int = 0,
) -> None:
    """An event that this code cannot read, after those of `payment`, and so many more."""
    parameters = {
        "shard": shard_of(payment.id),
        "id": payment.id,
        "version": payment.version + 1 + after,
        "topic": topic,
        "state": state,
    }
    connection.execute(UNREADABLE, parameters)


def generation_of(connection: Connection[DictRow], name: str, slot: Slot = Slot.LIVE) -> Generation:
    found = in_slot(connection, name, slot)
    assert found is not None
    return found


def follower_of(
    connection: Connection[DictRow],
    name: str,
    slot: Slot = Slot.LIVE,
    *,
    model: ReadModel | None = None,
) -> Follower:
    return Follower(generation_of(connection, name, slot), model)


def follow(connection: Connection[DictRow], follower: Follower, batch: int = 2_000) -> int:
    """To the end of the log; how many steps."""
    for steps in range(MOST_STEPS):
        try:
            if follower.step(connection, batch=batch) == 0:
                return steps
        except Overtaken:
            continue
    raise AssertionError("it never came to the end of the log")


def rebuilt(database_url: str, name: str, *, workers: int = 1, restart: bool = False) -> Built:
    """In this process, and telling nobody."""
    return rebuild(database_url, name, lambda *_: None, workers=workers, restart=restart)


def rows(connection: Connection[DictRow], model: ReadModel, schema: str = "public") -> Rows:
    """All rows of the model's tables, as JSON."""
    return {
        table: [
            row["row"]
            for row in connection.execute(
                sql.SQL(ORDERED).format(sql.Identifier(schema, table))
            ).fetchall()
        ]
        for table in model.TABLES
    }


def replayed_rows(connection: Connection[DictRow], name: str) -> Rows:
    """The rows of the live generation's tables, had they been made from the whole log at once."""
    model = read_model(name)
    with connection.transaction(force_rollback=True):
        for table in model.TABLES:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        whole = connection.execute(WHOLE_LOG).fetchall()
        changes = [each for each in decoded(whole) if isinstance(each, Change)]
        for write in model.writes(changes):
            connection.execute(write.sql, write.parameters)
        return rows(connection, model)


def backends_that_wait(connection: Connection[DictRow]) -> int:
    row = connection.execute(WAITING).fetchone()
    assert row is not None
    count: int = row["backends"]
    return count


def poll_until(holds: Callable[[], bool]) -> None:
    """Bounded by a time that is long enough on a machine that has other things to do."""
    assert processes.wait_until(holds, PATIENCE_SECONDS), "it never came to that"


# --- what the rows are, from the payments themselves -------------------------------------------


def balances_of(payments: Iterable[Payment]) -> dict[tuple[str, str, str, str], dict[str, int]]:
    """By merchant, mode, customer and currency: `held`, `captured`, `refunded`, `cardholder`."""
    found: defaultdict[tuple[str, str, str, str], dict[str, int]] = defaultdict(
        lambda: {"held": 0, "captured": 0, "refunded": 0, "cardholder": 0}
    )
    for payment in payments:
        if not any(isinstance(event, Payment.Authorized) for event in payment.history):
            continue
        held = payment.money.amount_minor if payment.status is Status.AUTHORIZED else 0
        moved = {
            "held": held,
            "captured": payment.captured_minor,
            "refunded": -payment.refunded_minor,
            "cardholder": payment.refunded_minor - payment.captured_minor - held,
        }
        for customer_id in {payment.customer_id or EVERYONE, EVERYONE}:
            key = (
                payment.tenant.merchant_id,
                payment.tenant.mode.value,
                customer_id,
                payment.money.currency,
            )
            for name, amount in moved.items():
                found[key][name] += amount
    return dict(found)


def totals_of(payments: Iterable[Payment]) -> dict[tuple[str, str], dict[str, Any]]:
    """By customer and currency: what `customer_totals` has, over all shards."""
    found: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for payment in payments:
        if payment.customer_id is None:
            continue
        total = found[payment.customer_id, payment.money.currency]
        total["payments"] += 1
        if payment.status is not Status.PENDING:
            total[payment.status.value] += 1
        total["amount_captured"] += payment.captured_minor
        total["amount_refunded"] += payment.refunded_minor
    return {key: {k: v for k, v in total.items() if v} for key, total in found.items()}


def asks_of(payments: Iterable[Payment]) -> dict[str, int]:
    """How often the bank was asked for each operation."""
    asked: defaultdict[str, int] = defaultdict(int)
    names: Mapping[type[Payment.Event], Operation] = {
        Payment.AuthorizationRequested: Operation.AUTHORIZATION,
        Payment.CaptureRequested: Operation.CAPTURE,
        Payment.VoidRequested: Operation.VOID,
        Payment.RefundRequested: Operation.REFUND,
    }
    for payment in payments:
        for event in payment.history:
            if type(event) in names:
                asked[names[type(event)].value] += 1
    return dict(asked)

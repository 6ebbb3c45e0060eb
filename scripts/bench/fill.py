"""A store with a past: `python -m scripts.bench.fill --events 1000000`.

Made-up lives of payments (scripts/bench/lives.py) as the recorder would have written them, event by
event: versions, gapless positions, digests and chain, and beside them the order slots and the
idempotency keys that would be left. By COPY, in several processes, each of which has some of the shards
and writes their events as they came, so that those of one shard lie between the others', as in a store
that was written to all the time; then the read models by the real rebuild. The same seed and end make
the same store.
"""

import hashlib
import heapq
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from operator import itemgetter
from random import Random
from typing import Any, Final, LiteralString
from uuid import UUID

import click
import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg.sql import SQL, Identifier, Literal

from api.answers import FamilyAnswers
from domain.commands import Audience
from domain.ids import uuid7
from domain.payment import Payment, rfc3339
from domain.records import BankCall
from infrastructure.event_store import FlatJSON, FlatMapper, cause_text, event_digest
from infrastructure.idempotency import KEPT_DAYS, columns_of
from infrastructure.projections.rebuild import promote, rebuild, retire
from infrastructure.shards import SHARDS
from projections.registry import READ_MODELS
from scripts.bench.lives import Life, Past, events_of_shard
from scripts.bench.report import as_json_option, show
from scripts.bench.store import a_cluster
from scripts.bench.system import BenchFailed

PROCESSES: Final = 2

COPY_EVENTS: Final[LiteralString] = """
    COPY events (
        shard, position, originator_id, originator_version, event_id, topic, state, cause,
        recorded_at, digest, chain_hash
    ) FROM STDIN (FORMAT BINARY)
"""
EVENT_TYPES: Final = (
    "int2", "int8", "uuid", "int8", "uuid", "text", "bytea", "text", "timestamptz", "bytea", "bytea"
)  # fmt: skip
RECORDED_AT: Final = 8
COPY_SLOTS: Final[LiteralString] = """
    COPY order_slots (merchant_id, mode, order_id, payment_id) FROM STDIN (FORMAT BINARY)
"""
SLOT_TYPES: Final = ("text", "text", "text", "uuid")
COPY_KEYS: Final[LiteralString] = """
    COPY idempotency_keys (
        merchant_id, mode, key, fingerprint, request_id, payment_id, claimed_at, tells_of_people
    ) FROM STDIN (FORMAT BINARY)
"""
KEY_TYPES: Final = ("text", "text", "text", "bytea", "text", "uuid", "timestamptz", "bool")
COPY_ANSWERS: Final[LiteralString] = """
    COPY idempotency_answers (
        request_id, merchant_id, mode, key, payment_id, status, headers, body, tells_of_people
    ) FROM STDIN (FORMAT BINARY)
"""
ANSWER_TYPES: Final = (
    "text", "text", "text", "text", "uuid", "int2", "jsonb", "bytea", "bool"
)  # fmt: skip
QUARTERS: Final[LiteralString] = """
    SELECT to_char(quarter AT TIME ZONE 'UTC', '"events_"YYYY"_q"Q'), least_id_at(quarter),
           least_id_at(quarter + interval '3 months')
    FROM generate_series(date_trunc('quarter', %s::timestamptz, 'UTC'), %s, '3 months') AS quarter
"""
HEAD: Final[LiteralString] = "SELECT hash FROM shard_heads WHERE shard = %s AND position = 0"
SET_HEAD: Final[LiteralString] = (
    "UPDATE shard_heads SET position = %(position)s, hash = %(hash)s WHERE shard = %(shard)s"
)
VACUUM: Final[LiteralString] = """
    VACUUM (ANALYZE) events, order_slots, idempotency_keys, idempotency_answers
"""
# Bulk loading leaves room for a small event or answer at the end of most pages, where Postgres would put
# the next ones, each into another page of the past. In a log that grew one append at a time and was
# vacuumed on the way few are put there (two events and ten to thirty answers in a thousand, as counted). A
# page that has to keep a tenth free has no room for one.
PARTITIONS: Final[LiteralString] = (
    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'events'::regclass"
)
KEEP_A_TENTH: Final[LiteralString] = "ALTER TABLE {} SET (fillfactor = 90)"
CHECKPOINT: Final[LiteralString] = "CHECKPOINT"

# An ask and its answer have the same.
CAUSE_TEXT: Final = lru_cache(maxsize=1024)(cause_text)

Row = tuple[Any, ...]


@dataclass(slots=True)
class Shard:
    """One shard's past, as it is being written."""

    past: Past
    shard: int
    hash: bytes
    position: int = 0
    slots: dict[UUID, Row] = field(default_factory=dict)
    keys: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """The rows of `events`, in order; what else is to be written is kept until they are."""
        mapper = FlatMapper(FlatJSON())
        rng = Random(f"{self.past.seed}/{self.shard}/events")  # noqa: S311 - made up, not secret
        remembered_from = self.past.until - timedelta(days=KEPT_DAYS)
        histories: dict[UUID, list[Payment.Event]] = {}
        for life, place in events_of_shard(self.past, self.shard):
            step = life.steps[place]
            stored = stored_event(life, place)
            if life.steps[-1].at >= remembered_from:
                event = mapper.to_domain_event(stored)
                history = histories.setdefault(life.payment_id, [])
                history.append(event)
                if step.at >= remembered_from and step.cause.idempotency_key and not step.asks:
                    key, answer = _key_and_answer(life, place, history, rng)
                    self.keys.append(key)
                    self.answers.append(answer)
            self._keep_slot(life, place)
            if place + 1 == len(life.steps):
                histories.pop(life.payment_id, None)
            yield self._row(stored, life.steps[place], rng)

    def _row(self, stored: StoredEvent, step: Any, rng: Random) -> Row:
        milliseconds = int(step.at.timestamp() * 1000)
        event_id = uuid7(unix_milliseconds=milliseconds, random_bits=rng.getrandbits(74))
        assert isinstance(stored.originator_id, UUID)
        cause = CAUSE_TEXT(step.cause)
        digest = event_digest(
            event_id=event_id,
            originator_id=stored.originator_id,
            originator_version=stored.originator_version,
            topic=stored.topic,
            recorded_at=rfc3339(step.at),
            state=stored.state.decode(),
            cause=cause,
        )
        self.position += 1
        self.hash = hashlib.sha256(self.hash + digest).digest()
        return (
            self.shard,
            self.position,
            stored.originator_id,
            stored.originator_version,
            event_id,
            stored.topic,
            stored.state,
            cause,
            step.at,
            digest,
            self.hash,
        )

    def _keep_slot(self, life: Life, place: int) -> None:
        """An order's slot is taken by what is live, and freed by what is not."""
        match life.steps[place].topic:
            case "payment.authorization_requested":
                tenant = life.tenant
                row = (tenant.merchant_id, tenant.mode.value, life.order_id, life.payment_id)
                self.slots[life.payment_id] = row
            case "payment.authorization_declined" | "payment.voided" | "payment.expired":
                del self.slots[life.payment_id]
            case "payment.refunded" if _is_refunded(life, place):
                del self.slots[life.payment_id]


def _is_refunded(life: Life, place: int) -> bool:
    """In full."""
    amounts: Counter[str] = Counter()
    for step in life.steps[: place + 1]:
        if step.topic in {"payment.capture_requested", "payment.refund_requested"}:
            amounts[step.topic] += step.state["amount_minor"]
    return amounts["payment.capture_requested"] == amounts["payment.refund_requested"]


def stored_event(life: Life, place: int) -> StoredEvent:
    """One step of a life as the log has it."""
    step = life.steps[place]
    return StoredEvent(
        originator_id=life.payment_id,
        originator_version=place + 1,
        topic=step.topic,
        state=FlatJSON().encode({**step.state, "at": rfc3339(step.at)}),
    )


def _key_and_answer(
    life: Life, place: int, history: Sequence[Payment.Event], rng: Random
) -> tuple[Row, Row]:
    """The idempotency key of the command that was just answered, and its answer."""
    step, tenant = life.steps[place], life.tenant
    call = BankCall(
        payment_id=life.payment_id,
        tenant=tenant,
        operation=step.operation,
        bank_key="",
        cause=step.cause,
        audience=Audience(family="gateway"),
    )
    answer = columns_of(FamilyAnswers().settled(history, call))
    request_id = step.cause.request_id
    name = (tenant.merchant_id, tenant.mode.value, step.cause.idempotency_key)
    claimed_at = life.steps[place - 1].at
    return (
        (*name, rng.randbytes(32), request_id, life.payment_id, claimed_at, False),
        (request_id, *name, life.payment_id, *answer.values()),
    )


# --- into the database ----------------------------------------------------------------------------


def fill(url: str, past: Past, *, processes: int = PROCESSES, parts: int | None = None) -> int:
    """Fills a migrated store that is empty; how many events there are. Raises BenchFailed.

    `parts`: in how many the shards are written, those of each between one another; as many as processes,
    if not told.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        make_partitions_of_the_past(connection, past)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        step = parts or processes
        groups = [range(first, SHARDS, step) for first in range(step)]
        events = sum(pool.map(partial(fill_shards, url, past), groups))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(VACUUM)
        partitions = [name for (name,) in connection.execute(PARTITIONS).fetchall()]
        for name in (*partitions, "idempotency_answers"):
            connection.execute(SQL(KEEP_A_TENTH).format(Identifier(name)))
        connection.execute(CHECKPOINT)
    return events


def make_partitions_of_the_past(connection: psycopg.Connection[Any], past: Past) -> None:
    """Those that the quarters would have had, as the migration makes the present one's."""
    since = past.until - timedelta(days=past.days)
    for name, least, end in connection.execute(QUARTERS, [since, past.until]).fetchall():
        connection.execute(
            SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF events FOR VALUES FROM ({}) TO ({})")
            .format(Identifier(name), Literal(least), Literal(end))
        )  # fmt: skip


def fill_shards(url: str, past: Past, shards: Iterable[int]) -> int:
    """These shards, in one transaction; how many events they have. Raises BenchFailed."""
    with psycopg.connect(url) as connection:
        connection.execute("SET LOCAL synchronous_commit = off")  # a checkpoint ends it all
        made = [_empty(connection, past, shard) for shard in shards]
        rows = heapq.merge(*(each.rows() for each in made), key=itemgetter(RECORDED_AT))
        _copy(connection, COPY_EVENTS, EVENT_TYPES, rows)
        _copy(connection, COPY_SLOTS, SLOT_TYPES, (row for it in made for row in it.slots.values()))
        _copy(connection, COPY_KEYS, KEY_TYPES, (row for it in made for row in it.keys))
        answers = (row for it in made for row in it.answers)
        _copy(connection, COPY_ANSWERS, ANSWER_TYPES, answers)
        for each in made:
            head = {"position": each.position, "hash": each.hash, "shard": each.shard}
            connection.execute(SET_HEAD, head)
    return sum(each.position for each in made)


def _empty(connection: psycopg.Connection[Any], past: Past, shard: int) -> Shard:
    found = connection.execute(HEAD, [shard]).fetchone()
    if found is None:
        raise BenchFailed("only an empty store can be filled")
    return Shard(past, shard, found[0])


def _copy(
    connection: psycopg.Connection[Any],
    sql: LiteralString,
    types: Sequence[str],
    rows: Iterable[Row],
) -> None:
    with connection.cursor() as cursor, cursor.copy(sql) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def build_read_models(
    url: str, names: Iterable[str], *, processes: int = PROCESSES
) -> dict[str, float]:
    """By the real rebuild, each in the place of the empty one; the seconds that each took."""
    seconds = {}
    for name in names:
        began = time.perf_counter()
        rebuild(url, name, lambda _done, _of: None, workers=processes)
        promote(url, name)
        seconds[name] = round(time.perf_counter() - began, 2)
        retire(url, name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute(CHECKPOINT)
    return seconds


def midnight() -> datetime:
    """The last one, in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@click.command()
@click.option("--events", type=click.IntRange(SHARDS), default=1_000_000, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--days", type=float, default=365.0, show_default=True, help="That they took.")
@click.option("--until", type=click.DateTime(), help="When they ended.  [default: midnight, UTC]")
@click.option("--processes", type=click.IntRange(1, 64), default=PROCESSES, show_default=True)
@click.option("--database-url", help="A migrated store to fill, and leave; else one to throw away.")
@as_json_option
def main(*, database_url: str | None, as_json: bool, **options: Any) -> None:
    """Fill a store, build its read models, and say how long both took."""
    until = options.pop("until")
    processes = options.pop("processes")
    past = Past(until=midnight() if until is None else until.replace(tzinfo=UTC), **options)
    with ExitStack() as at_end:
        facts = {}
        if database_url is None:
            cluster = at_end.enter_context(a_cluster())
            facts, database_url = cluster.facts(), cluster.store("filled")
        began = time.perf_counter()
        try:
            events = fill(database_url, past, processes=processes)
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
        seconds = time.perf_counter() - began
        took = build_read_models(
            database_url, [model.name for model in READ_MODELS], processes=processes
        )
    result = {
        "machine": facts,
        "events": events,
        "fill": {"seconds": round(seconds, 2), "events_per_second": round(events / seconds)},
        "read_models": {
            name: {"seconds": each, "events_per_second": round(events / each)}
            for name, each in took.items()
        },
    }
    show(result, table(result), as_json=as_json)


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    rows = {"fill": result["fill"], **result["read_models"]}
    return "\n".join(
        [
            f"{result['events']:,} events",
            *(
                f"  {name:<12}{it['seconds']:>9.1f} s{it['events_per_second']:>10,} events a second"
                for name, it in rows.items()
            ),
        ]
    )


if __name__ == "__main__":
    main()

"""Verifying the whole store: shard by shard in several processes, each part as of one snapshot of its own,
so that it can be done while the system serves.

All that follows an aggregate is in one shard, and an append is to one shard: what a shard's snapshot shows
belongs together. What is sealed never changes, so it does not matter from which snapshot it is read.
"""

import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection, sql

from infrastructure.audit.tree import TILE_NODES
from infrastructure.checkpoint_keys import VerifierKey
from infrastructure.counted_work import all_of, executor, new_count
from infrastructure.shards import SHARDS
from infrastructure.verification import sealed
from infrastructure.verification.findings import Finding, Findings, Kind
from infrastructure.verification.models import check_models
from infrastructure.verification.order import ShardOrder
from infrastructure.verification.orphans import find_orphans
from infrastructure.verification.place import Place, layout_of, live_generations
from infrastructure.verification.reading import read_json_quickly
from infrastructure.verification.replay import ShardReplay
from infrastructure.verification.sealed import Outside
from projections.balances import NAME as BALANCES
from projections.changes import ReadModel
from projections.registry import FOLLOWING, INLINE, READ_MODELS

EVENTS_OF_A_TASK: Final = 10_000
# So that none waits long for the last one.
TASKS_OF_A_WORKER: Final = 4
TILES_OF_A_TASK: Final = 1_024
CHECKPOINTS_OF_A_TASK: Final = 5_000
COLLECTED_AFTER: Final = 500_000

# Those of all shards that there must be in which there is anything, or not what there is at first.
SHARDS_WITH: Final = """
    SELECT s.shard, coalesce(h.position, 0)
    FROM generate_series(0, {last}) AS s (shard)
    LEFT JOIN public.shard_heads AS h ON h.shard = s.shard
    LEFT JOIN public.audit_cursors AS c ON c.shard = s.shard
    WHERE (h.position, h.hash, c.position) IS DISTINCT FROM (0, sha256(''), 0) OR {is_any}
    ORDER BY h.position DESC NULLS LAST
"""
IN_SHARD: Final = "EXISTS (SELECT FROM public.{} AS t WHERE t.shard = s.shard)"
CHECKPOINTS: Final[LiteralString] = (
    "SELECT count(*), coalesce(max(number), 0) FROM public.audit_checkpoints"
)
# By how many there are, and not by what they say.
PARTS_OF_CHECKPOINTS: Final[LiteralString] = """
    SELECT number FROM (
        SELECT number, row_number() OVER (ORDER BY number) AS place FROM public.audit_checkpoints
    ) AS k WHERE place %% %(many)s = 1 ORDER BY number
"""
TILES: Final[LiteralString] = "SELECT count(*) FROM public.audit_tiles WHERE level = 0"
# No code's words for a time of day, an order of texts or a path are anyone else's.
SETTINGS: Final[LiteralString] = """
    SELECT set_config('search_path', 'pg_temp', true), set_config('timezone', 'UTC', true),
           set_config('statement_timeout', '0', true), set_config('jit', 'off', true)
"""

Progress = Callable[[int, int], None]
Task = partial["Part"]
# What reading fails with that is of other types, of other columns, or not there.
NOT_OURS: Final = (
    psycopg.DataError,
    psycopg.ProgrammingError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(slots=True)
class Part:
    """What one part of the work found, and how much there was."""

    findings: Findings = field(default_factory=Findings)
    events: int = 0
    aggregates: int = 0
    postings: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What there is, and what is wrong with it. `count`: of what is wrong, of which `findings` has the
    first of each part. `left_out`: the read models that were not asked for."""

    events: int
    aggregates: int
    sealed: int
    checkpoints: int
    postings: dict[str, dict[str, int]]
    keys: Sequence[str]
    left_out: Sequence[str]
    findings: Sequence[Finding]
    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be verified, and by which keys. `is_thorough`: every read model, also those that
    are made again in tables of their own."""

    database_url: str
    keys: Sequence[VerifierKey] = ()
    outside: Sequence[Outside] = ()
    is_thorough: bool = False


def verify(wanted: Wanted, progress: Progress, *, workers: int) -> Verified:
    """Looks at all of it. `progress` is told how much is done, and of how much."""
    began = time.monotonic()
    with psycopg.connect(wanted.database_url) as connection:
        shards = _shards(connection)
        size, _ = sealed.size_of_tree(connection)
        size = max(0, min(size, TILE_NODES * _number(connection, TILES)))
        checkpoints, numbers = _checkpoints(connection)
        first = Part()
        keys = sealed.trusted_keys(connection, wanted.keys, first.findings)
    events = sum(position for _, position in shards)
    groups = _groups(shards, max(EVENTS_OF_A_TASK, events // (workers * TASKS_OF_A_WORKER)))
    tasks: list[Task] = [partial(check_shards, wanted, group) for group in groups]
    tasks += [partial(each, wanted) for each in (check_runs, check_orphans, check_read_models)]
    tasks += [partial(check_tiles, wanted, part) for part in _tiles(size)]
    tasks += [partial(check_checkpoints, wanted, part, keys) for part in numbers]
    tasks += [partial(check_outside, wanted, keys)]
    total = 2 * events + size
    counted = new_count()
    # A process of its own costs what some thousands of events do.
    with executor(min(workers, 1 + events // EVENTS_OF_A_TASK), counted) as pool:
        waiting = {pool.submit(partial(as_far_as_can_be, task)) for task in tasks}
        parts = all_of(pool, waiting, lambda: progress(min(counted.value, total), total))
    progress(total, total)
    whole = _together([first, *parts])
    return Verified(
        events=whole.events,
        aggregates=whole.aggregates,
        sealed=size,
        checkpoints=checkpoints,
        postings=whole.postings,
        keys=[key.text for key in keys],
        left_out=[model.name for model in READ_MODELS if model.name not in _compared(wanted)],
        findings=whole.findings.kept,
        count=whole.findings.count,
        seconds=time.monotonic() - began,
    )


def _shards(connection: Connection[Any]) -> list[tuple[int, int]]:
    """Those that there is anything in, and how many events each says that it has; the largest first."""
    tables = ["events", "audit_runs", *(table for model in READ_MODELS for table in model.TABLES)]
    query = sql.SQL(SHARDS_WITH).format(
        last=SHARDS - 1,
        is_any=sql.SQL(" OR ").join(
            sql.SQL(IN_SHARD).format(sql.Identifier(table)) for table in tables
        ),
    )
    return connection.execute(query).fetchall()


def _groups(shards: Sequence[tuple[int, int]], least: int) -> list[list[int]]:
    """Together until they have so many events, so that few processes have to learn anew what the tables
    are like."""
    groups: list[list[int]] = [[]]
    events = 0
    for shard, position in shards:
        if events >= least:
            groups.append([])
            events = 0
        groups[-1].append(shard)
        events += position
    return groups


def _tiles(size: int) -> list[tuple[int, int, int]]:
    """The levels that a tree of that size has, in parts of so many tiles."""
    parts, level, nodes = [], 0, size
    while nodes:
        tiles = -(-nodes // TILE_NODES)
        parts += [
            (level, first, min(first + TILES_OF_A_TASK, tiles))
            for first in range(0, tiles, TILES_OF_A_TASK)
        ]
        level, nodes = level + 1, nodes // TILE_NODES
    return parts


def _checkpoints(connection: Connection[Any]) -> tuple[int, list[tuple[int, int]]]:
    """How many there are; and their numbers in parts, each from one up to another."""
    row = connection.execute(CHECKPOINTS).fetchone()
    many, last = (0, 0) if row is None else row
    parts = connection.execute(PARTS_OF_CHECKPOINTS, {"many": CHECKPOINTS_OF_A_TASK}).fetchall()
    firsts = [first for (first,) in parts]
    firsts[:1] = [min(first, 1) for first in firsts[:1]]
    return many, list(zip(firsts, [*firsts[1:], last + 1], strict=False))


def _number(connection: Connection[Any], query: LiteralString) -> int:
    row = connection.execute(query).fetchone()
    number: int = 0 if row is None else row[0]
    return number


def _together(parts: Sequence[Part]) -> Part:
    whole = Part()
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in parts:
        whole.findings.extend(part.findings)
        whole.events += part.events
        whole.aggregates += part.aggregates
        for currency, accounts in part.postings.items():
            sums[currency].update(accounts)
    whole.postings = {currency: dict(accounts) for currency, accounts in sorted(sums.items())}
    for currency, accounts in whole.postings.items():
        if sum(accounts.values()) != 0:
            says = f"all postings in {currency} together do not sum to zero"
            found = str(sum(accounts.values()))
            whole.findings.add(Kind.POSTINGS_UNBALANCED, says, expected="0", found=found)
    whole.findings.kept.sort(key=_place)
    return whole


def _place(finding: Finding) -> tuple[int, int]:
    return (
        -1 if finding.shard is None else finding.shard,
        -1 if finding.position is None else finding.position,
    )


# --- the parts, each in some process ---------------------------------------------------------------


def as_far_as_can_be(task: Task) -> Part:
    """What a part finds; that it could not be done, where the tables or what is in them are not such as
    ours are, is found too."""
    try:
        return task()
    except NOT_OURS as error:
        part, says = Part(), str(error).partition("\n")[0]
        part.findings.add(
            Kind.UNREADABLE,
            f"{task.func.__name__} could not be done: {type(error).__name__}: {says}",
        )
        return part


def check_shards(wanted: Wanted, shards: Sequence[int]) -> Part:
    """All that is in these shards, one after the other, each as of a snapshot of its own."""
    part, layout = Part(), None
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with psycopg.connect(wanted.database_url) as connection, collecting_rarely():
        read_json_quickly(connection)
        for shard in shards:
            begin_snapshot(connection)
            layout = layout or layout_of(connection, READ_MODELS)
            place = Place(
                connection=connection,
                shard=shard,
                findings=part.findings,
                layout=layout,
                live=live_generations(connection),
            )
            part.events += ShardOrder(place).check()
            replay = ShardReplay(place, is_thorough=wanted.is_thorough)
            for currency, accounts in replay.check().items():
                sums[currency].update(accounts)
            part.aggregates += replay.aggregates
            connection.rollback()
    part.postings = {currency: dict(accounts) for currency, accounts in sums.items()}
    return part


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Histories come and go by the thousand and have no cycles: to look for some in them, again and
    again, takes a quarter of the time."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def check_runs(wanted: Wanted) -> Part:
    """The one order, and that of the checkpoints."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        sealed.check_runs(connection, part.findings)
        sealed.check_numbers(connection, part.findings)
    return part


def check_tiles(wanted: Wanted, tiles: tuple[int, int, int]) -> Part:
    """Some of the tree."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        sealed.check_tiles(connection, tiles, part.findings)
    return part


def check_checkpoints(
    wanted: Wanted, numbers: tuple[int, int], keys: Sequence[VerifierKey]
) -> Part:
    """Some of the checkpoints."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        sealed.check_checkpoints(connection, numbers, keys, part.findings)
    return part


def check_outside(wanted: Wanted, keys: Sequence[VerifierKey]) -> Part:
    """The checkpoints that somebody kept."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        sealed.check_outside(connection, wanted.outside, keys, part.findings)
    return part


def check_orphans(wanted: Wanted) -> Part:
    """What belongs to nothing."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        find_orphans(connection, part.findings)
    return part


def check_read_models(wanted: Wanted) -> Part:
    """Whether what is compared with the log can be."""
    part = Part()
    with snapshot(wanted.database_url) as connection:
        check_models(connection, list(_compared(wanted).values()), part.findings)
    return part


def _compared(wanted: Wanted) -> dict[str, ReadModel]:
    """The read models that are held against the log, by name."""
    following = [model for model in FOLLOWING if wanted.is_thorough or model.name == BALANCES]
    return {model.name: model for model in (*INLINE, *following)}


@contextmanager
def snapshot(database_url: str) -> Iterator[Connection[Any]]:
    """A connection in one snapshot."""
    with psycopg.connect(database_url) as connection:
        begin_snapshot(connection)
        yield connection


def begin_snapshot(connection: Connection[Any]) -> None:
    """Until the transaction ends. Before the snapshot is taken, the tables of the read models are made
    to stay where they are: what takes a live one's place later is not what the snapshot shows."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    tables = [table for model in READ_MODELS for table in model.TABLES]
    connection.execute(
        sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(
            sql.SQL(", ").join(sql.Identifier("public", table) for table in tables)
        )
    )
    connection.execute(SETTINGS)

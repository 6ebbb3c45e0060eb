"""Another generation of a read model, built beside the live one from the whole log.

Shard by shard, in as many processes as are wanted: each shard is one snapshot, one transaction, and
the position that it was read up to. Whatever is killed, the shards that were done stay done. Then the
indexes; then a follower catches up with what happened meanwhile, and keeps up until the generation
takes the live one's place, in one short transaction that moves tables between schemas.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, LiteralString

import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg import Connection, errors
from psycopg.rows import DictRow, dict_row

from domain.payment import Payment
from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.projections import generations
from infrastructure.projections.follower import Follower
from infrastructure.projections.generations import (
    Generation,
    NoSuchGeneration,
    Slot,
    Status,
    in_slot,
    set_status,
    use,
)
from projections.changes import Change, ReadModel
from projections.registry import is_inline, read_model

PAYMENTS_IN_A_BATCH: Final = 500
FETCHED_AT_ONCE: Final = 5_000
LOOK_SECONDS: Final = 0.2
# Readers and writers wait behind a lock that is waited for, so none is waited for long.
LOCK_TIMEOUT: Final[LiteralString] = "SET LOCAL lock_timeout = '300ms'"
SWAP_TRIES: Final = 20
# Enough to be up with the log under any load that it can be under.
CATCH_UP_STEPS: Final = 100_000

# In order of the primary key: a payment's events come together, and nothing is sorted.
EVENTS: Final[LiteralString] = """
    SELECT originator_id, originator_version, topic, state FROM events
    WHERE shard = %(shard)s ORDER BY shard, originator_id, originator_version
"""
HEAD: Final[LiteralString] = "SELECT position FROM shard_heads WHERE shard = %(shard)s"
DONE: Final[LiteralString] = """
    SELECT shard, position FROM projection_positions
    WHERE name = %(name)s AND generation = %(generation)s
"""
SHARD_IS_DONE: Final[LiteralString] = """
    INSERT INTO projection_positions (name, generation, shard, position)
    VALUES (%(name)s, %(generation)s, %(shard)s, %(position)s)
"""
# One builder of a read model at a time: a lock that ends with its connection.
LOCK_BUILDER: Final[LiteralString] = (
    "SELECT pg_try_advisory_lock(hashtext('counterfoil rebuild'), hashtext(%(name)s)) AS is_ours"
)
SWAP_SLOTS: Final[LiteralString] = """
    UPDATE projection_generations SET
        slot = CASE slot WHEN 'live' THEN 'beside' ELSE 'live' END,
        status = CASE slot WHEN 'live' THEN 'previous' ELSE 'live' END,
        promoted_at = CASE slot WHEN 'live' THEN promoted_at ELSE clock_timestamp() END
    WHERE name = %(name)s
"""
HOLD_GENERATIONS: Final[LiteralString] = (
    "SELECT generation FROM projection_generations WHERE name = %(name)s FOR UPDATE"
)

Progress = Callable[[int, int], None]


class BuilderAtWork(Exception):
    """Somebody else is building this read model."""


class NotSwapped(Exception):
    """The tables were in use for too long, each time that it was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a rebuild made, or found made. `events`: in the log when their shards were read."""

    generation: Generation
    events: int
    quarantined: int


def rebuild(
    database_url: str, name: str, progress: Progress, *, workers: int, restart: bool = False
) -> Built:
    """Builds a generation of `name` beside the live one, or goes on where a killed rebuild was.

    `progress` is told events done, and of how many. `restart`: what is beside, if anything, is done
    away with first; a previous generation always is. Raises BuilderAtWork.
    """
    model = read_model(name)
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        row = connection.execute(LOCK_BUILDER, {"name": name}).fetchone()
        if row is None or not row["is_ours"]:
            raise BuilderAtWork(name)
        generation = _begun(connection, model, restart=restart)
        if generation.status is Status.BUILDING:
            _build_shards(connection, database_url, generation, progress, workers)
            _finish(connection, model, generation)
            generation = _beside(connection, name)
        return Built(
            generation=generation,
            events=sum(row["position"] for row in _done(connection, generation)),
            quarantined=_quarantined(connection, generation),
        )


def _begun(connection: Connection[DictRow], model: ReadModel, *, restart: bool) -> Generation:
    """What is beside, to go on with; else a new one."""
    beside = in_slot(connection, model.name, Slot.BESIDE)
    if beside is not None:
        outdated = beside.code_version != model.version or beside.status is Status.PREVIOUS
        if not restart and not outdated:
            return beside
        generations.drop_beside(connection, model, beside)
    return generations.create_beside(connection, model)


def _build_shards(
    connection: Connection[DictRow],
    database_url: str,
    generation: Generation,
    progress: Progress,
    workers: int,
) -> None:
    heads = connection.execute("SELECT shard, position FROM shard_heads").fetchall()
    total = sum(row["position"] for row in heads)
    done = {row["shard"]: row["position"] for row in _done(connection, generation)}
    # The largest first, so that none of them is left to be done alone.
    by_size = sorted(heads, key=itemgetter("position"), reverse=True)
    todo = [row["shard"] for row in by_size if row["shard"] not in done]
    events = sum(done.values())
    progress(min(events, total), total)
    context = multiprocessing.get_context("spawn")
    counted = context.Value("q", events)
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_count_in, initargs=(counted,)
    ) as pool:
        waiting: set[Future[int]] = {
            pool.submit(build_shard, database_url, generation, shard) for shard in todo
        }
        try:
            while waiting:
                ended, waiting = wait(waiting, LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in ended:
                    future.result()
                progress(min(counted.value, total), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    progress(total, total)


_counted: Any = None


def _count_in(counted: Any) -> None:
    """The number of events done, which the processes of one rebuild share."""
    global _counted  # noqa: PLW0603 - how a pool's processes are given something to share
    _counted = counted


def build_shard(database_url: str, generation: Generation, shard: int) -> int:
    """Makes the rows of one shard's payments, in one transaction, as of one snapshot of the log;
    how many events there were."""
    follower = Follower(generation)
    with (
        psycopg.connect(database_url, row_factory=dict_row) as reader,
        psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as writer,
    ):
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        head = reader.execute(HEAD, {"shard": shard}).fetchone()
        assert head is not None
        changes = _whole_histories(reader, shard)
        with writer.transaction():
            writer.execute("SET LOCAL synchronous_commit = off")  # the last commit waits for all
            use(writer, Slot.BESIDE)
            while batch := list(islice(changes, PAYMENTS_IN_A_BATCH)):
                follower.take_in(writer, batch)
                if _counted is not None:
                    with _counted.get_lock():
                        _counted.value += sum(change.new for change in batch)
            writer.execute(
                SHARD_IS_DONE,
                {
                    "name": generation.name,
                    "generation": generation.generation,
                    "shard": shard,
                    "position": head["position"],
                },
            )
        position: int = head["position"]
        return position


def _whole_histories(reader: Connection[DictRow], shard: int) -> Iterator[Change]:
    """Each payment of the shard, a page of rows in memory at a time."""
    mapper = FlatMapper(FlatJSON())
    with reader.cursor(name="events") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(EVENTS, {"shard": shard})
        for _, rows in groupby(cursor, key=itemgetter("originator_id")):
            history: list[Payment.Event] = [mapper.to_domain_event(_stored(row)) for row in rows]
            yield Change(shard=shard, history=history, new=len(history))


def _stored(row: dict[str, Any]) -> StoredEvent:
    return StoredEvent(
        originator_id=row["originator_id"],
        originator_version=row["originator_version"],
        topic=row["topic"],
        state=bytes(row["state"]),
    )


def _finish(connection: Connection[DictRow], model: ReadModel, generation: Generation) -> None:
    """Indexes, statistics, and the first catching up; from then on a worker's follower keeps up."""
    with connection.transaction():
        use(connection, Slot.BESIDE)
        connection.execute(model.INDEXES)
        for table in model.TABLES:
            connection.execute(psycopg.sql.SQL("ANALYZE {}").format(psycopg.sql.Identifier(table)))
        set_status(connection, generation, Status.READY)
    catch_up(connection, generation)


def catch_up(connection: Connection[DictRow], generation: Generation) -> None:
    """Takes in whatever there is, until there is no more."""
    follower = Follower(generation)
    for _ in range(CATCH_UP_STEPS):
        if follower.step(connection) == 0:
            return


# --- taking the other's place ------------------------------------------------------------------


def promote(database_url: str, name: str) -> Generation:
    """What was built beside becomes what everyone reads; what was, is kept beside, and kept up.
    Returns the new live generation. Raises NoSuchGeneration, NotSwapped."""
    return _take_place(database_url, name, Status.READY, "there is no rebuilt generation of {}")


def rollback(database_url: str, name: str) -> Generation:
    """What was live before becomes live again. Raises NoSuchGeneration, NotSwapped."""
    return _take_place(database_url, name, Status.PREVIOUS, "there is no previous generation of {}")


def retire(database_url: str, name: str) -> Generation:
    """Does away with what is beside. Raises NoSuchGeneration."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        beside = _beside(connection, name)
        generations.drop_beside(connection, read_model(name), beside)
        return beside


def _take_place(database_url: str, name: str, wanted: Status, otherwise: str) -> Generation:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        beside = in_slot(connection, name, Slot.BESIDE)
        if beside is None or beside.status is not wanted:
            raise NoSuchGeneration(otherwise.format(name))
        if _quarantined(connection, beside):
            raise NoSuchGeneration(
                f"generation {beside.generation} of {name} lacks payments that it could not take "
                f"in; see `counterfoil projections quarantine {name}`"
            )
        for _ in range(SWAP_TRIES):
            # Nearly all of it without a lock, so that little is left to do under it.
            catch_up(connection, beside)
            try:
                _swap(connection, read_model(name), beside)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                continue
            live = in_slot(connection, name, Slot.LIVE)
            assert live is not None
            return live
    raise NotSwapped(f"the tables of {name} were in use for too long; nothing was changed")


def _swap(connection: Connection[DictRow], model: ReadModel, beside: Generation) -> None:
    """In one transaction: nobody writes either's rows, the last events are taken in, and the tables
    change schemas. Readers wait for the last of it, which takes milliseconds."""
    live = in_slot(connection, model.name, Slot.LIVE)
    assert live is not None
    with connection.transaction():
        connection.execute(LOCK_TIMEOUT)
        connection.execute(HOLD_GENERATIONS, {"name": model.name})
        for schema in ("public", "beside"):
            for table in model.TABLES:
                connection.execute(
                    psycopg.sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(
                        psycopg.sql.Identifier(schema, table)
                    )
                )
        catch_up(connection, beside)
        for table in model.TABLES:
            for before, after in (
                ("public", "swapping"),
                ("beside", "public"),
                ("swapping", "beside"),
            ):
                connection.execute(
                    psycopg.sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                        psycopg.sql.Identifier(before, table), psycopg.sql.Identifier(after)
                    )
                )
        connection.execute(SWAP_SLOTS, {"name": model.name})
        if is_inline(model.name):
            _swap_positions(connection, live, beside)


def _swap_positions(connection: Connection[DictRow], live: Generation, beside: Generation) -> None:
    """What is written with the events has no positions; what was, has read all that there is."""
    connection.execute(
        generations.DELETE_POSITIONS, {"name": beside.name, "generation": beside.generation}
    )
    connection.execute(
        generations.START_AT_HEADS, {"name": live.name, "generation": live.generation}
    )


def _beside(connection: Connection[DictRow], name: str) -> Generation:
    beside = in_slot(connection, name, Slot.BESIDE)
    if beside is None:
        raise NoSuchGeneration(f"there is nothing beside the live generation of {name}")
    return beside


def _done(connection: Connection[DictRow], generation: Generation) -> list[dict[str, Any]]:
    return connection.execute(
        DONE, {"name": generation.name, "generation": generation.generation}
    ).fetchall()


def _quarantined(connection: Connection[DictRow], generation: Generation) -> int:
    return sum(
        row["quarantined"]
        for row in generations.lags(connection)
        if (row["name"], row["generation"]) == (generation.name, generation.generation)
    )

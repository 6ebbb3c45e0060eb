"""Another generation of a read model, built beside the live one from the whole log.

Shard by shard, in as many processes as are wanted: each shard is one snapshot, one transaction, and
the position that it was read up to. Whatever is killed, the shards that were done stay done. Then the
indexes; then a follower catches up with what happened meanwhile, and keeps up until the generation
takes the live one's place, in one short transaction that moves tables between schemas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection, errors
from psycopg.rows import DictRow, dict_row

from infrastructure.counted_work import all_of, count, executor, new_count
from infrastructure.projections import generations
from infrastructure.projections.batches import Read, decoded, heads_of_the_log
from infrastructure.projections.follower import Follower, Overtaken
from infrastructure.projections.generations import (
    Generation,
    NoSuchGeneration,
    Slot,
    Status,
    hold_alone,
    in_slot,
    set_status,
    use,
)
from projections.changes import Change, ReadModel, Write
from projections.registry import is_inline, read_model

PAYMENTS_IN_A_BATCH: Final = 1_000
FETCHED_AT_ONCE: Final = 5_000
# Readers and writers wait behind a lock that is waited for, so none is waited for long.
# What is said to be done is done, though what it caught up with need not have waited for the disk.
DURABLY: Final[LiteralString] = "SET LOCAL synchronous_commit TO DEFAULT"
LOCK_TIMEOUT: Final[LiteralString] = "SET LOCAL lock_timeout = '300ms'"
SWAP_TRIES: Final = 10
# Where another follower is always quicker, nothing is left to be caught up with for long.
TIMES_OVERTAKEN: Final = 1_000

# In order of the primary key: a payment's events come together, and nothing is sorted.
EVENTS: Final[LiteralString] = """
    SELECT shard, originator_id, 1 AS since, originator_version, topic, state, event_id, cause
    FROM public.events
    WHERE shard = %(shard)s AND topic LIKE ANY(%(topics)b::text[])
    ORDER BY shard, originator_id, originator_version
"""
HEAD: Final[LiteralString] = "SELECT position FROM public.shard_heads WHERE shard = %(shard)s"
QUARANTINED: Final[LiteralString] = """
    SELECT count(*) AS payments FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s
"""
DONE: Final[LiteralString] = """
    SELECT shard, position FROM public.projection_positions
    WHERE name = %(name)s AND generation = %(generation)s
"""
# One builder of a shard at a time. A process of a rebuild that was killed may still be at it.
LOCK_SHARD: Final[LiteralString] = """
    SELECT pg_advisory_xact_lock(
        hashtext('counterfoil rebuild ' || %(name)s || %(generation)s), %(shard)s
    )
"""
SHARD_IS_DONE: Final[LiteralString] = """
    INSERT INTO public.projection_positions (name, generation, shard, position)
    VALUES (%(name)s, %(generation)s, %(shard)s, %(position)s)
"""
EMPTY_SHARDS_ARE_DONE: Final[LiteralString] = """
    INSERT INTO public.projection_positions (name, generation, shard, position)
    SELECT %(name)s, %(generation)s, shard, 0 FROM public.shard_heads WHERE position = 0
    ON CONFLICT (name, generation, shard) DO NOTHING
"""
# One builder of a read model at a time: a lock that ends with its connection.
LOCK_BUILDER: Final[LiteralString] = (
    "SELECT pg_advisory_lock(hashtext('counterfoil rebuild'), hashtext(%(name)s))"
)
# The server may need a moment to notice that the one before has ended.
BUILDER_TIMEOUT: Final[LiteralString] = "SET LOCAL lock_timeout = '500ms'"
SWAP_SLOTS: Final[LiteralString] = """
    UPDATE public.projection_generations SET
        slot = CASE slot WHEN 'live' THEN 'beside' ELSE 'live' END,
        status = CASE slot WHEN 'live' THEN 'previous' ELSE 'live' END,
        promoted_at = CASE slot WHEN 'live' THEN promoted_at ELSE clock_timestamp() END
    WHERE name = %(name)s
"""

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
        _be_the_builder(connection, name)
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


def _be_the_builder(connection: Connection[DictRow], name: str) -> None:
    """For as long as the connection lasts."""
    try:
        with connection.transaction():
            connection.execute(BUILDER_TIMEOUT)
            connection.execute(LOCK_BUILDER, {"name": name})
    except errors.LockNotAvailable as error:
        raise BuilderAtWork(name) from error


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
    identity = {"name": generation.name, "generation": generation.generation}
    connection.execute(EMPTY_SHARDS_ARE_DONE, identity)
    heads = heads_of_the_log(connection)
    total = sum(heads)
    done = {row["shard"]: row["position"] for row in _done(connection, generation)}
    # The largest first, so that none of them is left to be done alone.
    by_size = sorted(range(len(heads)), key=heads.__getitem__, reverse=True)
    todo = [shard for shard in by_size if shard not in done]
    events = sum(done.values())
    progress(min(events, total), total)
    counted = new_count(events)
    with executor(workers, counted) as pool:
        waiting = {pool.submit(build_shard, database_url, generation, shard) for shard in todo}
        all_of(pool, waiting, lambda: progress(min(counted.value, total), total))
    progress(total, total)


class Builder(Follower):
    """Writes what cannot be there yet."""

    def write(self, connection: Connection[DictRow], write: Write) -> None:
        """Copies the rows as they are; the statement is for what adds to rows."""
        write_new(connection, write)


def write_new(connection: Connection[Any], write: Write) -> None:
    """Of rows that cannot be there yet: by COPY, where a model says into which table."""
    if write.into is None:
        connection.execute(write.sql, write.parameters)
        return
    command = psycopg.sql.SQL("COPY {} ({}) FROM STDIN").format(
        psycopg.sql.Identifier(write.into),
        psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, write.parameters)),
    )
    with connection.cursor() as cursor, cursor.copy(command) as copy:
        for row in zip(*write.parameters.values(), strict=True):
            copy.write_row(row)


def build_shard(database_url: str, generation: Generation, shard: int) -> int:
    """Makes the rows of one shard's payments, in one transaction, as of one snapshot of the log,
    unless somebody did; how many events there were. Raises Overtaken when the generation is gone."""
    builder = Builder(generation)
    identity = {"name": generation.name, "generation": generation.generation, "shard": shard}
    with (
        psycopg.connect(database_url, row_factory=dict_row) as reader,
        psycopg.connect(database_url, row_factory=dict_row, autocommit=True) as writer,
        writer.transaction(),
    ):
        writer.execute("SET LOCAL synchronous_commit = off")  # the last commit waits for all
        writer.execute(LOCK_SHARD, identity)
        builder.hold(writer)
        done = {row["shard"]: row["position"] for row in _done(writer, generation)}
        if shard in done:
            position: int = done[shard]
            return position
        head = _write_shard(reader, writer, builder, shard)
        writer.execute(SHARD_IS_DONE, {**identity, "position": head})
        return head


def _write_shard(
    reader: Connection[DictRow], writer: Connection[DictRow], follower: Follower, shard: int
) -> int:
    """Up to which position it was read."""
    reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    head = reader.execute(HEAD, {"shard": shard}).fetchone()
    assert head is not None
    payments = _payments(reader, follower, shard)
    counted = 0
    while batch := list(islice(payments, PAYMENTS_IN_A_BATCH)):
        follower.take_in(writer, batch)
        new = sum(each.new for each in batch if isinstance(each, Change))
        count(new)
        counted += new
    position: int = head["position"]
    count(max(0, position - counted))  # those of aggregates of other kinds
    return position


def _payments(reader: Connection[DictRow], follower: Follower, shard: int) -> Iterator[Read]:
    """Each payment of the shard, whole, with a page of rows in memory at a time."""
    with reader.cursor(name="events") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(EVENTS, {"shard": shard, "topics": follower.topics}, binary=True)
        yield from decoded(cursor)


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
    """Takes in all of the log up to where it is now: appends go on all the time, and who waited to be
    up with the last of them would perhaps wait for ever."""
    follower = Follower(generation)
    upto = heads_of_the_log(connection)
    overtaken = 0
    while True:
        try:
            if follower.step(connection, heads=upto) == 0:
                return
        except Overtaken:
            overtaken += 1
            if overtaken == TIMES_OVERTAKEN:
                raise


# --- taking the other's place ------------------------------------------------------------------


def promote(database_url: str, name: str) -> Generation:
    """What was built beside becomes what everyone reads; what was, is kept beside, and kept up.
    Returns the new live generation. Raises NoSuchGeneration, NotSwapped."""
    return _take_place(database_url, name, Status.READY, "there is no rebuilt generation of {}")


def rollback(database_url: str, name: str) -> Generation:
    """What was live before becomes live again. Raises NoSuchGeneration, NotSwapped."""
    return _take_place(database_url, name, Status.PREVIOUS, "there is no previous generation of {}")


def retire(database_url: str, name: str) -> Generation:
    """Does away with what is beside. Raises NoSuchGeneration, BuilderAtWork."""
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        _be_the_builder(connection, name)
        beside = _beside(connection, name)
        generations.drop_beside(connection, read_model(name), beside)
        return beside


def _take_place(database_url: str, name: str, wanted: Status, otherwise: str) -> Generation:
    with psycopg.connect(database_url, autocommit=True, row_factory=dict_row) as connection:
        for _ in range(SWAP_TRIES):
            beside = _fit_to_live(connection, name, wanted, otherwise)
            # Nearly all of it without a lock, so that little is left to do under it.
            catch_up(connection, beside)
            try:
                return _swap(connection, read_model(name), wanted, otherwise)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                continue
    raise NotSwapped(f"the tables of {name} were in use for too long; nothing was changed")


def _fit_to_live(
    connection: Connection[DictRow], name: str, wanted: Status, otherwise: str
) -> Generation:
    """What is beside, which can be read by everyone. Raises NoSuchGeneration."""
    beside = in_slot(connection, name, Slot.BESIDE)
    if beside is None or beside.status is not wanted:
        raise NoSuchGeneration(otherwise.format(name))
    shown = f"generation {beside.generation} of {name}"
    if not beside.is_of_this_code:
        raise NoSuchGeneration(f"{shown} was made by another version of this program")
    if _quarantined(connection, beside):
        raise NoSuchGeneration(
            f"{shown} lacks payments that it could not take in; "
            f"see `counterfoil projections quarantine {name}`"
        )
    return beside


def _swap(
    connection: Connection[DictRow], model: ReadModel, wanted: Status, otherwise: str
) -> Generation:
    """In one transaction: nobody writes either's rows, the last events are taken in, and the tables
    change schemas. Readers wait for the last of it, which takes milliseconds."""
    with connection.transaction():
        connection.execute(LOCK_TIMEOUT)
        hold_alone(connection, model.name)
        # Somebody else may have done this, or the opposite, since it was looked.
        beside = _fit_to_live(connection, model.name, wanted, otherwise)
        live = in_slot(connection, model.name, Slot.LIVE)
        if live is None:
            raise NoSuchGeneration(f"{model.name} has no live generation yet; migrate first")
        for schema in ("public", "beside"):
            for table in model.TABLES:
                connection.execute(
                    psycopg.sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(
                        psycopg.sql.Identifier(schema, table)
                    )
                )
        catch_up(connection, beside)
        _fit_to_live(connection, model.name, wanted, otherwise)
        _swap_schemas(connection, model)
        connection.execute(SWAP_SLOTS, {"name": model.name})
        if is_inline(model.name):
            _swap_positions(connection, live, beside)
        connection.execute(DURABLY)
        swapped = in_slot(connection, model.name, Slot.LIVE)
        assert swapped is not None
        return swapped


def _swap_schemas(connection: Connection[DictRow], model: ReadModel) -> None:
    """Readers are kept out from here on, so that it goes out at once."""
    moves = [
        psycopg.sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
            psycopg.sql.Identifier(before, table), psycopg.sql.Identifier(after)
        )
        for table in model.TABLES
        for before, after in (
            ("public", "swapping"),
            ("beside", "public"),
            ("swapping", "beside"),
        )
    ]
    # Several statements cannot be prepared.
    connection.execute(psycopg.sql.SQL("; ").join(moves), prepare=False)


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
    row = connection.execute(
        QUARANTINED, {"name": generation.name, "generation": generation.generation}
    ).fetchone()
    assert row is not None
    count: int = row["payments"]
    return count

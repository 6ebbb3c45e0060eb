"""The generations of each read model: which one is live, which one is beside it, and their tables.

The live generation's tables are in the schema that everyone reads; the other's are in `beside`, under
the same names. So the same SQL writes either, by the search path, and taking the other's place is to
move tables between schemas, which no reader notices. While the path leads beside it leads nowhere
else, so that nothing meant for tables that are gone can end in the live ones: what is kept of the
generations themselves is therefore named with its schema.

Whoever writes the rows of a generation holds its row here, in common with others; whoever moves or
drops its tables holds that row alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, LiteralString

from psycopg import Connection, Cursor, sql
from psycopg.rows import DictRow

from infrastructure.shards import SHARDS
from projections.changes import ReadModel
from projections.registry import ALL, ONCE, READ_MODELS, is_inline


class Slot(StrEnum):
    """Where a generation's tables are."""

    LIVE = "live"
    BESIDE = "beside"


class Status(StrEnum):
    """What a generation is. `ready`: it has caught up, and follows. `previous`: it was live."""

    LIVE = "live"
    BUILDING = "building"
    READY = "ready"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One making of a read model."""

    name: str
    generation: int
    slot: Slot
    status: Status
    code_version: int
    paused: bool

    @property
    def follows(self) -> bool:
        """Whether it is kept up with the log by a follower, rather than with the events."""
        built = self.status is not Status.BUILDING
        return built and (self.slot is Slot.BESIDE or not is_inline(self.name))

    @property
    def is_of_this_code(self) -> bool:
        """Whether this code makes the rows that the generation has. Other code's are left to it."""
        known = {model.name: model.version for model in ALL}
        return known.get(self.name) == self.code_version


# The version of no code: a model that is written with the events, and began among them.
INCOMPLETE: Final = 0
# More than a follower takes in while one waits for it; a rebuild is many times faster.
FAR_BEHIND_EVENTS: Final = 100_000


class NoSuchGeneration(Exception):
    """There is no generation that this could be done to. One line that says why."""


SELECT: Final[LiteralString] = """
    SELECT name, generation, slot, status, code_version, paused FROM public.projection_generations
    ORDER BY name, generation
"""
INSERT: Final[LiteralString] = """
    INSERT INTO public.projection_generations (
        name, generation, slot, status, code_version, built_at, promoted_at
    )
    SELECT %(name)s, 1 + coalesce(max(generation), 0), %(slot)s, %(status)s, %(code_version)s,
           %(built_at)s, %(built_at)s
    FROM public.projection_generations WHERE name = %(name)s
    RETURNING generation
"""
START_AT_ZERO: Final[LiteralString] = """
    INSERT INTO public.projection_positions (name, generation, shard, position)
    SELECT %(name)s, %(generation)s, shard, 0 FROM generate_series(0, %(last)s) AS shard
"""
START_AT_HEADS: Final[LiteralString] = """
    INSERT INTO public.projection_positions (name, generation, shard, position)
    SELECT %(name)s, %(generation)s, shard, position FROM public.shard_heads
"""
DELETE_POSITIONS: Final[LiteralString] = """
    DELETE FROM public.projection_positions WHERE name = %(name)s AND generation = %(generation)s
"""
DELETE_QUARANTINE: Final[LiteralString] = """
    DELETE FROM public.projection_quarantine WHERE name = %(name)s AND generation = %(generation)s
"""
DELETE: Final[LiteralString] = """
    DELETE FROM public.projection_generations WHERE name = %(name)s AND generation = %(generation)s
"""
SET_STATUS: Final[LiteralString] = """
    UPDATE public.projection_generations SET status = %(status)s, built_at = clock_timestamp()
    WHERE name = %(name)s AND generation = %(generation)s
"""
SET_PAUSED: Final[LiteralString] = """
    UPDATE public.projection_generations SET paused = %(paused)s WHERE name = %(name)s
"""
SET_PATH: Final[dict[Slot, LiteralString]] = {
    Slot.LIVE: "SET LOCAL search_path = public",
    Slot.BESIDE: "SET LOCAL search_path = beside",
}
# Where the tables are, for as long as the transaction lasts: nobody can move or drop them meanwhile.
# A number may come again, with rows that other code makes: to whoever follows by this code, it is gone.
# The weakest lock that says so: a lease can be taken over and a model paused whoever has it.
# What a crash of the server takes back is taken in again, rows and positions together, so that no
# commit waits for the disk.
HOLD: Final[LiteralString] = """
    SELECT slot, set_config(
        'search_path', CASE slot WHEN 'live' THEN 'public' ELSE 'beside' END, true
    ), set_config('synchronous_commit', 'off', true)
    FROM (
        SELECT slot FROM public.projection_generations
        WHERE name = %(name)s AND generation = %(generation)s AND code_version = %(code_version)s
        FOR KEY SHARE
    ) AS held
"""
HELD_OR_FAIL: Final[LiteralString] = """
    SELECT public.require(count(slot) = 1, 'no such generation') FROM held
"""
HOLD_OR_FAIL: Final[LiteralString] = "WITH held AS MATERIALIZED (" + HOLD + ")" + HELD_OR_FAIL
HOLD_ALONE: Final[LiteralString] = """
    SELECT generation FROM public.projection_generations WHERE name = %(name)s
    ORDER BY generation FOR UPDATE
"""
HEADS_TOTAL: Final[LiteralString] = "SELECT sum(position)::bigint AS events FROM public.shard_heads"
LAGS: Final[LiteralString] = """
    SELECT g.name, g.generation, g.slot, g.status, g.code_version, g.paused, g.created_at,
           g.promoted_at, count(p.shard) AS shards,
           coalesce(sum(h.position - p.position), 0)::bigint AS lag_events,
           coalesce(
               extract(epoch FROM clock_timestamp() - min(oldest.recorded_at)), 0
           )::float AS lag_seconds,
           (SELECT count(*) FROM public.projection_quarantine q
            WHERE q.name = g.name AND q.generation = g.generation) AS quarantined
    FROM public.projection_generations g
    LEFT JOIN public.projection_positions p ON p.name = g.name AND p.generation = g.generation
    LEFT JOIN public.shard_heads h ON h.shard = p.shard
    LEFT JOIN LATERAL (
        SELECT e.recorded_at FROM public.events e
        WHERE e.shard = p.shard AND e.position = p.position + 1 AND h.position > p.position
    ) AS oldest ON true
    GROUP BY g.name, g.generation ORDER BY g.name, g.generation
"""


def all_generations(connection: Connection[DictRow]) -> list[Generation]:
    """Every generation that there is, by name."""
    return [_generation(row) for row in connection.execute(SELECT).fetchall()]


def lags(connection: Connection[DictRow]) -> list[dict[str, Any]]:
    """Every generation, with `lag_events`, `lag_seconds`, `quarantined`; and `shards`, how many of
    the log's it has read at all, which is none for one that is written with the events."""
    return connection.execute(LAGS).fetchall()


def in_slot(connection: Connection[DictRow], name: str, slot: Slot) -> Generation | None:
    """The generation of `name` in that slot, if there is one."""
    found = [g for g in all_generations(connection) if g.name == name and g.slot is slot]
    return found[0] if found else None


def create_missing(connection: Connection[DictRow], migrated: Collection[str]) -> list[str]:
    """Makes the tables of read models that the database does not know yet; their names. `migrated`:
    the migrations that were applied just now."""
    known = {each.name for each in all_generations(connection)}
    missing = [model for model in ALL if model.name not in known]
    row = connection.execute(HEADS_TOTAL).fetchone()
    is_first = row is not None and not row["events"]
    for model in missing:
        connection.execute(model.CREATE)
        connection.execute(model.INDEXES)
        has_no_past = is_first or model.migration in migrated
        lacks_the_past = is_inline(model.name) and not has_no_past
        version = INCOMPLETE if lacks_the_past else model.version
        generation = _insert(connection, model, Slot.LIVE, Status.LIVE, version)
        if model in ONCE:
            connection.execute(START_AT_HEADS, {"name": model.name, "generation": generation})
        elif not is_inline(model.name):
            start_at_zero(connection, model.name, generation)
    return [model.name for model in missing]


def missing_models(connection: Connection[DictRow]) -> list[str]:
    """The names of the read models that `create_missing` would make."""
    known = {each.name for each in all_generations(connection)}
    return [model.name for model in ALL if model.name not in known]


def to_rebuild(connection: Connection[DictRow]) -> list[str]:
    """The names of the read models that only a rebuild makes right, or that one makes right sooner."""
    live = {each.name: each for each in all_generations(connection) if each.slot is Slot.LIVE}
    far = {
        row["name"]
        for row in lags(connection)
        if row["slot"] == Slot.LIVE and row["lag_events"] > FAR_BEHIND_EVENTS
    }
    names = [model.name for model in READ_MODELS if model.name in live]
    return [name for name in names if name in far or not live[name].is_of_this_code]


def create_beside(connection: Connection[DictRow], model: ReadModel) -> Generation:
    """Makes empty tables beside the live ones, without their indexes, which come after the rows."""
    with connection.transaction():
        use(connection, Slot.BESIDE)
        connection.execute(model.CREATE)
        _insert(connection, model, Slot.BESIDE, Status.BUILDING, model.version)
    made = in_slot(connection, model.name, Slot.BESIDE)
    assert made is not None
    return made


def drop_beside(connection: Connection[DictRow], model: ReadModel, generation: Generation) -> None:
    """Does away with a generation that is not live."""
    identity = {"name": generation.name, "generation": generation.generation}
    with connection.transaction():
        hold_alone(connection, generation.name)
        still = in_slot(connection, generation.name, Slot.BESIDE)
        if still is None or still.generation != generation.generation:
            raise NoSuchGeneration(f"there is nothing beside the live generation of {model.name}")
        for table in model.TABLES:
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier("beside", table))
            )
        for statement in (DELETE_POSITIONS, DELETE_QUARANTINE, DELETE):
            connection.execute(statement, identity)


def start_at_zero(connection: Connection[DictRow], name: str, generation: int) -> None:
    """The generation has read nothing."""
    parameters = {"name": name, "generation": generation, "last": SHARDS - 1}
    connection.execute(START_AT_ZERO, parameters)


def hold(connection: Connection[DictRow], generation: Generation) -> Cursor[DictRow]:
    """Until the transaction ends the generation's tables stay where they are, which is what unnamed
    tables are from here on. No row: it is no more."""
    return connection.execute(HOLD, held_as(generation))


def held_as(generation: Generation) -> dict[str, Any]:
    """The parameters of HOLD."""
    return {
        "name": generation.name,
        "generation": generation.generation,
        "code_version": generation.code_version,
    }


def hold_alone(connection: Connection[DictRow], name: str) -> None:
    """Until the transaction ends nobody writes what follows the log, in any generation of `name`."""
    connection.execute(HOLD_ALONE, {"name": name})


def use(connection: Connection[DictRow], slot: Slot) -> None:
    """Until the transaction ends, tables of read models are those in `slot`."""
    connection.execute(SET_PATH[slot])


def set_status(connection: Connection[DictRow], generation: Generation, status: Status) -> None:
    """It is built, as far as `status` says."""
    connection.execute(
        SET_STATUS,
        {"name": generation.name, "generation": generation.generation, "status": status.value},
    )


def set_paused(connection: Connection[DictRow], name: str, *, paused: bool) -> None:
    """Its followers stop when they next renew their leases, or go on."""
    connection.execute(SET_PAUSED, {"name": name, "paused": paused})


def _insert(
    connection: Connection[DictRow], model: ReadModel, slot: Slot, status: Status, version: int
) -> int:
    row = connection.execute(
        INSERT,
        {
            "name": model.name,
            "slot": slot.value,
            "status": status.value,
            "code_version": version,
            "built_at": None,
        },
    ).fetchone()
    assert row is not None
    number: int = row["generation"]
    return number


def _generation(row: Any) -> Generation:
    return Generation(
        name=row["name"],
        generation=row["generation"],
        slot=Slot(row["slot"]),
        status=Status(row["status"]),
        code_version=row["code_version"],
        paused=row["paused"],
    )

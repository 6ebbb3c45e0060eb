"""What is said of the read models themselves: whether their rows are those that this code makes, how far they
say that they have read, and what they have set aside. What verifying leaves out on their word, it tells.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

from infrastructure.shards import SHARDS
from infrastructure.verification.findings import Findings, Kind, named
from infrastructure.verification.place import live_generations
from projections.changes import ReadModel
from projections.registry import is_inline

FETCHED_AT_ONCE: Final = 1_000

SET_ASIDE: Final[LiteralString] = """
    SELECT q.name, q.shard, q.originator_id, q.applied_version,
           (SELECT e.topic FROM public.events AS e
            WHERE e.shard = q.shard AND e.originator_id = q.originator_id LIMIT 1) AS topic
    FROM public.projection_quarantine AS q
    JOIN public.projection_generations AS g
      ON g.name = q.name AND g.generation = q.generation AND g.slot = 'live'
    WHERE q.name = ANY (%(names)s) ORDER BY q.name, q.shard, q.originator_id
"""
# Further than the log goes: what comes next would never be taken in.
READ_TOO_FAR: Final[LiteralString] = """
    SELECT p.name, p.shard, p.position, coalesce(h.position, 0) AS head
    FROM public.projection_positions AS p
    JOIN public.projection_generations AS g
      ON g.name = p.name AND g.generation = p.generation AND g.slot = 'live'
    LEFT JOIN public.shard_heads AS h ON h.shard = p.shard
    WHERE p.position > coalesce(h.position, 0) ORDER BY p.name, p.shard
"""
READ: Final[LiteralString] = """
    SELECT g.name, count(p.shard) AS shards FROM public.projection_generations AS g
    LEFT JOIN public.projection_positions AS p ON p.name = g.name AND p.generation = g.generation
    WHERE g.slot = 'live' GROUP BY g.name
"""


def check_models(
    connection: Connection[Any], models: Sequence[ReadModel], findings: Findings
) -> None:
    """Of `models`, those that are compared."""
    _check_code(connection, models, findings)
    names = [model.name for model in models]
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(SET_ASIDE, {"names": names}).fetchmany(FETCHED_AT_ONCE):
            findings.add(
                Kind.SET_ASIDE,
                f"{row['name']} has it only up to version {row['applied_version']}: what came after "
                "could not be taken in, and was set aside",
                table="projection_quarantine",
                shard=row["shard"],
                **named(row["originator_id"], row["topic"]),
            )
        for row in cursor.execute(READ_TOO_FAR).fetchall():
            findings.add(
                Kind.ROWS_NOT_COMPARED,
                f"{row['name']} says that it has read more of the shard than there is",
                table="projection_positions",
                shard=row["shard"],
                expected=str(row["head"]),
                found=str(row["position"]),
            )


def _check_code(
    connection: Connection[Any], models: Sequence[ReadModel], findings: Findings
) -> None:
    live = live_generations(connection)
    shards: dict[str, int] = dict(connection.execute(READ).fetchall())
    for model in models:
        generation = live.get(model.name)
        if generation is None or not generation.is_of_this_code:
            findings.add(
                Kind.ROWS_NOT_COMPARED,
                f"the rows of {model.name} are not those that this code makes, and cannot be compared: "
                f"`counterfoil projections rebuild {model.name} --promote`, or verify with the code "
                "that made them",
                table=model.TABLES[0],
                expected=f"version {model.version}",
                found="none" if generation is None else f"version {generation.code_version}",
            )
        elif not is_inline(model.name) and shards[model.name] != SHARDS:
            findings.add(
                Kind.ROWS_NOT_COMPARED,
                f"{model.name} does not say of every shard how far it has read it",
                table="projection_positions",
                expected=f"{SHARDS} shards",
                found=f"{shards[model.name]} shards",
            )

"""Where one part of the work is done: a connection in one snapshot, a shard, and what is found there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

from infrastructure.projections.generations import Generation, Slot, all_generations
from infrastructure.verification.findings import Findings
from projections.changes import ReadModel

LAYOUT: Final[LiteralString] = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) AS columns, (
        SELECT array_agg(k.attname::text ORDER BY array_position(i.indkey::smallint[], k.attnum))
        FROM pg_index AS i JOIN pg_attribute AS k
          ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey::smallint[])
        WHERE i.indrelid = c.oid AND i.indisprimary
    ) AS key, coalesce(
        array_agg(a.attname::text) FILTER (WHERE a.atttypid = 'timestamptz'::regtype), '{}'
    ) AS times
    FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%(tables)s)
      AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY c.oid, c.relname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a read model. `key`: without the shard, which leads it; `times`: the columns that are."""

    columns: Sequence[str]
    key: Sequence[str]
    times: Sequence[str]


Layout = Mapping[str, Table]


def layout_of(connection: Connection[Any], models: Sequence[ReadModel]) -> Layout:
    """The tables of the read models, as they are now."""
    tables = [table for model in models for table in model.TABLES]
    rows = connection.execute(LAYOUT, {"tables": tables}).fetchall()
    return {
        name: Table(columns=columns, key=[each for each in key if each != "shard"], times=times)
        for name, columns, key, times in rows
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One shard. `live`: the generations that are read, by name."""

    connection: Connection[Any]
    shard: int
    findings: Findings
    layout: Layout
    live: Mapping[str, Generation]

    def has_rows_of_this_code(self, name: str) -> bool:
        """Whether the model's rows are those that this code makes; others cannot be compared."""
        live = self.live.get(name)
        return live is not None and live.is_of_this_code


def live_generations(connection: Connection[Any]) -> dict[str, Generation]:
    """Of each read model the one that is read."""
    with connection.cursor(row_factory=dict_row) as cursor:
        found = all_generations(cursor)  # type: ignore[arg-type] # it only executes
    return {each.name: each for each in found if each.slot is Slot.LIVE}

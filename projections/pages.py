"""Pages of a list: newest first, by cursor, stable while rows are added.

Ids sort by time, so an id is a cursor: what is added later never moves what was seen. And so a range of
creation times is also one of ids, give or take how long it is from the one to the other: which is what
keeps a range far back from being looked for through all that came after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection, sql

from domain.commands import Mode, Tenant

# Longer than any request: an id, and when what it names was created, are made in the same one.
SLACK_SECONDS: Final = 60
LOWER: Final = ("created_gt", "created_gte")
UPPER: Final = ("created_lt", "created_lte")
LATEST_MILLISECONDS: Final = (1 << 48) - 1
# What every list that has times of creation is filtered by.
BY_CREATION: Final[Mapping[str, LiteralString]] = {
    "created_gt": "created_at > to_timestamp(%(created_gt)s)",
    "created_gte": "created_at >= to_timestamp(%(created_gte)s)",
    "created_lt": "created_at < to_timestamp(%(created_lt)s)",
    "created_lte": "created_at <= to_timestamp(%(created_lte)s)",
}
# Of what may live by a test's clock: when it was made by that.
BY_CREATION_BY_CLOCK: Final[Mapping[str, LiteralString]] = {
    name: condition.replace("created_at", "(document ->> 'created_at')::timestamptz")
    for name, condition in BY_CREATION.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is asked for: at most `limit` rows older than `after`, or newer than `before`."""

    limit: int
    after: UUID | None = None
    before: UUID | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOf:
    """How a read model is paged: its SELECT, its id, the SQL of each filter by name, and of what is true
    of every row that is ever listed. `lives_by_clocks`: in test mode its times of creation may be those
    of clocks that tests move, of which ids tell nothing."""

    select: LiteralString
    id_column: LiteralString
    filters: Mapping[str, LiteralString]
    always: tuple[LiteralString, ...] = ()
    lives_by_clocks: bool = False


def select_page(
    connection: Connection[Any], of: PageOf, tenant: Tenant, page: Page
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of `page`, newest first, and whether there are more beyond its far end."""
    backwards = page.before is not None
    conditions: list[LiteralString] = ["merchant_id = %(merchant_id)s", "mode = %(mode)s"]
    conditions += [*of.always, *(of.filters[name] for name in page.filters)]
    column = sql.Identifier(of.id_column)
    parts: list[sql.Composable] = [sql.SQL(condition) for condition in conditions]
    is_by_id = not of.lives_by_clocks or tenant.mode is Mode.LIVE
    after, before = _bounds(page) if is_by_id else (page.after, page.before)
    if after is not None:
        parts.append(sql.SQL("{} < %(after)s").format(column))
    if before is not None:
        parts.append(sql.SQL("{} > %(before)s").format(column))
    query = sql.SQL("{} WHERE {} ORDER BY {} {} LIMIT %(limit)s").format(
        sql.SQL(of.select),
        sql.SQL(" AND ").join(parts),
        column,
        sql.SQL("ASC" if backwards else "DESC"),
    )
    parameters = {
        "merchant_id": tenant.merchant_id,
        "mode": tenant.mode.value,
        "after": after,
        "before": before,
        "limit": page.limit + 1,
        **page.filters,
    }
    rows = connection.execute(query, parameters).fetchall()
    kept = rows[: page.limit]
    return (kept[::-1] if backwards else kept), len(rows) > page.limit


def _bounds(page: Page) -> tuple[UUID | None, UUID | None]:
    """Between which ids the rows are: those of the cursors, and of the times that are asked for."""
    filters = page.filters
    older_than = [
        page.after,
        *(_id_at(filters[n] + 1, SLACK_SECONDS) for n in UPPER if n in filters),
    ]
    newer_than = [page.before, *(_id_at(filters[n], -SLACK_SECONDS) for n in LOWER if n in filters)]
    return (
        min((each for each in older_than if each is not None), default=None),
        max((each for each in newer_than if each is not None), default=None),
    )


def _id_at(unix_seconds: int, slack_seconds: int) -> UUID:
    """The least id of that moment, which its first 48 bits are in milliseconds."""
    milliseconds = (unix_seconds + slack_seconds) * 1000
    return UUID(int=max(0, min(milliseconds, LATEST_MILLISECONDS)) << 80)

"""Pages of a list: newest first, by cursor, stable while rows are added.

Ids sort by time, so an id is a cursor: what is added later never moves what was seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, sql

from domain.commands import Tenant


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
    of every row that is ever listed."""

    select: LiteralString
    id_column: LiteralString
    filters: Mapping[str, LiteralString]
    always: tuple[LiteralString, ...] = ()


def select_page(
    connection: Connection[Any], of: PageOf, tenant: Tenant, page: Page
) -> tuple[list[dict[str, Any]], bool]:
    """The rows of `page`, newest first, and whether there are more beyond its far end."""
    backwards = page.before is not None
    conditions: list[LiteralString] = ["merchant_id = %(merchant_id)s", "mode = %(mode)s"]
    conditions += [*of.always, *(of.filters[name] for name in page.filters)]
    column = sql.Identifier(of.id_column)
    parts: list[sql.Composable] = [sql.SQL(condition) for condition in conditions]
    if page.after is not None:
        parts.append(sql.SQL("{} < %(after)s").format(column))
    if page.before is not None:
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
        "after": page.after,
        "before": page.before,
        "limit": page.limit + 1,
        **page.filters,
    }
    rows = connection.execute(query, parameters).fetchall()
    kept = rows[: page.limit]
    return (kept[::-1] if backwards else kept), len(rows) > page.limit

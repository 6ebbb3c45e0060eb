"""What read models have in common that keep documents, as they are now: one an aggregate, mostly.

Written in the transaction that appends the events. The columns are those that lists are filtered by.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.commands import Tenant
from projections.changes import Change, Write, columns
from projections.pages import BY_CREATION, Page, PageOf, select_page

Document = dict[str, Any]

TABLE: Final[LiteralString] = "$table"
CREATE: Final[LiteralString] = """
    CREATE TABLE $table (
        shard       smallint    NOT NULL,
        id          uuid        NOT NULL,
        merchant_id text        NOT NULL,
        mode        text        NOT NULL,
        customer_id text,
        is_listed   boolean     NOT NULL,
        created_at  timestamptz NOT NULL,
        version     bigint      NOT NULL,
        document    jsonb       NOT NULL,
        CONSTRAINT $table_pkey PRIMARY KEY (shard, id)
    ) WITH (fillfactor = 80)
"""
INDEXES: Final[LiteralString] = """
    CREATE INDEX $table_newest ON $table (merchant_id, mode, id) WHERE is_listed;
    CREATE INDEX $table_by_customer ON $table (merchant_id, mode, customer_id, id)
        WHERE customer_id IS NOT NULL;
"""
INTO: Final[LiteralString] = """
    INSERT INTO $table (
        shard, id, merchant_id, mode, customer_id, is_listed, created_at, version, document
    )
"""
ONE: Final[LiteralString] = """
    VALUES (
        %(shard)s, %(id)s, %(merchant_id)s, %(mode)s, %(customer_id)s, %(is_listed)s,
        %(created_at)s, %(version)s, %(document)s
    )
"""
MANY: Final[LiteralString] = """
    SELECT * FROM unnest(
        %(shard)b::smallint[], %(id)b::uuid[], %(merchant_id)b::text[], %(mode)b::text[],
        %(customer_id)b::text[], %(is_listed)b::boolean[], %(created_at)b::timestamptz[],
        %(version)b::bigint[], %(document)b::jsonb[]
    )
"""
UNLESS_NEWER: Final[LiteralString] = """
    ON CONFLICT (shard, id) DO UPDATE SET
        customer_id = excluded.customer_id, is_listed = excluded.is_listed,
        version = excluded.version, document = excluded.document
    WHERE $table.version < excluded.version
"""
SELECT: Final[LiteralString] = "SELECT id, document FROM $table"
BY_IDS: Final[LiteralString] = """
    SELECT d.document FROM $table AS d
    JOIN unnest(%(shards)b::smallint[], %(ids)b::uuid[]) AS k (shard, id)
      ON d.shard = k.shard AND d.id = k.id
    WHERE d.merchant_id = %(merchant_id)s AND d.mode = %(mode)s
"""
FILTERS: Final[Mapping[str, LiteralString]] = {
    "customer_id": "customer_id = %(customer_id)s",
    "ids": "id = ANY(%(ids)s)",
    "type": "document ->> 'type' = %(type)s",
    **BY_CREATION,
}


class DocumentTable(ABC):
    """One table of documents. Who derives from it says `name`, which is the table's, `version`,
    `aggregate`, `migration`, and which rows a history has; `more_indexes` and `more_filters`, where
    there are any."""

    name: LiteralString
    version: int
    aggregate: LiteralString
    migration: LiteralString
    more_indexes: LiteralString = ""
    more_filters: Mapping[str, LiteralString] = MappingProxyType({})
    lives_by_clocks: bool = False

    def __init__(self) -> None:
        self.TABLES: tuple[LiteralString, ...] = (self.name,)
        self.CREATE: LiteralString = CREATE.replace(TABLE, self.name)
        self.INDEXES: LiteralString = INDEXES.replace(TABLE, self.name) + self.more_indexes
        self.UPSERT: LiteralString = (INTO + ONE + UNLESS_NEWER).replace(TABLE, self.name)
        self.UPSERT_MANY: LiteralString = (INTO + MANY + UNLESS_NEWER).replace(TABLE, self.name)
        self._by_ids: LiteralString = BY_IDS.replace(TABLE, self.name)
        self.PAGE = PageOf(
            select=SELECT.replace(TABLE, self.name),
            id_column="id",
            filters={**FILTERS, **self.more_filters},
            lives_by_clocks=self.lives_by_clocks,
            always=("is_listed",),  # as a constant, or no plan for all tenants has its index
        )

    @abstractmethod
    def rows(self, shard: int, history: Sequence[Any]) -> list[dict[str, Any]]:
        """The rows of an aggregate with this history."""

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """The documents of the aggregates that went on."""
        rows = [row for change in changes for row in self.rows(change.shard, change.history)]
        return [Write(self.UPSERT_MANY, columns(rows), into=self.name)] if rows else []

    def by_ids(
        self, connection: Connection[Any], tenant: Tenant, keys: Sequence[tuple[int, UUID]]
    ) -> list[Document]:
        """The documents of those of `keys`, shards and ids, that this tenant has."""
        rows = connection.execute(
            self._by_ids,
            {
                "shards": [shard for shard, _ in keys],
                "ids": [each for _, each in keys],
                "merchant_id": tenant.merchant_id,
                "mode": tenant.mode.value,
            },
        ).fetchall()
        return [row["document"] for row in rows]

    def page(
        self, connection: Connection[Any], tenant: Tenant, page: Page
    ) -> tuple[list[Document], bool]:
        """A page of documents, newest first, and whether there are more in that direction."""
        rows, has_more = select_page(connection, self.PAGE, tenant, page)
        return [row["document"] for row in rows], has_more


class Documents(DocumentTable):
    """One document an aggregate. Who derives from it says how a history is folded."""

    @abstractmethod
    def fold(self, history: Sequence[Any]) -> Document:
        """The document of an aggregate with this history: JSON values only, `created_at`, and where it
        has one `customer_id`; `is_listed` where it is not."""

    def rows(self, shard: int, history: Sequence[Any]) -> list[dict[str, Any]]:
        """The one row of an aggregate with this history."""
        first, document = history[0], self.fold(history)
        row = {
            "shard": shard,
            "id": first.originator_id,
            "merchant_id": first.merchant_id,
            "mode": first.mode,
            "customer_id": document.get("customer_id"),
            "is_listed": document.get("is_listed", True),
            "created_at": first.timestamp,
            "version": history[-1].originator_version,
            "document": Jsonb(document),
        }
        return [row]

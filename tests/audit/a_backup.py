"""All rows of a small database, and the way back to them: many times as quick as another copy of it."""

from typing import Final, LiteralString

import psycopg
from psycopg import sql

TABLES: Final[LiteralString] = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""


class Backup:
    """As things are when it is made."""

    def __init__(self, url: str) -> None:
        self._url = url
        with psycopg.connect(url) as connection:
            tables = [table for (table,) in connection.execute(TABLES).fetchall()]
            self._rows = {table: read(connection, table) for table in tables}

    def restore(self) -> None:
        """With no trigger in the way."""
        with psycopg.connect(self._url) as connection:
            connection.execute("SET session_replication_role = replica")
            for table, rows in self._rows.items():
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
                query = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
                if rows:
                    with connection.cursor().copy(query) as copy:
                        copy.write(rows)


def read(connection: psycopg.Connection, table: str) -> bytes:
    query = sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(table))
    with connection.cursor().copy(query) as copy:
        return b"".join(bytes(part) for part in copy)

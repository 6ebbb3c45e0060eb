"""The database's schema, made and upgraded by numbered files, each applied once and for good; and the
tables of read models, which the files that define those bring along.

All of what is due is applied in one transaction, under a lock, so that any number of processes may
call `migrate` at once. An applied file must never be edited: its checksum is kept and compared.
"""

import hashlib
from importlib import resources
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, dict_row

from infrastructure.projections import generations

# Any number will do, as long as nothing else locks it.
LOCK: Final = 7_240_651

CREATE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
# Not in a schema that has the name of whoever migrates, where there is one.
USE_PUBLIC: Final = "SET LOCAL search_path = public"
# Partitions for some years to come; each release, and each time that this is run, adds some.
EXTEND_EVENTS: Final = "SELECT extend_events(clock_timestamp() + interval '2 years')"


# Former texts of files that did the same wherever they could be applied at all.
DID_THE_SAME: Final = {
    "0001_ledger.sql": "f145c6f61c92887d498c2bc19968afa040d4762e1e7090fe5f5c83714b4acc84",
}


class MigrationChanged(Exception):
    """A file that was applied is not what it was."""


def migrate(database_url: str) -> list[str]:
    """Brings the schema up to date; the names of the files that were due. Raises MigrationChanged."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute(USE_PUBLIC)
        connection.execute(CREATE_TABLE)
        rows = connection.execute("SELECT name, checksum FROM schema_migrations").fetchall()
        applied: dict[str, str] = dict(rows)
        due = [name for name, text in _files() if _apply(connection, applied, name, text)]
        connection.execute(EXTEND_EVENTS)
        made = generations.create_missing(_with_dicts(connection), due)
        return due + [f"the read model {name}" for name in made]


def pending_migrations(database_url: str) -> list[str]:
    """What `migrate` would do, by name; it changes nothing."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
        if row is None or not row[0]:
            return [name for name, _ in _files()]
        rows = connection.execute("SELECT name FROM schema_migrations").fetchall()
        applied = {name for (name,) in rows}
        due = [name for name, _ in _files() if name not in applied]
        return due or generations.missing_models(_with_dicts(connection))


def _with_dicts(connection: psycopg.Connection[Any]) -> psycopg.Connection[DictRow]:
    """The same connection, whose rows are dicts from here on."""
    connection.row_factory = dict_row
    return connection


def _apply(
    connection: psycopg.Connection[Any], applied: dict[str, str], name: str, text: str
) -> bool:
    checksum = hashlib.sha256(text.encode()).hexdigest()
    if name in applied:
        if applied[name] not in {checksum, DID_THE_SAME.get(name)}:
            raise MigrationChanged(f"{name} was applied to this database in another form")
        return False
    connection.execute(text.encode())
    connection.execute(
        "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", [name, checksum]
    )
    return True


def _files() -> list[tuple[str, str]]:
    folder = resources.files(__name__)
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return [(f.name, f.read_text("utf-8")) for f in sorted(files, key=lambda f: f.name)]

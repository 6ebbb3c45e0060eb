"""The schema: made once, by however many come at once, and never changed behind our back."""

from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest

from infrastructure.migrations import MigrationChanged, migrate
from projections.registry import READ_MODELS
from tests.conftest import Databases

TABLES: LiteralString = """
    SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'
"""
APPLIED: LiteralString = "SELECT name, checksum, applied_at FROM schema_migrations ORDER BY name"
FORGET: LiteralString = """
    DROP SCHEMA public, beside, swapping CASCADE;
    CREATE SCHEMA public
"""
EDIT: LiteralString = "UPDATE schema_migrations SET checksum = 'of another text'"


@pytest.fixture
def empty_url(database_url: str) -> str:
    """A database with nothing in it."""
    with psycopg.connect(database_url) as connection:
        connection.execute(FORGET)
    return database_url


def query(database_url: str, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(statement).fetchall()


def test_all_that_is_due_is_applied_in_order(empty_url: str) -> None:
    applied = migrate(empty_url)

    files = [name for name in applied if name.endswith(".sql")]
    assert files == sorted(files)
    assert [row[0] for row in query(empty_url, APPLIED)] == files
    assert [name for name in applied if name not in files] == [
        f"the read model {model.name}" for model in READ_MODELS
    ]
    tables = {row[0] for row in query(empty_url, TABLES)}
    assert {"events", "shard_heads", "bank_calls", "receipts", "refunds"} <= tables


def test_nothing_is_applied_twice(empty_url: str) -> None:
    migrate(empty_url)
    before = query(empty_url, APPLIED)

    again = migrate(empty_url)

    assert again == []
    assert query(empty_url, APPLIED) == before


def test_of_four_who_migrate_at_once_one_does_and_none_fails(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate, [empty_url] * 4))

    assert sorted(map(bool, applied)) == [False, False, False, True]


def test_a_file_that_was_changed_after_it_was_applied_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(EDIT)

    with pytest.raises(MigrationChanged):
        migrate(database_url)


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE TABLE api_keys (in_the_way int)")

    with pytest.raises(psycopg.Error):
        migrate(empty_url)

    assert {row[0] for row in query(empty_url, TABLES)} == {"api_keys"}


def test_the_tests_template_is_the_migrated_schema(databases: Databases, database_url: str) -> None:
    assert urlsplit(databases.url).path != urlsplit(database_url).path
    assert migrate(database_url) == []

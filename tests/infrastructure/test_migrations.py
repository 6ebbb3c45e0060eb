"""The schema: made once, by however many come at once, and never changed behind our back."""

from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

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
QUARTERS: LiteralString = """
    SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class
    WHERE relispartition AND relname LIKE 'events%' AND relkind = 'r' ORDER BY relname
"""
OVERLAPPING: LiteralString = """
    CREATE TABLE events_overlapping PARTITION OF events
    FOR VALUES FROM (least_id_at('2031-12-31Z')) TO (least_id_at('2032-01-02Z'))
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


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Pacific/Apia"])
def test_quarters_are_of_utc_wherever_the_database_is(
    empty_url: str, database_url: str, databases: Databases, zone: str
) -> None:
    with databases.clone() as in_utc:
        expected = query(in_utc, QUARTERS)
    in_zone = make_conninfo(empty_url, options=f"-c timezone={zone}")

    migrate(in_zone)

    assert len(expected) > 8
    assert query(empty_url, QUARTERS) == expected


def test_a_quarter_that_overlaps_another_is_left_to_other_times(database_url: str) -> None:
    """Of partitions that were once made in another time zone."""
    with psycopg.connect(database_url) as connection:
        connection.execute(OVERLAPPING)
        connection.execute("SELECT extend_events('2033-01-01Z')")

    made = {row[0] for row in query(database_url, QUARTERS)}
    assert {"events_2031_q3", "events_2032_q2"} <= made
    assert not {"events_2031_q4", "events_2032_q1"} & made


def test_the_tests_template_is_the_migrated_schema(databases: Databases, database_url: str) -> None:
    assert urlsplit(databases.url).path != urlsplit(database_url).path
    assert migrate(database_url) == []

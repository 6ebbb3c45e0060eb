"""The schema: made once, by however many come at once, and never changed behind our back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from infrastructure.migrations import DID_THE_SAME, MigrationChanged, migrate
from projections.registry import ALL
from tests.conftest import Databases
from tests.patience import patient_pool

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
SCHEMAS: LiteralString = """
    SELECT DISTINCT table_schema::text FROM information_schema.tables
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
"""
OVERLAPPING: LiteralString = """
    CREATE TABLE events_overlapping PARTITION OF events
    FOR VALUES FROM (least_id_at('2031-12-31Z')) TO (least_id_at('2032-01-02Z'))
"""
# What 0010 found: the tables as they were, with a customer who was deleted and an answer about another.
BEFORE_0010: LiteralString = """
    DELETE FROM schema_migrations WHERE name LIKE '0010%';
    DROP TABLE erasures, rate_limits;
    DROP INDEX receipts_by_status, refunds_by_status;
    ALTER TABLE idempotency_keys DROP COLUMN tells_of_people;
    CREATE UNLOGGED TABLE rate_limit_windows (
        name text NOT NULL PRIMARY KEY, hits bigint NOT NULL, expires_at timestamptz NOT NULL
    );
    INSERT INTO customer_records (
        shard, id, merchant_id, mode, is_listed, created_at, version, document
    )
    SELECT 1, gen_random_uuid(), 'mer_1', 'test', NOT gone, now(), 2,
           jsonb_build_object('is_deleted', gone)
    FROM unnest(ARRAY[true, false]) AS gone;
    INSERT INTO idempotency_keys (
        merchant_id, mode, key, fingerprint, request_id, payment_id, claimed_at, status, body
    ) VALUES ('mer_1', 'test', 'a key', '', 'req_1', gen_random_uuid(), now(), 201, '{}')
"""
ERASURES: LiteralString = """
    SELECT e.merchant_id, d.document ->> 'is_deleted' FROM erasures AS e
    JOIN customer_records AS d ON d.shard = e.shard AND d.id = e.customer_id
"""
TELLING: LiteralString = "SELECT tells_of_people FROM idempotency_keys"
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
        f"the read model {model.name}" for model in ALL
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


def test_what_is_made_is_made_in_public(empty_url: str) -> None:
    """Though the database would look in a schema with the user's name first."""
    with psycopg.connect(empty_url) as connection:
        connection.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")

    migrate(empty_url)

    assert query(empty_url, SCHEMAS) == [("public",)]


def test_a_former_text_that_did_the_same_is_not_applied_again(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for name, checksum in DID_THE_SAME.items():
            connection.execute(
                "UPDATE schema_migrations SET checksum = %s WHERE name = %s", [checksum, name]
            )

    assert migrate(database_url) == []


def test_who_was_deleted_before_is_erased_as_who_is_from_now_on(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(BEFORE_0010)

    applied = migrate(database_url)

    assert applied == ["0010_erasure_and_limits.sql"]
    assert query(database_url, ERASURES) == [("mer_1", "true")]
    assert query(database_url, TELLING) == [(True,)]


@pytest.fixture
def owned_url(databases: Databases) -> Iterator[str]:
    """An empty database of somebody who may make no roles, on a server with the role that serves."""
    name = f"{databases.prefix}_owner"
    owner, execute = Identifier(name), databases.connection.execute
    execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'owner'").format(owner))
    execute(SQL("CREATE DATABASE {0} OWNER {0}").format(owner))
    try:
        yield make_conninfo(databases.url, user=name, password="owner", dbname=name)
    finally:
        execute(SQL("DROP DATABASE {} WITH (FORCE)").format(owner))
        execute(SQL("DROP ROLE {}").format(owner))


def test_an_owner_who_may_not_use_the_serving_role_serves_without_it(owned_url: str) -> None:
    migrate(owned_url)

    assert migrate(owned_url) == []
    with patient_pool(owned_url, size=1) as pool, pool.connection() as connection:
        row = connection.execute("SELECT current_user = session_user AS is_owner").fetchone()
    assert row == {"is_owner": True}


def test_an_owner_who_was_given_the_serving_role_takes_it_on(
    owned_url: str, databases: Databases
) -> None:
    databases.connection.execute(
        SQL("GRANT counterfoil_serving TO {}").format(Identifier(f"{databases.prefix}_owner"))
    )

    migrate(owned_url)

    with patient_pool(owned_url, size=1) as pool, pool.connection() as connection:
        row = connection.execute("SELECT current_user::text AS name").fetchone()
    assert row == {"name": "counterfoil_serving"}


def test_the_tests_template_is_the_migrated_schema(databases: Databases, database_url: str) -> None:
    assert urlsplit(databases.url).path != urlsplit(database_url).path
    assert migrate(database_url) == []

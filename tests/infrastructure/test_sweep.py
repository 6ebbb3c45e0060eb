"""What is kept for a while only is swept: a part at a time, the young spared, each kind by itself."""

from collections.abc import Iterator
from typing import Final, LiteralString

import psycopg
import pytest

from infrastructure.duties import SWEPT_AT_ONCE, sweep
from tests.api.an_api import Api, an_api

NO_BANK: Final = "http://127.0.0.1:9"
MANY: Final = SWEPT_AT_ONCE + 1
KINDS: Final = ("cvcs", "tokens", "used_tokens", "idempotency_keys", "rate_limit_windows")

# Of each kind so many from before its time was over, and one whose time is not over.
KEPT: LiteralString = """
    WITH many AS (
        SELECT n, gen_random_uuid() AS id, n > %(many)s AS is_young
        FROM generate_series(1, %(many)s + 1) AS n
    ), cvcs AS (
        INSERT INTO stored_cards (shard, method_id, sealed_number, sealed_cvc, cvc_until)
        SELECT 1, id, 'number', 'cvc', now() + CASE WHEN is_young THEN '1 hour' ELSE '-1 s' END::interval
        FROM many
    ), tokens AS (
        INSERT INTO stored_cards (shard, method_id, sealed_number, kept_until)
        SELECT 2, id, 'number', now() + CASE WHEN is_young THEN '1 hour' ELSE '-1 s' END::interval
        FROM many
    ), used AS (
        INSERT INTO used_tokens (shard, token_id, used_at)
        SELECT 3, id, now() - CASE WHEN is_young THEN '1 hour' ELSE '3 hours' END::interval FROM many
    ), keys AS (
        INSERT INTO idempotency_keys (
            merchant_id, mode, key, fingerprint, request_id, payment_id, claimed_at
        )
        SELECT 'mer_1', 'test', n, '', 'req_' || n, id,
               now() - CASE WHEN is_young THEN '1 hour' ELSE '31 days' END::interval
        FROM many
        RETURNING *
    ), answers AS (
        INSERT INTO idempotency_answers
        SELECT request_id, merchant_id, mode, key, payment_id, 201, '{}', '{}', false FROM keys
    )
    INSERT INTO rate_limits (name, newest, oldest, counted, refused, hits)
    SELECT n, second, second, 1, false, '{}' FROM (
        SELECT n, extract(epoch FROM now())::bigint - CASE WHEN is_young THEN 60 ELSE 7200 END AS second
        FROM many
    ) AS named
"""
LEFT: LiteralString = """
    SELECT (SELECT count(*) FROM stored_cards WHERE sealed_cvc IS NOT NULL) AS cvcs,
           (SELECT count(*) FROM stored_cards WHERE kept_until IS NOT NULL) AS tokens,
           (SELECT count(*) FROM used_tokens) AS used_tokens,
           (SELECT count(*) FROM idempotency_keys JOIN idempotency_answers USING (key))
               AS idempotency_keys,
           (SELECT count(*) FROM rate_limits) AS rate_limit_windows
"""
WITH_CARDS: LiteralString = "SELECT count(*) AS cards FROM stored_cards WHERE shard = 1"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    with an_api(database_url, BANK_URL=NO_BANK) as api:
        api.execute(KEPT, many=MANY)
        yield api


def left(api: Api) -> dict[str, int]:
    with api.services.pool.connection() as connection:
        row = connection.execute(LEFT).fetchone()
    assert row is not None
    return row


def test_what_is_old_is_swept_a_part_at_a_time_and_what_is_young_stays(api: Api) -> None:
    assert left(api) == dict.fromkeys(KINDS, MANY + 1)

    assert sweep(api.services)
    assert left(api) == dict.fromkeys(KINDS, 2)
    assert not sweep(api.services)
    assert left(api) == dict.fromkeys(KINDS, 1)
    with api.services.pool.connection() as connection:
        kept = connection.execute(WITH_CARDS).fetchone()
    assert kept == {"cards": MANY + 1}  # without their CVCs


@pytest.mark.parametrize(
    "table", ["stored_cards", "used_tokens", "idempotency_keys", "rate_limits"]
)
def test_a_kind_that_cannot_be_swept_keeps_no_other_from_it(
    api: Api, database_url: str, table: LiteralString
) -> None:
    other = f"{table}_elsewhere"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE {table} RENAME TO {other}")
        assert sweep(api.services)
        owner.execute(f"ALTER TABLE {other} RENAME TO {table}")

    kinds_of = {"stored_cards": {"cvcs", "tokens"}, "rate_limits": {"rate_limit_windows"}}
    kept = kinds_of.get(table, {table})
    assert left(api) == {kind: MANY + 1 if kind in kept else 2 for kind in KINDS}

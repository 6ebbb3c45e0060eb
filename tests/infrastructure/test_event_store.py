"""The log on Postgres: gapless, chained, for ever, and sure of what it committed."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import NotSupportedError, StoredEvent
from psycopg import errors

from domain.commands import Cause
from domain.errors import (
    ConcurrentChange,
    KeyAlreadyClaimed,
    OrderAlreadyPaid,
    StoreUnavailable,
)
from domain.payment import Payment, rfc3339
from domain.records import BeginCall, ClaimKey, EndCall, TakeOrderSlot
from infrastructure import event_store
from infrastructure.clock import RandomIds
from infrastructure.database import Pool
from infrastructure.event_store import FlatJSON, FlatMapper, ShardedRecorder, event_digest
from infrastructure.shards import SHARDS, shard_of
from tests.builders import Story, a_bank_call, a_claim, a_payment, a_tenant, an_id
from tests.infrastructure.postgres_proxy import Loss, PostgresProxy
from tests.infrastructure.projections.a_log import backends_that_wait, connect, poll_until
from tests.patience import patient_pool

ROWS: LiteralString = """
    SELECT position, originator_id, originator_version, event_id, topic, state, cause, recorded_at,
           digest, chain_hash
    FROM events WHERE shard = %(shard)s ORDER BY position
"""
HEAD: LiteralString = "SELECT position, hash FROM shard_heads WHERE shard = %(shard)s"
OF_PAYMENT: LiteralString = "SELECT position FROM events WHERE originator_id = %(id)s"

mapper = FlatMapper(FlatJSON())


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=8) as pool:
        yield pool


def rows(pool: Pool, shard: int) -> list[dict[str, Any]]:
    with pool.connection() as connection:
        return connection.execute(ROWS, {"shard": shard}).fetchall()


def head(pool: Pool, shard: int) -> dict[str, Any]:
    with pool.connection() as connection:
        row = connection.execute(HEAD, {"shard": shard}).fetchone()
    assert row is not None
    return row


def stored(payment: Payment) -> list[StoredEvent]:
    return [mapper.to_stored_event(event) for event in payment.history]


def append(recorder: ShardedRecorder, payment: Payment, *, key: str | None = None) -> None:
    """The whole history in one transaction, with a claim on `key` if there is one."""
    claims = []
    if key is not None:
        claims.append(ClaimKey(claim=a_claim(key), payment_id=payment.id, request_id="req_1"))
    recorder.insert_events(
        stored(payment),
        cause=Cause(actor="key_1", request_id="req_1", idempotency_key=key),
        history=payment.history,
        beside=claims,
    )


def a_payment_in(shard: int) -> Payment:
    return a_payment(payment_id=an_id(shard=shard))


# --- positions ---


def test_an_aggregate_is_in_the_shard_of_the_last_byte_of_its_id() -> None:
    assert [shard_of(UUID(int=number)) for number in (0, 63, 64, 255, 256)] == [0, 63, 0, 63, 0]
    assert SHARDS == 64


def test_every_shard_has_a_head_from_the_start(pool: Pool) -> None:
    heads = [head(pool, shard) for shard in range(SHARDS)]

    assert {row["position"] for row in heads} == {0}
    assert {bytes(row["hash"]) for row in heads} == {hashlib.sha256(b"").digest()}


def test_positions_have_no_gaps_whatever_is_rolled_back_among_them(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    taken = a_payment_in(7)
    append(recorder, taken, key="taken")

    def attempt(number: int) -> bool:
        try:
            match number % 4:
                case 0:
                    append(recorder, taken)  # was made before
                case 1:
                    append(recorder, a_payment_in(7), key="taken")
                case _:
                    append(recorder, Story(a_payment_in(7)).authorized().payment)
        except (ConcurrentChange, KeyAlreadyClaimed):
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(attempt, range(80)))

    positions = [row["position"] for row in rows(pool, 7)]
    assert done.count(True) == 40
    assert positions == list(range(1, 1 + 1 + 2 * 40))
    assert head(pool, 7)["position"] == positions[-1]


def test_the_events_of_one_append_stand_together_in_order(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    payments = [Story(a_payment_in(3)).authorized().captured().payment for _ in range(12)]

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda payment: append(recorder, payment), payments))

    by_payment = groupby(rows(pool, 3), key=lambda row: row["originator_id"])
    versions = [[row["originator_version"] for row in group] for _, group in by_payment]
    assert versions == [[1, 2, 3, 4]] * 12


def test_of_two_who_append_the_same_version_at_once_one_is_recorded(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    twins = [Story(a_payment_in(5)).payment for _ in range(10)]

    def attempt(payment: Payment) -> bool:
        try:
            append(recorder, payment)
        except ConcurrentChange:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(attempt, [twin for twin in twins for _ in range(3)]))

    assert done.count(True) == 10
    assert len(rows(pool, 5)) == 10


def test_of_many_who_want_one_order_at_once_one_gets_it(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)

    def attempt(number: int) -> bool:
        payment = a_payment()
        slot = TakeOrderSlot(tenant=a_tenant(), order_id="ORD-1", payment_id=payment.id)
        call = BeginCall(call=a_bank_call(payment), lease_seconds=30)
        try:
            recorder.insert_events(stored(payment), history=payment.history, beside=[slot, call])
        except OrderAlreadyPaid:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(attempt, range(24)))

    assert done.count(True) == 1


def test_nothing_is_recorded_beside_no_event(pool: Pool) -> None:
    """It would be lost without a word."""
    claim = ClaimKey(claim=a_claim("key"), payment_id=an_id(), request_id="req_1")

    with pytest.raises(ValueError, match="beside no event"):
        ShardedRecorder(pool).insert_events([], beside=[claim])


def test_one_append_is_to_one_shard(pool: Pool) -> None:
    two = stored(a_payment_in(7)) + stored(a_payment_in(8))

    with pytest.raises(NotSupportedError):
        ShardedRecorder(pool).insert_events(two)

    assert rows(pool, 7) == rows(pool, 8) == []


def test_aggregates_of_one_shard_are_appended_together_or_not_at_all(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    known, one, other, late = (Story(a_payment_in(7)).authorized().payment for _ in range(4))
    append(recorder, known)

    recorder.insert_events(
        stored(one) + stored(other)[:1],
        history=[*known.history, *one.history, *other.history[:1]],
    )
    with pytest.raises(ConcurrentChange):
        recorder.insert_events(
            stored(late) + stored(one)[1:], history=[*late.history, *one.history]
        )

    written = rows(pool, 7)
    assert [row["position"] for row in written] == [1, 2, 3, 4, 5]
    assert [row["originator_id"] for row in written[2:]] == [one.id, one.id, other.id]
    assert [row["originator_version"] for row in written[2:]] == [1, 2, 1]
    with pool.connection() as connection:
        found = connection.execute("SELECT payment_id, version FROM receipts").fetchall()
    assert {row["payment_id"]: row["version"] for row in found} == {
        known.id: 2,
        one.id: 2,
        other.id: 1,
    }


def test_the_log_offers_no_single_sequence(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)

    for offer in (recorder.select_notifications, recorder.max_notification_id, recorder.subscribe):
        with pytest.raises(NotSupportedError):
            offer()


def test_events_are_read_from_either_end_and_in_parts(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    payment = Story().authorized().captured().payment
    append(recorder, payment)

    def versions(**wanted: Any) -> list[int]:
        return [e.originator_version for e in recorder.select_events(payment.id, **wanted)]

    assert versions() == [1, 2, 3, 4]
    assert versions(gt=1, lte=3) == [2, 3]
    assert versions(desc=True, limit=1) == [4]
    assert versions(limit=2) == [1, 2]
    assert versions(gt=4) == []
    assert recorder.select_events(an_id()) == []


# --- evidence ---


def chained(pool: Pool, shard: int) -> Pool:
    recorder = ShardedRecorder(pool)
    story = Story(a_payment_in(shard))
    append(recorder, story.payment, key="chained")
    append(recorder, Story(a_payment_in(shard)).authorized().captured().refunded(1).payment)
    append(recorder, Story(a_payment_in(shard)).declined().payment)
    return pool


def test_a_digest_can_be_computed_again_from_its_row(pool: Pool) -> None:
    chained(pool, 11)

    for row in rows(pool, 11):
        assert bytes(row["digest"]) == event_digest(
            event_id=row["event_id"],
            originator_id=row["originator_id"],
            originator_version=row["originator_version"],
            topic=row["topic"],
            recorded_at=rfc3339(row["recorded_at"]),
            state=bytes(row["state"]).decode(),
            cause=row["cause"],
        )


def test_a_digest_is_the_hash_of_seven_strings_as_compact_json() -> None:
    digest = event_digest(
        event_id=UUID(int=1),
        originator_id=UUID(int=2),
        originator_version=3,
        topic="payment.authorized",
        recorded_at="2026-11-20T12:00:00.000000Z",
        state='{"note":"Grüße"}',
        cause='{"actor":"key_1"}',
    )

    text = (
        '["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002","3",'
        '"payment.authorized","2026-11-20T12:00:00.000000Z","{\\"note\\":\\"Grüße\\"}",'
        '"{\\"actor\\":\\"key_1\\"}"]'
    )
    assert digest == hashlib.sha256(text.encode()).digest()


def test_the_chain_can_be_computed_again_from_the_rows(pool: Pool) -> None:
    chained(pool, 12)
    link = hashlib.sha256(b"").digest()

    for chain_hash, group in groupby(rows(pool, 12), key=lambda row: bytes(row["chain_hash"])):
        digests = b"".join(bytes(row["digest"]) for row in group)
        link = hashlib.sha256(link + digests).digest()
        assert chain_hash == link

    assert bytes(head(pool, 12)["hash"]) == link


def test_events_that_came_at_once_form_one_chain(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    payments = [Story(a_payment_in(13)).authorized().payment for _ in range(20)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda payment: append(recorder, payment), payments))
    link = hashlib.sha256(b"").digest()

    for chain_hash, group in groupby(rows(pool, 13), key=lambda row: bytes(row["chain_hash"])):
        link = hashlib.sha256(link + b"".join(bytes(r["digest"]) for r in group)).digest()
        assert chain_hash == link

    assert bytes(head(pool, 13)["hash"]) == link


def test_every_event_carries_its_cause_and_its_own_id(pool: Pool) -> None:
    chained(pool, 14)

    stored_rows = rows(pool, 14)

    assert stored_rows[0]["cause"] == (
        '{"actor":"key_1","idempotency_key":"chained","request_id":"req_1"}'
    )
    assert stored_rows[1]["cause"] == '{"actor":"key_1","request_id":"req_1"}'
    assert len({row["event_id"] for row in stored_rows}) == len(stored_rows)


CHANGES: tuple[LiteralString, ...] = (
    "UPDATE events SET cause = '{}'",
    "UPDATE events SET position = position WHERE false OR true",
    "DELETE FROM events",
    "TRUNCATE events",
    "TRUNCATE events CASCADE",
    "TRUNCATE events_at_other_times",
)


@pytest.mark.parametrize("statement", CHANGES)
def test_whoever_serves_has_no_right_to_change_events(pool: Pool, statement: LiteralString) -> None:
    chained(pool, 15)
    before = rows(pool, 15)

    with pool.connection() as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement)

    assert rows(pool, 15) == before


@pytest.mark.parametrize("statement", CHANGES)
def test_events_are_never_changed_or_deleted_by_their_owner_either(
    database_url: str, pool: Pool, statement: LiteralString
) -> None:
    chained(pool, 15)
    before = rows(pool, 15)

    with psycopg.connect(database_url) as owner, pytest.raises(errors.DatabaseError) as refused:
        owner.execute(statement)

    assert refused.value.sqlstate == "CF002"
    assert rows(pool, 15) == before


def test_whoever_serves_cannot_change_the_schema(pool: Pool) -> None:
    for statement in SCHEMA_CHANGES:
        with pool.connection() as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)


WHERE_IT_IS: LiteralString = """
    SELECT DISTINCT tableoid::regclass::text FROM events
"""
SCHEMA_CHANGES: tuple[LiteralString, ...] = (
    "DROP TABLE events_at_other_times",
    "ALTER TABLE events DISABLE TRIGGER USER",
    "CREATE TABLE mine (n int)",
    "ALTER TABLE events ADD COLUMN n int",
)


def test_events_are_kept_by_the_quarter_in_which_their_aggregates_were_made(
    database_url: str, pool: Pool
) -> None:
    payment = Story(a_payment(payment_id=RandomIds().new())).authorized().payment

    append(ShardedRecorder(pool), payment)

    with psycopg.connect(database_url) as connection:
        row = connection.execute(WHERE_IT_IS).fetchone()
        assert row is not None
        again = connection.execute("SELECT extend_events(clock_timestamp())").fetchone()
        later = connection.execute("SELECT extend_events('2040-01-01Z')").fetchone()
    made = datetime.fromtimestamp((payment.id.int >> 80) / 1000, UTC)
    assert row == (f"events_{made.year}_q{(made.month + 2) // 3}",)
    assert again == (0,)
    assert later is not None
    assert later[0] > 0


# --- a connection that is lost at the commit ---


def test_a_commit_whose_acknowledgement_was_lost_is_recognised_as_ours(
    database_url: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store, "PATIENCE_SECONDS", 30.0)
    payment = Story(a_payment_in(20)).authorized().payment

    with PostgresProxy(database_url) as proxy, patient_pool(proxy.url, size=2) as shaky:
        shaky.wait()
        proxy.will_lose(Loss.ACKNOWLEDGEMENT)
        append(ShardedRecorder(shaky), payment, key="key-1")

    assert proxy.struck == 1
    assert [row["originator_version"] for row in rows(pool, 20)] == [1, 2]


def test_a_commit_that_was_lost_itself_is_an_error_and_leaves_nothing(
    database_url: str, pool: Pool
) -> None:
    payment = Story(a_payment_in(21)).authorized().payment

    with PostgresProxy(database_url) as proxy, patient_pool(proxy.url, size=2) as shaky:
        shaky.wait()
        proxy.will_lose(Loss.COMMIT)
        with pytest.raises(StoreUnavailable):
            append(ShardedRecorder(shaky), payment, key="key-1")

    assert proxy.struck == 1
    assert rows(pool, 21) == []
    assert head(pool, 21)["position"] == 0


@pytest.mark.parametrize(
    "busy",
    ["SELECT FROM shard_heads WHERE shard = 23 FOR UPDATE", "SELECT FROM bank_calls FOR UPDATE"],
)
def test_a_commit_that_comes_after_we_tried_again_is_recognised_as_ours(
    database_url: str, pool: Pool, busy: LiteralString, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_store, "PATIENCE_SECONDS", 30.0)
    payment = a_payment_in(23)
    call = a_bank_call(payment)
    begun = [BeginCall(call=call, lease_seconds=30)]
    ShardedRecorder(pool).insert_events(stored(payment), history=payment.history, beside=begun)
    outcome = Story(payment).authorized().payment

    with (
        PostgresProxy(database_url) as proxy,
        patient_pool(proxy.url, size=2) as shaky,
        psycopg.connect(database_url) as somebody,
        connect(database_url) as watching,
        ThreadPoolExecutor(1) as executor,
    ):
        shaky.wait()
        somebody.execute(busy)
        appended = executor.submit(
            ShardedRecorder(shaky).insert_events,
            stored(outcome)[-1:],
            history=outcome.history,
            beside=[EndCall(call=call)],
            tries=3,
        )
        poll_until(lambda: backends_that_wait(watching) == 1)
        proxy.hang_up_on_us()
        poll_until(lambda: backends_that_wait(watching) == 2)
        somebody.rollback()
        appended.result()

    assert [row["originator_version"] for row in rows(pool, 23)] == [1, 2]


def test_anothers_events_are_not_taken_for_ours(database_url: str, pool: Pool) -> None:
    payment = a_payment_in(22)
    append(ShardedRecorder(pool), payment)

    with PostgresProxy(database_url) as proxy, patient_pool(proxy.url, size=2) as shaky:
        shaky.wait()
        proxy.will_lose(Loss.COMMIT)
        with pytest.raises((StoreUnavailable, ConcurrentChange)):
            append(ShardedRecorder(shaky), payment)

    assert len(rows(pool, 22)) == 1


def test_a_pool_whose_connections_all_died_serves_the_next_append(pool: Pool) -> None:
    recorder = ShardedRecorder(pool)
    append(recorder, a_payment_in(23))
    kill: LiteralString = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """
    with psycopg.connect(str(pool.conninfo)) as connection:
        connection.execute(kill)
    pool.check()

    append(recorder, a_payment_in(23))

    assert [row["position"] for row in rows(pool, 23)] == [1, 2]

"""What the benchmarks fill a store with is what the recorder would have written, and their programs
run, on sizes that measure nothing."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from psycopg.rows import dict_row

from domain.commands import Cause, Mode, Tenant
from domain.ledger import Settled
from domain.payment import Status
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.event_store import (
    FlatJSON,
    FlatMapper,
    PostgresPaymentLedger,
    ShardedRecorder,
    event_digest,
)
from infrastructure.idempotency import KEPT_DAYS
from infrastructure.shards import SHARDS
from scripts.bench import audit, growth, lag, pgbench, rebuild, stock, verify
from scripts.bench.fill import (
    build_read_models,
    fill_shards,
    make_partitions_of_the_past,
    stored_event,
)
from scripts.bench.growth import AgreeableBank
from scripts.bench.lives import Past, events_of_shard
from scripts.bench.store import Cluster
from scripts.bench.system import BenchFailed
from scripts.bench.writers import Background
from tests.builders import refund
from tests.conftest import Databases
from tests.fakes import PlainAnswers, PlainVault, SequentialIds, SteppableClock
from tests.patience import patient_pool

UNTIL = datetime(2026, 11, 20, tzinfo=UTC)
PAST = Past(events=SHARDS * 40, seed=7, until=UNTIL, days=90)
FILLED = (3, 40)

EVENTS = "SELECT * FROM events ORDER BY shard, position"
HEADS = "SELECT * FROM shard_heads ORDER BY shard"
CAPTURED = """
    SELECT r.*, h.position AS head FROM receipts r JOIN shard_heads h ON h.shard = r.shard
    WHERE status = 'captured' AND NOT pending
"""
COUNTS = """
    SELECT (SELECT count(*) FROM events) AS events,
           (SELECT sum(position) FROM shard_heads) AS heads,
           (SELECT count(*) FROM receipts) AS receipts,
           (SELECT count(*) FROM idempotency_keys) AS keys,
           (SELECT count(*) FROM order_slots) AS slots
"""


class GivenIds:
    """Ids that were made before."""

    def __init__(self, ids: Iterator[UUID]) -> None:
        self._ids = ids

    def new(self) -> UUID:
        return next(self._ids)


@pytest.fixture(scope="module")
def filled_url(databases: Databases) -> Iterator[str]:
    """A store of which two shards have a past, and receipts."""
    with databases.clone() as url:
        fill_two_shards(url)
        build_read_models(url, ["receipts"], processes=1)
        yield url


def fill_two_shards(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        make_partitions_of_the_past(connection, PAST)
    fill_shards(url, PAST, FILLED)


def rows(url: str, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_filled_log_is_byte_for_byte_what_the_recorder_writes(
    filled_url: str, databases: Databases
) -> None:
    filled = rows(filled_url, EVENTS)
    with databases.clone() as url, patient_pool(url, size=1) as pool:
        recorder = ShardedRecorder(pool, inline=())
        recorder._ids = GivenIds(row["event_id"] for row in filled)  # type: ignore[assignment]

        for row in filled:
            stored = StoredEvent(
                originator_id=row["originator_id"],
                originator_version=row["originator_version"],
                topic=row["topic"],
                state=row["state"],
            )
            recorder.insert_events([stored], cause=Cause(**json.loads(row["cause"])))

        assert rows(url, EVENTS) == filled
        assert rows(url, HEADS) == rows(filled_url, HEADS)


def test_a_filled_chain_verifies(filled_url: str) -> None:
    for shard in FILLED:
        chain = hashlib.sha256(b"").digest()
        events = [row for row in rows(filled_url, EVENTS) if row["shard"] == shard]
        assert len(events) >= PAST.events // SHARDS
        for place, row in enumerate(events, start=1):
            state = row["state"].decode()
            digest = event_digest(
                event_id=row["event_id"],
                originator_id=row["originator_id"],
                originator_version=row["originator_version"],
                topic=row["topic"],
                recorded_at=json.loads(state)["at"],
                state=state,
                cause=row["cause"],
            )
            chain = hashlib.sha256(chain + digest).digest()
            assert (row["position"], row["digest"], row["chain_hash"]) == (place, digest, chain)


def test_the_real_ledger_goes_on_from_a_filled_store(databases: Databases) -> None:
    with databases.clone() as url:
        fill_two_shards(url)
        build_read_models(url, ["receipts"], processes=1)
        (row, *_) = rows(url, CAPTURED)
        tenant = Tenant(row["merchant_id"], Mode(row["mode"]))
        with patient_pool(url, size=1) as pool:
            ledger = PostgresPaymentLedger(
                pool,
                bank=AgreeableBank(),
                bank_calls=PostgresBankCalls(pool),
                clock=SteppableClock(UNTIL),
                ids=SequentialIds(),
                vault=PlainVault(),
                answers=PlainAnswers(),
            )

            reply = ledger.refund(refund(row["payment_id"], tenant=tenant))

            assert isinstance(reply, Settled)
            assert ledger.payment(row["payment_id"], tenant).status is Status.REFUNDED
        heads = {head["shard"]: head["position"] for head in rows(url, HEADS)}
        assert heads[row["shard"]] == row["head"] + 2


def test_only_an_empty_store_is_filled(filled_url: str) -> None:
    with pytest.raises(BenchFailed):
        fill_shards(filled_url, PAST, FILLED)


def test_an_order_slot_is_left_for_what_is_live_and_a_key_for_what_was_answered_of_late(
    filled_url: str,
) -> None:
    live = rows(
        filled_url,
        "SELECT payment_id FROM receipts WHERE status = ANY('{pending,authorized,captured}')",
    )
    slots = rows(filled_url, "SELECT payment_id FROM order_slots")
    keys = rows(
        filled_url,
        "SELECT k.claimed_at, a.status, a.body FROM idempotency_keys k"
        " LEFT JOIN idempotency_answers a USING (request_id, merchant_id, mode, key, payment_id)",
    )

    assert {row["payment_id"] for row in slots} == {row["payment_id"] for row in live}
    assert keys
    for key in keys:
        assert key["claimed_at"] >= UNTIL - timedelta(days=KEPT_DAYS, minutes=1)
        assert key["status"] in {201, 402}
        assert json.loads(key["body"])


def test_the_same_seed_makes_the_same_lives() -> None:
    one, two, other = (
        [(life.payment_id, life.steps[place]) for life, place in events_of_shard(past, 3)]
        for past in (PAST, PAST, replace(PAST, seed=8))
    )

    assert one == two
    assert one != other


def test_events_are_written_as_they_would_be_now() -> None:
    mapper = FlatMapper(FlatJSON())
    made = [stored_event(life, place) for life, place in events_of_shard(PAST, 3)]

    assert [mapper.to_stored_event(mapper.to_domain_event(each)) for each in made] == made


def test_what_is_asked_of_the_bank_is_answered() -> None:
    steps = [life.steps[place] for life, place in events_of_shard(PAST, 3)]

    assert sum(step.asks for step in steps) * 2 == len(steps)
    assert [step.at for step in steps] == sorted(step.at for step in steps)


# --- the programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bare", "tx1"])
def test_pgbench_inserts_the_rows_that_the_recorder_does(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    try:
        rate = pgbench.run(database_url, tmp_path, kind, clients=2, seconds=1)
    except BenchFailed as error:
        pytest.skip(str(error))

    (counted,) = rows(database_url, COUNTS)
    assert rate > 0
    assert counted["events"] == counted["heads"] > 0
    others = 0 if kind == "bare" else counted["events"]
    assert counted["receipts"] == counted["keys"] == counted["slots"] == others


def test_writers_write_what_followers_can_take_in_and_probes_see(database_url: str) -> None:
    with lag.engine_running(database_url), Background(database_url, 1).writing() as writing:
        seen = lag.probed(database_url, 1, 0.3)

    (counted,) = rows(database_url, COUNTS)
    assert writing.events > 0
    assert counted["events"] >= writing.events
    assert all(len(values) > 0 and max(values) < 30_000 for values in seen.values())
    assert len(seen["balances"]) == len(seen["customers"])


def test_the_library_is_measured_over_all_of_the_events(database_url: str) -> None:
    assert stock.events_per_second(database_url, rebuild.made_up_events(30)) > 0

    assert (
        rows(database_url, "SELECT max(notification_id) AS last FROM stock_events")[0]["last"] == 30
    )


def test_growth_asks_every_question_of_every_store(databases: Databases) -> None:
    with databases.clone() as url:
        fill_two_shards(url)
        build_read_models(url, ["receipts"], processes=1)
        growth.warm(url)
        store = growth.opened(url, PAST.events)

        result = growth.measured([store], rounds=1)

        store.pool.close()
    assert set(result["milliseconds"]) == set(store.questions())
    assert all(
        it["p95"] > 0 for by_size in result["milliseconds"].values() for it in by_size.values()
    )
    assert "one indexed query" in growth.table(result)


def test_a_rebuild_is_read_through_compared_and_promoted(databases: Databases) -> None:
    with databases.clone() as url:
        fill_two_shards(url)
        build_read_models(url, ["receipts"], processes=1)

        with rebuild.Reader(
            url, "SELECT payment_id, merchant_id, mode FROM receipts"
        ).reading() as reader:
            took = rebuild.rebuild_in_processes(url, "receipts", 1)
            differ = rebuild.how_many_differ(url)
            rebuild.promoted(url)

    assert took["seconds"] > 0
    assert differ == 0
    assert reader.reads > 0
    assert reader.failures == []


class OneStore:
    """Stands where a cluster would, and has the one database."""

    def __init__(self, url: str) -> None:
        self._url = url

    def store(self, _name: str) -> str:
        return self._url


def test_every_proof_that_is_measured_is_one(database_url: str, tmp_path: Path) -> None:
    leaves = audit.LEAVES_AT_ONCE + 700
    cluster = cast("Cluster", OneStore(database_url))

    it = audit.proven(cluster, audit.settings_in(tmp_path), {"leaves": leaves, "proofs": 20})

    assert it["milliseconds"]["count"] == 20
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT level, count(*) FROM audit_tiles GROUP BY level"
        ).fetchall()
    assert dict(rows) == {0: 259, 1: 2, 2: 1}


def test_all_that_is_sealed_is_counted(databases: Databases, tmp_path: Path) -> None:
    with databases.clone() as url:
        fill_two_shards(url)
        receiving, sending = Pipe(duplex=False)

        audit.seal_all(url, audit.settings_in(tmp_path), sending)

        with psycopg.connect(url) as connection:
            events = connection.execute("SELECT count(*) FROM events").fetchone()
    seconds, cpu_seconds, size = receiving.recv()
    assert (size,) == events
    assert seconds > 0
    assert cpu_seconds > 0


def test_the_figures_of_verifying_are_held_against_their_targets() -> None:
    run = {"events": 640, "seconds": 1.0, "events_per_second": 640, "peak_megabytes": 50.0}
    result = {"runs": [{**run, "sealing_seconds": 0.1}, {**run, "sealing_seconds": 0.2}]}

    told = verify.table(result)

    assert "at least 50000: NOT met" in told
    assert "at most 1.25: met" in told

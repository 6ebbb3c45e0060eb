"""Every event is sealed once, in one order without gaps, whoever dies or comes between."""

from typing import Final, LiteralString

import psycopg
import pytest

from domain.commands import Cause
from domain.evidence import root_of
from infrastructure.audit.sealer import LogBroken, NotOurs, Sealer
from infrastructure.audit.tree import root_at
from infrastructure.database import BoundedConnection, Pool
from infrastructure.event_store import ShardedRecorder
from tests.audit.a_plain_tree import plain_root
from tests.audit.a_sealed_log import SealedLog, payments, row_of, whole_log
from tests.infrastructure.projections.a_log import mapper

SIZE: Final[LiteralString] = "SELECT size FROM audit_tree"
SKIP_A_POSITION: Final[LiteralString] = """
    UPDATE shard_heads SET position = position + 1 WHERE shard = %(shard)s
"""
SEAL_AGAIN: Final[LiteralString] = "UPDATE audit_cursors SET position = 0 WHERE shard = %(shard)s"
CHANGES: Final[tuple[LiteralString, ...]] = (
    "UPDATE audit_tiles SET hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1)",
    "DELETE FROM audit_tiles",
    "UPDATE audit_runs SET shard_position = shard_position + 1",
    "DELETE FROM audit_runs",
    "UPDATE audit_checkpoints SET note = 'x'",
    "DELETE FROM audit_checkpoints",
    "TRUNCATE audit_tiles",
    "TRUNCATE audit_runs",
    "TRUNCATE audit_checkpoints",
)


def test_what_is_sealed_is_the_whole_log_once_under_its_root(log: SealedLog) -> None:
    log.append(5)
    first = log.signed()
    log.append(300)

    second = log.signed()

    leaves = log.leaves()
    assert (first.size, second.size) == (10, 610)
    assert len(leaves) == 610
    assert first.root == plain_root(leaves[:10])
    assert second.root == plain_root(leaves)


@pytest.mark.parametrize(
    ("batch", "payments"), [(1, 130), (7, 130), (255, 290), (256, 290), (257, 290), (5_000, 290)]
)
def test_the_tree_is_the_same_by_small_steps_and_by_large_ones(
    log: SealedLog, batch: int, payments: int
) -> None:
    log.append(payments)
    sealer = Sealer()
    with log.pool.connection() as connection:
        sealer.lease(connection)

        sizes = []
        while sealer.step(connection, batch=batch):
            sizes.append(row_of(connection, SIZE)["size"])

        assert sizes[-1] == 2 * payments > 256
        assert all(b - a <= batch for a, b in zip([0, *sizes], sizes, strict=False))
        leaves = log.leaves()
        for size in {*sizes[:3], *sizes[-3:]}:
            assert root_at(connection, size) == root_of(leaves[:size])


def test_an_append_that_commits_late_is_sealed_when_it_does(log: SealedLog) -> None:
    """Its shard's head is held until then, so that no later position of the shard is given out."""
    late, *others = payments(6)
    recorder = ShardedRecorder(log.pool)
    stored = [mapper.to_stored_event(event) for event in late.history]
    batch = recorder._batch(stored, Cause(actor="key_1"))
    statement, parameters = recorder._statement(batch, late.history, ())
    with log.pool.connection() as connection, connection.transaction():
        connection.execute(statement, parameters)
        for other in others:
            if other.id.bytes[-1] % 64 != late.id.bytes[-1] % 64:
                own = [mapper.to_stored_event(event) for event in other.history]
                recorder.insert_events(own, history=other.history)
        before = log.signed()

    after = log.signed()

    assert after.size == before.size + 2
    with log.pool.connection() as connection:
        last = [leaf.aggregate for leaf in whole_log(connection)][-2:]
    assert last == [str(late.id)] * 2


def test_of_two_sealers_the_one_that_lost_the_lease_writes_nothing(log: SealedLog) -> None:
    log.append(3)
    one, other = Sealer(), Sealer()
    with log.pool.connection() as connection:
        assert one.lease(connection)
        assert not other.lease(connection)
        assert other.lease(connection, by_force=True)

        with pytest.raises(NotOurs):
            one.step(connection)
        assert row_of(connection, SIZE)["size"] == 0

        assert other.step(connection) == 6
        other.give_back(connection)
        assert one.lease(connection)


def test_a_sealer_that_dies_in_the_middle_of_a_step_has_sealed_nothing(
    log: SealedLog, database_url: str
) -> None:
    log.append(3)
    with log.pool.connection() as connection, pytest.raises(psycopg.OperationalError):
        seal_and_die(connection, database_url)

    assert log.signed().size == 6
    assert len(log.leaves()) == 6


def seal_and_die(connection: BoundedConnection, database_url: str) -> None:
    sealer = Sealer()
    sealer.lease(connection)
    with connection.transaction():
        assert sealer.step(connection) == 6
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("SELECT 1")


def test_a_log_with_a_hole_is_not_sealed(log: SealedLog) -> None:
    log.append(1)
    with log.pool.connection() as connection:
        shard = row_of(connection, "SELECT shard FROM events LIMIT 1")["shard"]
        connection.execute(SKIP_A_POSITION, {"shard": shard})

    with pytest.raises(LogBroken, match=f"shard {shard} has no event at its position 3"):
        log.signed()

    with log.pool.connection() as connection:
        assert row_of(connection, SIZE)["size"] == 0


def test_no_event_is_sealed_twice(log: SealedLog) -> None:
    log.append(1)
    log.signed()
    with log.pool.connection() as connection:
        shard = row_of(connection, "SELECT shard FROM events LIMIT 1")["shard"]
        connection.execute(SEAL_AGAIN, {"shard": shard})

    with pytest.raises(LogBroken, match="a second time"):
        log.signed()


def test_the_database_itself_refuses_to_change_what_is_sealed(log: SealedLog, pool: Pool) -> None:
    log.append(2)
    log.signed()

    for change in CHANGES:
        with pool.connection() as connection, pytest.raises(psycopg.Error):
            connection.execute(change)

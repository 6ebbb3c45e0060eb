"""A sealer is killed at each moment at which it waits for the database, and nobody can tell afterwards;
and several at once seal as one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.evidence import root_of
from infrastructure.audit.checkpoints import newest
from infrastructure.audit.sealer import NotOurs
from infrastructure.checkpoint_keys import new_signing_key
from infrastructure.database import Pool
from tests.audit.a_sealed_log import ORIGIN, SealedLog, audit_settings
from tests.faults.a_world import Zygote
from tests.patience import patient_pool

KILLED = -9
FEWEST_MOMENTS = 10
MOST_MOMENTS = 200
ROUNDS = 12


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=8) as pool:
        yield pool


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.end()


def check(log: SealedLog) -> None:
    """Everything is sealed once, and every checkpoint that was ever signed is of what is there now."""
    leaves = log.leaves()
    with log.pool.connection() as connection:
        events = connection.execute("SELECT count(*) AS events FROM events").fetchone()
        signed = newest(connection, MOST_MOMENTS * 2)
    assert events is not None
    assert len(leaves) == events["events"]
    for each in signed:
        assert each.root == root_of(leaves[: each.size])
    assert [each.number for each in signed] == list(range(len(signed), 0, -1))


def is_sealed(log: SealedLog) -> bool:
    """Whether a sealer came to its end."""
    with log.pool.connection() as connection:
        events = connection.execute("SELECT count(*) AS events FROM events").fetchone()
    assert events is not None
    return len(log.leaves()) == int(events["events"])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_sealer_killed_at_any_moment_has_sealed_and_signed_all_or_nothing(
    pool: Pool, zygote: Zygote, database_url: str, tmp_path: Path
) -> None:
    key = new_signing_key()
    log = SealedLog(pool, audit_settings(tmp_path, CHECKPOINT_KEY=key))
    environ = {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "CHECKPOINT_KEY": key,
        "CHECKPOINT_ORIGIN": ORIGIN,
        "CHECKPOINT_EVERY_SECONDS": "0.001",
        "LOG_LEVEL": "ERROR",
    }

    for moment in range(1, MOST_MOMENTS):
        log.append(2)
        at = {"FAULT_POINT": f"database.waited_for:{moment}"}
        ended = zygote.play({"act": {"seal": True}, "environ": {**environ, **at}})
        while ended["status"] == 0 and not is_sealed(log):
            release(pool)  # the lease of one that was killed came after it
            ended = zygote.play({"act": {"seal": True}, "environ": {**environ, **at}})
        if ended["status"] == 0:
            break
        assert ended["status"] == KILLED
        if moment % 3 == 0:  # the others leave it to the next that is killed
            log.signed()
            check(log)
        release(pool)

    assert FEWEST_MOMENTS < moment < MOST_MOMENTS - 1
    log.signed()
    check(log)


def release(pool: Pool) -> None:
    """The lease of the dead has run out."""
    with pool.connection() as connection:
        connection.execute("UPDATE audit_tree SET owner = NULL, owned_until = NULL")


def test_sealers_that_take_it_from_one_another_while_events_come_seal_each_once(
    pool: Pool, tmp_path: Path
) -> None:
    log = SealedLog(pool, audit_settings(tmp_path))
    done = threading.Event()

    def seal() -> int:
        own, lost = SealedLog(pool, audit_settings(tmp_path)), 0
        while not done.is_set():
            try:
                own.signed()
            except NotOurs:
                lost += 1
        return lost

    with ThreadPoolExecutor(3) as threads:
        sealing = [threads.submit(seal) for _ in range(3)]
        for _ in range(ROUNDS):
            log.append(5)
        done.set()
        for each in sealing:
            each.result()

    log.signed()
    check(log)

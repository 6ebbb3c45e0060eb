"""Keys are remembered for a moment, and a moment may be over at any moment."""

from collections.abc import Iterator
from datetime import timedelta
from typing import LiteralString

import pytest

from domain.commands import Mode
from infrastructure.api_keys import REMEMBERED_SECONDS, ApiKeys
from infrastructure.clock import RandomIds
from infrastructure.database import Pool
from tests.fakes import SteppableClock
from tests.patience import patient_pool


class RestlessClock(SteppableClock):
    """Time goes on while it is read."""

    def __init__(self, step_seconds: float) -> None:
        super().__init__()
        self._step_seconds = step_seconds

    def monotonic(self) -> float:
        self.advance(self._step_seconds)
        return super().monotonic()


@pytest.mark.parametrize("readings", [1.1, 1.7, 2.3, 3.1])
def test_a_key_is_found_also_when_what_is_remembered_of_it_runs_out_while_it_is_looked_up(
    shared_database_url: str, readings: float
) -> None:
    clock = RestlessClock(REMEMBERED_SECONDS / readings)
    with patient_pool(shared_database_url, size=2) as pool:
        keys = ApiKeys(pool, clock, RandomIds())
        _, key = keys.create("a merchant of the restless clock", mode=Mode.TEST)

        found = [keys.find(key) for _ in range(20)]

    assert None not in found


WRITES: LiteralString = "SELECT xmin::text AS written FROM api_keys WHERE key_id = %(key_id)s"


@pytest.fixture(scope="module")
def pool(shared_database_url: str) -> Iterator[Pool]:
    with patient_pool(shared_database_url, size=2) as pool:
        yield pool


def test_when_a_key_was_used_last_is_written_down_once_a_minute(pool: Pool) -> None:
    clock = SteppableClock()
    keys = ApiKeys(pool, clock, RandomIds())
    record, key = keys.create("a merchant of the diligent", mode=Mode.TEST)

    def written_after(seconds: float) -> str:
        clock.advance(seconds)
        assert keys.find(key) is not None
        with pool.connection() as connection:
            row = connection.execute(WRITES, {"key_id": record.key_id}).fetchone()
        assert row is not None
        return str(row["written"])

    first = written_after(0)
    within = {written_after(1) for _ in range(50)}
    later = written_after(20)

    assert within == {first}
    assert later != first


def test_a_key_that_is_remembered_expires_on_time(pool: Pool) -> None:
    clock = SteppableClock()
    keys = ApiKeys(pool, clock, RandomIds())
    expires_at = clock.now() + timedelta(seconds=REMEMBERED_SECONDS / 2)
    _, key = keys.create("a merchant of the hasty", mode=Mode.TEST, expires_at=expires_at)
    assert keys.find(key) is not None

    clock.advance(REMEMBERED_SECONDS / 2)

    assert keys.find(key) is None


def test_a_key_in_the_place_of_one_that_expires_lives_as_long_as_that_was_to(pool: Pool) -> None:
    clock = SteppableClock()
    keys = ApiKeys(pool, clock, RandomIds())
    expires_at = clock.now() + timedelta(days=10)
    old, _ = keys.create("a merchant of the careful", mode=Mode.LIVE, expires_at=expires_at)
    clock.advance(timedelta(days=9).total_seconds())

    new, key = keys.rotate(old.key_id, overlap=timedelta(days=5))

    assert key.startswith("sk_live_")
    assert new.expires_at == clock.now() + timedelta(days=10)
    (still,) = [each for each in keys.all() if each.key_id == old.key_id]
    assert still.expires_at == expires_at  # rotating prolongs nothing

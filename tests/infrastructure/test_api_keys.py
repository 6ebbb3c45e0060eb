"""Keys are remembered for a moment, and a moment may be over at any moment."""

import pytest

from domain.commands import Mode
from infrastructure.api_keys import REMEMBERED_SECONDS, ApiKeys
from infrastructure.clock import RandomIds
from infrastructure.database import open_pool
from tests.fakes import SteppableClock


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
    with open_pool(shared_database_url, size=2) as pool:
        keys = ApiKeys(pool, clock, RandomIds())
        _, key = keys.create("a merchant of the restless clock", mode=Mode.TEST)

        found = [keys.find(key) for _ in range(20)]

    assert None not in found

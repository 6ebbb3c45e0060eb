"""Simulated worlds whose luck is hypothesis's: what it finds, it makes as simple as it can."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.simulation.choices import SeededChoices
from tests.simulation.weather import FAULTS, WELL
from tests.simulation.world import ScriptedWorld, Size, World

T = TypeVar("T")

# What lasts for a while, or a client does, is a rule of its own or a part of an order.
STRIKING: Final = tuple(
    name
    for name in FAULTS
    if name.startswith(("bank_", "store_", "process_", "request_", "answer_"))
    and name
    not in {
        "bank_database_down",
        "bank_lock_trouble",
        "bank_restarts",
        "bank_prunes_keys_early",
        "store_down",
    }
)
FINE_STEPS: Final = 20
MOST_DRAWS: Final = 120


class DrawnChoices:
    """Luck that hypothesis draws, for as long as it lasts; then nothing happens, in the usual time.

    Its simplest is that nothing happens, at once, in the order in which things are written down.
    """

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self._left = MOST_DRAWS
        self._usual = SeededChoices(1)

    def happens(self, rate: float) -> bool:
        if rate == 0 or not self._may_draw():
            return False
        return self._data.draw(st.integers(0, FINE_STEPS)) > FINE_STEPS * (1 - rate)

    def between(self, low: float, high: float) -> float:
        if not self._may_draw():
            return self._usual.between(low, high)
        return low + (high - low) * self._data.draw(st.integers(0, FINE_STEPS)) / FINE_STEPS

    def one_of(self, options: Sequence[T]) -> T:
        if not self._may_draw():
            return self._usual.one_of(options)
        return self._data.draw(st.sampled_from(options))

    def _may_draw(self) -> bool:
        self._left -= 1
        return self._left >= 0


@pytest.mark.slow
@pytest.mark.timeout(180)  # fifteen worlds
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data(), faults=st.sets(st.sampled_from(FAULTS), max_size=8))
def test_whatever_is_drawn_no_money_goes_wrong(data: st.DataObject, faults: set[str]) -> None:
    weather = replace(WELL, **dict.fromkeys(sorted(faults), 0.15))
    size = Size(payments=2, seconds=5.0, apis=2, workers=2)

    World(1, choices=DrawnChoices(data), weather=weather, size=size).run()


class SimulatedWorldMachine(RuleBasedStateMachine):
    """Orders come in and faults strike, in whatever order is thought of."""

    def __init__(self) -> None:
        super().__init__()
        self._existing = ExitStack()

    @initialize(seed=st.integers(0, 1000))
    def there_is_a_world(self, seed: int) -> None:
        self.world = ScriptedWorld(seed)
        self._existing.enter_context(self.world.existing())

    @rule()
    def an_order_comes_in(self) -> None:
        self.world.merchants.order(0.0)

    @rule(fault=st.sampled_from(STRIKING), times=st.integers(1, 3))
    def a_fault_will_strike(self, fault: str, times: int) -> None:
        self.world.ordered[fault] += times

    @rule(
        habit=st.sampled_from([name for name in FAULTS if name.startswith("client_")]),
        times=st.integers(1, 3),
    )
    def a_client_will_be_as_clients_are(self, habit: str, times: int) -> None:
        self.world.ordered[habit] += times

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 10.0, 35.0]))
    def time_passes(self, seconds: float) -> None:
        with self.world.violations_told():
            self.world.run_until(self.world.scheduler.now + seconds)

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0]))
    def the_banks_database_goes_down(self, seconds: float) -> None:
        self.world.happened("bank_database_down")
        self.world.bank.is_down = True
        self.world.scheduler.after(seconds, lambda: setattr(self.world.bank, "is_down", False))

    @rule(seconds=st.sampled_from([0.5, 5.0, 30.0]))
    def our_database_goes_down(self, seconds: float) -> None:
        self.world.happened("store_down")
        self.world.wire.is_down = True
        self.world.scheduler.after(seconds, lambda: setattr(self.world.wire, "is_down", False))

    @rule()
    def the_bank_is_restarted(self) -> None:
        self.world.happened("bank_restarts")
        self.world.bank.restart()

    @rule(place=st.integers(0, 3))
    def a_process_is_killed(self, place: int) -> None:
        processes = [*self.world.deployment.apis, *self.world.deployment.workers]
        host = processes[place].host
        if host.is_alive:
            self.world.happened("process_dies")
            self.world.deployment.kill(host)

    def teardown(self) -> None:
        """All goes well again, everybody gets an outcome, and the books agree."""
        with self._existing, self.world.violations_told():
            if not self.world.has_failed:
                self.world.ordered.clear()
                self.world.heal()
                self.world.end_well()


TestSimulatedWorld = SimulatedWorldMachine.TestCase
TestSimulatedWorld.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

"""Simulated worlds: a few seeds of all faults, and what makes a seed worth having."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.simulation.scheduler import Scheduler, Signal, sleeping_in
from tests.simulation.weather import FAULTS, WELL
from tests.simulation.world import Size, World

SEEDS = range(1, 13)
SMALL = Size(payments=12, seconds=60.0)
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_no_money_does(seed: int) -> None:
    report = World(seed, size=SMALL).run()

    assert report.counts["payments"] >= SMALL.payments
    assert set(report.happened) & set(FAULTS)


def test_in_a_world_that_is_well_every_payment_is_certain() -> None:
    report = World(1, weather=WELL, size=SMALL).run()

    assert report.counts["orphan_holds"] == 0
    assert not [name for name in report.counts if name.startswith("reviews_")]


def test_a_seed_is_the_same_world_every_time_and_in_every_process() -> None:
    here = World(3, size=SMALL).run().trace_hash
    again = World(3, size=SMALL).run().trace_hash

    assert again == here
    assert soak("--from", "3", "--payments", "12")["trace_hashes"] == soaked_here(3, 12)


def soaked_here(seed: int, payments: int) -> dict[str, str]:
    return {str(seed): World(seed, size=Size(payments=payments)).run().trace_hash}


def soak(*arguments: str) -> dict[str, object]:
    """The report of the command, from a process with another order of sets."""
    command = [sys.executable, "-m", "tests.simulation.soak", "--seeds", "1", "--json", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    report: dict[str, object] = json.loads(done.stdout)
    return report


def test_another_seed_is_another_world() -> None:
    assert World(1, size=SMALL).run().trace_hash != World(2, size=SMALL).run().trace_hash


def test_time_passes_in_tasks_only_when_nothing_else_is_to_be_done() -> None:
    scheduler, seen = Scheduler(), []

    def sleeper(name: str, seconds: float) -> None:
        time.sleep(seconds)
        seen.append((name, scheduler.now))

    with sleeping_in(scheduler, 1):
        scheduler.spawn(None, lambda: sleeper("late", 3600.0))
        scheduler.spawn(None, lambda: sleeper("early", 60.0))
        while scheduler.tasks:
            scheduler.step()

    assert seen == [("early", 60.0), ("late", 3600.0)]


def test_whoever_waits_goes_on_when_it_comes_and_not_again_when_time_is_up() -> None:
    scheduler, letter, seen = Scheduler(), Signal(), []

    def wait() -> None:
        seen.append((scheduler.wait_for(letter, 10.0), scheduler.now))
        scheduler.pause(100.0)
        seen.append((letter.value, scheduler.now))

    scheduler.spawn(None, wait)
    scheduler.after(2.0, lambda: letter.give("here"))
    while scheduler.tasks:
        scheduler.step()

    assert seen == [(True, 2.0), ("here", 102.0)]

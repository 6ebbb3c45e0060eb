"""The whole system in processes of its own, killed, stopped and cut off; then the books compared.

The same program at full size is `./scripts/chaos`.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

PROJECT: Final = Path(__file__).parents[2]
CHAOS: Final = (sys.executable, "-P", "-m", "scripts.reality.run")
# Mostly waiting; far more than it takes, for a machine that has much else to do.
MOST_SECONDS: Final = 280
STOP_SECONDS: Final = 60


def chaos(*options: str) -> tuple[int, dict[str, Any], str]:
    """The exit status, the report, and what was said."""
    process = subprocess.Popen(
        [*CHAOS, "--hurried", "--json", *options],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        report, said = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it takes what it started with it
        report, said = process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()
    return process.returncode, json.loads(report or "{}"), said


@pytest.mark.slow
@pytest.mark.timeout(MOST_SECONDS + 2 * STOP_SECONDS)
def test_whatever_dies_nobody_is_charged_twice_and_the_books_are_equal() -> None:
    status, report, said = chaos("--payments", "40", "--seconds", "10", "--seed", "7")

    assert status == 0, said
    assert report["violations"] == []
    answers = report["answers"]
    assert answers["201"] + answers.get("201 replayed", 0) > report["payments"]
    struck = report["struck"]
    for what in ("kill -9 of", "stopped", "the bank's line", "Postgres' line", "the bank's slip"):
        assert [name for name in struck if what in name], what
    assert min(it["looked_at"] for it in report["checks"] if it["name"] != NOTHING_LEFT) > 0


NOTHING_LEFT: Final = "nothing is left in doubt"


def test_a_misfortune_that_there_is_not_is_refused_in_one_line() -> None:
    status, report, said = chaos("--faults", "kills,floods")

    assert (status, report) == (2, {})
    assert "--faults" in said

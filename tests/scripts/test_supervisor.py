"""Programs are kept alive, given up in one line, and ended by whoever comes after a crash."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure import processes
from scripts.supervisor import MOST_QUICK_DEATHS, Deaths, GaveUp, Program, Register, Supervisor

PATIENCE_SECONDS = 20
FOR_EVER = "import time; time.sleep(600)"
WITH_A_WORKER = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {FOR_EVER!r}]); "
    "time.sleep(600)"
)
WRONG_SETTING = "import sys; print('PORT is wrong'); sys.exit(2)"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "children.json")


@pytest.fixture
def supervisor(register: Register, said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(register, said.append)
    yield supervisor
    supervisor.stop()


def test_a_program_that_dies_is_started_again_and_that_is_said(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    program = started(supervisor, tmp_path, FOR_EVER)
    first = pid_of(program)
    os.kill(first, signal.SIGKILL)

    assert processes.wait_until(
        lambda: checked(supervisor) and program.is_up() and pid_of(program) != first,
        PATIENCE_SECONDS,
    )
    assert said == [f"sleeper ended (see {program.log}); starting it again in 0.5 s"]


def test_a_wrong_setting_is_not_tried_again(supervisor: Supervisor, tmp_path: Path) -> None:
    program = started(supervisor, tmp_path, WRONG_SETTING)
    assert processes.wait_until(lambda: not program.is_up(), PATIENCE_SECONDS)

    with pytest.raises(GaveUp, match="PORT is wrong") as gave_up:
        supervisor.check()

    assert gave_up.value.status == 2


def test_pauses_between_quick_deaths_grow_up_to_a_bound() -> None:
    deaths = Deaths()

    pauses = [deaths.died() for _ in range(MOST_QUICK_DEATHS + 1)]

    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_stopping_ends_a_program_and_its_workers(supervisor: Supervisor, tmp_path: Path) -> None:
    leader = pid_of(started(supervisor, tmp_path, WITH_A_WORKER))
    assert processes.wait_until(lambda: len(processes.group(leader)) == 2, PATIENCE_SECONDS)

    supervisor.stop()

    assert processes.group(leader) == []


def test_what_a_killed_supervisor_left_is_ended_also_where_only_workers_are_left(
    supervisor: Supervisor, register: Register, tmp_path: Path
) -> None:
    leader = pid_of(started(supervisor, tmp_path, WITH_A_WORKER))
    assert processes.wait_until(lambda: len(processes.group(leader)) == 2, PATIENCE_SECONDS)
    os.kill(leader, signal.SIGKILL)
    assert processes.wait_until(lambda: leader not in processes.group(leader), PATIENCE_SECONDS)

    assert register.end_remains() == 1

    assert processes.group(leader) == []
    assert register.end_remains() == 0


def test_a_process_that_was_given_the_same_number_later_is_left_alone(register: Register) -> None:
    with subprocess.Popen([sys.executable, "-c", FOR_EVER], start_new_session=True) as stranger:
        register.write([stranger.pid])
        text = register.path.read_text()
        register.path.write_text(text.replace(processes.started_at(stranger.pid), "1"))

        ended = register.end_remains()
        is_alive = stranger.poll() is None
        stranger.kill()

    assert ended == 0
    assert is_alive


def test_warnings_are_shown_and_the_rest_is_not(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    lines = ["{'level': 'info'}", '{"level": "warning", "event": "slow bank"}', "a line"]
    started(supervisor, tmp_path, f"print({chr(10).join(lines)!r}, flush=True); {FOR_EVER}")

    assert processes.wait_until(lambda: checked(supervisor) and bool(said), PATIENCE_SECONDS)

    assert said == ['sleeper: {"level": "warning", "event": "slow bank"}']


def started(supervisor: Supervisor, folder: Path, code: str) -> Program:
    command = [sys.executable, "-c", code]
    program = Program("sleeper", command, os.environ, folder / "sleeper.log")
    supervisor.start(program)
    return program


def pid_of(program: Program) -> int:
    assert program.process is not None
    return program.process.pid


def checked(supervisor: Supervisor) -> bool:
    supervisor.check()
    return True

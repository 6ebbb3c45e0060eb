"""Keeps the programs of one system alive: starts them, restarts what dies, stops all in order.

What is started is written down, so that the next `up` finds what a killed one left behind.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from infrastructure import processes

POLL_SECONDS = 0.2
QUICK_DEATH_SECONDS = 20.0
MOST_QUICK_DEATHS = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
STOP_STEPS = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))
REST_STEPS = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0))
WRONG_SETTING_STATUS = 2
LARGEST_LOG_BYTES = 50_000_000
MOST_LINES_SHOWN_AT_ONCE = 5
LONGEST_LINE_SHOWN = 300
WORTH_SHOWING = re.compile(
    # all but the line of a request that was refused, which is its client's business
    r'^(?!.*"event": "request", "level": "warning")'
    r'.*("level": ?"(warning|error|critical)"|\b(WARNING|ERROR|CRITICAL)\b)',
    re.IGNORECASE,
)

Say = Callable[[str], None]


class GaveUp(Exception):
    """A program cannot be kept alive; the text is one line, `status` is the exit status."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Kept(Protocol):
    """Something that is to be up, as the supervisor sees it."""

    name: str

    def start(self) -> None: ...
    def is_up(self) -> bool: ...
    def is_hopeless(self) -> bool: ...
    def last_words(self) -> str: ...


@dataclass(slots=True)
class Program:
    """One child process, leader of a process group of its own, with its log file."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    shown_up_to: int = 0

    def start(self) -> None:
        self.end_rest()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
            )

    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def is_hopeless(self) -> bool:
        """It said that a setting is wrong, and would say so again."""
        return self.process is not None and self.process.poll() == WRONG_SETTING_STATUS

    def stop(self) -> None:
        """Ask it to end, wait a bounded time, then end it and whatever it left."""
        if self.process is None:
            return
        for number, seconds in STOP_STEPS:
            if self.process.poll() is None:
                self.process.send_signal(number)
                processes.wait_until(lambda: not self.is_up(), seconds)
        self.end_rest()

    def end_rest(self) -> None:
        """A server's workers may outlive it, and keep its port."""
        if self.process is not None:
            self.process.poll()
            end_group(self.process.pid)

    def last_words(self) -> str:
        return last_line(self.log) or f"see {self.log}"

    def new_warnings(self) -> Iterator[str]:
        """Lines of warning or worse that were written since the last call."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size <= self.shown_up_to:
            self.shown_up_to = size
            return
        with self.log.open("rb") as log:
            log.seek(self.shown_up_to)
            said = log.read(size - self.shown_up_to)
        whole = said[: said.rfind(b"\n") + 1]
        self.shown_up_to += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if WORTH_SHOWING.search(line):
                yield line[:LONGEST_LINE_SHOWN]

    def keep_log_small(self) -> None:
        """The program goes on writing to the same file, so it is emptied and not moved."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".old.log"))
            os.truncate(self.log, 0)
            self.shown_up_to = 0


@dataclass(slots=True)
class Deaths:
    """How often one program died soon after its start, and when it may be started again."""

    quick: int = 0
    started_at: float = field(default_factory=time.monotonic)
    again_at: float | None = None

    def died(self) -> float:
        """Count a death, and answer the seconds until the next start."""
        lived = time.monotonic() - self.started_at
        self.quick = self.quick + 1 if lived < QUICK_DEATH_SECONDS else 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (self.quick - 1), LONGEST_PAUSE_SECONDS)
        self.again_at = time.monotonic() + pause
        return pause

    def restarted(self) -> None:
        self.started_at, self.again_at = time.monotonic(), None


class Supervisor:
    """Watches what it was given, in the order of their start."""

    def __init__(
        self, register: "Register", say: Say, *, most_quick_deaths: int = MOST_QUICK_DEATHS
    ) -> None:
        self._most_quick_deaths = most_quick_deaths
        self._kept: dict[str, Kept] = {}
        self._deaths: dict[str, Deaths] = {}
        self._register = register
        self._say = say

    def start(self, kept: Kept) -> None:
        self.watch(kept)
        kept.start()
        self._write_down()

    def watch(self, kept: Kept) -> None:
        """Keep alive what runs already."""
        self._kept[kept.name] = kept
        self._deaths[kept.name] = Deaths()

    def check(self) -> None:
        """Look at each once: restart the dead, show what they warn of."""
        for kept in self._kept.values():
            self._check(kept)
            if isinstance(kept, Program):
                self._show_warnings(kept)
                kept.keep_log_small()

    def stop(self) -> None:
        """The last started first."""
        for kept in reversed(self._kept.values()):
            if isinstance(kept, Program):
                kept.stop()
        self._register.clear()

    def _check(self, kept: Kept) -> None:
        deaths = self._deaths[kept.name]
        if deaths.again_at is not None:
            if time.monotonic() >= deaths.again_at:
                kept.start()
                deaths.restarted()
                self._write_down()
        elif not kept.is_up():
            if kept.is_hopeless():
                raise GaveUp(kept.last_words(), WRONG_SETTING_STATUS)
            pause = deaths.died()
            if deaths.quick >= self._most_quick_deaths:
                raise GaveUp(f"{kept.name} ended {deaths.quick} times: {kept.last_words()}")
            self._say(f"{kept.name} ended ({kept.last_words()}); starting it again in {pause:g} s")

    def _show_warnings(self, program: Program) -> None:
        for number, line in enumerate(program.new_warnings()):
            if number < MOST_LINES_SHOWN_AT_ONCE:
                self._say(f"{program.name}: {line}")
            elif number == MOST_LINES_SHOWN_AT_ONCE:
                self._say(f"{program.name}: more of these in {program.log}")

    def _write_down(self) -> None:
        programs = [kept for kept in self._kept.values() if isinstance(kept, Program)]
        self._register.write([each.process.pid for each in programs if each.process])


@dataclass(frozen=True, slots=True)
class Register:
    """The file that names the process groups of the running system."""

    path: Path

    def write(self, leaders: Sequence[int]) -> None:
        rows = [{"pid": str(pid), "started_at": processes.started_at(pid)} for pid in leaders]
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(rows))
        unfinished.replace(self.path)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def end_remains(self) -> int:
        """End what a killed supervisor left running, and answer how many groups that was.

        A number may be somebody else's by now: a leader has to have the start time written down
        (or to be gone, with workers left), and every process has to run from our own .venv.
        """
        ended = 0
        for row in self._rows():
            leader = int(row["pid"])
            if processes.started_at(leader) in (row["started_at"], "") and members_of(leader):
                end_group(leader)
                ended += 1
        self.clear()
        return ended

    def _rows(self) -> list[dict[str, str]]:
        try:
            rows: list[dict[str, str]] = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return []
        return rows


def end_group(leader: int) -> None:
    processes.end(members_of(leader), REST_STEPS)


def members_of(leader: int) -> list[int]:
    """The living processes of a group that run from our own .venv."""
    here = str(Path(sys.prefix))
    return [pid for pid in processes.group(leader) if here in processes.command_line(pid)]


def last_line(log: Path) -> str:
    """The last thing a program said."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip()[:LONGEST_LINE_SHOWN] for line in reversed(lines) if line.strip()), "")

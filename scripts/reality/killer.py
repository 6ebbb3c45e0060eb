"""What goes wrong, and when: drawn from the seed before it begins, then done to whatever is there."""

import heapq
import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from infrastructure import processes
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.settings import read_settings
from scripts.reality.lines import SILENCE, Weather
from scripts.reality.system import System, members
from scripts.supervisor import Program, members_of

KILLS: Final = "kills"
STOPS: Final = "stops"
LINES: Final = "lines"
BANK: Final = "bank"
OUTAGE: Final = "outage"
KINDS: Final = (KILLS, STOPS, LINES, BANK, OUTAGE)
USUAL: Final = (KILLS, STOPS, LINES, BANK)

BETWEEN_KILLS_SECONDS: Final = (1.5, 5.0)
BETWEEN_STOPS_SECONDS: Final = (4.0, 12.0)
BETWEEN_MOODS_SECONDS: Final = (0.5, 3.0)
STOPPED_SECONDS: Final = (0.3, 4.0)
DATABASE_STOPPED_SECONDS: Final = (0.3, 3.0)
# A program that sleeps past its lease and wakes up: a zombie.
ZOMBIES: Final = 0.25
MOOD_SECONDS: Final = (0.5, 3.0)
MOODS_OF_ALL: Final = 0.4
HANGS_OF_SLIPS: Final = 0.4
# Out of all the time that there is: until then nothing is struck, so that there is something to lose.
GRACE: Final = 0.05

# The bank's moods that last a while, and its slips, which happen so many times.
MOODS: Final[tuple[dict[str, object], ...]] = (
    {"failure_rate": 0.5},
    {"database_down": True},
    {"lock_timeout": True},
    {"abandoned": "finished"},
    {"forget": 0.5},
    {"store_delay_ms": 400},
)
SLIPS: Final = (
    "fail_before",
    "fail_after",
    "drop_before",
    "drop_after",
    "forget_after",
    "garble",
    "mismatch",
    "wrong_currency",
)


@dataclass(frozen=True, slots=True)
class Strike:
    """One thing that goes wrong. `at`: seconds from the beginning."""

    at: float
    name: str
    do: Callable[[], None]


class Killer:
    """Does all of it, each at its time, in a thread of its own."""

    def __init__(
        self, system: System, rng: random.Random, *, kinds: tuple[str, ...], seconds: float
    ) -> None:
        self._system, self._rng, self._seconds = system, rng, seconds
        self._numbers = itertools.count()
        self._strikes: list[tuple[float, int, Strike]] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._stopped: dict[int, str] = {}
        self.struck: Counter[str] = Counter()
        self.missed = 0
        for kind in kinds:
            self._plan(kind)

    def begin(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def end(self) -> None:
        """No more of it; whoever was stopped goes on."""
        self._ending.set()
        self._thread.join()
        self._wake(list(self._stopped))

    # --- what, and when --------------------------------------------------------------------------

    def _plan(self, kind: str) -> None:
        match kind:
            case "kills":
                self._now_and_then(BETWEEN_KILLS_SECONDS, self._a_kill)
            case "stops":
                self._now_and_then(BETWEEN_STOPS_SECONDS, self._a_stop)
            case "lines":
                self._add(self._seconds * GRACE, "the lines are rough", self._roughen)
            case "bank":
                self._now_and_then(BETWEEN_MOODS_SECONDS, self._a_mood)
            case "outage":
                self._add(self._seconds / 2, "the bank is silent from now on", self._silence)
            case _:
                raise ValueError(kind)

    def _now_and_then(
        self, between: tuple[float, float], draw: Callable[[], tuple[str, Callable[[], None]]]
    ) -> None:
        at = self._seconds * GRACE
        while at < self._seconds:
            self._add(at, *draw())
            at += self._rng.uniform(*between)

    def _add(self, at: float, name: str, do: Callable[[], None]) -> None:
        heapq.heappush(self._strikes, (at, next(self._numbers), Strike(at, name, do)))

    def _a_kill(self) -> tuple[str, Callable[[], None]]:
        whom = self._rng.choices(("api", "worker", "database"), (5, 4, 2))[0]
        if whom == "database":
            whole = self._rng.random() < 0.5
            name = "kill -9 of Postgres, " + ("all of it" if whole else "its postmaster")
            return name, lambda: self._kill_database(whole=whole)
        programs = self._system.apis if whom == "api" else self._system.workers
        program = self._rng.choice(programs)
        parts = ("the first", "another", "all")
        part = "all" if whom == "worker" else self._rng.choice(parts)
        name = f"kill -9 of {'an API' if whom == 'api' else 'a worker'}"
        name += {"the first": ", its first process", "another": ", one that serves", "all": ""}[
            part
        ]
        pick = self._rng.random()
        return name, lambda: self._kill(program, part, pick)

    def _a_stop(self) -> tuple[str, Callable[[], None]]:
        if self._rng.random() < 0.2:
            seconds = self._rng.uniform(*DATABASE_STOPPED_SECONDS)
            return "Postgres stopped for a while", lambda: self._stop_database(seconds)
        program = self._rng.choice(self._system.programs())
        kind = "an API" if program in self._system.apis else "a worker"
        if self._rng.random() < ZOMBIES:
            seconds = self._lease_seconds() + self._rng.uniform(*STOPPED_SECONDS)
            return f"{kind} stopped past its leases", lambda: self._stop(program, seconds)
        seconds = self._rng.uniform(*STOPPED_SECONDS)
        return f"{kind} stopped for a while", lambda: self._stop(program, seconds)

    def _lease_seconds(self) -> float:
        return read_settings(self._system.environment).lease_seconds

    def _a_mood(self) -> tuple[str, Callable[[], None]]:
        if self._rng.random() < MOODS_OF_ALL:
            mood, seconds = self._rng.choice(MOODS), self._rng.uniform(*MOOD_SECONDS)
            return f"the bank's mood: {next(iter(mood))}", lambda: self._in_mood(mood, seconds)
        if self._rng.random() < HANGS_OF_SLIPS:
            slip = self._rng.choice(("hang", "hang_after"))
            longest = 1200 * self._system.shape.bank_gives_up_seconds  # sometimes past its limit
            hang = {"count": 3, "milliseconds": round(self._rng.uniform(500, longest))}
            return f"the bank's slip: {slip}", lambda: self._system.bank.switch(**{slip: hang})
        slip, count = self._rng.choice(SLIPS), self._rng.randint(1, 2)
        return f"the bank's slip: {slip}", lambda: self._system.bank.switch(**{slip: count})

    # --- doing it --------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._strikes and not self._ending.is_set():
            at = self._strikes[0][0]
            if self._ending.wait(max(0.0, self._began + at - time.monotonic())):
                return
            strike = heapq.heappop(self._strikes)[2]
            try:
                strike.do()
            except (OSError, LookupError):
                self.missed += 1  # it was down already
            else:
                self.struck[strike.name] += 1

    def _later(self, seconds: float, do: Callable[[], None], name: str) -> None:
        self._add(time.monotonic() - self._began + seconds, name, do)

    def _kill(self, program: Program, part: str, pick: float) -> None:
        alive = _alive(program)
        others = [pid for pid in alive if program.process and pid != program.process.pid]
        if part == "another" and others:
            victims = [others[int(pick * len(others))]]
        elif part == "the first" and program.process:
            victims = [program.process.pid]
        else:
            victims = alive
        for pid in victims:
            processes.send(pid, signal.SIGKILL)

    def _kill_database(self, *, whole: bool) -> None:
        for pid in _alive_database(self._system.postgres)[: None if whole else 1]:
            processes.send(pid, signal.SIGKILL)

    def _stop(self, program: Program, seconds: float) -> None:
        self._freeze(_alive(program), seconds)

    def _stop_database(self, seconds: float) -> None:
        self._freeze(_alive_database(self._system.postgres), seconds)

    def _freeze(self, pids: list[int], seconds: float) -> None:
        for pid in pids:
            self._stopped[pid] = processes.started_at(pid)
            processes.send(pid, signal.SIGSTOP)
        self._later(seconds, lambda: self._wake(pids), "whoever was stopped goes on")

    def _wake(self, pids: list[int]) -> None:
        for pid in pids:
            if processes.started_at(pid) == self._stopped.pop(pid, None):
                processes.send(pid, signal.SIGCONT)

    def _roughen(self) -> None:
        shape = self._system.shape
        self._system.bank_line.weather = Weather(shape.bank_mishaps)
        self._system.database_line.weather = Weather(shape.database_mishaps)

    def _silence(self) -> None:
        self._system.bank_line.weather = SILENCE

    def _in_mood(self, mood: dict[str, Any], seconds: float) -> None:
        self._system.bank.switch(**mood)
        usual = {
            "failure_rate": 0.05,
            "database_down": False,
            "lock_timeout": False,
            "abandoned": "stopped",
            "forget": 0.02,
            "store_delay_ms": 0,
        }
        back = {name: usual[name] for name in mood}
        self._later(seconds, lambda: self._system.bank.switch(**back), "the bank's mood passes")


def _alive(program: Program) -> list[int]:
    """The program's processes. Raises LookupError where there are none."""
    found = [] if program.process is None else members_of(program.process.pid)
    if not found:
        raise LookupError(program.name)
    return found


def _alive_database(postgres: EmbeddedPostgres) -> list[int]:
    """The server first. Raises LookupError where there is none."""
    found = members(postgres)
    if not found:
        raise LookupError("postgres")
    return found

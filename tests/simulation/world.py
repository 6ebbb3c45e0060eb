"""All of it together: from a seed to a report, or to a violation and how to see it again."""

import hashlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import structlog

from infrastructure.vault import Fingerprints, new_key
from tests.simulation.bank import (
    HOLD_LASTS_SECONDS,
    KEYS_KEPT_SECONDS,
    KEYS_PRUNED_EARLY_SECONDS,
    SimulatedBank,
)
from tests.simulation.checks import Checks, Violation
from tests.simulation.choices import Choices, SeededChoices
from tests.simulation.gateway import (
    STALLED_SECONDS,
    STOPPED_SECONDS,
    Asked,
    Deployment,
    Parts,
    SeededIds,
)
from tests.simulation.merchants import Merchants
from tests.simulation.scheduler import HostClock, Scheduler, sleeping_in
from tests.simulation.store import Wire
from tests.simulation.weather import WELL, Weather, swarm

TAIL_LINES: Final = 120
QUIET_WITHIN_SECONDS: Final = 900.0
FAULTS_GO_ON_SECONDS: Final = (20.0, 200.0)
WEEK_SECONDS: Final = HOLD_LASTS_SECONDS
SHORT_HOLD_SECONDS: Final = (15.0, 60.0)
SHORT_HOLD_SHARE: Final = 0.25
EPISODE_PAUSE_SECONDS: Final = (1.0, 30.0)
EPISODE_SECONDS: Final = (0.05, 20.0)
LONG_EPISODE_SECONDS: Final = (20.0, 200.0)
LONG_EPISODE_SHARE: Final = 0.2
MOST_SKEW_SECONDS: Final = 3.0
LONGEST_JUMP_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is in a world."""

    payments: int = 40
    seconds: float = 180.0  # in which the orders come
    apis: int = 2
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one seed."""

    seed: int
    trace_hash: str
    steps: int
    simulated_seconds: float
    busy_seconds: float  # without the quiet week
    wall_seconds: float
    cpu_seconds: float
    happened: Counter[str]
    counts: dict[str, int]
    resolved: list[float] = field(repr=False)
    recovered: list[float] = field(repr=False)


class WorldFailed(Exception):
    """A violation, with all that is needed to see it again."""

    def __init__(self, seed: int, payments: int, violation: str, tail: str) -> None:
        self.seed = seed
        self.violation = violation
        command = f"./scripts/soak --from {seed} --seeds 1 --payments {payments}"
        super().__init__(f"seed {seed}: {violation}\n\n{tail}\n\nSee it again: {command}")


class World:
    """Everything that there is."""

    def __init__(
        self,
        seed: int,
        *,
        choices: Choices | None = None,
        weather: Weather | None = None,
        size: Size | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.seed = seed
        self.choices: Choices = choices or SeededChoices(seed)
        self.size = size or Size()
        self.parts = parts or Parts()
        self.weather = weather or swarm(self.choices)
        self.happenings: Counter[str] = Counter()
        self.has_failed = False
        self._hash = hashlib.sha256()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._skews: dict[str, float] = {}
        self.scheduler = Scheduler()
        self.database_clock = HostClock(self.scheduler)
        self.checks = Checks(self)
        self.store = self.parts.store(self)
        self.wire = Wire(self)
        vault_keys = (new_key(),)
        self.vault: Any = self.parts.vault(vault_keys)
        self.fingerprints = Fingerprints(vault_keys)
        self.ids = SeededIds(self)
        self.bank = SimulatedBank(self, **self._manners_of_the_bank())
        self.merchants = Merchants(self)
        self.deployment = Deployment(self, apis=self.size.apis, workers=self.size.workers)

    # --- one run -------------------------------------------------------------------------------

    def run(self) -> Report:
        """Faults, then none, then quiet, then a week of it. Raises WorldFailed."""
        began, cpu_began = time.monotonic(), time.process_time()
        with self.existing(), self.violations_told():
            self._faults()
            self.heal()
            self.end_well()
        return self._report(time.monotonic() - began, time.process_time() - cpu_began)

    @contextmanager
    def existing(self) -> Iterator[None]:
        """Time is this world's, in its own tasks, until all of them are ended."""
        with sleeping_in(self.scheduler, self.seed), logs_read(self.checks):
            try:
                yield
            finally:
                self.scheduler.close()

    @contextmanager
    def violations_told(self) -> Iterator[None]:
        """Raises WorldFailed for a Violation: what is wrong, how it came, how to see it again."""
        try:
            yield
        except Violation as violation:
            self.has_failed = True
            tail = "\n".join(self._tail)
            raise WorldFailed(self.seed, self.size.payments, str(violation), tail) from violation

    def end_well(self) -> None:
        """Everybody gets what they came for, and then all of it is looked at."""
        self.become_quiet()
        self.checks.when_quiet()
        self._a_week_goes_by()
        self._ask_all_again()

    def _faults(self) -> None:
        """Phase one: orders come in, and things go wrong."""
        for _ in range(self.size.payments):
            self.merchants.order(self.choices.between(0.0, self.size.seconds))
        self._begin_episodes()
        self.run_until(self.size.seconds + self.choices.between(*FAULTS_GO_ON_SECONDS))

    def heal(self) -> None:
        """Phase two: nothing goes wrong any more. What is on its way still arrives."""
        self.trace("world", "heals", "")
        self.weather = WELL
        self.bank.is_down = self.bank.has_lock_trouble = self.wire.is_down = False
        self.checks.healed_at = self.scheduler.now
        self.deployment.go_on()

    def become_quiet(self) -> None:
        """Until everybody is done; within a bound."""
        limit = self.scheduler.now + QUIET_WITHIN_SECONDS
        while not self._is_quiet():
            if self.scheduler.now > limit:
                raise Violation(
                    f"not quiet after {QUIET_WITHIN_SECONDS} s: {self.merchants.at_work} clients, "
                    f"{len(self.store.tables.calls)} calls"
                )
            self.step()

    def _is_quiet(self) -> bool:
        return (
            self.merchants.at_work == 0
            and self.merchants.on_their_way == 0
            and not self.store.tables.calls
            and self.bank.is_idle
            and not any(api.host.tasks for api in self.deployment.apis)
        )

    def _a_week_goes_by(self) -> None:
        """Whatever is still held runs out, and is released."""
        self.scheduler.skip(WEEK_SECONDS)
        self.run_until(self.scheduler.now + 60.0)
        self.become_quiet()
        self.checks.when_quiet()
        self.checks.none_is_past_its_time()

    def _ask_all_again(self) -> None:
        """Every answer that was given is given again, byte for byte."""
        api = self.deployment.apis[0]
        for (tenant, key), (path, body) in self.checks.when_replayed().items():
            asked = Asked(tenant=tenant, path=path, key=key, body=body)
            before = len(self.bank.books.holds)
            api.spawn(lambda asked=asked: self._replayed(asked))  # type: ignore[misc]
            self.become_quiet()
            if len(self.bank.books.holds) != before:
                raise Violation(f"{key} was carried out again")

    def _replayed(self, asked: Asked) -> None:
        answer = self.deployment.apis[0].answer(asked)
        if answer.headers.get("Idempotent-Replayed") != "true":
            raise Violation(f"{asked.key} is not answered from memory: {answer.status}")

    def run_until(self, at: float) -> None:
        """Step by step."""
        is_over = False

        def end() -> None:
            nonlocal is_over
            is_over = True

        self.scheduler.after(at - self.scheduler.now, end)
        while not is_over:
            self.step()

    def step(self) -> None:
        """The next thing happens, and nothing is wrong with it."""
        self.scheduler.step()
        self.checks.after_step()

    def _report(self, wall_seconds: float, cpu_seconds: float) -> Report:
        return Report(
            seed=self.seed,
            trace_hash=self._hash.hexdigest()[:16],
            steps=self.scheduler.steps,
            simulated_seconds=self.scheduler.now,
            busy_seconds=self.scheduler.now - WEEK_SECONDS,
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
            happened=self.happenings,
            counts=self.checks.counts(),
            resolved=self.checks.resolved,
            recovered=self.checks.recovered,
        )

    # --- luck ----------------------------------------------------------------------------------

    def befalls(self, fault: str) -> bool:
        """Whether the fault happens here, at the rate of today's weather."""
        if not self.choices.happens(getattr(self.weather, fault)):
            return False
        self.happened(fault)
        return True

    def happened(self, fault: str) -> None:
        self.happenings[fault] += 1
        self.trace("fault", fault, "")

    def cross(self, where: str, what: str) -> None:
        """An input or output of a process of ours: here it may die, or be stopped."""
        host = self.scheduler.host()
        if host is None:
            return
        if self.befalls("process_dies"):
            self.trace("host", f"{host.name} dies at {where}", what)
            self.happened(f"died_at_{where.replace(' ', '_')}")
            self.deployment.kill(host)
        if self.befalls("process_is_stopped"):
            self.scheduler.stop(host, self.choices.between(*STOPPED_SECONDS))
        elif self.befalls("process_stalls"):
            self.scheduler.stop(host, self.choices.between(*STALLED_SECONDS))

    def skew_of(self, name: str) -> float:
        """How wrong the clock on the wall of a machine is."""
        if name not in self._skews:
            most = MOST_SKEW_SECONDS if self.weather.clock_jumps else 0.0
            self._skews[name] = self.choices.between(-most, most)
        return self._skews[name]

    def _manners_of_the_bank(self) -> dict[str, float]:
        manners = {"keys_kept_seconds": KEYS_KEPT_SECONDS, "hold_lasts_seconds": HOLD_LASTS_SECONDS}
        if self.befalls("bank_prunes_keys_early"):
            manners["keys_kept_seconds"] = KEYS_PRUNED_EARLY_SECONDS
        if self.choices.happens(SHORT_HOLD_SHARE):
            self.happened("holds_are_short")
            manners["hold_lasts_seconds"] = self.choices.between(*SHORT_HOLD_SECONDS)
        return manners

    # --- what lasts for a while ----------------------------------------------------------------

    def _begin_episodes(self) -> None:
        self._episodes("bank_database_down", self._bank_goes_down)
        self._episodes("bank_lock_trouble", self._bank_locks)
        self._episodes("bank_restarts", lambda _: self.bank.restart())
        self._episodes("store_down", self._store_goes_down)
        self._episodes("clock_jumps", lambda _: self._clock_jumps())

    def _episodes(self, fault: str, begin: Callable[[float], None]) -> None:
        """Now and then, while there are faults, it begins, and lasts for so many seconds."""
        if getattr(self.weather, fault) == 0:
            return

        def come_round() -> None:
            if self.befalls(fault):
                long = self.choices.happens(LONG_EPISODE_SHARE)
                seconds = self.choices.between(*(LONG_EPISODE_SECONDS if long else EPISODE_SECONDS))
                begin(seconds)
            if self.checks.healed_at is None:
                self.scheduler.after(self.choices.between(*EPISODE_PAUSE_SECONDS), come_round)

        self.scheduler.after(self.choices.between(*EPISODE_PAUSE_SECONDS), come_round)

    def _bank_goes_down(self, seconds: float) -> None:
        self.bank.is_down = True
        self.scheduler.after(seconds, lambda: setattr(self.bank, "is_down", False))

    def _bank_locks(self, seconds: float) -> None:
        self.bank.has_lock_trouble = True
        self.scheduler.after(seconds, lambda: setattr(self.bank, "has_lock_trouble", False))

    def _store_goes_down(self, seconds: float) -> None:
        self.wire.is_down = True
        self.scheduler.after(seconds, lambda: setattr(self.wire, "is_down", False))

    def _clock_jumps(self) -> None:
        processes = [*self.deployment.apis, *self.deployment.workers]
        process = self.choices.one_of(processes)
        jump = self.choices.between(-LONGEST_JUMP_SECONDS, LONGEST_JUMP_SECONDS)
        self._skews[process.host.name] = process.clock.skew_seconds = jump

    # --- what was seen -------------------------------------------------------------------------

    def trace(self, who: str, what: str, more: object) -> None:
        """One line of what happened, of which the hash is made."""
        line = f"{self.scheduler.now:11.4f}  {who:<6}  {what}  {more}"
        self._hash.update(line.encode())
        self._tail.append(line)


class ScriptedWorld(World):
    """A world in which only those faults happen that were ordered, each at the first chance."""

    def __init__(self, seed: int) -> None:
        self.ordered = Counter[str]()
        super().__init__(seed, weather=WELL, size=Size(payments=0))

    def befalls(self, fault: str) -> bool:
        if self.ordered[fault] == 0:
            return False
        self.ordered[fault] -= 1
        self.happened(fault)
        return True


@contextmanager
def logs_read(checks: Checks) -> Iterator[None]:
    """What would be logged is looked at for cards, and not written."""

    def read(_logger: object, _method: str, event: MutableMapping[str, Any]) -> NoReturn:
        checks.logged(event)
        raise structlog.DropEvent

    was_configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(
        processors=[read],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        if was_configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()

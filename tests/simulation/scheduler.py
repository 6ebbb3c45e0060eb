"""Simulated time, and synchronous code that is suspended at its inputs and outputs.

A task is a greenlet: plain code that calls `pause` or `wait_for` gives way to whatever comes next in
simulated time, and goes on when its own time has come. A host is a process of the operating system:
its tasks die with it, and stand still while it is stopped.
"""

import heapq
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, SupportsIndex

from greenlet import GreenletExit, getcurrent, greenlet

from tests.builders import NOON
from tests.fakes import SteppableClock

# Every process counts from a moment of its own.
MONOTONIC_START: Final = 1000.0


class Host:
    """One life of one process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.stopped_until = 0.0
        self.waiting: list[Callable[[], None]] = []  # until it goes on
        self.tasks: dict[Task, None] = {}  # a set would be in the order of addresses in memory
        self.hung_up: list[Callable[[], None]] = []


class Task(greenlet):
    """Work that is suspended and continued; `host` None: nobody's that can die."""

    def __init__(
        self, scheduler: "Scheduler", host: Host | None, work: Callable[[], object]
    ) -> None:
        super().__init__(work, scheduler.hub)
        self.host = host
        self.sleep = 0  # the number of the current one, so that an old alarm wakes nobody


class Signal:
    """Something that a task waits for: it comes once, with a value."""

    def __init__(self) -> None:
        self.is_given = False
        self.value: Any = None
        self.wake: Callable[[], None] | None = None

    def give(self, value: Any) -> None:
        if self.is_given:
            return
        self.is_given, self.value = True, value
        if self.wake is not None:
            self.wake()


class Scheduler:
    """What happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.hub = getcurrent()
        self.tasks: dict[Task, None] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._is_closing = False

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Lets `do` happen in `seconds`."""
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), do))

    def step(self) -> None:
        """Lets the next thing happen."""
        self.now, _, do = heapq.heappop(self._due)
        self.steps += 1
        do()

    def skip(self, seconds: float) -> None:
        """Time passes, in which nothing happens."""
        self.now += seconds
        self._due = [(at + seconds, number, do) for at, number, do in self._due]

    # --- tasks ---------------------------------------------------------------------------------

    def spawn(self, host: Host | None, work: Callable[[], object]) -> Task:
        """A new task, which begins after what is happening now."""
        task = Task(self, host, work)
        self.tasks[task] = None
        if host is not None:
            host.tasks[task] = None
        self.after(0.0, lambda: self._continue(task, 0))
        return task

    def pause(self, seconds: float) -> None:
        """The task goes on in `seconds`, or when its host does."""
        task = self._current()
        task.sleep += 1
        number = task.sleep
        self.after(seconds, lambda: self._continue(task, number))
        self._give_way(task)

    def wait_for(self, signal: Signal, seconds: float) -> bool:
        """The task goes on when the signal is given, or in `seconds`; whether it is given."""
        if not signal.is_given:
            task = self._current()
            task.sleep += 1
            number = task.sleep
            signal.wake = lambda: self.after(0.0, lambda: self._continue(task, number))
            self.after(seconds, lambda: self._continue(task, number))
            self._give_way(task)
            signal.wake = None
        return signal.is_given

    def host(self) -> Host | None:
        """Of the task that is running, if one is."""
        task = getcurrent()
        return task.host if isinstance(task, Task) else None

    def in_task(self) -> bool:
        """Whether a task is running, and not whoever runs the world."""
        return isinstance(getcurrent(), Task)

    def _current(self) -> Task:
        task = getcurrent()
        assert isinstance(task, Task), "only a task can wait"
        return task

    def _give_way(self, task: Task) -> None:
        self._unless_dead(task)
        self.hub.switch()
        self._unless_dead(task)

    def _unless_dead(self, task: Task) -> None:
        # A dead process does nothing more, not even in its `finally` blocks.
        if self._is_closing or (task.host is not None and not task.host.is_alive):
            raise GreenletExit

    def _continue(self, task: Task, number: int) -> None:
        if is_over(task) or task.sleep != number:
            return
        host = task.host
        if host is not None:
            if not host.is_alive:
                return
            if host.stopped_until > self.now:
                host.waiting.append(lambda: self._continue(task, number))
                self.after(host.stopped_until - self.now, lambda: self._wake(host))
                return
        task.switch()
        if is_over(task):
            self._forget(task)

    def _forget(self, task: Task) -> None:
        self.tasks.pop(task, None)
        if task.host is not None:
            task.host.tasks.pop(task, None)

    # --- hosts ---------------------------------------------------------------------------------

    def kill(self, host: Host) -> None:
        """SIGKILL: what was in memory is lost, and whoever was connected notices. Does not return to
        a task of that host."""
        host.is_alive = False
        for hang_up in host.hung_up:
            hang_up()
        self.after(0.0, lambda: self._bury(list(host.tasks)))
        if self.in_task() and self._current().host is host:
            raise GreenletExit

    def stop(self, host: Host, seconds: float) -> None:
        """SIGSTOP, and SIGCONT in `seconds`."""
        host.stopped_until = max(host.stopped_until, self.now + seconds)
        if self.in_task() and self._current().host is host:
            self.pause(0.0)

    def go_on(self, host: Host) -> None:
        """SIGCONT, now."""
        host.stopped_until = 0.0
        self._wake(host)

    def _wake(self, host: Host) -> None:
        if host.stopped_until > self.now:
            self.after(host.stopped_until - self.now, lambda: self._wake(host))
            return
        waiting, host.waiting = host.waiting, []
        for go_on in waiting:
            self.after(0.0, go_on)

    def close(self) -> None:
        """Ends every task."""
        self._is_closing = True
        self._bury(list(self.tasks))

    def _bury(self, tasks: list[Task]) -> None:
        for task in tasks:
            if not task.dead:
                task.throw(GreenletExit)
            self._forget(task)


def is_over(task: Task) -> bool:
    """Whether the task has ended, which it may do whenever it goes on."""
    return bool(task.dead)


class HostClock(SteppableClock):
    """A machine's clocks: the one on its wall is wrong by `skew_seconds`."""

    def __init__(self, scheduler: Scheduler, skew_seconds: float = 0.0) -> None:
        super().__init__()
        self._scheduler = scheduler
        self.skew_seconds = skew_seconds
        self._started_at = scheduler.now

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self._scheduler.now + self.skew_seconds)

    def monotonic(self) -> float:
        return MONOTONIC_START + self._scheduler.now - self._started_at


@contextmanager
def sleeping_in(scheduler: Scheduler, seed: int) -> Iterator[None]:
    """In tasks `time.sleep` passes simulated time, also where a library calls it, and the jitter of
    libraries is the seed's; everywhere else both are as ever."""
    real, state = time.sleep, random.getstate()

    def sleep(seconds: float | SupportsIndex, /) -> None:
        if scheduler.in_task():
            scheduler.pause(float(seconds))
        else:
            real(seconds)

    time.sleep = sleep
    random.seed(seed)
    try:
        yield
    finally:
        time.sleep = real
        random.setstate(state)

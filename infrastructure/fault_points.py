"""Fault points: named places on a payment's path where a test kills the process, or stops it.

A point stands wherever the world outside has just been changed, is about to be, or is being waited
for: between two of them a process only computes, and whether it dies sooner or later there nobody
can tell. `tests/faults` finds every `reached` in the code and dies at each.

Nothing listens unless FAULT_POINT says so, which production refuses.
"""

import os
import signal
from collections.abc import Callable, Generator
from typing import Any, LiteralString, TypeVar

Listener = Callable[[str], None]
RV = TypeVar("RV")

_listener: Listener | None = None


def reached(point: LiteralString) -> None:
    """The path has come to `point`."""
    if _listener is not None:
        _listener(point)


def reached_at_each_wait(
    point: LiteralString, steps: Generator[Any, Any, RV]
) -> Generator[Any, Any, RV]:
    """The same steps, with `point` before each wait for the other side, which has been spoken to."""
    return steps if _listener is None else _interrupted(point, steps)


def listen(listener: Listener | None) -> None:
    """Has `listener` told of every point from now on; None: nobody."""
    global _listener  # noqa: PLW0603 - one process, one path
    _listener = listener


def die_at(point: str, number: int) -> None:
    """Kills the process when it passes `point` for the `number`th time from now on."""
    listen(_signalling(point, number, signal.SIGKILL))


def stop_at(point: str, number: int) -> None:
    """Stops the process there instead, until somebody lets it go on."""
    listen(_signalling(point, number, signal.SIGSTOP))


def _signalling(point: str, number: int, what: signal.Signals) -> Listener:
    passes = 0

    def listener(passed: str) -> None:
        nonlocal passes
        passes += passed == point
        if passed == point and passes == number:
            os.kill(os.getpid(), what)

    return listener


def _interrupted(point: LiteralString, steps: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
    ready = None
    while True:
        try:
            waits_for = steps.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result
        reached(point)
        ready = yield waits_for

"""What tests wait for, and how long something took, on a machine that may stand still meanwhile."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from infrastructure.database import Pool, Waits, open_pool

# So long that nobody who asks for an outcome is told to ask again, whatever the machine does.
PATIENT: Final = Waits(connection=10.0, lock=10.0, statement=10.0, answer=12.0)
TICK_SECONDS: Final = 0.01
STANDSTILL_SECONDS: Final = 0.1  # less is an ordinary wait for a processor


def patient_pool(database_url: str, *, size: int) -> Pool:
    """Connections for a test that is not about time."""
    return open_pool(database_url, size=size, waits=PATIENT)


@dataclass
class Elapsed:
    """`seconds`: known once what is timed is over."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Elapsed]:
    """What the block takes, but for the time for which this process stood still, or one thread of it
    let no other run."""
    elapsed, is_over = Elapsed(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        began = time.monotonic()
        standstill = executor.submit(seconds_of_standstill, began, is_over)
        try:
            yield elapsed
        finally:
            took = time.monotonic() - began
            is_over.set()
            elapsed.seconds = took - standstill.result()


def seconds_of_standstill(began: float, is_over: threading.Event) -> float:
    """How long there was no tick, from `began` until it is over, the end included."""
    last, found, is_last = began, 0.0, False
    while not is_last:
        is_last = is_over.wait(TICK_SECONDS)
        now = time.monotonic()
        if now - last > STANDSTILL_SECONDS:
            found += now - last
        last = now
    return found

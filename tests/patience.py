"""What tests wait for, and how long something took, on a machine that may stand still meanwhile."""

import threading
import time
from types import TracebackType
from typing import Final, Self

from infrastructure.database import Pool, Waits, open_pool

# So long that nobody who asks for an outcome is told to ask again, whatever the machine does.
PATIENT: Final = Waits(connection=10.0, lock=10.0, statement=10.0, answer=12.0)
TICK_SECONDS: Final = 0.01
STANDSTILL_SECONDS: Final = 0.1  # less is an ordinary wait for a processor


def patient_pool(database_url: str, *, size: int) -> Pool:
    """Connections for a test that is not about time."""
    return open_pool(database_url, size=size, waits=PATIENT)


class Stopwatch:
    """Its `seconds`, once it has stopped, leave out those for which this process stood still, or one
    thread let no other run."""

    seconds: float

    def __init__(self) -> None:
        self._stood_still = 0.0
        self._stopping = threading.Event()
        self._ticking = threading.Thread(target=self._tick)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._ticking.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        took = time.monotonic() - self._began
        self._stopping.set()
        self._ticking.join()
        self.seconds = took - self._stood_still

    def _tick(self) -> None:
        last, is_over = self._began, False
        while not is_over:
            is_over = self._stopping.wait(TICK_SECONDS)
            now = time.monotonic()
            if now - last > STANDSTILL_SECONDS:
                self._stood_still += now - last
            last = now

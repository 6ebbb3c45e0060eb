"""The most memory that the processes of a tree ever had, looked at while they run."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infrastructure import processes
from scripts.bench import procfs

LOOK_SECONDS: Final = 0.5


class Peak:
    """The highest peak of resident memory of any one process below `root`, itself included."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._by_pid: dict[int, int] = {}
        self._stopping = threading.Event()

    @property
    def megabytes(self) -> float:
        """Of the largest process."""
        return round(max(self._by_pid.values(), default=0) / 1024, 1)

    @contextlib.contextmanager
    def watching(self) -> Iterator["Peak"]:
        """Looks, for as long as the block lasts."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            for pid in procfs.tree(self._root):
                self._by_pid[pid] = max(self._by_pid.get(pid, 0), _peak_kilobytes(pid))
            self._stopping.wait(LOOK_SECONDS)


def _peak_kilobytes(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        text = Path(processes.PROC, str(pid), "status").read_text()
        return int(text.split("VmHWM:")[1].split()[0])
    return 0

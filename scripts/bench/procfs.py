"""What Linux tells of processes: the CPU time of trees of them, and who holds which connection."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from infrastructure import processes

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PARENT, USER, REAPED_SYSTEM = 1, 11, 14  # places in `processes.stat_fields`
IDLE, WAITING_FOR_DISK, STOLEN = 3, 4, 7  # places in the first line of /proc/stat
ESTABLISHED = "01"


def cpu_seconds(trees: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far of each tree, by its root: its living processes and their dead children."""
    fields = {pid: it for pid in processes.every_pid() if (it := processes.stat_fields(pid))}
    return {
        name: sum(_ticks(fields[pid]) for pid in _tree(root, fields)) / TICKS_PER_SECOND
        for name, root in trees.items()
    }


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    fields = {pid: it for pid in processes.every_pid() if (it := processes.stat_fields(pid))}
    return _tree(root, fields)


def machine_cpu_seconds() -> float:
    """CPU seconds that this machine's processors have been busy, for whomever."""
    ticks = [int(word) for word in (processes.PROC / "stat").read_text().split("\n")[0].split()[1:]]
    # What guests used, at the end of the line, is counted in the first fields already.
    busy = [it for place, it in enumerate(ticks[:STOLEN]) if place not in (IDLE, WAITING_FOR_DISK)]
    return sum(busy) / TICKS_PER_SECOND


def connections(pids: Iterable[int], port: int) -> list[int]:
    """How many connections to the server's TCP port each of the processes holds; 0 left out."""
    inodes = _inodes_of(port)
    held = [sum(inode in inodes for inode in _sockets(pid)) for pid in pids]
    return [number for number in held if number]


def _tree(root: int, fields: Mapping[int, list[str]]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, it in fields.items():
        children.setdefault(int(it[PARENT]), []).append(pid)
    found = [root] if root in fields else []
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def _ticks(fields: list[str]) -> int:
    return sum(int(word) for word in fields[USER : REAPED_SYSTEM + 1])


def _inodes_of(port: int) -> set[str]:
    rows = (processes.PROC / "net" / "tcp").read_text().splitlines()[1:]
    own_end = f":{port:04X}"
    split = (row.split() for row in rows)
    return {it[9] for it in split if it[1].endswith(own_end) and it[3] == ESTABLISHED}


def _sockets(pid: int) -> list[str]:
    """The inodes of the sockets that the process has open."""
    inodes = []
    with contextlib.suppress(OSError):
        for link in Path(processes.PROC, str(pid), "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes.append(target[len("socket:[") : -1])
    return inodes

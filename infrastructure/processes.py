"""Other processes, told apart by their command line, since a process id alone may be reused; and what
this one may have."""

import contextlib
import gc
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

POLL_SECONDS = 0.005
PROC = Path("/proc")
HAS_PROC = (PROC / "self" / "cmdline").exists()  # Linux; elsewhere ps is asked
PS_TIMEOUT_SECONDS = 10
ENOUGH_FILES = 65_536
THREADS, START = 17, 19  # where they are in the account
# Allocations between two collections of garbage: a request makes thousands, and few cycles.
GARBAGE_THRESHOLD = 50_000


def command_line(pid: int) -> str:
    """What the process was started as; empty when it is gone, dead and not yet collected, or just dying:
    it may then still have its ports and files for a moment."""
    if HAS_PROC:
        try:
            words = (PROC / str(pid) / "cmdline").read_bytes()
        except OSError:
            return ""
        return words.replace(b"\0", b" ").decode(errors="replace").strip()
    found = ps("-p", str(pid), "-o", "state=,command=").strip()
    return "" if found.startswith("Z") else found.partition(" ")[2].strip()


def started_at(pid: int) -> str:
    """When the process began, in the system's own words; empty when it is gone, its threads too.

    With its number it tells a process from a later one that was given the same number.
    """
    if HAS_PROC:
        fields = stat_fields(pid)
        return "" if is_over(fields) else fields[START]
    found = ps("-p", str(pid), "-o", "state=,lstart=").strip()
    return "" if found.startswith("Z") else found.partition(" ")[2].strip()


def group(leader: int) -> list[int]:
    """The living processes of the group that this process led, itself included."""
    if HAS_PROC:
        all_fields = [(pid, stat_fields(pid)) for pid in every_pid()]
        return [pid for pid, it in all_fields if not is_over(it) and it[2] == str(leader)]
    rows = [row.split() for row in ps("-axo", "pid=,pgid=,state=").splitlines()]
    return [int(pid) for pid, its, state in rows if int(its) == leader and state[0] != "Z"]


def is_over(fields: list[str]) -> bool:
    """Whether a process with this account is gone, or all that is left is to tell its parent so. While
    one of its threads is left, it may have its memory, its files and its ports."""
    return not fields or (fields[0] == "Z" and fields[THREADS] == "1")


def stat_fields(pid: int) -> list[str]:
    """Linux's account of a process from its state on: state, parent, group, …, threads, …, start."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def folder(pid: int) -> Path | None:
    """The process's current folder, where the system tells."""
    try:
        return (PROC / str(pid) / "cwd").readlink()
    except OSError:
        return None


def running(is_wanted: Callable[[str], bool]) -> list[int]:
    """The ids of all processes, this one aside, with such a command line."""
    return [pid for pid in every_pid() if pid != os.getpid() and is_wanted(command_line(pid))]


def every_pid() -> list[int]:
    if HAS_PROC:
        return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    return [int(word) for word in ps("-axo", "pid=").split()]


def ps(*options: str) -> str:
    done = subprocess.run(
        ["ps", *options], capture_output=True, text=True, timeout=PS_TIMEOUT_SECONDS, check=False
    )
    return done.stdout


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end(pids: Iterable[int], steps: Iterable[tuple[signal.Signals, float]]) -> bool:
    """Send each signal and wait its seconds, until all are gone; whether they are.

    When each began is looked at before every signal: from now on its number may become another's.
    """
    began_at = {pid: started_at(pid) for pid in pids}

    def remaining() -> list[int]:
        return [pid for pid, then in began_at.items() if started_at(pid) == then != ""]

    if not remaining():
        return True
    for number, seconds in steps:
        for pid in remaining():
            send(pid, number)
        if wait_until(lambda: not remaining(), seconds):
            return True
    return False


def wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def allow_many_files() -> None:
    """Lets this process have as many open files as it may, up to enough: each connection is one, and
    systems begin with a thousand."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def look_for_garbage_seldom() -> None:
    """To be called when all is set up: what is there then stays, and is not looked at again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)

"""`./scripts/down` waits for the end of what it stops."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from scripts.down import stop_supervisor
from scripts.up import Folder

# Takes its name away before it lets the folder go, as an `up` that ends does; how long before, it is told.
ENDING = """
import contextlib, os, pathlib, signal, sys
from scripts.up import Folder
folder = Folder(pathlib.Path(sys.argv[1]))
with contextlib.ExitStack() as held:
    held.enter_context(folder.lock())
    folder.pid_file.write_text(f"{os.getpid()} now")
    signal.signal(signal.SIGTERM, lambda *_: folder.pid_file.unlink())
    print("up", flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True, slots=True)
class WatchedFolder(Folder):
    """Who is ending goes on once it was seen to hold the folder without its name."""

    ending: IO[str]
    seen: list[bool] = field(default_factory=list)

    def is_locked(self) -> bool:
        is_locked = super(WatchedFolder, self).is_locked()
        if is_locked and not self.seen and not self.pid_file.exists():
            self.seen.append(True)
            self.ending.write("\n")
            self.ending.flush()
        return is_locked


def test_one_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdin is not None
        assert up.stdout is not None
        folder = WatchedFolder(tmp_path, up.stdin)
        assert up.stdout.readline() == "up\n"

        stop_supervisor(folder, up.pid)

        assert (folder.seen, folder.is_locked()) == ([True], False)
        assert up.wait() == 0

"""`./scripts/down` waits for the end of what it stops."""

import subprocess
import sys
from pathlib import Path

from scripts.down import stop_supervisor
from scripts.up import Folder

# Takes its name away a moment before it lets the folder go, as an `up` that ends does.
ENDING = """
import contextlib, os, pathlib, signal, sys, time
from scripts.up import Folder, locked
folder = Folder(pathlib.Path(sys.argv[1]))
with contextlib.ExitStack() as held:
    held.enter_context(folder.lock())
    folder.pid_file.write_text(f"{os.getpid()} now")
    signal.signal(signal.SIGTERM, lambda *_: folder.pid_file.unlink())
    print("up", flush=True)
    signal.pause()
    time.sleep(0.3)
"""


def test_one_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == "up\n"

        stop_supervisor(folder, up.pid)

        assert not folder.is_locked()
        assert up.wait() == 0

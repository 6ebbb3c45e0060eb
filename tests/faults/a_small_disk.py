"""A Postgres on a disk of its own, small enough to be filled: a tmpfs that nobody else sees.

Root mounts it in a mount namespace, others in a user namespace where the machine allows that. There
this file runs as a program: it mounts the disk, starts the server, and fills the disk and frees it
again when it is told to.
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from infrastructure.embedded_postgres import EmbeddedPostgres

PROJECT: Final = Path(__file__).parents[2]
MEGABYTES: Final = 192
CHUNK: Final = bytes(1024 * 1024)
ANY_USER: Final = "1000"  # Postgres does not run as root, nor as who only seems to be root


class SmallDisk:
    """The disk and its server, as seen from outside."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]", url: str) -> None:
        self._folder, self._process = folder, process
        self.url = url

    @classmethod
    def mounted(cls) -> Self | None:
        """None where this machine does not let us."""
        folder = Path(tempfile.mkdtemp(prefix="counterfoil-disk-"))
        folder.chmod(0o711)
        ways = [["-m"]] if os.geteuid() == 0 else []
        for namespace in [*ways, ["-U", "-r", "-m"]]:
            process = cls._process_in(namespace, folder)
            if process is not None:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                if url:
                    return cls(folder, process, url)
                process.communicate()
        shutil.rmtree(folder)
        return None

    @staticmethod
    def _process_in(namespace: list[str], folder: Path) -> "subprocess.Popen[str] | None":
        try:
            return subprocess.Popen(
                ["unshare", *namespace, sys.executable, "-m", __name__, "mount", str(folder)],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"]},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError:
            return None

    def fill(self) -> None:
        """Not a byte is left."""
        self._tell("fill")

    def free(self) -> None:
        """There is room again."""
        self._tell("free")

    def end(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder)

    def _tell(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == f"{what}\n"


def mount(folder: Path) -> None:
    """Mounts the disk, and goes on as someone who is not root."""
    options = f"size={MEGABYTES}m,mode=0711"
    mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        sys.exit(1)
    seems_root = Path("/proc/self/uid_map").read_text().split()[2] == "1"
    if seems_root:
        user = ["unshare", "-U", f"--map-user={ANY_USER}", f"--map-group={ANY_USER}"]
        os.execvp("unshare", [*user, sys.executable, "-m", __spec__.name, "serve", str(folder)])
    serve(folder)


def serve(folder: Path) -> None:
    """Runs the server until there is nothing more to be told."""
    ballast = folder / "ballast"
    with EmbeddedPostgres(folder / "postgres") as server:
        print(server.url(), flush=True)
        for line in sys.stdin:
            if line == "fill\n":
                fill(ballast)
            else:
                ballast.unlink()
            print(line, end="", flush=True)


def fill(ballast: Path) -> None:
    """Until the system says that there is no space: by large pieces, then by single bytes."""
    for size in (len(CHUNK), 4096, 1):
        try:
            with ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(CHUNK[:size])
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


if __name__ == "__main__":
    {"mount": mount, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))

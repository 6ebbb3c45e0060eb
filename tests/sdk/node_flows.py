"""Flows in JavaScript, each a test of its own: one Node for each of pytest's workers, which runs the
flows of the files in `node/` as they are asked for."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from scripts.sdk_flows import NODE_FOLDER

PACKAGES: Final = NODE_FOLDER / "node_modules"
COMPLETE: Final = PACKAGES / ".complete"
OLDEST_NODE: Final = 20
FLOW_SECONDS: Final = 40
INSTALL_SECONDS: Final = 60
END_SECONDS: Final = 10
# A worker may have to wait for another's attempt to install, and then makes its own.
PATIENT: Final = pytest.mark.timeout(2 * INSTALL_SECONDS + FLOW_SECONDS)
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")


class Missing(Exception):
    """What this machine has not got, in a sentence."""


class Node:
    """A process that runs flows, begun with the first, and anew if one took it down."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._log = folder / "node.log"
        self._process: subprocess.Popen[str] | None = None

    def run(self, file: str, name: str, **shop: str | int) -> None:
        """One flow, with what its shop knows; fails with what it failed with."""
        failure = self._asked({"file": file, "name": name, "shop": shop})["failure"]
        assert failure is None, failure

    def names(self, file: str) -> list[str]:
        found: list[str] = self._asked({"file": file})["names"]
        return found

    def stop(self) -> None:
        """Without a question left it ends by itself, and with it what it has started."""
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._begun()
        assert process.stdin is not None
        assert process.stdout is not None
        too_late = threading.Timer(FLOW_SECONDS, process.kill)
        too_late.start()
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            too_late.cancel()
        if not line:
            self.stop()
            pytest.fail(f"Node died, or took {FLOW_SECONDS} seconds: {self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _begun(self) -> subprocess.Popen[str]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [self._program, str(NODE_FOLDER / "serve.mjs")],
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )


@contextlib.contextmanager
def a_node(folder: Path) -> Iterator[Node]:
    node = Node(program_of_node(), folder)
    yield node
    node.stop()


def program_of_node() -> str:
    node = shutil.which("node")
    if node is None:
        raise Missing("there is no node on this machine")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)", said.stdout)
    if found is None or int(found[1]) < OLDEST_NODE:
        raise Missing(f"node is {said.stdout.strip()}, and {OLDEST_NODE} is needed")
    return node


def program_of_a_browser() -> str:
    for name in BROWSERS:
        if (program := shutil.which(name)) is not None:
            return program
    raise Missing("there is no Chromium on this machine")


def install_packages() -> None:
    """What `node/package-lock.json` says, with its hashes; at once where that is there already."""
    npm = shutil.which("npm")
    lock = NODE_FOLDER / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if COMPLETE.exists() and COMPLETE.read_text() == wanted:
            return
        if npm is None:
            raise Missing("there is no npm on this machine")
        try:
            done = subprocess.run(
                [npm, "ci"],
                cwd=NODE_FOLDER,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Missing("npm could not install the packages in time") from None
        if done.returncode != 0:
            raise Missing(f"npm could not install the packages: {done.stderr.strip()[-500:]}")
        COMPLETE.write_text(wanted)

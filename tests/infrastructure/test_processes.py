"""What a process may have, and when it has ended."""

import signal
import socket
import subprocess
import sys
from itertools import chain, repeat
from typing import Final

import pytest

from infrastructure import processes

PATIENCE_SECONDS: Final = 30.0

ALLOWED: Final = """
import resource
from infrastructure.processes import allow_many_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({now}, {most}))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""

# What it has to give back takes it a while, and its first thread is not the last to end.
LISTENING: Final = """
import socket, threading, time
listener = socket.create_server(("127.0.0.1", 0))
memory = bytearray(60_000_000)
for _ in range(40):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("now", "most"), [(256, 4096), (4096, 4096)])
def test_a_process_has_as_many_files_as_it_may(now: int, most: int) -> None:
    program = [sys.executable, "-c", ALLOWED.format(now=now, most=most)]

    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert told.split() == [str(most), str(most)]


def test_who_has_ended_has_given_back_their_port() -> None:
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", LISTENING], stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())

            has_ended = processes.end([server.pid], [(signal.SIGKILL, PATIENCE_SECONDS)])

            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", port))
            assert has_ended


def test_a_number_that_is_anothers_by_now_is_sent_no_signal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = chain(["10"], repeat("20"))
    monkeypatch.setattr(processes, "started_at", lambda _: next(began))
    sent: list[signal.Signals] = []
    monkeypatch.setattr(processes, "send", lambda _, number: sent.append(number))

    assert processes.end([1], [(signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0)])
    assert sent == []

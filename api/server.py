"""The production server: granian, a few processes of many threads.

Requests wait for the bank in threads, and connections are not shared evenly between processes, so
each process has threads for all of the waiting that is expected, not for its share of it.
"""

import os
from typing import Final

from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server

from api.wsgi import THREADS_VARIABLE

BACKLOG: Final = 2048
# The longest request, and a margin: then what is left is ended, and the worker finishes its calls.
STOP_SECONDS: Final = 15


def serve(*, host: str, port: int, workers: int, threads: int) -> None:
    """Serves until SIGTERM or SIGINT; requests that were begun are answered first."""
    os.environ[THREADS_VARIABLE] = str(threads)
    Server(
        "api.wsgi:create",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=workers,
        blocking_threads=threads,
        backlog=BACKLOG,
        backpressure=threads * 2,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.error,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    ).serve()

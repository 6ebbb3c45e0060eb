"""Connections whose answers are bounded in time as a whole, and not only between two bytes.

A server that drips its headers would hold a request for ever: every wait for the next byte is short.
One thread per process watches the deadlines of all answers that are awaited, and shuts down the
sockets that are past theirs, which ends the wait as any broken connection does.
"""

import heapq
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError

from infrastructure.fault_points import reached

_awaited = threading.local()


@contextmanager
def answered_before(deadline: float) -> Iterator[None]:
    """What this thread asks for in the block is answered whole before `deadline`, monotonic, or not
    at all: the block is to read the body as well."""
    with ExitStack() as awaited:
        _awaited.deadline, _awaited.answers = deadline, awaited
        try:
            yield
        finally:
            _awaited.answers = None


class _Watch:
    """The thread that shuts sockets down when their time has come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, socket.socket]] = []
        self._cancelled: set[int] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def shutting_down(self, watched: socket.socket, at: float) -> Iterator[None]:
        """Shuts `watched` down if the block is not left by then."""
        number = next(self._numbers)
        with self._changed:
            self._start_once()
            heapq.heappush(self._due, (at, number, watched))
            if self._due[0][1] == number:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._cancelled.add(number)

    def _start_once(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        with self._changed:
            while True:
                self._shut_what_is_due()
                wait = self._due[0][0] - time.monotonic() if self._due else None
                self._changed.wait(wait)

    def _shut_what_is_due(self) -> None:
        now = time.monotonic()
        while self._due and (self._due[0][0] <= now or self._due[0][1] in self._cancelled):
            _, number, watched = heapq.heappop(self._due)
            if number in self._cancelled:
                self._cancelled.discard(number)
            else:
                with suppress(OSError):
                    watched.shutdown(socket.SHUT_RDWR)


_WATCH: Final = _Watch()


class _Bounded(HTTPConnection):
    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Sends nothing once it is too late: whoever was stopped, and slept past its lease, would
        otherwise say on waking up what another has said, and heard the answer to, meanwhile."""
        if self.sock is None:
            self.connect()
        is_awaited = getattr(_awaited, "answers", None) is not None
        if is_awaited and time.monotonic() >= _awaited.deadline:
            raise ConnectTimeoutError(self, "no time was left to send")
        super().endheaders(*args, **kwargs)

    def getresponse(self) -> Any:
        reached("bank.waited_for")
        answers: ExitStack | None = getattr(_awaited, "answers", None)
        if answers is not None and self.sock is not None:
            answers.enter_context(_WATCH.shutting_down(self.sock, _awaited.deadline))
        return super().getresponse()


class _BoundedHTTPS(_Bounded, HTTPSConnection):
    pass


class _BoundedPool(HTTPConnectionPool):
    ConnectionCls = _Bounded


class _BoundedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _BoundedHTTPS


class BoundedAdapter(HTTPAdapter):
    """A transport adapter whose connections heed `answered_before`."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the library does, with our pools."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _BoundedPool,
            "https": _BoundedHTTPSPool,
        }

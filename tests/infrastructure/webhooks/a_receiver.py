"""A merchant's receiver at a socket, which does to each delivery what it was told to: and, when nothing
is left of that, takes it."""

import contextlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

LONGEST_SECONDS: Final = 5.0  # nothing here outlives its test by much


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One delivery, as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[["Receiver", socket.socket], None]


def answers(status: int, body: bytes = b"", **headers: str) -> Behaviour:
    """A whole answer. Header names with _ for -."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return sends("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def sends(raw: bytes, *, then: str = "wait") -> Behaviour:
    """Bytes, and then it waits for more or hangs up."""

    def behave(_receiver: "Receiver", line: socket.socket) -> None:
        line.sendall(raw)
        if then == "hang up":
            line.shutdown(socket.SHUT_RDWR)

    return behave


def hangs(receiver: "Receiver", _line: socket.socket) -> None:
    receiver.closed.wait(LONGEST_SECONDS)


def hangs_up(_receiver: "Receiver", line: socket.socket) -> None:
    line.shutdown(socket.SHUT_RDWR)


def answers_too_late(_receiver: "Receiver", line: socket.socket) -> None:
    """Well, when nobody waits for it any more."""
    line.recv(1)
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    line.shutdown(socket.SHUT_RDWR)


def drips(receiver: "Receiver", line: socket.socket) -> None:
    """A header at a time, for as long as it is let."""
    line.sendall(b"HTTP/1.1 200 OK\r\n")
    while not receiver.closed.wait(0.02):
        line.sendall(b"X-More: to come\r\n")


def floods(receiver: "Receiver", line: socket.socket) -> None:
    """An answer without an end."""
    line.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not receiver.closed.is_set():
        line.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


class Receiver:
    """`tls`: its side of it, where it is asked by https."""

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.delivered: list[Delivered] = []
        self.connections = 0
        self.closed = threading.Event()
        self._tls = tls
        self._behaviours: deque[Behaviour] = deque()
        self._lines: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/hooks"

    def will(self, *behaviours: Behaviour) -> None:
        self._behaviours.extend(behaviours)

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.delivered]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self.connections += 1
                self._lines.append(line)
                threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls is not None:
                line = self._tls.wrap_socket(line, server_side=True)
            with line, line.makefile("rb") as reader:
                while delivered := _read(reader):
                    self.delivered.append(delivered)
                    behave = self._behaviours.popleft() if self._behaviours else answers(200, b"ok")
                    behave(self, line)


def _read(reader: Any) -> Delivered | None:
    first = reader.readline().decode()
    if not first:
        return None
    headers = {}
    while line := reader.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return Delivered(path=first.split(" ")[1], headers=headers, body=body)

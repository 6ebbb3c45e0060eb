"""A bank at a socket that does to each request what it was told to, however unlike HTTP."""

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

LONGEST_SECONDS = 60.0  # for who waits for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


Behaviour = Callable[["BadBank", socket.socket], None]


def says(status: int, body: object = None, **headers: str) -> Behaviour:
    """A whole answer: JSON, or the bytes themselves. Header names with _ for -."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return sends("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)


def refuses(status: int, code: str) -> Behaviour:
    return says(status, {"error": code, "message": "words"})


def sends(raw: bytes, *, then: str = "wait") -> Behaviour:
    """Bytes, and then it waits for more or hangs up."""

    def behave(bank: "BadBank", line: socket.socket) -> None:
        line.sendall(raw)
        if then == "hang up":
            line.shutdown(socket.SHUT_RDWR)

    return behave


def drips(start: bytes, drop: bytes, *, every: float) -> Behaviour:
    """A drop at a time, for as long as it is let."""

    def behave(bank: "BadBank", line: socket.socket) -> None:
        line.sendall(start)
        for _ in range(int(LONGEST_SECONDS / every)):
            if bank.closed.wait(every):
                return
            line.sendall(drop)

    return behave


def is_silent(bank: "BadBank", line: socket.socket) -> None:
    bank.closed.wait(LONGEST_SECONDS)


def hangs_up(bank: "BadBank", line: socket.socket) -> None:
    line.shutdown(socket.SHUT_RDWR)


class BadBank:
    """Does what `will` says to the POSTs, one each, and `is_well` to questions after its health."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.closed = threading.Event()
        self.health: deque[Behaviour] = deque()
        self._behaviours: deque[Behaviour] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def posts(self) -> list[Heard]:
        return [each for each in self.heard if each.method == "POST"]

    def will(self, *behaviours: Behaviour) -> None:
        self._behaviours.extend(behaviours)

    def health_will(self, *behaviours: Behaviour) -> None:
        self.health.extend(behaviours)

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
        self.stop_listening()

    def stop_listening(self) -> None:
        """Nobody new is let in."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), line, line.makefile("rb") as reader:
            while heard := _read(reader):
                self.heard.append(heard)
                self._behaviour(heard)(self, line)

    def _behaviour(self, heard: Heard) -> Behaviour:
        if heard.path == "/health":
            return self.health.popleft() if self.health else says(200, {"status": "healthy"})
        return self._behaviours.popleft() if self._behaviours else refuses(500, "internal_error")


def _read(reader: Any) -> Heard | None:
    first = reader.readline().decode()
    if not first:
        return None
    method, path, _ = first.split(" ")
    headers = {}
    while line := reader.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    raw = reader.read(int(headers.get("content-length", 0)))
    return Heard(method=method, path=path, headers=headers, body=json.loads(raw) if raw else None)

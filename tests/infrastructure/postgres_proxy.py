"""A proxy between us and Postgres that can lose what the network loses: one COMMIT, or its answer."""

import contextlib
import socket
import tempfile
import threading
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from psycopg import conninfo

CHUNK: Final = 65536
APPEND: Final = b"INSERT INTO events"
COMMIT: Final = b"COMMIT\x00"
# A follower's step is one transaction without these words, which ends where all that goes out together does.
STEP: Final = b"WITH advanced AS"
SYNC: Final = b"S\x00\x00\x00\x04"


class Loss(Enum):
    """What is lost of the next commit."""

    COMMIT = "the commit never reaches the server"
    ACKNOWLEDGEMENT = "the server commits, and its answer never reaches us"


class PostgresProxy:
    """Listens at a socket of its own; both sides of the connection that is struck are hung up on."""

    def __init__(self, database_url: str) -> None:
        self._server = conninfo.conninfo_to_dict(database_url)
        self._folder = tempfile.TemporaryDirectory(prefix="pgproxy-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(Path(self._folder.name) / ".s.PGSQL.5432"))
        self._listener.listen()
        self._armed: Loss | None = None
        self._struck = 0
        self._open: list[socket.socket] = []
        through_us = {**self._server, "host": self._folder.name, "port": 5432}
        self.url = f"postgresql:///?{urlencode(through_us)}"

    @property
    def struck(self) -> int:
        """How many commits were struck."""
        return self._struck

    def will_lose(self, loss: Loss) -> None:
        """Strikes the next append or step, which commits itself, or the next commit, whoever sends it."""
        self._armed = loss

    def hang_up_on_us(self) -> None:
        """Every line so far is dead on our side; what was said, the server goes on with."""
        for ours in self._open[::2]:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = self._connect()
                self._open += [ours, theirs]
                deaf = threading.Event()
                for carry in (self._carry_there, self._carry_back):
                    threading.Thread(target=carry, args=(ours, theirs, deaf), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = str(self._server.get("host")), int(self._server.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        theirs = socket.socket(socket.AF_UNIX)
        theirs.connect(f"{host}/.s.PGSQL.{port}")
        return theirs

    def _carry_there(
        self, ours: socket.socket, theirs: socket.socket, deaf: threading.Event
    ) -> None:
        is_append, said = False, b""
        with contextlib.suppress(OSError):
            while chunk := ours.recv(CHUNK):
                said += chunk
                ends_step = STEP in said and SYNC in chunk
                if self._armed is not None and (is_append or ends_step or COMMIT in chunk):
                    self._strike(chunk, theirs, deaf)
                    return
                said = b"" if SYNC in chunk else said
                is_append = APPEND in chunk  # it is prepared first, and carried out by the next
                theirs.sendall(chunk)
        _hang_up(ours, theirs)

    def _carry_back(
        self, ours: socket.socket, theirs: socket.socket, deaf: threading.Event
    ) -> None:
        """We hear nothing more once the line is deaf, and that it is dead when the server is done."""
        with contextlib.suppress(OSError):
            while chunk := theirs.recv(CHUNK):
                if not deaf.is_set():
                    ours.sendall(chunk)
        _hang_up(ours, theirs)

    def _strike(self, chunk: bytes, theirs: socket.socket, deaf: threading.Event) -> None:
        loss, self._armed = self._armed, None
        self._struck += 1
        deaf.set()
        if loss is Loss.ACKNOWLEDGEMENT:
            theirs.sendall(chunk)
        theirs.shutdown(socket.SHUT_WR)


def _hang_up(*sides: socket.socket) -> None:
    for side in sides:
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)

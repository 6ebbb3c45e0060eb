"""An API that answers what it was told to, and remembers what it was asked."""

import http.server
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

HANG_UP: Final = 0  # as a status: the connection ends without an answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An answer; `text` where it is not JSON."""

    status: int
    body: Any = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass(slots=True)
class Script:
    """The answers that are left, the last of which is given again and again, and what was asked."""

    url: str
    answers: list[Told]
    asked: list[Asked] = field(default_factory=list)

    def next(self) -> Told:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def idempotency_keys(self) -> list[str | None]:
        return [each.headers.get("idempotency-key") for each in self.asked]


@contextmanager
def a_scripted_server(answers: Sequence[Told]) -> Iterator[Script]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    script = Script(f"http://127.0.0.1:{server.server_address[1]}", list(answers))
    server.script = script  # type: ignore[attr-defined]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield script
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        script: Script = self.server.script  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        script.asked.append(Asked(method=self.command, path=self.path, headers=headers, body=body))
        told = script.next()
        if told.status == HANG_UP:
            self.close_connection = True
            return
        answer = (json.dumps(told.body) if told.text is None else told.text).encode()
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self) -> None:
        self.do_POST()

    def do_DELETE(self) -> None:
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

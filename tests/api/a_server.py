"""The production server in processes of its own, as `counterfoil serve` starts it."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.api.an_api import settings_for

PROJECT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 30
PORTS: Final = range(20_000, 30_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Server:
    """One at a free port, with its log in a file."""

    def __init__(self, folder: Path, database_url: str, **environ: str) -> None:
        self.port = free_port()
        self._log = folder / "api.log"
        environment = settings_for(
            database_url, DATA_DIR=str(folder), PORT=str(self.port), LOG_LEVEL="DEBUG", **environ
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.cli", "serve", "--workers", "1", "--threads", "32"],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"], **environment},
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_serves()

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            try:
                if self.request("GET", "/v1/health").status == 200:
                    return
            except OSError:
                time.sleep(0.02)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Received:
        """Over a connection of its own. A body in parts is sent in chunks, without a length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Received(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                text=response.read().decode(),
            )
        finally:
            connection.close()

    def post(
        self, path: str, body: object, key: str, idempotency_key: str, **headers: str
    ) -> Received:
        sent = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key,
            **headers,
        }
        return self.request("POST", path, json.dumps(body).encode(), sent)

    @property
    def pid(self) -> int:
        """Of the first of its processes."""
        return self._process.pid

    def log(self) -> str:
        return self._log.read_text()

    def log_line(self, request_id: str) -> dict[str, Any]:
        """The line of a request; it is written before the answer is sent."""
        lines = [json.loads(line) for line in self.log().splitlines() if request_id in line]
        (line,) = lines
        found: dict[str, Any] = line
        return found

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()


def free_port() -> int:
    """One that no system gives, by default, to who asks for any, until it is listened at."""
    for port in random.sample(PORTS, len(PORTS)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("every port is taken")

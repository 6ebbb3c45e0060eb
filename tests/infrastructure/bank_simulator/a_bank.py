"""A bank in a process of its own, to call over HTTP, and the books of one, to call directly."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infrastructure import processes
from infrastructure.bank_simulator.books import Asked, Books
from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.profiles import PROFILES

PROJECT = Path(__file__).parents[3]
CALM = ("--failure-rate", "0", "--min-latency-ms", "0", "--max-latency-ms", "0")
PATIENCE_SECONDS = 30
HAPPY = {
    "card_number": "4111111111111111",
    "cvv": "123",
    "expiry_month": 12,
    "expiry_year": 2030,
    "amount": 5_000,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Bank:
    """A bank in a process of its own, at a free port."""

    def __init__(self, database: Path, *options: str) -> None:
        self._process = start_process("--port", "0", "--database", str(database), *options)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "listening at" in line, line
        self.port = int(line.rsplit(":", 1)[1])

    def request(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        encoded = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, encoded, headers or {})
            response = connection.getresponse()
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                text=response.read().decode(),
            )
        finally:
            connection.close()

    def post(self, operation: str, body: object, key: str | None = None) -> Answer:
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        return self.request("POST", f"/api/v1/{operation}", body, headers)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def faults(self, **changes: object) -> Any:
        answer = self.request("POST", "/__faults", changes)
        assert answer.status == 200, answer.text
        return answer.json

    def ledger(self) -> Any:
        return self.get("/__ledger").json

    def entries(self, key: str) -> list[Any]:
        return [one for one in self.ledger()["transactions"] if one["idempotency_key"] == key]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        return self._process.wait(PATIENCE_SECONDS)


def start_process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "infrastructure.bank_simulator", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status of a bank that should not have started, and what it said."""
    try:
        _, complaint = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return process.returncode, complaint


def hang_up_on(bank: Bank, operation: str, body: object, key: str) -> socket.socket:
    """Send a call and hand over its socket, for the caller to close."""
    encoded = json.dumps(body)
    line = socket.create_connection(("127.0.0.1", bank.port))
    line.sendall(
        f"POST /api/v1/{operation} HTTP/1.1\r\nHost: bank\r\nIdempotency-Key: {key}\r\n"
        f"Content-Length: {len(encoded)}\r\n\r\n{encoded}".encode()
    )
    return line


def eventually(claim: Callable[[], bool]) -> None:
    """Wait until the claim holds, for as long as patience lasts."""
    assert processes.wait_until(claim, PATIENCE_SECONDS), "it never came true"


NOON = 1_790_000_000.0  # in September 2026
WEEK = 7 * 24 * 3600.0


def asked(now: float = NOON, expiry: float = WEEK) -> Asked:
    return Asked(now=now, idempotency_key="a-key", auth_expiry_seconds=expiry)


def open_books(folder: Path, profile: str) -> Books:
    return Books(Database(folder / f"{profile}.db"), PROFILES[profile])

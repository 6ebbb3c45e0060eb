"""What is measured, running: Postgres, the bank, the gateway, its worker and the baseline, all in one
temporary folder and on the loopback, and gone afterwards."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate
from scripts.bench.load import Measured, Plan
from scripts.supervisor import Program
from scripts.up import free_port, is_listening

ROOT = Path(__file__).resolve().parents[2]
COUNTERFOIL = (sys.executable, "-P", "-m", "scripts.cli")
BASELINE = (sys.executable, "-P", "-m", "scripts.bench.baseline")
LOAD = (sys.executable, "-P", "-m", "scripts.bench.load")
API_KEY = "sk_test_bench"
BALANCE_CENTS = 10**15
BASELINE_THREADS = 16
START_SECONDS = 30.0
POLL_SECONDS = 0.02
# Beyond what a plan asks for: connecting, letting requests end, and a machine that is busy.
LOAD_GRACE_SECONDS = 60.0
FSYNCS = 100
PAGE_BYTES = 8192


class BenchFailed(Exception):
    """It could not be measured; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server that can be asked: its port, and the root of its processes."""

    port: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Everything that runs. `rest`: the roots of the other processes by name."""

    gateway: Served
    baseline: Served
    bank: Served
    database: Served
    worker_pid: int
    database_url: str
    folder: Path

    def set_latency(self, low_ms: int, high_ms: int) -> None:
        """How long the bank takes from now on."""
        switches = {"min_latency_ms": low_ms, "max_latency_ms": high_ms, "failure_rate": 0}
        ask = urllib.request.Request(
            f"http://127.0.0.1:{self.bank.port}/__faults",
            json.dumps(switches).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask, timeout=5):
            pass

    def facts(self) -> dict[str, str]:
        """What the database says of itself."""
        with psycopg.connect(self.database_url) as connection:
            return {
                name: str(connection.execute(f"SHOW {name}").fetchone()[0])  # type: ignore[index]
                for name in ("server_version", "fsync", "synchronous_commit", "full_page_writes")
            }


@contextmanager
def running(*, workers: int, threads: int, log_level: str) -> Iterator[System]:
    """The whole system. Raises BenchFailed."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-bench-"))
    folder.chmod(0o711)  # as root, Postgres runs as nobody and has to get to its own folder
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = EmbeddedPostgres(folder / "postgres")
        at_end.callback(postgres.remove)
        url = postgres.start()
        migrate(url)
        start = Starter(folder, at_end)
        bank = start.server("bank", _bank(folder), {})
        environment = _environment(folder, url, bank.port, log_level)
        served = ("--workers", str(workers), "--threads", str(threads))
        gateway = start.server("gateway", (*COUNTERFOIL, "serve", *served), environment)
        small = ("--workers", str(workers), "--threads", str(BASELINE_THREADS))
        baseline = start.server("baseline", (*BASELINE, *small), {"BASELINE_DATABASE_URL": url})
        worker_pid = start.program("worker", (*COUNTERFOIL, "work"), environment)
        assert postgres.pid is not None
        yield System(
            gateway=gateway,
            baseline=baseline,
            bank=bank,
            database=Served(port=0, pid=postgres.pid),
            worker_pid=worker_pid,
            database_url=url,
            folder=folder,
        )


class Starter:
    """Starts programs, and stops them at the end."""

    def __init__(self, folder: Path, at_end: ExitStack) -> None:
        self._folder, self._at_end = folder, at_end

    def program(self, name: str, command: tuple[str, ...], environment: dict[str, str]) -> int:
        """Its process id."""
        told = {**os.environ, "PYTHONPATH": python_path(), **environment}
        program = Program(name, command, told, self._folder / f"{name}.log")
        self._at_end.callback(program.stop)
        program.start()
        assert program.process is not None
        return program.process.pid

    def server(self, name: str, command: tuple[str, ...], environment: dict[str, str]) -> Served:
        """Started with `--port`, and listening. Raises BenchFailed."""
        port = free_port()
        pid = self.program(name, (*command, "--port", str(port)), environment)
        wait_for(f"the {name} to listen", lambda: is_listening("127.0.0.1", port))
        return Served(port=port, pid=pid)


def python_path() -> str:
    """This tree, before whatever the caller added."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def wait_for(what: str, is_so: Callable[[], bool]) -> None:
    """Raises BenchFailed when it does not come."""
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchFailed(f"waited {START_SECONDS:g} s in vain for {what}")
        time.sleep(POLL_SECONDS)


def _bank(folder: Path) -> tuple[str, ...]:
    quiet = ("--failure-rate", "0", "--min-latency-ms", "0", "--max-latency-ms", "0")
    books = ("--balance", str(BALANCE_CENTS), "--database", str(folder / "bank.sqlite"))
    return (*COUNTERFOIL, "bank", *quiet, *books)


def _environment(folder: Path, url: str, bank_port: int, log_level: str) -> dict[str, str]:
    """Every setting that matters here, so that no `.env` changes what is measured."""
    return {
        "DATABASE_URL": url,
        "DATA_DIR": str(folder / "data"),
        "BANK_URL": f"http://127.0.0.1:{bank_port}",
        "BANK_PROFILE": "ficmart",
        "BANK_TIMEOUT_SECONDS": "5",
        "REQUEST_DEADLINE_SECONDS": "10",
        "HOST": "127.0.0.1",
        "API_KEY": API_KEY,
        "ENVIRONMENT": "demo",
        "RATE_LIMIT_PER_MINUTE": "0",
        "RATE_LIMIT_INTENTS_PER_MINUTE": "0",
        "REDIS_URL": "",
        "LOG_LEVEL": log_level,
        "LOG_FORMAT": "json",
    }


def measure(plan: Plan) -> Measured:
    """Runs the load generator. Raises BenchFailed."""
    seconds = plan.warm_up_seconds + plan.seconds + LOAD_GRACE_SECONDS
    try:
        done = subprocess.run(
            LOAD,
            input=json.dumps(asdict(plan)) + "\n",
            env={**os.environ, "PYTHONPATH": python_path()},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"the load generator took more than {seconds:g} s") from error
    if done.returncode != 0:
        raise BenchFailed(f"the load generator failed: {done.stderr.strip()[-300:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return Measured(**answer)


def fsync_ms(folder: Path) -> float:
    """What the disk below the folder takes to make a write last, as Postgres writes; the median."""
    taken = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        file.write(bytes(FSYNCS * PAGE_BYTES))
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(FSYNCS):
            began = time.perf_counter()
            file.write(bytes(PAGE_BYTES))
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return round(sorted(taken)[FSYNCS // 2], 3)

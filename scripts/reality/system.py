"""The real system, as many of each as a shop would run, in one temporary folder and on the loopback.

Postgres and the bank are reached over lines that can be struck. Whatever dies is started again as
`up` does it, but for the bank, which is another company and does not die here.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import conninfo

from infrastructure import processes
from infrastructure.embedded_postgres import SOCKET_NAME, EmbeddedPostgres
from infrastructure.migrations import migrate
from infrastructure.vault import new_key
from scripts.reality.lines import CLEAR, Address, Line, Lines, Weather
from scripts.supervisor import POLL_SECONDS, GaveUp, Program, Register, Supervisor, members_of
from scripts.up import PrivatePostgres, is_listening

ROOT: Final = Path(__file__).resolve().parents[2]
COUNTERFOIL: Final = (sys.executable, "-P", "-m", "scripts.cli")
API_KEY: Final = "sk_test_chaos"
START_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 60.0
# Below the ports that systems give to whoever asks for any: nobody takes one while its owner is dead.
PORTS: Final = range(20_000, 32_000)
NEVER_GIVES_UP: Final = 10**9


class CannotRun(Exception):
    """The system does not come up, or not again; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much of everything, and how long it may take. Seconds as named; mishaps as a share of the
    messages on a line."""

    apis: int = 2
    workers: int = 3
    processes_per_api: int = 2
    threads: int = 128
    bank_latency_ms: tuple[int, int] = (100, 2000)
    bank_gives_up_seconds: float = 15.0
    bank_timeout_seconds: float = 5.0
    request_deadline_seconds: float = 10.0
    bank_mishaps: float = 0.06
    database_mishaps: float = 0.004

    def settings(self) -> dict[str, str]:
        """The same as our programs are told it."""
        return {
            "BANK_GIVES_UP_SECONDS": f"{self.bank_gives_up_seconds:g}",
            "BANK_TIMEOUT_SECONDS": f"{self.bank_timeout_seconds:g}",
            "REQUEST_DEADLINE_SECONDS": f"{self.request_deadline_seconds:g}",
        }


HURRIED: Final = Shape(
    workers=2,
    processes_per_api=1,
    threads=32,
    bank_latency_ms=(10, 200),
    bank_gives_up_seconds=2.0,
    bank_timeout_seconds=1.0,
    request_deadline_seconds=3.0,
    bank_mishaps=0.1,
    database_mishaps=0.03,
)


class Bank:
    """The simulator's own doors, past the line."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ledger(self) -> dict[str, Any]:
        """Its books."""
        return self._ask("/__ledger", None)

    def switch(self, **switches: object) -> None:
        """Its quirks."""
        self._ask("/__faults", switches)

    def open_account(self, **account: object) -> None:
        """A card with money."""
        self._ask("/__accounts", account)

    def _ask(self, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", raw)
        without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with without_proxies.open(request, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
        return found


@dataclass(slots=True, kw_only=True)
class System:
    """Everything that runs."""

    folder: Path
    shape: Shape
    bank: Bank
    bank_line: Line
    database_line: Line
    postgres: EmbeddedPostgres
    database_url: str  # past the line
    environment: dict[str, str]
    apis: list[Program]
    workers: list[Program]
    ports: list[int]
    supervisor: "KeptUp"

    def programs(self) -> list[Program]:
        """Ours that may die, but for the database."""
        return [*self.apis, *self.workers]

    def in_weather(self, weather: Weather) -> None:
        """Both lines at once."""
        self.bank_line.weather = self.database_line.weather = weather

    def heal(self) -> None:
        """The bank and the lines are well, and the database answers. Raises CannotRun."""
        self.in_weather(CLEAR)
        self.bank.switch(reset=True)
        wait_for("the database", self.database_answers)

    def database_answers(self) -> bool:
        try:
            with psycopg.connect(self.database_url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def all_up(self) -> bool:
        """Whether every program runs and every API listens. Raises CannotRun where one never will."""
        if self.supervisor.failure is not None:
            raise CannotRun(str(self.supervisor.failure))
        return all(each.is_up() for each in self.programs()) and all(
            is_listening("127.0.0.1", port) for port in self.ports
        )

    def command(self, *arguments: str) -> str:
        """What one of our commands printed. Raises CannotRun."""
        told = {**self.environment, "DATABASE_URL": self.database_url}
        done = subprocess.run(
            (*COUNTERFOIL, *arguments),
            env=told,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise CannotRun(f"counterfoil {' '.join(arguments)}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def logs(self) -> list[Path]:
        """What ours and Postgres said; the bank's log is the bank's."""
        ours = [path for path in self.folder.glob("*.log") if path.name != "bank.log"]
        return [*ours, self.postgres.log]

    def stored_files(self) -> list[Path]:
        """Postgres' heap, indexes and write-ahead log."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row is not None
        return [path for path in Path(row[0]).rglob("*") if path.is_file()]


class KeptUp:
    """A supervisor with a thread of its own, which goes on whatever dies and however often."""

    def __init__(self, folder: Path, said: Callable[[str], None]) -> None:
        register = Register(folder / "children.json")
        self._supervisor = Supervisor(register, said, most_quick_deaths=NEVER_GIVES_UP)
        self._programs: list[Program] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self.failure: GaveUp | None = None

    def start(self, program: Program) -> None:
        """Starts it, and again whenever it died."""
        self._programs.append(program)
        self._supervisor.start(program)

    def watch(self, postgres: PrivatePostgres) -> None:
        self._supervisor.watch(postgres)

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(START_SECONDS)
        for program in self._programs:  # they died often enough: nobody waits for a polite end
            if program.process is not None:
                for pid in members_of(program.process.pid):
                    processes.send(pid, signal.SIGKILL)
        self._supervisor.stop()

    def _keep(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            try:
                self._supervisor.check()
            except GaveUp as error:  # told by whoever waits for what is not up
                self.failure = error
                return
            except OSError:  # something went away while it was looked at
                continue


@contextmanager
def running(
    shape: Shape, rng: random.Random, said: Callable[[str], None], *, keep: bool
) -> Iterator[System]:
    """The whole system, up. Raises CannotRun."""
    with ExitStack() as at_end:
        folder, postgres = _database(at_end, keep=keep)
        supervisor = KeptUp(folder, said)
        system = _built(
            shape=shape,
            folder=folder,
            postgres=postgres,
            supervisor=supervisor,
            lines=at_end.enter_context(Lines()),
            rng=rng,
        )
        bank = Program("bank", _bank(system, rng), _environ({}), folder / "bank.log")
        at_end.callback(bank.stop)
        at_end.callback(supervisor.stop)
        bank.start()
        wait_for("the bank", lambda: is_listening("127.0.0.1", system.bank.port))
        for program in system.programs():
            supervisor.start(program)
        wait_for("the APIs and the workers", system.all_up)
        supervisor.watch(PrivatePostgres(postgres))
        supervisor.begin()
        yield system


def _database(at_end: ExitStack, *, keep: bool) -> tuple[Path, EmbeddedPostgres]:
    """A folder, and in it a server that forgets nothing, with the schema."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-chaos-"))
    folder.chmod(0o711)  # as root, Postgres runs as nobody and has to get to its own folder
    postgres = EmbeddedPostgres(folder / "postgres")
    if keep:
        at_end.callback(postgres.stop)
    else:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        at_end.callback(postgres.remove)
    migrate(postgres.start())
    return folder, postgres


def _built(
    *,
    shape: Shape,
    folder: Path,
    postgres: EmbeddedPostgres,
    supervisor: KeptUp,
    lines: Lines,
    rng: random.Random,
) -> System:
    """Everything in its place, and nothing started but the lines."""
    url = postgres.url()
    bank_port, line_port, *ports = free_ports(2 + shape.apis)
    environment = _environ(_settings(shape, folder, url, line_port))
    to_database = Address(path=_socket_of(url))
    return System(
        folder=folder,
        shape=shape,
        bank=Bank(bank_port),
        bank_line=lines.open(Address(port=line_port), Address(port=bank_port), rng),
        database_line=lines.open(Address(path=folder / SOCKET_NAME), to_database, rng),
        postgres=postgres,
        database_url=url,
        environment=environment,
        apis=[_api(shape, folder, environment, number, it) for number, it in enumerate(ports)],
        workers=[_worker(folder, environment, number) for number in range(shape.workers)],
        ports=ports,
        supervisor=supervisor,
    )


def wait_for(what: str, is_so: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Raises CannotRun when it does not come."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise CannotRun(f"waited {seconds:g} s in vain for {what}")
        time.sleep(POLL_SECONDS / 4)


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that nobody is given by chance."""
    found: list[int] = []
    # Not cryptography: where to begin to look, another place for another process.
    candidates = list(PORTS)
    random.Random(os.getpid()).shuffle(candidates)  # noqa: S311
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise CannotRun("there are no free ports")


def members(postgres: EmbeddedPostgres) -> list[int]:
    """The server and its own processes, which lead groups of their own."""
    leader = postgres.pid
    if leader is None:
        return []
    parents = {pid: processes.stat_fields(pid) for pid in processes.every_pid()}
    return [leader, *(pid for pid, its in parents.items() if its and its[1] == str(leader))]


def _socket_of(url: str) -> Path:
    return Path(str(conninfo.conninfo_to_dict(url)["host"])) / SOCKET_NAME


def _environ(told: Mapping[str, str]) -> dict[str, str]:
    """The caller's, without what would reach our programs by chance, and with this tree."""
    own = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name in own}
    return {**kept, "PYTHONPATH": str(ROOT), **told}


def _settings(shape: Shape, folder: Path, url: str, bank_port: int) -> dict[str, str]:
    """Every setting that matters here, so that no `.env` changes what happens."""
    return {
        **shape.settings(),
        "DATABASE_URL": conninfo_url(url, folder),
        "DATA_DIR": str(folder / "data"),
        "BANK_URL": f"http://127.0.0.1:{bank_port}",
        "BANK_PROFILE": "ficmart",
        "HOST": "127.0.0.1",
        "API_KEY": API_KEY,
        "ENVIRONMENT": "demo",
        "VAULT_KEYS": new_key(),
        "RATE_LIMIT_PER_MINUTE": "0",
        "RATE_LIMIT_INTENTS_PER_MINUTE": "0",
        "RATE_LIMIT_IP_PER_MINUTE": "0",
        "REDIS_URL": "",
        "LOG_LEVEL": "DEBUG",  # whatever may be logged is logged, and searched for cards
        "LOG_FORMAT": "json",
    }


def conninfo_url(url: str, folder: Path) -> str:
    """The same database, over the line that listens in `folder`."""
    return f"{url.partition('?')[0]}?host={quote(str(folder), safe='')}"


def _bank(system: System, rng: random.Random) -> tuple[str, ...]:
    shape = system.shape
    low, high = shape.bank_latency_ms
    return (
        *(*COUNTERFOIL, "bank", "--port", str(system.bank.port), "--profile", "ficmart"),
        *("--min-latency-ms", str(low), "--max-latency-ms", str(high)),
        *("--gives-up-seconds", f"{shape.bank_gives_up_seconds:g}"),
        *("--seed", str(rng.randrange(2**31)), "--database", str(system.folder / "bank.sqlite")),
    )


def _api(
    shape: Shape, folder: Path, environment: Mapping[str, str], number: int, port: int
) -> Program:
    size = ("--workers", str(shape.processes_per_api), "--threads", str(shape.threads))
    command = (*COUNTERFOIL, "serve", "--port", str(port), *size)
    return Program(f"api-{number}", command, environment, folder / f"api-{number}.log")


def _worker(folder: Path, environment: Mapping[str, str], number: int) -> Program:
    command = (*COUNTERFOIL, "work")
    return Program(f"worker-{number}", command, environment, folder / f"worker-{number}.log")

"""`./scripts/up`: the whole system in the foreground, from nothing, until Ctrl-C."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click
from dotenv import load_dotenv

from infrastructure import processes
from infrastructure.embedded_postgres import EmbeddedPostgres, PostgresUnavailable
from scripts.console import BANK_URL_FILE
from scripts.demo import Api, DemoFailed, show_a_payment
from scripts.supervisor import POLL_SECONDS, GaveUp, Program, Register, Supervisor, last_line

ROOT = Path(__file__).resolve().parent.parent
COUNTERFOIL = Path(sys.executable).with_name("counterfoil")
DEFAULT_DATA = ROOT / ".data"
DEMO_KEY = "sk_test_123"
START_TIMEOUT_SECONDS = 60.0
MIGRATE_TIMEOUT_SECONDS = 600.0
DETACH_TIMEOUT_SECONDS = 300.0
WRONG_USE_STATUS = 2
HIGHEST_PORT = 65535


class CannotStart(Exception):
    """Nothing was started; the text is one line that says what to do."""


class Stop(BaseException):
    """Somebody asked for the end: Ctrl-C, SIGTERM or SIGHUP."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of one system's data folder that belong to `up` and `down`."""

    path: Path

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def pid_file(self) -> Path:
        return self.path / "up.pid"

    @property
    def bank_url(self) -> Path:
        return self.path / BANK_URL_FILE

    @property
    def register(self) -> Register:
        return Register(self.path / "children.json")

    @property
    def postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.path / "postgres")

    def is_locked(self) -> bool:
        """Whether there is an `up` of this folder, also one that is only starting or ending."""
        with contextlib.suppress(BlockingIOError), self.lock():
            return False
        return True

    def supervisor_pid(self) -> int | None:
        """The running `up` of this folder: the one that holds the lock."""
        if not self.is_locked():
            return None
        try:
            pid, _, started_at = self.pid_file.read_text().strip().partition(" ")
        except OSError:
            pid = started_at = ""
        if not pid or processes.started_at(int(pid)) != started_at:
            raise CannotStart("another ./scripts/up is just starting or ending; run this again")
        return int(pid)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held by one `up` for as long as it lives; BlockingIOError when it is another's."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.path / "up.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


@dataclass(slots=True)
class PrivatePostgres:
    """The embedded Postgres as the supervisor keeps it."""

    postgres: EmbeddedPostgres
    name: str = field(default="postgres", init=False)

    def start(self) -> None:
        with contextlib.suppress(PostgresUnavailable):
            self.postgres.start()

    def is_up(self) -> bool:
        return self.postgres.is_running()

    def is_hopeless(self) -> bool:
        return False

    def last_words(self) -> str:
        return last_line(self.postgres.log)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Where the parts of one system are."""

    folder: Folder
    host: str
    port: int
    bank_port: int | None
    key: str

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def api(self) -> Api:
        return Api(host=reachable(self.host), port=self.port, key=self.key)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--port", type=click.IntRange(1, HIGHEST_PORT), help="The API's; PORT, else 8080.")
@click.option("--bank-port", type=click.IntRange(1, HIGHEST_PORT), help="Default: a free one.")
@click.option("--data", type=click.Path(path_type=Path), default=DEFAULT_DATA, show_default=True)
@click.option("--demo/--no-demo", default=True, help="Show a first payment going through.")
@click.option("--detach", is_flag=True, help="Return when all is up; ./scripts/down stops it.")
def up(port: int | None, bank_port: int | None, data: Path, *, demo: bool, detach: bool) -> None:
    """Start Postgres, the bank simulator, the API and the worker, and keep them up."""
    load_dotenv(ROOT / ".env")
    folder = Folder(data.resolve())
    if detach:
        raise SystemExit(in_the_background(folder))
    with stopping_on_signals():
        try:
            with locked(folder):
                run(folder, port or port_from_environment(), bank_port, demo=demo)
        except Stop:
            say("stopped")


def run(folder: Folder, port: int, bank_port: int | None, *, demo: bool) -> None:
    """Start all parts in order, say so, and watch over them until somebody asks for the end."""
    ended = folder.register.end_remains()
    if ended:
        say(f"ended {ended} programs that an earlier run had left behind")
    host = os.environ.get("HOST") or "127.0.0.1"
    refuse_used_port(host, port)
    has_own_bank = not os.environ.get("BANK_URL")
    if has_own_bank and bank_port:
        refuse_used_port("127.0.0.1", bank_port)
    system = System(
        folder=folder,
        host=host,
        port=port,
        bank_port=(bank_port or free_port()) if has_own_bank else None,
        key=os.environ.get("API_KEY") or DEMO_KEY,
    )
    supervisor = Supervisor(folder.register, say)
    with contextlib.ExitStack() as at_end:
        folder.bank_url.unlink(missing_ok=True)
        if system.bank_port:
            at_end.callback(folder.bank_url.unlink, missing_ok=True)
            folder.bank_url.write_text(f"http://127.0.0.1:{system.bank_port}\n")
        database_url = os.environ.get("DATABASE_URL") or own_postgres(folder, supervisor, at_end)
        at_end.callback(supervisor.stop)
        start_programs(system, supervisor, environment_for(system, database_url))
        if demo:
            demonstrate(system, supervisor)
        print_addresses(system)
        announce_ready()
        while True:
            supervisor.check()
            time.sleep(POLL_SECONDS)


def own_postgres(folder: Folder, supervisor: Supervisor, at_end: contextlib.ExitStack) -> str:
    postgres = folder.postgres
    at_end.callback(postgres.stop)
    url = postgres.start()
    supervisor.watch(PrivatePostgres(postgres))
    return url


def start_programs(system: System, supervisor: Supervisor, environment: dict[str, str]) -> None:
    def program(name: str, *arguments: str) -> Program:
        log = system.folder.logs / f"{name}.log"
        command = [str(COUNTERFOIL), *arguments]
        shown_up_to = log.stat().st_size if log.exists() else 0
        return Program(name, command, environment, log, shown_up_to=shown_up_to)

    if system.bank_port:
        profile = environment["BANK_PROFILE"]
        options = ("--port", str(system.bank_port), "--profile", profile)
        supervisor.start(program("bank", "bank", *options))
    migrate(program("migrate", "migrate"))
    supervisor.start(program("api", "serve"))
    supervisor.start(program("worker", "work"))
    api, bank_port = system.api(), system.bank_port
    wait_for(supervisor, "the API to be healthy", api.is_healthy)
    if bank_port:
        wait_for(supervisor, "the bank simulator", lambda: is_listening("127.0.0.1", bank_port))


def migrate(program: Program) -> None:
    program.start()
    processes.wait_until(lambda: not program.is_up(), MIGRATE_TIMEOUT_SECONDS)
    status = program.process.poll() if program.process else None
    program.stop()
    if status != 0:
        raise GaveUp(f"the schema could not be made: {program.last_words()}", status or 1)


def wait_for(supervisor: Supervisor, what: str, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not is_so():
        supervisor.check()
        if time.monotonic() > deadline:
            raise GaveUp(f"waited {START_TIMEOUT_SECONDS:g} s in vain for {what}; see the logs")
        time.sleep(POLL_SECONDS / 4)


def environment_for(system: System, database_url: str) -> dict[str, str]:
    """What the programs are told; whatever the caller set stays."""
    told = {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(system.folder.path),
        "HOST": system.host,
        "PORT": str(system.port),
    }
    defaults = {
        "API_KEY": DEMO_KEY,
        "ENVIRONMENT": "demo",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder(system.folder)),
    }
    if system.bank_port:
        told["BANK_URL"] = f"http://127.0.0.1:{system.bank_port}"
        defaults["BANK_PROFILE"] = "extended"
    caller = {name: value for name, value in os.environ.items() if value or name not in defaults}
    return defaults | caller | told


def metrics_folder(folder: Folder) -> Path:
    """Where the API's and the worker's processes add their counters up; empty at each start."""
    metrics = folder.path / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir()
    return metrics


def demonstrate(system: System, supervisor: Supervisor) -> None:
    """A walk that fails is said, and the system stays up to be looked at."""
    try:
        show_a_payment(system.api(), print)
    except (DemoFailed, OSError) as error:
        supervisor.check()
        say(f"the first payment did not go through: {error}")


def print_addresses(system: System) -> None:
    rows = {
        "API": system.url,
        "Documentation": f"{system.url}/docs",
        "Health": f"{system.url}/v1/health",
        "Metrics": f"{system.url}/metrics",
        "Bank": os.environ.get("BANK_URL") or f"http://127.0.0.1:{system.bank_port}/__ledger",
        "Demo key" if system.key == DEMO_KEY else "API key": system.key,
        "Logs": str(system.folder.logs),
        "Try": f"curl {system.url}/v1/receipts -H 'Authorization: Bearer {system.key}'",
    }
    print()
    for name, value in rows.items():
        print(f"  {name:<14} {value}")
    is_detached = "COUNTERFOIL_READY_FD" in os.environ
    ways = "./scripts/down stops it" if is_detached else "Ctrl-C stops it, or ./scripts/down"
    print(f"\nUp. {ways}.", flush=True)


# In the background


def in_the_background(folder: Folder) -> int:
    """Start the same command without `--detach`, show what it says until it is up, and leave."""
    refuse_second(folder)
    log = folder.logs / "up.log"
    reader, writer = os.pipe()
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scripts.up", *arguments],
            env=os.environ | {"COUNTERFOIL_READY_FD": str(writer)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[writer],
        )
    os.close(writer)
    is_ready = is_told(reader, DETACH_TIMEOUT_SECONDS)
    sys.stdout.write(log.read_text(errors="replace"))
    if is_ready:
        return 0
    process.terminate()
    return process.wait()


def announce_ready() -> None:
    """Tell the `--detach` that started this one."""
    descriptor = os.environ.pop("COUNTERFOIL_READY_FD", None)
    if descriptor:
        with contextlib.suppress(OSError), os.fdopen(int(descriptor), "wb") as parent:
            parent.write(b"ready")


def is_told(reader: int, timeout_seconds: float) -> bool:
    """Whether `ready` came; the other's death closes the pipe."""
    import select

    with os.fdopen(reader, "rb") as pipe:
        readable, _, _ = select.select([pipe], [], [], timeout_seconds)
        return bool(readable) and pipe.read(1) != b""


# Refusals


@contextlib.contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Be the only `up` of the folder, and leave the process id where `down` finds it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(folder.lock())
        except BlockingIOError:
            refuse_second(folder)
            raise CannotStart("another ./scripts/up has just ended; run this again") from None
        except OSError as error:
            raise CannotStart(f"the data folder cannot be used: {error}") from error
        pid = os.getpid()
        folder.pid_file.write_text(f"{pid} {processes.started_at(pid)}\n")
        held.callback(folder.pid_file.unlink, missing_ok=True)
        yield


def refuse_second(folder: Folder) -> None:
    pid = folder.supervisor_pid()
    if pid is not None:
        raise CannotStart(
            f"it is up already with the data in {folder.path} (process {pid}); "
            "stop it with ./scripts/down, or choose another folder with --data"
        )


def refuse_used_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"port {port} on {host} cannot be used ({error.strerror}); "
                "stop what uses it, or choose another with --port"
            ) from error


def port_from_environment() -> int:
    text = os.environ.get("PORT") or "8080"
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= HIGHEST_PORT:
        raise CannotStart(f"PORT is {text!r} and has to be a number from 1 to {HIGHEST_PORT}")
    return int(text)


# Small things


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """The first signal stops in order; further ones do not interrupt the stopping."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stop

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is, under nohup
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, stop)
    yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def reachable(host: str) -> str:
    """Where a server that listens on every address is reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound here)


def say(sentence: str) -> None:
    print(f"counterfoil: {sentence}", file=sys.stderr, flush=True)


def run_command(command: click.Command) -> int:
    """Run it as a program: whatever goes wrong for a reason is one line and a status."""
    try:
        command.main(prog_name=f"./scripts/{command.name}", standalone_mode=False)
    except click.ClickException as error:
        say(f"{error.format_message()} (see --help)")
        return WRONG_USE_STATUS
    except (CannotStart, PostgresUnavailable) as error:
        say(str(error))
        return WRONG_USE_STATUS
    except GaveUp as error:
        say(str(error))
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(run_command(up))

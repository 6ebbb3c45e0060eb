"""Databases for tests: one server for a whole run, one migrated template, a clone for each test.

The server is a private Postgres that forgets on a crash, started when the first test asks for a
database and shared by all xdist workers; TEST_DATABASE_URL names another server instead.
"""

import contextlib
import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import structlog
from hypothesis import settings
from psycopg.sql import SQL, Identifier

from infrastructure import processes
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate

# How long an example takes on a busy machine says nothing; what hangs is stopped by pytest-timeout.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

RUN_FOLDER = "COUNTERFOIL_TEST_RUN"  # set by the first process, inherited by its xdist workers
RUN_FOLDER_PREFIX = "counterfoil-tests-"

CREATE = SQL("CREATE DATABASE {name}")
CLONE = SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
DROP = SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The proofs that take minutes are asked for by name."""
    parser.addoption("--proofs", action="store_true", help="also run what is marked as a proof")


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that this run's workers share."""
    if hasattr(config, "workerinput"):
        return
    remove_folders_of_killed_runs()
    folder = Path(tempfile.mkdtemp(prefix=f"{RUN_FOLDER_PREFIX}{os.getpid()}-"))
    folder.chmod(0o711)  # as root, the server runs as nobody and has to get to its own folder
    os.environ[RUN_FOLDER] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """After the last worker: stop the server and leave nothing behind."""
    gc.unfreeze()  # what was loaded is free to go
    if not hasattr(config, "workerinput") and RUN_FOLDER in os.environ:
        TestRun(Path(os.environ.pop(RUN_FOLDER))).end()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests stay to the end. Looked through for garbage now and then, they would stop every
    thread for seconds each time, which is longer than a request waits for the database."""
    gc.disable()
    try:
        return (yield)
    finally:
        processes.look_for_garbage_seldom()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Proofs are skipped unless they were asked for. What takes long begins first, the longest before
    all, whatever the order of the rest: on its own worker where there are several, each of which is
    given a share of the front of the list."""
    if not config.getoption("--proofs"):
        for item in items:
            if item.get_closest_marker("proof") is not None:
                item.add_marker(pytest.mark.skip(reason="give --proofs"))
    slow = sorted(filter(is_slow, items), key=patience_with, reverse=True)
    items[:] = [item for item in items if not is_slow(item)]
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    share = max(len(items) // (4 * workers), 2)
    for number, item in enumerate(slow):
        items.insert(number % workers * share + number // workers, item)


def is_slow(item: pytest.Item) -> bool:
    """Whether it takes more than a few seconds."""
    return any(item.get_closest_marker(mark) is not None for mark in ("slow", "proof"))


def patience_with(item: pytest.Item) -> float:
    """For how many seconds it may go on."""
    mark = item.get_closest_marker("timeout")
    return 0.0 if mark is None else float(mark.args[0])


@dataclass(frozen=True, slots=True)
class TestRun:
    """What the processes of one run share, in one folder."""

    __test__ = False

    folder: Path

    @property
    def template(self) -> str:
        return f"{self.folder.name.replace('-', '_').lower()}_template"

    def server_url(self) -> str:
        """The server of this run, with the template database made by whoever comes first."""
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            url = os.environ.get("TEST_DATABASE_URL") or self._postgres().start()
            self._make_template(url)
            return url

    def end(self) -> None:
        other_server = os.environ.get("TEST_DATABASE_URL")
        if other_server and self._marker().exists():
            with psycopg.connect(other_server, autocommit=True) as connection:
                connection.execute(DROP.format(name=Identifier(self.template)))
        self._postgres().remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _postgres(self) -> EmbeddedPostgres:
        return EmbeddedPostgres(self.folder / "postgres", durable=False)

    def _marker(self) -> Path:
        return self.folder / "template-is-ready"

    def _make_template(self, url: str) -> None:
        if self._marker().exists():
            return
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(DROP.format(name=Identifier(self.template)))
            connection.execute(CREATE.format(name=Identifier(self.template)))
        migrate(with_database(url, self.template))
        self._marker().touch()


@dataclass(slots=True)
class Databases:
    """Makes and drops clones of the template, over one connection."""

    url: str
    template: str
    connection: psycopg.Connection
    prefix: str
    numbers: Iterator[int] = field(default_factory=count)

    @contextlib.contextmanager
    def clone(self) -> Iterator[str]:
        name = Identifier(f"{self.prefix}_{next(self.numbers)}")
        self.connection.execute(CLONE.format(name=name, template=Identifier(self.template)))
        try:
            yield with_database(self.url, name.as_string().strip('"'))
        finally:
            self.connection.execute(DROP.format(name=name))


@pytest.fixture(autouse=True)
def the_environment_stays_as_it_was() -> Iterator[None]:
    """A test that leaves a variable behind would change what the next one sees."""
    before = environment()
    yield
    assert environment() == before


@pytest.fixture(autouse=True)
def logs_are_as_they_were() -> Iterator[None]:
    """A command that was run in a test sets up the process's logs, which is this one."""
    before = structlog.get_config()
    yield
    after = structlog.get_config()
    structlog.configure(**before)
    assert not after["cache_logger_on_first_use"], "loggers would keep to it for good"


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Clones of the migrated database, for a test that needs several."""
    run = TestRun(Path(os.environ[RUN_FOLDER]))
    url = run.server_url()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    with psycopg.connect(url, autocommit=True) as connection:
        prefix = run.template.replace("template", worker)
        yield Databases(url, run.template, connection, prefix)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A freshly migrated database of the test's own."""
    with databases.clone() as url:
        yield url


@pytest.fixture(scope="session")
def shared_database_url(databases: Databases) -> Iterator[str]:
    """A migrated database that the worker's tests share: for tests that use fresh ids only."""
    with databases.clone() as url:
        yield url


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def remove_folders_of_killed_runs() -> None:
    """A run that was killed could not stop its server."""
    for folder in Path(tempfile.gettempdir()).glob(f"{RUN_FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(RUN_FOLDER_PREFIX).partition("-")[0]
        try:
            is_ours = folder.stat().st_uid == os.geteuid()
        except FileNotFoundError:  # another run that begins was faster
            continue
        if is_ours and pid.isdecimal() and not processes.command_line(int(pid)):
            EmbeddedPostgres(folder / "postgres", durable=False).remove()
            shutil.rmtree(folder, ignore_errors=True)

"""A private, durable Postgres for one measurement, and what the machine below it is like."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate
from scripts.bench.system import fsync_ms
from scripts.up import Stop, stopping_on_signals

# Enough for a million events and their read models, as a server of such a store would have.
MEMORY: Final = "2GB"
STOPPED_STATUS = 2
SETTINGS = (
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "commit_delay",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running server. `url`: of the database that is there from the start, and is empty."""

    url: str
    pid: int
    folder: Path

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def store(self, name: str) -> str:
        """The URL of a new database with the ledger's schema."""
        url = self.database(name)
        migrate(url)
        return url

    def slow_flushes(self, milliseconds: int) -> None:
        """From now on each flush of the log, of however many commits, takes so much longer."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET commit_siblings = 0")
            connection.execute(
                SQL("ALTER SYSTEM SET commit_delay = {}").format(Literal(milliseconds * 1000))
            )
            connection.execute("SELECT pg_reload_conf()")

    def facts(self) -> dict[str, Any]:
        """What was measured on."""
        with psycopg.connect(self.url) as connection:
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name",
                [list(SETTINGS)],
            ).fetchall()
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load_average": round(os.getloadavg()[0], 2),
            "fsync_ms": fsync_ms(self.folder),
            **dict(rows),
        }


@contextmanager
def a_cluster(shared_buffers: str | None = None) -> Iterator[Cluster]:
    """A server with fsync on, in a temporary folder, and gone afterwards, also after a signal."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-bench-"))
    folder.chmod(0o711)  # as root, Postgres runs as nobody and has to get to its own folder
    with ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = EmbeddedPostgres(folder / "postgres")
        at_end.callback(postgres.remove)
        url = postgres.start()
        if shared_buffers is not None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    SQL("ALTER SYSTEM SET shared_buffers = {}").format(Literal(shared_buffers))
                )
            postgres.stop()
            url = postgres.start()
        assert postgres.pid is not None
        try:
            with stopping_on_signals():
                yield Cluster(url=url, pid=postgres.pid, folder=folder)
        except Stop:
            sys.exit(STOPPED_STATUS)

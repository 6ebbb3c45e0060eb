"""The bank's disk: one SQLite file that outlives a killed process."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_TIMEOUT_MS = 1_000
# Rare checkpoints: pages that change often are then written back once, not every time.
CHECKPOINT_PAGES = 8_000
CACHE_KIB = 65_536
PRAGMAS = f"""
PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};
PRAGMA page_size = 2048;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
PRAGMA cache_size = {-CACHE_KIB};
"""


class DatabaseUnusable(Exception):
    """The file cannot be opened, is no database, or another bank has it open."""


class Database:
    """One connection, used from one thread; every change is one immediate transaction.

    WAL with `synchronous = NORMAL`: what was committed survives `kill -9`, and a commit does not
    wait for the disk, since the bank serves all its callers from one event loop. The file is held
    by one bank alone, which also spares every statement the taking of locks.
    """

    def __init__(self, path: Path) -> None:
        """Raises `DatabaseUnusable`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.executescript(PRAGMAS)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnusable(f"cannot use the database {path}: {error}") from error
        self._connection.row_factory = sqlite3.Row
        self.execute = self._connection.execute

    def create(self, schema: str) -> None:
        self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: an exception inside, a refusal included, leaves no trace."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

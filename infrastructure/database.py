"""Connections to Postgres: pooled, bounded in every wait, and translated when they fail."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg import Connection, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from domain.errors import StoreUnavailable

# What is wrong with the database is said once, by whoever needed it, and not at every new attempt.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)

Pool = ConnectionPool[Connection[DictRow]]

# No request hangs on the database: it waits this long for a connection, a lock or a statement.
POOL_TIMEOUT_SECONDS: Final = 1.5
LOCK_TIMEOUT_MILLISECONDS: Final = 1_000
STATEMENT_TIMEOUT_MILLISECONDS: Final = 1_800
CONNECT_TIMEOUT_SECONDS: Final = 2


@contextmanager
def unavailability_named() -> Iterator[None]:
    """Turns every way in which the database is not there, or not in time, into one of ours."""
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(type(error).__name__) from error


def open_pool(
    database_url: str, *, size: int, statement_timeout: int = STATEMENT_TIMEOUT_MILLISECONDS
) -> Pool:
    """A pool of at most `size` autocommitting connections, opened in the background."""
    options: dict[str, Any] = {
        "autocommit": True,
        "row_factory": dict_row,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "counterfoil",
        "options": (
            f"-c statement_timeout={statement_timeout} -c lock_timeout={LOCK_TIMEOUT_MILLISECONDS}"
            " -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
        ),
    }
    return ConnectionPool(
        database_url,
        connection_class=Connection[DictRow],
        kwargs=options,
        min_size=min(2, size),
        max_size=size,
        timeout=POOL_TIMEOUT_SECONDS,
        reconnect_timeout=0,
        open=True,
    )

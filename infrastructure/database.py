"""Connections to Postgres: pooled, bounded in every wait, and translated when they fail."""

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, LiteralString, TypeVar

from psycopg import Connection, Cursor, Error, OperationalError, errors
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.waiting import READY_NONE
from psycopg_pool import ConnectionPool, PoolTimeout

from domain.errors import StoreUnavailable
from infrastructure.fault_points import reached_at_each_wait

RV = TypeVar("RV")
WAIT_INTERVAL_SECONDS: Final = 0.1
LAST_LOOK_SECONDS: Final = 0.1

# What is wrong with the database is said once, by whoever needed it, and not at every new attempt.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_SECONDS: Final = 2
# A connection that was not used for so long is tried before it is: the server may have gone.
IDLE_SECONDS: Final = 3.0

# What the migrations make where they may; elsewhere the connection stays who it is.
TAKE_ON_SERVING_ROLE: Final[LiteralString] = """
    SELECT set_config('role', rolname, false) FROM pg_roles
    WHERE rolname = 'counterfoil_serving' AND pg_has_role(current_user, oid, 'MEMBER')
      AND to_regclass('public.events') IS NOT NULL
      AND has_table_privilege(oid, 'public.events', 'INSERT')
"""

# Fails, and with it all that went out with it.
TAKE_BACK: Final[LiteralString] = "SELECT public.require(false, 'taken back')"

# Every way in which the database is not there, not in time, or cannot be written to.
UNAVAILABLE: Final = (
    OperationalError,
    PoolTimeout,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,  # we were stopped in the middle of one
)


@dataclass(frozen=True)
class Waits:
    """How long anybody waits for the database, in seconds."""

    connection: float
    """For one of the pool's."""

    lock: float
    statement: float

    answer: float
    """From a server that does not keep to its own limits, because it is stopped or cut off."""


# No request hangs on the database: whichever it waits for, a 503 is out within two seconds.
OF_REQUESTS: Final = Waits(connection=1.2, lock=1.0, statement=1.3, answer=1.5)
# Who has typed a command waits rather than be told to try again; others are not kept from theirs.
OF_COMMANDS: Final = Waits(connection=10.0, lock=1.0, statement=10.0, answer=12.0)


class BoundedConnection(Connection[DictRow]):
    """A connection that does not wait for answers for ever."""

    used_at: float = 0.0
    is_made: bool = False  # before, it is on nobody's path
    answer_timeout: float = OF_REQUESTS.answer

    @cached_property
    def writer(self) -> Cursor[DictRow]:
        """One cursor for all that is appended, so that none is made for each."""
        return self.cursor()

    def commit(self) -> None:
        """As the driver's, without its lock and its wait where there is nothing to be committed."""
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            super().commit()

    def wait(
        self,
        gen: Generator[Any, Any, RV],
        interval: float = WAIT_INTERVAL_SECONDS,
        timeout: float | None = None,
    ) -> RV:
        """As the driver's. When time is up there is one more look, since it may be this process that
        was kept from running, with the answer there all the while; then the connection is closed,
        since nobody knows its state."""
        self.used_at = time.monotonic()
        if self.is_made:
            gen = reached_at_each_wait("database.waited_for", gen)
        try:
            return super().wait(gen, interval, timeout=timeout or self.answer_timeout)
        except errors._WaitTimeout:  # noqa: SLF001 - the only name that it has
            return self._last_look(gen, interval)

    def _last_look(self, gen: Generator[Any, Any, RV], interval: float) -> RV:
        try:
            return super().wait(_gone_on_with(gen), interval, timeout=LAST_LOOK_SECONDS)
        except errors._WaitTimeout as error:  # noqa: SLF001
            self.pgconn.finish()
            raise OperationalError("the database did not answer in time") from error


Pool = ConnectionPool[BoundedConnection]


def _gone_on_with(gen: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
    """The steps that are left of a wait that was given up. They were begun, so that they are not to be
    begun again, as `yield from` would."""
    ready = READY_NONE
    while True:
        try:
            waits_for = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result
        ready = yield waits_for


@contextmanager
def unavailability_named() -> Iterator[None]:
    """Turns every way in which the database is not there, or not in time, into one of ours."""
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreUnavailable(type(error).__name__) from error


@contextmanager
def at_once(connection: Connection[Any]) -> Iterator[None]:
    """What is asked within goes out together, and is one transaction, on a connection that has none. An
    error takes all of it back, wherever it is from: what has gone out would stand otherwise, since the
    end of what goes out together is the end of the transaction, whether or not something is missing."""
    is_over = False
    try:
        with connection.pipeline() as pipeline:
            try:
                yield
                is_over = True
            except BaseException:
                with suppress(Error):
                    connection.execute(TAKE_BACK)
                    pipeline.sync()
                raise
    except BaseException as error:
        # Where the end itself fails the driver has one answer more than it expects.
        has_lost_count = is_over and isinstance(error, IndexError)
        if has_lost_count or connection.info.pipeline_status is not PipelineStatus.OFF:
            connection.close()
        _forget_what_was_prepared(connection)
        if has_lost_count:
            raise OperationalError("the transaction failed at its end") from error
        raise


def _forget_what_was_prepared(connection: Connection[Any]) -> None:
    """Of what came after an error the driver believes that the server has prepared it. Both forget all
    of it here: left to itself the driver would tell the server after the next statement, and so have it
    forget that one too, which it would go on to ask for by its name."""
    prepared = connection._prepared  # noqa: SLF001 - nothing else makes it forget
    prepared.clear()
    if not connection.closed:
        with suppress(Error):
            connection.wait(prepared.maintain_gen(connection))


def nothing_was_written(error: StoreUnavailable) -> bool:
    """Whether the statement is known to have failed: it never went out, or the server itself said no
    and lives. Otherwise it may have been committed, and only the acknowledgement was lost."""
    cause = error.__cause__
    if isinstance(cause, PoolTimeout):
        return True
    return isinstance(cause, Error) and cause.diag.severity_nonlocalized == "ERROR"


def open_pool(database_url: str, *, size: int, waits: Waits = OF_REQUESTS) -> Pool:
    """A pool of at most `size` autocommitting connections, opened in the background."""
    options: dict[str, Any] = {
        "autocommit": True,
        "row_factory": dict_row,
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "counterfoil",
        "options": (
            f"-c statement_timeout={waits.statement}s -c lock_timeout={waits.lock}s"
            " -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
        ),
    }

    def configure(connection: BoundedConnection) -> None:
        connection.answer_timeout = waits.answer
        _take_on_the_serving_role(connection)

    return ConnectionPool(
        database_url,
        connection_class=BoundedConnection,
        check=_check_if_idle,
        configure=configure,
        kwargs=options,
        min_size=min(2, size),
        max_size=size,
        timeout=waits.connection,
        reconnect_timeout=0,
        open=True,
    )


def _take_on_the_serving_role(connection: BoundedConnection) -> None:
    """Gives up the right to change the log, where there is a role without it."""
    connection.execute(TAKE_ON_SERVING_ROLE)
    connection.is_made = True


def _check_if_idle(connection: BoundedConnection) -> None:
    """Tries a connection that was idle for a while; raises when it is no good any more."""
    if time.monotonic() - connection.used_at > IDLE_SECONDS:
        ConnectionPool.check_connection(connection)

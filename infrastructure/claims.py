"""What is changed beside the log, in tables of its own: with the idempotency key of who asked, or not at
all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psycopg import Connection
from psycopg.rows import DictRow

from domain.records import ClaimKey
from infrastructure import idempotency
from infrastructure.database import Pool, unavailability_named
from infrastructure.event_store import broken_rules_named


@contextmanager
def at_once(pool: Pool) -> Iterator[Connection[DictRow]]:
    """What is written in the block is written all of it, or none of it. Raises KeyAlreadyClaimed,
    StoreUnavailable."""
    with (
        broken_rules_named(),
        unavailability_named(),
        pool.connection() as connection,
        connection.transaction(),
    ):
        yield connection


def claim(connection: Connection[DictRow], claims: Sequence[ClaimKey]) -> None:
    """Takes the idempotency keys, of which there is one at most. Raises UniqueViolation."""
    for each in claims:
        part = idempotency.claim(each)
        connection.execute(part.sql, part.parameters)

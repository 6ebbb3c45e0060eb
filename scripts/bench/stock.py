"""The library as it comes: its recorder for Postgres, and its projection runner with a view.

What ours is measured against. The same events in the same JSON; its default settings but for the
creation of tables, which is done once and beforehand.
"""

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, LiteralString
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.postgres import (
    PostgresApplicationRecorder,
    PostgresFactory,
    PostgresTrackingRecorder,
)
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import Environment
from psycopg.sql import SQL, Identifier

from domain.payment import Payment
from infrastructure.event_store import FlatJSON, FlatMapper

NAME: Final = "stock"
INSERTED_AT_ONCE: Final = 1_000
RUN_SECONDS: Final = 300.0
LOOK_SECONDS: Final = 0.05

CREATE_VIEW: Final[LiteralString] = """
    CREATE TABLE IF NOT EXISTS {0}.stock_payments (
        payment_id uuid PRIMARY KEY, version bigint NOT NULL, status text NOT NULL,
        updated_at timestamptz NOT NULL
    )
"""
UPSERT: Final[LiteralString] = """
    INSERT INTO {0}.stock_payments (payment_id, version, status, updated_at)
    VALUES (%(payment_id)s, %(version)s, %(status)s, %(at)s)
    ON CONFLICT (payment_id) DO UPDATE SET
        version = excluded.version, status = excluded.status, updated_at = excluded.updated_at
"""


def environment(url: str, *, create_table: bool) -> dict[str, str]:
    """What the library wants to know."""
    parts = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parse_qs(parts.query)["host"][0],
        "POSTGRES_PORT": "5432",
        "POSTGRES_USER": parts.username or "",
        "POSTGRES_PASSWORD": "",
        "CREATE_TABLE": "y" if create_table else "n",
    }


def recorder(url: str, *, create_table: bool = False) -> PostgresApplicationRecorder:
    """The library's recorder of an application's events."""
    env = Environment(NAME, environment(url, create_table=create_table))
    made = PostgresFactory(env).application_recorder()
    assert isinstance(made, PostgresApplicationRecorder)
    return made


class StockLedger(Application[UUID]):
    """The events of payments, kept by the library's recorder."""

    name = NAME

    def construct_mapper(self) -> FlatMapper:
        """The JSON that ours has."""
        return FlatMapper(FlatJSON())


class PaymentsView(PostgresTrackingRecorder):
    """A row for each payment: as little as a read model of them can be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        schema = Identifier(self.datastore.schema)
        self.sql_create_statements.append(SQL(CREATE_VIEW).format(schema))
        self._upsert = SQL(UPSERT).format(schema)

    def put(self, event: Payment.Event, tracking: Tracking) -> None:
        """The payment's row, and how far the view is, in one transaction."""
        row = {
            "payment_id": event.originator_id,
            "version": event.originator_version,
            "status": type(event).__name__,
            "at": event.timestamp,
        }
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(self._upsert, row, prepare=True)
            self._insert_tracking(cursor, tracking)


class StockProjection(Projection[PaymentsView]):
    """One upsert an event."""

    name = "stockview"

    def process_event(self, domain_event: Payment.Event, tracking: Tracking) -> None:
        """Puts it into the view."""
        self.view.put(domain_event, tracking)


def events_per_second(url: str, events: Iterable[StoredEvent]) -> float:
    """How fast the library's runner takes `events` in, from the first to the last of them."""
    kept = recorder(url, create_table=True)
    waiting, number = iter(events), 0
    while batch := list(islice(waiting, INSERTED_AT_ONCE)):
        kept.insert_events(batch)
        number += len(batch)
    kept.datastore.close()
    began = time.perf_counter()
    with ProjectionRunner(
        application_class=StockLedger,
        projection_class=StockProjection,
        view_class=PaymentsView,
        env=environment(url, create_table=True),
    ) as runner:
        while (runner.view.max_tracking_id(NAME) or 0) < number:
            if time.perf_counter() - began > RUN_SECONDS:
                raise TimeoutError("the library's runner did not get to the end")
            runner.run_forever(timeout=LOOK_SECONDS)
    return number / (time.perf_counter() - began)

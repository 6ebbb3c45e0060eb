"""`GET /metrics`: counters of every process, and what the database knows of what is stuck."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from api.http import Answer
from domain.payment import ReviewReason
from infrastructure.database import Pool
from infrastructure.projections.generations import lags

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
REQUESTS: Final = Counter(
    "counterfoil_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
SECONDS: Final = Histogram(
    "counterfoil_http_request_seconds",
    "Time to answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
REPLAYS: Final = Counter("counterfoil_idempotent_replays_total", "Answers given again.", ["route"])


class Counts(Collector):
    """Counters and times of every process of the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """All but what is in a file that is empty: its process began just now, or was killed as it did."""
        files = [
            str(path)
            for path in self._folder.iterdir()
            if path.suffix == ".db" and _has_been_written(path)
        ]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


class Unresolved(Collector):
    """The operations without an outcome, and the payments that need a person."""

    CALLS: LiteralString = """
        SELECT count(*) AS calls,
               coalesce(extract(epoch FROM clock_timestamp() - min(since) FILTER (
                   WHERE NOT waits_for_shopper OR since <= clock_timestamp()
                       - CASE operation WHEN 'transfer' THEN interval '7 days' ELSE interval '1 hour' END
               )), 0)::float AS oldest
        FROM bank_calls
    """
    REVIEWS: LiteralString = """
        SELECT review->>'reason' AS reason, count(*) AS payments
        FROM receipts, jsonb_array_elements(document->'reviews') AS review
        WHERE needs_review GROUP BY reason
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Nothing, while the database is out of reach."""
        try:
            with self._pool.connection() as connection:
                calls = connection.execute(self.CALLS).fetchone()
                reviews = connection.execute(self.REVIEWS).fetchall()
        except (psycopg.Error, PoolTimeout):
            return
        assert calls is not None
        yield GaugeMetricFamily(
            "counterfoil_operations_outstanding",
            "Operations that the bank has not answered.",
            value=calls["calls"],
        )
        yield GaugeMetricFamily(
            "counterfoil_oldest_outstanding_seconds",
            "Age of the oldest of them.",
            value=calls["oldest"],
        )
        needing = GaugeMetricFamily(
            "counterfoil_payments_needing_review",
            "Payments that need a person, by why; one may for several reasons.",
            labels=["reason"],
        )
        by_reason = {row["reason"]: row["payments"] for row in reviews}
        for reason in sorted({*by_reason, *(each.value for each in ReviewReason)}):
            needing.add_metric([reason], by_reason.get(reason, 0))
        yield needing


class Webhooks(Collector):
    """What is still to be delivered, and the endpoints that do not answer."""

    PENDING: LiteralString = """
        SELECT count(*) AS pending FROM (
            SELECT FROM webhook_deliveries WHERE status = 'pending' LIMIT 100000
        ) AS deliveries
    """
    ENDPOINTS: LiteralString = """
        SELECT count(*) FILTER (WHERE is_enabled AND failing_since IS NOT NULL) AS failing,
               count(*) FILTER (WHERE disabled_reason = 'unreachable') AS disabled
        FROM webhook_endpoints
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Nothing, while the database is out of reach."""
        try:
            with self._pool.connection() as connection:
                deliveries = connection.execute(self.PENDING).fetchone()
                endpoints = connection.execute(self.ENDPOINTS).fetchone()
        except (psycopg.Error, PoolTimeout):
            return
        assert deliveries is not None
        assert endpoints is not None
        for name, meaning, value in (
            (
                "deliveries_pending",
                "Deliveries to be made; 100000: or more.",
                deliveries["pending"],
            ),
            (
                "endpoints_failing",
                "Endpoints whose last answer was not good.",
                endpoints["failing"],
            ),
            ("endpoints_unreachable", "Endpoints disabled for that.", endpoints["disabled"]),
        ):
            yield GaugeMetricFamily(f"counterfoil_webhook_{name}", meaning, value=value)


class ReadModels(Collector):
    """How far behind the log each read model is, and what it could not take in."""

    GAUGES: Final = {
        "lag_events": "Events that the read model has not taken in.",
        "lag_seconds": "Age of the oldest of them.",
        "quarantined": "Payments that it could not take in.",
        "paused": "Whether it is to stay as it is.",
    }

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[Metric]:
        """Nothing, while the database is out of reach."""
        try:
            with self._pool.connection() as connection:
                rows = lags(connection)
        except (psycopg.Error, PoolTimeout):
            return
        for field, meaning in self.GAUGES.items():
            gauge = GaugeMetricFamily(
                f"counterfoil_projection_{field}", meaning, labels=["name", "slot"]
            )
            for row in rows:
                # Clocks of two hosts may disagree, but nothing is ahead of the log.
                gauge.add_metric([row["name"], row["slot"]], max(float(row[field]), 0.0))
            yield gauge


def metrics(pool: Pool) -> Answer:
    """All of it, in Prometheus' text format."""
    registry = CollectorRegistry()
    if FOLDER in os.environ:
        _forget_the_dead(Path(os.environ[FOLDER]))
        registry.register(Counts(Path(os.environ[FOLDER])))
    else:
        registry.register(REGISTRY)
    registry.register(Unresolved(pool))
    registry.register(ReadModels(pool))
    registry.register(Webhooks(pool))
    return Answer(status=200, body=generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _forget_the_dead(folder: Path) -> None:
    """What a process is, it is no more once it has ended, however it ended. What it counted stays."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not _is_alive(pid):
            with suppress(FileNotFoundError):  # another scrape was first
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _has_been_written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # another scrape has forgotten it
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""How long after its commit an event shows in a read model that follows the log:
`python -m scripts.bench.lag`.

The engine runs in a process of its own, as a worker runs it, with all read models; writers authorize
as fast as they are let; and a few probes authorize as well, each for a customer of its own, and look
every five milliseconds for the row. The lag is from when the second transaction was acknowledged to
when the row was seen, so the probe's own look is part of it. The same at rest, to compare with.
"""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, LiteralString
from uuid import uuid4

import click

from infrastructure.clock import RandomIds
from infrastructure.database import OF_COMMANDS, Pool, open_pool
from infrastructure.event_store import ShardedRecorder
from infrastructure.processes import look_for_garbage_seldom
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.shards import shard_of
from projections.registry import FOLLOWED
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import a_cluster
from scripts.bench.writers import READY_SECONDS, TENANT, Background, append_authorization

LONGEST_P99_MS: Final = 250.0
LOOK_SECONDS: Final = 0.005
PROBE_PAUSE_SECONDS: Final = 0.01
SEEN_SECONDS: Final = 30.0
WARM_UP_SECONDS: Final = 2.0
CONNECTIONS: Final = 16

MODELS: Final = ("balances", "customers")
# Both in one question, since each is a wait for a turn of the processor.
SEEN: Final[LiteralString] = """
    SELECT EXISTS (
        SELECT FROM entries WHERE shard = %(shard)s AND payment_id = %(payment_id)s
    ) AS balances, EXISTS (
        SELECT FROM customer_totals
        WHERE shard = %(shard)s AND merchant_id = %(merchant_id)s AND mode = %(mode)s
          AND customer_id = %(customer_id)s AND authorized = 1
    ) AS customers
"""


@click.command()
@click.option("--seconds", type=float, default=20.0, show_default=True, help="At rest, and loaded.")
@click.option("--writers", type=click.IntRange(1), default=16, show_default=True)
@click.option("--probes", type=click.IntRange(1), default=2, show_default=True)
@as_json_option
def main(*, seconds: float, writers: int, probes: int, as_json: bool) -> None:
    """Measure the lag of read models that follow the log."""
    with a_cluster() as cluster:
        options = {"seconds": seconds, "writers": writers, "probes": probes}
        result: dict[str, Any] = {"machine": cluster.facts(), "options": options}
        url = cluster.store("followed")
        with engine_running(url):
            result["at_rest"] = {"lag_ms": shown(probed(url, probes, seconds))}
            with Background(url, writers).writing() as writing:
                time.sleep(WARM_UP_SECONDS)
                lags = probed(url, probes, seconds)
            written = round(writing.per_second)
            result["loaded"] = {"lag_ms": shown(lags), "events_per_second": written}
    show(result, table(result), as_json=as_json)


@contextmanager
def engine_running(url: str) -> Iterator[None]:
    """Followers of all read models, in a process of their own."""
    context = multiprocessing.get_context("spawn")
    stopping, ready = context.Event(), context.Event()
    process = context.Process(target=follow, args=(url, ready, stopping), daemon=True)
    process.start()
    ready.wait(READY_SECONDS)
    try:
        yield
    finally:
        stopping.set()
        process.join()


def follow(url: str, ready: Any, stopping: Any) -> None:
    """What a worker does with read models."""
    ended = threading.Event()
    with open_pool(url, size=CONNECTIONS) as pool:
        engine = ProjectionEngine(pool, time.monotonic)
        thread = threading.Thread(target=engine.run, args=(ended,))
        thread.start()
        look_for_garbage_seldom()  # as a worker does
        ready.set()
        stopping.wait()
        ended.set()
        thread.join()


def probed(url: str, probes: int, seconds: float) -> dict[str, list[float]]:
    """The lags that so many probes saw, by read model, in milliseconds."""
    lags: dict[str, list[float]] = {name: [] for name in MODELS}
    with open_pool(url, size=probes, waits=OF_COMMANDS) as pool:
        threads = [
            threading.Thread(target=probe, args=(pool, lags, seconds)) for _ in range(probes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return lags


def probe(pool: Pool, lags: dict[str, list[float]], seconds: float) -> None:
    """One authorization after the other, each watched until all models have it."""
    recorder, ids = ShardedRecorder(pool), RandomIds()
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        customer_id = f"cus_{uuid4().hex}"
        payment_id = append_authorization(recorder, ids, customer_id)
        committed = time.monotonic()
        row = {
            "shard": shard_of(payment_id),
            "payment_id": payment_id,
            "merchant_id": TENANT.merchant_id,
            "mode": TENANT.mode.value,
            "customer_id": customer_id,
        }
        unseen = set(MODELS)
        while unseen:
            with pool.connection() as connection:
                seen = connection.execute(SEEN, row).fetchone()
            assert seen is not None
            since = time.monotonic() - committed
            for name in tuple(unseen):
                if seen[name] or since > SEEN_SECONDS:
                    lags[name].append(since * 1000)
                    unseen.remove(name)
            time.sleep(LOOK_SECONDS)
        time.sleep(PROBE_PAUSE_SECONDS)


def shown(lags: dict[str, list[float]]) -> dict[str, Any]:
    """Percentiles, by read model."""
    return {name: percentiles(values, 50, 99) for name, values in lags.items()}


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    loaded = result["loaded"]
    writers = f"{result['options']['writers']} writers made"
    lines = [
        f"Lag in ms; {writers} {loaded['events_per_second']:,} events a second; {len(FOLLOWED)} follow",
        f"  {'':<22}{'seen':>8}{'p50':>9}{'p99':>9}{'max':>9}",
    ]
    for when in ("at_rest", "loaded"):
        lines += [
            f"  {name + ', ' + when.replace('_', ' '):<22}{it['count']:>8}{it['p50']:>9.1f}"
            f"{it['p99']:>9.1f}{it['max']:>9.1f}"
            for name, it in result[when]["lag_ms"].items()
        ]
    worst = max(it["p99"] for it in loaded["lag_ms"].values())
    lines.append(f"  p99 {against_target(worst, LONGEST_P99_MS, at_least=False)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Read models made again: `python -m scripts.bench.rebuild`.

How many events a second a rebuild takes in, from the first process started to the last row indexed,
beside what the library's projection runner takes in, with a view of one upsert an event. The runner is
measured over fewer events, since its rate is the same for any number of them, and the ratio is of
rates. Memory is the largest process's, at a tenth of the events and at all of them.

With `--under-load`: one rebuild of receipts while writers write and a reader reads, killed as often as
`--kill` says and taken up again, then compared with a replay, row by row, and promoted.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import click
import psycopg
from eventsourcing.persistence import StoredEvent
from psycopg.rows import dict_row

from domain.commands import Mode, Tenant
from infrastructure.database import OF_COMMANDS, open_pool
from infrastructure.projections.differences import differences
from infrastructure.projections.rebuild import promote
from infrastructure.shards import shard_of
from projections.receipts import Receipts
from scripts.bench import stock
from scripts.bench.fill import PROCESSES, build_read_models, fill, midnight, stored_event
from scripts.bench.lives import Past, events_of_shard
from scripts.bench.memory import Peak
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import Cluster, a_cluster
from scripts.bench.system import COUNTERFOIL, BenchFailed, python_path
from scripts.bench.writers import Background

LEAST_TIMES_STOCK: Final = 20.0
AIM_PER_SECOND: Final = 50_000
SLOWEST_PROMOTE_SECONDS: Final = 1.0
REBUILD_SECONDS: Final = 1800.0
SHOWN_DIFFERENCES: Final = 5
LOOK_SECONDS: Final = 0.05
READ_PAUSE_SECONDS: Final = 0.002
RESTART_PAUSE_SECONDS: Final = 0.5
WRITERS: Final = 4

SOME_PAYMENTS: Final[LiteralString] = """
    SELECT payment_id, merchant_id, mode FROM receipts TABLESAMPLE BERNOULLI (1) LIMIT 2000
"""
BUILT_SHARDS: Final[LiteralString] = """
    SELECT count(*) AS shards FROM projection_positions p
    JOIN projection_generations g ON g.name = p.name AND g.generation = p.generation
    WHERE p.name = %(name)s AND g.slot = 'beside' AND g.status = 'building'
"""


@click.command()
@click.option("--events", type=click.IntRange(640), default=1_000_000, show_default=True)
@click.option("--stock-events", type=click.IntRange(1), default=5_000, show_default=True)
@click.option("--models", default="receipts,balances", show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=PROCESSES, show_default=True)
@click.option("--under-load", is_flag=True, help="While writers write and a reader reads.")
@click.option("--kill", type=click.IntRange(0), default=0, help="How often, with --under-load.")
@as_json_option
def main(*, under_load: bool, as_json: bool, **options: Any) -> None:
    """Measure rebuilds, beside the library's runner."""
    with a_cluster() as cluster:
        result: dict[str, Any] = {"machine": cluster.facts(), "options": options}
        try:
            if under_load:
                result["under_load"] = rebuilt_under_load(cluster, options)
            else:
                result |= rebuilt(cluster, options)
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
    show(result, table(result), as_json=as_json)
    if under_load and not is_right(result["under_load"]):
        sys.exit(1)


# --- at rest --------------------------------------------------------------------------------------


def rebuilt(cluster: Cluster, options: dict[str, Any]) -> dict[str, Any]:
    """The library's runner first, then each model at two sizes."""
    per_second = stock.events_per_second(
        cluster.database("stock"), made_up_events(options["stock_events"])
    )
    result: dict[str, Any] = {
        "stock": {"events": options["stock_events"], "events_per_second": round(per_second)},
        "models": {},
    }
    for events in (max(options["events"] // 10, 640), options["events"]):
        url = cluster.store(f"log_{events}")
        there_are = fill(url, Past(events=events, seed=1, until=midnight()))
        for name in options["models"].split(","):
            it = rebuild_in_processes(url, name, options["workers"])
            it["events"] = there_are
            it["events_per_second"] = round(there_are / it["seconds"])
            it["times_stock"] = round(it["events_per_second"] / per_second, 1)
            result["models"].setdefault(name, []).append(it)
    return result


def made_up_events(number: int) -> Iterator[StoredEvent]:
    """Some of one shard's, for the library."""
    past = Past(events=number * 64, seed=1, until=midnight())
    steps = itertools.islice(events_of_shard(past, 0), number)
    return (stored_event(life, place) for life, place in steps)


def rebuild_in_processes(url: str, name: str, workers: int) -> dict[str, Any]:
    """By the command that an operator would use; what it took. Raises BenchFailed."""
    began = time.perf_counter()
    with started_rebuild(url, name, workers) as process, Peak(process.pid).watching() as peak:
        _, said = process.communicate(timeout=REBUILD_SECONDS)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise BenchFailed(f"the rebuild failed: {said.strip()[-300:]}")
    return {"seconds": round(seconds, 2), "peak_megabytes": peak.megabytes}


@contextmanager
def started_rebuild(
    url: str, name: str, workers: int, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """The command, under way in a process group of its own, all of which is gone at the end."""
    command = (*COUNTERFOIL, "projections", "rebuild", name, "--workers", str(workers), *more)
    environment = {**os.environ, "PYTHONPATH": python_path(), "DATABASE_URL": url}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


# --- under load -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Reader:
    """Reads receipts, one after the other, for as long as it is let."""

    url: str
    about: LiteralString
    reads: int = 0
    failures: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """While the block lasts."""
        thread = threading.Thread(target=self._read_on)
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            thread.join()

    def _read_on(self) -> None:
        receipts = Receipts()
        with open_pool(self.url, size=1, waits=OF_COMMANDS) as pool:
            with pool.connection() as connection:
                payments = connection.execute(self.about).fetchall()
            for row in itertools.cycle(payments):
                if self.stopping.is_set():
                    return
                tenant = Tenant(row["merchant_id"], Mode(row["mode"]))
                began = time.perf_counter()
                try:
                    with pool.connection() as connection:
                        payment_id = row["payment_id"]
                        shard = shard_of(payment_id)
                        found = receipts.by_id(connection, shard, payment_id, tenant)
                except psycopg.Error as error:
                    self.failures.append(type(error).__name__)
                else:
                    if found is None:
                        self.failures.append("no receipt")
                self.reads += 1
                self.milliseconds.append((time.perf_counter() - began) * 1000)
                self.stopping.wait(READ_PAUSE_SECONDS)


def rebuilt_under_load(cluster: Cluster, options: dict[str, Any]) -> dict[str, Any]:
    """Receipts rebuilt while they are written and read; killed, taken up, compared and promoted."""
    url = cluster.store("loaded")
    events = fill(url, Past(events=options["events"], seed=1, until=midnight()))
    build_read_models(url, ["receipts", "refunds"])
    writing = Background(url, WRITERS)
    with Reader(url, SOME_PAYMENTS).reading() as reader, writing.writing():
        began = time.perf_counter()
        killed_at = [killed_rebuild(url, options, number) for number in range(options["kill"])]
        rebuild_in_processes(url, "receipts", options["workers"])
        seconds = time.perf_counter() - began
        differ = how_many_differ(url)
        promoted_in = promoted(url)
        # And again from nothing, undisturbed: what was built in pieces is what the log says.
        fresh = rebuild_in_processes(url, "receipts", options["workers"])
        differ_from_fresh = how_many_differ(url)
    return {
        "events_before": events,
        "events_written_meanwhile": writing.events,
        "writers": WRITERS,
        "written_per_second": round(writing.per_second),
        "killed_with_shards_built": killed_at,
        "seconds": round(seconds, 2),
        "seconds_of_the_fresh_replay": fresh["seconds"],
        "rows_that_differ_from_live": differ,
        "rows_that_differ_from_a_fresh_replay": differ_from_fresh,
        "promote_seconds": round(promoted_in, 3),
        "reads": reader.reads,
        "failed_reads": len(reader.failures),
        "samples_of_failures": reader.failures[:5],
        "read_milliseconds": percentiles(reader.milliseconds, 50, 99),
    }


def killed_rebuild(url: str, options: dict[str, Any], number: int) -> int:
    """Begins, or goes on, and is killed when it has done its share; how many shards were done."""
    share = 64 * (number + 1) // (options["kill"] + 1)
    give_up_at = time.monotonic() + REBUILD_SECONDS
    with started_rebuild(url, "receipts", options["workers"]) as process:
        while built_shards(url) < share:
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise BenchFailed("the rebuild ended before it could be killed")
            time.sleep(LOOK_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    time.sleep(RESTART_PAUSE_SECONDS)
    return built_shards(url)


def built_shards(url: str) -> int:
    """How many shards the generation that is being built has."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        row = connection.execute(BUILT_SHARDS, {"name": "receipts"}).fetchone()
    return 0 if row is None else row["shards"]


def how_many_differ(url: str) -> int:
    """Rows of the live receipts that are not those beside."""
    return sum(1 for _ in differences(url, "receipts"))


def promoted(url: str) -> float:
    """What it took to put what is beside in the place of what is live."""
    began = time.perf_counter()
    promote(url, "receipts")
    return time.perf_counter() - began


def is_right(it: dict[str, Any]) -> bool:
    """Whether nothing was lost, for a reader or for good."""
    wrong = ("failed_reads", "rows_that_differ_from_live", "rows_that_differ_from_a_fresh_replay")
    return not any(it[name] for name in wrong)


# --- the table ------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    if "under_load" in result:
        it = result["under_load"]
        return "\n".join(f"  {name.replace('_', ' '):<40}{value}" for name, value in it.items())
    bare = result["stock"]
    names = ("events", "seconds", "a second", "times stock", "peak MB")
    lines = [
        f"The library's runner, over {bare['events']:,}: {bare['events_per_second']:,} events a second",
        f"  {'rebuild of':<12}" + "".join(f"{name:>12}" for name in names),
    ]
    for name, sizes in result["models"].items():
        lines += [
            f"  {name:<12}{it['events']:>12,}{it['seconds']:>12.1f}{it['events_per_second']:>12,}"
            f"{it['times_stock']:>12}{it['peak_megabytes']:>12}"
            for it in sizes
        ]
        last = sizes[-1]
        met = against_target(last["times_stock"], LEAST_TIMES_STOCK, at_least=True)
        aim = against_target(last["events_per_second"], AIM_PER_SECOND, at_least=True)
        lines.append(f"  {name}: times stock {met}; events a second {aim}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""The log as evidence: `python -m scripts.bench.audit`.

How many events a second are sealed under the tree when a worker finds them all waiting, with its memory
at a tenth of them and at all; how long an inclusion proof takes in a tree of so many leaves; and what
appends a second come to with a worker that seals and signs, beside none, in turn.

The tree that proofs are measured in has made-up leaves: a proof reads nodes, and no event.
"""

import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path
from typing import Any, Final, LiteralString

import click
import psycopg
from psycopg.rows import dict_row

from api.proofs import inclusion_of
from domain.evidence import verify_inclusion
from infrastructure.audit.checkpoints import Checkpoints
from infrastructure.audit.duties import SEALING_PAUSE_SECONDS, Sealing, keys_of
from infrastructure.audit.sealer import Sealer
from infrastructure.audit.tree import edge, grown, inclusion
from infrastructure.clock import SystemClock
from infrastructure.database import open_pool
from infrastructure.settings import Settings, read_settings
from scripts.bench.fill import fill, midnight
from scripts.bench.lives import Past
from scripts.bench.memory import Peak
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import Cluster, a_cluster
from scripts.bench.system import BenchFailed
from scripts.bench.writers import Background

LEAST_PER_SECOND: Final = 20_000
SLOWEST_PROOF_MS: Final = 10.0
LEAST_SHARE: Final = 0.97
LEAVES_AT_ONCE: Final = 1 << 16
HASH_BYTES: Final = 32
READY_SECONDS: Final = 60.0

COPY_TILES: Final[LiteralString] = (
    "COPY audit_tiles (level, tile, hashes) FROM STDIN (FORMAT BINARY)"
)
SET_SIZE: Final[LiteralString] = "UPDATE audit_tree SET size = %s"


@click.command()
@click.option("--events", type=click.IntRange(640), default=1_000_000, show_default=True)
@click.option("--leaves", type=click.IntRange(1), default=10_000_000, show_default=True)
@click.option("--proofs", type=click.IntRange(1), default=2_000, show_default=True)
@click.option("--writers", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--seconds", type=float, default=6.0, show_default=True, help="Of each turn.")
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True)
@as_json_option
def main(*, as_json: bool, **options: Any) -> None:
    """Measure sealing, proofs, and what writers notice of them."""
    with a_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"machine": cluster.facts(), "options": options}
        settings = settings_in(Path(folder))
        try:
            result["sealing"] = [
                sealed(cluster, settings, events)
                for events in (max(options["events"] // 10, 640), options["events"])
            ]
            result["proofs"] = proven(cluster, settings, options)
            result["writing"] = written(cluster, settings, options)
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
    show(result, table(result), as_json=as_json)


def settings_in(folder: Path) -> Settings:
    """Those of a worker, with a key of its own."""
    return read_settings({"DATA_DIR": str(folder), "CHECKPOINT_ORIGIN": "bench.example/log"})


# --- sealing --------------------------------------------------------------------------------------


def sealed(cluster: Cluster, settings: Settings, events: int) -> dict[str, Any]:
    """A whole log by one process that begins with nothing sealed. Raises BenchFailed."""
    url = cluster.store(f"sealed_{events}")
    there_are = fill(url, Past(events=events, seed=1, until=midnight()))
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=seal_all, args=(url, settings, sending), daemon=True)
    process.start()
    assert process.pid is not None
    with Peak(process.pid).watching() as peak:
        process.join()
    if process.exitcode != 0:
        raise BenchFailed("the sealer failed")
    seconds, own_cpu, size = receiving.recv()
    if size != there_are:
        raise BenchFailed(f"{size} of {there_are} events were sealed")
    return {
        "events": there_are,
        "seconds": round(seconds, 2),
        "events_per_second": round(there_are / seconds),
        "cpu_microseconds_per_event": round(own_cpu / there_are * 1e6, 1),
        "peak_megabytes": peak.megabytes,
    }


def seal_all(url: str, settings: Settings, told: Any) -> None:
    """Everything there is, and a checkpoint of it."""
    with open_pool(url, size=1) as pool:
        began, cpu = time.perf_counter(), time.process_time()
        signed = Sealing(pool, settings, SystemClock()).seal_and_sign()
        told.send((time.perf_counter() - began, time.process_time() - cpu, signed.size))


# --- proofs ---------------------------------------------------------------------------------------


def proven(cluster: Cluster, settings: Settings, options: dict[str, Any]) -> dict[str, Any]:
    """What proofs of leaves anywhere in the tree take; each is verified. Raises BenchFailed."""
    url, leaves = cluster.store("proofs"), options["leaves"]
    began = time.perf_counter()
    made = make_tree(url, leaves)
    seconds = time.perf_counter() - began
    chance = random.Random(1)  # noqa: S311 - which leaves, not secret
    milliseconds, own_cpu = [], []
    with open_pool(url, size=1) as pool, pool.connection() as connection:
        sealer = Sealer()
        sealer.lease(connection)
        signed = Checkpoints(settings.checkpoint_origin).sign(connection, sealer, keys_of(settings))
        for _ in range(options["proofs"]):
            position = chance.randrange(leaves)
            before, cpu = time.perf_counter(), time.process_time()
            told = inclusion_of(connection, position)
            milliseconds.append((time.perf_counter() - before) * 1000)
            own_cpu.append((time.process_time() - cpu) * 1000)
            if told is None:
                raise BenchFailed("the checkpoint does not cover its own tree")
            leaf, hashes = inclusion(connection, position, leaves)
            verify_inclusion(leaf, position, leaves, hashes, signed.root)
    return {
        "leaves": leaves,
        "tree_made_per_second": round(made / seconds),
        "milliseconds": percentiles(milliseconds, 50, 95, 99),
        "cpu_milliseconds": percentiles(own_cpu, 50, 95, 99),
    }


def make_tree(url: str, leaves: int) -> int:
    """A tree of leaves that are made up; how many."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        with connection.cursor() as cursor, cursor.copy(COPY_TILES) as copy:
            copy.set_types(("int2", "int8", "bytea"))
            for (level, tile), hashes in tiles_of(leaves):
                copy.write_row((level, tile, hashes))
        connection.execute(SET_SIZE, [leaves])
    return leaves


def tiles_of(leaves: int) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Each tile once, when it is what it will be."""
    size = 0
    last: dict[tuple[int, int], bytes] = {}
    while size < leaves:
        count = min(LEAVES_AT_ONCE, leaves - size)
        made_up = os.urandom(count * HASH_BYTES)
        new = [made_up[at : at + HASH_BYTES] for at in range(0, len(made_up), HASH_BYTES)]
        changed = {**last, **grown(size, last, new)}
        size += count
        last = {key: changed[key] for key in edge(size)}
        yield from ((key, hashes) for key, hashes in changed.items() if key not in last)
    yield from last.items()


# --- what writers notice --------------------------------------------------------------------------


def written(cluster: Cluster, settings: Settings, options: dict[str, Any]) -> dict[str, Any]:
    """Events a second of the same writers, with a sealing worker and without; who begins changes."""
    url = cluster.store("written")
    rates: dict[str, list[float]] = {"without": [], "with": []}
    for number in range(options["rounds"]):
        for which in ("with", "without") if number % 2 else ("without", "with"):
            if which == "with":
                with a_sealing_worker(url, settings):
                    rates[which].append(rate(url, options))
            else:
                rates[which].append(rate(url, options))
    if not all(rates["without"]):
        raise BenchFailed("the writers wrote nothing in their time; give them more --seconds")
    shares = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    return {
        "writers": options["writers"],
        "events_per_second": {name: round(statistics.median(it)) for name, it in rates.items()},
        "rounds": {name: [round(each) for each in it] for name, it in rates.items()},
        "share": round(statistics.median(shares), 3),
    }


def rate(url: str, options: dict[str, Any]) -> float:
    """Events a second of so many writers, from when all are at it."""
    background = Background(url, options["writers"])
    with background.writing():
        time.sleep(options["seconds"])
    return background.per_second


@contextmanager
def a_sealing_worker(url: str, settings: Settings) -> Iterator[None]:
    """A process that does what a worker's duty is, and has done what was waiting before."""
    context = multiprocessing.get_context("spawn")
    stopping, ready = context.Event(), context.Event()
    process = context.Process(target=seal_until, args=(url, settings, ready, stopping), daemon=True)
    process.start()
    try:
        if not ready.wait(READY_SECONDS):
            raise BenchFailed("the sealing worker never came up")
        yield
    finally:
        stopping.set()
        process.join()


def seal_until(url: str, settings: Settings, ready: StopEvent, stopping: StopEvent) -> None:
    """As a worker does."""
    with open_pool(url, size=1) as pool:
        sealing = Sealing(pool, settings, SystemClock())
        while not stopping.is_set():
            if not sealing.step():
                ready.set()
                stopping.wait(SEALING_PAUSE_SECONDS)
        sealing.end()


# --- the table ------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    names = ("events", "seconds", "a second", "peak MB", "CPU us")
    lines = ["Sealing" + "".join(f"{name:>12}" for name in names)]
    lines += [
        f"       {it['events']:>12,}{it['seconds']:>12}{it['events_per_second']:>12,}"
        f"{it['peak_megabytes']:>12}{it['cpu_microseconds_per_event']:>12}"
        for it in result["sealing"]
    ]
    rate = result["sealing"][-1]["events_per_second"]
    lines.append(f"  events a second {against_target(rate, LEAST_PER_SECOND, at_least=True)}")
    proofs, writing = result["proofs"], result["writing"]
    took = proofs["milliseconds"]
    lines.append(f"Proofs in a tree of {proofs['leaves']:,}: {took}")
    lines.append(f"  p95 {against_target(took['p95'], SLOWEST_PROOF_MS, at_least=False)}")
    rates = writing["events_per_second"]
    lines.append(
        f"{writing['writers']} writers: {rates['with']:,} events a second with a sealing worker, "
        f"{rates['without']:,} without"
    )
    lines.append(
        f"  share {writing['share']}, {against_target(writing['share'], LEAST_SHARE, at_least=True)}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

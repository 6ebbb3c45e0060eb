"""Durable appends a second: `python -m scripts.bench.appends`.

Our recorder, one event at a time: bare, and with all that the first transaction of an authorization
writes beside it (idempotency key, order slot, bank call, receipt). Beside it, in turn and in the same
run: the library's own recorder with its default settings, and pgbench with the very statements that
ours sends. Writers are threads, in as many processes as there are cores. fsync is on.
"""

import statistics
from typing import Any, Final

import click

from scripts.bench import pgbench, stock
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import Cluster, a_cluster
from scripts.bench.system import BenchFailed
from scripts.bench.writers import Load, write

LEAST_TIMES_STOCK: Final = 5.0
LEAST_SHARE_OF_PGBENCH: Final = 0.7
TARGET_WRITERS: Final = 16
OURS: Final = ("bare", "tx1")


@click.command()
@click.option("--writers", default="1,4,16,64", show_default=True, help="How many, by commas.")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Of each turn.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--flush-ms",
    type=click.IntRange(0, 100),
    default=0,
    help="Let each flush of the log take so much longer, for all: as on a disk over a network.",
)
@as_json_option
def main(*, writers: str, seconds: float, rounds: int, flush_ms: int, as_json: bool) -> None:
    """Measure appends beside the library's and pgbench's."""
    numbers = [int(word) for word in writers.split(",")]
    with a_cluster() as cluster:
        cluster.slow_flushes(flush_ms)
        result: dict[str, Any] = {"machine": cluster.facts(), "seconds": seconds, "rounds": rounds}
        try:
            result["writers"] = {
                str(number): measured(cluster, number, seconds, rounds) for number in numbers
            }
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
    show(result, table(result), as_json=as_json)


def measured(cluster: Cluster, writers: int, seconds: float, rounds: int) -> dict[str, Any]:
    """All of them with so many writers, in turn; who begins changes with each round."""
    url = cluster.store(f"writers_{writers}")
    stock.recorder(url, create_table=True).datastore.close()
    rates: dict[str, list[float]] = {}
    milliseconds: dict[str, list[float]] = {}

    def ours(kind: str) -> None:
        done = write(Load(kind=kind, url=url, writers=writers, seconds=seconds))
        rates.setdefault(kind, []).append(done.per_second)
        milliseconds.setdefault(kind, []).extend(done.milliseconds)

    def bare_sql(kind: str) -> None:
        rate = pgbench.run(url, cluster.folder, kind, clients=writers, seconds=seconds + 1)
        rates.setdefault(f"pgbench {kind}", []).append(rate)

    for number in range(rounds):
        turns = [
            *((ours, kind) for kind in (*OURS, "stock")),
            *((bare_sql, kind) for kind in OURS),
        ]
        for turn, kind in turns[number % len(turns) :] + turns[: number % len(turns)]:
            turn(kind)
    return {
        "events_per_second": {name: round(statistics.median(it)) for name, it in rates.items()},
        "milliseconds": {
            name: percentiles(it, 50, 95, 99) for name, it in sorted(milliseconds.items())
        },
        "times_stock": {kind: _ratio(rates, kind, "stock") for kind in OURS},
        "share_of_pgbench": {kind: _ratio(rates, kind, f"pgbench {kind}") for kind in OURS},
    }


def _ratio(rates: dict[str, list[float]], one: str, other: str) -> float | None:
    """The median of the rounds' own ratios, so that what else the machine did matters less."""
    ratios = [a / b for a, b in zip(rates[one], rates[other], strict=True) if b]
    return round(statistics.median(ratios), 2) if ratios else None


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    columns = ("bare", "tx1", "stock", "pgbench bare", "pgbench tx1")
    lines = [
        f"Events a second, median of {result['rounds']} rounds of {result['seconds']:g} s",
        f"  {'writers':<9}" + "".join(f"{name:>14}" for name in columns)
        + f"{'bare/stock':>12}{'tx1/stock':>11}{'bare/pgbench':>14}{'tx1/pgbench':>13}",
    ]  # fmt: skip
    for number, it in result["writers"].items():
        rates = it["events_per_second"]
        lines.append(
            f"  {number:<9}" + "".join(f"{rates[name]:>14,}" for name in columns)
            + f"{it['times_stock']['bare']:>12}{it['times_stock']['tx1']:>11}"
            + f"{it['share_of_pgbench']['bare']:>14}{it['share_of_pgbench']['tx1']:>13}"
        )  # fmt: skip
    at = result["writers"].get(str(TARGET_WRITERS))
    if at is not None:
        stock_says = against_target(at["times_stock"]["bare"], LEAST_TIMES_STOCK, at_least=True)
        share = at["share_of_pgbench"]["bare"]
        share_says = against_target(share, LEAST_SHARE_OF_PGBENCH, at_least=True)
        lines.append(f"At {TARGET_WRITERS} writers, times stock: {stock_says}")
        lines.append(f"At {TARGET_WRITERS} writers, share of pgbench: {share_says}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

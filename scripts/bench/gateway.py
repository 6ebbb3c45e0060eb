"""What an operation of the gateway costs: `python -m scripts.bench.gateway`.

An operation is one authorize or one capture request. Two measurements, against the bank simulator:

    without latency   a few clients, in rounds that alternate with the baseline's, so that whatever
                      else the machine does hits both. The ratio is how many of the baseline's
                      requests (scripts/bench/baseline.py) an operation costs. Beside them, in the same
                      rounds, payment intents: created and confirmed with a card on file, which asks the
                      bank as often. Their ratio is how many of them there are for one of the gateway's.
    with latency      many clients that wait for the bank, and a few that read receipts meanwhile.
                      The ideal is as many operations as the bank's own mean latency allows.

Everything runs here and now: Postgres (fsync on), bank, `serve`, `work`, baseline, load generator.
A table goes to standard error, JSON to standard output. Exit status 1: not every answer was right.
"""

import json
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from infrastructure import processes
from infrastructure.embedded_postgres import PostgresUnavailable
from scripts.bench import figures
from scripts.bench.figures import Figures
from scripts.bench.load import Measured, Plan
from scripts.bench.system import (
    API_KEY,
    BASELINE_THREADS,
    BenchFailed,
    Served,
    System,
    fsync_ms,
    measure,
    running,
)
from scripts.up import Stop, stopping_on_signals

MOST_BASELINE_REQUESTS = 4.0
LEAST_SHARE_OF_IDEAL = 0.95
LATENCY_MS = (100, 2000)
WARM_UP_SECONDS = 1.0
WAITING_WARM_UP_SECONDS = 4.0
READERS = 4
OPERATIONS = ("authorize", "capture")
OF_INTENTS = ("create", "confirm")
LEAST_SHARE_OF_GATEWAY = 0.8
WRONG_ANSWERS_STATUS = 1
FAILED_STATUS = 2


@click.command()
@click.option("--seconds", type=float, default=4, show_default=True, help="Of each round.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=8, show_default=True)
@click.option("--waiting-seconds", type=float, default=15, show_default=True)
@click.option(
    "--waiting-clients", type=click.IntRange(0), default=400, show_default=True, help="0: none."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(8), default=512, show_default=True)
@click.option("--log-level", default="INFO", show_default=True, help="The gateway's.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(file: Path | None, **options: Any) -> None:
    """Measure what an operation costs, beside a bare insert."""
    if not processes.HAS_PROC:
        raise click.ClickException("CPU time is read from Linux's /proc, which is not here")
    try:
        with stopping_on_signals():
            result = run(options)
    except (BenchFailed, PostgresUnavailable) as error:
        raise click.ClickException(str(error)) from error
    except Stop:
        sys.exit(FAILED_STATUS)
    text = json.dumps(result, indent=2)
    click.echo(text)
    if file is not None:
        file.write_text(text + "\n")
    click.echo(table(result), err=True)
    sys.exit(WRONG_ANSWERS_STATUS if result["unexpected"] else 0)


def run(options: dict[str, Any]) -> Figures:
    """Both measurements. Raises BenchFailed, PostgresUnavailable."""
    load_before = os.getloadavg()
    with running(
        workers=options["workers"], threads=options["threads"], log_level=options["log_level"]
    ) as system:
        result: Figures = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "load_average_before": [round(it, 2) for it in load_before],
                "fsync_ms": fsync_ms(system.folder),
            },
            "database": system.facts(),
            "options": {**options, "baseline_threads": BASELINE_THREADS},
            "without_latency": without_latency(system, options),
        }
        if options["waiting_clients"]:
            result["with_latency"] = with_latency(system, options)
    result["unexpected"] = {
        **result["without_latency"]["gateway"]["unexpected"],
        **result["without_latency"]["baseline"]["unexpected"],
        **result["without_latency"]["intents"]["unexpected"],
        **result.get("with_latency", {}).get("unexpected", {}),
    }
    return result


# --- without latency ---------------------------------------------------------------------------


def without_latency(system: System, options: dict[str, Any]) -> Figures:
    """Rounds of the gateway and of the baseline in turn; who begins changes with each."""
    system.set_latency(0, 0)
    gateway: list[Measured] = []
    baseline: list[Measured] = []
    intents: list[Measured] = []
    for number in range(options["rounds"]):
        turns = [
            lambda n=number: gateway.append(measure(_payments(system, options, n))),
            lambda n=number: intents.append(measure(_intents(system, options, n))),
            lambda n=number: baseline.append(measure(_inserts(system, options, n))),
        ]
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn()
    ours, bare = figures.figures(gateway, OPERATIONS), figures.figures(baseline, ("insert",))
    ratios = [
        round(_rate(one, ("insert",)) / max(_rate(other, OPERATIONS), 0.001), 3)
        for one, other in zip(baseline, gateway, strict=True)
    ]
    cpu = figures.cpu_of_server_and_database
    beside = figures.figures(intents, OF_INTENTS)
    shares = [
        round(_rate(one, OF_INTENTS) / max(_rate(other, OPERATIONS), 0.001), 3)
        for one, other in zip(intents, gateway, strict=True)
    ]
    return {
        "clients": options["clients"],
        "gateway": ours,
        "baseline": bare,
        "ratios": ratios,
        "ratio": round(statistics.median(ratios), 3),
        "cpu_ratio": round(cpu(ours) / cpu(bare), 3) if cpu(bare) else None,
        "target": MOST_BASELINE_REQUESTS,
        "intents": beside,
        "intents_shares": shares,
        "intents_share": round(statistics.median(shares), 3),
        "intents_cpu_ratio": round(cpu(beside) / cpu(ours), 3) if cpu(ours) else None,
        "intents_target": LEAST_SHARE_OF_GATEWAY,
    }


def _rate(measured: Measured, kinds: tuple[str, ...]) -> float:
    return sum(len(measured.milliseconds.get(kind, [])) for kind in kinds) / measured.seconds


def _payments(system: System, options: dict[str, Any], number: int) -> Plan:
    return _asked_of_gateway(system, options, number, "payments")


def _intents(system: System, options: dict[str, Any], number: int) -> Plan:
    return _asked_of_gateway(system, options, number, "intents")


def _asked_of_gateway(system: System, options: dict[str, Any], number: int, work: str) -> Plan:
    return Plan(
        work=work,
        port=system.gateway.port,
        workers=options["workers"],
        api_key=API_KEY,
        name=f"ORD-{number}",
        clients=options["clients"],
        readers=0,
        warm_up_seconds=WARM_UP_SECONDS,
        seconds=options["seconds"],
        trees=_trees(system, system.gateway),
    )


def _inserts(system: System, options: dict[str, Any], number: int) -> Plan:
    return Plan(
        work="inserts",
        port=system.baseline.port,
        workers=options["workers"],
        api_key=API_KEY,
        name=f"ORD-{number}",
        clients=options["clients"],
        readers=0,
        warm_up_seconds=WARM_UP_SECONDS,
        seconds=options["seconds"],
        trees=_trees(system, system.baseline),
    )


def _trees(system: System, server: Served) -> dict[str, int]:
    return {
        "server": server.pid,
        "database": system.database.pid,
        "bank": system.bank.pid,
        "worker": system.worker_pid,
    }


# --- with latency ------------------------------------------------------------------------------


def with_latency(system: System, options: dict[str, Any]) -> Figures:
    """Many clients that wait for the bank, and readers beside them."""
    system.set_latency(*LATENCY_MS)
    measured = measure(
        Plan(
            work="payments",
            port=system.gateway.port,
            workers=options["workers"],
            api_key=API_KEY,
            name="ORD-waiting",
            clients=options["waiting_clients"],
            readers=READERS,
            warm_up_seconds=WAITING_WARM_UP_SECONDS,
            seconds=options["waiting_seconds"],
            trees=_trees(system, system.gateway),
        )
    )
    ours = figures.figures([measured], OPERATIONS)
    ours["milliseconds"]["read"] = figures.shown(sorted(measured.milliseconds.get("read", [])))
    mean_ms = statistics.fmean(LATENCY_MS)
    ideal = options["waiting_clients"] / mean_ms * 1000
    return {
        "clients": options["waiting_clients"],
        "readers": READERS,
        "bank_latency_ms": LATENCY_MS,
        "ideal_per_second": round(ideal, 1),
        "share_of_ideal": round(ours["per_second"] / ideal, 3),
        "target": LEAST_SHARE_OF_IDEAL,
        **ours,
    }


# --- the table ---------------------------------------------------------------------------------


def table(result: Figures) -> str:
    """What a person wants to know."""
    machine, database, options = result["machine"], result["database"], result["options"]
    bare = result["without_latency"]
    names = "".join(f"{it:>9}" for it in ("a second", "mean", "p50", "p95", "p99"))
    lines = [
        f"{machine['cpus']} CPUs, load {machine['load_average_before'][0]} before",
        f"fsync takes {machine['fsync_ms']} ms; Postgres {database['server_version']}",
        f"fsync {database['fsync']}, synchronous_commit {database['synchronous_commit']}",
        f"{options['workers']} workers, log level {options['log_level']}",
    ]
    lines = [
        "; ".join(lines),
        f"  {'milliseconds':<26}{names}",
        f"No latency, {bare['clients']} clients",
        figures.row("operations", bare["gateway"], "all"),
        *(figures.row(f"  {kind}", bare["gateway"], kind) for kind in OPERATIONS),
        figures.row("baseline requests", bare["baseline"], "all"),
        figures.cpu_row("CPU ms an operation", bare["gateway"]),
        figures.cpu_row("CPU ms a baseline request", bare["baseline"]),
        f"  An operation costs {bare['ratio']} baseline requests; the rounds: {bare['ratios']}",
        f"  and in CPU time {bare['cpu_ratio']}. Target: at most {bare['target']:g}",
        figures.row("of intents", bare["intents"], "all"),
        *(figures.row(f"  {kind}", bare["intents"], kind) for kind in OF_INTENTS),
        figures.cpu_row("CPU ms one of intents", bare["intents"]),
        f"  For one operation {bare['intents_share']} of intents; the rounds: {bare['intents_shares']}",
        f"  at {bare['intents_cpu_ratio']} of its CPU time. Target: at least {bare['intents_target']:g}",
    ]
    if "with_latency" in result:
        lines += _waiting_lines(result["with_latency"])
    wrong = result["unexpected"]
    lines += ["", f"NOT AS EXPECTED: {wrong}" if wrong else "Every answer was as expected."]
    return "\n".join(lines)


def _waiting_lines(waiting: Figures) -> list[str]:
    low, high = waiting["bank_latency_ms"]
    return [
        f"Bank latency {low}-{high} ms, {waiting['clients']} clients, {waiting['readers']} readers",
        figures.row("operations", waiting, "all"),
        *(figures.row(f"  {kind}", waiting, kind) for kind in OPERATIONS),
        figures.row("reads of receipts", waiting, "read"),
        figures.cpu_row("CPU ms an operation", waiting),
        f"  {waiting['share_of_ideal']:.1%} of the ideal {waiting['ideal_per_second']:g} a second.",
        f"  Target: at least {waiting['target']:.0%}",
    ]


if __name__ == "__main__":
    main()

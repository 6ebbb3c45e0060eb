"""The whole store verified: `python -m scripts.bench.verify`.

How many events a second `counterfoil verify` looks at, from the process started to the last word: the log
with its digests, chain, tree and checkpoints, and receipts, refunds, postings and balances against a
replay; by the command that an operator would use. At a tenth of the events and at all of them, so that it
shows whether memory grows with the log; it is the largest process's.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click

from infrastructure.checkpoint_keys import new_signing_key
from projections.registry import READ_MODELS
from scripts.bench.fill import PROCESSES, build_read_models, fill, midnight
from scripts.bench.lives import Past
from scripts.bench.memory import Peak
from scripts.bench.report import against_target, as_json_option, show
from scripts.bench.store import MEMORY, Cluster, a_cluster
from scripts.bench.system import COUNTERFOIL, BenchFailed, python_path

AIM_PER_SECOND: Final = 50_000
MOST_GROWTH: Final = 1.25
VERIFY_SECONDS: Final = 3600.0


@click.command()
@click.option("--events", type=click.IntRange(640), default=1_000_000, show_default=True)
@click.option("--workers", type=click.IntRange(1, 64), default=PROCESSES, show_default=True)
@click.option("--thorough", is_flag=True, help="Every read model.")
@as_json_option
def main(*, as_json: bool, **options: Any) -> None:
    """Measure `counterfoil verify`."""
    with a_cluster(MEMORY) as cluster:
        result: dict[str, Any] = {"machine": cluster.facts(), "options": options}
        try:
            result["runs"] = [
                verified(cluster, max(options["events"] // 10, 640), options),
                verified(cluster, options["events"], options),
            ]
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
    show(result, table(result), as_json=as_json)


def verified(cluster: Cluster, events: int, options: dict[str, Any]) -> dict[str, Any]:
    """One log, filled, sealed, signed and verified. Raises BenchFailed."""
    url = cluster.store(f"log_{events}")
    there_are = fill(url, Past(events=events, seed=1, until=midnight()))
    build_read_models(url, [model.name for model in READ_MODELS])
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "DATABASE_URL": url,
            "DATA_DIR": str(Path(folder)),
            "CHECKPOINT_KEY": new_signing_key(),
        }
        sealed = run(environment, "checkpoint")
        workers = ("--workers", str(options["workers"]))
        more = ("--thorough",) if options["thorough"] else ()
        found = run(environment, "verify", "--json", *workers, *more)
    told = json.loads(found["said"])
    if not told["ok"] or (told["events"], told["sealed"]) != (there_are, there_are):
        raise BenchFailed(f"what was filled in does not verify: {told['findings'][:3]}")
    return {
        "events": there_are,
        "sealing_seconds": sealed["seconds"],
        "seconds": found["seconds"],
        "events_per_second": round(there_are / found["seconds"]),
        "peak_megabytes": found["peak_megabytes"],
    }


def run(environment: dict[str, str], *command: str) -> dict[str, Any]:
    """What a command said, took and needed. Raises BenchFailed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        (*COUNTERFOIL, *command),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process, Peak(process.pid).watching() as peak:
        said, error = process.communicate(timeout=VERIFY_SECONDS)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise BenchFailed(f"{command[0]} failed: {(error or said).strip()[-300:]}")
    return {"said": said, "seconds": round(seconds, 2), "peak_megabytes": peak.megabytes}


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    names = ("events", "seconds", "a second", "peak MB", "sealing s")
    lines = ["".join(f"{name:>12}" for name in names)]
    lines += [
        f"{it['events']:>12,}{it['seconds']:>12.1f}{it['events_per_second']:>12,}"
        f"{it['peak_megabytes']:>12}{it['sealing_seconds']:>12.1f}"
        for it in result["runs"]
    ]
    small, large = result["runs"]
    met = against_target(large["events_per_second"], AIM_PER_SECOND, at_least=True)
    growth = large["peak_megabytes"] / small["peak_megabytes"]
    flat = against_target(round(growth, 2), MOST_GROWTH, at_least=False)
    return "\n".join([*lines, f"  events a second {met}", f"  growth of memory {flat}"])


if __name__ == "__main__":
    main()

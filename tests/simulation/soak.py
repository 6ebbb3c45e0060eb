"""`scripts/soak`: as many simulated worlds as one likes.

A violation is told with the end of what happened and with the command that shows it again; the exit
status is then 1. A fault that never occurred in many worlds is a mistake of the simulation, and fails
as well.
"""

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import click

from tests.simulation.weather import FAULTS
from tests.simulation.world import Report, Size, World, WorldFailed

# By then each fault must have occurred, in worlds of the usual size.
ENOUGH_PAYMENTS: Final = 4000
FAILED_STATUS: Final = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--seeds", type=click.IntRange(1), help="How many worlds. Default: 25, or no end.")
@click.option("--from", "first", type=int, default=1, show_default=True, help="The first seed.")
@click.option(
    "--payments", type=click.IntRange(1), default=40, show_default=True, help="Orders in a world."
)
@click.option("--seconds", type=click.FloatRange(0), help="Begin no world after so long.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--keep-going", is_flag=True, help="Do not stop at the first violation.")
def main(
    seeds: int | None,
    first: int,
    payments: int,
    seconds: float | None,
    *,
    as_json: bool,
    keep_going: bool,
) -> None:
    """Run simulated worlds, with faults at every step, and check that nothing is ever wrong."""
    if seeds is None and seconds is None:
        seeds = 25
    total = Total(first, payments)
    for seed in planned(first, seeds, seconds):
        try:
            total.add(World(seed, size=Size(payments=payments)).run())
        except WorldFailed as failed:
            total.failed.append((seed, failed.violation))
            click.echo(str(failed), err=True)
            if not keep_going:
                break
        show_progress(total, seeds)
    click.echo(json.dumps(total.report(), indent=2) if as_json else total.text())
    sys.exit(FAILED_STATUS if total.failed or total.never_occurred() else 0)


def planned(first: int, seeds: int | None, seconds: float | None) -> Iterator[int]:
    """The seeds, for as long as there is time."""
    began = time.monotonic()
    for seed in count(first):
        if seeds is not None and seed >= first + seeds:
            return
        if seconds is not None and seed > first and time.monotonic() - began > seconds:
            return
        yield seed


def show_progress(total: "Total", seeds: int | None) -> None:
    """One line that is written over, for somebody who watches."""
    if sys.stderr.isatty():
        of = "" if seeds is None else f" of {seeds}"
        end = "\n" if total.worlds == seeds else "\r"
        click.echo(
            f"  {total.worlds}{of} worlds, {total.payments} payments{end}", nl=False, err=True
        )


class Total:
    """What came of all worlds."""

    def __init__(self, first: int, size: int) -> None:
        self.first = first
        self.size = size
        self.worlds = 0
        self.failed: list[tuple[int, str]] = []
        self.steps = 0
        self.simulated_seconds = 0.0
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self.happened = Counter[str]()
        self.counts = Counter[str]()
        self.resolved: list[float] = []
        self.recovered: list[float] = []
        self.trace_hashes: dict[int, str] = {}

    @property
    def payments(self) -> int:
        return self.counts["payments"]

    def add(self, report: Report) -> None:
        """One world more."""
        self.worlds += 1
        self.steps += report.steps
        self.simulated_seconds += report.busy_seconds
        self.wall_seconds += report.wall_seconds
        self.cpu_seconds += report.cpu_seconds
        self.happened += report.happened
        self.counts += Counter(report.counts)
        self.resolved += report.resolved
        self.recovered += report.recovered
        self.trace_hashes[report.seed] = report.trace_hash

    def never_occurred(self) -> list[str]:
        """Faults that there should have been."""
        if self.payments < ENOUGH_PAYMENTS:
            return []
        return [fault for fault in FAULTS if not self.happened[fault]]

    def report(self) -> dict[str, Any]:
        """All of it."""
        cpu = max(self.cpu_seconds, 1e-9)
        return {
            "seeds": [self.first, self.first + self.worlds + len(self.failed) - 1],  # both included
            "payments_each": self.size,
            "worlds": self.worlds,
            "violations": [{"seed": seed, "what": what} for seed, what in self.failed],
            "payments": self.payments,
            "steps": self.steps,
            "wall_seconds": round(self.wall_seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "simulated_seconds": round(self.simulated_seconds),
            "simulated_seconds_per_cpu_second": round(self.simulated_seconds / cpu),
            "payments_per_cpu_second": round(self.payments / cpu),
            "seconds_to_an_outcome": percentiles(self.resolved),
            "seconds_to_an_outcome_after_healing": percentiles(self.recovered),
            "counts": dict(sorted(self.counts.items())),
            "faults": dict(sorted(self.happened.items())),
            "never_occurred": self.never_occurred(),
            "trace_hashes": self.trace_hashes,
            "python": platform.python_version(),
        }

    def text(self) -> str:
        """The same for people, but for the hashes."""
        report = self.report()
        del report["trace_hashes"]
        lines = []
        for name, value in report.items():
            if isinstance(value, dict):
                lines.append(f"{name}:")
                lines += [f"    {each:<36} {figure}" for each, figure in value.items()]
            else:
                lines.append(f"{name}: {value}")
        return "\n".join(lines)


def percentiles(values: list[float]) -> dict[str, float]:
    """How long it took, in simulated seconds."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    places = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    last = len(ordered) - 1
    return {"count": len(ordered)} | {
        name: round(ordered[int(place * last)], 1) for name, place in places.items()
    }


if __name__ == "__main__":
    main(prog_name="./scripts/soak")

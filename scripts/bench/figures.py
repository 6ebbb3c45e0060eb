"""From what was measured to figures, and from figures to a table."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from scripts.bench.load import Measured

Figures = dict[str, Any]
SHOWN_PERCENTILES = (50, 95, 99)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest of the sorted values that so many percent of them do not exceed."""
    if not values:
        return None
    place = math.ceil(len(values) * percent / 100) - 1
    return round(values[max(0, place)], 2)


def figures(runs: Sequence[Measured], kinds: Iterable[str]) -> Figures:
    """Operations are the answers of `kinds` that were as expected; rates are over all runs."""
    seconds = sum(run.seconds for run in runs)
    times = {kind: _times(runs, kind) for kind in kinds}
    every = sorted(value for values in times.values() for value in values)
    operations = len(every)
    cpu: Counter[str] = Counter()
    for run in runs:
        cpu.update(run.cpu_seconds)
    return {
        "operations": operations,
        "seconds": round(seconds, 2),
        "per_second": round(operations / seconds, 1) if seconds else 0.0,
        "milliseconds": {"all": shown(every), **{k: shown(v) for k, v in times.items()}},
        "cpu_seconds_per_operation": {
            name: round(spent / operations, 6) if operations else None
            for name, spent in sorted(cpu.items())
        },
        "cpus_busy": {name: round(spent / seconds, 2) for name, spent in sorted(cpu.items())},
        "connections_per_worker": [run.connections for run in runs],
        "unexpected": dict(unexpected(runs)),
        "samples_of_unexpected": [text for run in runs for text in run.samples][:5],
    }


def _times(runs: Sequence[Measured], kind: str) -> list[float]:
    return sorted(value for run in runs for value in run.milliseconds.get(kind, []))


def shown(milliseconds: Sequence[float]) -> Figures:
    """Percentiles and mean of sorted times."""
    at = {f"p{percent}": percentile(milliseconds, percent) for percent in SHOWN_PERCENTILES}
    mean = round(statistics.fmean(milliseconds), 2) if milliseconds else None
    return {"count": len(milliseconds), "mean": mean, **at}


def unexpected(runs: Iterable[Measured]) -> Counter[str]:
    """What was not answered as it should have been, and how often."""
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run.unexpected)
    return total


def cpu_of_server_and_database(of: Figures) -> float:
    """CPU seconds an operation."""
    cpu = of["cpu_seconds_per_operation"]
    return (cpu["server"] or 0.0) + (cpu["database"] or 0.0)


def row(name: str, of: Figures, kind: str) -> str:
    """One line of the table."""
    times = of["milliseconds"][kind]
    cells = [f"{value:.1f}" if value is not None else "-" for value in list(times.values())[1:]]
    rate = times["count"] / of["seconds"]
    return f"  {name:<26}{rate:>9.1f}" + "".join(f"{cell:>9}" for cell in cells)


def cpu_row(name: str, of: Figures) -> str:
    """CPU milliseconds an operation, by whom."""
    cpu = of["cpu_seconds_per_operation"].items()
    cells = [f"{who} {seconds * 1000:.2f}" for who, seconds in cpu if seconds is not None]
    return f"  {name:<26}{'  '.join(cells)}"

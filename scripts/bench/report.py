"""What a measurement ends with: a table for people, or JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any

import click

from scripts.bench.figures import percentile

as_json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")


def show(result: dict[str, Any], table: str, *, as_json: bool) -> None:
    """Prints one or the other, after what it was measured on."""
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    machine = result.get("machine")
    if machine:
        click.echo(
            f"{machine['cpus']} CPUs, load {machine['load_average']} before; "
            f"fsync takes {machine['fsync_ms']} ms; Python {machine['python']}, "
            f"Postgres {machine['server_version']}, "
            f"fsync {machine['fsync']}, synchronous_commit {machine['synchronous_commit']}"
        )
    click.echo(table)


def percentiles(milliseconds: Sequence[float], *wanted: int) -> dict[str, Any]:
    """`count`, `max` and those percentiles; None where there is nothing."""
    ordered = sorted(milliseconds)
    found: dict[str, Any] = {f"p{each}": percentile(ordered, each) for each in wanted}
    return {"count": len(ordered), **found, "max": round(ordered[-1], 2) if ordered else None}


def against_target(value: float | None, target: float, *, at_least: bool) -> str:
    """In words: met or not."""
    if value is None:
        return "not measured"
    is_met = value >= target if at_least else value <= target
    asked = "at least" if at_least else "at most"
    return f"{asked} {target:g}: {'met' if is_met else 'NOT met'}"

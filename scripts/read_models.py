"""`counterfoil projections`: what an operator does with read models."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from tqdm import tqdm

from domain.ids import MalformedId, Prefix, decode, encode
from infrastructure.projections import lab
from infrastructure.projections import rebuild as rebuilding
from infrastructure.projections.differences import NeverAtOnePoint, differences
from infrastructure.projections.follower import Follower, Overtaken
from infrastructure.projections.generations import (
    Generation,
    NoSuchGeneration,
    Slot,
    in_slot,
    lags,
    set_paused,
)
from infrastructure.projections.lab import Compared, OtherCodeUnusable
from infrastructure.projections.rebuild import BuilderAtWork, Built, NotSwapped
from projections.operations import Operations
from projections.registry import ALL, FOLLOWED, READ_MODELS, is_inline
from scripts.console import (
    NOT_DONE,
    connected,
    database,
    log_to_stderr,
    print_rows,
    refuse,
    settings_or_exit,
    shown_time,
)

SHOWN_DIFFERENCES = 20

one_of_them = click.argument(
    "name", metavar="NAME", type=click.Choice([model.name for model in READ_MODELS])
)
one_that_follows = click.argument(
    "name", metavar="NAME", type=click.Choice([model.name for model in FOLLOWED])
)
any_of_them = click.argument(
    "name", metavar="NAME", type=click.Choice([model.name for model in ALL])
)
as_json_option = click.option("--json", "as_json", is_flag=True)


@click.group()
def projections() -> None:
    """Read models: list, rebuild, diff, promote, roll back, retire, pause, retry what failed.

    NAME is one of those that `list` names. What webhook_deliveries holds is done once, and not made again.
    """
    log_to_stderr()


@projections.command("list")
@as_json_option
def list_command(*, as_json: bool) -> None:
    """Every read model, and how far behind the log it is."""
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        rows = [shown_generation(row) for row in lags(connection)]
    print_rows(rows, as_json=as_json)


def shown_generation(row: dict[str, Any]) -> dict[str, Any]:
    """One generation. An inline one is written with the events, and never behind them."""
    return {
        "name": row["name"],
        "version": row["generation"],
        "status": "paused" if row["paused"] else row["status"],
        "inline": is_inline(row["name"]) and row["slot"] == Slot.LIVE,
        "lag_events": row["lag_events"],
        "lag_seconds": round(max(row["lag_seconds"], 0.0), 3),
        "quarantined": row["quarantined"],
        "promoted": shown_time(row["promoted_at"]),
    }


@projections.command("rebuild")
@one_of_them
@click.option(
    "--promote",
    is_flag=True,
    help="Put it in the live one's place when it is done, without a look at `diff`.",
)
@click.option("--restart", is_flag=True, help="Begin anew, whatever was built before.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=os.cpu_count() or 1,
    show_default="as many as cores",
    help="Processes that build.",
)
def rebuild_command(name: str, *, promote: bool, restart: bool, workers: int) -> None:
    """Make a read model again from the log, beside the one that is read and written meanwhile.

    A rebuild that was killed goes on where it was. Nothing reads the new version until `promote`,
    and `diff` says what that would change.
    """
    with database(settings_or_exit()) as url, told_in_one_line():
        with tqdm(desc=name, unit=" events", unit_scale=True, file=sys.stderr, disable=None) as bar:

            def show(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            built = rebuilding.rebuild(url, name, show, workers=workers, restart=restart)
        click.echo(built_in_words(built))
        if promote:
            click.echo(live_in_words(rebuilding.promote(url, name)))


def built_in_words(built: Built) -> str:
    """What there is now."""
    made = built.generation
    aside = f"; {built.quarantined} payments set aside" if built.quarantined else ""
    return f"{made.name}: version {made.generation} is built from {built.events} events{aside}"


@projections.command("diff")
@one_of_them
@click.option(
    "--code",
    metavar="PATH",
    help="Another version of the read model's code, a file or a module: both are run over the whole log, "
    "and compared field by field.",
)
@click.option("--revision", help="The same, with the code as git has it at that revision.")
@click.option(
    "--limit",
    type=click.IntRange(0, 10_000),
    default=5,
    show_default=True,
    help="Examples of each field, with --code or --revision.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=os.cpu_count() or 1,
    show_default="as many as cores",
    help="Processes that run the code.",
)
@as_json_option
def diff_command(
    name: str, *, code: str | None, revision: str | None, limit: int, workers: int, as_json: bool
) -> None:
    """Compare the live version with the one beside it, row by row. Exit 1 if they differ.

    With --code or --revision: what this code makes of the whole log, and what another does. Neither is
    kept, and nothing is promoted.
    """
    if code is not None and revision is not None:
        refuse("--code and --revision cannot both be given")
    if code is not None or revision is not None:
        with told_in_one_line(), code_to_compare(name, code, revision) as path:
            compare_code(name, path, limit=limit, workers=workers, as_json=as_json)
        return
    with database(settings_or_exit()) as url, told_in_one_line():
        found = differences(url, name)
        rows: list[dict[str, Any]] = [
            {
                "table": each.table,
                "key": each.key,
                "fields": changed_fields(each.live, each.beside),
            }
            for each in (found if as_json else islice(found, SHOWN_DIFFERENCES))
        ]
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        for row in rows:
            click.echo(f"{row['table']} {json.dumps(row['key'])}")
            for field, (live, beside) in row["fields"].items():
                click.echo(f"  {field}: {json.dumps(live)} -> {json.dumps(beside)}")
    else:
        click.echo(f"{name}: no row differs")
    sys.exit(NOT_DONE if rows else 0)


@contextmanager
def code_to_compare(name: str, code: str | None, revision: str | None) -> Iterator[str]:
    """Where the other version is."""
    if revision is None:
        assert code is not None
        yield code
        return
    file = lab.file_of(name)
    shown = subprocess.run(
        ["git", "-C", str(file.parent), "show", f"{revision}:./{file.name}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode != 0:
        refuse(f"git has no {file.name} at {revision}: {shown.stderr.strip()}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file.name
        path.write_text(shown.stdout)
        yield str(path)


def compare_code(name: str, code: str, *, limit: int, workers: int, as_json: bool) -> None:
    """Both versions over the whole log; ends with the status that says whether they differ."""
    with (
        database(settings_or_exit()) as url,
        tqdm(desc=name, unit=" events", unit_scale=True, file=sys.stderr, disable=None) as bar,
    ):

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        found = lab.compare(url, name, code, show, workers=workers, limit=limit)
    click.echo(json.dumps(as_document(found)) if as_json else in_words(name, found))
    sys.exit(0 if found.is_same else NOT_DONE)


def as_document(found: Compared) -> dict[str, Any]:
    """For programs. `ours`: by the code that runs."""
    return {
        "ok": found.is_same,
        "tables": {
            table: {
                "ours": rows[lab.OURS],
                "other": rows[lab.OTHER],
                "differ": found.differ[table],
                "only_ours": found.only[table][lab.OURS],
                "only_other": found.only[table][lab.OTHER],
            }
            for table, rows in found.rows.items()
        },
        "fields": [
            {
                "table": table,
                "field": field,
                "count": count,
                "examples": [
                    {"key": each.key, "ours": each.ours, "other": each.other}
                    for each in found.examples[table, field]
                ],
            }
            for (table, field), count in sorted(found.fields.items())
        ],
        "failed": dict(found.failed),
    }


def in_words(name: str, found: Compared) -> str:
    """For people."""
    lines = []
    for each in as_document(found)["fields"]:
        lines.append(f"{each['table']}.{each['field']}: {each['count']} rows")
        lines += [
            f"  {json.dumps(it['key'])}: {json.dumps(it['ours'])} -> {json.dumps(it['other'])}"
            for it in each["examples"]
        ]
    lines += [
        f"{side}: {number} histories cannot be taken in" for side, number in found.failed.items()
    ]
    for table, rows in found.rows.items():
        lines.append(f"{table}: {rows[lab.OURS]} rows, {found.differ[table]} differ")
    return "\n".join(lines or [f"{name}: no row differs"])


def changed_fields(
    live: dict[str, Any] | None, beside: dict[str, Any] | None
) -> dict[str, tuple[Any, Any]]:
    """Field by field: what it is in the live version, and what in the other."""
    old, new = live or {}, beside or {}
    return {
        field: (old.get(field), new.get(field))
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    }


@projections.command("promote")
@one_of_them
def promote_command(name: str) -> None:
    """Put what was rebuilt in the live version's place. No read fails meanwhile."""
    with database(settings_or_exit()) as url, told_in_one_line():
        click.echo(live_in_words(rebuilding.promote(url, name)))


@projections.command("rollback")
@one_of_them
def rollback_command(name: str) -> None:
    """Put the version that was live before back in its place."""
    with database(settings_or_exit()) as url, told_in_one_line():
        click.echo(live_in_words(rebuilding.rollback(url, name)))


@projections.command("retire")
@one_of_them
def retire_command(name: str) -> None:
    """Do away with the version beside the live one."""
    with database(settings_or_exit()) as url, told_in_one_line():
        gone = rebuilding.retire(url, name)
    click.echo(f"{name}: version {gone.generation} is gone")


@projections.command("pause")
@one_that_follows
def pause_command(name: str) -> None:
    """Leave a read model as it is, within a second. What reads it is told 503 once it is behind.

    NAME: one that `list` says is not inline; those are written with the events.
    """
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        set_paused(connection, name, paused=True)
    click.echo(f"{name} is paused")


@projections.command("resume")
@one_that_follows
def resume_command(name: str) -> None:
    """Let a paused read model go on where it was. NAME: as for `pause`."""
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        set_paused(connection, name, paused=False)
    click.echo(f"{name} goes on")


@projections.command("quarantine")
@any_of_them
@as_json_option
def quarantine_command(name: str, *, as_json: bool) -> None:
    """The payments that a read model could not take in, and why."""
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        rows: list[dict[str, Any]] = [
            {
                "payment_id": encode(Prefix.PAYMENT, row["originator_id"]),
                "version": generation.generation,
                "applied_version": row["applied_version"],
                "error": row["error"],
                "attempts": row["attempts"],
                "since": shown_time(row["since"]),
            }
            for slot in Slot
            if (generation := in_slot(connection, name, slot)) is not None
            for row in Follower(generation).quarantine(connection)
        ]
    print_rows(rows, as_json=as_json)


@projections.command("retry")
@any_of_them
@click.argument("payment", required=False)
def retry_command(name: str, payment: str | None) -> None:
    """Take in what was set aside: all of it, or one PAYMENT. Exit 1 if some still cannot be."""
    payment_id = None if payment is None else payment_uuid(payment)
    still = 0
    with (
        told_in_one_line(),
        connected(settings_or_exit()) as pool,
        pool.connection() as connection,
    ):
        for slot in Slot:
            generation: Generation | None = in_slot(connection, name, slot)
            if generation is None:
                continue
            follower = Follower(generation)
            if generation.is_of_this_code:
                still += follower.retry(connection, payment_id)
            else:
                still += len(follower.quarantine(connection, payment_id))
    click.echo(f"{name}: {still} payments still cannot be taken in")
    sys.exit(NOT_DONE if still else 0)


@click.command("operations")
@click.option("--hours", type=click.IntRange(1, 24 * 366), default=24, show_default=True)
@as_json_option
def operations_command(hours: int, *, as_json: bool) -> None:
    """What was asked of the bank lately, what became of it, and how long that took."""
    since = datetime.now(UTC) - timedelta(hours=hours)
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        rows = Operations().since(connection, since)
    print_rows(rows, as_json=as_json)


def payment_uuid(text: str) -> UUID:
    """The UUID in a payment's id; one line for anything else."""
    try:
        return decode(Prefix.PAYMENT, text)
    except MalformedId:
        refuse(f"{text} is not a payment's id")


def live_in_words(live: Generation) -> str:
    """What is read from now on."""
    return f"{live.name}: version {live.generation} is live"


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What cannot be done is said in one line."""
    try:
        yield
    except BuilderAtWork:
        refuse("somebody is rebuilding this read model; wait for them", NOT_DONE)
    except OtherCodeUnusable as error:
        refuse(str(error))
    except (NoSuchGeneration, NotSwapped, NeverAtOnePoint) as error:
        refuse(str(error), NOT_DONE)
    except Overtaken as error:
        refuse(f"somebody else moved {error} meanwhile; nothing is lost, run it again", NOT_DONE)
    except BrokenProcessPool:
        refuse("a process of the rebuild was killed; run it again, it goes on there", NOT_DONE)

"""`counterfoil export`: the log for people who do not have the database, and the replay of its tables."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from domain.evidence import Checkpoint, CheckpointMalformed, read_checkpoint
from domain.ids import MalformedId, Prefix, decode
from infrastructure.audit.notes import NoteMalformed, read_note
from infrastructure.audit.tree import TreeBroken
from infrastructure.checkpoint_keys import key_kept_in, signing_keys
from infrastructure.export.bundle import CheckpointNotOurs, Order, OutNotEmpty, export
from infrastructure.export.journals import JOURNALS
from infrastructure.export.replay import NoTables, replay
from infrastructure.export.selection import NothingSelected, Selection
from infrastructure.export.tables import TablesUnavailable
from scripts.checkpoints import sealed_and_signed
from scripts.console import (
    NOT_DONE,
    command_pool,
    database,
    log_to_stderr,
    moment_or_exit,
    refuse,
    settings_or_exit,
)


@click.command("export")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="A folder; made if new."
)
@click.option("--from", "since", help="Recorded then or later: 2026-11-20, or RFC 3339.")
@click.option("--to", "until", help="Recorded before: a day or a time.")
@click.option("--payment", help="One payment, with its intent: pay_…")
@click.option("--customer", help="One customer, as payments name them.")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint that somebody kept, to prove that the log goes on from it. Repeatable.",
)
@click.option(
    "--journal",
    "journals",
    multiple=True,
    type=click.Choice(sorted(JOURNALS)),
    help="Also plain-text accounting. Repeatable.",
)
@click.option("--parquet", is_flag=True, help="Also tables for analysis at scale.")
@click.option(
    "--with-personal-data",
    is_flag=True,
    help="Also who people are, where that is kept. Without: only whether it is kept, or was erased.",
)
@click.option("--json", "as_json", is_flag=True, help="Prints the manifest.")
def export_command(
    *,
    out: Path,
    payment: str | None,
    customer: str | None,
    as_json: bool,
    journals: tuple[str, ...],
    parquet: bool,
    **options: Any,
) -> None:
    """Write a signed bundle: events, proofs, checkpoints, keys and a summary.

    `scripts/verify_bundle.py` verifies it on any machine. Everything that is in the log now is sealed and
    signed first. Payments go on meanwhile.
    """
    if payment is not None and customer is not None:
        refuse("--payment and --customer cannot both be given")
    order = Order(
        out=out,
        selection=Selection(
            since=moment_or_exit(options["since"], "--from"),
            until=moment_or_exit(options["until"], "--to"),
            payment=None if payment is None else _payment(payment),
            customer=customer,
        ),
        journals=list(dict.fromkeys(journals)),
        with_tables=parquet,
        with_personal_data=options["with_personal_data"],
        kept=[_kept(path) for path in options["checkpoints"]],
    )
    with told_in_one_line(), _bar("export") as show:
        manifest = _exported(order, show)
    told = f"{out}: {manifest['events']} events, signed as of {manifest['size']} of the whole log"
    click.echo(json.dumps(manifest) if as_json else told)


def _exported(order: Order, show: Any) -> dict[str, Any]:
    settings = settings_or_exit()
    log_to_stderr()
    with database(settings) as url:
        with command_pool(url) as pool:
            head = sealed_and_signed(pool, settings)
        keys = signing_keys(settings.checkpoint_key or key_kept_in(settings.data_dir))
        return export(url, order, head, keys, show)


@click.command("replay")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=os.cpu_count() or 1,
    show_default="as many as cores",
    help="Processes that replay.",
)
@click.option("--json", "as_json", is_flag=True)
def replay_command(folder: Path, *, workers: int, as_json: bool) -> None:
    """Replay the Parquet tables of a bundle, partition by partition, and compare the balances.

    FOLDER: a bundle that was made with --parquet. Exit status: 1 if the balances are not those of the
    bundle.
    """
    with told_in_one_line(), _bar("replay") as show:
        found = replay(folder, show, workers=workers)
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        for currency, sums in found.replayed.items():
            click.echo(f"{currency}: " + ", ".join(f"{name} {n}" for name, n in sums.items()))
        same = "the same balances as" if found.is_same else "NOT the balances of"
        click.echo(f"{found.events} events in {found.partitions} partitions: {same} the bundle")
    sys.exit(0 if found.is_same else NOT_DONE)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What cannot be done is said in one line."""
    try:
        yield
    except (NothingSelected, CheckpointNotOurs, TreeBroken) as error:
        refuse(str(error), NOT_DONE)
    except (OutNotEmpty, TablesUnavailable, NoTables) as error:
        refuse(str(error))


@contextmanager
def _bar(label: str) -> Iterator[Any]:
    with tqdm(desc=label, unit=" events", unit_scale=True, file=sys.stderr, disable=None) as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        yield show


def _payment(text: str) -> Any:
    try:
        return decode(Prefix.PAYMENT, text)
    except MalformedId:
        refuse(f"{text} is not the id of a payment: pay_…")


def _kept(path: Path) -> Checkpoint:
    try:
        return read_checkpoint(read_note(path.read_text(encoding="utf-8")).text)
    except (OSError, UnicodeDecodeError, NoteMalformed, CheckpointMalformed) as error:
        refuse(f"{path} is no checkpoint: {error}")

"""`counterfoil checkpoint`: what an operator does with signed heads of the log."""

import json
from typing import Any, Final

import click

from infrastructure.audit import checkpoints
from infrastructure.audit.checkpoints import CosignatureRefused, Signed, SigningRefused, cosign
from infrastructure.audit.notes import read_note
from infrastructure.audit.pushes import Pushes
from infrastructure.audit.sealer import LogBroken, NotOurs
from infrastructure.audit.tree import TreeBroken
from infrastructure.checkpoint_keys import drop_old_keys, put_new_key_first, witness_keys
from infrastructure.clock import SystemClock
from infrastructure.database import Pool
from infrastructure.settings import Settings
from scripts.console import (
    NOT_DONE,
    connected,
    log_to_stderr,
    print_rows,
    refuse,
    settings_or_exit,
    shown_time,
)

SHOWN_CHECKPOINTS: Final = 20
MOST_SHOWN: Final = 100_000
NOT_IN_TABLES: Final = frozenset({"note", "keys"})


@click.group("checkpoint", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def checkpoint(context: click.Context, *, as_json: bool) -> None:
    """Seal what is in the log, and sign its head. Without a command: now, and print it.

    Workers do so by themselves every CHECKPOINT_EVERY_SECONDS. A checkpoint that would contradict an
    earlier one is never signed: exit status 1.
    """
    if context.invoked_subcommand is not None:
        return
    settings = settings_or_exit()
    log_to_stderr()
    with connected(settings) as pool:
        signed = sealed_and_signed(pool, settings)
        Pushes(pool, settings.checkpoint_push).step()
    click.echo(json.dumps(shown(signed)) if as_json else signed.whole, nl=as_json)


def sealed_and_signed(pool: Pool, settings: Settings) -> Signed:
    """Of all that is in the log now."""
    from infrastructure.audit.duties import Sealing  # it counts, and so wants the metrics' folder

    try:
        return Sealing(pool, settings, SystemClock()).seal_and_sign()
    except (LogBroken, TreeBroken, SigningRefused) as error:
        refuse(f"nothing was signed: {error}", NOT_DONE)
    except NotOurs:
        refuse("a worker was quicker; ask again", NOT_DONE)


def shown(signed: Signed) -> dict[str, Any]:
    """A checkpoint, for programs."""
    return {
        "number": signed.number,
        "size": signed.size,
        "root": signed.root.hex(),
        "created": shown_time(signed.created_at),
        "keys": list(signed.keys),
        "signatures": [each.name for each in read_note(signed.whole).signatures],
        "note": signed.whole,
    }


@checkpoint.command("list")
@click.option(
    "--limit", type=click.IntRange(1, MOST_SHOWN), default=SHOWN_CHECKPOINTS, show_default=True
)
@click.option("--json", "as_json", is_flag=True)
def checkpoint_list(*, limit: int, as_json: bool) -> None:
    """The last checkpoints, newest first. With --json, the notes themselves too."""
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        rows = [shown(each) for each in checkpoints.newest(connection, limit)]
    if not as_json:
        rows = [{k: v for k, v in row.items() if k not in NOT_IN_TABLES} for row in rows]
    print_rows(rows, as_json=as_json)


@checkpoint.command("keys")
@click.option("--plain", is_flag=True, help="The keys alone, one a line, as --key reads them.")
@click.option("--json", "as_json", is_flag=True)
def checkpoint_keys(*, plain: bool, as_json: bool) -> None:
    """Every public key that checkpoints were signed with, as tools for signed notes take it."""
    with connected(settings_or_exit()) as pool, pool.connection() as connection:
        known, last = checkpoints.known_keys(connection), checkpoints.last(connection)
    rows = [
        {
            "vkey": key.text,
            "first_used": shown_time(first),
            "last_used": shown_time(used),
            "signs_now": last is not None and key.text in last.keys,
        }
        for key, first, used in known
    ]
    if plain:
        click.echo("\n".join(key.text for key, _, _ in known))
    else:
        print_rows(rows, as_json=as_json)


@checkpoint.command("rotate")
def checkpoint_rotate() -> None:
    """Make a new key, where it is kept in the data folder, and let the old one vouch for it.

    One checkpoint is signed with both, so that whoever trusts the old key sees the new one; from then on
    the new one signs alone. Where CHECKPOINT_KEY is set, set it to NEW,OLD for a while, and then to NEW.
    """
    settings = settings_or_exit()
    if settings.checkpoint_key is not None:
        refuse("CHECKPOINT_KEY is set: set it to NEW,OLD for a while, and then to NEW")
    log_to_stderr()
    with connected(settings) as pool:
        put_new_key_first(settings.data_dir)
        signed = sealed_and_signed(pool, settings)
        drop_old_keys(settings.data_dir)
    click.echo(signed.keys[0])


@checkpoint.command("cosign")
@click.argument("file", type=click.File("r", encoding="utf-8"))
def checkpoint_cosign(file: Any) -> None:
    """Keep what witnesses signed. FILE: a checkpoint with their lines, `-` for standard input.

    The witnesses are those of CHECKPOINT_WITNESSES: their public keys, by commas.
    """
    settings = settings_or_exit()
    witnesses = witness_keys(settings.checkpoint_witnesses)
    try:
        whole = file.read()
    except UnicodeDecodeError:
        refuse("refused: it is not in UTF-8", NOT_DONE)
    with connected(settings) as pool, pool.connection() as connection:
        try:
            names = cosign(connection, whole, witnesses, SystemClock().now())
        except CosignatureRefused as error:
            refuse(f"refused: {error}", NOT_DONE)
    click.echo(f"cosigned by {' '.join(names)}")

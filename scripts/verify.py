"""`counterfoil verify`: is all that there is what was recorded?"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import click
from tqdm import tqdm

from infrastructure.checkpoint_keys import (
    KEY_FILE,
    VerifierKey,
    VerifierKeyUnusable,
    key_kept_in,
    signing_keys,
    verifier_key,
)
from infrastructure.settings import Settings
from infrastructure.verification.run import Verified, Wanted, verify
from infrastructure.verification.sealed import Outside
from scripts.console import NOT_DONE, database, refuse, settings_or_exit

SHOWN_FINDINGS: Final = 100


@click.command("verify")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint that you kept outside. Repeatable.",
)
@click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Public keys that you trust, name+id+key on a line. Default: CHECKPOINT_KEY's. With them, those "
    "that one of their checkpoints names.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Also balance transactions, published events, customers' totals and operations.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=os.cpu_count() or 1,
    show_default="as many as cores",
    help="Processes that verify.",
)
@click.option("--json", "as_json", is_flag=True)
def verify_command(
    checkpoints: tuple[Path, ...],
    key_files: tuple[Path, ...],
    *,
    thorough: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Verify the whole log, and everything that is kept beside it, against a replay.

    Versions and positions without gaps, digests and chains, the tree and the signed checkpoints,
    receipts, refunds, balances, postings that sum to zero, and nothing that belongs to nothing. It can
    run while payments are made. Exit status: 1 if anything is wrong, with the places.
    """
    settings = settings_or_exit()
    outside = [Outside(name=str(path), note=_text(path)) for path in checkpoints]
    keys = [key for path in key_files for key in keys_in_file(path)] or own_keys(settings)
    with database(settings) as url:
        wanted = Wanted(database_url=url, keys=keys, outside=outside, is_thorough=thorough)
        with tqdm(desc="verify", unit_scale=True, file=sys.stderr, disable=None) as bar:

            def show(done: int, of: int) -> None:
                bar.total = of
                bar.update(done - bar.n)

            found = verify(wanted, show, workers=workers)
    click.echo(json.dumps(as_document(found)) if as_json else in_words(found, bool(keys)))
    sys.exit(NOT_DONE if found.count else 0)


def own_keys(settings: Settings) -> list[VerifierKey]:
    """Those that this installation signs with. None where it has not got any: none is made here."""
    if settings.checkpoint_key is None and not (settings.data_dir / KEY_FILE).exists():
        return []
    text = settings.checkpoint_key or key_kept_in(settings.data_dir)
    return [key.verifier for key in signing_keys(text)]


def keys_in_file(path: Path) -> list[VerifierKey]:
    """One on each line; one line for what is none."""
    try:
        keys = [verifier_key(line.strip()) for line in _text(path).splitlines() if line.strip()]
    except VerifierKeyUnusable as error:
        refuse(f"{path}: {error}")
    return keys or refuse(f"{path} has no key in it")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        refuse(f"{path} cannot be read as text")


def as_document(found: Verified) -> dict[str, Any]:
    """For programs."""
    return {
        "ok": found.count == 0,
        "events": found.events,
        "aggregates": found.aggregates,
        "sealed": found.sealed,
        "checkpoints": found.checkpoints,
        "keys": list(found.keys),
        "postings": found.postings,
        "left_out": list(found.left_out),
        "seconds": round(found.seconds, 2),
        "findings_count": found.count,
        "findings": [finding.as_json() for finding in found.findings],
    }


def in_words(found: Verified, has_own_keys: bool) -> str:
    """For people."""
    lines = [finding.line for finding in found.findings[:SHOWN_FINDINGS]]
    if found.count > len(lines):
        lines.append(f"and {found.count - len(lines)} more")
    lines.append(
        f"{found.events} events of {found.aggregates} aggregates, {found.sealed} of them sealed, "
        f"{found.checkpoints} checkpoints, in {found.seconds:.1f} s"
    )
    lines += [f"postings in {currency}: {_sums(sums)}" for currency, sums in found.postings.items()]
    if found.left_out:
        lines.append(f"left out: {', '.join(found.left_out)}; give --thorough")
    if not has_own_keys:
        lines.append(
            "no key was given: checkpoints were held against the keys that the database has, which "
            "whoever can write to it can change; give --key"
        )
    lines.append(f"{found.count} things are wrong" if found.count else "nothing is wrong")
    return "\n".join(lines)


def _sums(sums: dict[str, int]) -> str:
    told = ", ".join(f"{account} {amount}" for account, amount in sums.items())
    return f"{told}, together {sum(sums.values())}"

"""The vault's keys: to change them while everything runs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click
from tqdm import tqdm

from infrastructure.vault import keys_kept_in
from infrastructure.vault_rotation import BATCH, Counted, Requests, Rotation
from scripts.console import NOT_DONE, connected, print_rows, settings_or_exit, shown_time


@click.group()
def vault() -> None:
    """What is kept encrypted, and under which key."""


@vault.command()
@click.option("--check", is_flag=True, help="Change nothing: exit 1 if an old key is needed yet.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=BATCH, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def rotate(*, check: bool, batch: int, as_json: bool) -> None:
    """Seal everything under the first of VAULT_KEYS, while the system runs.

    Put the new key first, restart all processes, run this, and drop the old key when this says so. A
    run that was stopped can be begun again.
    """
    settings = settings_or_exit()
    with connected(settings) as pool:
        keys = settings.vault_keys or keys_kept_in(settings.data_dir)
        rotation = Rotation(pool, keys, batch)
        bar = tqdm(total=rotation.total(), unit=" sealed", file=sys.stderr, disable=None)
        with bar:
            walk = rotation.check if check else rotation.rotate
            found, requests = walk(bar.update), rotation.requests()
    if as_json:
        click.echo(json.dumps(_report(found, requests)))
    else:
        print_rows([_row(each) for each in found], as_json=False)
        click.echo(_in_words(found, requests))
    needed = any(each.unreadable or each.left for each in found)
    sys.exit(NOT_DONE if needed else 0)


def _row(counted: Counted) -> dict[str, object]:
    return asdict(counted) | {"left": counted.left}


def _report(found: Sequence[Counted], requests: Requests) -> dict[str, object]:
    is_done = not any(each.unreadable or each.left for each in found)
    return {
        "columns": [_row(each) for each in found],
        "requests": requests.count,
        "requests_until": shown_time(requests.until),
        "old_keys_may_be_dropped": is_done and requests.count == 0,
    }


def _in_words(found: Sequence[Counted], requests: Requests) -> str:
    unreadable = sum(each.unreadable for each in found)
    if unreadable:
        return (
            f"{unreadable} can be opened with none of VAULT_KEYS: put the key that they need back"
        )
    left = sum(each.left for each in found)
    if left:
        return f"{left} need an old key yet: run `counterfoil vault rotate`"
    if requests.count:
        until = shown_time(requests.until)
        return (
            "everything is sealed under the first key; keep the old ones until "
            f"{until}, or {requests.count} requests cannot be asked again"
        )
    return "everything is sealed under the first key: the old ones may be dropped"

"""API keys and merchants, and the secrets that settings take."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from domain.commands import Mode
from infrastructure.api_keys import (
    DEFAULT_SCOPES,
    EVERY_MERCHANT,
    ApiKey,
    ApiKeys,
    KeyType,
    KeyUnknown,
    MerchantUnknown,
    Scope,
)
from infrastructure.checkpoint_keys import NAME, NAME_PATTERN, new_signing_key
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.database import Pool
from infrastructure.vault import new_key
from scripts.console import (
    NOT_DONE,
    connected,
    print_rows,
    refuse,
    settings_or_exit,
    shown_time,
)

# How long a key is good for beside the one in its place.
OVERLAP_SECONDS = 24 * 3600
MOST_OVERLAP_SECONDS = 365 * 24 * 3600


def keys_in(pool: Pool) -> ApiKeys:
    """The keys' table."""
    return ApiKeys(pool, SystemClock(), RandomIds())


@click.group()
def keys() -> None:
    """API keys: create, list, rotate, revoke."""


@keys.command("create")
@click.option("--merchant", required=True, help="A name; made if new. '*': the whole log.")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.TEST.value,
    show_default=True,
)
@click.option(
    "--type",
    "kind",
    type=click.Choice([kind.value for kind in KeyType]),
    default=KeyType.SECRET.value,
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help="Repeatable. Default: all but audit:read.",
)
@click.option("--expires", type=click.IntRange(1, 36500), help="Days.")
@click.option("--json", "as_json", is_flag=True)
def keys_create(
    merchant: str,
    mode: str,
    kind: str,
    scopes: tuple[str, ...],
    *,
    expires: int | None,
    as_json: bool,
) -> None:
    """Make a key. It is shown once, now."""
    if not merchant.strip() or not merchant.isprintable():
        refuse("--merchant must be a name")
    if merchant == EVERY_MERCHANT and set(scopes) != {Scope.AUDIT_READ}:
        refuse("--merchant '*' takes --scope audit:read, and no other")
    expires_at = None if expires is None else datetime.now(UTC) + timedelta(days=expires)
    with connected(settings_or_exit()) as pool:
        record, key = keys_in(pool).create(
            merchant,
            mode=Mode(mode),
            type=KeyType(kind),
            scopes=scopes or DEFAULT_SCOPES,
            expires_at=expires_at,
        )
    shown = {**shown_key(record), "key": key}
    click.echo(json.dumps(shown) if as_json else key)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
def keys_list(*, as_json: bool) -> None:
    """Every key; not the keys themselves, which are stored hashed."""
    with connected(settings_or_exit()) as pool:
        rows = [shown_key(record) for record in keys_in(pool).all()]
    print_rows(rows, as_json=as_json)


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--expires-in",
    type=click.IntRange(0, MOST_OVERLAP_SECONDS),
    default=OVERLAP_SECONDS,
    show_default=True,
    help="Seconds for which the old key is good yet.",
)
@click.option("--json", "as_json", is_flag=True)
def keys_rotate(key_id: str, *, expires_in: int, as_json: bool) -> None:
    """Make a key that takes another's place, shown once, now. KEY_ID: as `keys list` shows it."""
    with connected(settings_or_exit()) as pool:
        try:
            record, key = keys_in(pool).rotate(key_id, overlap=timedelta(seconds=expires_in))
        except KeyUnknown:
            refuse(f"there is no key {key_id} that is good", NOT_DONE)
    shown = {**shown_key(record), "key": key}
    click.echo(json.dumps(shown) if as_json else key)


@keys.command("revoke")
@click.argument("key_id")
def keys_revoke(key_id: str) -> None:
    """Make a key good no more, within a second, everywhere. KEY_ID: as `keys list` shows it."""
    with connected(settings_or_exit()) as pool:
        try:
            keys_in(pool).revoke(key_id)
        except KeyUnknown:
            refuse(f"there is no key {key_id}", NOT_DONE)
    click.echo(f"{key_id} is revoked")


def shown_key(record: ApiKey) -> dict[str, Any]:
    """What may be shown of a key."""
    return {
        "id": record.key_id,
        "merchant": record.merchant,
        "mode": record.mode.value,
        "type": record.type.value,
        "prefix": record.prefix,
        "scopes": sorted(record.scopes),
        "created": shown_time(record.created_at),
        "expires": shown_time(record.expires_at),
        "revoked": shown_time(record.revoked_at),
        "last_used": shown_time(record.last_used_at),
    }


@click.group()
def merchants() -> None:
    """Merchants: list, suspend, resume."""


@merchants.command("list")
@click.option("--json", "as_json", is_flag=True)
def merchants_list(*, as_json: bool) -> None:
    """Every merchant."""
    with connected(settings_or_exit()) as pool:
        rows = [
            {
                "id": row["merchant_id"],
                "name": row["name"],
                "created": shown_time(row["created_at"]),
                "suspended": shown_time(row["suspended_at"]),
            }
            for row in keys_in(pool).merchants()
        ]
    print_rows(rows, as_json=as_json)


@merchants.command("suspend")
@click.argument("name")
def merchants_suspend(name: str) -> None:
    """The merchant's keys open nothing any more."""
    with connected(settings_or_exit()) as pool, known_merchant():
        keys_in(pool).suspend(name)
    click.echo(f"{name} is suspended")


@merchants.command("resume")
@click.argument("name")
def merchants_resume(name: str) -> None:
    """The merchant's keys are good again."""
    with connected(settings_or_exit()) as pool, known_merchant():
        keys_in(pool).resume(name)
    click.echo(f"{name} is active")


@contextmanager
def known_merchant() -> Iterator[None]:
    """One line for a name that nobody has."""
    try:
        yield
    except MerchantUnknown as error:
        refuse(f"there is no merchant {error}", NOT_DONE)


@click.group()
def keygen() -> None:
    """Make the secrets that settings take."""


@keygen.command("vault")
def keygen_vault() -> None:
    """A key for VAULT_KEYS, alone on one line."""
    click.echo(new_key())


@keygen.command("checkpoint")
@click.option("--name", default=NAME, show_default=True, help="Whose key it is; best, the origin.")
def keygen_checkpoint(name: str) -> None:
    """A key for CHECKPOINT_KEY, alone on one line."""
    if not NAME_PATTERN.fullmatch(name):
        refuse("--name must be a name such as ledger.example.com/log, without spaces or plus")
    click.echo(new_signing_key(name))

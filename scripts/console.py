"""What the commands share: settings, the database, refusals in one line, and tables."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn

import click
import psycopg
import structlog

from infrastructure.checkpoint_keys import (
    SigningKeyUnusable,
    VerifierKeyUnusable,
    check_signing_key,
    witness_keys,
)
from infrastructure.database import OF_COMMANDS, UNAVAILABLE, Pool, open_pool
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate, pending_migrations
from infrastructure.settings import DEFAULT_BANK_URL, Settings, SettingsError, read_settings
from infrastructure.vault import FernetVault, VaultKeyUnusable, new_key

WRONG_SETTING = 2
NOT_DONE = 1
COMMAND_CONNECTIONS = 4
BANK_CONNECTIONS = 64  # of a process that asks the bank and answers nobody
BANK_URL_FILE = "bank.url"


def log_to_stderr() -> None:
    """What a command prints is what it was asked for; what is logged on the way is not."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def refuse(sentence: str, status: int = WRONG_SETTING) -> NoReturn:
    """Ends the command with one line on standard error."""
    click.echo(f"counterfoil: {sentence}", err=True)
    sys.exit(status)


def settings_or_exit(**given: Any) -> Settings:
    """The settings, with the command's own options above the environment."""
    options = {name: str(value) for name, value in given.items() if value is not None}
    try:
        settings = with_bank_beside(read_settings(given=options))
        FernetVault(settings.vault_keys or (new_key(),))
        if settings.checkpoint_key is not None:
            check_signing_key(settings.checkpoint_key)
        witness_keys(settings.checkpoint_witnesses)
    except (SettingsError, VaultKeyUnusable, SigningKeyUnusable, VerifierKeyUnusable) as error:
        refuse(str(error))
    if settings.redis_url is not None and importlib.util.find_spec("redis") is None:
        refuse("REDIS_URL needs the redis package: pip --python .venv/bin/python install redis")
    return settings


def with_bank_beside(settings: Settings) -> Settings:
    """The private Postgres goes with the bank that `./scripts/up` runs beside it, unless one is set."""
    file = settings.data_dir / BANK_URL_FILE
    nothing_is_set = settings.database_url is None and settings.bank_url == DEFAULT_BANK_URL
    if nothing_is_set and file.exists():
        return replace(settings, bank_url=file.read_text().strip())
    return settings


@contextmanager
def database(settings: Settings, *, may_be_new: bool = False) -> Iterator[str]:
    """The database's URL: the one that is set, or the private one, running and with its schema.

    A private database that was not running is stopped again at the end; one that is not there is made
    where it `may_be_new`.
    """
    if settings.database_url is not None:
        with reported_out_of_reach():
            yield settings.database_url
        return
    private = EmbeddedPostgres(settings.data_dir / "postgres")
    if not may_be_new and not private.is_made():
        refuse(
            f"nothing is kept in {settings.data_dir}: DATA_DIR or DATABASE_URL must say where it is;"
            " `counterfoil migrate` begins there"
        )
    was_running = private.is_running()
    url = private.start()
    try:
        migrate(url)
        with reported_out_of_reach():
            yield url
    finally:
        if not was_running:
            private.stop()


@contextmanager
def reported_out_of_reach() -> Iterator[None]:
    """One line instead of a stack trace when there is no database."""
    try:
        yield
    except UNAVAILABLE:
        refuse("the database is out of reach; check DATABASE_URL", NOT_DONE)
    except psycopg.errors.UndefinedTable:
        refuse("the database has no schema yet; run `counterfoil migrate`", NOT_DONE)


@contextmanager
def connected(settings: Settings) -> Iterator[Pool]:
    """A few connections for a short command."""
    with database(settings) as url, command_pool(url) as pool:
        yield pool


@contextmanager
def command_pool(url: str) -> Iterator[Pool]:
    """A few connections to a database that was there a moment ago: a pool would go on trying, and a
    mistyped address is better told at once."""
    psycopg.connect(url, connect_timeout=int(OF_COMMANDS.connection)).close()
    with open_pool(url, size=COMMAND_CONNECTIONS, waits=OF_COMMANDS) as pool:
        yield pool


def moment_or_exit(text: str | None, option: str) -> datetime | None:
    """A day or a time, in UTC where it does not say otherwise."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day there are have no UTC
        refuse(f"{option} must be a day or a time, not {text!r}")


def shown_time(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the second."""
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """A JSON array for programs, a table for people."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("none")
        return
    texts = [[shown_cell(value) for value in row.values()] for row in rows]
    names = list(rows[0])
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    for line in (names, *texts):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def shown_cell(value: Any) -> str:
    """One cell of a table."""
    if isinstance(value, list):
        return " ".join(value)
    return "-" if value is None else str(value)


def refuse_old_schema(url: str) -> None:
    """Serving on an old schema would fail later, and worse."""
    names = pending_migrations(url)
    if names:
        refuse(f"the database lacks {names[-1]}; run `counterfoil migrate`")

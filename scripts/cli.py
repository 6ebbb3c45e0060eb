"""The command line, `counterfoil`: what operators run.

Exit status: 0 done, 1 not done or something found, 2 a wrong setting or argument, with one line.
"""

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from infrastructure.api_keys import DEMO_MERCHANT
from infrastructure.logs import configure_logs
from infrastructure.migrations import MigrationChanged, migrate
from infrastructure.processes import allow_many_files, look_for_garbage_seldom
from infrastructure.projections.generations import to_rebuild
from scripts.checkpoints import checkpoint
from scripts.console import (
    BANK_CONNECTIONS,
    NOT_DONE,
    command_pool,
    database,
    refuse,
    refuse_old_schema,
    settings_or_exit,
)
from scripts.export import export_command, replay_command
from scripts.history import history_command
from scripts.in_doubt import reconcile_command, resolve_command, stuck_command
from scripts.keys import keygen, keys, keys_in, merchants
from scripts.listen import listen_command
from scripts.read_models import operations_command, projections
from scripts.vault import vault
from scripts.verify import verify_command

VERSION = "0.1.0"  # as in pyproject.toml
WORKER_CONNECTIONS = 20
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=VERSION, prog_name="counterfoil")
def main() -> None:
    """Counterfoil: an event-sourced payment ledger with a gateway in front."""


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default: PORT, or 8080.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(8, 4096),
    default=512,
    show_default=True,
    help="Requests that each worker can have waiting for the bank.",
)
def serve(port: int | None, workers: int, threads: int) -> None:
    """Serve the API, with a production server."""
    settings = settings_or_exit(PORT=port)
    refuse_used_port(settings.host, settings.port)
    with database(settings, may_be_new=True) as url:
        refuse_old_schema(url)
        os.environ["DATABASE_URL"] = url
        os.environ["PORT"] = str(settings.port)
        os.environ["BANK_URL"], os.environ["BANK_PROFILE"] = (
            settings.bank_url,
            settings.bank_profile,
        )
        if settings.api_key is not None:
            with command_pool(url) as pool:
                keys_in(pool).accept(settings.api_key, DEMO_MERCHANT)
        prepare_metrics(settings.data_dir)
        from api.server import serve as serve_http  # after the metrics' folder is known

        click.echo(f"counterfoil serves at http://{settings.host}:{settings.port}", err=True)
        serve_http(host=settings.host, port=settings.port, workers=workers, threads=threads)


def refuse_used_port(host: str, port: int) -> None:
    """One line now instead of a server that cannot listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            refuse(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port")


def prepare_metrics(data_dir: Path) -> None:
    """The folder in which this installation's processes share their counters."""
    if not os.environ.get(METRICS_VARIABLE):
        folder = data_dir / "metrics"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[METRICS_VARIABLE] = str(folder)


@main.command()
def work() -> None:
    """Run the worker: it finishes what requests did not, and sweeps. Run as many as you like."""
    settings = settings_or_exit()
    allow_many_files()
    prepare_metrics(settings.data_dir)
    from api.answers import FamilyAnswers  # after the metrics' folder is known
    from infrastructure.services import build_services
    from infrastructure.worker import Worker

    with database(settings, may_be_new=True) as url:
        refuse_old_schema(url)
        configure_logs(settings.log_level, settings.log_format)
        services = build_services(
            replace(settings, database_url=url),
            answers=FamilyAnswers(),
            connections=WORKER_CONNECTIONS,
            bank_connections=BANK_CONNECTIONS,
        )
        worker = Worker(services)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        click.echo("counterfoil works", err=True)
        look_for_garbage_seldom()
        worker.run()
        services.close()


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8787, show_default=True)
@click.option("--failure-rate", type=click.FloatRange(0, 1), default=0.05, show_default=True)
@click.option("--min-latency-ms", type=click.IntRange(0), default=100, show_default=True)
@click.option("--max-latency-ms", type=click.IntRange(0), default=2000, show_default=True)
@click.option("--auth-expiry-hours", type=click.FloatRange(0), default=168, show_default=True)
@click.option(
    "--profile", type=click.Choice(["ficmart", "extended"]), default="ficmart", show_default=True
)
@click.option("--balance", type=click.IntRange(0), help="Cents, for the happy-path card.")
@click.option(
    "--gives-up-seconds",
    type=click.FloatRange(0, min_open=True),
    default=15,
    show_default=True,
    help="How long it works on one call at most.",
)
@click.option(
    "--settle-seconds",
    type=click.FloatRange(0),
    default=2,
    show_default=True,
    help="Until a bank transfer is settled (extended).",
)
@click.option(
    "--public-url",
    help="Where browsers find the pages for 3-D Secure (extended). Default: where it listens.",
)
@click.option("--seed", type=int, help="The same chaos each time.")
@click.option("--database", "file", type=click.Path(path_type=Path), help="Its books, in SQLite.")
def bank(host: str, port: int, file: Path | None, balance: int | None, **options: Any) -> None:
    """Run the bank simulator: a partner that fails, stalls and forgets.

    The profile `ficmart` is the partner's service to the letter. `extended` also takes parts of
    amounts, every currency, well-known test cards with any CVC, 3-D Secure (4000 0025 0000 3155 and
    others have to be approved at a page of the bank's) and bank transfers (all but those from the
    accounts 22222227 and 33333335 are settled by themselves).
    """
    from infrastructure.bank_simulator.server import BankOptions, WrongOptions, run

    file = file or settings_or_exit().data_dir / "bank" / "books.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        run(
            host=host,
            port=port,
            database=file,
            options=BankOptions(happy_balance=balance, **options),
        )
    except WrongOptions as error:
        refuse(str(error))


@main.command("migrate")
def migrate_command() -> None:
    """Create or upgrade the schema."""
    settings = settings_or_exit()
    with database(settings, may_be_new=True) as url:
        try:
            names = migrate(url)
        except MigrationChanged as error:
            refuse(str(error), NOT_DONE)
        with command_pool(url) as pool, pool.connection() as connection:
            for name in to_rebuild(connection):
                click.echo(f"to do: counterfoil projections rebuild {name} --promote", err=True)
    click.echo("\n".join(f"applied {name}" for name in names) or "the schema is up to date")


main.add_command(stuck_command)
main.add_command(resolve_command)
main.add_command(reconcile_command)
main.add_command(keys)
main.add_command(merchants)
main.add_command(keygen)
main.add_command(listen_command)
main.add_command(projections)
main.add_command(operations_command)
main.add_command(vault)
main.add_command(checkpoint)
main.add_command(verify_command)
main.add_command(export_command)
main.add_command(replay_command)
main.add_command(history_command)


if __name__ == "__main__":
    main()

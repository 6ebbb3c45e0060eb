"""The command line, `counterfoil`: what operators run.

Exit status: 0 done, 1 not done or something found, 2 a wrong setting or argument, with one line.
"""

import getpass
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from domain.commands import Cause, Mode
from domain.errors import (
    ConcurrentChange,
    DomainError,
    LeaseLost,
    PaymentNotFound,
    StoreUnavailable,
)
from domain.ids import MalformedId, Prefix, encode
from domain.payment import ReviewReason, Status
from domain.resolution import IDS_OF
from infrastructure.api_keys import (
    DEFAULT_SCOPES,
    DEMO_MERCHANT,
    EVERY_MERCHANT,
    ApiKey,
    ApiKeys,
    KeyType,
    KeyUnknown,
    MerchantUnknown,
    Scope,
)
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.checkpoint_keys import NAME, NAME_PATTERN, new_signing_key
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.database import Pool, open_pool
from infrastructure.logs import configure_logs
from infrastructure.migrations import MigrationChanged, migrate, pending_migrations
from infrastructure.projections.generations import to_rebuild
from infrastructure.vault import new_key
from projections.receipts import Receipts
from scripts.checkpoints import checkpoint
from scripts.console import (
    COMMAND_CONNECTIONS,
    NOT_DONE,
    WRONG_SETTING,
    connected,
    database,
    moment_or_exit,
    print_rows,
    refuse,
    settings_or_exit,
    shown_time,
)
from scripts.export import export_command, replay_command
from scripts.history import history_command
from scripts.listen import listen_command
from scripts.read_models import operations_command, projections
from scripts.vault import vault
from scripts.verify import verify_command

if TYPE_CHECKING:
    from infrastructure.reconciliation_runs import Report
    from infrastructure.services import Services

VERSION = "0.1.0"  # as in pyproject.toml
WORKER_CONNECTIONS = 20
WORKER_BANK_CONNECTIONS = 64
LONGEST_ACTOR = 100
# How long a key is good for beside the one in its place.
OVERLAP_SECONDS = 24 * 3600
MOST_OVERLAP_SECONDS = 365 * 24 * 3600
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=VERSION, prog_name="counterfoil")
def main() -> None:
    """Counterfoil: an event-sourced payment ledger with a gateway in front."""


def keys_in(pool: Pool) -> ApiKeys:
    """The keys' table."""
    return ApiKeys(pool, SystemClock(), RandomIds())


# --- running -----------------------------------------------------------------------------------


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
    with database(settings) as url:
        refuse_old_schema(url)
        os.environ["DATABASE_URL"] = url
        os.environ["PORT"] = str(settings.port)
        os.environ["BANK_URL"], os.environ["BANK_PROFILE"] = (
            settings.bank_url,
            settings.bank_profile,
        )
        if settings.api_key is not None:
            with open_pool(url, size=COMMAND_CONNECTIONS) as pool:
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


def refuse_old_schema(url: str) -> None:
    """Serving on an old schema would fail later, and worse."""
    names = pending_migrations(url)
    if names:
        refuse(f"the database lacks {names[-1]}; run `counterfoil migrate`")


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
    prepare_metrics(settings.data_dir)
    from api.answers import FamilyAnswers  # after the metrics' folder is known
    from infrastructure.services import build_services
    from infrastructure.worker import Worker

    with database(settings) as url:
        refuse_old_schema(url)
        configure_logs(settings.log_level, settings.log_format)
        services = build_services(
            replace(settings, database_url=url),
            answers=FamilyAnswers(),
            connections=WORKER_CONNECTIONS,
            bank_connections=WORKER_BANK_CONNECTIONS,
        )
        worker = Worker(services)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        click.echo("counterfoil works", err=True)
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
    with database(settings) as url:
        try:
            names = migrate(url)
        except MigrationChanged as error:
            refuse(str(error), NOT_DONE)
        with open_pool(url, size=COMMAND_CONNECTIONS) as pool, pool.connection() as connection:
            for name in to_rebuild(connection):
                click.echo(f"to do: counterfoil projections rebuild {name} --promote", err=True)
    click.echo("\n".join(f"applied {name}" for name in names) or "the schema is up to date")


# --- what needs a person -----------------------------------------------------------------------


@main.command()
@click.option("--json", "as_json", is_flag=True)
def stuck(*, as_json: bool) -> None:
    """Operations without an outcome, and payments that need review.

    Not operations that somebody may still be at work on: after a crash, for 30 seconds by default.
    """
    with connected(settings_or_exit()) as pool:
        calls = PostgresBankCalls(pool).stuck()
        with pool.connection() as connection:
            receipts = Receipts().to_review(connection)
    rows = [
        {
            "payment_id": encode(Prefix.PAYMENT, call["payment_id"]),
            "operation": call["operation"],
            "reason": call["reason"] or "its process ended before the bank answered",
            "since": shown_time(call["since"]),
            "age_seconds": round(call["age_seconds"]),
            "attempts": call["attempts"],
        }
        for call in calls
    ]
    rows += [shown_review(receipt, review) for receipt in receipts for review in receipt["reviews"]]
    print_rows(rows, as_json=as_json)


def shown_review(receipt: dict[str, Any], review: dict[str, str]) -> dict[str, Any]:
    """One reason why a payment needs a person."""
    since = datetime.fromisoformat(review["since"])
    differences = receipt.get("differences", [])
    reason = review["reason"]
    if reason == ReviewReason.BANK_DISAGREES and differences:
        each = (f"{d['kind']}: ours {d['ours']}, the bank's {d['bank']}" for d in differences)
        reason = f"{reason} ({'; '.join(each)})"
    return {
        "payment_id": receipt["payment_id"],
        "operation": None,
        "reason": reason,
        "since": shown_time(since),
        "age_seconds": round((datetime.now(UTC) - since).total_seconds()),
        "attempts": None,
    }


@main.command("resolve")
@click.argument("payment")
@click.option(
    "--as",
    "status",
    required=True,
    type=click.Choice([status.value for status in IDS_OF]),
    help="What the payment is, as you found it at the bank.",
)
@click.option(
    "--bank-id", help="auth_…, cap_…, void_… or ref_…: what the bank did that makes it so."
)
@click.option("--reason", required=True, help="Why you are sure; kept with the payment for ever.")
@click.option("--actor", help="Who decides. Default: your login name.")
@click.option(
    "--amount",
    type=click.IntRange(1),
    help="Minor units, of a capture or a refund that the ledger knows nothing of. Default: all.",
)
@click.option("--json", "as_json", is_flag=True, help="Prints the receipt as it is now.")
def resolve_command(payment: str, *, actor: str | None, as_json: bool, **found: Any) -> None:
    """Decide what became of a payment that `stuck` lists. PAYMENT: pay_…

    The decision is an event, with your name and your reason. Nothing is done at the bank. What cannot
    be is refused: the states may only follow one another as the ledger lets them.
    """
    actor = actor_or_exit(actor)
    from api.gateway.outputs import receipt as published
    from infrastructure.operators import resolve_payment

    with operated() as services:
        try:
            receipt = published(resolve_payment(services, payment, actor=actor, **found))
        except MalformedId:
            refuse(f"{payment} is not the id of a payment: pay_…")
        except PaymentNotFound:
            refuse(f"there is no payment {payment}", NOT_DONE)
        except DomainError as error:
            refuse(f"refused ({error.code}): {error.message}", NOT_DONE)
        except (ConcurrentChange, LeaseLost):
            refuse("the payment changed meanwhile, and nothing was recorded; look again", NOT_DONE)
        except StoreUnavailable:
            refuse("the database is out of reach; look whether it is recorded", NOT_DONE)
    if receipt["status"] == Status.AUTHORIZED and receipt["authorization_expires_at"] is None:
        click.echo(
            "the bank did not say when the hold ends: void it when it is not needed", err=True
        )
    said = f"{receipt['payment_id']} is {receipt['status']}, and needs no review"
    click.echo(json.dumps(receipt) if as_json else said)


class Rate(click.FloatRange):
    """A number in a range; what is no number is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As it does, but for NaN, which no comparison catches."""
        number = super().convert(value, param, ctx)
        if isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


@main.command("reconcile")
@click.option(
    "--rate",
    type=Rate(0.01, 1000),
    default=10.0,
    show_default=True,
    help="Questions to the bank, a second.",
)
@click.option("--since", help="Only payments that changed since then: 2026-11-20, or RFC 3339.")
@click.option("--restart", is_flag=True, help="Forget a run that was not finished.")
@click.option("--actor", help="Who asks. Default: your login name.")
@click.option("--json", "as_json", is_flag=True)
def reconcile_command(
    *, rate: float, since: str | None, restart: bool, actor: str | None, as_json: bool
) -> None:
    """Compare every receipt with the bank's record.

    What differs is printed and is an event of the payment, which then needs review. A run that was
    interrupted is gone on with. Exit status: 1 if anything differs, 2 if the bank cannot be asked.
    """
    after = moment_or_exit(since, "--since")
    cause = Cause(actor=actor_or_exit(actor))
    configure_logs("ERROR", "text", for_good=False)  # what is found is in the report
    from infrastructure.bank.records import Stopped
    from infrastructure.reconciliation import BankNotWell
    from infrastructure.reconciliation_runs import AnotherRunUnfinished, RunLost, SomebodyIsAtIt
    from infrastructure.services import build_reconciliation

    with (
        operated() as services,
        progress_bar("reconcile") as show,
        stopped_by_signals() as stopping,
    ):
        runs, reconciliation = build_reconciliation(
            services, rate_per_second=rate, stopping=stopping
        )
        try:
            run = runs.take(since=after, restart=restart)
            report = reconciliation.carry_out(run, cause, show)
        except SomebodyIsAtIt as error:
            refuse(f"another reconciliation is at work, {error}", NOT_DONE)
        except AnotherRunUnfinished as error:
            refuse(f"a run {error} is not finished: give the same --since, or --restart")
        except BankNotWell:
            refuse(
                f"the bank at {services.settings.bank_url} is not well; the next run goes on there"
            )
        except StoreUnavailable:
            refuse("the database is out of reach; the next run goes on from there", NOT_DONE)
        except (RunLost, Stopped):
            refuse("stopped; what was done is kept, and the next run goes on from there", NOT_DONE)
    print_report(report, as_json=as_json)


def print_report(report: "Report", *, as_json: bool) -> None:
    """What differs and how much was compared; ends with the status that says it."""
    rows = [
        {
            "payment_id": encode(Prefix.PAYMENT, finding.payment_id),
            "kind": finding.difference.kind.value,
            "ours": finding.difference.ours,
            "bank": finding.difference.bank,
        }
        for finding in report.findings
    ]
    counts = {name: getattr(report, name) for name in ("checked", "skipped", "unanswered")}
    if as_json:
        click.echo(json.dumps({**counts, "differences": rows}))
    else:
        if rows:
            print_rows(rows, as_json=False)
        click.echo(
            f"{report.checked} payments checked, {len(rows)} differences; {report.skipped} skipped, "
            f"with an operation outstanding; of {report.unanswered} the bank did not say what it has"
        )
    if rows:
        sys.exit(NOT_DONE)
    if report.unanswered:
        sys.exit(WRONG_SETTING)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Set by Ctrl-C and by SIGTERM, so that what was begun is left in order."""
    stopping = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Told how much is done, and of how much. Only on a terminal."""
    with click.progressbar(
        length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(done - bar.pos)

        yield show


def actor_or_exit(given: str | None) -> str:
    """Who runs the command."""
    actor = login_name() if given is None else given.strip()
    if not actor or len(actor) > LONGEST_ACTOR or not actor.isprintable():
        refuse(f"--actor must be a name of at most {LONGEST_ACTOR} characters")
    return actor


def login_name() -> str:
    """Who runs the command; nobody where the machine does not know, as some containers do not."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


@contextmanager
def operated() -> Iterator["Services"]:
    """A whole ledger, for a command that decides or asks the bank."""
    from api.answers import FamilyAnswers  # what operators decide is answered to who had asked
    from infrastructure.services import build_services

    settings = settings_or_exit()
    with database(settings) as url:
        refuse_old_schema(url)
        services = build_services(
            replace(settings, database_url=url),
            answers=FamilyAnswers(),
            connections=COMMAND_CONNECTIONS,
            bank_connections=WORKER_BANK_CONNECTIONS,
        )
        try:
            yield services
        finally:
            services.close()


# --- keys and merchants ------------------------------------------------------------------------


@main.group()
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


@main.group()
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


@main.group()
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


# --- read models, webhooks ---------------------------------------------------------------------


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

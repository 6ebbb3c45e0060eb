"""What needs a person: `counterfoil stuck`, `resolve` and `reconcile`."""

import getpass
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from math import isnan
from typing import TYPE_CHECKING, Any

import click

from domain.commands import Cause
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
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.database import OF_COMMANDS
from infrastructure.logs import configure_logs
from projections.receipts import Receipts
from scripts.console import (
    BANK_CONNECTIONS,
    COMMAND_CONNECTIONS,
    NOT_DONE,
    WRONG_SETTING,
    connected,
    database,
    moment_or_exit,
    print_rows,
    refuse,
    refuse_old_schema,
    settings_or_exit,
    shown_time,
)

if TYPE_CHECKING:
    from infrastructure.reconciliation_runs import Report
    from infrastructure.services import Services

LONGEST_ACTOR = 100


@click.command("stuck")
@click.option("--json", "as_json", is_flag=True)
def stuck_command(*, as_json: bool) -> None:
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


@click.command("resolve")
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


@click.command("reconcile")
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
            bank_connections=BANK_CONNECTIONS,
            waits=OF_COMMANDS,
        )
        try:
            yield services
        finally:
            services.close()

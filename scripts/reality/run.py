"""`scripts/chaos`: payments on the real system while it is killed, stopped, cut off and lied to; then
the bank's books against ours."""

import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

import click

from scripts.reality import killer, verdict
from scripts.reality.canaries import EXP_MONTH, EXP_YEAR, CanarySearch, cards
from scripts.reality.killer import Killer
from scripts.reality.shoppers import Answer, Memory, Shopper, Street, all_at_once, shoppers
from scripts.reality.system import HURRIED, CannotRun, Shape, System, running, wait_for
from scripts.reality.verdict import SHOWN_VIOLATIONS, Check, Recovery, Verdict
from scripts.up import stopping_on_signals

CLIENTS: Final = 96
HURRIED_CLIENTS: Final = 24
# The last orders begin when this much of the time is over, so that they have some of it left.
LAST_COMING: Final = 0.8
FINISHING_SECONDS: Final = 180.0
WELL_SECONDS: Final = 0.5
VIOLATIONS_FOUND: Final = 1
ACCOUNT_THREADS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen. The same seed draws the same payments and the same misfortunes."""

    payments: int
    seconds: float
    seed: int
    faults: tuple[str, ...]
    shape: Shape
    clients: int
    keep: bool

    @property
    def name(self) -> str:
        """Part of every order's id."""
        return f"chaos-{self.seed}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--payments", type=click.IntRange(1, 20_000), default=500, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=180,
    show_default=True,
    help="How long it goes on before all is healed.",
)
@click.option("--seed", type=int, help="Default: another each time; it is in the report.")
@click.option(
    "--faults",
    default=",".join(killer.USUAL),
    show_default=True,
    help=f"Comma-separated, of: {', '.join(killer.KINDS)}.",
)
@click.option("--workers", type=click.IntRange(1, 16), help="Default: 3, or 2 in a hurry.")
@click.option("--hurried", is_flag=True, help="A quick bank that gives up soon: short waits.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON; the table as well.")
@click.option("--keep", is_flag=True, help="Leave the logs and the data where they are.")
def chaos(
    payments: int,
    seconds: float,
    seed: int | None,
    faults: str,
    workers: int | None,
    *,
    hurried: bool,
    as_json: bool,
    keep: bool,
) -> None:
    """Take payments while processes are killed and lines are cut, then compare the books.

    Exit status: 0 when every promise was kept, 1 when one was broken, 2 for a wrong option.
    """
    kinds = tuple(filter(None, faults.split(",")))
    if set(kinds) - set(killer.KINDS):
        raise click.BadParameter(f"must be of {', '.join(killer.KINDS)}", param_hint="--faults")
    shape = HURRIED if hurried else Shape()
    if workers is not None:
        shape = replace(shape, workers=workers)
    plan = Plan(
        payments=payments,
        seconds=seconds,
        seed=random.SystemRandom().randrange(10**6) if seed is None else seed,
        faults=kinds,
        shape=shape,
        clients=HURRIED_CLIENTS if hurried else CLIENTS,
        keep=keep,
    )
    with stopping_on_signals():
        report = run(plan)
    click.echo(table(report), err=as_json)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    sys.exit(VIOLATIONS_FOUND if report["violations"] else 0)


def run(plan: Plan) -> dict[str, Any]:
    """The report. Raises ClickException where the system does not come up."""
    try:
        with running(plan.shape, rng_of(plan, "system"), told, keep=plan.keep) as system:
            if plan.keep:
                say(f"everything is in {system.folder}")
            return Run(plan, system).report()
    except CannotRun as error:
        raise click.ClickException(str(error)) from error


class Run:
    """One run on a system that is up."""

    def __init__(self, plan: Plan, system: System) -> None:
        self._plan, self._system = plan, system
        self._cards = cards(2 * plan.payments, rng_of(plan, "cards"))
        self._memory = Memory()
        self._shoppers = shoppers(
            count=plan.payments,
            run=plan.name,
            cards=self._cards,
            rng=rng_of(plan, "shoppers"),
            ports=system.ports,
            memory=self._memory,
        )

    def report(self) -> dict[str, Any]:
        """Payments under misfortune, healing, the verdict."""
        began = time.monotonic()
        all_at_once(self._open_account, self._shoppers, ACCOUNT_THREADS)
        struck = self._misfortune()
        recovery = self._healed()
        say(f"{recovery.figures()}; the clients come back")
        self._street().run([(0.0, it) for it in self._calmed()], FINISHING_SECONDS)
        after = verdict.until_quiet(self._system)
        say("comparing the books")
        search = CanarySearch(self._cards, seen=f"ORD-{self._plan.name}-")
        card_of = {it.order_id: it.card.number for it in self._shoppers}
        found = verdict.reached(self._system, self._memory, search, card_of)
        left = [*recovery.left, *after.left]
        found.checks.append(Check("nothing is left in doubt", recovery.figures()["in_doubt"], left))
        return self._figures(found, recovery, struck, time.monotonic() - began)

    def _open_account(self, shopper: Shopper) -> None:
        """Money for two attempts on the good card, and none on the other."""
        for card, balance in ((shopper.card, 3 * shopper.amount), (shopper.poor_card, 0)):
            self._system.bank.open_account(
                card_number=card.number,
                cvv=card.cvc,
                exp_month=EXP_MONTH,
                exp_year=EXP_YEAR,
                balance=balance,
            )

    def _misfortune(self) -> Counter[str]:
        plan, rng = self._plan, rng_of(self._plan, "comings")
        say(f"seed {plan.seed}: {plan.payments} payments in {plan.seconds:g} s")
        killing = Killer(
            self._system, rng_of(plan, "killer"), kinds=plan.faults, seconds=plan.seconds
        )
        comings = [(rng.uniform(0, plan.seconds * LAST_COMING), it) for it in self._shoppers]
        killing.begin()
        try:
            self._street().run(comings, plan.seconds)
        finally:
            killing.end()
        lines = (self._system.bank_line, self._system.database_line)
        names = ("the bank's line: ", "Postgres' line: ")
        for name, line in zip(names, lines, strict=True):
            killing.struck.update({name + how: times for how, times in line.struck.items()})
        return killing.struck

    def _healed(self) -> Recovery:
        self._system.heal()
        say("healed")
        recovery = verdict.until_quiet(self._system)
        wait_for("everything that died to be up", self._system.all_up)
        return recovery

    def _calmed(self) -> list[Shopper]:
        for shopper in self._shoppers:
            shopper.calm_down()
        return self._shoppers

    def _street(self) -> Street:
        return Street(self._plan.clients)

    def _figures(
        self, found: Verdict, recovery: Recovery, struck: Counter[str], seconds: float
    ) -> dict[str, Any]:
        plan = self._plan
        given = [answer for answers in self._memory.answers.values() for answer in answers]
        return {
            "seed": plan.seed,
            "payments": plan.payments,
            "seconds": round(seconds, 1),
            "faults": list(plan.faults),
            "settings": plan.shape.settings(),
            "workers": plan.shape.workers,
            "struck": dict(sorted(struck.items())),
            "asked": {"keys": len(self._memory.asks), "silences": self._memory.silences},
            "answers": dict(sorted(Counter(map(_kind, given)).items())),
            "payments_by_status": dict(sorted(found.statuses.items())),
            "to_review": dict(sorted(found.reviews.items())),
            "second_holds": found.second_holds,
            "recovery": recovery.figures(),
            "checks": [
                {"name": it.name, "looked_at": it.looked_at, "violations": len(it.violations)}
                for it in found.checks
            ],
            "violations": [f"{it.name}: {said}" for it in found.checks for said in it.violations],
        }


def _kind(answer: Answer) -> str:
    replayed = " replayed" * answer.replayed
    return f"{answer.status}{' ' + answer.code if answer.code else ''}{replayed}"


def table(report: dict[str, Any]) -> str:
    """What a person wants to know."""
    asked = report["asked"]
    how_much = f"{report['payments']} payments, {asked['keys']} keys, {report['seconds']} s"
    lines = [
        f"Seed {report['seed']}: {how_much}, {asked['silences']} times no answer",
        "",
        "What went wrong",
        *(f"  {times:>6}  {name}" for name, times in report["struck"].items()),
        "",
        "What was answered",
        *(f"  {times:>6}  {name}" for name, times in report["answers"].items()),
        "",
        "How it ended",
        f"  payments: {_listed(report['payments_by_status'])}",
        f"  to review: {_listed(report['to_review'])}",
        f"  holds at the bank that no receipt has: {report['second_holds']}",
        "",
        "Recovery, from the moment that the bank and the database were well",
        f"  {_listed(report['recovery'])}",
        "",
        "Promises",
        *(
            f"  {'BROKEN' if it['violations'] else 'kept':<7} {it['name']} ({it['looked_at']})"
            for it in report["checks"]
        ),
    ]
    wrong = report["violations"]
    if wrong:
        lines += ["", f"{len(wrong)} violations, the first of them:", *wrong[:SHOWN_VIOLATIONS]]
    return "\n".join(lines)


def _listed(named: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items()) or "none"


def rng_of(plan: Plan, what: str) -> random.Random:
    """A source for each part, so that one draw more here changes nothing there."""
    return random.Random(f"{plan.seed} {what}")  # noqa: S311 - misfortune that can be had again


def say(sentence: str) -> None:
    click.echo(f"chaos: {sentence}", err=True)


def told(sentence: str) -> None:
    """What the supervisor says is in the programs' logs, and too much to show."""


if __name__ == "__main__":
    chaos(prog_name="./scripts/chaos")

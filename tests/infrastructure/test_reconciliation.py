"""Every receipt against the bank's record: found, told once, gone on with, and never made up."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, LiteralString
from uuid import UUID

import pytest
from click.testing import CliRunner

from domain.bank import Declined, Operation, Unknown
from domain.bank_records import BankRecord, BankRecords, NoRecord, NotTold, Told
from domain.commands import Cause
from domain.ids import Prefix, decode
from domain.payment import Difference, DifferenceKind, Payment, Status, bank_key
from infrastructure.bank.client import BankClient
from infrastructure.bank.records import BankRecordsOverHTTP, Pace, Stopped
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.reconciliation import RATE_PER_SECOND, BankNotWell, Reconciliation
from infrastructure.reconciliation_runs import (
    AnotherRunUnfinished,
    ReconciliationRuns,
    Report,
    Run,
    RunLost,
    SomebodyIsAtIt,
)
from infrastructure.reconciliation_schedule import ReconciliationSchedule
from infrastructure.services import Services
from infrastructure.worker import Worker
from scripts.cli import main
from tests.api.an_api import EMPTY_CARD, Api, Caller, an_api, error_of
from tests.builders import ANY_AMOUNT, VISA, resolve
from tests.fakes import FakeBank, FakeRecords, SteppableClock
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank, eventually

ADA: Final = Cause(actor="ada")
PROJECT: Final = Path(__file__).parents[2]
NO_BANK: Final = "http://127.0.0.1:9"
BANK_OPTIONS: Final = (*CALM, "--profile", "extended", "--balance", "100000000")

SILENCE: Final = Unknown(reason="no answer", unanswered=True)
OTHERS_FIND: Final = [
    Difference(kind=DifferenceKind.STATE, ours="auth_1 approved", bank="auth_1 gone")
]

DOCUMENT: LiteralString = "SELECT document FROM receipts WHERE payment_id = %(id)s"
EVENTS: LiteralString = "SELECT count(*) AS n FROM events"
TIME_FLIES: LiteralString = """
    UPDATE reconciliations SET held_until = held_until - make_interval(secs => %(seconds)s),
                               started_at = started_at - make_interval(secs => %(seconds)s)
"""
PAYMENTS_DONE: LiteralString = """
    SELECT coalesce(sum(checked + skipped + unanswered), 0)::int AS n FROM reconciliation_cursors
"""
RUNS: LiteralString = "SELECT count(*) AS n FROM reconciliations"
FINISHED: LiteralString = """
    SELECT count(*) AS n FROM reconciliations WHERE finished_at IS NOT NULL
"""


# --- what a test has --------------------------------------------------------------------------------


@dataclass
class Store:
    """A ledger on Postgres, and its runs of the reconciliation."""

    api: Api

    @property
    def services(self) -> Services:
        return self.api.services

    @property
    def runs(self) -> ReconciliationRuns:
        return ReconciliationRuns(self.services.pool, RandomIds())

    def reconciliation_at(
        self, records: BankRecords, *, rate_per_second: float = RATE_PER_SECOND
    ) -> Reconciliation:
        return Reconciliation(
            pool=self.services.pool,
            ledger=self.services.ledger,
            runs=self.runs,
            records=records,
            clock=SystemClock(),
            rate_per_second=rate_per_second,
        )

    def payment(self, payment_id: UUID) -> Payment:
        payment: Payment = self.services.ledger.repository.get(payment_id)
        return payment

    def count(self, statement: LiteralString) -> int:
        with self.services.pool.connection() as connection:
            row = connection.execute(statement).fetchone()
        assert row is not None
        return int(row["n"])

    def document(self, payment_id: UUID) -> dict[str, Any]:
        with self.services.pool.connection() as connection:
            row = connection.execute(DOCUMENT, {"id": payment_id}).fetchone()
        assert row is not None
        document: dict[str, Any] = row["document"]
        return document

    def time_flies(self, seconds: float) -> None:
        self.api.execute(TIME_FLIES, seconds=seconds)


@dataclass
class Books(Store):
    """With a little bank behind it, and that bank's records."""

    bank: FakeBank
    records: FakeRecords

    def reconciliation(self) -> Reconciliation:
        return self.reconciliation_at(self.records)

    def reconciled(self) -> Report:
        return self.reconciliation().carry_out(self.runs.take(since=None), ADA)

    def payments(self, number: int) -> list[UUID]:
        """So many, captured."""
        merchant = self.api.merchant()
        made = [merchant.captured()["payment_id"] for _ in range(number)]
        return [decode(Prefix.PAYMENT, each) for each in made]


@pytest.fixture
def books(database_url: str) -> Iterator[Books]:
    bank = FakeBank(SteppableClock(), ANY_AMOUNT)
    with an_api(database_url, BANK_URL=NO_BANK) as api, api.asking(bank):
        yield Books(api, bank, FakeRecords(bank))


def capture_id(payment: Payment) -> str:
    assert payment.capture_id is not None
    return payment.capture_id


def found_in(report: Report) -> dict[UUID, list[str]]:
    found: dict[UUID, list[str]] = {}
    for each in report.findings:
        found.setdefault(each.payment_id, []).append(each.difference.kind.value)
    return found


# --- every kind of difference, at a bank over HTTP ---------------------------------------------------


@dataclass
class Seeds:
    """What is wrong, by payment, and what has to be done to the bank's file for it."""

    expected: dict[str, str]
    file_changes: list[tuple[str, tuple[object, ...]]]


def ask_bank(bank: Bank, operation: str, key: str, body: dict[str, object]) -> None:
    """Behind the ledger's back, under the ledger's own key."""
    answer = bank.post(operation, body, key)
    assert answer.status == 200, answer.text


def declined(api: Api, ask: Callable[[], Any]) -> None:
    """Asked of a bank that says no, which is then what we have."""
    saying_no = FakeBank(SteppableClock(), ANY_AMOUNT)
    saying_no.will_answer(Declined(code="authorization_expired"))
    with api.asking(saying_no):
        ask()


def seed_what_the_bank_did(api: Api, merchant: Caller, bank: Bank) -> dict[str, str]:
    """We have it as not done; the bank did it, and remembers our key."""
    held, released, taken = merchant.authorized(), merchant.authorized(), merchant.captured()
    refused = error_of(merchant.authorize(card=EMPTY_CARD), 402)["payment_id"]
    declined(api, lambda: merchant.capture(held["payment_id"]))
    declined(api, lambda: merchant.void(released["payment_id"]))
    declined(api, lambda: merchant.refund(taken["payment_id"]))

    def key(payment_id: str, operation: Operation, number: int) -> str:
        return bank_key(decode(Prefix.PAYMENT, payment_id), operation, number)

    card = {"card_number": VISA, "cvv": "123", "expiry_month": 12, "expiry_year": 2030}
    money = {"amount": 5000, "currency": "USD"}
    ask_bank(bank, "authorizations", key(refused, Operation.AUTHORIZATION, 1), card | money)
    hold = {"authorization_id": held["bank"]["authorization_id"]}
    ask_bank(bank, "captures", key(held["payment_id"], Operation.CAPTURE, 3), hold | money)
    hold = {"authorization_id": released["bank"]["authorization_id"]}
    ask_bank(bank, "voids", key(released["payment_id"], Operation.VOID, 3), hold)
    taken_id = {"capture_id": taken["bank"]["capture_id"]}
    ask_bank(bank, "refunds", key(taken["payment_id"], Operation.REFUND, 5), taken_id | money)
    return {
        refused: "unknown_authorization",
        held["payment_id"]: "unknown_capture",
        released["payment_id"]: "unknown_void",
        taken["payment_id"]: "unknown_refund",
    }


def seed_what_the_bank_has(merchant: Caller) -> Seeds:
    """The bank's file says something else than the bank said."""
    seeds = Seeds({}, [])
    changes: dict[str, tuple[str, str]] = {
        "missing": ("DELETE FROM transactions WHERE id = ?", "capture_id"),
        "amount": ("UPDATE transactions SET amount = 4000 WHERE id = ?", "capture_id"),
        "currency": ("UPDATE transactions SET currency = 'EUR' WHERE id = ?", "authorization_id"),
        "state": ("UPDATE transactions SET status = 'reversed' WHERE id = ?", "capture_id"),
        "reference": ("UPDATE transactions SET reference_id = 'auth_0' WHERE id = ?", "capture_id"),
    }
    for kind, (change, field) in changes.items():
        receipt = merchant.captured()
        seeds.expected[receipt["payment_id"]] = kind
        seeds.file_changes.append((change, (receipt["bank"][field],)))
    receipt = merchant.refunded()
    seeds.expected[receipt["payment_id"]] = "missing"
    (refund_id,) = receipt["bank"]["refund_ids"]
    seeds.file_changes.append(("DELETE FROM transactions WHERE id = ?", (refund_id,)))
    return seeds


def counterfoil(database_url: str, bank: Bank, *arguments: str) -> tuple[int, str]:
    """A command: its exit status and what it printed."""
    result = CliRunner(env=settings_for(database_url, bank)).invoke(main, arguments)
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result.exit_code, result.stdout


def start_counterfoil(database_url: str, bank: Bank, *arguments: str) -> "subprocess.Popen[str]":
    """The same in a process of its own, to be stopped."""
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", *arguments],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **settings_for(database_url, bank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settings_for(database_url: str, bank: Bank) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "BANK_URL": f"http://127.0.0.1:{bank.port}",
        "BANK_PROFILE": "extended",
    }


@contextmanager
def a_bank(file: Path) -> Iterator[Bank]:
    bank = Bank(file, *BANK_OPTIONS)
    try:
        yield bank
    finally:
        bank.kill()


def an_api_at(database_url: str, bank: Bank) -> Any:
    url = f"http://127.0.0.1:{bank.port}"
    return an_api(database_url, BANK_URL=url, BANK_PROFILE="extended")


def test_every_kind_of_difference_is_found_among_many_payments_that_do_not_differ(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "books.sqlite"
    with a_bank(file) as bank, an_api_at(database_url, bank) as api:
        merchant = api.merchant()
        seeds = seed_what_the_bank_has(merchant)
        seeds.expected |= seed_what_the_bank_did(api, merchant, bank)
        for _ in range(8):
            for live in (merchant.authorized, merchant.captured, merchant.refunded):
                live()
            merchant.voided()
            merchant.declined()
        before = api.behind()
    with sqlite3.connect(file) as closed_books:  # the bank has its file to itself while it is open
        for change, parameters in seeds.file_changes:
            closed_books.execute(change, parameters)
    closed_books.close()

    with a_bank(file) as bank:
        status, printed = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        again = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        stuck = json.loads(counterfoil(database_url, bank, "stuck", "--json")[1])
        with an_api_at(database_url, bank) as api:
            after = api.behind()

    report = json.loads(printed)
    assert {d["payment_id"]: d["kind"] for d in report["differences"]} == seeds.expected
    assert len(report["differences"]) == len(seeds.expected)
    assert (status, report["checked"], report["skipped"]) == (1, 50, 0)
    assert all(set(d) == {"payment_id", "kind", "ours", "bank"} for d in report["differences"])
    # A second run tells the same and records nothing: each difference once, with one review.
    assert again == (status, printed)
    assert after["events"] - before["events"] == 2 * len(seeds.expected)
    assert {row["payment_id"] for row in stuck} == set(seeds.expected)
    assert all(seeds.expected[row["payment_id"]] in row["reason"] for row in stuck)


def test_what_is_found_can_be_resolved_and_is_found_no_more(
    database_url: str, tmp_path: Path
) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank, an_api_at(database_url, bank) as api:
        merchant = api.merchant()
        expected = seed_what_the_bank_did(api, merchant, bank)
        held = next(each for each, kind in expected.items() if kind == "unknown_capture")
        status, printed = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        (found,) = [d for d in json.loads(printed)["differences"] if d["payment_id"] == held]
        needs_review = merchant.receipt(held)["needs_review"]["reason"]

        options = ["--as", "captured", "--bank-id", found["bank"], "--reason", "ticket 4711"]
        resolved = counterfoil(database_url, bank, "resolve", held, *options)

        _, printed = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        refunded = merchant.refund(held)
    assert (status, needs_review, resolved[0]) == (1, "bank_disagrees", 0)
    assert held not in {d["payment_id"] for d in json.loads(printed)["differences"]}
    assert refunded.status_code == 201


def test_a_run_that_is_killed_is_gone_on_with_where_it_was(
    database_url: str, tmp_path: Path
) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank, an_api_at(database_url, bank) as api:
        store = Store(api)
        merchant = api.merchant()
        for _ in range(40):
            merchant.captured()
        expected = seed_what_the_bank_did(api, merchant, bank)
        process = start_counterfoil(database_url, bank, "reconcile", "--rate", "10", "--json")
        eventually(lambda: store.count(PAYMENTS_DONE) >= 12)

        process.send_signal(signal.SIGKILL)
        process.communicate()
        done, asked = store.count(PAYMENTS_DONE), looks(bank)
        at_once = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        store.time_flies(60)
        status, printed = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")
        asked_later = looks(bank) - asked

    report = json.loads(printed)
    assert 12 <= done < 44
    assert at_once == (1, "")  # whoever was killed may still be at it, for all that anyone knows
    assert (status, report["checked"]) == (1, 44)
    assert {d["payment_id"]: d["kind"] for d in report["differences"]} == expected
    # What was done is not done again: two looks a captured payment, and one more by our key.
    assert asked_later <= 2 * (44 - done) + len(expected)


def looks(bank: Bank) -> int:
    calls = bank.ledger()["calls"]
    return sum(sum(n.values()) for route, n in calls.items() if route.startswith("GET"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_can_be_gone_on_with_at_once(
    database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank, an_api_at(database_url, bank) as api:
        store = Store(api)
        merchant = api.merchant()
        for _ in range(20):
            merchant.captured()
        process = start_counterfoil(database_url, bank, "reconcile", "--rate", "5")
        eventually(lambda: store.count(PAYMENTS_DONE) >= 3)

        process.send_signal(number)
        printed, complaint = process.communicate(timeout=20)
        status, later = counterfoil(database_url, bank, "reconcile", "--rate", "1000", "--json")

    assert (process.returncode, printed) == (1, "")
    assert "the next run goes on" in complaint
    assert (status, json.loads(later)["checked"]) == (0, 20)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--since", "yesterday"], "--since"),
        (["--since", "0001-01-01T00:00:00+14:00"], "--since"),
        (["--since", "9999-12-31T23:59:59-14:00"], "--since"),
        (["--rate", "0"], "--rate"),
        (["--rate", "1e-300"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--actor", "a" * 101], "--actor"),
        (["--actor", " "], "--actor"),
        ([], "is not well"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_status_2(
    shared_database_url: str, tmp_path: Path, arguments: list[str], word: str
) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank:
        bank.faults(database_down=True)
        process = start_counterfoil(shared_database_url, bank, "reconcile", *arguments)
        printed, complaint = process.communicate(timeout=50)

    assert (process.returncode, printed) == (2, "")
    assert word in complaint.splitlines()[-1]


def test_a_bank_whose_database_goes_down_in_the_middle_has_no_differences(
    database_url: str, tmp_path: Path
) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank, an_api_at(database_url, bank) as api:
        store = Store(api)
        merchant = api.merchant()
        for _ in range(20):
            merchant.captured()
        pace = Pace(1000, SystemClock(), threading.Event().wait)
        client = BankClient(f"http://127.0.0.1:{bank.port}", connections=8)
        records = Noticing(BankRecordsOverHTTP(client, pace, timeout_seconds=5.0))
        records.at(15, lambda: bank.faults(database_down=True))

        one_by_one = store.reconciliation_at(records, rate_per_second=0.5)
        with pytest.raises(BankNotWell):
            one_by_one.carry_out(store.runs.take(since=None), ADA)
        done = store.count(PAYMENTS_DONE)
        bank.faults(reset=True)
        report = store.reconciliation_at(records).carry_out(store.runs.take(since=None), ADA)

    assert 0 < done < 20
    assert (report.checked, report.findings) == (20, [])


class Noticing:
    """Records at which something happens at the n-th question."""

    def __init__(self, records: BankRecords) -> None:
        self._records = records
        self._asked = 0
        self._then: dict[int, Callable[[], object]] = {}
        self._lock = threading.Lock()

    def at(self, number: int, then: Callable[[], object]) -> None:
        self._then[number] = then

    def is_well(self) -> bool:
        return self._records.is_well()

    def look_up(self, operation: Operation, bank_id: str) -> Told:
        self._notice()
        return self._records.look_up(operation, bank_id)

    def remembered(self, operation: Operation, key: str) -> Told:
        self._notice()
        return self._records.remembered(operation, key)

    def _notice(self) -> None:
        with self._lock:
            self._asked += 1
            self._then.get(self._asked, lambda: None)()


# --- what happens meanwhile --------------------------------------------------------------------------


def test_a_bank_that_is_not_well_is_not_asked(books: Books) -> None:
    books.payments(2)
    books.records.well = False

    with pytest.raises(BankNotWell):
        books.reconciled()

    assert books.records.looks == []


def test_a_payment_that_changes_while_it_is_compared_is_compared_again(books: Books) -> None:
    (payment_id,) = books.payments(1)
    payment = books.payment(payment_id)
    real = books.records.look_up(Operation.CAPTURE, capture_id(payment))
    books.records.will_tell(capture_id(payment), NoRecord())
    looks_at_it: list[str] = []

    def something_happens(asked: str) -> None:
        if asked != payment.capture_id:
            return
        looks_at_it.append(asked)
        if len(looks_at_it) == 1:  # after the payment was read, and before the bank says its word
            books.services.ledger.note_differences(books.payment(payment_id), OTHERS_FIND, ADA)
        else:
            books.records.will_tell(asked, real)

    books.records.before_each = something_happens
    before = books.count(EVENTS)

    report = books.reconciled()

    assert len(looks_at_it) == 2
    assert (report.checked, report.findings) == (1, [])
    assert books.count(EVENTS) == before + 2  # the others' find, and nothing from a stale look


def test_a_payment_with_an_operation_outstanding_is_skipped(books: Books) -> None:
    (payment_id,) = books.payments(1)
    merchant = books.api.merchant()
    books.bank.will_answer(SILENCE)
    merchant.authorize()

    report = books.reconciled()

    assert (report.checked, report.skipped) == (1, 1)
    assert books.payment(payment_id).reviews == {}


def test_a_record_that_is_never_told_is_counted_and_the_others_are_compared(books: Books) -> None:
    first, second = books.payments(2)
    books.records.will_tell(
        capture_id(books.payment(first)), NotTold(reason="words", bank_is_well=True)
    )
    books.records.will_tell(capture_id(books.payment(second)), NoRecord())

    report = books.reconciled()

    assert (report.checked, report.unanswered) == (1, 1)
    assert found_in(report) == {second: ["missing"]}


def test_the_difference_is_in_the_receipt_until_it_is_resolved(books: Books) -> None:
    (payment_id,) = books.payments(1)
    payment = books.payment(payment_id)
    record = books.records.look_up(Operation.CAPTURE, capture_id(payment))
    assert isinstance(record, BankRecord)
    books.records.will_tell(capture_id(payment), replace(record, amount_minor=1))

    books.reconciled()
    with_review = books.document(payment_id)
    books.services.ledger.resolve(resolve(payment_id, Status.CAPTURED, tenant=payment.tenant))
    report = books.reconciled()

    assert [each["kind"] for each in with_review["differences"]] == ["amount"]
    assert found_in(report) == {payment_id: ["amount"]}  # as long as it is there it is told
    assert books.document(payment_id)["reviews"] == []


# --- one run at a time -------------------------------------------------------------------------------


def test_one_is_at_it_at_a_time(books: Books) -> None:
    books.runs.take(since=None)

    with pytest.raises(SomebodyIsAtIt):
        books.runs.take(since=None)
    assert books.runs.take_if_due(0) is None


def test_whoever_was_thought_dead_keeps_nothing_when_it_wakes_up(books: Books) -> None:
    payments = books.payments(3)
    slow = books.runs.take(since=None)
    books.time_flies(60)
    quick = books.runs.take(since=None)

    with pytest.raises(RunLost):
        books.reconciliation().carry_out(slow, ADA)
    assert books.count(PAYMENTS_DONE) == 0
    report = books.reconciliation().carry_out(quick, ADA)

    assert (quick.run_id, quick.is_resumed) == (slow.run_id, True)
    assert report.checked == len(payments)


def test_a_run_that_lasts_is_held_all_the_while(books: Books) -> None:
    run = books.runs.take(since=None)
    books.time_flies(25)

    books.runs.hold(run)
    books.time_flies(25)

    with pytest.raises(SomebodyIsAtIt):
        books.runs.take(since=None)


def test_another_run_than_the_unfinished_one_is_refused_or_begun_anew(books: Books) -> None:
    books.payments(2)
    unfinished = books.runs.take(since=None)
    books.runs.let_go(unfinished)
    an_hour_ago = SystemClock().now() - timedelta(hours=1)

    with pytest.raises(AnotherRunUnfinished):
        books.runs.take(since=an_hour_ago)
    begun = books.runs.take(since=an_hour_ago, restart=True)

    assert begun.run_id != unfinished.run_id
    assert books.reconciliation().carry_out(begun, ADA).checked == 2


def test_since_leaves_out_what_has_not_changed_since(books: Books) -> None:
    books.payments(2)
    later = SystemClock().now()
    (changed,) = books.payments(1)

    run = books.runs.take(since=later)
    report = books.reconciliation().carry_out(run, ADA)

    assert report.checked == 1
    assert capture_id(books.payment(changed)) in books.records.looks


def test_a_run_is_due_so_long_after_the_last_began(books: Books) -> None:
    day = 24 * 3600.0

    def due() -> Run | None:
        return books.runs.take_if_due(day)

    assert due() is None  # the installation is new
    books.reconciled()
    assert due() is None
    books.time_flies(day)
    run = due()
    assert run is not None
    books.reconciliation().carry_out(run, ADA)
    assert due() is None


def test_progress_is_told_of_all_there_is(books: Books) -> None:
    books.payments(5)
    told: list[tuple[int, int]] = []

    books.reconciliation().carry_out(
        books.runs.take(since=None), ADA, lambda done, of: told.append((done, of))
    )

    assert told[-1] == (5, 5)
    assert sorted(told) == told


def test_who_is_told_to_stop_leaves_the_run_to_the_next(books: Books) -> None:
    books.payments(3)
    stopping = threading.Event()
    stopping.set()
    client = BankClient(NO_BANK, connections=1)
    pace = Pace(1000, SystemClock(), stopping.wait)
    records = BankRecordsOverHTTP(client, pace, timeout_seconds=1.0)
    records.is_well = lambda: True  # type: ignore[method-assign]

    with pytest.raises(Stopped):
        books.reconciliation_at(records).carry_out(books.runs.take(since=None), ADA)

    assert books.reconciled().checked == 3


def test_a_worker_reconciles_when_it_is_due(database_url: str, tmp_path: Path) -> None:
    with a_bank(tmp_path / "books.sqlite") as bank:
        url = f"http://127.0.0.1:{bank.port}"
        with an_api(
            database_url, BANK_URL=url, BANK_PROFILE="extended", RECONCILE_EVERY_HOURS="0.00001"
        ) as api:
            store = Store(api)
            expected = seed_what_the_bank_did(api, api.merchant(), bank)
            worker = Worker(api.services)
            thread = threading.Thread(target=worker.run)
            thread.start()
            try:
                eventually(lambda: store.count(FINISHED) >= 1)
            finally:
                worker.stop()
                thread.join(20)
            found = {each: store.payment(decode(Prefix.PAYMENT, each)) for each in expected}
    assert not thread.is_alive()
    kinds = {
        shown: [difference.kind.value for difference in payment.differences]
        for shown, payment in found.items()
    }
    assert kinds == {shown: [kind] for shown, kind in expected.items()}


@pytest.mark.parametrize(("hours", "begins"), [("0", False), ("0.00001", True), ("1000", False)])
def test_a_worker_begins_when_it_is_due_unless_it_is_off(
    database_url: str, hours: str, begins: bool
) -> None:
    with an_api(database_url, BANK_URL=NO_BANK, RECONCILE_EVERY_HOURS=hours) as api:
        store = Store(api)
        before = store.count(RUNS)

        ReconciliationSchedule(api.services, threading.Event(), ADA).reconcile_if_due()

        assert store.count(RUNS) - before == begins

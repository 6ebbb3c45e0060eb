"""A database, a bank, and processes that die on the way between them; and what must hold afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, LiteralString

from werkzeug.test import TestResponse

from domain.ids import Prefix, decode
from infrastructure.database import Waits
from infrastructure.duties import billing_desk, work_on_disputes
from infrastructure.worker import Worker
from tests.api.an_api import NO_LIMITS, Api, Caller, an_api
from tests.infrastructure.bank_simulator.a_bank import Bank, eventually
from tests.patience import PATIENT

PROJECT: Final = Path(__file__).parents[2]
BANK_TIMEOUT: Final = "1"
ROUNDS_OF_RECOVERY: Final = 10
WORKERS: Final = 4

NOBODY_IS_AT_IT: Final[LiteralString] = """
    SELECT count(*) = 0 AS quiet FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""
ALL_LEASES_RUN_OUT: Final[LiteralString] = """
    WITH notices AS (UPDATE dispute_notices SET due_at = clock_timestamp()),
         responses AS (UPDATE dispute_responses SET due_at = clock_timestamp())
    UPDATE bank_calls SET due_at = clock_timestamp()
"""
ONLY_THIS_IS_DUE: Final[LiteralString] = """
    UPDATE bank_calls SET due_at =
        CASE WHEN payment_id = %(payment_id)s THEN clock_timestamp() ELSE 'infinity' END
"""
OUTSTANDING: Final[LiteralString] = """
    SELECT (SELECT count(*) FROM bank_calls) AS bank_calls,
           (SELECT count(*) FROM idempotency_keys AS k
            LEFT JOIN idempotency_answers AS a USING (request_id, merchant_id, mode, key)
            WHERE coalesce(k.status, a.status) IS NULL) AS unanswered_keys,
           (SELECT count(*) FROM receipts WHERE pending) AS pending_receipts,
           (SELECT count(*) FROM dispute_notices) AS notices,
           (SELECT count(*) FROM dispute_responses) AS responses,
           (SELECT count(*) FROM test_clocks WHERE advancing) AS clocks,
           (SELECT count(*) FROM invoices WHERE document ->> 'status' <> 'paid') AS invoices
"""
# However often an invoice was tried, by whomever.
PAID_TWICE: Final[LiteralString] = """
    SELECT document ->> 'intent_id' AS intent_id FROM receipts
    WHERE document ? 'intent_id' AND status IN ('captured', 'refunded')
    GROUP BY 1 HAVING count(*) > 1
"""
DISPUTED: Final[LiteralString] = """
    SELECT document ->> 'bank_dispute_id' AS id, document ->> 'status' AS status FROM disputes
"""
# An intent's attempts are of no order, or of one that may have others.
WRONG_SLOTS: Final[LiteralString] = """
    SELECT payment_id FROM order_slots FULL JOIN (
        SELECT payment_id FROM receipts WHERE status IN ('pending', 'authorized', 'captured')
          AND NOT document ? 'intent_id' AND NOT document ? 'is_paid_at_once'
          AND NOT document ? 'account'
    ) AS live USING (payment_id) WHERE live.payment_id IS NULL OR order_id IS NULL
"""
RECEIPTS: Final[LiteralString] = "SELECT document FROM receipts"
RECEIPT: Final[LiteralString] = """
    SELECT status, needs_review, pending, document FROM receipts WHERE payment_id = %(payment_id)s
"""


class Zygote:
    """Forks a process for each scene, in a few milliseconds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, scene: dict[str, Any]) -> dict[str, Any]:
        """How it ended."""
        self.begin(scene)
        return self.heard()

    def begin(self, scene: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(scene) + "\n")
        self._process.stdin.flush()

    def heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the zygote itself has died"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self._process.communicate()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sends, as often as it needs to, and the status that it ends with."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    final_status: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a process is about to do, at a bank with these faults; `request`: the client's, if any."""

    act: dict[str, Any]
    faults: dict[str, Any] = field(default_factory=dict)
    request: Request | None = None


@dataclass
class World:
    api: Api
    bank: Bank
    zygote: Zygote
    environ: dict[str, str]

    def merchant(self) -> Caller:
        return self.api.merchant()

    def play(self, scene: Scene, **how: Any) -> dict[str, Any]:
        """In a process of its own; `dies_at` or `stops_at`: a point and a number."""
        self.begin(scene, **how)
        return self.zygote.heard()

    def begin(
        self,
        scene: Scene,
        *,
        dies_at: tuple[str, int] | None = None,
        stops_at: tuple[str, int] | None = None,
        **fate: Any,
    ) -> None:
        self.bank.faults(**{**scene.faults, **fate})
        environ = dict(self.environ)
        if dies_at is not None:
            environ["FAULT_POINT"] = f"{dies_at[0]}:{dies_at[1]}"
        self.zygote.begin({"act": scene.act, "environ": environ, "stops_at": stops_at})

    def ask(self, request: Request) -> TestResponse:
        """Sends it to a process that nothing happens to."""
        return self.api.app.test_client().post(
            request.path, json=request.body, headers=request.headers
        )

    def settle_down(self) -> None:
        """Nobody works for those who died any more, at the bank or at the database."""
        eventually(lambda: bool(self.bank.ledger()["in_flight"] == 0))
        eventually(lambda: bool(self.row(NOBODY_IS_AT_IT)["quiet"]))
        self.bank.faults(reset=True)

    def only_due(self, payment_id: str) -> None:
        self.api.execute(ONLY_THIS_IS_DUE, payment_id=uuid_text(payment_id))

    def time_flies(self) -> None:
        """Every lease has run out and every quiet time is over."""
        self.api.execute(ALL_LEASES_RUN_OUT)

    def recover(self) -> None:
        """Workers do what they do, until there is nothing left to do."""
        for _ in range(ROUNDS_OF_RECOVERY):
            self.time_flies()
            with ThreadPoolExecutor(WORKERS) as executor:
                worker = Worker(self.api.services)
                taken = worker.take_up(executor)
                found = worker.release_expired(executor)
            done = work_on_disputes(self.api.services) + billing_desk(self.api.services).work()
            if taken + found + done == 0:
                return
        raise AssertionError(f"there is always something left: {self.row(OUTSTANDING)}")

    def recover_once(self) -> None:
        """Every call that is outstanding is taken up."""
        self.time_flies()
        with ThreadPoolExecutor(WORKERS) as executor:
            worker = Worker(self.api.services)
            while worker.take_up(executor):
                pass

    def rows_of(self, payment_id: str) -> list[dict[str, Any]]:
        """The receipt of one payment."""
        with self.api.services.pool.connection() as connection:
            return connection.execute(RECEIPT, {"payment_id": payment_id}).fetchall()

    def row(self, statement: LiteralString) -> dict[str, Any]:
        (row,) = self.rows(statement)
        return row

    def rows(self, statement: LiteralString) -> list[dict[str, Any]]:
        with self.api.services.pool.connection() as connection:
            return connection.execute(statement).fetchall()

    # --- what must hold -------------------------------------------------------------------------

    def check(self, scenes: Sequence[Scene]) -> None:
        """Once it is quiet: one final answer a key, and receipts that are the bank's books."""
        for request in [scene.request for scene in scenes if scene.request is not None]:
            first, second = self.ask(request), self.ask(request)
            assert first.status_code == request.final_status, first.text
            assert second.headers["Idempotent-Replayed"] == "true"
            assert (first.data, first.status_code) == (second.data, second.status_code)
        outstanding = self.row(OUTSTANDING)
        assert set(outstanding.values()) == {0}, outstanding
        assert self.rows(WRONG_SLOTS) == []
        assert self.rows(PAID_TWICE) == []
        told = {row["id"]: row["status"] for row in self.rows(DISPUTED)}
        disputes = self.bank.ledger().get("disputes", [])  # the partner has none
        assert told == {each["dispute_id"]: each["status"] for each in disputes}
        self.check_books()

    def check_books(self) -> None:
        ledger = self.bank.ledger()
        assert ledger["overlaps"] == 0
        receipts = {row["document"]["payment_id"]: row["document"] for row in self.rows(RECEIPTS)}
        books: dict[str, list[dict[str, Any]]] = {payment_id: [] for payment_id in receipts}
        for entry in ledger["transactions"]:
            books[entry["idempotency_key"].partition("-")[0]].append(entry)
        for payment_id, receipt in receipts.items():
            check_receipt(receipt, books[payment_id])


def check_receipt(receipt: dict[str, Any], entries: Sequence[dict[str, Any]]) -> None:
    """It says what the bank's books say, to the cent; what it cannot know it says it does not."""
    told = (receipt, entries)
    status, bank = receipt["status"], receipt["bank"]
    reviews = {review["reason"] for review in receipt["reviews"]}
    done: dict[str, list[dict[str, Any]]] = {
        kind: [entry for entry in entries if entry["type"] == kind]
        for kind in ("AUTH_HOLD", "CAPTURE", "VOID", "REFUND")
    }
    holds = [entry["id"] for entry in done["AUTH_HOLD"]]
    if status == "declined":
        assert holds == [], told
        return
    assert bank["authorization_id"] in holds, told
    assert len(holds) == 1 or (len(holds) == 2 and "possible_orphan_hold" in reviews), told
    known = [*done["CAPTURE"], *done["VOID"]]
    assert {entry["reference_id"] for entry in known} <= {bank["authorization_id"]}, told
    check_entry(done["CAPTURE"], status in {"captured", "refunded"}, bank["capture_id"], told)
    check_entry(done["VOID"], status in {"voided", "expired"}, bank["void_id"], told)
    assert sum(e["amount"] for e in done["CAPTURE"]) == receipt["amount_captured"], told
    assert sum(e["amount"] for e in done["REFUND"]) == receipt["amount_refunded"], told
    assert set(bank["refund_ids"]) <= {entry["id"] for entry in done["REFUND"]}, told
    assert ("capture_id_unknown" in reviews) == bool(done["CAPTURE"] and not bank["capture_id"])
    refunds_unknown = len(done["REFUND"]) - len(bank["refund_ids"])
    assert ("refund_id_unknown" in reviews) == (refunds_unknown > 0), told


def check_entry(
    entries: Sequence[dict[str, Any]], wanted: bool, known_id: str | None, told: Any
) -> None:
    """Once where it is said to be done, not at all where it is not."""
    assert len(entries) == int(wanted), told
    assert known_id in {None, *(entry["id"] for entry in entries)}, told


def uuid_text(payment_id: str) -> str:
    return str(decode(Prefix.PAYMENT, payment_id))


@contextmanager
def a_world(
    database_url: str, bank: Bank, *, profile: str = "ficmart", waits: Waits | None = PATIENT
) -> Iterator[World]:
    """`waits`: of its own API, to whose requests nothing happens."""
    bank_url = f"http://127.0.0.1:{bank.port}"
    banks: dict[str, Any] = {"BANK_URL": bank_url, "BANK_PROFILE": profile}
    with an_api(database_url, waits=waits, **banks) as api:
        environ = {
            "DATABASE_URL": database_url,
            "VAULT_KEYS": ",".join(api.services.settings.vault_keys),
            **banks,
            "BANK_TIMEOUT_SECONDS": BANK_TIMEOUT,
            "LOG_LEVEL": "ERROR",
            **NO_LIMITS,
        }
        zygote = Zygote()
        try:
            yield World(api, bank, zygote, environ)
        finally:
            zygote.end()

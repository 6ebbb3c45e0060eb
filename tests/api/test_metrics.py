"""Every published metric moves for its own reason, whichever process it happened in."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.schemas import ReceiptOut
from domain.bank import Operation
from infrastructure import reconciliation, worker
from infrastructure.webhooks import deliverer
from tests.api.a_server import PROJECT, Server
from tests.api.an_api import (
    GOOD_CARD,
    Api,
    Caller,
    an_api,
    an_authorization,
    fresh,
    settings_for,
    shaped,
)
from tests.conftest import Databases
from tests.fakes import FakeBank, Misfortune
from tests.infrastructure.bank_simulator.a_bank import Bank, eventually

PATIENCE_SECONDS = 30
# Their metrics are on the list, too, whoever imports them.
WITH_METRICS_OF_THEIR_OWN: Final = (deliverer, reconciliation, worker)
DOCUMENTED: Final = PROJECT / "docs" / "metrics.md"


def told(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of that name that have these labels; 0 where there are none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"counterfoil_{name}" and labels.items() <= sample.labels.items()
    )


class Meter:
    """What the metrics were, to tell by how much they moved."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._before = read()

    def moved(self, name: str, **labels: str) -> float:
        return told(self._read(), name, **labels) - told(self._before, name, **labels)


@pytest.fixture
def wired(api_over_the_wire: Api, simulator: Bank) -> Caller:
    """A merchant whose bank is the simulator."""
    return api_over_the_wire.merchant()


def meter_of(api: Api) -> Meter:
    return Meter(lambda: api.nobody().get("/metrics").text)


# --- the bank ---


def test_a_request_that_is_answered_at_once(api_over_the_wire: Api, wired: Caller) -> None:
    meter = meter_of(api_over_the_wire)

    wired.authorized()

    of = {"operation": "authorization"}
    assert meter.moved("bank_attempts_total", **of) == 1
    assert meter.moved("bank_retries_total", **of) == 0
    assert meter.moved("bank_answers_total", **of, outcome="approved") == 1
    assert meter.moved("bank_request_seconds_count", **of, result="answered") == 1
    assert meter.moved("bank_request_seconds_sum", **of) > 0


def test_a_failure_that_is_asked_again(
    api_over_the_wire: Api, wired: Caller, simulator: Bank
) -> None:
    meter = meter_of(api_over_the_wire)
    simulator.faults(fail_before=2)

    wired.authorized()

    of = {"operation": "authorization"}
    assert meter.moved("bank_attempts_total", **of) == 3
    assert meter.moved("bank_retries_total", **of, reason="failed") == 2
    assert meter.moved("bank_request_seconds_count", **of, result="failed") == 2
    assert meter.moved("bank_request_seconds_count", **of, result="answered") == 1
    assert meter.moved("bank_answers_total", **of) == 1


def test_a_decline_that_is_confirmed(api_over_the_wire: Api, wired: Caller) -> None:
    meter = meter_of(api_over_the_wire)

    wired.authorize(card=GOOD_CARD | {"number": "4000000000000002"})

    assert meter.moved("bank_retries_total", operation="authorization", reason="second_word") == 1
    assert meter.moved("bank_answers_total", operation="authorization", outcome="declined") == 1


def test_silence(api_over_the_wire: Api, wired: Caller, simulator: Bank) -> None:
    payment_id = wired.authorized()["payment_id"]
    meter = meter_of(api_over_the_wire)
    simulator.faults(drop_after=1)

    shaped(ReceiptOut, wired.capture(payment_id), 202)

    assert meter.moved("bank_request_seconds_count", operation="capture", result="silent") == 1
    assert meter.moved("bank_answers_total", operation="capture", outcome="unknown") == 1


def test_a_bank_that_is_not_there(shared_database_url: str) -> None:
    with an_api(shared_database_url, BANK_URL="http://127.0.0.1:9") as api:
        meter = meter_of(api)
        while "bank_unavailable" not in api.merchant().authorize().text:
            pass

        assert meter.moved("bank_request_seconds_count", result="not_sent") > 0
        assert meter.moved("bank_breaker_opened_total") == 1
        assert meter.moved("authorizations_shed_total") == 1
        assert told(api.nobody().get("/metrics").text, "bank_breaker_open") == 1


def test_a_call_that_a_worker_takes_up(
    api_over_the_wire: Api, wired: Caller, simulator: Bank
) -> None:
    simulator.faults(drop_before={"count": 1, "operation": "voids"})
    shaped(ReceiptOut, wired.void(wired.authorized()["payment_id"]), 202)
    meter = meter_of(api_over_the_wire)

    api_over_the_wire.worker_has_been_at_it(wired)

    assert meter.moved("calls_resumed_total", operation="void", outcome="settled") == 1
    assert meter.moved("bank_retries_total", operation="void", reason="resumed") == 1


# --- the ledger ---


def test_an_operation_without_an_outcome_and_its_age(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    meter = meter_of(api)
    bank.will_suffer(Misfortune.SILENT_BEFORE)
    shaped(ReceiptOut, merchant.authorize(), 202)
    assert merchant.record is not None
    api.execute(
        "UPDATE bank_calls SET since = since - interval '30 days' WHERE merchant_id = %(merchant)s",
        merchant=merchant.record.merchant_id,
    )

    assert meter.moved("operations_outstanding") == 1
    oldest = told(api.nobody().get("/metrics").text, "oldest_outstanding_seconds")
    assert oldest >= 30 * 24 * 3600
    api.worker_has_been_at_it(merchant)
    assert meter.moved("operations_outstanding") == 0


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (Operation.AUTHORIZATION, "possible_orphan_hold"),
        (Operation.CAPTURE, "capture_id_unknown"),
        (Operation.REFUND, "refund_id_unknown"),
    ],
)
def test_a_review_by_its_reason(
    api: Api, merchant: Caller, bank: FakeBank, operation: Operation, reason: str
) -> None:
    ask: Callable[[], Any] = merchant.authorize
    if operation is Operation.CAPTURE:
        payment_id = merchant.authorized()["payment_id"]
        ask = lambda: merchant.capture(payment_id)  # noqa: E731
    elif operation is Operation.REFUND:
        payment_id = merchant.captured()["payment_id"]
        ask = lambda: merchant.refund(payment_id)  # noqa: E731
    meter = meter_of(api)
    bank.will_suffer(Misfortune.FORGETS)
    assert ask().status_code == 202

    api.worker_has_been_at_it(merchant)

    assert meter.moved("payments_needing_review", reason=reason) == 1
    assert meter.moved("payments_needing_review") == 1


def test_an_answer_that_is_given_again(api: Api, merchant: Caller) -> None:
    body, key = an_authorization(), fresh("key")
    meter = meter_of(api)

    for _ in range(3):
        merchant.post("/v1/authorizations", body, key=key)

    assert meter.moved("idempotent_replays_total", route="/v1/authorizations") == 2


def test_a_request_and_how_it_was_answered(api: Api, merchant: Caller) -> None:
    meter = meter_of(api)

    merchant.get("/v1/receipts/pay_unknown")

    of = {"method": "GET", "route": "/v1/receipts/{payment_id}"}
    assert meter.moved("http_requests_total", **of, status="404") == 1
    assert meter.moved("http_request_seconds_count", **of) == 1


# --- several processes ---


@pytest.fixture
def installation(
    databases: Databases, simulator: Bank, tmp_path: Path
) -> Iterator[tuple[Server, Api, Path]]:
    """A server that shares its folder with whoever else runs there, and its database seen from here."""
    bank_url = f"http://127.0.0.1:{simulator.port}"
    with databases.clone() as url, an_api(url, BANK_URL=bank_url) as api:
        server = Server(tmp_path, url, BANK_URL=bank_url)
        yield server, api, tmp_path
        server.stop()


def a_worker(api: Api, folder: Path) -> "subprocess.Popen[bytes]":
    settings = api.services.settings
    assert settings.database_url is not None
    environment = settings_for(
        settings.database_url,
        BANK_URL=settings.bank_url,
        DATA_DIR=str(folder),
        VAULT_KEYS=",".join(settings.vault_keys),
    )
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.cli", "work"],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=log,
            stderr=log,
        )


def test_what_a_worker_counts_is_told_by_the_api_also_when_it_is_dead(
    installation: tuple[Server, Api, Path], simulator: Bank
) -> None:
    server, api, folder = installation

    def metrics() -> str:
        return server.request("GET", "/metrics").text

    def breakers() -> set[str]:
        families = text_string_to_metric_families(metrics())
        samples = [sample for family in families for sample in family.samples]
        return {s.labels["pid"] for s in samples if s.name == "counterfoil_bank_breaker_open"}

    merchant = api.merchant()
    payment_id = merchant.authorized()["payment_id"]
    simulator.faults(drop_before=1)
    shaped(ReceiptOut, merchant.void(payment_id), 202)
    assert merchant.record is not None
    api.execute("UPDATE bank_calls SET due_at = clock_timestamp()")
    worker = a_worker(api, folder)
    try:
        of = {"operation": "void", "outcome": "settled"}
        eventually(lambda: told(metrics(), "calls_resumed_total", **of) == 1)
        assert told(metrics(), "bank_attempts_total", operation="void") == 1
        assert str(worker.pid) in breakers()
    finally:
        worker.kill()
        worker.wait(PATIENCE_SECONDS)

    assert str(worker.pid) not in breakers()
    assert breakers()
    assert told(metrics(), "calls_resumed_total", operation="void") == 1


def test_a_file_that_is_still_empty_hides_nobodys_counts(
    installation: tuple[Server, Api, Path],
) -> None:
    """A process has one for a moment as it begins; one that is killed right then leaves it for ever."""
    server, _, folder = installation
    assert server.request("GET", "/v1/health").status == 200
    (folder / "metrics" / "counter_1.db").touch()

    response = server.request("GET", "/metrics")

    assert response.status == 200
    assert told(response.text, "http_requests_total", route="/v1/health") >= 1


# --- the list ---


def test_the_list_of_metrics_is_the_metrics(api: Api, merchant: Caller) -> None:
    assert WITH_METRICS_OF_THEIR_OWN
    merchant.authorized()
    text = api.nobody().get("/metrics").text

    published = {
        line.split()[2] for line in text.splitlines() if line.startswith("# TYPE counterfoil_")
    }
    listed = {
        word.strip("`")
        for line in DOCUMENTED.read_text().splitlines()
        if line.startswith("| `counterfoil_")
        for word in line.split()[1:2]
    }

    assert {name for name in published if not name.endswith("_created")} == listed

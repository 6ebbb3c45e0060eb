"""While the bank is down: nothing new is begun, what was begun goes on, and everything can be read."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.schemas import ReceiptOut, RefundOut
from infrastructure import processes
from infrastructure.bank.breaker import PAUSE_SECONDS, PROBES
from tests.api.a_server import free_port
from tests.api.an_api import (
    EMPTY_CARD,
    Api,
    Caller,
    an_api,
    an_authorization,
    error_of,
    fresh,
    refusal,
    shaped,
)
from tests.fakes import FakeBank, Misfortune
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank

PATIENCE_SECONDS = 30
THREADS = 12
SHORT_SECONDS = 4.0  # for who does not wait for the bank, on a busy machine


def test_a_new_authorization_is_told_to_come_back_and_leaves_nothing(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    bank.goes_down()
    before = api.behind()

    response = merchant.authorize()

    assert refusal(response) == (503, "api_error", "bank_unavailable", None)
    assert response.headers["Retry-After"] == "5"
    assert response.headers["Stripe-Should-Retry"] == "true"
    assert api.behind() == before
    assert bank.requests == []


def test_the_key_of_what_was_not_begun_is_free(merchant: Caller, bank: FakeBank) -> None:
    body, key = an_authorization(), fresh("key")
    bank.goes_down()
    error_of(merchant.post("/v1/authorizations", body, key=key), 503)
    bank.comes_back()

    response = merchant.post("/v1/authorizations", body, key=key)

    shaped(ReceiptOut, response, 201)
    assert "Idempotent-Replayed" not in response.headers


@pytest.mark.parametrize(("fields", "status"), [({}, 201), ({"card": EMPTY_CARD}, 402)])
def test_what_was_answered_before_is_answered_again(
    merchant: Caller, bank: FakeBank, fields: dict[str, object], status: int
) -> None:
    body, key = an_authorization(**fields), fresh("key")
    first = merchant.post("/v1/authorizations", body, key=key)
    bank.goes_down()

    second = merchant.post("/v1/authorizations", body, key=key)

    assert (first.status_code, second.status_code) == (status, status)
    assert second.data == first.data
    assert second.headers["Idempotent-Replayed"] == "true"


def test_what_has_no_outcome_yet_is_still_a_202(merchant: Caller, bank: FakeBank) -> None:
    body, key = an_authorization(), fresh("key")
    bank.will_suffer(Misfortune.SILENT_BEFORE)
    first = shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 202)
    bank.goes_down()

    second = shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 202)

    assert second == first


def test_a_key_of_another_request_is_still_told_as_that(merchant: Caller, bank: FakeBank) -> None:
    key = fresh("key")
    shaped(ReceiptOut, merchant.authorize(key=key), 201)
    bank.goes_down()

    response = merchant.authorize(key=key)

    assert error_of(response, 409)["code"] == "key_reused"


def test_money_that_is_held_or_taken_can_be_moved(merchant: Caller, bank: FakeBank) -> None:
    held, other, taken = merchant.authorized(), merchant.authorized(), merchant.captured()
    bank.goes_down()

    shaped(ReceiptOut, merchant.capture(held["payment_id"]), 201)
    bank.goes_down()
    shaped(ReceiptOut, merchant.void(other["payment_id"]), 201)
    bank.goes_down()
    shaped(RefundOut, merchant.refund(taken["payment_id"]), 201)


# --- with threads, and a bank that really goes and comes ---


class MortalBank:
    """A simulator that can be killed and started again, at the same port and with the same books."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self.port = free_port()
        self.lives()

    def lives(self) -> None:
        options = ("--balance", "100000000", "--port", str(self.port))
        self._bank = Bank(self._database, *CALM, *options)

    def dies(self) -> None:
        self._bank.kill()


@pytest.fixture
def mortal_bank(tmp_path: Path) -> Iterator[MortalBank]:
    bank = MortalBank(tmp_path / "bank.db")
    yield bank
    bank.dies()


class Reader:
    """Reads a receipt for as long as it is left to, and remembers how it went."""

    def __init__(self, merchant: Caller, payment_id: str) -> None:
        self.statuses: list[int] = []
        self.slowest_seconds = 0.0
        self._merchant, self._path = merchant, f"/v1/receipts/{payment_id}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            self.statuses.append(self._merchant.get(self._path).status_code)
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)


def asked_until(merchant: Caller, wanted: int) -> list[int]:
    """New authorizations, one after the other, until one is answered so."""
    statuses: list[int] = []

    def is_answered_so() -> bool:
        statuses.append(merchant.authorize().status_code)
        return statuses[-1] == wanted

    assert processes.wait_until(is_answered_so, PATIENCE_SECONDS), statuses
    return statuses


def test_a_bank_that_is_killed_and_comes_back_costs_few_attempts_and_no_read(
    shared_database_url: str, mortal_bank: MortalBank
) -> None:
    url = f"http://127.0.0.1:{mortal_bank.port}"
    with an_api(shared_database_url, BANK_URL=url) as api:
        merchant = api.merchant()
        payment_id = merchant.authorized()["payment_id"]
        reader = Reader(merchant, payment_id)
        try:
            mortal_bank.dies()
            with ThreadPoolExecutor(THREADS) as threads:
                each = list(threads.map(lambda _: asked_until(merchant, 503), range(THREADS)))
            began, probed = time.monotonic(), 0
            while time.monotonic() - began < PAUSE_SECONDS * 1.5:
                probed += merchant.authorize().status_code == 202
            voided_while_down = merchant.void(payment_id)
            mortal_bank.lives()
            asked_until(merchant, 201)
            after = [merchant.authorize().status_code for _ in range(PROBES + 10)]
        finally:
            reader.stop()

    down = [status for statuses in each for status in statuses]
    assert set(down) == {202, 503}
    assert down.count(202) <= 2 * THREADS
    assert probed <= 2 * PROBES
    assert voided_while_down.status_code == 202  # begun, and left to the worker
    assert after.count(201) >= 10
    assert after[-10:] == [201] * 10
    assert set(reader.statuses) == {200}
    assert reader.slowest_seconds < SHORT_SECONDS


def test_every_refusal_of_the_bank_that_is_down_says_when_to_come_back(
    shared_database_url: str,
) -> None:
    with an_api(shared_database_url, BANK_URL="http://127.0.0.1:9") as api:
        merchant = api.merchant()
        asked_until(merchant, 503)

        response = merchant.authorize()

    assert json.loads(response.data)["error"]["code"] == "bank_unavailable"
    assert int(response.headers["Retry-After"]) > 0


def test_who_asks_again_for_what_was_begun_keeps_no_new_one_from_the_bank_that_is_back(
    shared_database_url: str, mortal_bank: MortalBank
) -> None:
    url = f"http://127.0.0.1:{mortal_bank.port}"
    with an_api(shared_database_url, BANK_URL=url) as api:
        merchant = api.merchant()
        body, key = an_authorization(), fresh("key")
        shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 201)
        mortal_bank.dies()
        asked_until(merchant, 503)
        mortal_bank.lives()
        deadline, statuses = time.monotonic() + 2 * PAUSE_SECONDS, [503]
        while statuses[-1] == 503 and time.monotonic() < deadline:
            for _ in range(20 * PROBES):
                shaped(ReceiptOut, merchant.post("/v1/authorizations", body, key=key), 201)
            statuses.append(merchant.authorize().status_code)

    assert statuses[-1] == 201

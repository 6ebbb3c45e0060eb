"""The production server's own process is stopped while the bank is at it, and goes on much later."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from infrastructure import processes
from tests.api.a_server import Server
from tests.api.an_api import Api, Caller, an_authorization, fresh
from tests.infrastructure.bank_simulator.a_bank import Bank, eventually

BANK_MILLISECONDS = 3000


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """All of the server's processes; a child of a stopped parent has its own signal to get."""
    pids = [server.pid, *children(server.pid)]
    assert len(pids) > 1
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def children(parent: int) -> list[int]:
    listing = processes.ps("-axo", "pid=,ppid=")
    pairs = [(int(pid), int(its)) for pid, its in map(str.split, listing.splitlines())]
    return [pid for pid, its in pairs if its == parent]


def kinds(bank: Bank, payment_id: str) -> list[str]:
    entries = bank.ledger()["transactions"]
    return [each["type"] for each in entries if each["idempotency_key"].startswith(payment_id)]


def test_a_server_that_slept_past_its_lease_gives_the_answer_that_another_wrote(
    server: tuple[Server, Api], simulator: Bank
) -> None:
    real, api = server
    merchant: Caller = api.merchant()
    assert merchant.key is not None
    body, idempotency_key, key = an_authorization(), fresh("key"), merchant.key
    simulator.faults(hang_after={"count": 1, "milliseconds": BANK_MILLISECONDS})

    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(real.post, "/v1/authorizations", body, key, idempotency_key)
        eventually(lambda: bool(simulator.ledger()["in_flight"]))
        with stopped(real):
            eventually(lambda: not simulator.ledger()["in_flight"])
            api.worker_has_been_at_it(merchant)
            resolved = merchant.post("/v1/authorizations", body, key=idempotency_key)
            before = api.behind()
        told = asked.result()

    assert (resolved.status_code, told.status) == (201, 201)
    assert told.text == resolved.text
    assert api.behind() == before
    assert kinds(simulator, told.json["payment_id"]) == ["AUTH_HOLD"]

"""A Postgres of the test's own is restarted, crashed, frozen, and filled up, while payments go on.

What was acknowledged is there afterwards, the books agree, and neither the API nor the worker was
started again.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest
from werkzeug.test import TestResponse

from infrastructure import processes
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate
from infrastructure.worker import Worker
from tests.api.an_api import Caller, an_api, an_authorization, json_of
from tests.faults.a_small_disk import SmallDisk
from tests.faults.a_world import OUTSTANDING, Request, Scene, World, a_world
from tests.faults.scenes import a_request
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank, eventually
from tests.patience import stopwatch

ANSWERED_WITHIN_SECONDS: Final = 2.0
BANK_MILLISECONDS: Final = 1500
UNDER_LOAD_SECONDS: Final = 6.0  # for all of the clients
RECOVERED_WITHIN_SECONDS: Final = 45.0  # a worker's own lease may have to run out
CLIENTS: Final = 6
ENOUGH: Final = 40

# No request is at work any more, and a worker's own calls are left to it.
ABANDONED_ARE_DUE: Final[LiteralString] = """
    UPDATE bank_calls SET due_at = clock_timestamp() WHERE parked OR attempts = 0
"""
BACKENDS: Final[LiteralString] = """
    SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A durable one, in a folder that `nobody` can reach too."""
    with tempfile.TemporaryDirectory(prefix="counterfoil-outages-") as folder:
        Path(folder).chmod(0o711)
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            migrate(postgres.start())
            yield postgres
        finally:
            postgres.remove()


@pytest.fixture(scope="module")
def calm_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    with a_bank(tmp_path_factory.mktemp("bank")) as bank:
        yield bank


@pytest.fixture
def another_bank(tmp_path: Path) -> Iterator[Bank]:
    with a_bank(tmp_path) as bank:
        yield bank


@contextmanager
def a_bank(folder: Path) -> Iterator[Bank]:
    bank = Bank(folder / "bank.db", *CALM, "--balance", "100000000")
    try:
        yield bank
    finally:
        bank.kill()


@pytest.fixture
def world(postgres: EmbeddedPostgres, calm_bank: Bank) -> Iterator[World]:
    calm_bank.faults(reset=True)
    with a_world(postgres.start(), calm_bank, waits=None) as world:
        yield world


@contextmanager
def at_work(world: World) -> Iterator[None]:
    """A worker works all the while."""
    worker = Worker(world.api.services)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


class Load:
    """Clients that pay, one payment after another, and go on with the next whatever they are told."""

    def __init__(self, world: World, merchant: Caller) -> None:
        self._world, self._merchant = world, merchant
        self._over = threading.Event()
        self.acknowledged: list[tuple[Request, bytes]] = []
        self.unresolved: list[Request] = []
        self.seconds: list[float] = []

    @contextmanager
    def going_on(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as executor:
            clients = [executor.submit(self._pay_on_and_on) for _ in range(CLIENTS)]
            try:
                yield
            finally:
                self._over.set()
            for client in clients:
                client.result()

    def wait_for_more(self) -> None:
        wanted = len(self.acknowledged) + ENOUGH
        assert processes.wait_until(
            lambda: len(self.acknowledged) >= wanted, RECOVERED_WITHIN_SECONDS
        )

    def _pay_on_and_on(self) -> None:
        while not self._over.is_set():
            held = self._ask("/v1/authorizations", an_authorization())
            if held is not None:
                fields = {"payment_id": json_of(held)["payment_id"]}
                if self._ask("/v1/captures", fields) is not None:
                    self._ask("/v1/refunds", fields)

    def _ask(self, path: str, body: dict[str, object]) -> TestResponse | None:
        request = a_request(self._merchant, path, body).request
        assert request is not None
        began = time.monotonic()
        response = self._world.ask(request)
        self.seconds.append(time.monotonic() - began)
        if response.status_code == 201:
            self.acknowledged.append((request, response.data))
            return response
        assert response.status_code in {202, 503}, response.text
        self.unresolved.append(request)
        return None


@contextmanager
def patient(world: World, postgres: EmbeddedPostgres) -> Iterator[World]:
    """The same, asked about what has been, which no standstill of the machine may put in doubt."""
    with an_api(postgres.url(), BANK_URL=f"http://127.0.0.1:{world.bank.port}") as api:
        yield replace(world, api=api)


def restarted(postgres: EmbeddedPostgres) -> None:
    postgres.stop()
    postgres.start()


def stopped_at_once(postgres: EmbeddedPostgres) -> None:
    """As by a power cut: nothing is written down any more."""
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGQUIT)
    eventually(lambda: postgres.pid is None)
    postgres.start()


def crashed(postgres: EmbeddedPostgres) -> None:
    """A backend is killed, and with it goes every connection: the server begins anew by itself."""
    with psycopg.connect(postgres.url()) as connection:
        (one, *_) = backends(connection)
    os.kill(one, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("outage", [restarted, stopped_at_once, crashed])
def test_what_was_acknowledged_under_load_is_there_after_an_outage_and_all_goes_on_by_itself(
    world: World, postgres: EmbeddedPostgres, outage: Callable[[EmbeddedPostgres], None]
) -> None:
    load = Load(world, world.merchant())
    with at_work(world):
        with load.going_on():
            load.wait_for_more()
            outage(postgres)
            load.wait_for_more()
        assert processes.wait_until(lambda: nothing_is_left(world), RECOVERED_WITHIN_SECONDS)

    with patient(world, postgres) as asking:
        for request, told in load.acknowledged:
            assert asking.ask(request).data == told
        asking.check([Scene(act={}, request=request) for request in load.unresolved])
    assert max(load.seconds) < UNDER_LOAD_SECONDS


def nothing_is_left(world: World) -> bool:
    world.api.execute(ABANDONED_ARE_DUE)
    return set(world.row(OUTSTANDING).values()) == {0}


# --- frozen -------------------------------------------------------------------------------------


def backends(connection: psycopg.Connection) -> list[int]:
    """The server's, but for the one that tells."""
    own = connection.info.backend_pid
    return [pid for (pid,) in connection.execute(BACKENDS) if pid != own]


def children(parent: int) -> list[int]:
    """The server's processes, of which some are not yet listed by the server itself."""
    if processes.HAS_PROC:
        all_fields = [(pid, processes.stat_fields(pid)) for pid in processes.every_pid()]
        return [pid for pid, it in all_fields if it and it[1] == str(parent)]
    rows = [row.split() for row in processes.ps("-axo", "pid=,ppid=").splitlines()]
    return [int(pid) for pid, its in rows if int(its) == parent]


@contextmanager
def frozen(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Nobody answers and nobody hangs up, as behind a network that has gone."""
    assert postgres.pid is not None
    # First, so that no backend is added to those that are stopped next.
    os.kill(postgres.pid, signal.SIGSTOP)
    pids = [*children(postgres.pid), postgres.pid]
    for pid in pids:
        processes.send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            processes.send(pid, signal.SIGCONT)


def timed(ask: Callable[[], TestResponse]) -> tuple[int, float]:
    with stopwatch() as watch:
        response = ask()
    return response.status_code, watch.seconds


def test_while_the_server_is_frozen_everything_is_refused_in_time_and_then_goes_on(
    world: World, postgres: EmbeddedPostgres
) -> None:
    merchant = world.merchant()
    merchant.authorized()
    scene = a_request(merchant, "/v1/authorizations", an_authorization())
    assert scene.request is not None
    request = scene.request

    with frozen(postgres):
        asks = [lambda: world.ask(request), lambda: merchant.get("/v1/receipts")] * 2
        told = [timed(ask) for ask in asks]

    assert [status for status, _ in told] == [503] * len(told)
    assert max(seconds for _, seconds in told) < ANSWERED_WITHIN_SECONDS
    world.settle_down()
    world.recover()
    world.check([scene])


def test_when_the_server_freezes_while_the_bank_is_asked_the_answer_is_a_202_in_time(
    world: World, postgres: EmbeddedPostgres
) -> None:
    merchant = world.merchant()
    merchant.authorized()
    scene = a_request(merchant, "/v1/authorizations", an_authorization())
    assert scene.request is not None
    world.bank.faults(hang_after={"count": 1, "milliseconds": BANK_MILLISECONDS})

    with ThreadPoolExecutor(1) as executor, stopwatch() as watch:
        asked = executor.submit(world.ask, scene.request)
        eventually(lambda: bool(world.bank.ledger()["in_flight"]))
        with frozen(postgres):
            response = asked.result()

    assert (response.status_code, json_of(response)["status"]) == (202, "pending")
    assert watch.seconds < BANK_MILLISECONDS / 1000 + ANSWERED_WITHIN_SECONDS
    world.settle_down()
    world.recover()
    world.check([scene])


# --- full ---------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    disk = SmallDisk.mounted()
    if disk is None:
        pytest.skip(
            "this machine lets nobody mount a small disk, not even in a namespace of theirs"
        )
    try:
        yield disk
    finally:
        disk.end()


def test_when_the_disk_is_full_commands_are_refused_reads_go_on_and_space_is_all_it_takes(
    small_disk: SmallDisk, another_bank: Bank
) -> None:
    migrate(small_disk.url)
    with a_world(small_disk.url, another_bank, waits=None) as world, at_work(world):
        merchant = world.merchant()
        first = merchant.authorized()
        small_disk.fill()
        scenes = until_refused(world, merchant)
        read = merchant.receipt(first["payment_id"])
        small_disk.free()

        assert read["status"] == "authorized"
        assert merchant.authorize().status_code == 201
        assert processes.wait_until(lambda: nothing_is_left(world), RECOVERED_WITHIN_SECONDS)
        world.check(scenes)


def until_refused(world: World, merchant: Caller) -> list[Scene]:
    """Payments until the last page is full too, and the last of them is refused."""
    scenes: list[Scene] = []
    for _ in range(1000):
        scene = a_request(merchant, "/v1/authorizations", an_authorization())
        assert scene.request is not None
        scenes.append(scene)
        status, took = timed(partial(world.ask, scene.request))
        assert took < ANSWERED_WITHIN_SECONDS
        if status == 503:
            return scenes
        assert status in {201, 202}
    raise AssertionError("the disk was never full")

"""An application for each of the partner's terms, shared; a bank and merchants for each test."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from infrastructure.vault import new_key
from tests.api.a_server import Server
from tests.api.an_api import Api, Caller, an_api
from tests.builders import ANY_AMOUNT, FULL_AMOUNTS
from tests.conftest import Databases
from tests.fakes import FakeBank, SteppableClock
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank

# Nothing listens there: a test that forgets its bank fails, and fast.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="session")
def shared_api(shared_database_url: str) -> Iterator[Api]:
    with an_api(shared_database_url, BANK_URL=NOWHERE) as api:
        yield api


@pytest.fixture
def bank() -> FakeBank:
    """The partner, to the letter: full amounts, dollars."""
    return FakeBank(SteppableClock(datetime.now(UTC)), FULL_AMOUNTS)


@pytest.fixture
def extended_bank() -> FakeBank:
    """A bank that takes parts, any currency, and a card without a CVC."""
    return FakeBank(SteppableClock(datetime.now(UTC)), ANY_AMOUNT)


@pytest.fixture
def api(shared_api: Api, bank: FakeBank) -> Iterator[Api]:
    with shared_api.asking(bank):
        yield shared_api


@pytest.fixture
def extended_api(shared_api: Api, extended_bank: FakeBank) -> Iterator[Api]:
    with shared_api.asking(extended_bank):
        yield shared_api


@pytest.fixture
def merchant(api: Api) -> Caller:
    return api.merchant()


@pytest.fixture
def extended_merchant(extended_api: Api) -> Caller:
    return extended_api.merchant()


@pytest.fixture(scope="session")
def calm_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, "--balance", "100000000")
    yield bank
    bank.kill()


@pytest.fixture
def simulator(calm_simulator: Bank) -> Bank:
    """The partner in a process of its own, neither slow nor failing unless it is told to."""
    calm_simulator.faults(reset=True)
    return calm_simulator


@pytest.fixture(scope="session")
def extended_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    database = tmp_path_factory.mktemp("bank") / "bank.db"
    bank = Bank(database, *CALM, "--profile", "extended", "--balance", "100000000")
    yield bank
    bank.kill()


@pytest.fixture(scope="session")
def api_over_the_wire(shared_database_url: str, calm_simulator: Bank) -> Iterator[Api]:
    """On the real driver, which waits two seconds for the bank and no more."""
    url = f"http://127.0.0.1:{calm_simulator.port}"
    with an_api(shared_database_url, BANK_URL=url, BANK_TIMEOUT_SECONDS="2") as api:
        yield api


@pytest.fixture(scope="session")
def extended_api_over_the_wire(shared_database_url: str, extended_simulator: Bank) -> Iterator[Api]:
    url = f"http://127.0.0.1:{extended_simulator.port}"
    with an_api(shared_database_url, BANK_URL=url, BANK_PROFILE="extended") as api:
        yield api


@pytest.fixture(scope="session")
def billing_database_url(databases: Databases) -> Iterator[str]:
    """Of an application that keeps fingerprints, which others' vault keys cannot read."""
    with databases.clone() as url:
        yield url


@pytest.fixture(scope="session")
def billing_api(billing_database_url: str, extended_simulator: Bank) -> Iterator[Api]:
    bank_url = f"http://127.0.0.1:{extended_simulator.port}"
    with an_api(billing_database_url, BANK_URL=bank_url, BANK_PROFILE="extended") as api:
        yield api


@pytest.fixture(scope="session")
def server(
    databases: Databases, calm_simulator: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Api]]:
    """The production server, and the same database seen from here."""
    bank_url, vault_keys = f"http://127.0.0.1:{calm_simulator.port}", new_key()
    with databases.clone() as url, an_api(url, BANK_URL=bank_url, VAULT_KEYS=vault_keys) as api:
        folder = tmp_path_factory.mktemp("server")
        server = Server(folder, url, BANK_URL=bank_url, VAULT_KEYS=vault_keys)
        yield server, api
        server.stop()

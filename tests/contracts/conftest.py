"""Both of everything: the fake and the real thing."""

from collections.abc import Iterator

import pytest

from infrastructure.database import Pool
from tests.builders import ANY_AMOUNT
from tests.conftest import Databases
from tests.contracts.banks import (
    BankOfTheSimulatedWorld,
    ChallengingPartner,
    LittleBank,
    Partner,
    RecordKeeper,
    SimulatedBank,
)
from tests.contracts.stores import MemoryStore, PostgresStore, Store
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank
from tests.patience import patient_pool


@pytest.fixture(scope="session")
def contract_pool(databases: Databases) -> Iterator[Pool]:
    """A database of the suite's own, emptied for each test, which is quicker than another clone."""
    with databases.clone() as url, patient_pool(url, size=4) as pool:
        yield pool


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    """A ledger's store, empty."""
    if request.param == "memory":
        return MemoryStore()
    return PostgresStore.emptied(request.getfixturevalue("contract_pool"))


@pytest.fixture(params=["memory", "postgres"])
def hurried_store(request: pytest.FixtureRequest) -> Store:
    """One beside a bank that gives up on a call sooner: it is quiet for 7 seconds."""
    if request.param == "memory":
        return MemoryStore(quiet_seconds=7)
    return PostgresStore.emptied(request.getfixturevalue("contract_pool"), quiet_seconds=7)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The simulator in a process of its own, neither slow nor failing by chance."""
    bank = Bank(tmp_path_factory.mktemp("contracts") / "bank.db", *CALM, "--balance", "10000000")
    yield bank
    bank.kill()


@pytest.fixture(params=["fake", "simulator", "simulated world"])
def partner(request: pytest.FixtureRequest) -> Iterator[Partner]:
    """The partner bank, behind the port."""
    match request.param:
        case "fake":
            yield LittleBank()
        case "simulator":
            yield SimulatedBank(request.getfixturevalue("simulator"))
        case _:
            bank = BankOfTheSimulatedWorld()
            yield bank
            bank.close()


@pytest.fixture(params=["fake", "simulator"])
def keeper(request: pytest.FixtureRequest) -> RecordKeeper:
    """The partner bank with its records, behind the ports."""
    if request.param == "fake":
        return LittleBank()
    return SimulatedBank(request.getfixturevalue("simulator"))


@pytest.fixture(scope="session")
def extended_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The simulator of the richer kind."""
    folder = tmp_path_factory.mktemp("extended-contracts")
    # What takes days takes them by the bank's own clock, which tests put forward.
    options = ("--profile", "extended", "--settle-seconds", "3600")
    bank = Bank(folder / "bank.db", *CALM, *options)
    yield bank
    bank.kill()


@pytest.fixture(params=["fake", "simulator"])
def challenging(request: pytest.FixtureRequest) -> ChallengingPartner:
    """A bank that has some shoppers approve, behind the ports."""
    if request.param == "fake":
        return LittleBank(ANY_AMOUNT)
    return SimulatedBank(request.getfixturevalue("extended_simulator"), "extended")

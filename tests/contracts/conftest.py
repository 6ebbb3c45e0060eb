"""Both of everything: the fake and the real thing."""

from collections.abc import Iterator

import pytest

from infrastructure.database import open_pool
from tests.contracts.banks import LittleBank, Partner, SimulatedBank
from tests.contracts.stores import MemoryStore, PostgresStore, Store
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A ledger's store, empty."""
    if request.param == "memory":
        yield MemoryStore()
        return
    with open_pool(request.getfixturevalue("database_url"), size=4) as pool:
        yield PostgresStore(pool)


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    """The simulator in a process of its own, neither slow nor failing by chance."""
    bank = Bank(tmp_path_factory.mktemp("contracts") / "bank.db", *CALM, "--balance", "10000000")
    yield bank
    bank.kill()


@pytest.fixture(params=["fake", "simulator"])
def partner(request: pytest.FixtureRequest) -> Partner:
    """The partner bank, behind the port."""
    if request.param == "fake":
        return LittleBank()
    return SimulatedBank(request.getfixturevalue("simulator"))

"""One world for each worker's tests: its database, its bank and its zygote."""

from collections.abc import Iterator

import pytest

from tests.conftest import Databases
from tests.faults.a_world import World, a_world
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank


@pytest.fixture(scope="session")
def shared_world(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, "--balance", "100000000")
    try:
        with databases.clone() as url, a_world(url, bank) as world:
            yield world
    finally:
        bank.kill()


@pytest.fixture
def world(shared_world: World) -> World:
    shared_world.bank.faults(reset=True)
    return shared_world

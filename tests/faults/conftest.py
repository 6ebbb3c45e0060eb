"""One world for each worker's tests: its database, its bank and its zygote."""

from collections.abc import Iterator

import pytest

from tests.conftest import Databases
from tests.faults.a_world import World, a_world
from tests.faults.scenes import SCENES
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank


@pytest.fixture(scope="session")
def shared_world(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    bank = Bank(
        tmp_path_factory.mktemp("bank") / "bank.db",
        *CALM,
        "--profile",
        "extended",
        "--balance",
        "100000000",
    )
    try:
        with databases.clone() as url, a_world(url, bank, profile="extended") as world:
            yield world
    finally:
        bank.kill()


@pytest.fixture
def world(shared_world: World) -> World:
    shared_world.bank.faults(reset=True)
    return shared_world


@pytest.fixture(scope="session")
def passes(shared_world: World) -> dict[str, list[str]]:
    """The points that each operation passes when nothing happens to it."""
    world, found = shared_world, {}
    for name, about_to in SCENES.items():
        world.bank.faults(reset=True)
        ended = world.play(about_to(world))
        assert ended["status"] == 0, name
        found[name] = ended["said"]["passed"]
    world.settle_down()
    world.recover()
    return found

"""Banks for the tests: one process of each kind per run, and fresh books per test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infrastructure.bank_simulator.books import Books
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank, open_books


@pytest.fixture(scope="session")
def calm_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, "--balance", "100000000")
    yield bank
    bank.kill()


@pytest.fixture
def bank(calm_bank: Bank) -> Bank:
    calm_bank.faults(reset=True)
    return calm_bank


@pytest.fixture(scope="session")
def extended_bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, "--profile", "extended")
    yield bank
    bank.kill()


@pytest.fixture
def start_bank() -> Iterator[Callable[..., Bank]]:
    """Starts banks that do not outlive the test, however it ends."""
    started: list[Bank] = []

    def start(database: Path, *options: str) -> Bank:
        started.append(Bank(database, *options))
        return started[-1]

    yield start
    for bank in started:
        bank.kill()


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return open_books(tmp_path, "ficmart")


@pytest.fixture
def extended_books(tmp_path: Path) -> Books:
    return open_books(tmp_path, "extended")

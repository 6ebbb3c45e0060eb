"""The whole system as a merchant's developer has it: the API and a worker in processes of their own,
and the bank simulator in its extended profile behind them."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import pytest

from infrastructure.vault import new_key
from tests.api.a_server import PROJECT, Server, free_port
from tests.api.an_api import Api, an_api
from tests.conftest import Databases
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank
from tests.sdk.a_shop import ApiKeys, a_worker
from tests.sdk.node_flows import (
    Missing,
    Node,
    a_node,
    install_packages,
    program_of_a_browser,
)

SCREENSHOTS: Final = PROJECT / "build" / "screenshots"

pytest.register_assert_rewrite("tests.sdk.stripe_flows")


@pytest.fixture(scope="session")
def shop_port() -> int:
    """Of the one shop whose pages may ask the API."""
    return free_port()


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    options = ("--profile", "extended", "--balance", "100000000")
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, *options)
    yield bank
    bank.kill()


@pytest.fixture(scope="session")
def system(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory, bank: Bank, shop_port: int
) -> Iterator[tuple[Server, Api]]:
    """The server, with everything behind it, and the same database seen from here."""
    folder = tmp_path_factory.mktemp("sdk")
    environ: dict[str, Any] = {
        "BANK_URL": f"http://127.0.0.1:{bank.port}",
        "BANK_PROFILE": "extended",
        "VAULT_KEYS": new_key(),
        "CORS_ORIGINS": f"http://127.0.0.1:{shop_port}",
    }
    with databases.clone() as url, an_api(url, **environ) as api:
        server = Server(folder, url, **environ)
        with a_worker(folder, url, **environ):
            yield server, api
        server.stop()
    # Clients ask again, so that a flow alone would not tell.
    assert [line for line in server.log().splitlines() if '"status_code": 500' in line] == []


@pytest.fixture
def api_base(system: tuple[Server, Api]) -> str:
    return f"http://127.0.0.1:{system[0].port}"


@pytest.fixture
def keys(system: tuple[Server, Api]) -> ApiKeys:
    """The keys of a merchant that nobody has heard of."""
    return ApiKeys.of_a_new_merchant(system[1])


@pytest.fixture
def shop(keys: ApiKeys, api_base: str, bank: Bank) -> dict[str, Any]:
    """What a flow in JavaScript knows of its merchant and the world."""
    return {
        "secret": keys.secret,
        "publishable": keys.publishable,
        "apiBase": api_base,
        "bankBase": f"http://127.0.0.1:{bank.port}",
    }


@contextlib.contextmanager
def skipping(config: pytest.Config) -> Iterator[None]:
    """What is missing is a reason to skip, but where everything has to be there."""
    try:
        yield
    except Missing as missing:
        if config.getoption("--proofs"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Node]:
    with skipping(pytestconfig), a_node(tmp_path_factory.mktemp("node")) as process:
        yield process


@pytest.fixture(scope="session")
def node_with_packages(node: Node, pytestconfig: pytest.Config) -> Node:
    """With Stripe's package, and what moves a browser."""
    with skipping(pytestconfig):
        install_packages()
    return node


@pytest.fixture(scope="session")
def browser(pytestconfig: pytest.Config, shop_port: int) -> dict[str, Any]:
    """The program, the shop that it visits, and where it leaves its screenshots."""
    with skipping(pytestconfig):
        chromium = program_of_a_browser()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return {"chromium": chromium, "shopPort": shop_port, "screenshots": str(SCREENSHOTS)}

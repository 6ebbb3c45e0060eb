"""Read models on a database that tests share: each brings a merchant and payments of its own."""

from collections.abc import Iterator

import pytest

from domain.commands import Tenant
from infrastructure.database import Pool
from tests.builders import a_new_tenant
from tests.patience import patient_pool


@pytest.fixture(scope="session")
def pool(shared_database_url: str) -> Iterator[Pool]:
    with patient_pool(shared_database_url, size=2) as pool:
        yield pool


@pytest.fixture
def tenant() -> Tenant:
    """A merchant that no other test has."""
    return a_new_tenant()

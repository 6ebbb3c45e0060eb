"""A log of one's own, by a pool as the writers and followers have it, and by a connection beside it."""

from collections.abc import Iterator

import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from infrastructure.database import Pool
from tests.infrastructure.projections.a_log import connect
from tests.patience import patient_pool


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=8) as pool:
        yield pool


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection[DictRow]]:
    with connect(database_url) as connection:
        yield connection

"""A log of the test's own, sealed by one who has a key of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infrastructure.database import Pool
from tests.audit.a_sealed_log import SealedLog, audit_settings
from tests.patience import patient_pool


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=4) as pool:
        yield pool


@pytest.fixture
def log(pool: Pool, tmp_path: Path) -> SealedLog:
    return SealedLog(pool, audit_settings(tmp_path))

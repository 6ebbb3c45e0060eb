"""`GET /metrics` tells how far behind the log each read model is, and what it lacks."""

from collections.abc import Iterator
from typing import Final, LiteralString

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.projections.generations import set_paused
from projections.registry import ALL
from tests.api.an_api import Api, an_api
from tests.builders import FULL_AMOUNTS
from tests.fakes import FakeBank, SteppableClock

NOWHERE: Final = "http://127.0.0.1:9"
# Its follower cannot move while somebody else has these.
HOLD: LiteralString = "SELECT FROM projection_positions WHERE name = 'customers' FOR UPDATE"
SET_ASIDE: LiteralString = """
    INSERT INTO projection_quarantine
        (name, generation, shard, originator_id, applied_version, error, attempts)
    SELECT 'operations', 1, n, gen_random_uuid(), 0, 'x', 1 FROM generate_series(1, 3) AS n
"""


@pytest.fixture
def own_api(database_url: str) -> Iterator[Api]:
    """What is counted here is counted over the whole database."""
    bank = FakeBank(SteppableClock(), FULL_AMOUNTS)
    with an_api(database_url, BANK_URL=NOWHERE) as api, api.asking(bank):
        yield api


def gauge(api: Api, name: str) -> dict[str, float]:
    """Of each live generation."""
    text = api.nobody().get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families[f"counterfoil_projection_{name}"].samples
    return {s.labels["name"]: s.value for s in samples if s.labels["slot"] == "live"}


def test_every_read_model_tells_its_lag_in_events_and_in_seconds(own_api: Api) -> None:
    with own_api.services.pool.connection() as connection, connection.transaction():
        connection.execute(HOLD)
        own_api.merchant().authorized()
        behind, seconds = gauge(own_api, "lag_events"), gauge(own_api, "lag_seconds")

    assert set(behind) == set(seconds) == {model.name for model in ALL}
    assert behind["customers"] == 2
    assert seconds["customers"] > 0
    assert (behind["receipts"], seconds["receipts"]) == (0, 0)


def test_what_is_set_aside_and_what_is_paused_is_told(own_api: Api) -> None:
    own_api.execute(SET_ASIDE)
    with own_api.services.pool.connection() as connection:
        set_paused(connection, "balances", paused=True)

    assert gauge(own_api, "quarantined") == {
        model.name: 3 * (model.name == "operations") for model in ALL
    }
    assert gauge(own_api, "paused")["balances"] == 1
    assert gauge(own_api, "paused")["customers"] == 0

"""Stripe's official Python package, as it is published, against the running system."""

import pytest

from scripts.sdk_flows import STRIPE_PYTHON, flows_in_python
from tests.sdk.a_shop import ApiKeys
from tests.sdk.stripe_flows import FLOWS, Flow, Shop


@pytest.mark.parametrize("flow", FLOWS.values())
def test_stripes_own_package_works(flow: Flow, keys: ApiKeys, api_base: str) -> None:
    flow(Shop.of(keys, api_base))


def test_every_flow_is_in_the_table() -> None:
    assert flows_in_python(STRIPE_PYTHON) == list(FLOWS)

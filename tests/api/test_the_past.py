"""What is told of the past is what was told then."""

from typing import Any

import pytest

from api.schemas import BalanceOut
from tests.api.an_api import Caller, shaped


@pytest.fixture
def told(extended_merchant: Caller) -> list[dict[str, Any]]:
    """A receipt and a balance after each command."""
    merchant = extended_merchant
    payment_id = merchant.authorized()["payment_id"]
    told = [the_present(merchant, payment_id)]
    for ask, amount in ((merchant.capture, 4000), (merchant.refund, 1500), (merchant.refund, 2500)):
        assert ask(payment_id, amount=amount).status_code == 201
        told.append(the_present(merchant, payment_id))
    return told


def the_present(merchant: Caller, payment_id: str) -> dict[str, Any]:
    return {
        "receipt": merchant.receipt(payment_id),
        "balance": shaped(BalanceOut, merchant.get("/v1/balance"), 200),
    }


def test_each_receipt_is_read_again_by_its_version_and_by_its_time(
    extended_merchant: Caller, told: list[dict[str, Any]]
) -> None:
    for receipt in (each["receipt"] for each in told):
        for moment in (f"version={receipt['version']}", f"as_of={receipt['updated_at']}"):
            assert extended_merchant.receipt(receipt["payment_id"], f"?{moment}") == receipt


def test_each_balance_is_read_again_by_its_time(
    extended_merchant: Caller, told: list[dict[str, Any]]
) -> None:
    for then in told:
        path = f"/v1/balance?as_of={then['receipt']['updated_at']}"
        assert shaped(BalanceOut, extended_merchant.get(path), 200) == then["balance"]

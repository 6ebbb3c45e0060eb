"""`GET /v1/balance`: a read model that follows the log, and yet never lies."""

from typing import LiteralString

import pytest

from api.schemas import BalanceOut
from tests.api.an_api import Api, Caller, error_of, shaped

# Its follower cannot move while somebody else has these.
HOLD: LiteralString = "SELECT FROM projection_positions WHERE name = 'balances' FOR UPDATE"


def balance(merchant: Caller, query: str = "") -> dict[str, int]:
    """The amounts in dollars, by name; zero where there are none."""
    body = shaped(BalanceOut, merchant.get(f"/v1/balance{query}"), 200)
    assert {row["currency"] for row in body["available"]} <= {"usd"}
    names = ("available", "pending", "held", "captured", "refunded")
    return {name: sum(row["amount"] for row in body[name]) for name in names}


def test_a_merchant_without_payments_has_no_balance(merchant: Caller) -> None:
    body = shaped(BalanceOut, merchant.get("/v1/balance"), 200)

    assert body["available"] == body["held"] == []
    assert body["livemode"] is False


def test_every_answered_command_is_in_the_balance_at_once(merchant: Caller) -> None:
    assert balance(merchant)["held"] == 0
    for number in range(1, 6):
        amount = merchant.authorized()["amount"]
        assert balance(merchant)["held"] == number * amount

    merchant.captured()

    assert balance(merchant)["captured"] == amount
    assert balance(merchant)["available"] == amount


def test_refunds_and_voids_leave_what_is_left(extended_merchant: Caller) -> None:
    payment = extended_merchant.captured()
    extended_merchant.refund(payment["payment_id"], amount=700)
    extended_merchant.voided()

    assert balance(extended_merchant) == {
        "available": payment["amount"] - 700,
        "pending": 0,
        "held": 0,
        "captured": payment["amount"],
        "refunded": 700,
    }


def test_one_customers_balance_is_of_their_payments_only(merchant: Caller) -> None:
    mine = merchant.authorized(customer_id="cus_mine")
    merchant.authorized(customer_id="cus_other")

    assert balance(merchant, "?customer_id=cus_mine")["held"] == mine["amount"]
    assert balance(merchant, "?customer_id=cus_nobody")["held"] == 0


def test_a_balance_of_the_past_is_what_the_receipts_were_then(merchant: Caller) -> None:
    payment = merchant.captured()
    timeline = {step["status"]: step["at"] for step in payment["timeline"]}
    merchant.refund(payment["payment_id"])

    held = balance(merchant, f"?as_of={timeline['authorized']}")
    captured = balance(merchant, f"?as_of={timeline['captured']}")
    pending = balance(merchant, f"?as_of={timeline['pending']}")

    assert (held["held"], held["captured"]) == (payment["amount"], 0)
    assert (captured["held"], captured["available"]) == (0, payment["amount"])
    assert pending["held"] == 0
    assert balance(merchant)["available"] == 0


@pytest.mark.parametrize("query", ["?as_of=yesterday", "?customer_id=", "?limit=1"])
def test_what_is_malformed_is_refused(merchant: Caller, query: str) -> None:
    assert merchant.get(f"/v1/balance{query}").status_code == 400


def test_a_model_that_does_not_have_the_writes_says_so(api: Api, merchant: Caller) -> None:
    """Rather than an old balance: 503, after a second, and the truth once it goes on."""
    with api.services.pool.connection() as connection, connection.transaction():
        connection.execute(HOLD)
        amount = merchant.authorized()["amount"]
        refused = merchant.request("GET", "/v1/balance")

    assert error_of(refused, 503)["code"] == "service_unavailable"
    assert "Retry-After" in refused.headers
    assert balance(merchant)["held"] == amount

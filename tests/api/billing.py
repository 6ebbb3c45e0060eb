"""A merchant with subscribers, and workers who do what falls due."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from werkzeug.test import TestResponse

from infrastructure.duties import billing_desk
from tests.api.an_api import Api, Caller, json_of

GOOD: Final = "pm_card_visa"
BAD: Final = "pm_card_chargeDeclined"
MONTHLY: Final = {"amount": 1500, "currency": "usd", "interval": "month"}
START: Final = int(datetime(2027, 1, 31, 12, tzinfo=UTC).timestamp())
DAY: Final = 24 * 3600
CLOCKS: Final = "/v1/test_helpers/test_clocks"
PATIENCE: Final = 40


def answered(response: TestResponse, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return json_of(response)


def a_clock(merchant: Caller, at: int = START) -> str:
    clock: str = answered(merchant.post(CLOCKS, {"frozen_time": at}), 201)["id"]
    return clock


def a_customer(merchant: Caller, **fields: Any) -> str:
    customer: str = answered(merchant.post("/v1/customers", fields), 201)["id"]
    return customer


def subscribed(merchant: Caller, customer: str, **fields: Any) -> dict[str, Any]:
    body = {"customer": customer, "default_payment_method": GOOD, **MONTHLY, **fields}
    found: dict[str, Any] = answered(merchant.post("/v1/subscriptions", body), 201)
    return found


def a_subscriber(merchant: Caller, at: int = START, **fields: Any) -> tuple[str, str]:
    """By a clock of their own: its id, and the subscription's."""
    clock = a_clock(merchant, at)
    customer = a_customer(merchant, test_clock=clock)
    return clock, subscribed(merchant, customer, **fields)["id"]


def advance(api: Api, merchant: Caller, clock: str, to: int) -> None:
    answered(merchant.post(f"{CLOCKS}/{clock}/advance", {"frozen_time": to}))
    settle(api, merchant, clock)


def settle(api: Api, merchant: Caller, clock: str) -> None:
    """Workers work until the clock has arrived."""
    for _ in range(PATIENCE):
        billing_desk(api.services).work()
        if answered(merchant.get(f"{CLOCKS}/{clock}"))["status"] == "ready":
            return
    raise AssertionError("the clock never arrived")


def subscription(merchant: Caller, subscription_id: str) -> dict[str, Any]:
    found: dict[str, Any] = answered(merchant.get(f"/v1/subscriptions/{subscription_id}"))
    return found


def invoices(merchant: Caller, subscription_id: str) -> list[dict[str, Any]]:
    """From the first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        path = f"/v1/invoices?subscription={subscription_id}&limit=100{cursor}"
        page = answered(merchant.get(path))
        found += page["data"]
        if not page["has_more"]:
            return found[::-1]
        cursor = f"&starting_after={page['next_cursor']}"


def moments(times: Sequence[int]) -> list[str]:
    return [datetime.fromtimestamp(each, UTC).strftime("%Y-%m-%dT%H:%M") for each in times]

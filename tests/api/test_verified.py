"""What a merchant does with disputes, subscriptions, clocks and endpoints leaves nothing that verifying finds
fault with; and a row of a dispute that is not what was recorded is found."""

from typing import LiteralString

import pytest

from infrastructure.duties import work_on_disputes
from infrastructure.verification.run import Verified, Wanted, verify
from tests.api.an_api import GOOD_CARD, Api, Caller, json_of
from tests.api.billing import BAD, DAY, START, a_subscriber, advance, invoices
from tests.infrastructure.bank_simulator.a_bank import Bank

RAISED: LiteralString = """
    UPDATE disputes SET document = jsonb_set(document, '{amount}', to_jsonb(%(amount)s::int))
    WHERE document ->> 'id' = %(id)s
"""


@pytest.fixture
def api(billing_api: Api, extended_simulator: Bank) -> Api:
    extended_simulator.faults(reset=True)
    return billing_api


def verified(database_url: str) -> Verified:
    wanted = Wanted(database_url=database_url, keys=[], outside=[], is_thorough=True)
    return verify(wanted, lambda *_: None, workers=1)


def disputes(api: Api, merchant: Caller) -> list[str]:
    """One is open, with evidence, one was lost, one was given up, and one was won; by their ids."""
    for number in range(4):
        body = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_createDispute"}
        merchant.post("/v1/payment_intents", {**body, "confirm": True}, key=f"paid-{number}")
    while work_on_disputes(api.services):
        pass
    ids = [each["id"] for each in json_of(merchant.get("/v1/disputes"))["data"]]
    for number, word in enumerate(["", "losing_evidence", "winning_evidence"]):
        said = {"evidence": {"uncategorized_text": f"It is {word}"}, "submit": bool(word)}
        merchant.post(f"/v1/disputes/{ids[number]}", said, key=f"said-{number}")
    merchant.post(f"/v1/disputes/{ids[3]}/close", {}, key="closed")
    while work_on_disputes(api.services):
        pass
    return ids


def test_nothing_is_found_of_what_a_merchant_does_with_all_this(
    api: Api, merchant: Caller, billing_database_url: str
) -> None:
    disputes(api, merchant)
    clock, found = a_subscriber(merchant)
    merchant.post(f"/v1/subscriptions/{found}", {"default_payment_method": BAD}, key="bad")
    advance(api, merchant, clock, START + 40 * DAY)
    path = f"/v1/test_helpers/test_clocks/{clock}"
    merchant.request("DELETE", path, headers={"Idempotency-Key": "gone"})
    endpoint = {"url": "https://shop.example/hooks", "enabled_events": ["*"]}
    made = json_of(merchant.post("/v1/webhook_endpoints", endpoint, key="hook"))
    merchant.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret", {}, key="rotated")
    gone = json_of(merchant.post("/v1/webhook_endpoints", endpoint, key="hook that goes"))
    path = f"/v1/webhook_endpoints/{gone['id']}"
    merchant.post(path, {"description": "Goes"}, key="hook changes")
    merchant.request("DELETE", path, headers={"Idempotency-Key": "hook goes"})
    merchant.post("/v1/tokens", {"card": GOOD_CARD}, key="token")

    told = verified(billing_database_url)

    assert [each["status"] for each in invoices(merchant, found)] == ["paid", "open"]
    assert [finding.line for finding in told.findings] == []
    assert sum(told.postings["USD"].values()) == 0


def test_a_dispute_that_is_not_as_it_was_recorded_is_found(
    api: Api, merchant: Caller, billing_database_url: str
) -> None:
    altered = disputes(api, merchant)[0]
    api.execute(RAISED, id=altered, amount=1)

    told = verified(billing_database_url)

    api.execute(RAISED, id=altered, amount=2000)
    (finding,) = told.findings
    assert "`document.amount` is not what the events make it" in finding.line

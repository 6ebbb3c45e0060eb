"""Disputes: the bank takes money back, the merchant answers, and the bank decides."""

from typing import Any

import pytest

from domain.commands import Cause, Mode
from infrastructure.dispute_desk import DisputeDesk
from infrastructure.duties import work_on_disputes
from infrastructure.projections.differences import differences
from infrastructure.services import bank_disputes
from tests.api.an_api import Api, Caller, error_of, json_of, refusal
from tests.infrastructure.bank_simulator.a_bank import Bank
from tests.infrastructure.projections.a_log import rebuilt

DISPUTED = "pm_card_createDispute"
WORKER = Cause(actor="worker")
WITHDRAWN = ["charge.dispute.created", "charge.dispute.funds_withdrawn"]


def paid(merchant: Caller, method: str = DISPUTED, **fields: Any) -> dict[str, Any]:
    body = {"amount": 2000, "currency": "usd", "payment_method": method, "confirm": True}
    response = merchant.post("/v1/payment_intents", {**body, **fields})
    assert response.status_code == 201, response.text
    intent: dict[str, Any] = json_of(response)
    return intent


def told(api: Api, merchant: Caller) -> list[dict[str, Any]]:
    """The merchant's disputes, once a worker has been at it."""
    while work_on_disputes(api.services):
        pass
    disputes: list[dict[str, Any]] = json_of(merchant.get("/v1/disputes"))["data"]
    return disputes


def disputed(api: Api, merchant: Caller) -> dict[str, Any]:
    paid(merchant)
    (dispute,) = told(api, merchant)
    return dispute


def events(merchant: Caller) -> list[str]:
    """By type: those of one moment are in no order."""
    found = json_of(merchant.get("/v1/events?type=charge.dispute.*&limit=100"))["data"]
    return sorted(event["type"] for event in found)


def balance(merchant: Caller, query: str = "") -> tuple[int, int]:
    """What is available, and what is disputed."""
    found = json_of(merchant.get(f"/v1/balance{query}"))
    return found["available"][0]["amount"], found["disputed"][0]["amount"]


def bank_says(bank: Bank, **body: Any) -> dict[str, Any]:
    answer = bank.request("POST", "/__disputes", body)
    assert answer.status == 200, answer.text
    said: dict[str, Any] = answer.json
    return said


@pytest.fixture
def api(billing_api: Api, extended_simulator: Bank) -> Api:
    extended_simulator.faults(reset=True)
    return billing_api


@pytest.fixture
def bank(extended_simulator: Bank) -> Bank:
    return extended_simulator


def test_a_disputed_payment_is_told_of_once_and_its_money_is_withdrawn(
    api: Api, merchant: Caller
) -> None:
    intent = paid(merchant)

    (dispute,) = told(api, merchant)

    assert told(api, merchant) == [dispute]
    assert (dispute["charge"], dispute["payment_intent"]) == (
        intent["latest_charge"],
        intent["id"],
    )
    assert (dispute["amount"], dispute["currency"]) == (2000, "usd")
    assert (dispute["status"], dispute["reason"]) == ("needs_response", "fraudulent")
    assert dispute["evidence_details"]["due_by"] > dispute["created"]
    assert events(merchant) == WITHDRAWN
    assert balance(merchant) == (0, 2000)
    charge = json_of(merchant.get(f"/v1/charges/{intent['latest_charge']}?expand[]=dispute"))
    assert (charge["disputed"], charge["dispute"]) == (True, dispute)
    found = json_of(merchant.get("/v1/charges/search?query=disputed:'true'"))["data"]
    assert [each["id"] for each in found] == [charge["id"]]
    for query in (f"charge={charge['id']}", f"payment_intent={intent['id']}"):
        assert json_of(merchant.get(f"/v1/disputes?{query}"))["data"] == [dispute]


def test_a_disputed_payment_cannot_be_refunded_until_it_is_won(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    dispute = disputed(api, merchant)
    before = len(bank.ledger()["transactions"])

    refused = merchant.post("/v1/refunds", {"charge": dispute["charge"]})

    assert refusal(refused)[0::2] == (409, "charge_disputed")
    assert len(bank.ledger()["transactions"]) == before
    won = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    merchant.post(f"/v1/disputes/{dispute['id']}", won)
    assert told(api, merchant)[0]["status"] == "won"
    given_back = json_of(merchant.post("/v1/refunds", {"charge": dispute["charge"]}))
    assert given_back["status"] == "succeeded"


@pytest.mark.parametrize(
    ("word", "status", "available"),
    [("winning_evidence", "won", 2000), ("losing_evidence", "lost", 0)],
)
def test_evidence_decides_a_dispute(
    api: Api, merchant: Caller, word: str, status: str, available: int
) -> None:
    dispute = disputed(api, merchant)
    path = f"/v1/disputes/{dispute['id']}"

    drafted = json_of(merchant.post(path, {"evidence": {"customer_name": "Ada"}}))
    body = {"evidence": {"uncategorized_text": word}, "submit": True, "metadata": {"ticket": "4"}}
    submitted = json_of(merchant.post(path, body))

    assert (drafted["status"], drafted["evidence"]["customer_name"]) == ("needs_response", "Ada")
    assert submitted["status"] == "under_review"
    assert submitted["evidence_details"]["submission_count"] == 1
    (decided,) = told(api, merchant)
    assert (decided["status"], decided["metadata"]) == (status, {"ticket": "4"})
    assert decided["evidence"]["customer_name"] == "Ada"
    assert balance(merchant) == (available, 2000 - available)
    assert balance(merchant, f"?as_of={dispute['created'] + 3600}") == balance(merchant)
    updates = ["charge.dispute.updated"] * 2
    closed = ["charge.dispute.closed"]
    reinstated = ["charge.dispute.funds_reinstated"] if status == "won" else []
    assert events(merchant) == sorted([*WITHDRAWN, *updates, *closed, *reinstated])
    assert refusal(merchant.post(path, {"submit": True}))[0::2] == (409, "dispute_not_open")


def test_a_dispute_that_is_given_up_is_lost_at_once_and_the_bank_is_told(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    dispute = disputed(api, merchant)

    closed = json_of(merchant.post(f"/v1/disputes/{dispute['id']}/close", {}))

    assert closed["status"] == "lost"
    assert [each["status"] for each in told(api, merchant)] == ["lost"]
    assert bank.ledger()["disputes"][-1]["status"] == "lost"
    assert events(merchant) == ["charge.dispute.closed", *WITHDRAWN]


def test_the_banks_word_is_the_last_on_what_was_given_up_too_late(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    dispute = disputed(api, merchant)
    bank_says(bank, dispute_id=bank.ledger()["disputes"][-1]["dispute_id"], decision="won")

    merchant.post(f"/v1/disputes/{dispute['id']}/close", {})

    assert [each["status"] for each in told(api, merchant)] == ["won"]
    assert balance(merchant) == (2000, 0)


def test_answers_reach_the_bank_though_the_line_is_cut(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    dispute = disputed(api, merchant)
    merchant.post(f"/v1/disputes/{dispute['id']}", {"evidence": {"receipt": "x"}, "submit": True})
    bank.faults(drop_after={"operation": "dispute_evidence", "count": 1})

    told(api, merchant)
    api.execute("UPDATE dispute_responses SET due_at = clock_timestamp()")
    told(api, merchant)

    found = bank.ledger()["disputes"][-1]
    assert found["status"] == "under_review"
    bank_says(bank, dispute_id=found["dispute_id"], decision="won")
    assert [each["status"] for each in told(api, merchant)] == ["won"]


def test_part_of_a_payment_is_disputed_and_the_rest_stays(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    intent = paid(merchant, "pm_card_visa")
    receipt = merchant.receipt(intent["latest_charge"].replace("ch_", "pay_"))

    bank_says(bank, capture_id=receipt["bank"]["capture_id"], amount=500, reason="duplicate")

    (dispute,) = told(api, merchant)
    assert (dispute["amount"], dispute["reason"]) == (500, "duplicate")
    assert balance(merchant) == (1500, 500)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"evidence": "words"}, "evidence"),
        ({"evidence": {"nonsense": "x"}}, "evidence"),
        ({"evidence": {"receipt": 5}}, "evidence"),
        ({"evidence": {"receipt": "x" * 150_001}}, "evidence"),
        ({"submit": "maybe"}, "submit"),
        ({"metadata": [1]}, "metadata"),
        ({"status": "won"}, "status"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    api: Api, merchant: Caller, body: dict[str, Any], param: str
) -> None:
    dispute = disputed(api, merchant)

    response = merchant.post(f"/v1/disputes/{dispute['id']}", body)

    assert refusal(response)[0::3] == (400, param)
    assert told(api, merchant) == [dispute]


def test_what_was_said_is_erased_with_the_customer(api: Api, merchant: Caller) -> None:
    customer = json_of(merchant.post("/v1/customers", {"name": "Ada"}))["id"]
    paid(merchant, customer=customer)
    (dispute,) = told(api, merchant)
    path = f"/v1/disputes/{dispute['id']}"
    merchant.post(path, {"evidence": {"customer_name": "Ada"}}, key="said")

    assert merchant.request("DELETE", f"/v1/customers/{customer}").status_code == 204

    assert json_of(merchant.get(path))["evidence"]["customer_name"] is None


def test_what_was_answered_of_evidence_tells_of_nobody_once_the_customer_is_erased(
    api: Api, merchant: Caller
) -> None:
    customer = json_of(merchant.post("/v1/customers", {"name": "Ada"}))["id"]
    paid(merchant, customer=customer)
    (dispute,) = told(api, merchant)
    path, body = f"/v1/disputes/{dispute['id']}", {"evidence": {"uncategorized_text": "Ada said"}}
    merchant.post(path, body, key="said")

    merchant.request("DELETE", f"/v1/customers/{customer}")

    again = merchant.post(path, body, key="said")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert json_of(again)["evidence"]["uncategorized_text"] is None
    assert "Ada" not in again.text


def test_a_repeated_answer_is_the_first_one_and_is_given_once(api: Api, merchant: Caller) -> None:
    dispute = disputed(api, merchant)
    path = f"/v1/disputes/{dispute['id']}"
    said = {"evidence": {"receipt": "x"}, "submit": True}

    for body, command in ((said, ""), ({"metadata": {"a": "b"}}, ""), ({}, "")):
        first = merchant.post(path + command, body, key=str(body))
        again = merchant.post(path + command, body, key=str(body))
        assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")

    assert events(merchant).count("charge.dispute.updated") == 2
    assert refusal(merchant.post(path, {}, key=str(said)))[0::2] == (409, "key_reused")


def test_evidence_of_many_answers_is_no_longer_than_that_of_one(api: Api, merchant: Caller) -> None:
    path = f"/v1/disputes/{disputed(api, merchant)['id']}"
    merchant.post(path, {"evidence": {"receipt": "x" * 100_000}})

    refused = merchant.post(path, {"evidence": {"refund_policy": "x" * 50_001}})

    assert refusal(refused)[0::3] == (400, "evidence")
    replaced = json_of(merchant.post(path, {"evidence": {"receipt": "y" * 150_000}}))
    assert len(replaced["evidence"]["receipt"]) == 150_000


def test_what_is_told_of_one_payment_is_taken_in_in_its_order(
    api: Api, merchant: Caller, bank: Bank
) -> None:
    told(api, merchant)
    paid(merchant)
    bank_says(bank, dispute_id=bank.ledger()["disputes"][-1]["dispute_id"], decision="won")
    services = api.services
    desk = DisputeDesk(services.pool, services.ledger, bank_disputes(services), WORKER)
    assert desk.read() == 2
    api.execute(
        "UPDATE dispute_notices SET due_at = clock_timestamp() + interval '1 hour' "
        "WHERE position = (SELECT position - 1 FROM dispute_feed)"
    )

    assert desk.take_in() == 0
    api.execute("UPDATE dispute_notices SET due_at = clock_timestamp()")

    assert [each["status"] for each in told(api, merchant)] == ["won"]
    assert balance(merchant) == (2000, 0)


def test_what_a_bank_tells_anew_is_not_lost_behind_what_waits_in_its_place(
    api: Api, merchant: Caller
) -> None:
    told(api, merchant)
    api.execute(
        "INSERT INTO dispute_notices (position, notice) SELECT position + 1, "
        '\'{"capture_key": "another banks"}\' FROM dispute_feed'
    )
    paid(merchant)

    assert len(told(api, merchant)) == 1


def test_the_balances_transactions_add_up_to_what_is_available(api: Api, merchant: Caller) -> None:
    dispute = disputed(api, merchant)
    found = json_of(merchant.get("/v1/balance_transactions"))["data"]
    assert sorted((each["type"], each["amount"]) for each in found) == [
        ("adjustment", -2000),
        ("charge", 2000),
    ]
    won = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
    merchant.post(f"/v1/disputes/{dispute['id']}", won)
    told(api, merchant)

    found = json_of(merchant.get("/v1/balance_transactions"))["data"]

    assert sum(each["amount"] for each in found) == balance(merchant)[0] == 2000
    named = merchant.get(f"/v1/balance_transactions?source={dispute['id']}&expand[]=data.source")
    assert {each["source"]["status"] for each in json_of(named)["data"]} == {"won"}


def test_nobody_else_is_told_of_a_dispute(api: Api, merchant: Caller) -> None:
    dispute = disputed(api, merchant)
    others = (api.merchant(), api.merchant(merchant.merchant, mode=Mode.LIVE))

    for other in others:
        answers = [
            other.get(f"/v1/disputes/{dispute['id']}"),
            other.get(f"/v1/disputes?starting_after={dispute['id']}"),
            other.get(f"/v1/disputes?charge={dispute['charge']}"),
            other.post(f"/v1/disputes/{dispute['id']}", {"metadata": {"a": "b"}}),
            other.post(f"/v1/disputes/{dispute['id']}/close", {}),
        ]
        assert [error_of(each, 404)["type"] for each in answers] == ["resource_missing"] * 5


def test_a_rebuild_makes_the_same_rows_and_tells_nothing_twice(
    api: Api, merchant: Caller, billing_database_url: str
) -> None:
    dispute = disputed(api, merchant)
    merchant.post(f"/v1/disputes/{dispute['id']}/close", {})
    before = (told(api, merchant), events(merchant), balance(merchant))

    for name in ("disputes", "balances", "api_events"):
        rebuilt(billing_database_url, name)
        assert list(differences(billing_database_url, name)) == []

    assert (told(api, merchant), events(merchant), balance(merchant)) == before

"""Billing from outside: clocks that are made once, what waits and what fails beside what goes on, and what
ends while a shopper is asked."""

from typing import Any, LiteralString
from uuid import UUID

import pytest

from domain.commands import Audience, Cause
from domain.ids import Prefix, decode
from infrastructure.billing_desk import BillingDesk, Step, Taken
from infrastructure.duties import billing_desk
from tests.api.an_api import Api, Caller, json_of, refusal
from tests.api.billing import (
    BAD,
    CLOCKS,
    DAY,
    GOOD,
    MONTHLY,
    START,
    a_clock,
    a_customer,
    a_subscriber,
    advance,
    answered,
    invoices,
    subscribed,
    subscription,
)
from tests.infrastructure.bank_simulator.a_bank import Bank

WORKER = Cause(actor="worker")
ASKED = "pm_card_threeDSecure2Required"
OVERDUE: LiteralString = """
    UPDATE subscriptions SET document = jsonb_set(document, '{due_at}', to_jsonb(%(at)s::text))
    WHERE id = %(id)s
"""


@pytest.fixture
def api(billing_api: Api, extended_simulator: Bank) -> Api:
    extended_simulator.faults(reset=True)
    return billing_api


def uuid_of(subscription_id: str) -> UUID:
    return decode(Prefix.SUBSCRIPTION, subscription_id)


# --- clocks ---


def test_a_clock_is_made_sent_on_its_way_and_deleted_once(api: Api, merchant: Caller) -> None:
    made = [merchant.post(CLOCKS, {"frozen_time": START}, key="made") for _ in range(2)]
    path = f"{CLOCKS}/{json_of(made[0])['id']}"
    sent = [
        merchant.post(f"{path}/advance", {"frozen_time": START + DAY}, key="sent") for _ in range(2)
    ]
    other = merchant.post(f"{path}/advance", {"frozen_time": START + 2 * DAY}, key="sent")
    billing_desk(api.services).work()
    gone = [merchant.request("DELETE", path, headers={"Idempotency-Key": "gone"}) for _ in range(2)]

    for first, again in (made, sent, gone):
        assert (again.status_code, again.data) == (first.status_code, first.data)
        assert again.headers["Idempotent-Replayed"] == "true"
    assert refusal(other)[0::2] == (409, "key_reused")
    assert answered(merchant.get(CLOCKS))["data"] == []


def test_what_is_made_is_what_is_found(api: Api, merchant: Caller) -> None:
    made = answered(merchant.post(CLOCKS, {"frozen_time": START, "name": "Leap year"}), 201)

    assert answered(merchant.get(f"{CLOCKS}/{made['id']}")) == made


def test_a_customer_says_by_which_clock_they_live(api: Api, merchant: Caller) -> None:
    clock = a_clock(merchant)
    made = answered(merchant.post("/v1/customers", {"test_clock": clock}, key="one"), 201)
    path = f"/v1/customers/{made['id']}"
    changed = answered(merchant.post(path, {"name": "Ada"}))
    (event,) = answered(merchant.get("/v1/events?type=customer.created"))["data"]

    assert made["test_clock"] == changed["test_clock"] == clock
    assert answered(merchant.get(path))["test_clock"] == clock
    assert event["data"]["object"]["test_clock"] == clock
    assert answered(merchant.get(f"/v1/customers/{a_customer(merchant)}"))["test_clock"] is None
    merchant.request("DELETE", f"{CLOCKS}/{clock}")
    assert answered(merchant.get(path))["test_clock"] is None


@pytest.mark.parametrize("at", [253_402_300_799, -1, 1.5, "soon"])
def test_a_clock_says_a_time_that_has_a_calendar_before_and_after_it(
    api: Api, merchant: Caller, at: Any
) -> None:
    refused = merchant.post(CLOCKS, {"frozen_time": at})

    assert refusal(refused)[0::3] == (400, "frozen_time")


def test_the_latest_clock_there_is_has_periods(api: Api, merchant: Caller) -> None:
    latest = 253_086_768_000
    _, found = a_subscriber(merchant, latest, interval="year", interval_count=3)

    assert subscription(merchant, found)["current_period_end"] == latest + 1096 * DAY


# --- what stands beside what ---


class Watched(BillingDesk):
    """A desk of which it is known what was taken up, and that fails at one thing."""

    seen: list[UUID]
    fails_at: UUID | None = None

    def take(self, step: Step) -> Taken:
        self.seen.append(step.id)
        if step.id == self.fails_at:
            raise RuntimeError("of all things")
        return super().take(step)


def watched(api: Api, fails_at: UUID | None = None) -> Watched:
    made = Watched(
        pool=api.services.pool,
        billing=api.services.billing,
        wallet=api.services.wallet,
        clocks=api.services.test_clocks,
        clock=api.services.clock,
        cause=WORKER,
        audience=Audience(family="worker"),
        call_seconds=5.0,
        at_once=1,
    )
    made.seen, made.fails_at = [], fails_at
    return made


@pytest.mark.parametrize("fails", [False, True])
def test_what_waits_or_fails_holds_up_nothing_that_is_due_after_it(
    api: Api, merchant: Caller, fails: bool
) -> None:
    found = [subscribed(merchant, a_customer(merchant))["id"] for _ in range(2)]
    for at, each in zip(("2019", "2020"), found, strict=True):
        api.execute(OVERDUE, id=uuid_of(each), at=f"{at}-01-01T00:00:00.000000Z")
    clock, beside = a_subscriber(merchant)
    answered(merchant.post(f"{CLOCKS}/{clock}/advance", {"frozen_time": START + 40 * DAY}))
    desk = watched(api, uuid_of(found[0]) if fails else None)

    for _ in range(3):
        desk.work()

    assert [each for each in desk.seen if each in map(uuid_of, found)] == [*map(uuid_of, found)]
    assert len(invoices(merchant, beside)) == 2
    for each in found:
        merchant.request("DELETE", f"/v1/subscriptions/{each}")


# --- shoppers who are asked ---


def test_a_subscription_ends_though_its_first_payment_waits_for_the_shopper(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    body = {"customer": a_customer(merchant), "default_payment_method": ASKED, **MONTHLY}
    made = merchant.post("/v1/subscriptions", body, key="asked")
    found = json_of(made)["id"]
    (invoice,) = invoices(merchant, found)

    gone = answered(merchant.request("DELETE", f"/v1/subscriptions/{found}"))
    api.worker_has_been_at_it(merchant)

    assert (made.status_code, gone["status"]) == (202, "canceled")
    assert invoices(merchant, found)[0]["status"] == "void"
    intent = answered(merchant.get(f"/v1/payment_intents/{invoice['payment_intent']}"))
    assert intent["status"] == "canceled"
    again = merchant.post("/v1/subscriptions", body, key="asked")
    assert (again.status_code, json_of(again)["status"]) == (201, "canceled")


def test_a_customer_is_forgotten_though_a_shopper_is_asked(api: Api, merchant: Caller) -> None:
    customer = a_customer(merchant)
    found = json_of(
        merchant.post(
            "/v1/subscriptions", {"customer": customer, "default_payment_method": BAD, **MONTHLY}
        )
    )["id"]
    (invoice,) = invoices(merchant, found)
    path = f"/v1/payment_intents/{invoice['payment_intent']}/confirm"
    asked = merchant.post(path, {"payment_method": ASKED}, key="confirmed")
    assert json_of(asked)["status"] == "requires_action"

    gone = merchant.request("DELETE", f"/v1/customers/{customer}")
    api.worker_has_been_at_it(merchant)

    assert gone.status_code == 204
    assert subscription(merchant, found)["status"] == "canceled"
    again = merchant.post(path, {"payment_method": ASKED}, key="confirmed")
    assert (again.status_code, json_of(again)["status"]) == (200, "canceled")


# --- what is paid by ---


def test_an_account_that_was_attached_last_is_not_the_card_that_pays(
    api: Api, merchant: Caller
) -> None:
    customer = a_customer(merchant)
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    account = {"account_number": "12345678", "sort_code": "108800"}
    methods = [
        {"type": "card", "card": card},
        {"type": "bacs_debit", "bacs_debit": account, "billing_details": {"name": "Ada"}},
    ]
    for each in methods:
        made = answered(merchant.post("/v1/payment_methods", each), 201)
        merchant.post(f"/v1/payment_methods/{made['id']}/attach", {"customer": customer})

    found = answered(merchant.post("/v1/subscriptions", {"customer": customer, **MONTHLY}), 201)

    assert found["status"] == "active"


def test_what_is_retried_after_a_detachment_is_counted_and_ends(api: Api, merchant: Caller) -> None:
    clock = a_clock(merchant)
    customer = a_customer(merchant, test_clock=clock)
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    method = answered(merchant.post("/v1/payment_methods", {"type": "card", "card": card}), 201)
    merchant.post(f"/v1/payment_methods/{method['id']}/attach", {"customer": customer})
    found = subscribed(merchant, customer, default_payment_method=method["id"])["id"]
    merchant.post(f"/v1/payment_methods/{method['id']}/detach", {})

    advance(api, merchant, clock, START + 40 * DAY)

    last = invoices(merchant, found)[-1]
    assert (last["status"], last["attempt_count"], last["charge"]) == ("open", 5, None)
    assert subscription(merchant, found)["status"] == "canceled"
    paid = answered(merchant.post(f"/v1/invoices/{last['id']}/pay", {"payment_method": GOOD}))
    assert paid["status"] == "paid"


@pytest.mark.parametrize("kind", ["subscriptions", "invoices"])
def test_what_lives_by_a_clock_is_listed_by_the_time_that_it_was_made_at(
    api: Api, merchant: Caller, kind: str
) -> None:
    clock, found = a_subscriber(merchant)
    advance(api, merchant, clock, START + 40 * DAY)

    def listed(query: str) -> list[int]:
        page = answered(merchant.get(f"/v1/{kind}?{query}"))
        return [each["created"] for each in page["data"]]

    every = listed("")
    assert listed(f"created[gte]={START}") == listed(f"created[lt]={START + 50 * DAY}") == every
    assert listed(f"created[gt]={START}&created[lte]={every[0]}") == every[:-1]
    assert listed(f"created[lt]={START}") == []
    assert found


def test_who_was_forgotten_while_subscribing_is_billed_for_no_other_period(
    api: Api, merchant: Caller
) -> None:
    clock, found = a_subscriber(merchant)
    customer_id = decode(Prefix.CUSTOMER, subscription(merchant, found)["customer"])
    customer: Any = api.services.ledger.repository.get(customer_id)
    customer.delete(at=api.services.clock.now())
    api.services.ledger.record((customer,), WORKER, ())

    advance(api, merchant, clock, START + 40 * DAY)

    assert subscription(merchant, found)["status"] == "canceled"
    assert len(invoices(merchant, found)) == 1

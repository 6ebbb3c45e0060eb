"""Subscriptions: periods without gaps, each paid once, whatever declines, dies or is asked twice."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.commands import Mode
from infrastructure.duties import billing_desk
from infrastructure.projections.differences import differences
from tests.api.an_api import Api, Caller, brief, error_of, json_of, refusal
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
    moments,
    settle,
    subscribed,
    subscription,
)
from tests.infrastructure.bank_simulator.a_bank import Bank
from tests.infrastructure.projections.a_log import rebuilt


@pytest.fixture
def api(billing_api: Api, extended_simulator: Bank) -> Api:
    extended_simulator.faults(reset=True)
    return billing_api


def captures(bank: Bank, merchant: Caller) -> int:
    """How often the bank took money for the merchant's payments."""
    mine = {
        each["id"].removeprefix("ch_")
        for each in answered(merchant.get("/v1/charges?limit=100"))["data"]
    }
    keys = [e["idempotency_key"] for e in bank.ledger()["transactions"] if e["type"] == "CAPTURE"]
    return sum(key.partition("-")[0].removeprefix("pay_") in mine for key in keys)


def test_the_first_period_is_paid_at_once(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    customer = a_customer(merchant)

    made = subscribed(
        merchant, customer, metadata={"seat": "4"}, expand=["latest_invoice.payment_intent"]
    )

    assert (made["status"], made["amount"], made["interval"]) == ("active", 1500, "month")
    invoice = made["latest_invoice"]
    assert (invoice["status"], invoice["amount_paid"], invoice["attempt_count"]) == (
        "paid",
        1500,
        1,
    )
    assert invoice["payment_intent"]["status"] == "succeeded"
    assert invoice["charge"] == invoice["payment_intent"]["latest_charge"]
    stored = subscription(merchant, made["id"])
    assert stored == {**made, "latest_invoice": invoice["id"]}
    assert answered(merchant.get(f"/v1/subscriptions?customer={customer}"))["data"] == [stored]
    assert captures(extended_simulator, merchant) == 1
    kinds = [e["type"] for e in answered(merchant.get("/v1/events?limit=100"))["data"]]
    for kind in (
        "customer.subscription.created",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.payment_succeeded",
        "invoice.paid",
    ):
        assert kinds.count(kind) == 1


def test_the_same_request_subscribes_once(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    body = {"customer": a_customer(merchant), "default_payment_method": GOOD, **MONTHLY}

    first = merchant.post("/v1/subscriptions", body, key="one")
    again = merchant.post("/v1/subscriptions", body, key="one")

    assert (first.data, again.headers["Idempotent-Replayed"]) == (again.data, "true")
    assert captures(extended_simulator, merchant) == 1


def test_stripes_shape_and_a_form_are_taken(api: Api, merchant: Caller) -> None:
    form = {
        "customer": a_customer(merchant),
        "default_payment_method": GOOD,
        "items[0][price_data][currency]": "eur",
        "items[0][price_data][unit_amount]": "500",
        "items[0][price_data][recurring][interval]": "week",
        "items[0][price_data][recurring][interval_count]": "2",
        "items[0][price_data][product_data][name]": "Beans",
        "items[0][quantity]": "3",
        "cancel_at_period_end": "true",
    }

    made = answered(merchant.post("/v1/subscriptions", data=form), 201)

    assert (made["amount"], made["currency"], made["quantity"]) == (1500, "eur", 3)
    price = made["items"]["data"][0]["price"]
    assert (price["unit_amount"], price["recurring"]["interval_count"]) == (500, 2)
    assert made["current_period_end"] - made["current_period_start"] == 14 * DAY
    assert made["cancel_at"] == made["current_period_end"]


def test_the_customers_newest_method_pays_where_none_is_named(api: Api, merchant: Caller) -> None:
    customer = a_customer(merchant)
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    method = answered(merchant.post("/v1/payment_methods", {"type": "card", "card": card}), 201)
    merchant.post(f"/v1/payment_methods/{method['id']}/attach", {"customer": customer})

    made = answered(merchant.post("/v1/subscriptions", {"customer": customer, **MONTHLY}), 201)

    assert (made["status"], made["default_payment_method"]) == ("active", method["id"])


def test_periods_follow_one_another_and_each_is_paid(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    clock, found = a_subscriber(merchant)

    advance(api, merchant, clock, START + 95 * DAY)

    told = invoices(merchant, found)
    assert moments([each["period_start"] for each in told]) == [
        "2027-01-31T12:00",
        "2027-02-28T12:00",
        "2027-03-31T12:00",
        "2027-04-30T12:00",
    ]
    assert [each["period_end"] for each in told[:-1]] == [each["period_start"] for each in told[1:]]
    assert {each["status"] for each in told} == {"paid"}
    assert [each["created"] for each in told] == [each["period_start"] for each in told]
    assert captures(extended_simulator, merchant) == 4
    assert subscription(merchant, found)["latest_invoice"] == told[-1]["id"]


def test_a_card_that_declines_is_tried_again_and_then_it_ends(api: Api, merchant: Caller) -> None:
    clock, found = a_subscriber(merchant, interval="year")
    merchant.post(f"/v1/subscriptions/{found}", {"default_payment_method": BAD})
    due = int(datetime(2028, 1, 31, 12, tzinfo=UTC).timestamp())

    seen = []
    for day in (0, 1, 2, 3, 5, 7):
        advance(api, merchant, clock, due + day * DAY)
        (_, last) = invoices(merchant, found)
        seen.append((last["attempt_count"], subscription(merchant, found)["status"]))

    assert seen == [
        (1, "past_due"),
        (2, "past_due"),
        (2, "past_due"),
        (3, "past_due"),
        (4, "past_due"),
        (5, "canceled"),
    ]
    assert (last["status"], last["next_payment_attempt"]) == ("open", None)
    gone = subscription(merchant, found)
    assert gone["cancellation_details"]["reason"] == "payment_failed"
    assert gone["ended_at"] == due + 7 * DAY
    events = answered(merchant.get("/v1/events?type=invoice.payment_failed"))["data"]
    assert len(events) == 5
    assert len(answered(merchant.get("/v1/events?type=customer.subscription.deleted"))["data"]) == 1


def test_a_retry_that_is_paid_makes_it_active_again(api: Api, merchant: Caller) -> None:
    clock, found = a_subscriber(merchant)
    merchant.post(f"/v1/subscriptions/{found}", {"default_payment_method": BAD})
    advance(api, merchant, clock, START + 29 * DAY)
    assert subscription(merchant, found)["status"] == "past_due"

    merchant.post(f"/v1/subscriptions/{found}", {"default_payment_method": GOOD})
    advance(api, merchant, clock, START + 31 * DAY)

    assert subscription(merchant, found)["status"] == "active"
    assert [each["status"] for each in invoices(merchant, found)] == ["paid", "paid"]


def test_an_open_invoice_is_paid_by_hand_and_once(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    clock, found = a_subscriber(merchant)
    merchant.post(f"/v1/subscriptions/{found}", {"default_payment_method": BAD})
    advance(api, merchant, clock, START + 28 * DAY)
    path = f"/v1/invoices/{invoices(merchant, found)[-1]['id']}/pay"

    declined = merchant.post(path, {})
    paid = answered(merchant.post(path, {"payment_method": GOOD}))

    assert brief(error_of(declined, 402), "type", "code") == ("card_error", "card_declined")
    assert (paid["status"], subscription(merchant, found)["status"]) == ("paid", "active")
    assert refusal(merchant.post(path, {}))[0::2] == (409, "invoice_not_open")
    assert captures(extended_simulator, merchant) == 2


def test_a_first_payment_that_is_declined_can_be_made_up_for_within_a_day(
    api: Api, merchant: Caller
) -> None:
    _, found = a_subscriber(merchant, default_payment_method=BAD)
    (invoice,) = invoices(merchant, found)
    assert subscription(merchant, found)["status"] == "incomplete"
    assert invoice["next_payment_attempt"] is None

    intent = f"/v1/payment_intents/{invoice['payment_intent']}"
    for command, body in (("", {"amount": 1}), ("/cancel", {})):
        refused = merchant.post(intent + command, body)
        assert refusal(refused)[2] == "payment_intent_unexpected_state"
    answered(merchant.post(f"{intent}/confirm", {"payment_method": GOOD}))

    assert subscription(merchant, found)["status"] == "active"
    assert invoices(merchant, found)[0]["status"] == "paid"


def test_a_first_payment_that_never_comes_is_given_up(api: Api, merchant: Caller) -> None:
    clock, found = a_subscriber(merchant, default_payment_method=BAD)

    advance(api, merchant, clock, START + 40 * DAY)

    (invoice,) = invoices(merchant, found)
    assert subscription(merchant, found)["status"] == "incomplete_expired"
    assert invoice["status"] == "void"
    intent = f"/v1/payment_intents/{invoice['payment_intent']}"
    assert answered(merchant.get(intent))["status"] == "canceled"
    late = merchant.post(f"{intent}/confirm", {"payment_method": GOOD})
    assert refusal(late)[2] == "payment_intent_unexpected_state"


def test_it_ends_with_its_period_or_at_once(api: Api, merchant: Caller) -> None:
    clock, found = a_subscriber(merchant)
    other = subscribed(merchant, subscription(merchant, found)["customer"])["id"]
    answered(merchant.post(f"/v1/subscriptions/{found}", {"cancel_at_period_end": True}))

    gone = answered(merchant.request("DELETE", f"/v1/subscriptions/{other}"))
    advance(api, merchant, clock, START + 60 * DAY)

    assert (gone["status"], gone["ended_at"]) == ("canceled", START)
    ended = subscription(merchant, found)
    assert (ended["status"], moments([ended["ended_at"]])) == ("canceled", ["2027-02-28T12:00"])
    assert len(invoices(merchant, found)) == len(invoices(merchant, other)) == 1
    again = merchant.request("DELETE", f"/v1/subscriptions/{other}")
    assert refusal(again)[0::2] == (409, "subscription_canceled")
    listed = answered(merchant.get("/v1/subscriptions"))["data"]
    everything = answered(merchant.get("/v1/subscriptions?status=all"))["data"]
    assert (listed, len(everything)) == ([], 2)


def test_two_workers_at_once_take_each_period_once(
    api: Api, merchant: Caller, extended_simulator: Bank
) -> None:
    clock, found = a_subscriber(merchant, interval="day")
    answered(merchant.post(f"{CLOCKS}/{clock}/advance", {"frozen_time": START + 10 * DAY}))

    with ThreadPoolExecutor(3) as executor:
        for future in [executor.submit(billing_desk(api.services).work) for _ in range(12)]:
            future.result()
    settle(api, merchant, clock)

    told = invoices(merchant, found)
    assert len(told) == 11
    assert {(each["status"], each["attempt_count"]) for each in told} == {("paid", 1)}
    assert captures(extended_simulator, merchant) == 11


def test_a_deleted_customers_subscriptions_end(api: Api, merchant: Caller) -> None:
    customer = a_customer(merchant)
    found = subscribed(merchant, customer)["id"]

    merchant.request("DELETE", f"/v1/customers/{customer}")

    assert subscription(merchant, found)["status"] == "canceled"


def test_a_bank_that_takes_no_card_on_file_is_subscribed_to_by_nobody(
    shared_api: Api, merchant: Caller, bank: Any
) -> None:
    with shared_api.asking(bank):
        other = shared_api.merchant()
        customer = a_customer(other)
        before = shared_api.behind()

        refused = other.post(
            "/v1/subscriptions", {"customer": customer, "default_payment_method": GOOD, **MONTHLY}
        )

        assert refusal(refused)[0::2] == (400, "cards_on_file_unsupported")
        assert shared_api.behind() == before


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({"customer": "cus_none"}, "customer"),
    ({"default_payment_method": "pm_none"}, "default_payment_method"),
    ({"amount": 0}, "amount"),
    ({"amount": "15"}, "amount"),
    ({"amount": None}, "amount"),
    ({"currency": "nix"}, "currency"),
    ({"interval": "fortnight"}, "interval"),
    ({"interval_count": 37}, "interval_count"),
    ({"interval_count": True}, "interval_count"),
    ({"metadata": [1]}, "metadata"),
    ({"trial_end": "now"}, "trial_end"),
    ({"payment_behavior": "default_incomplete"}, "payment_behavior"),
    ({"items": []}, "items"),
    ({"items": [{"price": "price_1"}]}, "items[0][price_data]"),
    ({"items": [{"price_data": {"currency": "usd"}}]}, "items[0][price_data][unit_amount]"),
]


@pytest.mark.parametrize(("fields", "param"), BAD_INPUT)
def test_bad_input_is_named_and_nothing_is_begun(
    api: Api, merchant: Caller, fields: dict[str, Any], param: str
) -> None:
    customer = a_customer(merchant)
    body = {"customer": customer, "default_payment_method": GOOD, **MONTHLY, **fields}

    response = merchant.post("/v1/subscriptions", body)

    assert response.status_code in {400, 404}, response.text
    assert json_of(response)["error"]["param"] == param
    assert answered(merchant.get("/v1/subscriptions?status=all"))["data"] == []
    assert answered(merchant.get("/v1/charges"))["data"] == []


def test_a_strangers_things_are_not_there(api: Api, merchant: Caller) -> None:
    clock, found = a_subscriber(merchant)
    customer = subscription(merchant, found)["customer"]
    (invoice,) = invoices(merchant, found)

    for stranger in (api.merchant(), api.merchant(merchant.merchant, mode=Mode.LIVE)):
        body = {"customer": customer, "default_payment_method": GOOD, **MONTHLY}
        told = [
            stranger.post("/v1/subscriptions", body),
            stranger.get(f"/v1/subscriptions/{found}"),
            stranger.post(f"/v1/subscriptions/{found}", {"metadata": {"a": "b"}}),
            stranger.request("DELETE", f"/v1/subscriptions/{found}"),
            stranger.get(f"/v1/subscriptions?starting_after={found}"),
            stranger.get(f"/v1/invoices/{invoice['id']}"),
            stranger.post(f"/v1/invoices/{invoice['id']}/pay", {}),
            stranger.get(f"/v1/invoices?starting_after={invoice['id']}"),
            stranger.get(f"/v1/invoices?subscription={found}"),
            stranger.get(f"/v1/invoices?customer={customer}"),
            stranger.get(f"/v1/subscriptions?customer={customer}"),
            stranger.get(f"/v1/subscriptions?test_clock={clock}"),
            stranger.get(f"{CLOCKS}/{clock}"),
            stranger.get(f"{CLOCKS}?ending_before={clock}"),
        ]
        assert [response.status_code for response in told] == [404] * len(told)
        moved = [
            stranger.post(f"{CLOCKS}/{clock}/advance", {"frozen_time": START + DAY}),
            stranger.request("DELETE", f"{CLOCKS}/{clock}"),
            stranger.post("/v1/customers", {"test_clock": clock}),
        ]
        assert {response.status_code for response in moved} <= {400, 404}


def test_there_are_no_clocks_in_live_mode(api: Api, merchant: Caller) -> None:
    live = api.merchant(merchant.merchant, mode=Mode.LIVE)

    refused = live.post(CLOCKS, {"frozen_time": START})

    assert refusal(refused)[0::2] == (400, "test_mode_only")


def test_a_clock_goes_forwards_and_is_on_its_way_once(api: Api, merchant: Caller) -> None:
    clock = a_clock(merchant)
    path = f"{CLOCKS}/{clock}/advance"

    back = merchant.post(path, {"frozen_time": START})
    away = answered(merchant.post(path, {"frozen_time": START + DAY}))
    twice = merchant.post(path, {"frozen_time": START + 2 * DAY})
    settle(api, merchant, clock)

    assert refusal(back)[0::3] == (400, "frozen_time")
    assert away["status"] == "advancing"
    assert away["status_details"]["advancing"]["target_frozen_time"] == START + DAY
    assert refusal(twice)[0::2] == (409, "test_clock_advancing")
    assert answered(merchant.get(f"{CLOCKS}/{clock}"))["frozen_time"] == START + DAY
    assert merchant.request("DELETE", f"{CLOCKS}/{clock}").status_code == 204
    assert merchant.get(f"{CLOCKS}/{clock}").status_code == 404


def test_a_rebuild_makes_the_same_rows_and_tells_nothing_twice(
    api: Api, merchant: Caller, billing_database_url: str
) -> None:
    clock, found = a_subscriber(merchant)
    advance(api, merchant, clock, START + 40 * DAY)
    path = "/v1/events?type=invoice.*&limit=100"
    before = (invoices(merchant, found), answered(merchant.get(path)))

    for name in ("subscriptions", "invoices", "api_events"):
        rebuilt(billing_database_url, name)
        assert list(differences(billing_database_url, name)) == []

    assert (invoices(merchant, found), answered(merchant.get(path))) == before

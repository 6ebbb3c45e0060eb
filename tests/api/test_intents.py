"""Payment intents, from what is wanted to what was paid, attempt by attempt."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.test import TestResponse

from domain.bank import Operation, Unknown
from domain.commands import Tenant
from domain.ids import Prefix, decode
from domain.intents import PaymentIntents
from domain.payment import bank_key
from infrastructure.api_keys import KeyType
from tests.api.an_api import EMPTY_CARD, GOOD_CARD, Api, Caller, error_of
from tests.builders import VISA
from tests.fakes import FakeBank

INTENTS = "/v1/payment_intents"


def answered(response: TestResponse, status: int) -> dict[str, Any]:
    """What the answer says, which has this status."""
    assert response.status_code == status, response.text
    document: dict[str, Any] = json.loads(response.data)
    return document


def an_intent(**overrides: Any) -> dict[str, Any]:
    return {"amount": 2000, "currency": "usd", "payment_method_types": ["card"], **overrides}


def created(merchant: Caller, **overrides: Any) -> dict[str, Any]:
    return answered(merchant.post(INTENTS, an_intent(**overrides)), 201)


def a_method(merchant: Caller, card: dict[str, Any] | None = None) -> str:
    body = {"type": "card", "card": card or GOOD_CARD}
    public_id: str = answered(merchant.post("/v1/payment_methods", body), 201)["id"]
    return public_id


def confirm(merchant: Caller, intent_id: str, **fields: Any) -> Any:
    return merchant.post(f"{INTENTS}/{intent_id}/confirm", fields)


def test_an_intent_is_created_confirmed_and_paid(merchant: Caller) -> None:
    intent = created(merchant, description="Two books", metadata={"order_id": "ORD-77"})
    assert intent["status"] == "requires_payment_method"
    assert intent["client_secret"].startswith(f"{intent['id']}_secret_")

    paid = answered(confirm(merchant, intent["id"], payment_method=a_method(merchant)), 200)

    assert (paid["status"], paid["amount_received"]) == ("succeeded", 2000)
    (charge,) = paid["charges"]["data"]
    assert charge["id"] == paid["latest_charge"]
    assert charge["payment_method"]["card"]["last4"] == VISA[-4:]
    assert answered(merchant.get(f"{INTENTS}/{intent['id']}"), 200) == paid
    order = answered(merchant.get("/v1/orders/ORD-77"), 200)
    assert (order["status"], order["ok_to_ship"]) == ("captured", True)


def test_one_request_can_do_it_all(merchant: Caller) -> None:
    paid = created(merchant, payment_method=a_method(merchant), confirm=True)

    assert paid["status"] == "succeeded"


def test_one_that_a_shopper_has_to_approve_is_made_and_one_in_doubt_is_processing(
    extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    challenged = an_intent(payment_method="tok_3ds", confirm=True)
    asked = extended_merchant.post(INTENTS, challenged, key="asks a shopper")
    again = extended_merchant.post(INTENTS, challenged, key="asks a shopper")
    extended_bank.will_answer(Unknown(reason="down", unanswered=False))
    known = an_intent(payment_method="pm_card_visa", confirm=True)
    in_doubt = extended_merchant.post(INTENTS, known)

    assert answered(asked, 201)["status"] == "requires_action"
    assert answered(again, 201)["id"] == answered(asked, 201)["id"]
    assert answered(in_doubt, 200)["status"] == "processing"


def test_a_decline_leaves_the_intent_to_be_tried_with_another_card(merchant: Caller) -> None:
    intent = created(merchant)
    empty, good = a_method(merchant, EMPTY_CARD), a_method(merchant)

    refused = confirm(merchant, intent["id"], payment_method=empty)
    error = error_of(refused, 402)

    assert (error["type"], error["code"]) == ("card_error", "card_declined")
    assert error["decline_code"] == "insufficient_funds"
    assert error["payment_intent"]["status"] == "requires_payment_method"
    assert error["payment_intent"]["last_payment_error"]["code"] == "card_declined"
    assert answered(confirm(merchant, intent["id"], payment_method=good), 200)["status"] == (
        "succeeded"
    )


def test_a_hold_is_captured_by_either_route(merchant: Caller) -> None:
    for route in ("intent", "payment"):
        held = created(
            merchant, capture_method="manual", payment_method=a_method(merchant), confirm=True
        )
        assert (held["status"], held["amount_capturable"]) == ("requires_capture", 2000)
        if route == "intent":
            answered(merchant.post(f"{INTENTS}/{held['id']}/capture", {}), 200)
        else:
            merchant.capture("pay_" + held["latest_charge"].removeprefix("ch_"))

        now = answered(merchant.get(f"{INTENTS}/{held['id']}"), 200)

        assert (now["status"], now["amount_received"]) == ("succeeded", 2000)


@pytest.mark.parametrize("is_held", [True, False])
def test_an_intent_that_is_given_up_holds_nothing(merchant: Caller, is_held: bool) -> None:
    paid_with = {"payment_method": a_method(merchant), "confirm": is_held}
    intent = created(merchant, capture_method="manual", **paid_with)

    gone = answered(
        merchant.post(f"{INTENTS}/{intent['id']}/cancel", {"cancellation_reason": "abandoned"}),
        200,
    )

    assert (gone["status"], gone["cancellation_reason"]) == ("canceled", "abandoned")
    assert gone["canceled_at"] is not None
    again = merchant.post(f"{INTENTS}/{intent['id']}/cancel", {})
    assert error_of(again, 409)["code"] == "payment_intent_unexpected_state"


def test_the_same_key_gives_the_same_bytes(merchant: Caller) -> None:
    body = an_intent(payment_method=a_method(merchant), confirm=True)

    first = merchant.post(INTENTS, body, key="key-1")
    again = merchant.post(INTENTS, body, key="key-1")

    assert first.status_code == again.status_code == 201
    assert (first.data, again.headers["Idempotent-Replayed"]) == (again.data, "true")
    assert len(answered(merchant.get(INTENTS), 200)["data"]) == 1


def test_a_cvc_is_used_once_and_a_detached_card_never(merchant: Caller, api: Api) -> None:
    method = a_method(merchant)
    customer = answered(merchant.post("/v1/customers", {"email": "a@example.com"}), 201)
    answered(
        merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer["id"]}), 200
    )
    paying = {"payment_method": method, "customer": customer["id"], "confirm": True}
    created(merchant, **paying)

    without = merchant.post(INTENTS, an_intent(**paying))
    assert error_of(without, 400)["param"] == "cvc"
    fresh = created(merchant, **paying, cvc="123")
    assert fresh["status"] == "succeeded"

    answered(merchant.post(f"/v1/payment_methods/{method}/detach", {}), 200)
    refused = merchant.post(INTENTS, an_intent(**paying, cvc="123"))
    assert error_of(refused, 409)["code"] == "payment_method_detached"
    assert api.services.cards.find(decode(Prefix.PAYMENT_METHOD, method)) is None


def test_references_are_expanded_where_that_is_asked_for(merchant: Caller) -> None:
    customer = answered(merchant.post("/v1/customers", {"name": "Ada"}), 201)
    paid = created(
        merchant,
        customer=customer["id"],
        payment_method=a_method(merchant),
        confirm=True,
        expand=["latest_charge.customer", "customer"],
    )

    assert paid["customer"] == customer
    assert paid["latest_charge"]["customer"] == customer
    assert paid["latest_charge"]["payment_intent"] == paid["id"]
    refused = merchant.get(f"{INTENTS}/{paid['id']}?expand[]=nothing")
    assert error_of(refused, 400)["param"] == "expand[0]"


def test_a_publishable_key_needs_the_intents_secret(api: Api, merchant: Caller) -> None:
    browser = api.merchant(merchant.merchant, type=KeyType.PUBLISHABLE)
    intent = created(merchant)
    path = f"{INTENTS}/{intent['id']}"

    assert browser.get(path).status_code == 404
    assert browser.get(f"{path}?client_secret=pi_x_secret_y").status_code == 404
    shown = answered(browser.get(f"{path}?client_secret={intent['client_secret']}"), 200)
    assert shown["id"] == intent["id"]
    method = a_method(browser)
    paid = browser.post(
        f"{path}/confirm", {"payment_method": method, "client_secret": intent["client_secret"]}
    )
    assert answered(paid, 200)["status"] == "succeeded"


def test_an_erased_customer_leaves_payments_and_nothing_else(merchant: Caller, api: Api) -> None:
    customer = answered(
        merchant.post("/v1/customers", {"email": "lovelace@example.com", "name": "Lovelace"}), 201
    )
    method = a_method(merchant)
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer["id"]})
    paid = created(merchant, customer=customer["id"], payment_method=method, confirm=True)
    found = answered(merchant.get("/v1/customers?email=lovelace@example.com"), 200)
    assert [each["id"] for each in found["data"]] == [customer["id"]]

    gone = merchant.request("DELETE", f"/v1/customers/{customer['id']}")

    assert (gone.status_code, gone.data) == (204, b"")
    assert merchant.get(f"/v1/customers/{customer['id']}").status_code == 404
    stripe = merchant.speaking_stripe().get(f"/v1/customers/{customer['id']}")
    assert answered(stripe, 200) == {"id": customer["id"], "object": "customer", "deleted": True}
    assert answered(merchant.get("/v1/customers?email=lovelace@example.com"), 200)["data"] == []
    assert answered(merchant.get(f"{INTENTS}/{paid['id']}"), 200)["customer"] == customer["id"]
    with api.services.pool.connection() as connection:
        rows = connection.execute("SELECT document::text AS text FROM personal_data").fetchall()
    assert not any("lovelace" in row["text"].lower() for row in rows)


def test_two_confirms_at_once_are_one_attempt(api: Api, merchant: Caller, bank: FakeBank) -> None:
    intent = created(merchant, capture_method="manual")
    path = f"{INTENTS}/{intent['id']}/confirm"

    with ThreadPoolExecutor(6) as threads:
        asked = [
            threads.submit(merchant.post, path, {"payment_method": "pm_card_visa"})
            for _ in range(6)
        ]
        statuses = sorted(each.result().status_code for each in asked)

    # Whoever comes while the first is at it is told that it is not possible any more.
    assert statuses[0] == 200
    assert set(statuses[1:]) <= {409}
    uuid = decode(Prefix.INTENT, intent["id"])
    found = PaymentIntents(api.services.ledger).intent(uuid, merchant_of(merchant))
    assert len(found.attempts) == 1
    payment = api.services.ledger.payment(found.attempts[0], merchant_of(merchant))
    assert len(bank.holds_under(bank_key(payment.id, Operation.AUTHORIZATION, 1))) == 1


def merchant_of(merchant: Caller) -> Tenant:
    assert merchant.record is not None
    return merchant.record.tenant


def test_a_card_number_is_in_no_event_and_in_no_answer(merchant: Caller, api: Api) -> None:
    method = merchant.post("/v1/payment_methods", {"type": "card", "card": GOOD_CARD})
    public_id = answered(method, 201)["id"]
    paid = merchant.post(INTENTS, an_intent(payment_method=public_id, confirm=True))
    listed = merchant.get("/v1/payment_methods")

    with api.services.pool.connection() as connection:
        rows = connection.execute("SELECT convert_from(state, 'UTF8') AS text FROM events")
        texts = [row["text"] for row in rows.fetchall()]
    for text in [*texts, method.text, paid.text, listed.text]:
        assert VISA not in text
        assert '"cvc":' not in text.replace('"cvc_check"', "")


def test_a_refund_can_be_asked_of_an_intent_and_of_a_charge(extended_merchant: Caller) -> None:
    merchant = extended_merchant
    paid = created(merchant, payment_method="pm_card_visa", confirm=True)

    part = answered(
        merchant.post("/v1/refunds", {"payment_intent": paid["id"], "amount": 500}), 201
    )
    rest = answered(merchant.post("/v1/refunds", {"charge": paid["latest_charge"]}), 201)
    stripe = merchant.speaking_stripe().post("/v1/refunds", {"payment_intent": paid["id"]})

    assert (part["amount"], rest["amount"], part["payment_intent"]) == (500, 1500, paid["id"])
    assert part["id"].startswith("re_")
    assert error_of(stripe, 400)["code"] == "charge_already_refunded"
    charge = answered(merchant.get(f"/v1/charges/{paid['latest_charge']}"), 200)
    assert (charge["refunded"], charge["amount_refunded"]) == (True, 2000)


def test_a_part_is_captured_where_the_bank_can_do_it(extended_merchant: Caller) -> None:
    response, now = captured_in_part(extended_merchant)

    assert response.status_code == 200
    assert (now["status"], now["amount_received"]) == ("succeeded", 1200)


def test_a_part_is_not_captured_where_the_bank_cannot(merchant: Caller) -> None:
    response, now = captured_in_part(merchant)

    assert error_of(response, 400)["code"] == "partial_amount_unsupported"
    assert now["status"] == "requires_capture"


def captured_in_part(merchant: Caller) -> tuple[TestResponse, dict[str, Any]]:
    held = created(merchant, capture_method="manual", payment_method="pm_card_visa", confirm=True)
    response = merchant.post(f"{INTENTS}/{held['id']}/capture", {"amount_to_capture": 1200})
    return response, answered(merchant.get(f"{INTENTS}/{held['id']}"), 200)


def test_a_form_is_as_good_as_json(merchant: Caller) -> None:
    form = (
        "amount=2000&currency=usd&payment_method_types[0]=card&metadata[order_id]=77"
        "&payment_method=pm_card_visa&confirm=true&expand%5B%5D=latest_charge&description="
    )
    paid = merchant.post(INTENTS, data=form, content_type="application/x-www-form-urlencoded")

    body = answered(paid, 201)
    assert (body["status"], body["metadata"], body["description"]) == (
        "succeeded",
        {"order_id": "77"},
        None,
    )
    assert body["latest_charge"]["object"] == "charge"


def test_what_is_kept_apart_can_be_all_that_changes(merchant: Caller) -> None:
    intent, shipping = created(merchant), {"name": "Ada", "address": {"line1": "1 Rue"}}
    path = f"{INTENTS}/{intent['id']}"
    method = f"/v1/payment_methods/{a_method(merchant)}"

    answered(merchant.post(path, {"shipping": shipping}), 200)
    answered(merchant.post(path, {"receipt_email": "ada@example.com"}), 200)
    answered(merchant.post(method, {"billing_details": {"name": "Ada"}}), 200)

    now = answered(merchant.get(path), 200)
    assert now["shipping"]["address"]["line1"] == "1 Rue"
    assert now["receipt_email"] == "ada@example.com"
    assert answered(merchant.get(method), 200)["billing_details"]["name"] == "Ada"


def test_what_moves_no_money_can_be_said_of_a_paid_intent(merchant: Caller) -> None:
    paid = created(merchant, payment_method="pm_card_visa", confirm=True)
    path = f"{INTENTS}/{paid['id']}"

    told = answered(merchant.post(path, {"metadata": {"box": "7"}, "description": "Late"}), 200)

    assert (told["status"], told["metadata"], told["description"]) == (
        "succeeded",
        {"box": "7"},
        "Late",
    )
    assert error_of(merchant.post(path, {"amount": 1}), 409)["code"] == (
        "payment_intent_unexpected_state"
    )


def test_a_method_made_on_the_way_is_made_once_and_only_with_the_attempt(merchant: Caller) -> None:
    given = {"payment_method_data": {"type": "card", "card": GOOD_CARD}}
    body = an_intent(confirm=True, **given)

    first = merchant.post(INTENTS, body, key="once")
    again = merchant.post(INTENTS, body, key="once")
    intent = answered(first, 201)
    refused = merchant.post(f"{INTENTS}/{intent['id']}/confirm", given)

    assert (intent["status"], first.data) == ("succeeded", again.data)
    assert refused.status_code == 409
    methods = answered(merchant.get("/v1/payment_methods"), 200)["data"]
    assert [method["id"] for method in methods] == [intent["payment_method"]]


def test_a_method_made_on_the_way_pays_again(extended_merchant: Caller) -> None:
    given = {"payment_method_data": {"type": "card", "card": GOOD_CARD}}
    stored = created(extended_merchant, **given)
    paid = answered(confirm(extended_merchant, stored["id"]), 200)
    again = created(extended_merchant, payment_method=paid["payment_method"], confirm=True)

    assert stored["status"] == "requires_confirmation"
    assert (paid["status"], again["status"]) == ("succeeded", "succeeded")


def test_a_kind_of_method_that_is_not_taken_is_refused_at_the_confirmation(
    merchant: Caller,
) -> None:
    intent = created(merchant, payment_method="pm_card_visa")

    refused = confirm(merchant, intent["id"], payment_method_types=["paypal"])

    assert error_of(refused, 400)["param"] == "payment_method_types"
    charges = merchant.get(f"/v1/charges?payment_intent={intent['id']}")
    assert answered(charges, 200)["data"] == []

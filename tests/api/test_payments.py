"""Payments that are asked for as such: by card, by token, by wallet; their lists and their statuses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import TestResponse

from api.payments.schemas import PaymentOut
from domain.bank import Contradicted, Declined, Operation
from domain.commands import Mode
from domain.ids import Prefix, decode
from infrastructure.duties import SWEPT_AT_ONCE
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    OLD_CARD,
    SMALL_CARD,
    Api,
    Caller,
    error_of,
    fresh,
    json_of,
    refusal,
)
from tests.builders import CHALLENGED_VISA, SMALL_VISA, VISA
from tests.fakes import FakeBank, Misfortune

PAYMENTS: Final = "/v1/payments"
CHALLENGED: Final = {"number": CHALLENGED_VISA, "exp_month": 12, "exp_year": 2030, "cvc": "123"}
INVALID: Final = "invalid_request_error"


def by_card(card: dict[str, Any]) -> dict[str, Any]:
    return {"type": "card", **card}


def a_payment(**overrides: Any) -> dict[str, Any]:
    """The body of one; what is None is left out."""
    body = {"amount": 1234, "currency": "USD", "source": by_card(GOOD_CARD), **overrides}
    return {name: value for name, value in body.items() if value is not None}


def pay(merchant: Caller, *, key: str | None = "", **overrides: Any) -> TestResponse:
    return merchant.post(PAYMENTS, a_payment(**overrides), key=key)


def told(response: TestResponse, status: int) -> dict[str, Any]:
    """A payment, which has this status of HTTP."""
    assert response.status_code == status, response.text
    PaymentOut.model_validate_json(response.data)
    document: dict[str, Any] = json_of(response)
    return document


def paid(merchant: Caller, **overrides: Any) -> dict[str, Any]:
    return told(pay(merchant, **overrides), 201)


def got(merchant: Caller, payment_id: str) -> dict[str, Any]:
    return told(merchant.get(f"{PAYMENTS}/{payment_id}"), 200)


def listed(merchant: Caller, query: str = "") -> list[str]:
    return [each["id"] for each in json_of(merchant.get(f"{PAYMENTS}{query}"))["data"]]


def a_customer(merchant: Caller) -> str:
    return str(json_of(merchant.post("/v1/customers", {"name": "Ada"}))["id"])


# --- taking money -------------------------------------------------------------------------------


def test_one_call_takes_the_money(merchant: Caller, bank: FakeBank) -> None:
    customer = a_customer(merchant)
    response = pay(
        merchant,
        customer_id=customer,
        currency="usd",
        description="Order #12345",
        metadata={"order_id": "ORD-9"},
    )

    payment = told(response, 201)

    assert payment == {
        "id": payment["id"],
        "object": "payment",
        "amount": 1234,
        "currency": "USD",
        "status": "succeeded",
        "source": {
            "type": "card",
            "last4": "1111",
            "brand": "visa",
            "exp_month": 12,
            "exp_year": 2030,
        },
        "customer_id": customer,
        "description": "Order #12345",
        "amount_refunded": 0,
        "created": payment["created"],
        "metadata": {"order_id": "ORD-9"},
    }
    assert response.headers["Location"] == f"{PAYMENTS}/{payment['id']}"
    assert got(merchant, payment["id"]) == payment
    assert bank.captured_minor() == 1234
    receipt = merchant.receipt(payment["id"])
    assert (receipt["status"], receipt["order_id"]) == ("captured", "ORD-9")


def test_a_form_pays_as_json_does(merchant: Caller) -> None:
    form = {
        "amount": "1234",
        "currency": "usd",
        "source[type]": "card",
        "source[token]": "tok_visa_4242",
        "metadata[order_id]": "1",
    }

    response = merchant.post(PAYMENTS, data=form)

    payment = told(response, 201)
    assert (payment["amount"], payment["source"]["last4"]) == (1234, "4242")
    assert payment["metadata"] == {"order_id": "1"}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"type": "card", "token": "tok_visa_4242"}, "card"),
        ({"type": "apple_pay", "token": "tok_apple_abc123"}, "apple_pay"),
    ],
)
def test_a_test_token_pays_in_test_mode_only(
    api: Api, merchant: Caller, source: dict[str, Any], kind: str
) -> None:
    live = api.merchant(merchant.merchant, mode=Mode.LIVE)

    payment = paid(merchant, source=source)

    assert payment["source"] == {
        "type": kind,
        "last4": "4242",
        "brand": "visa",
        "exp_month": 6,
        "exp_year": 2030,
    }
    assert refusal(pay(live, source=source)) == (
        404,
        "resource_missing",
        "token_not_found",
        "source[token]",
    )


def test_a_decline_is_a_402_and_the_payment_is_kept_as_failed(merchant: Caller) -> None:
    key, source = fresh("key"), by_card(EMPTY_CARD)

    response = pay(merchant, key=key, source=source)

    error = error_of(response, 402)
    assert (error["type"], error["code"]) == ("card_error", "insufficient_funds")
    assert error["decline_code"] == "insufficient_funds"
    payment = got(merchant, error["payment_id"])
    assert (payment["status"], payment["failure_code"]) == ("failed", "insufficient_funds")
    assert pay(merchant, key=key, source=source).data == response.data


@pytest.mark.parametrize(
    ("card", "code", "param"),
    [
        (OLD_CARD, "expired_card", "source[exp_year]"),
        ({**GOOD_CARD, "number": "4111111111111112"}, "incorrect_number", "source[number]"),
    ],
)
def test_a_card_that_can_be_told_to_be_no_good_makes_no_payment(
    api: Api, merchant: Caller, card: dict[str, Any], code: str, param: str
) -> None:
    before = api.behind()

    response = pay(merchant, source=by_card(card))

    assert refusal(response) == (402, "card_error", code, param)
    assert api.behind() == before


@pytest.mark.parametrize("amount", [-5, 0, 1, 49])
def test_the_least_that_can_be_paid_is_told(merchant: Caller, amount: int) -> None:
    error = error_of(pay(merchant, amount=amount), 400)

    assert error["message"] == "amount must be at least 50 (minor units)."


@pytest.mark.parametrize(
    ("overrides", "code", "param"),
    [
        ({"amount": 49}, "amount_too_small", "amount"),
        ({"amount": None}, "missing_param", "amount"),
        ({"amount": "1234"}, "invalid_param", "amount"),
        ({"currency": "XXX1"}, "invalid_currency", "currency"),
        ({"currency": "EUR"}, "currency_unsupported", "currency"),
        ({"source": None}, "missing_param", "source"),
        ({"source": "tok_visa"}, "invalid_param", "source"),
        ({"source": {"token": "tok_visa"}}, "missing_param", "source[type]"),
        ({"source": {"type": "cheque"}}, "invalid_param", "source[type]"),
        ({"source": {"type": "card"}}, "missing_param", "source[token]"),
        ({"source": {"type": "apple_pay"}}, "missing_param", "source[token]"),
        (
            {"source": {"type": "apple_pay", "token": "tok_visa"}},
            "invalid_param",
            "source[token]",
        ),
        (
            {"source": {"type": "card", "token": "tok_apple_x"}},
            "invalid_param",
            "source[token]",
        ),
        (
            {"source": {"type": "card", "token": "tok_visa", "number": GOOD_CARD["number"]}},
            "invalid_param",
            "source[token]",
        ),
        ({"source": by_card({**GOOD_CARD, "exp_month": 13})}, "invalid_param", "source[exp_month]"),
        ({"source": by_card({**GOOD_CARD, "cvc": None})}, "missing_param", "source[cvc]"),
        ({"source": by_card({**GOOD_CARD, "exp_year": None})}, "missing_param", "source[exp_year]"),
        ({"source": by_card({**GOOD_CARD, "pin": "1"})}, "unknown_param", "source[pin]"),
        (
            {"source": by_card({**GOOD_CARD, "bank_account": {}})},
            "missing_param",
            "source[bank_account][account_number]",
        ),
        ({"order_id": "ORD-1"}, "unknown_param", "order_id"),
        ({"description": "\x00"}, "invalid_param", "description"),
        ({"metadata": []}, "invalid_param", "metadata"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_begun(
    api: Api, merchant: Caller, overrides: dict[str, Any], code: str, param: str
) -> None:
    before = api.behind()

    response = pay(merchant, **overrides)

    assert refusal(response) == (400, INVALID, code, param)
    assert api.behind() == before


def test_a_customer_has_to_exist(api: Api, merchant: Caller) -> None:
    gone = a_customer(merchant)
    merchant.request("DELETE", f"/v1/customers/{gone}")
    strangers = a_customer(api.merchant())

    for customer in (gone, strangers, "cus_123"):
        response = pay(merchant, customer_id=customer)
        assert refusal(response) == (
            404,
            "resource_missing",
            "customer_not_found",
            "customer_id",
        )


# --- what goes wrong at the bank ----------------------------------------------------------------


@pytest.mark.parametrize("at", [Operation.AUTHORIZATION, Operation.CAPTURE])
def test_an_unknown_outcome_is_a_202_and_resolves_by_itself(
    api: Api, merchant: Caller, bank: FakeBank, at: Operation
) -> None:
    key = fresh("key")
    bank.will_suffer_at(at, Misfortune.SILENT_AFTER)

    waiting = pay(merchant, key=key)

    document = told(waiting, 202)
    assert document["status"] == ("pending" if at is Operation.AUTHORIZATION else "authorized")
    assert waiting.headers["Location"] == f"{PAYMENTS}/{document['id']}"
    assert int(waiting.headers["Retry-After"]) > 0
    api.worker_has_been_at_it(merchant)
    settled = pay(merchant, key=key)
    assert told(settled, 201)["status"] == "succeeded"
    assert pay(merchant, key=key).data == settled.data
    assert bank.captured_minor() == 1234


def test_a_capture_that_fails_for_good_leaves_nothing_held(
    merchant: Caller, bank: FakeBank
) -> None:
    bank.will_answer_to(Operation.CAPTURE, Declined(code="authorization_expired"))

    response = pay(merchant)

    error = error_of(response, 402)
    assert (error["type"], error["code"]) == ("card_error", "processing_error")
    payment = got(merchant, error["payment_id"])
    assert (payment["status"], payment["failure_code"]) == ("failed", "processing_error")
    assert merchant.receipt(payment["id"])["status"] == "voided"
    assert all(hold.ended_by is not None for hold in bank.holds.values())
    events = json_of(merchant.get("/v1/events"))["data"]
    assert [each["type"] for each in events] == ["payment.failed"]
    assert events[0]["data"]["object"] == payment


def test_a_capture_that_the_bank_contradicts_is_left_to_a_person(
    merchant: Caller, bank: FakeBank
) -> None:
    bank.will_answer_to(Operation.CAPTURE, Contradicted(reason="another amount"))

    error = error_of(pay(merchant), 502)

    assert error["code"] == "bank_protocol_error"
    assert got(merchant, error["payment_id"])["status"] == "authorized"
    assert merchant.receipt(error["payment_id"])["needs_review"]["reason"] == "bank_disagrees"


def test_while_the_bank_is_down_nothing_is_begun(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    bank.goes_down()
    before = api.behind()

    response = pay(merchant)

    assert refusal(response) == (503, "api_error", "bank_unavailable", None)
    assert api.behind() == before


def test_requests_under_one_key_at_once_are_one_payment(merchant: Caller, bank: FakeBank) -> None:
    key = fresh("key")

    with ThreadPoolExecutor(6) as executor:
        answers = list(executor.map(lambda _: pay(merchant, key=key), range(6)))

    assert {each.status_code for each in answers} == {201}
    assert len({each.data for each in answers}) == 1
    assert bank.captured_minor() == 1234


# --- a shopper who has to approve ---------------------------------------------------------------


def confirm(merchant: Caller, payment_id: str, return_url: Any = "https://shop.test/?a=b") -> Any:
    return merchant.post(f"{PAYMENTS}/{payment_id}/confirm", {"return_url": return_url})


@pytest.mark.parametrize("approves", [True, False])
def test_a_shopper_approves_or_not(
    api: Api, extended_merchant: Caller, extended_bank: FakeBank, approves: bool
) -> None:
    merchant, key = extended_merchant, fresh("key")
    payment = told(pay(merchant, key=key, source=by_card(CHALLENGED)), 201)
    assert payment["status"] == "requires_action"

    with ThreadPoolExecutor(2) as executor:
        first, second = executor.map(lambda _: confirm(merchant, payment["id"]), range(2))

    assert first.data == second.data
    redirect = told(first, 200)["next_action"]["redirect_to_url"]
    assert redirect["return_url"] == "https://shop.test/?a=b"
    (back,) = parse_qs(urlsplit(redirect["url"]).query)["return_url"]
    assert back == f"https://shop.test/?a=b&payment={payment['id']}"
    assert listed(merchant, "?status=requires_action") == [payment["id"]]
    (authorization_id,) = extended_bank.challenges
    extended_bank.shopper_decides(authorization_id, approves=approves)
    api.worker_has_been_at_it(merchant)
    final = got(merchant, payment["id"])
    assert final["status"] == ("succeeded" if approves else "failed")
    assert "next_action" not in final
    assert final.get("failure_code") == (None if approves else "authentication_required")
    assert pay(merchant, key=key, source=by_card(CHALLENGED)).status_code == (
        201 if approves else 402
    )
    again = error_of(confirm(merchant, payment["id"]), 409)
    assert again["code"] == "payment_requires_no_action"


def test_a_return_url_is_one(extended_merchant: Caller) -> None:
    payment = paid(extended_merchant, source=by_card(CHALLENGED))

    for url in ("javascript:alert(1)", "shop.test", "https://[", "", 5):
        response = confirm(extended_merchant, payment["id"], url)
        assert refusal(response) == (400, INVALID, "invalid_param", "return_url")


# --- lists --------------------------------------------------------------------------------------


def voided(merchant: Caller) -> str:
    payment_id: str = merchant.voided()["payment_id"]
    return payment_id


def released(merchant: Caller, bank: FakeBank) -> str:
    """Of which the capture failed for good."""
    bank.will_answer_to(Operation.CAPTURE, Declined(code="authorization_expired"))
    return str(error_of(pay(merchant), 402)["payment_id"])


def waiting(merchant: Caller, bank: FakeBank) -> str:
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    return str(told(pay(merchant), 202)["id"])


def by_intent(merchant: Caller) -> str:
    body = {"amount": 500, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    intent = json_of(merchant.post("/v1/payment_intents", body))
    return "pay_" + str(intent["latest_charge"]).removeprefix("ch_")


def test_all_payments_are_in_one_list_by_what_they_say_of_themselves(
    merchant: Caller, bank: FakeBank
) -> None:
    made = {
        "succeeded": [
            paid(merchant)["id"],
            merchant.captured()["payment_id"],
            merchant.refunded()["payment_id"],
            by_intent(merchant),
        ],
        "authorized": [merchant.authorized()["payment_id"]],
        "canceled": [voided(merchant)],
        "failed": [merchant.declined()["payment_id"], released(merchant, bank)],
        "pending": [waiting(merchant, bank)],
        "requires_action": [],
    }

    for status, ids in made.items():
        found = json_of(merchant.get(f"{PAYMENTS}?status={status}"))["data"]
        assert {each["id"] for each in found} == set(ids), status
        assert {each["status"] for each in found} <= {status}
    everything = listed(merchant)
    assert everything == sorted((each for ids in made.values() for each in ids), reverse=True)
    assert listed(merchant, f"?limit=3&starting_after={everything[1]}") == everything[2:5]
    assert listed(merchant, f"?limit=2&ending_before={everything[4]}") == everything[2:4]


def test_payments_are_listed_by_customer_and_by_time(merchant: Caller) -> None:
    customer = a_customer(merchant)
    mine, others = paid(merchant, customer_id=customer), paid(merchant)
    at = mine["created"]

    assert listed(merchant, f"?customer_id={customer}") == [mine["id"]]
    assert listed(merchant, f"?customer_id={customer}&status=failed") == []
    assert listed(merchant, f"?created[gte]={at}&created[lte]={at + 60}") == [
        others["id"],
        mine["id"],
    ]
    assert listed(merchant, f"?created[gt]={at + 60}") == []
    for wrong, param in (("status=paid", "status"), ("order_id=1", "order_id")):
        assert refusal(merchant.get(f"{PAYMENTS}?{wrong}"))[::3] == (400, param)


# --- tokens -------------------------------------------------------------------------------------


def a_token(merchant: Caller, card: dict[str, Any] | None = None) -> str:
    response = merchant.post("/v1/tokens", {"card": card or GOOD_CARD})
    assert response.status_code == 201, response.text
    return str(json_of(response)["id"])


def as_source(merchant: Caller, token: str) -> TestResponse:
    return pay(merchant, source={"type": "card", "token": token})


def as_method(merchant: Caller, token: str) -> TestResponse:
    return merchant.post("/v1/payment_methods", {"type": "card", "card": {"token": token}})


def as_intents_method(merchant: Caller, token: str) -> TestResponse:
    data = {"type": "card", "card": {"token": token}}
    body = {"amount": 500, "currency": "usd", "payment_method_data": data, "confirm": True}
    return merchant.post("/v1/payment_intents", body)


USES: Final[dict[Callable[[Caller, str], TestResponse], str]] = {
    as_source: "source[token]",
    as_method: "card[token]",
    as_intents_method: "payment_method_data[card][token]",
}


@pytest.mark.parametrize("second", USES)
@pytest.mark.parametrize("first", USES)
def test_a_token_is_used_once(
    merchant: Caller,
    first: Callable[[Caller, str], TestResponse],
    second: Callable[[Caller, str], TestResponse],
) -> None:
    token = a_token(merchant)

    used = first(merchant, token)
    again = second(merchant, token)

    assert used.status_code == 201, used.text
    assert refusal(again) == (400, INVALID, "token_already_used", USES[second])


def test_a_token_is_a_card_by_its_face(merchant: Caller) -> None:
    response = merchant.post("/v1/tokens", {"card": GOOD_CARD})

    token = json_of(response)

    assert (response.status_code, token["object"], token["used"]) == (201, "token", False)
    assert token["id"].startswith("tok_")
    assert token["card"]["last4"] == VISA[-4:]
    assert VISA not in response.text
    assert (
        paid(merchant, source={"type": "card", "token": token["id"]})["source"]["last4"]
        == (token["card"]["last4"])
    )


def test_a_token_that_is_used_at_once_by_several_is_used_once(
    merchant: Caller, bank: FakeBank
) -> None:
    token = a_token(merchant)

    with ThreadPoolExecutor(5) as executor:
        answers = list(executor.map(lambda _: as_source(merchant, token), range(5)))

    assert sorted(each.status_code for each in answers) == [201, 400, 400, 400, 400]
    assert bank.captured_minor() == 1234


def test_a_token_under_the_same_key_is_the_same_payment(merchant: Caller) -> None:
    key, source = fresh("key"), {"type": "card", "token": a_token(merchant)}

    first, again = pay(merchant, key=key, source=source), pay(merchant, key=key, source=source)

    assert (first.status_code, first.data) == (201, again.data)


def test_an_hour_later_a_token_is_expired_and_its_card_is_gone(api: Api, merchant: Caller) -> None:
    token = a_token(merchant)
    token_id = decode(Prefix.TOKEN, token)
    api.execute(
        "UPDATE stored_cards SET kept_until = clock_timestamp() WHERE method_id = %(id)s",
        id=token_id,
    )

    used = as_source(merchant, token)
    api.services.cards.forget_old_tokens(SWEPT_AT_ONCE)

    assert refusal(used)[2:] == ("token_already_used", "source[token]")  # the hour is not over
    with api.services.pool.connection() as connection:
        kept = connection.execute(
            "SELECT count(*) AS cards FROM stored_cards WHERE method_id = %s", [token_id]
        ).fetchone()
    assert kept == {"cards": 0}


def test_a_token_of_a_bad_card_is_not_made(merchant: Caller) -> None:
    for card, status, param in (
        (OLD_CARD, 402, "card[exp_year]"),
        ({**GOOD_CARD, "number": "41"}, 400, "card[number]"),
        ({"number": GOOD_CARD["number"]}, 400, "card[exp_month]"),
        ({"token": "tok_visa"}, 400, "card[number]"),
    ):
        response = merchant.post("/v1/tokens", {"card": card})
        assert refusal(response)[::3] == (status, param)


# --- a payment method at the gateway ------------------------------------------------------------


def a_method(merchant: Caller, card: dict[str, Any] = GOOD_CARD) -> str:
    response = merchant.post("/v1/payment_methods", {"type": "card", "card": card})
    return str(json_of(response)["id"])


def test_a_stored_method_authorizes_once_with_its_cvc(merchant: Caller) -> None:
    method = a_method(merchant, SMALL_CARD)

    first = merchant.authorized(card=None, payment_method=method)
    second = merchant.authorize(card=None, payment_method=method)
    third = merchant.authorize(card=None, payment_method=method, cvc=SMALL_CARD["cvc"])

    assert first["card"]["last4"] == SMALL_VISA[-4:]
    assert refusal(second) == (400, INVALID, "missing_param", "cvc")
    assert third.status_code == 201
    charge = json_of(merchant.get(f"/v1/charges/ch_{first['payment_id'].removeprefix('pay_')}"))
    assert charge["payment_method"] == method


def test_a_customers_method_authorizes_for_that_customer_only(merchant: Caller) -> None:
    method, customer = a_method(merchant), a_customer(merchant)
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})

    theirs = merchant.authorize(card=None, payment_method=method, customer_id=customer)
    anothers = merchant.authorize(card=None, payment_method=method, customer_id="cus_of_nobody")

    assert theirs.status_code == 201
    assert refusal(anothers) == (400, INVALID, "invalid_param", "payment_method")


def test_a_strangers_method_is_not_there(api: Api, merchant: Caller) -> None:
    method = a_method(api.merchant())

    response = merchant.authorize(card=None, payment_method=method)

    assert refusal(response)[1:] == (
        "resource_missing",
        "payment_method_not_found",
        "payment_method",
    )

"""Money from accounts at other banks: asked for at once, settled in the background; by payments that are
asked for as such, and by payment intents."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from werkzeug.test import TestResponse

from tests.api.an_api import Api, Caller, error_of, fresh, json_of, refusal
from tests.builders import ACCOUNT_NUMBER
from tests.fakes import FakeBank, Misfortune

PAYMENTS: Final = "/v1/payments"
INTENTS: Final = "/v1/payment_intents"
HOLDER: Final = "John Doe"
ACCOUNT: Final = {
    "account_number": ACCOUNT_NUMBER,
    "sort_code": "12-34-56",
    "account_holder_name": HOLDER,
}
INVALID: Final = "invalid_request_error"
WORDS: Final = {"22222227": "insufficient_funds", "33333335": "debit_not_authorized"}


def a_transfer(**account: Any) -> dict[str, Any]:
    told = {name: value for name, value in {**ACCOUNT, **account}.items() if value is not None}
    source = {"type": "bank_transfer", "bank_account": told}
    return {"amount": 1234, "currency": "GBP", "source": source}


def asked(merchant: Caller, *, key: str | None = "", **account: Any) -> TestResponse:
    return merchant.post(PAYMENTS, a_transfer(**account), key=key)


def pending(merchant: Caller, **account: Any) -> dict[str, Any]:
    response = asked(merchant, **account)
    assert response.status_code == 201, response.text
    document: dict[str, Any] = json_of(response)
    assert document["status"] == "pending"
    return document


def got(merchant: Caller, payment_id: str) -> dict[str, Any]:
    document: dict[str, Any] = json_of(merchant.get(f"{PAYMENTS}/{payment_id}"))
    return document


def days_pass(api: Api, bank: FakeBank, merchant: Caller) -> None:
    """The worker has asked the bank, which has heard of the other one, and was looked at again."""
    api.worker_has_been_at_it(merchant)
    bank.time_passes(60)
    api.worker_has_been_at_it(merchant)


# --- payments that are asked for as such --------------------------------------------------------


def test_a_transfer_is_pending_at_first_and_settles_by_itself(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant, key = extended_merchant, fresh("key")
    response = asked(merchant, key=key)
    payment = json_of(response)
    asked_at_once = dict(extended_bank.transfers)

    days_pass(extended_api, extended_bank, merchant)

    assert asked_at_once == {}  # the bank is asked by a worker
    assert payment["source"] == {
        "type": "bank_transfer",
        "last4": ACCOUNT_NUMBER[-4:],
        "sort_code": "12-34-56",
    }
    assert got(merchant, payment["id"]) == payment | {"status": "succeeded"}
    assert asked(merchant, key=key).data == response.data  # the first answer, for ever
    receipt = merchant.receipt(payment["id"])
    assert (receipt["status"], receipt["card"], receipt["amount_captured"]) == (
        "captured",
        None,
        1234,
    )
    (transfer,) = extended_bank.transfers.values()
    assert receipt["bank"]["capture_id"] == transfer.bank_id
    events = [each["type"] for each in json_of(merchant.get("/v1/events"))["data"]]
    assert events == ["payment.succeeded"]
    charge = json_of(merchant.get(f"/v1/charges/ch_{payment['id'].removeprefix('pay_')}"))
    page = merchant.app.test_client().get(
        urlsplit(charge["receipt_url"])._replace(scheme="", netloc="").geturl()
    )
    assert f"Bank account ending in {ACCOUNT_NUMBER[-4:]}" in page.text


@pytest.mark.parametrize(("number", "code"), WORDS.items())
def test_a_transfer_that_comes_to_nothing_has_failed(
    extended_api: Api,
    extended_merchant: Caller,
    extended_bank: FakeBank,
    number: str,
    code: str,
) -> None:
    payment = pending(extended_merchant, account_number=number)

    days_pass(extended_api, extended_bank, extended_merchant)

    failed = got(extended_merchant, payment["id"])
    assert (failed["status"], failed["failure_code"]) == ("failed", code)
    assert failed["failure_message"]
    events = [each["type"] for each in json_of(extended_merchant.get("/v1/events"))["data"]]
    assert events == ["payment.failed"]


@pytest.mark.parametrize("misfortune", Misfortune)
def test_whatever_befalls_it_a_transfer_is_made_once(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank, misfortune: Misfortune
) -> None:
    payment = pending(extended_merchant)
    extended_bank.will_suffer(misfortune)
    extended_api.worker_has_been_at_it(extended_merchant)

    for _ in range(2):
        days_pass(extended_api, extended_bank, extended_merchant)

    assert got(extended_merchant, payment["id"])["status"] == "succeeded"
    assert len(extended_bank.transfers) == 1
    assert extended_merchant.receipt(payment["id"])["needs_review"] is None


def test_requests_under_one_key_at_once_are_one_transfer(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    key = fresh("key")

    with ThreadPoolExecutor(5) as executor:
        answers = list(executor.map(lambda _: asked(extended_merchant, key=key), range(5)))
    days_pass(extended_api, extended_bank, extended_merchant)

    assert {each.status_code for each in answers} == {201}
    assert len({each.data for each in answers}) == 1
    assert len(extended_bank.transfers) == 1


def test_what_came_by_a_transfer_can_be_given_back_and_not_before(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant, payment = extended_merchant, pending(extended_merchant)
    too_early = merchant.refund(payment["id"])
    days_pass(extended_api, extended_bank, merchant)

    part = merchant.refund(payment["id"], amount=234)
    rest = merchant.refund(payment["id"])
    more = merchant.refund(payment["id"])

    assert error_of(too_early, 409)["code"] == "operation_in_progress"
    assert [json_of(each)["status"] for each in (part, rest)] == ["succeeded", "succeeded"]
    assert error_of(more, 409)["code"] == "payment_already_refunded"
    assert got(merchant, payment["id"])["amount_refunded"] == 1234


def test_what_came_by_a_transfer_and_what_was_given_back_of_it_moved_the_balance(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant = extended_merchant
    payment, failed = pending(merchant), pending(merchant, account_number="22222227")
    days_pass(extended_api, extended_bank, merchant)
    refund = json_of(merchant.refund(payment["id"], amount=234))

    moved = json_of(merchant.get("/v1/balance_transactions"))["data"]

    assert got(merchant, failed["id"])["status"] == "failed"
    assert [(each["source"], each["amount"], each["currency"]) for each in moved] == [
        (refund["id"], -234, "gbp"),
        (f"ch_{payment['id'].removeprefix('pay_')}", 1234, "gbp"),
    ]


@pytest.mark.parametrize("command", ["captures", "voids"])
def test_a_transfer_is_neither_captured_nor_voided(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank, command: str
) -> None:
    body = {"payment_id": pending(extended_merchant)["id"]}

    before = extended_merchant.post(f"/v1/{command}", body)
    days_pass(extended_api, extended_bank, extended_merchant)
    after = extended_merchant.post(f"/v1/{command}", body)

    assert error_of(before, 409)["code"] == "operation_in_progress"
    assert error_of(after, 409)["code"] == "payment_already_captured"


def test_a_bank_that_takes_no_transfers_is_not_asked(api: Api, merchant: Caller) -> None:
    before, body = api.behind(), a_transfer() | {"currency": "USD"}

    response = merchant.post(PAYMENTS, body)

    assert refusal(response) == (400, INVALID, "source_type_unsupported", "source[type]")
    assert api.behind() == before


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("account_number", "1234567", "invalid_param"),
        ("account_number", 12345678, "invalid_param"),
        ("account_number", None, "missing_param"),
        ("sort_code", "12-34-5", "invalid_param"),
        ("sort_code", "1-2-3-4-5-6", "invalid_param"),
        ("sort_code", None, "missing_param"),
        ("account_holder_name", " ", "invalid_param"),
        ("account_holder_name", None, "missing_param"),
        ("account_holder_name", "x" * 256, "invalid_param"),
        ("iban", "GB33", "unknown_param"),
    ],
)
def test_what_is_wrong_with_an_account_is_named(
    extended_api: Api, extended_merchant: Caller, field: str, value: Any, code: str
) -> None:
    before = extended_api.behind()

    response = asked(extended_merchant, **{field: value})

    assert refusal(response) == (400, INVALID, code, f"source[bank_account][{field}]")
    assert extended_api.behind() == before


def test_a_form_asks_for_a_transfer_as_json_does(extended_merchant: Caller) -> None:
    form = {"amount": "1234", "currency": "gbp", "source[type]": "bank_transfer"}
    form |= {f"source[bank_account][{name}]": value for name, value in ACCOUNT.items()}

    response = extended_merchant.post(PAYMENTS, data=form)

    assert response.status_code == 201, response.text
    assert json_of(response)["source"]["sort_code"] == "12-34-56"


def test_the_account_is_nowhere_once_the_bank_has_it(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant = extended_merchant
    payment = pending(merchant)
    kept = sealed(extended_api, merchant)
    extended_api.worker_has_been_at_it(merchant)

    after = sealed(extended_api, merchant)

    assert (kept, after) == (1, 0)
    everything = merchant.get(f"{PAYMENTS}/{payment['id']}").text + merchant.get(PAYMENTS).text
    assert ACCOUNT_NUMBER not in everything
    assert HOLDER not in everything


def sealed(api: Api, merchant: Caller) -> int:
    """How many of the merchant's outstanding calls have something sealed."""
    assert merchant.record is not None
    with api.services.pool.connection() as connection:
        row = connection.execute(
            "SELECT count(sealed_card) AS n FROM bank_calls WHERE merchant_id = %s",
            [merchant.record.merchant_id],
        ).fetchone()
    assert row is not None
    return int(row["n"])


# --- payment intents ----------------------------------------------------------------------------


def an_intent(**overrides: Any) -> dict[str, Any]:
    return {
        "amount": 2000,
        "currency": "gbp",
        "payment_method_types": ["card", "bacs_debit"],
        **overrides,
    }


def data(number: str = ACCOUNT_NUMBER) -> dict[str, Any]:
    return {
        "type": "bacs_debit",
        "bacs_debit": {"account_number": number, "sort_code": "108800"},
        "billing_details": {"name": "Jenny Rosen", "email": "jenny@example.com"},
    }


def confirmed(merchant: Caller, **how: Any) -> dict[str, Any]:
    response = merchant.post(INTENTS, an_intent(confirm=True, **how))
    assert response.status_code == 201, response.text
    document: dict[str, Any] = json_of(response)
    return document


def intent(merchant: Caller, intent_id: str) -> dict[str, Any]:
    document: dict[str, Any] = json_of(merchant.get(f"{INTENTS}/{intent_id}"))
    return document


def by_stored_method(merchant: Caller) -> dict[str, Any]:
    method = json_of(merchant.post("/v1/payment_methods", data()))
    assert method["type"] == "bacs_debit"
    return {"payment_method": method["id"]}


@pytest.mark.parametrize("how", ["test token", "stored", "on the way"])
def test_an_intent_is_processing_and_then_succeeds(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank, how: str
) -> None:
    merchant = extended_merchant
    match how:
        case "test token":
            paid_with: dict[str, Any] = {"payment_method": "pm_bacsDebit_success"}
        case "stored":
            paid_with = by_stored_method(merchant)
        case _:
            paid_with = {"payment_method_data": data()}

    waiting = confirmed(merchant, expand=["latest_charge"], **paid_with)
    days_pass(extended_api, extended_bank, merchant)
    paid = intent(merchant, waiting["id"])

    assert (waiting["status"], waiting["amount_received"]) == ("processing", 0)
    assert waiting["latest_charge"]["status"] == "pending"
    assert (paid["status"], paid["amount_received"]) == ("succeeded", 2000)
    method = paid["charges"]["data"][0]["payment_method"]
    assert (method["type"], method["bacs_debit"]["sort_code"]) == ("bacs_debit", "108800")
    kinds = [each["type"] for each in json_of(merchant.get("/v1/events"))["data"]]
    assert set(kinds) >= {
        "payment.succeeded",
        "charge.succeeded",
        "payment_intent.succeeded",
        "payment_intent.processing",
    }


def test_a_transfer_that_fails_leaves_the_intent_to_be_tried_again(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant = extended_merchant
    waiting = confirmed(merchant, payment_method="pm_bacsDebit_insufficientFunds")
    days_pass(extended_api, extended_bank, merchant)

    failed = intent(merchant, waiting["id"])
    again = merchant.post(
        f"{INTENTS}/{waiting['id']}/confirm", {"payment_method": "pm_bacsDebit_success"}
    )
    days_pass(extended_api, extended_bank, merchant)

    assert failed["status"] == "requires_payment_method"
    error = failed["last_payment_error"]
    assert (error["code"], error["decline_code"]) == (
        "payment_intent_payment_attempt_failed",
        "insufficient_funds",
    )
    assert error["payment_method"]["type"] == "bacs_debit"
    assert json_of(again)["status"] == "processing"
    assert intent(merchant, waiting["id"])["status"] == "succeeded"


def test_the_same_key_confirms_once_and_is_answered_the_same(
    extended_api: Api, extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant, key = extended_merchant, fresh("key")
    made = json_of(merchant.post(INTENTS, an_intent(payment_method="pm_bacsDebit_success")))
    path = f"{INTENTS}/{made['id']}/confirm"

    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(lambda _: merchant.post(path, {}, key=key), range(4)))
    days_pass(extended_api, extended_bank, merchant)
    later = merchant.post(path, {}, key=key)

    assert len({each.data for each in (*answers, later)}) == 1
    assert json_of(later)["status"] == "processing"
    assert len(extended_bank.transfers) == 1


@pytest.mark.parametrize(
    ("overrides", "code", "param"),
    [
        (
            {"capture_method": "manual"},
            "source_type_unsupported",
            "capture_method",
        ),
        (
            {"payment_method_types": ["card"]},
            "payment_method_type_unsupported",
            "payment_method",
        ),
    ],
)
def test_an_intent_that_is_not_to_be_paid_so_is_not(
    extended_api: Api,
    extended_merchant: Caller,
    overrides: dict[str, Any],
    code: str,
    param: str,
) -> None:
    before = extended_api.behind()
    body = an_intent(confirm=True, payment_method="pm_bacsDebit_success") | overrides

    response = extended_merchant.post(INTENTS, body)

    assert refusal(response) == (400, INVALID, code, param)
    assert extended_api.behind() == before


def test_a_bank_that_takes_no_transfers_has_no_such_intents(api: Api, merchant: Caller) -> None:
    only = merchant.post(INTENTS, an_intent(payment_method_types=["bacs_debit"], currency="usd"))
    made = json_of(merchant.post(INTENTS, an_intent(currency="usd")))
    tried = merchant.post(
        f"{INTENTS}/{made['id']}/confirm", {"payment_method": "pm_bacsDebit_success"}
    )

    assert refusal(only)[2:] == ("payment_method_type_unsupported", "payment_method_types")
    assert error_of(tried, 400)["code"] == "source_type_unsupported"
    assert intent(merchant, made["id"])["status"] == "requires_payment_method"


def test_a_method_by_an_account_shows_its_face_and_is_of_no_use_for_a_hold(
    extended_merchant: Caller,
) -> None:
    merchant = extended_merchant
    method = json_of(merchant.post("/v1/payment_methods", data()))
    merchant.post("/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}})

    held = merchant.authorize(card=None, payment_method=method["id"])
    kinds = json_of(merchant.get("/v1/payment_methods?type=bacs_debit"))["data"]
    renamed = merchant.post(f"/v1/payment_methods/{method['id']}", {"metadata": {"a": "b"}})
    as_card = merchant.post(f"/v1/payment_methods/{method['id']}", {"card": {"exp_month": 1}})

    assert method["bacs_debit"] == {
        "fingerprint": method["bacs_debit"]["fingerprint"],
        "last4": ACCOUNT_NUMBER[-4:],
        "sort_code": "108800",
    }
    assert error_of(held, 400)["code"] == "payment_method_type_unsupported"
    assert [each["id"] for each in kinds] == [method["id"]]
    assert json_of(renamed)["metadata"] == {"a": "b"}
    assert refusal(as_card) == (400, INVALID, "invalid_param", "card")


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"billing_details": {}}, "missing_param", "billing_details[name]"),
        ({"bacs_debit": None}, "missing_param", "bacs_debit"),
        ({"type": "card"}, "invalid_param", "bacs_debit"),
        ({"type": "sepa_debit"}, "invalid_param", "type"),
        (
            {"bacs_debit": {"account_number": "1", "sort_code": "108800"}},
            "invalid_param",
            "bacs_debit[account_number]",
        ),
    ],
)
def test_what_is_wrong_with_a_method_by_an_account_is_named(
    extended_merchant: Caller, change: dict[str, Any], code: str, param: str
) -> None:
    body = {name: value for name, value in (data() | change).items() if value is not None}

    response = extended_merchant.post("/v1/payment_methods", body)

    assert refusal(response) == (400, INVALID, code, param)


def test_with_its_customer_the_account_and_whose_it_is_are_erased(
    extended_api: Api, extended_merchant: Caller
) -> None:
    merchant = extended_merchant
    customer = json_of(merchant.post("/v1/customers", {"name": "Jenny"}))["id"]
    method = json_of(merchant.post("/v1/payment_methods", data()))["id"]
    merchant.post(f"/v1/payment_methods/{method}/attach", {"customer": customer})

    merchant.request("DELETE", f"/v1/customers/{customer}")

    left = json_of(merchant.get(f"/v1/payment_methods/{method}"))
    assert left["billing_details"]["name"] is None
    response = merchant.post(INTENTS, an_intent(confirm=True, payment_method=method))
    assert error_of(response, 409)["code"] == "payment_method_detached"

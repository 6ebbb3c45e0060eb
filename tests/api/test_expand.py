"""References, answered as the things themselves; and refunds and balance transactions, which have some."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from api.payments.expand import expanded
from api.payments.reading import Reader
from api.payments.schemas import BalanceTransactionOut
from domain.bank import Unknown
from tests.api.an_api import Api, Caller, error_of, json_of
from tests.fakes import FakeBank

FORM = "application/x-www-form-urlencoded"
INTENTS = "/v1/payment_intents"
REFUNDS = "/v1/refunds"
TRANSACTIONS = "/v1/balance_transactions"


class CountingPool:
    """How many statements were asked."""

    def __init__(self, pool: Any) -> None:
        self._pool, self.statements = pool, 0

    @contextmanager
    def connection(self) -> Iterator["CountingPool"]:
        with self._pool.connection() as self._connection:
            yield self

    def execute(self, *asked: Any) -> Any:
        self.statements += 1
        return self._connection.execute(*asked)


def paid(merchant: Caller, **fields: Any) -> dict[str, Any]:
    body = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    answer = merchant.post(INTENTS, body | fields)
    assert answer.status_code == 201, answer.text
    intent: dict[str, Any] = json_of(answer)
    return intent


def a_customer(merchant: Caller) -> str:
    public_id: str = json_of(merchant.post("/v1/customers", {"name": "Ada"}))["id"]
    return public_id


@pytest.mark.parametrize(
    "paths",
    [
        ["data.customer"],
        ["data.latest_charge.customer", "data.customer"],
        ["data.latest_charge.payment_intent.customer", "data.charges.data"],
    ],
)
def test_a_list_of_many_asks_no_more_than_a_list_of_one(
    api: Api, merchant: Caller, paths: list[str]
) -> None:
    for _ in range(6):
        paid(merchant, customer=a_customer(merchant))
    listed = json_of(merchant.get(f"{INTENTS}?limit=100"))["data"]
    assert merchant.record is not None

    asked = []
    for number in (1, 6):
        pool: Any = CountingPool(api.services.pool)
        reader = Reader(replace(api.services, pool=pool), merchant.record.tenant)
        body = {"object": "list", "data": [dict(each) for each in listed[:number]]}
        expanded(body, paths, reader)
        asked.append(pool.statements)

    assert asked[0] == asked[1] > 0
    assert len({each["customer"] for each in listed}) == 6


def test_each_thing_has_references_of_its_own(merchant: Caller) -> None:
    customer = a_customer(merchant)
    for _ in range(2):
        paid(merchant, customer=customer)
    paths = ["data.customer", "data.latest_charge.payment_intent.latest_charge"]
    query = "&".join(f"expand[]={path}" for path in paths)

    found = json_of(merchant.get(f"{INTENTS}?{query}"))["data"]

    assert [each["customer"]["name"] for each in found] == ["Ada", "Ada"]
    for each in found:
        charge = each["latest_charge"]
        assert charge["payment_intent"]["id"] == each["id"]
        assert charge["payment_intent"]["latest_charge"]["id"] == charge["id"]
        assert isinstance(charge["payment_intent"]["latest_charge"]["payment_intent"], str)


def test_a_reference_to_nothing_stays_as_it_is(merchant: Caller) -> None:
    intent = paid(merchant, expand=["payment_method", "latest_charge.customer"])
    of_the_gateway = merchant.captured(customer_id="cus_of_theirs")["payment_id"]
    charge = f"/v1/charges/{of_the_gateway.replace('pay_', 'ch_')}"

    told = json_of(merchant.get(f"{charge}?expand[]=customer&expand[]=payment_intent"))

    assert intent["payment_method"] == "pm_card_visa"
    assert intent["latest_charge"]["customer"] is None
    assert (told["customer"], told["payment_intent"]) == ("cus_of_theirs", None)


def test_what_is_left_of_a_deleted_customer_is_told(merchant: Caller) -> None:
    customer = a_customer(merchant)
    intent = paid(merchant, customer=customer)
    merchant.request("DELETE", f"/v1/customers/{customer}")

    told = json_of(merchant.get(f"{INTENTS}/{intent['id']}?expand[]=customer"))

    assert told["customer"] == {"id": customer, "object": "customer", "deleted": True}


# --- refunds ------------------------------------------------------------------------------------


def test_a_refund_is_answered_with_its_charge_as_it_is_then(extended_merchant: Caller) -> None:
    merchant = extended_merchant
    intent = paid(merchant)
    body = {"payment_intent": intent["id"], "amount": 300}
    asked = body | {"expand": ["charge", "payment_intent.latest_charge"]}

    first = merchant.post(REFUNDS, asked, key="once")
    again = merchant.post(REFUNDS, asked, key="once")

    told = json_of(first)
    assert first.status_code == 201
    assert told["charge"]["amount_refunded"] == 300
    assert told["payment_intent"]["latest_charge"]["amount_refunded"] == 300
    assert again.data == first.data
    one = json_of(merchant.get(f"{REFUNDS}/{told['id']}?expand[]=charge"))
    assert one["charge"] == told["charge"]
    listed = json_of(merchant.get(f"{REFUNDS}?expand[]=data.charge"))["data"]
    assert [each["charge"] for each in listed] == [told["charge"]]


def test_a_refund_that_waits_is_expanded_too(merchant: Caller, bank: FakeBank) -> None:
    intent = paid(merchant)
    bank.will_answer(Unknown(reason="down", unanswered=False))

    answer = merchant.post(REFUNDS, {"payment_intent": intent["id"], "expand": ["charge"]})

    told = json_of(answer)
    assert (answer.status_code, told["status"], told["charge"]["object"]) == (
        202,
        "pending",
        "charge",
    )


@pytest.mark.parametrize("by", ["payment_id", "charge"])
def test_a_refunds_metadata_is_changed_in_either_spelling(merchant: Caller, by: str) -> None:
    payment_id = merchant.captured()["payment_id"]
    named = {by: payment_id if by == "payment_id" else payment_id.replace("pay_", "ch_")}
    made = json_of(merchant.post(REFUNDS, {**named, "metadata": {"a": "1", "b": "2"}}))
    suffix = made["id"].partition("_")[2]

    for spelling in (f"re_{suffix}", f"rfnd_{suffix}"):
        change = {"metadata": {"a": "", "c": spelling}}
        told = json_of(merchant.post(f"{REFUNDS}/{spelling}", change))

        assert told == made | {"metadata": {"b": "2", "c": spelling}}
        assert json_of(merchant.get(f"{REFUNDS}/{made['id']}")) == told
    cleared = merchant.post(f"{REFUNDS}/{made['id']}", data="metadata=", content_type=FORM)
    assert json_of(cleared)["metadata"] == {}
    assert merchant.receipt(payment_id)["amount_refunded"] == made["amount"]


def test_nothing_comes_between_while_the_bank_is_asked(
    extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant = extended_merchant
    payment_id = merchant.captured()["payment_id"]
    made = json_of(merchant.refund(payment_id, amount=100))
    extended_bank.will_answer(Unknown(reason="down", unanswered=False))
    assert merchant.refund(payment_id, amount=100).status_code == 202

    refused = merchant.post(f"{REFUNDS}/{made['id']}", {"metadata": {"a": "b"}})

    assert error_of(refused, 409)["code"] == "operation_in_progress"


# --- balance transactions -----------------------------------------------------------------------


def test_what_moved_the_balance_is_listed_and_sums_to_it(extended_merchant: Caller) -> None:
    merchant = extended_merchant
    intent = paid(merchant, description="Two books")
    refund = json_of(merchant.post(REFUNDS, {"payment_intent": intent["id"], "amount": 300}))
    merchant.authorized()  # which is held, and no more
    in_yen = paid(merchant, currency="jpy")

    listed = json_of(merchant.get(TRANSACTIONS))["data"]

    for each in listed:
        BalanceTransactionOut.model_validate(each)
    assert [(each["type"], each["amount"], each["source"]) for each in listed] == [
        ("charge", 2000, in_yen["latest_charge"]),
        ("refund", -300, refund["id"]),
        ("charge", 2000, intent["latest_charge"]),
    ]
    assert listed[2]["description"] == "Two books"
    available = json_of(merchant.get("/v1/balance"))["available"]
    sums = {each["currency"]: each["amount"] for each in available}
    assert sums == {"usd": 1700, "jpy": 2000}


def test_balance_transactions_are_found_one_by_one_and_by_what_they_are(
    extended_merchant: Caller,
) -> None:
    merchant = extended_merchant
    intents = [paid(merchant) for _ in range(3)]
    refund = json_of(merchant.post(REFUNDS, {"payment_intent": intents[0]["id"]}))
    whole = json_of(merchant.get(TRANSACTIONS))["data"]

    first = json_of(merchant.get(f"{TRANSACTIONS}?limit=2"))
    rest = json_of(merchant.get(f"{TRANSACTIONS}?starting_after={first['next_cursor']}"))
    by_source = json_of(merchant.get(f"{TRANSACTIONS}?source={intents[1]['latest_charge']}"))
    by_type = json_of(merchant.get(f"{TRANSACTIONS}?type=refund&expand[]=data.source.charge"))
    one = json_of(merchant.get(f"{TRANSACTIONS}/{whole[-1]['id']}?expand[]=source"))

    assert first["data"] + rest["data"] == whole
    assert [each["source"] for each in by_source["data"]] == [intents[1]["latest_charge"]]
    (given_back,) = by_type["data"]
    assert given_back["source"]["id"] == refund["id"]
    assert given_back["source"]["charge"]["refunded"] is True
    assert one["source"]["id"] == intents[0]["latest_charge"]
    assert json_of(merchant.get(f"{TRANSACTIONS}?currency=eur"))["data"] == []

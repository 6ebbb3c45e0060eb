"""Searches, in the language of Stripe's clients; whatever was answered before is found."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.api.an_api import EMPTY_CARD, GOOD_CARD, Caller, refusal
from tests.api.test_intents import INTENTS, a_method, an_intent, answered, created
from tests.builders import CHALLENGED_VISA

PATHS = {"intents": INTENTS, "charges": "/v1/charges", "customers": "/v1/customers"}


def sought(merchant: Caller, what: str, query: str, more: str = "") -> dict[str, Any]:
    path = f"{PATHS[what]}/search?query={quote(query)}{more}"
    body = answered(merchant.get(path), 200)
    assert (body["object"], body["url"]) == ("search_result", f"{PATHS[what]}/search")
    assert body["query"] == query
    return body


def ids(merchant: Caller, what: str, query: str) -> list[str]:
    return [each["id"] for each in sought(merchant, what, query)["data"]]


def a_customer(merchant: Caller, **fields: Any) -> str:
    public_id: str = answered(merchant.post("/v1/customers", fields), 201)["id"]
    return public_id


def test_intents_are_found_by_what_is_said_of_them(merchant: Caller) -> None:
    ada = a_customer(merchant)
    one = created(merchant, customer=ada, metadata={"order": "It's 1", "n": 7})["id"]
    two = created(merchant, amount=3000, metadata={"order": "two"})["id"]

    found = {
        "amount>2000": [two],
        "amount>=2000 AND amount<3000": [one],
        "amount:3000": [two],
        "amount=2000": [one],
        f"customer:'{ada}'": [one],
        "customer:null": [two],
        "-customer:null": [one],
        "metadata['order']:'TWO'": [two],
        'metadata["order"]~"It\'s"': [one],
        r"metadata['order']:'It\'s 1'": [one],
        "metadata['n']:'7'": [one],
        "metadata['n']:null": [two],
        "-metadata['order']:'two'": [one],
        "amount:2000 OR amount:3000": [two, one],
        "currency:'USD' and -amount:2000": [two],
        "currency:'jpy'": [],
        "created>0": [two, one],
        "created<1000": [],
    }
    assert {query: ids(merchant, "intents", query) for query in found} == found


def test_an_intents_status_is_the_one_that_it_is_shown_with(merchant: Caller) -> None:
    """Each search has exactly the intents that say this status of themselves."""
    created(merchant)
    created(merchant, payment_method=a_method(merchant))
    paid_with_nothing = {"payment_method": a_method(merchant, EMPTY_CARD), "confirm": True}
    merchant.post(INTENTS, an_intent(**paid_with_nothing))
    merchant.post(INTENTS, an_intent(payment_method=a_method(merchant, EMPTY_CARD), confirm=True))
    last = answered(merchant.get(INTENTS), 200)["data"][0]["id"]
    answered(merchant.post(f"{INTENTS}/{last}/cancel", {}), 200)
    created(merchant, payment_method=a_method(merchant), confirm=True)
    manual = {"confirm": True, "capture_method": "manual"}
    created(merchant, payment_method=a_method(merchant), **manual)
    held = created(merchant, payment_method=a_method(merchant), **manual)
    answered(merchant.post(f"{INTENTS}/{held['id']}/cancel", {}), 200)

    by_status: dict[str, list[str]] = {}
    for each in answered(merchant.get(INTENTS), 200)["data"]:
        by_status.setdefault(each["status"], []).append(each["id"])

    assert by_status["canceled"] == [held["id"], last]
    assert len(by_status["requires_payment_method"]) == 2
    assert len(by_status) == 5
    for status, expected in by_status.items():
        assert ids(merchant, "intents", f"status:'{status}'") == expected
    assert ids(merchant, "intents", "status:'processing'") == []


def test_an_intent_that_waits_for_a_shopper_is_found(extended_merchant: Caller) -> None:
    method = a_method(extended_merchant, {**GOOD_CARD, "number": CHALLENGED_VISA})
    extended_merchant.post(INTENTS, an_intent(payment_method=method, confirm=True))

    (found,) = sought(extended_merchant, "intents", "status:'requires_action'")["data"]

    assert found["status"] == "requires_action"


def test_charges_are_found_by_what_is_said_of_them(merchant: Caller) -> None:
    paid = merchant.captured(metadata={"k": "v"})["payment_id"].replace("pay_", "ch_")
    gone = merchant.refunded()["payment_id"].replace("pay_", "ch_")
    failed = merchant.declined()["payment_id"].replace("pay_", "ch_")

    found = {
        "refunded:'true'": [gone],
        "refunded:false AND status:'succeeded'": [paid],
        "disputed:true": [],
        "status:'failed'": [failed],
        "payment_method_details.card.last4:'4444'": [failed],
        "-payment_method_details.card.last4:'4444'": [gone, paid],
        "customer:'cus_123' AND metadata['k']:'v'": [paid],
        "currency:'usd' OR amount>1": [failed, gone, paid],
    }
    assert {query: ids(merchant, "charges", query) for query in found} == found


def test_customers_are_found_by_who_they_are_until_that_is_erased(merchant: Caller) -> None:
    ada = a_customer(merchant, email="Ada@Example.com", name="Ada Lovelace", metadata={"a": "b"})
    bob = a_customer(merchant, name="Bob_100%", phone="+44 20 7946 0000")

    found = {
        "email:'ada@example.com'": [ada],
        "email~'example'": [ada],
        "email:null": [bob],
        "name~'LOVE'": [ada],
        "name~'_100%'": [bob],
        "name~'%%%'": [],
        "phone:'+44 20 7946 0000'": [bob],
        "metadata['a']:'b' OR name~'Bob'": [bob, ada],
    }
    assert {query: ids(merchant, "customers", query) for query in found} == found
    merchant.request("DELETE", f"/v1/customers/{ada}")
    assert ids(merchant, "customers", "created>0") == [bob]
    assert ids(merchant, "customers", "email~'example'") == []


def test_pages_go_on_where_the_last_one_ended(merchant: Caller) -> None:
    made = [a_customer(merchant) for _ in range(5)][::-1]

    seen, page = [], ""
    while True:
        body = sought(merchant, "customers", "created>0", f"&limit=2{page}&expand[]=total_count")
        assert body["total_count"] == 5
        seen += [each["id"] for each in body["data"]]
        if not body["has_more"]:
            break
        page = f"&page={body['next_page']}"

    assert seen == made
    assert body["next_page"] is None


def test_what_is_found_is_expanded(merchant: Caller) -> None:
    ada = a_customer(merchant, name="Ada")
    created(merchant, customer=ada)

    body = sought(merchant, "intents", "amount>1", "&expand[]=data.customer")

    assert body["data"][0]["customer"]["name"] == "Ada"


def test_nobody_finds_what_is_anothers(merchant: Caller, api: Any) -> None:
    created(merchant)

    assert ids(api.merchant(), "intents", "amount>0 OR created>0") == []


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "amount",
        "amount>",
        "amount>many",
        "amount>1e3",
        "amount~'100'",
        "amount>1 AND",
        "amount>1 amount<3",
        "amount>1 AND amount<3 OR amount:5",
        "(amount>1)",
        "nothing:'x'",
        "status:succeeded",
        "status:'asleep'",
        "status~'succ'",
        "currency:'xyz'",
        "metadata:'x'",
        "metadata[order]:'x'",
        "amount['x']:1",
        "metadata['order'~'x'",
        "metadata['order']~'xy'",
        "customer>'cus_1'",
        "customer:'cus_1' ; DROP TABLE events",
        "--amount:1",
        " AND ".join(["amount>1"] * 11),
        f"customer:'{'x' * 2_000}'",
    ],
)
def test_a_bad_query_is_refused(merchant: Caller, query: str) -> None:
    response = merchant.get(f"{INTENTS}/search?query={quote(query)}")

    assert refusal(response) == (400, "invalid_request_error", "invalid_param", "query")


@pytest.mark.parametrize(
    ("more", "param"),
    [("&page=2", "page"), ("&limit=0", "limit"), ("&limit=101", "limit"), ("&x=1", "x")],
)
def test_other_parameters_are_checked_too(merchant: Caller, more: str, param: str) -> None:
    response = merchant.get(f"{INTENTS}/search?query=amount%3E1{more}")

    assert refusal(response)[3] == param


def test_there_is_no_search_without_a_query(merchant: Caller) -> None:
    response = merchant.get("/v1/customers/search")

    assert refusal(response) == (400, "invalid_request_error", "missing_param", "query")

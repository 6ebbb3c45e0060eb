"""Receipts, orders, refunds: what is read is what was done, by page, by filter, by moment."""

import itertools
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from api.schemas import OrderOut, ReceiptList, RefundList, RefundOut
from tests.api.an_api import (
    EMPTY_CARD,
    GOOD_CARD,
    Api,
    Caller,
    brief,
    error_of,
    fresh,
    refusal,
    shaped,
)
from tests.fakes import FakeBank, Misfortune

INVALID = "invalid_request_error"
NOT_THERE = (404, "resource_missing", "payment_not_found")


# --- one receipt --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["authorized", "captured", "voided"])
def test_a_read_after_a_command_shows_what_the_command_answered(
    merchant: Caller, command: str
) -> None:
    answered = getattr(merchant, command)()

    assert merchant.receipt(answered["payment_id"]) == answered


def test_a_receipt_is_read_as_it_stood_at_each_version(merchant: Caller) -> None:
    receipt = merchant.refunded()

    path = receipt["payment_id"]
    versions = [merchant.receipt(path, f"?version={n}") for n in range(1, 7)]

    assert [one["version"] for one in versions] == [1, 2, 3, 4, 5, 6]
    assert [(one["status"], one["pending_operation"]) for one in versions] == [
        ("pending", "authorization"),
        ("authorized", None),
        ("authorized", "capture"),
        ("captured", None),
        ("captured", "refund"),
        ("refunded", None),
    ]
    assert versions[-1] == receipt


def test_a_version_that_is_not_there_yet_is_a_404(merchant: Caller) -> None:
    payment_id = merchant.authorized()["payment_id"]

    response = merchant.get(f"/v1/receipts/{payment_id}?version=3")

    assert refusal(response) == (*NOT_THERE, "version")


def test_a_receipt_is_read_as_it_stood_at_a_moment(merchant: Caller) -> None:
    receipt = merchant.captured()
    at = {step["status"]: step["at"] for step in receipt["timeline"]}

    then = merchant.receipt(receipt["payment_id"], f"?as_of={at['authorized']}")
    now = merchant.receipt(receipt["payment_id"], f"?as_of={at['captured']}")

    assert brief(then, "status", "version") == ("authorized", 2)
    assert now == receipt


@pytest.mark.parametrize(
    "spelled",
    [
        lambda at: quote(at.isoformat()),
        lambda at: at.isoformat(),  # its plus sign is a space to whoever decodes the query
        lambda at: at.isoformat().replace("+00:00", "Z"),
        lambda at: quote((at + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00")),
        lambda at: str(int(at.timestamp())),
    ],
    ids=["offset", "bare plus", "Z", "another zone", "unix"],
)
def test_a_moment_may_be_spelled_in_several_ways(
    merchant: Caller, spelled: Callable[[datetime], str]
) -> None:
    receipt = merchant.authorized()
    an_hour_later = datetime.fromisoformat(receipt["updated_at"]) + timedelta(hours=1)

    then = merchant.receipt(receipt["payment_id"], f"?as_of={spelled(an_hour_later)}")

    assert then == receipt


def test_before_its_first_event_there_is_no_receipt(merchant: Caller) -> None:
    payment_id = merchant.authorized()["payment_id"]

    response = merchant.get(f"/v1/receipts/{payment_id}?as_of=2020-01-01T00:00:00Z")

    assert refusal(response) == (*NOT_THERE, "as_of")


@pytest.mark.parametrize("query", ["", "?version=1", "?as_of=2030-01-01T00:00:00Z"])
def test_an_unknown_receipt_is_the_same_404_whatever_is_wrong_with_its_id(
    api: Api, merchant: Caller, query: str
) -> None:
    theirs = api.merchant().authorized()["payment_id"]
    own = merchant.authorized()["payment_id"]
    ids = [
        theirs,
        own[:-1] + ("0" if own[-1] != "0" else "1"),
        own.replace("pay_", "ch_"),
        own.upper(),
        "pay_",
        "nonsense",
        "%00",
        "pay_" + "z" * 26,
        "pay_" + "0" * 5000,
    ]

    answers = [merchant.get(f"/v1/receipts/{one}{query}") for one in ids]

    told = [error_of(response, 404) | {"request_id": None} for response in answers]
    assert told == [told[0]] * len(ids)
    assert told[0]["code"] == "payment_not_found"


# --- orders -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "ok_to_ship"),
    [
        ("authorized", True),
        ("captured", True),
        ("declined", False),
        ("voided", False),
        ("refunded", False),
    ],
)
def test_an_order_is_shipped_when_its_money_is_held_or_taken(
    merchant: Caller, state: str, ok_to_ship: bool
) -> None:
    receipt = getattr(merchant, state)()

    order = shaped(OrderOut, merchant.get(f"/v1/orders/{receipt['order_id']}"), 200)

    assert order == {
        "object": "order",
        "order_id": receipt["order_id"],
        "status": state,
        "payment_id": receipt["payment_id"],
        "ok_to_ship": ok_to_ship,
        "payments": [receipt],
    }


def test_an_order_is_not_shipped_while_an_operation_runs(merchant: Caller, bank: FakeBank) -> None:
    receipt = merchant.authorized()
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    merchant.void(receipt["payment_id"])

    order = shaped(OrderOut, merchant.get(f"/v1/orders/{receipt['order_id']}"), 200)

    assert brief(order, "status", "ok_to_ship") == ("authorized", False)


def test_an_order_is_not_shipped_while_its_payment_needs_review(
    merchant: Caller, bank: FakeBank
) -> None:
    receipt = merchant.authorized()
    bank.holds[receipt["bank"]["authorization_id"]].ended_by = "somebody else"
    merchant.capture(receipt["payment_id"])

    order = shaped(OrderOut, merchant.get(f"/v1/orders/{receipt['order_id']}"), 200)

    assert brief(order, "status", "ok_to_ship") == ("authorized", False)


def test_an_order_shows_its_payments_newest_first_and_stands_as_the_live_one_does(
    merchant: Caller,
) -> None:
    order_id = fresh("ORD")
    declined = error_of(merchant.authorize(order_id=order_id, card=EMPTY_CARD), 402)["payment_id"]
    paid = merchant.authorized(order_id=order_id)["payment_id"]

    order = shaped(OrderOut, merchant.get(f"/v1/orders/{order_id}"), 200)

    assert brief(order, "status", "payment_id", "ok_to_ship") == ("authorized", paid, True)
    assert [one["payment_id"] for one in order["payments"]] == [paid, declined]


@pytest.mark.parametrize(
    "order_id",
    [
        "ORD/2026/7",
        "a b",
        "é–ü",
        "100%",
        "a?b#c",
        "x" * 255,
        "a//b",
        "/a",
        "a/",
        "..",
        "Ａ１",
        "🛒",
    ],
)
def test_any_order_id_that_can_be_paid_can_be_read(merchant: Caller, order_id: str) -> None:
    merchant.authorized(order_id=order_id)

    order = shaped(OrderOut, merchant.get(f"/v1/orders/{quote(order_id, safe='')}"), 200)

    assert order["order_id"] == order_id


@pytest.mark.parametrize(
    "order_id", ["nobody's", "%00", "%01", "%20", "%FF", "x" * 5000, "%ED%A0%80"]
)
def test_an_unknown_order_is_a_404(merchant: Caller, order_id: str) -> None:
    response = merchant.get(f"/v1/orders/{order_id}")

    assert refusal(response) == (404, "resource_missing", "order_not_found", None)


def test_an_order_is_another_merchants_own(api: Api, merchant: Caller) -> None:
    order_id = api.merchant().authorized()["order_id"]

    response = merchant.get(f"/v1/orders/{order_id}")

    assert refusal(response) == (404, "resource_missing", "order_not_found", None)


# --- lists --------------------------------------------------------------------------------------


def ids_of(merchant: Caller, query: str, path: str = "/v1/receipts") -> list[str]:
    model, name = (ReceiptList, "payment_id") if path == "/v1/receipts" else (RefundList, "id")
    page = shaped(model, merchant.get(f"{path}{query}"), 200)
    return [one[name] for one in page["data"]]


def test_a_list_of_nothing_is_an_empty_list(merchant: Caller) -> None:
    empty = {"object": "list", "data": [], "has_more": False, "next_cursor": None}

    receipts = shaped(ReceiptList, merchant.get("/v1/receipts"), 200)
    refunds = shaped(RefundList, merchant.get("/v1/refunds"), 200)

    assert receipts == empty | {"url": "/v1/receipts"}
    assert refunds == empty | {"url": "/v1/refunds"}


def test_receipts_are_listed_newest_first(merchant: Caller) -> None:
    made = [merchant.authorized() for _ in range(3)]

    page = shaped(ReceiptList, merchant.get("/v1/receipts"), 200)

    assert page["data"] == made[::-1]
    assert brief(page, "has_more", "next_cursor") == (False, None)


def test_receipts_are_found_by_order_by_customer_and_by_status(merchant: Caller) -> None:
    by_one = merchant.authorized(customer_id="cus_1")
    by_other = merchant.captured(customer_id="cus_2")
    declined = error_of(merchant.authorize(customer_id="cus_1", card=EMPTY_CARD), 402)

    assert ids_of(merchant, f"?order_id={by_one['order_id']}") == [by_one["payment_id"]]
    assert ids_of(merchant, "?customer_id=cus_2") == [by_other["payment_id"]]
    assert ids_of(merchant, "?status=declined") == [declined["payment_id"]]
    assert ids_of(merchant, "?customer_id=cus_1&status=authorized") == [by_one["payment_id"]]
    assert ids_of(merchant, "?customer_id=cus_2&status=authorized") == []


def test_receipts_are_found_by_the_time_of_their_creation(api: Api, merchant: Caller) -> None:
    now = int(time.time())  # an id is of the same minute as what it names
    first, second, third = times = (now - 30, now - 20, now - 10)
    ids = [merchant.authorized()["payment_id"] for _ in times]
    for payment_id, at in zip(ids, times, strict=True):
        api.execute(
            "UPDATE receipts SET created_at = to_timestamp(%(at)s) "
            "WHERE document ->> 'payment_id' = %(payment_id)s",
            at=at,
            payment_id=payment_id,
        )

    assert ids_of(merchant, f"?created[gt]={first}&created[lt]={third}") == ids[1:2]
    assert ids_of(merchant, f"?created[gte]={second}") == ids[:0:-1]
    assert ids_of(merchant, f"?created%5Blte%5D={second}") == ids[1::-1]
    assert ids_of(merchant, f"?created[gt]={third}") == []
    for end in ("0", "253402300799"):
        assert (
            len(ids_of(merchant, f"?created[gte]={end}") + ids_of(merchant, f"?created[lte]={end}"))
            == 3
        )


@pytest.mark.parametrize("path", ["/v1/receipts", "/v1/refunds"])
def test_pages_cover_a_list_once_while_rows_are_added(merchant: Caller, path: str) -> None:
    ids = [make_row(merchant, path) for _ in range(5)]

    seen: list[str] = []
    query = "?limit=2"
    for _ in itertools.repeat(None, 3):
        page = json.loads(merchant.get(f"{path}{query}").data)
        seen += [one.get("id") or one["payment_id"] for one in page["data"]]
        query = f"?limit=2&starting_after={page['next_cursor']}"
        make_row(merchant, path)

    assert seen == ids[::-1]
    assert brief(page, "has_more", "next_cursor") == (False, None)


def make_row(merchant: Caller, path: str) -> str:
    if path == "/v1/receipts":
        return str(merchant.authorized(amount=1)["payment_id"])
    payment_id = merchant.captured(amount=1)["payment_id"]
    return str(shaped(RefundOut, merchant.refund(payment_id), 201)["id"])


@pytest.mark.parametrize("path", ["/v1/receipts", "/v1/refunds"])
def test_pages_go_backwards_too_and_are_newest_first_all_the_same(
    merchant: Caller, path: str
) -> None:
    ids = [make_row(merchant, path) for _ in range(5)]
    model = ReceiptList if path == "/v1/receipts" else RefundList

    page = shaped(model, merchant.get(f"{path}?limit=2&ending_before={ids[0]}"), 200)
    rest = ids_of(merchant, f"?limit=2&ending_before={page['next_cursor']}", path)

    assert [one.get("id") or one["payment_id"] for one in page["data"]] == [ids[2], ids[1]]
    assert brief(page, "has_more", "next_cursor") == (True, ids[2])
    assert rest == [ids[4], ids[3]]


def test_a_page_has_twenty_rows_unless_it_is_said(merchant: Caller, bank: FakeBank) -> None:
    bank.deposit(str(GOOD_CARD["number"]), 1_000_000)
    for _ in range(21):
        merchant.authorized(amount=1)

    page = shaped(ReceiptList, merchant.get("/v1/receipts"), 200)

    assert len(page["data"]) == 20
    assert page["next_cursor"] == page["data"][-1]["payment_id"]
    assert len(ids_of(merchant, "?limit=100")) == 21


@pytest.mark.parametrize("param", ["starting_after", "ending_before"])
@pytest.mark.parametrize("path", ["/v1/receipts", "/v1/refunds"])
def test_a_cursor_that_is_not_of_the_list_is_a_404_with_its_name(
    api: Api, merchant: Caller, path: str, param: str
) -> None:
    stranger = api.merchant()
    cursors = [make_row(stranger, path), "pay_", "rfnd_", "nonsense", "req_" + "0" * 26, ""]
    code = "payment_not_found" if path == "/v1/receipts" else "refund_not_found"

    for cursor in cursors:
        response = merchant.get(f"{path}?{param}={cursor}")

        assert refusal(response) == (404, "resource_missing", code, param)


# --- refunds ------------------------------------------------------------------------------------


def test_a_refund_is_found_in_either_spelling(merchant: Caller) -> None:
    payment_id = merchant.captured()["payment_id"]
    refund = shaped(RefundOut, merchant.refund(payment_id), 201)
    suffix = refund["id"].removeprefix("rfnd_")

    for spelling in (f"rfnd_{suffix}", f"re_{suffix}"):
        assert shaped(RefundOut, merchant.get(f"/v1/refunds/{spelling}"), 200) == refund


def test_a_refund_by_charge_speaks_the_intents_language(merchant: Caller) -> None:
    payment_id = merchant.captured()["payment_id"]
    charge = payment_id.replace("pay_", "ch_")

    response = merchant.post("/v1/refunds", {"charge": charge})
    refund = shaped(RefundOut, response, 201)

    assert refund["id"].startswith("re_")
    assert brief(refund, "payment_id", "charge", "currency") == (payment_id, charge, "usd")
    assert response.headers["Location"] == f"/v1/refunds/{refund['id']}"
    assert shaped(RefundOut, merchant.get(f"/v1/refunds/{refund['id']}"), 200) == refund
    assert ids_of(merchant, "", "/v1/refunds") == [refund["id"]]


def test_refunds_are_found_by_payment_by_charge_and_by_status(
    merchant: Caller, bank: FakeBank
) -> None:
    paid = [merchant.captured(amount=1)["payment_id"] for _ in range(3)]
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    waiting = shaped(RefundOut, merchant.refund(paid[0]), 202)["id"]
    done = shaped(RefundOut, merchant.refund(paid[1]), 201)["id"]

    def found(query: str) -> list[str]:
        return ids_of(merchant, query, "/v1/refunds")

    assert found("?status=pending") == [waiting]
    assert found("?status=succeeded") == [done]
    assert found("?status=failed") == []
    assert found(f"?payment_id={paid[0]}") == [waiting]
    assert found(f"?charge={paid[1].replace('pay_', 'ch_')}") == [done]
    assert found(f"?payment_id={paid[2]}") == []


def test_refunds_are_asked_for_by_one_name_of_the_payment(merchant: Caller) -> None:
    payment_id = merchant.captured(amount=1)["payment_id"]
    charge = payment_id.replace("pay_", "ch_")

    response = merchant.get(f"/v1/refunds?payment_id={payment_id}&charge={charge}")

    assert refusal(response) == (400, INVALID, "invalid_param", "charge")


@pytest.mark.parametrize(
    ("param", "code"),
    [
        ("payment_id", "payment_not_found"),
        ("charge", "payment_not_found"),
        ("payment_intent", "payment_intent_not_found"),
    ],
)
def test_refunds_of_what_is_not_there_are_a_404_with_its_name(
    api: Api, merchant: Caller, param: str, code: str
) -> None:
    theirs = api.merchant().captured(amount=1)["payment_id"]
    suffix = theirs.removeprefix("pay_")

    for wanted in (f"pay_{suffix}", f"ch_{suffix}", f"pi_{suffix}", suffix, "nonsense", ""):
        listed = merchant.get(f"/v1/refunds?{param}={wanted}")
        asked = merchant.post("/v1/refunds", {param: wanted})

        assert refusal(listed) == refusal(asked) == (404, "resource_missing", code, param)


def test_a_refund_names_exactly_one_of_three(merchant: Caller) -> None:
    payment_id = merchant.captured(amount=1)["payment_id"]
    both = {"payment_id": payment_id, "charge": payment_id.replace("pay_", "ch_")}

    neither, too_many = merchant.post("/v1/refunds", {}), merchant.post("/v1/refunds", both)

    assert refusal(neither) == (400, INVALID, "missing_param", "payment_id")
    assert refusal(too_many) == (400, INVALID, "invalid_param", "charge")


def test_a_refund_needs_no_idempotency_key(merchant: Caller) -> None:
    payment_id = merchant.captured()["payment_id"]

    response = merchant.post("/v1/refunds", {"payment_id": payment_id}, key=None)

    assert shaped(RefundOut, response, 201)["status"] == "succeeded"


@pytest.mark.parametrize("refund_id", ["rfnd_", "nonsense", "%00", "pay_" + "0" * 26])
def test_an_unknown_refund_is_a_404(merchant: Caller, refund_id: str) -> None:
    response = merchant.get(f"/v1/refunds/{refund_id}")

    assert refusal(response) == (404, "resource_missing", "refund_not_found", None)


# --- metadata comes back as it went in ----------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": "", "é": "ü 🛒", "n": 0, "f": 0.5, "t": True, "no": False},
        {"big": 2**53 - 1, "small": -(2**53) + 1, "float": -1.5e15, "tiny": 1e-300},
        {f"key-{n}": "x" * 500 for n in range(50)},
        {"k" * 40: "v"},
        {"zebra": 1, "apple": 2, "10": 3, "9": 4},
    ],
    ids=["none", "kinds", "numbers", "most", "long key", "order"],
)
def test_metadata_is_kept_as_it_was_given(merchant: Caller, metadata: dict[str, Any]) -> None:
    receipt = merchant.authorized(metadata=metadata)

    assert receipt["metadata"] == metadata
    assert merchant.receipt(receipt["payment_id"])["metadata"] == metadata
    assert merchant.receipt(receipt["payment_id"], "?version=1")["metadata"] == metadata

"""The page that a shopper is given: for who has its whole address, and to be read by people."""

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from werkzeug.test import TestResponse

from api.unguessable import receipt_url
from tests.api.an_api import Api, Caller, json_of
from tests.builders import VISA

HOSTILE = '<script>alert("1")</script>&amp;{{ 7 * 7 }}'


class Elements(HTMLParser):
    """What elements a page has, with what they refer to; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.references: list[str | None] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.references += [value for name, value in attrs if name in {"src", "href", "action"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def browse(api: Api, url: str, method: str = "GET") -> TestResponse:
    parts = urlsplit(url)
    return api.app.test_client().open(f"{parts.path}?{parts.query}", method=method)


def seen(api: Api, payment_id: str) -> str:
    """The text of the page."""
    response = browse(api, receipt_url(api.services, payment_id))
    assert response.status_code == 200, response.text
    return re.sub(r"\s+", " ", Elements(response.text).text)


def test_the_page_of_a_charge_says_what_was_paid(api: Api, merchant: Caller) -> None:
    body = {"amount": 123456, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    body |= {"description": "Two books", "metadata": {"order_id": "ORD-7"}}
    intent = json_of(merchant.post("/v1/payment_intents", {**body, "amount": 4999}))
    (charge,) = intent["charges"]["data"]

    response = browse(api, charge["receipt_url"])

    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    text = re.sub(r"\s+", " ", Elements(response.text).text)
    for said in (merchant.merchant, "49.99 USD", "Paid.", "Two books", "ORD-7", "ending in 4242"):
        assert said in text
    assert "Test: no money moved." in text


def test_the_page_is_whole_in_itself_and_kept_nowhere(api: Api, merchant: Caller) -> None:
    payment_id = merchant.captured()["payment_id"]
    response = browse(api, receipt_url(api.services, payment_id))
    page = Elements(response.text)

    assert page.references == []
    assert not {"script", "img", "link", "iframe", "form", "object"} & set(page.names)
    assert "url(" not in response.text
    assert "@media print" in response.text
    assert VISA not in response.text
    headers = response.headers
    assert headers["Cache-Control"] == "no-store"
    assert "noindex" in headers["X-Robots-Tag"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Set-Cookie" not in headers


def test_what_merchants_write_is_text_and_no_more(api: Api) -> None:
    merchant = api.merchant(f"{HOSTILE} & sons")
    payment_id = merchant.captured(order_id=HOSTILE)["payment_id"]

    response = browse(api, receipt_url(api.services, payment_id))

    page = Elements(response.text)
    assert "script" not in page.names
    assert page.text.count(HOSTILE) == 2


def test_refunds_are_shown_with_what_is_left(extended_api: Api, extended_merchant: Caller) -> None:
    payment_id = extended_merchant.captured(amount=5000)["payment_id"]
    extended_merchant.refund(payment_id, amount=1200)
    extended_merchant.refund(payment_id, amount=300)

    text = seen(extended_api, payment_id)

    for said in ("50.00 USD", "12.00 USD", "3.00 USD", "15.00 USD", "35.00 USD"):
        assert said in text


@pytest.mark.parametrize(
    ("currency", "said"),
    [
        ("JPY", "123,456 JPY"),
        ("KWD", "123.456 KWD"),
        ("EUR", "1,234.56 EUR"),
        ("BHD", "123.456 BHD"),
    ],
)
def test_amounts_are_written_as_their_currency_is(
    extended_api: Api, extended_merchant: Caller, currency: str, said: str
) -> None:
    payment_id = extended_merchant.captured(amount=123456, currency=currency)["payment_id"]

    assert said in seen(extended_api, payment_id)


@pytest.mark.parametrize(
    ("life", "said"),
    [
        (Caller.authorized, "not paid yet"),
        (Caller.voided, "nothing was paid"),
        (Caller.declined, "Declined"),
        (Caller.refunded, "Paid, and refunded."),
    ],
)
def test_every_state_has_its_sentence(api: Api, merchant: Caller, life: Any, said: str) -> None:
    assert said in seen(api, life(merchant)["payment_id"])


def test_a_wrong_address_is_the_same_404_whatever_is_wrong_with_it(
    api: Api, merchant: Caller
) -> None:
    mine, other = merchant.captured()["payment_id"], merchant.captured()["payment_id"]
    right = receipt_url(api.services, mine)
    token = right.partition("?t=")[2]
    wrong = [
        f"/receipts/{mine}",
        f"/receipts/{mine}?t=",
        f"/receipts/{mine}?t={token[:-1]}",
        f"/receipts/{mine}?t={token}0",
        f"/receipts/{mine}?t={token.upper()}x",
        f"/receipts/{mine}?t=%00%ff%F0%9F%92%B3",
        f"/receipts/{mine}?T={token}",
        f"/receipts/{other}?t={token}",
        f"/receipts/{mine.upper()}?t={token}",
        f"/receipts/nothing?t={token}",
        f"/receipts/pay_{'0' * 26}?t={receipt_url(api.services, 'pay_' + '0' * 26)[-32:]}",
        f"/receipts/x?t={receipt_url(api.services, 'x')[-32:]}",
    ]

    answers = {(each.status_code, each.data) for each in (browse(api, url) for url in wrong)}

    ((status, page),) = answers
    assert status == 404
    assert mine.encode() not in page
    assert browse(api, right).status_code == 200


def test_what_goes_wrong_is_told_in_html(api: Api, merchant: Caller) -> None:
    url = receipt_url(api.services, merchant.captured()["payment_id"])

    posted = browse(api, url, "POST")
    nowhere = browse(api, "/receipts/a/b")

    for response, status in ((posted, 405), (nowhere, 404)):
        assert response.status_code == status
        assert response.content_type.startswith("text/html")
        assert "<h1>" in response.text

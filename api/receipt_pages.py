"""The receipt page: what a shopper is shown of a payment, to keep or to print.

Who has the address has the token in it, which is all that is asked for. A wrong one is told nothing,
and is not looked up. The page is whole in itself: no script, and nothing from anywhere else.
"""

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from api import unguessable
from api.http import Answer
from domain.commands import Mode
from domain.ids import MalformedId, Prefix, decode
from domain.money import in_words
from domain.payment import Status
from infrastructure.services import Services
from infrastructure.shards import shard_of
from projections.pages import Page
from projections.receipts import Receipts
from projections.refunds import Refunds

PATH: Final = "/receipts/"
RECEIPTS: Final = Receipts()
REFUNDS: Final = Refunds()
MOST_REFUNDS_SHOWN: Final = 500
STYLE: Final = """
body { font: 1rem/1.5 system-ui, sans-serif; color: #222; margin: 3rem auto; max-width: 34rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
.amount { font-size: 2rem; margin: 1.5rem 0 0; }
.note { border: 1px solid; padding: .25rem .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; }
dt { color: #666; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #ccc; padding: .25rem 0; text-align: left; font-weight: normal; }
.money { text-align: right; font-variant-numeric: tabular-nums; }
@media print { body { color: #000; margin: 0; max-width: none; font-size: 11pt; } @page { margin: 2cm; } }
"""
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
STATUSES: Final[Mapping[Status, str]] = {
    Status.PENDING: "Not paid yet.",
    Status.AUTHORIZED: "Reserved, and not paid yet.",
    Status.CAPTURED: "Paid.",
    Status.REFUNDED: "Paid, and refunded.",
    Status.VOIDED: "Canceled: nothing was paid.",
    Status.DECLINED: "Declined: nothing was paid.",
    Status.EXPIRED: "Expired: nothing was paid.",
}
REFUND_STATUSES: Final = {"succeeded": "Refunded", "pending": "On its way", "failed": "Failed"}
TROUBLES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("There is no such page", "The address is not complete."),
    405: ("There is nothing to send here", "A receipt can be read, and no more."),
    503: ("Not now", "The receipt cannot be shown at the moment. Try again in a minute."),
}
OTHER_TROUBLE: Final = ("Something went wrong", "The receipt could not be shown.")

TEMPLATE: Final = Environment(
    loader=PackageLoader("api"), autoescape=True, undefined=StrictUndefined
).get_template("receipt.html")

Document = dict[str, Any]


def page(services: Services, payment_id: str, token: str) -> Answer:
    """The page of one payment; for a wrong token, one that tells nothing."""
    right = unguessable.receipt_token(services, payment_id)
    if not hmac.compare_digest(right.encode(), token.encode(errors="replace")):
        return trouble(404)
    try:
        uuid = decode(Prefix.PAYMENT, payment_id)
    except MalformedId:
        return trouble(404)
    with services.pool.connection() as connection:
        tenant = RECEIPTS.owner(connection, shard_of(uuid), uuid)
        if tenant is None:
            return trouble(404)
        receipt = RECEIPTS.by_id(connection, shard_of(uuid), uuid, tenant)
        wanted = Page(limit=MOST_REFUNDS_SHOWN, filters={"payment_id": uuid})
        refunds, _ = REFUNDS.page(connection, tenant, wanted)
    assert receipt is not None, "whoever has an owner is there"
    shown = _shown(receipt, refunds[::-1])
    shown |= {
        "merchant": services.api_keys.merchant_name(tenant.merchant_id),
        "is_test": tenant.mode is Mode.TEST,
    }
    return _page(200, f"Receipt {payment_id}", receipt=shown)


def trouble(status: int) -> Answer:
    """Instead of a page: what is wrong, in a sentence that tells nothing of any payment."""
    title, sentence = TROUBLES.get(status, OTHER_TROUBLE)
    return _page(status, title, receipt=None, sentence=sentence)


def _page(status: int, title: str, **shown: Any) -> Answer:
    body = TEMPLATE.render(title=title, style=STYLE, **shown)
    return Answer(
        status=status, body=body.encode(), headers=HEADERS, media_type="text/html; charset=utf-8"
    )


def _paid_with(receipt: Document) -> str:
    card = receipt["card"]
    if card is None:
        return f"Bank account ending in {receipt['account']['last4']}"
    return f"{card['brand'].capitalize()} card ending in {card['last4']}"


def _shown(receipt: Document, refunds: Sequence[Document]) -> Document:
    currency = receipt["currency"]
    captured, given_back = receipt["amount_captured"], receipt["amount_refunded"]
    return {
        "payment_id": receipt["payment_id"],
        "order_id": receipt["order_id"],
        "description": receipt.get("description"),
        "amount": in_words(captured or receipt["amount"], currency),
        "status": STATUSES[Status(receipt["status"])],
        "date": _date(receipt["created_at"]),
        "paid_with": _paid_with(receipt),
        "refunds": [
            {
                "date": _date(each["created_at"]),
                "status": REFUND_STATUSES[each["status"]],
                "amount": in_words(each["amount"], currency),
            }
            for each in refunds
        ],
        "refunded": in_words(given_back, currency),
        "left": in_words(captured - given_back, currency),
    }


def _date(rfc3339: str) -> str:
    at = datetime.fromisoformat(rfc3339)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"

"""The pages at which a card's holder approves or refuses a payment: 3-D Secure, as a shopper sees it.

Who has the address has the token in it, which is all that the bank asks for. Each page is answered once:
whatever is posted later goes on to where the first answer went.
"""

import html
from collections.abc import Callable
from urllib.parse import parse_qs

from infrastructure.bank_simulator import replies
from infrastructure.bank_simulator.books import Books
from infrastructure.bank_simulator.challenges import PAGES, Challenge
from infrastructure.bank_simulator.replies import Reply
from infrastructure.bank_simulator.requests import is_return_url

DECISIONS = {"approve": True, "refuse": False}
# How many digits each currency has after the point, where it is not two.
DIGITS = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "BHD": 3, "JOD": 3, "KWD": 3, "OMR": 3, "TND": 3}

LAYOUT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 4rem auto; padding: 0 1rem; }}
button {{ font: inherit; padding: .5rem 1.25rem; margin-right: .5rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{content}
</body>
</html>
"""
QUESTION = """<p>Do you approve a payment of <strong>{amount}</strong> with your card ending in
<strong>{last4}</strong>?</p>
<form method="post">
<input type="hidden" name="return_url" value="{return_url}">
<button name="decision" value="approve" id="approve">Approve</button>
<button name="decision" value="refuse" id="refuse">Refuse</button>
</form>
<p><small>This is the bank simulator's: no money moves.</small></p>"""


class Pages:
    """The pages of one bank; `clock` is the bank's own."""

    def __init__(self, books: Books, clock: Callable[[], float]) -> None:
        self._books = books
        self._clock = clock

    def visit(self, method: str, path: str, query: bytes, form: bytes) -> Reply | None:
        """The answer to a browser; None where the path is of no page."""
        root, _, token = path.rpartition("/")
        if root != PAGES:
            return None
        challenge = self._books.challenge(token)
        if challenge is None:
            return _page("There is no such page", "<p>The address is not complete.</p>", 404)
        if method == "GET":
            return self._shown(challenge, _return_url(challenge, query))
        if method == "POST":
            return self._answered(challenge, form)
        return replies.protocol_error(405, "Method Not Allowed")

    def _shown(self, challenge: Challenge, return_url: str | None) -> Reply:
        if challenge.outcome(self._clock()) is not None:
            return _left(return_url)
        content = QUESTION.format(
            amount=html.escape(_money(challenge)),
            last4=challenge.card_number[-4:],
            return_url=html.escape(return_url or ""),
        )
        return _page("Approve this payment?", content)

    def _answered(self, challenge: Challenge, form: bytes) -> Reply:
        approves = DECISIONS.get(_field(form, "decision"))
        if approves is None:
            return _page("Nothing was decided", "<p>Approve or refuse.</p>", 400)
        self._books.answer_challenge(challenge.token, approves=approves, now=self._clock())
        return _left(_return_url(challenge, form))


def _return_url(challenge: Challenge, fields: bytes) -> str | None:
    """Where the shopper goes from here: as the merchant said when it asked, or else with the page."""
    given = _field(fields, "return_url")
    return challenge.return_url or (given if is_return_url(given) else None)


def _field(fields: bytes, name: str) -> str:
    """A field of a form or of a query; empty where it is not there."""
    return parse_qs(fields.decode(errors="replace"), max_num_fields=20).get(name, [""])[0]


def _money(challenge: Challenge) -> str:
    digits = DIGITS.get(challenge.currency, 2)
    return f"{challenge.amount / 10**digits:,.{digits}f} {challenge.currency}"


def _left(return_url: str | None) -> Reply:
    """Away from here, if there is anywhere to go."""
    if return_url is None:
        return _page("Thank you", "<p>The bank has your answer. You can close this page.</p>")
    return replies.redirect(return_url)


def _page(title: str, content: str, status: int = 200) -> Reply:
    return replies.page(LAYOUT.format(title=title, content=content), status)

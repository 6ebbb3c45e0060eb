"""What goes back over the wire."""

import json
import uuid
from dataclasses import dataclass, replace

from infrastructure.bank_simulator.books import Json
from infrastructure.bank_simulator.refusals import REFUSALS

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"
# A page's address is all that opens it: it is to be kept nowhere and told to nobody.
IN_CONFIDENCE = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """`outcome` is what the counters of `/__ledger` call it."""

    status: int
    body: bytes
    outcome: str
    content_type: bytes = JSON
    replayed: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(body: object, status: int = 200) -> Reply:
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return Reply(status=status, body=encoded, outcome=str(status))


def replay(status: int, body: bytes) -> Reply:
    return Reply(status=status, body=body, outcome="replayed", replayed=True)


def refusal(code: str, *, status: int | None = None) -> Reply:
    """The published error body; `status` where the bank's trouble borrows another one."""
    published, message = REFUSALS[code]
    reply = answer({"error": code, "message": message}, status or published)
    return replace(reply, outcome=f"{reply.status} {code}")


def protocol_error(status: int, text: str) -> Reply:
    body = f"{text}\n".encode()
    return Reply(status=status, body=body, outcome=f"{status} text/plain", content_type=TEXT)


def page(text: str, status: int) -> Reply:
    return Reply(
        status=status,
        body=text.encode(),
        outcome=f"{status} text/html",
        content_type=HTML,
        headers=IN_CONFIDENCE,
    )


def redirect(address: str) -> Reply:
    """303: whatever was posted, the other side is to be got. `address` is printable ASCII."""
    left = page("", 303)
    return replace(left, headers=(*IN_CONFIDENCE, (b"location", address.encode("ascii"))))


def garbled(reply: Reply) -> Reply:
    """Cut in the middle, with a length that agrees: 200, and not JSON."""
    return replace(reply, body=reply.body[: len(reply.body) // 2])


def mismatched(receipt: Json) -> Reply:
    """An answer to somebody else's question: another amount, another id referred to."""
    wrong = dict(receipt)
    if isinstance(amount := wrong.get("amount"), int):
        wrong["amount"] = amount + 1
    referred = [name for name in wrong if name.endswith("_id")][-1]
    prefix = str(wrong[referred]).partition("_")[0]
    wrong[referred] = f"{prefix}_{uuid.uuid4()}"
    return answer(wrong)


def in_wrong_currency(receipt: Json) -> Reply:
    other = "JPY" if receipt.get("currency") == "EUR" else "EUR"
    return answer(dict(receipt) | {"currency": other})

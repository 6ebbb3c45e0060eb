"""Looking into the bank's records over HTTP, at a pace that the bank is not to notice.

Its GETs say 404 of what it has while its own database is down, and it forgets every key meanwhile: a
no counts only from a bank that says that it is well, before and after.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from prometheus_client import Counter

from domain.bank import Operation
from domain.bank_records import BankRecord, NoRecord, NotTold, Told
from domain.ports import Clock
from infrastructure.bank.client import BankClient, NoReply, NotSent, Reply
from infrastructure.bank.driver import ID_FIELDS, PATHS, rfc3339_time

# The bank fails by chance as well; looking does nothing, so it is simply looked again.
TRIES: Final = 4
# How often a bank that is well has to say that it has no record.
TIMES_NOT_FOUND: Final = 2
WORD: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
ABOUT_FIELDS: Final[Mapping[Operation, str]] = {
    Operation.CAPTURE: "authorization_id",
    Operation.VOID: "authorization_id",
    Operation.REFUND: "capture_id",
}

LOOKS = Counter(
    "counterfoil_bank_looks_total", "Questions about the bank's records.", ["operation"]
)


class Stopped(Exception):
    """Whoever looks was asked to stop."""


class Pace:
    """Lets `per_second` through, evenly, whichever thread comes. `sleep` waits for some seconds and
    says whether to stop, as an Event's `wait` does."""

    def __init__(self, per_second: float, clock: Clock, sleep: Callable[[float], bool]) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._next = clock.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when it is the caller's turn. Raises Stopped."""
        with self._lock:
            now = self._clock.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if self._sleep(turn - now):
            raise Stopped


class BankRecordsOverHTTP:
    """The port `BankRecords`, on the partner's HTTP interface."""

    def __init__(self, client: BankClient, pace: Pace, *, timeout_seconds: float) -> None:
        self._client = client
        self._pace = pace
        self._timeout_seconds = timeout_seconds

    def is_well(self) -> bool:
        """Whether the bank says so of itself."""
        return self._client.is_healthy()

    def look_up(self, operation: Operation, bank_id: str) -> Told:
        """By the bank's id; a 404 is heard again before it is believed."""
        path = f"{PATHS[operation]}/{quote(bank_id, safe='')}"
        told = self._looked(operation, path)
        for _ in range(TIMES_NOT_FOUND):
            if not isinstance(told, NoRecord):
                return told
            if not self.is_well():
                return NotTold(reason="the bank is not well", bank_is_well=False)
            told = self._looked(operation, path)
        return self._if_well(told)

    def remembered(self, operation: Operation, key: str) -> Told:
        """By our key and without a body, which does nothing under a key that the bank does not know."""

        def ask() -> Reply:
            return self._client.post(
                PATHS[operation], key, {}, timeout_seconds=self._timeout_seconds
            )

        if not self.is_well():
            return NotTold(reason="the bank is not well", bank_is_well=False)
        reply = self._answered(operation, ask)
        if isinstance(reply, NotTold):
            return reply
        # An answer that is remembered comes at once, before anything that can fail.
        return self._if_well(_record(operation, reply) if reply.status == 200 else NoRecord())

    def _looked(self, operation: Operation, path: str) -> Told:
        def look() -> Reply:
            return self._client.get(path, timeout_seconds=self._timeout_seconds)

        told: Told = NotTold(reason="not asked", bank_is_well=True)
        for _ in range(TRIES):
            reply = self._answered(operation, look)
            if isinstance(reply, NotTold):
                return reply
            if reply.status == 404 and reply.code == "not_found":
                return NoRecord()
            told = _record(operation, reply)
            if isinstance(told, BankRecord):
                return told
        return self._if_well(told)

    def _answered(self, operation: Operation, ask: Callable[[], Reply]) -> Reply | NotTold:
        """The first whole answer, in a few tries."""
        reason = ""
        for _ in range(TRIES):
            self._pace.wait()
            LOOKS.labels(operation.value).inc()
            try:
                return ask()
            except (NotSent, NoReply) as error:
                reason = f"no answer: {error}"
        return NotTold(reason=reason, bank_is_well=self.is_well())

    def _if_well(self, told: Told) -> Told:
        """What is not there, or not clear, is so only at a bank that is well."""
        if isinstance(told, BankRecord) or self.is_well():
            return told
        return NotTold(reason="the bank is not well", bank_is_well=False)


def _record(operation: Operation, reply: Reply) -> BankRecord | NotTold:
    """A record that is one: no field is missing, and each is of its kind."""
    body = reply.body if reply.status == 200 and reply.body is not None else {}
    amount, about_field = body.get("amount"), ABOUT_FIELDS.get(operation)
    words = [ID_FIELDS[operation], "status", *([about_field] if about_field else [])]
    has_money = operation is not Operation.VOID
    if has_money:
        words.append("currency")
    unclear = [name for name in words if not _is_word(body.get(name))]
    if has_money and type(amount) is not int:
        unclear.append("amount")
    if unclear:
        reason = f"HTTP {reply.status} {reply.code or 'without a code'}, unclear: {unclear}"
        return NotTold(reason=reason, bank_is_well=True)
    return BankRecord(
        operation=operation,
        bank_id=body[ID_FIELDS[operation]],
        status=body["status"],
        amount_minor=amount if has_money else None,
        currency=body["currency"] if has_money else None,
        about=body[about_field] if about_field else None,
        expires_at=rfc3339_time(body.get("expires_at")),
    )


def _is_word(value: Any) -> bool:
    """Short, and of characters that can go anywhere: it will be kept for ever and shown."""
    return isinstance(value, str) and WORD.fullmatch(value) is not None

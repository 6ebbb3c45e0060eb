"""Understanding the bank: each answer by its code, each failure by whether it was received.

A failure that was received may be asked again at once under the same key. Silence may not: the first
call may still be running there, and two that overlap are both carried out. So silence ends the
attempt, and whoever takes the call up later asks first whether the bank remembers the key. An answer
without a word of the bank's (a proxy's 504, a page) is silence, too: the bank may still be at it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import backoff
import structlog
from prometheus_client import Counter, Histogram

from domain.bank import (
    ActionRequired,
    AlreadyDone,
    Answer,
    Approved,
    BankCapabilities,
    BankRequest,
    Contradicted,
    Declined,
    Operation,
    Rejected,
    UnderWay,
    Unknown,
)
from domain.ports import Clock
from infrastructure.bank.breaker import Breaker
from infrastructure.bank.client import (
    CODE,
    HEALTH_TIMEOUT_SECONDS,
    BankClient,
    NoReply,
    NotSent,
    Reply,
)
from infrastructure.fault_points import reached

# Longer than the bank takes when it is well; an attempt that cannot wait so long is not begun again.
MINIMUM_RETRY_SECONDS: Final = 2.5
# What must be left after the pause, or the bank's slowness would look like silence.
SHORTEST_RETRY_SECONDS: Final = 2.0
SHORTEST_TIMEOUT_SECONDS: Final = 0.05
MAX_TRIES: Final = 4
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 1.0

PATHS: Final[Mapping[Operation, str]] = {
    Operation.AUTHORIZATION: "/api/v1/authorizations",
    Operation.CAPTURE: "/api/v1/captures",
    Operation.VOID: "/api/v1/voids",
    Operation.REFUND: "/api/v1/refunds",
    Operation.TRANSFER: "/api/v1/transfers",
}
ID_FIELDS: Final[Mapping[Operation, str]] = {
    Operation.AUTHORIZATION: "authorization_id",
    Operation.CAPTURE: "capture_id",
    Operation.VOID: "void_id",
    Operation.REFUND: "refund_id",
    Operation.TRANSFER: "transfer_id",
}
STATUSES: Final[Mapping[Operation, str]] = {
    Operation.AUTHORIZATION: "approved",
    Operation.CAPTURE: "captured",
    Operation.VOID: "voided",
    Operation.REFUND: "refunded",
    Operation.TRANSFER: "settled",
}

# What is looked at under the bank's id once that is known, rather than asked for again.
BEGINNINGS: Final = frozenset({Operation.AUTHORIZATION, Operation.TRANSFER})
# A second hold is another hold, and a part can be given back again; the rest the bank does once: a
# transfer, under whatever circumstances, once under its key.
DONE_AS_OFTEN_AS_ASKED: Final = frozenset({Operation.AUTHORIZATION, Operation.REFUND})

# Said of good cards and accounts, too, by a bank that is in trouble: not believed on its first word.
INVALID_CARD: Final = "invalid_card"
INVALID_ACCOUNT: Final = "invalid_account"
NOT_AT_ONCE: Final = frozenset({INVALID_CARD, INVALID_ACCOUNT})

# Each word by what it can be an answer to.
DECLINES: Final[Mapping[Operation, frozenset[str]]] = {
    Operation.AUTHORIZATION: frozenset(
        {
            "insufficient_funds",
            INVALID_CARD,
            "invalid_cvv",
            "card_expired",
            "card_declined",
            "processing_error",
            "lost_card",
            "stolen_card",
            "authentication_required",
        }
    ),
    Operation.CAPTURE: frozenset({"authorization_expired"}),
    Operation.VOID: frozenset({"authorization_expired"}),
    Operation.REFUND: frozenset({"refund_exceeds_capture"}),
    Operation.TRANSFER: frozenset({INVALID_ACCOUNT}),
}
# Whatever we may have done is among these; a capture that was "already voided" is nothing of ours.
ALREADY: Final[Mapping[Operation, frozenset[str]]] = {
    Operation.AUTHORIZATION: frozenset(),
    Operation.CAPTURE: frozenset({"authorization_already_used", "already_captured"}),
    Operation.VOID: frozenset({"authorization_already_used", "already_voided"}),
    Operation.REFUND: frozenset({"already_refunded"}),
    Operation.TRANSFER: frozenset(),
}
# Said of ids that the bank gave us, by a bank that is in trouble, or has lost them.
NOT_FOUND: Final = frozenset({"authorization_not_found", "capture_not_found"})
# Each of these is about something that is there, and not about what was asked, or not as we know it.
CONTRADICTIONS: Final = NOT_FOUND.union(
    *ALREADY.values(),
    *(DECLINES[each] for each in (Operation.CAPTURE, Operation.VOID, Operation.REFUND)),
)
INTERNAL_ERROR: Final = "internal_error"
# With a 500 the bank says that it failed, or what it says with any status. Another word is of somebody
# between us and the bank, which may not be done with it.
WORDS_OF_A_FAILURE: Final = CONTRADICTIONS | {INTERNAL_ERROR}
# No proof that the bank works: what a bank says of good cards and ids when it is in trouble.
NO_RECORD: Final = "not_found"
SAID_IN_TROUBLE: Final = NOT_FOUND | NOT_AT_ONCE | {NO_RECORD}
# In plain text: the request did not pass the bank's schema, or went to no route of its.
PROTOCOL_ERRORS: Final = frozenset({400, 404})
OUR_FAULT: Final = frozenset(
    {"invalid_amount", "amount_mismatch", "missing_idempotency_key", "invalid_return_url"}
)
# Of an authorization: it waits for its shopper, or was not approved in the end.
WAITS: Final = "requires_action"
NOT_APPROVED: Final = "declined"

FICMART: Final = BankCapabilities(
    currencies=frozenset({"USD"}), partial_amounts=False, cvc_optional=False
)
EXTENDED: Final = BankCapabilities(
    currencies=None,
    partial_amounts=True,
    cvc_optional=True,
    three_d_secure=True,
    bank_transfers=True,
    disputes=True,
)
PROFILES: Final[Mapping[str, BankCapabilities]] = {"ficmart": FICMART, "extended": EXTENDED}

log = structlog.get_logger(__name__)
ANSWERS = Counter(
    "counterfoil_bank_answers_total", "What the bank answered.", ["operation", "outcome"]
)
ATTEMPTS = Counter(
    "counterfoil_bank_attempts_total", "Requests that went to the bank.", ["operation"]
)
RETRIES = Counter(
    "counterfoil_bank_retries_total",
    "Requests under a key that was asked under before, by why.",
    ["operation", "reason"],
)
SECONDS = Histogram(
    "counterfoil_bank_request_seconds",
    "How long the bank took, by what came of it.",
    ["operation", "result"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0),
)
# What the bank's ids look like; only such are kept.
BANK_ID: Final = re.compile(r"[!-~]{1,255}")
# Where a shopper may be sent.
PAGE: Final = re.compile(r"https?://[!-~]{1,2000}")


class BankDriver:
    """The port `Bank`, on the partner's HTTP interface."""

    def __init__(
        self, client: BankClient, clock: Clock, *, profile: str, timeout_seconds: float
    ) -> None:
        self._client = client
        self._clock = clock
        self._profile = profile
        self._timeout_seconds = timeout_seconds
        self._breaker = Breaker(clock.monotonic)

    @property
    def capabilities(self) -> BankCapabilities:
        """By the profile that the settings name."""
        return PROFILES[self._profile]

    def admits(self) -> bool:
        """By what this process heard of the bank last."""
        return self._breaker.admits()

    def was_not_begun(self) -> None:
        """Another may be let through instead."""
        self._breaker.give_back()

    def perform(self, request: BankRequest) -> Answer:
        """Carries out `request` within its time."""
        answer = _Call(self, request).run()
        if isinstance(answer, Rejected):
            # Our own fault, and nobody's who asked: somebody has to look.
            log.error(
                "the bank did not understand our request",
                bank_key=request.key,
                reason=answer.reason,
            )
        ANSWERS.labels(request.operation.value, type(answer).__name__.lower()).inc()
        return answer

    def body(self, request: BankRequest) -> dict[str, Any]:
        """The request in the bank's words."""
        amount = request.money.amount_minor
        match request.operation:
            case Operation.AUTHORIZATION:
                assert request.card is not None, "an authorization needs the card"
                body = {
                    "card_number": request.card.number,
                    "cvv": request.card.cvc,
                    "expiry_month": request.card.exp_month,
                    "expiry_year": request.card.exp_year,
                    "amount": amount,
                }
            case Operation.CAPTURE:
                body = {"authorization_id": request.bank_id, "amount": amount}
            case Operation.VOID:
                body = {"authorization_id": request.bank_id}
            case Operation.REFUND:
                body = {"capture_id": request.bank_id, "amount": amount}
            case Operation.TRANSFER:
                assert request.account is not None, "a transfer needs the account"
                body = {
                    "account_number": request.account.number,
                    "sort_code": request.account.sort_code,
                    "account_holder_name": request.account.holder_name,
                    "amount": amount,
                }
        if self.capabilities.currencies is None:
            body["currency"] = request.money.currency
        if self.capabilities.three_d_secure and request.operation is Operation.AUTHORIZATION:
            body["return_url"] = request.return_url
        return {name: value for name, value in body.items() if value is not None}

    def ask(self, request: BankRequest, body: dict[str, Any], *, seconds_left: float) -> Reply:
        """One attempt. Raises NotSent, NoReply."""
        path = PATHS[request.operation]

        def post(timeout: float) -> Reply:
            return self._client.post(path, request.key, body, timeout_seconds=timeout)

        return self._heard(request, post, seconds_left)

    def look(self, request: BankRequest, *, seconds_left: float) -> Reply:
        """One look at what `request` is about, which does nothing. Raises NotSent, NoReply."""
        path = f"{PATHS[request.operation]}/{quote(request.bank_id or '', safe='')}"

        def get(timeout: float) -> Reply:
            return self._client.get(path, timeout_seconds=timeout)

        return self._heard(request, get, seconds_left)

    def _heard(
        self, request: BankRequest, send: Callable[[float], Reply], seconds_left: float
    ) -> Reply:
        ATTEMPTS.labels(request.operation.value).inc()
        began, result = self._clock.monotonic(), "answered"
        timeout = max(SHORTEST_TIMEOUT_SECONDS, min(self._timeout_seconds, seconds_left))
        try:
            reply = send(timeout)
        except (NotSent, NoReply) as error:
            result = "not_sent" if isinstance(error, NotSent) else "silent"
            self._breaker.failed()
            raise
        else:
            result = "failed" if _is_failure(reply) else "answered"
            self._learn_from(reply)
            return reply
        finally:
            seconds = self._clock.monotonic() - began
            SECONDS.labels(request.operation.value, result).observe(seconds)

    def is_healthy(self, *, seconds_left: float) -> bool:
        """Whether the bank says that it is well, and says so in time."""
        timeout = max(SHORTEST_TIMEOUT_SECONDS, min(HEALTH_TIMEOUT_SECONDS, seconds_left))
        healthy = self._client.is_healthy(timeout_seconds=timeout)
        if not healthy:  # that it says so is no proof of the contrary
            self._breaker.failed()
        return healthy

    def _learn_from(self, reply: Reply) -> None:
        if _is_failure(reply):
            self._breaker.failed()
        elif reply.body is not None and reply.code not in SAID_IN_TROUBLE:
            self._breaker.worked()

    def monotonic(self) -> float:
        """The clock by which a call's time runs out."""
        return self._clock.monotonic()


class _Call:
    """One request, from the first attempt to the answer that ends it."""

    def __init__(self, driver: BankDriver, request: BankRequest) -> None:
        self._driver = driver
        self._request = request
        self._ends_at = driver.monotonic() + request.seconds_left
        self._attempts = 0
        self._tried = False

    def run(self) -> Answer:
        if self._seconds_left() <= 0:
            return Unknown(reason="no time was left to ask", unanswered=False, reached=False)
        if self._request.operation in BEGINNINGS and self._request.bank_id:
            return self._retried(self._looked_once)
        if self._request.ask_only:
            return self._remembered_if_well() or Contradicted(reason="the key is too old to tell")
        answer = self._asked()
        if isinstance(answer, Unknown) and self._attempts > 0:
            return replace(answer, reached=True)  # whatever became of the last attempt
        return answer

    def _asked(self) -> Answer:
        if self._request.ask_first and self._request.operation in DONE_AS_OFTEN_AS_ASKED:
            remembered = self._remembered_if_well()
            if remembered is not None:
                return remembered
        answer = self._with_retries()
        if isinstance(answer, AlreadyDone) and answer.after_attempts + self._attempts_before > 0:
            # Perhaps ours: the bank's memory of the key, if it has one, carries the id.
            return self._remembered_if_well() or answer
        return answer

    @property
    def _attempts_before(self) -> int:
        return self._request.attempts_before

    def _seconds_left(self) -> float:
        return self._ends_at - self._driver.monotonic()

    def _with_retries(self) -> Answer:
        """Asks until the answer is one, or the tries or the time are spent."""
        answer = self._retried(self._once)
        if isinstance(answer, Declined) and answer.code in NOT_AT_ONCE:
            return self._second_word()
        return answer

    def _looked_once(self) -> Answer:
        """What became of an authorization that waits for its shopper, or of a transfer."""
        try:
            reply = self._driver.look(self._request, seconds_left=self._seconds_left())
        except (NotSent, NoReply) as error:
            return Unknown(reason=f"not seen: {error}", unanswered=False)
        return classify_look(self._request, reply)

    def _retried(self, once: Callable[[], Answer]) -> Answer:
        retried = backoff.on_predicate(
            backoff.expo,
            self._may_ask_again,
            max_tries=MAX_TRIES,
            jitter=backoff.full_jitter,
            factor=FIRST_PAUSE_SECONDS,
            max_value=LONGEST_PAUSE_SECONDS,
            logger=None,
        )
        answer: Answer = retried(once)()
        return answer

    def _second_word(self) -> Answer:
        """The bank calls good cards and accounts invalid too when it is in trouble: not on its first word."""
        if self._seconds_left() <= MINIMUM_RETRY_SECONDS:
            return Unknown(reason="no time was left to confirm a decline", unanswered=False)
        return self._once(retry="second_word")

    def _may_ask_again(self, answer: Answer) -> bool:
        """Whether the bank failed in so many words, and there is time to hear it out again."""
        return (
            isinstance(answer, Unknown)
            and not answer.unanswered
            and self._seconds_left() > MINIMUM_RETRY_SECONDS
        )

    def _once(self, retry: str = "failed") -> Answer:
        again, self._tried = self._tried, True
        if again:
            reached("bank.asked_again")
        if self._seconds_left() <= (SHORTEST_RETRY_SECONDS if again else 0.0):
            return Unknown(reason="no time was left to ask", unanswered=False, reached=False)
        if again or self._attempts_before > 0:
            reason = retry if again else "resumed"
            RETRIES.labels(self._request.operation.value, reason).inc()
        body = self._driver.body(self._request)
        try:
            reply = self._driver.ask(self._request, body, seconds_left=self._seconds_left())
        except NotSent as error:
            return Unknown(reason=f"not reached: {error}", unanswered=False, reached=False)
        except NoReply as error:
            return Unknown(reason=f"no answer: {error}", unanswered=True)
        answer = classify(self._request, reply, attempts=self._attempts)
        self._attempts += 1
        if isinstance(answer, Unknown) and answer.unanswered and answer.contradicts:
            return self._remembered_better(answer)
        return answer

    def _remembered_better(self, doubtful: Unknown) -> Answer:
        """What was approved, and is not what was asked, is done, and the bank is done with it. So its
        memory can be looked at now, and may be right; but the request is not put again. It is this
        request that it remembers, and not an earlier one that nobody answered."""
        remembered = self._remembered_if_well()
        if isinstance(remembered, Approved | ActionRequired | UnderWay):
            return replace(remembered, replayed=False)
        return doubtful

    def _remembered_if_well(self) -> Answer | None:
        """What the bank remembers under the key; None if it is well and remembers nothing. Its word
        that it knows nothing counts for nothing while it is not well: it says so then of any key."""
        if not self._is_well():
            return Unknown(reason="the bank is not well", unanswered=False)
        remembered = self._remembered()
        if remembered is None and not self._is_well():
            return Unknown(reason="the bank is not well", unanswered=False)
        return remembered

    def _is_well(self) -> bool:
        return self._driver.is_healthy(seconds_left=self._seconds_left())

    def _remembered(self) -> Answer | None:
        """Asks without a body, which does nothing under a key that the bank does not know."""
        try:
            reply = self._driver.ask(self._request, {}, seconds_left=self._seconds_left())
        except (NotSent, NoReply) as error:
            return Unknown(reason=f"not remembered: {error}", unanswered=False)
        if reply.status == HTTPStatus.OK:
            # The question does nothing, so nothing that it is answered leaves anything open.
            answer = classify(self._request, reply, attempts=self._attempts)
            return replace(answer, unanswered=False) if isinstance(answer, Unknown) else answer
        if reply.status != HTTPStatus.BAD_REQUEST or reply.code == INTERNAL_ERROR:
            return Unknown(reason=f"not remembered: HTTP {reply.status}", unanswered=False)
        return None


def classify(request: BankRequest, reply: Reply, *, attempts: int) -> Answer:
    """What the bank meant. By its code: its statuses say little, and a 400 may be its own trouble."""
    if reply.status == HTTPStatus.OK:
        is_transfer = request.operation is Operation.TRANSFER
        return _transferred(request, reply) if is_transfer else _approved(request, reply)
    if reply.body is None and reply.status in PROTOCOL_ERRORS:
        return Rejected(reason=f"HTTP {reply.status}, not JSON")
    code = reply.code
    if code is None:
        # Somebody's between us and the bank, which may not be done with it.
        return Unknown(reason=f"HTTP {reply.status} without a code", unanswered=True)
    return _meaning(request.operation, code, reply.status, attempts)


def classify_look(request: BankRequest, reply: Reply) -> Answer:
    """What became of an authorization that waits for its shopper, or of a transfer that is under way. To
    look does nothing, so that nothing that is seen leaves anything open."""
    body = reply.body
    if reply.status != HTTPStatus.OK or body is None:
        return Unknown(
            reason=f"not seen: HTTP {reply.status} {reply.code or 'without a code'}",
            unanswered=False,
            contradicts=reply.code == NO_RECORD,
        )
    if request.operation is Operation.TRANSFER:
        answer = _transferred(request, reply)
        return replace(answer, unanswered=False) if isinstance(answer, Unknown) else answer
    code = body.get("code")
    same = body.get("authorization_id") == request.bank_id and all(_terms(request, body).values())
    if same and body.get("status") != NOT_APPROVED:
        answer = _approved(request, reply)
        return replace(answer, unanswered=False) if isinstance(answer, Unknown) else answer
    if same and isinstance(code, str) and CODE.fullmatch(code):
        return Declined(code=code)
    return Unknown(reason="a record of something else", unanswered=False, contradicts=True)


def _meaning(operation: Operation, code: str, status: int, attempts: int) -> Answer:
    if code in OUR_FAULT:
        return Rejected(reason=code)
    if code in ALREADY[operation]:
        return AlreadyDone(code=code, after_attempts=attempts)
    if code in DECLINES[operation]:
        return Declined(code=code)
    return Unknown(
        reason=f"HTTP {status} {code}",
        unanswered=status >= 500 and code not in WORDS_OF_A_FAILURE,
        contradicts=code in CONTRADICTIONS,
    )


def _is_failure(reply: Reply) -> bool:
    """Whether the bank, or who is before it, says that it cannot."""
    garbled = reply.status == HTTPStatus.OK and reply.body is None
    return garbled or reply.status >= 500 or reply.code == INTERNAL_ERROR


def _approved(request: BankRequest, reply: Reply) -> Answer:
    """An approval, if it is of what was asked: the bank looks at the key and not at the body."""
    body = reply.body
    if body is None:
        return Unknown(reason="a 200 that is not JSON", unanswered=True)
    bank_id = body.get(ID_FIELDS[request.operation])
    if request.operation is Operation.AUTHORIZATION and body.get("status") == WAITS:
        return _action_required(request, reply, bank_id, body.get("action_url"))
    mismatches = [name for name, ok in _checks(request, body).items() if not ok]
    if not isinstance(bank_id, str) or not BANK_ID.fullmatch(bank_id) or mismatches:
        return _something_else(mismatches)
    return Approved(
        bank_id=bank_id, expires_at=rfc3339_time(body.get("expires_at")), replayed=reply.replayed
    )


def _transferred(request: BankRequest, reply: Reply) -> Answer:
    """How a transfer stands, if it is the one that was asked for: it may be settled when it is asked for
    again."""
    body = reply.body
    if body is None:
        return Unknown(reason="a 200 that is not JSON", unanswered=True)
    bank_id = body.get(ID_FIELDS[Operation.TRANSFER])
    mismatches = [name for name, ok in _terms(request, body).items() if not ok]
    if request.bank_id not in (None, bank_id):
        mismatches.append("transfer_id")
    if not isinstance(bank_id, str) or not BANK_ID.fullmatch(bank_id) or mismatches:
        return _something_else(mismatches)
    match body:
        case {"status": "pending"}:
            return UnderWay(bank_id=bank_id, replayed=reply.replayed)
        case {"status": "settled"}:
            return Approved(bank_id=bank_id, replayed=reply.replayed)
        case {"status": "failed", "code": str(code)} if CODE.fullmatch(code):
            return Declined(code=code)
        case _:
            return _something_else(["status"])


def _action_required(request: BankRequest, reply: Reply, bank_id: Any, url: Any) -> Answer:
    """What the shopper is asked, if it is about what was asked of the bank, at a page that is one."""
    checks = _terms(request, reply.body or {})
    checks["action_url"] = isinstance(url, str) and PAGE.fullmatch(url) is not None
    checks["authorization_id"] = isinstance(bank_id, str) and bool(BANK_ID.fullmatch(bank_id))
    mismatches = [name for name, ok in checks.items() if not ok]
    if mismatches:
        return _something_else(mismatches)
    return ActionRequired(bank_id=bank_id, url=url, replayed=reply.replayed)


def _something_else(mismatches: list[str]) -> Unknown:
    """Something was done under our key, and nobody knows what: as doubtful as silence."""
    return Unknown(
        reason=f"a 200 of something else: {mismatches}", unanswered=True, contradicts=True
    )


def _checks(request: BankRequest, body: dict[str, Any]) -> dict[str, bool]:
    checks = {"status": body.get("status") == STATUSES[request.operation]}
    if request.operation != Operation.VOID:
        checks |= _terms(request, body)
    if request.operation in (Operation.CAPTURE, Operation.VOID):
        checks["authorization_id"] = body.get("authorization_id") == request.bank_id
    if request.operation == Operation.REFUND:
        checks["capture_id"] = body.get("capture_id") == request.bank_id
    if request.operation == Operation.AUTHORIZATION:
        checks["expires_at"] = rfc3339_time(body.get("expires_at")) is not None
    return checks


def _terms(request: BankRequest, body: dict[str, Any]) -> dict[str, bool]:
    return {
        "amount": _is_amount(body.get("amount"), request.money.amount_minor),
        "currency": body.get("currency") == request.money.currency,
    }


def _is_amount(value: object, amount_minor: int) -> bool:
    """JSON's `true` and `1.0` are equal to 1 in Python, and are no amounts."""
    return type(value) is int and value == amount_minor


def rfc3339_time(text: object) -> datetime | None:
    """RFC 3339, to the microsecond at most; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(_to_microseconds(text))
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day there are have no UTC
        return None


def _to_microseconds(text: str) -> str:
    """The bank writes nanoseconds, which Python does not read."""
    head, dot, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return text if not dot else f"{head}.{tail[: min(digits, 6)].ljust(6, '0')}{tail[digits:]}"

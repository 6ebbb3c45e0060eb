"""The partner bank, with every quirk that is known of it, and the wire to it.

A call's life is its key being looked up, a wait, the work in one transaction, and the key being
stored in another. In between its caller may hang up, the bank's database may go, and another call
under the same key may come in: then both are carried out.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from domain.bank import Operation
from domain.payment import rfc3339
from infrastructure.bank.client import BankClient, NoReply, NotSent, Reply
from infrastructure.bank.driver import PATHS
from tests.simulation.scheduler import HostClock, Signal

if TYPE_CHECKING:
    from tests.simulation.world import World

LATENCY_SECONDS: Final = (0.1, 2.0)
LONGEST_HANG_SECONDS: Final = 25.0
GIVES_UP_SECONDS: Final = 15.0
KEYS_KEPT_SECONDS: Final = 24 * 3600.0
KEYS_PRUNED_EARLY_SECONDS: Final = 45.0
HOLD_LASTS_SECONDS: Final = 7 * 24 * 3600.0
STORE_DELAY_SECONDS: Final = (0.0, 0.003)
LATE_STORE_DELAY_SECONDS: Final = (0.1, 3.0)
# Of the calls whose caller hung up before the work: done and forgotten, and done and remembered.
FORGOTTEN_SHARE: Final = 0.05
FINISHED_SHARE: Final = 0.3

TRANSIT_SECONDS: Final = (0.0005, 0.02)
SLOW_TRANSIT_SECONDS: Final = (0.1, 3.0)
STRAY_SECONDS: Final = (5.0, 120.0)
REFUSES_SECONDS: Final = (0.0005, 1.0)
HEALTH_TIMEOUT_SECONDS: Final = 2.0

OPERATIONS: Final = {path: operation for operation, path in PATHS.items()}
TROUBLE: Final = {
    Operation.AUTHORIZATION: "invalid_card",
    Operation.CAPTURE: "authorization_not_found",
    Operation.VOID: "authorization_not_found",
    Operation.REFUND: "capture_not_found",
}
Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Account:
    """A card that the bank issued."""

    cvc: str
    available_minor: int
    is_expired: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Hold:
    """Money set aside, until a capture or a void ends it; nothing else does."""

    id: str
    key: str
    card_number: str
    amount_minor: int
    expires_at: float
    captures: "list[Taken]" = field(default_factory=list)
    is_void: bool = False

    @property
    def is_live(self) -> bool:
        return not self.is_void and not self.captures


@dataclass(slots=True, kw_only=True, eq=False)
class Taken:
    """A capture, and what was given back of it."""

    id: str
    key: str
    hold: Hold
    amount_minor: int
    given_back: dict[str, int] = field(default_factory=dict)


class Refused(Exception):
    """The bank says no, under a code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class Unreadable(Exception):
    """The body is not of the bank's schema."""


class Books:
    """What the bank has done. One method an operation, each of them a transaction."""

    def __init__(self, hold_lasts_seconds: float = HOLD_LASTS_SECONDS) -> None:
        self.hold_lasts_seconds = hold_lasts_seconds
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.captures: dict[str, Taken] = {}
        self.holds_by_payment: dict[str, list[Hold]] = {}
        self.done: Counter[str] = Counter()  # under each key
        self._numbers = count(1)

    def issue(self, card_number: str, cvc: str, balance_minor: int) -> None:
        self.accounts[card_number] = Account(cvc=cvc, available_minor=balance_minor)

    def holds_of(self, payment_id: str) -> list[Hold]:
        """Every hold that was made under a key of this payment's."""
        return self.holds_by_payment.get(payment_id, [])

    def authorize(self, key: str, body: Json, now: float) -> Json:
        card, cvc = _text(body, "card_number"), _text(body, "cvv")
        amount = _whole(body, "amount")
        account = self.accounts.get(card)
        if account is None:
            raise Refused(400, "invalid_card")
        if account.cvc != cvc:
            raise Refused(400, "invalid_cvv")
        if account.is_expired:
            raise Refused(400, "card_expired")
        if amount < 1:
            raise Refused(400, "invalid_amount")
        if account.available_minor < amount:
            raise Refused(402, "insufficient_funds")
        account.available_minor -= amount
        hold = Hold(
            id=self._id("auth"),
            key=key,
            card_number=card,
            amount_minor=amount,
            expires_at=now + self.hold_lasts_seconds,
        )
        self.holds[hold.id] = hold
        self.holds_by_payment.setdefault(key.partition("-")[0], []).append(hold)
        return {"authorization_id": hold.id, "status": "approved", "amount": amount}

    def capture(self, key: str, body: Json, now: float) -> Json:
        hold, amount = self._open(body), _whole(body, "amount")
        if hold.expires_at <= now:
            raise Refused(400, "authorization_expired")
        if amount != hold.amount_minor:
            raise Refused(400, "amount_mismatch")
        taken = Taken(id=self._id("cap"), key=key, hold=hold, amount_minor=amount)
        hold.captures.append(taken)
        self.captures[taken.id] = taken
        answer = {"capture_id": taken.id, "authorization_id": hold.id, "status": "captured"}
        return answer | {"amount": amount}

    def void(self, _key: str, body: Json, _now: float) -> Json:
        hold = self._open(body)
        hold.is_void = True
        self.accounts[hold.card_number].available_minor += hold.amount_minor
        return {"void_id": self._id("void"), "authorization_id": hold.id, "status": "voided"}

    def refund(self, _key: str, body: Json, _now: float) -> Json:
        taken, amount = self.captures.get(_text(body, "capture_id")), _whole(body, "amount")
        if taken is None:
            raise Refused(400, "capture_not_found")
        if taken.given_back:
            raise Refused(400, "already_refunded")
        if amount != taken.amount_minor:
            raise Refused(400, "amount_mismatch")
        refund_id = self._id("ref")
        taken.given_back[refund_id] = amount
        self.accounts[taken.hold.card_number].available_minor += amount
        answer = {"refund_id": refund_id, "capture_id": taken.id, "status": "refunded"}
        return answer | {"amount": amount}

    def _open(self, body: Json) -> Hold:
        hold = self.holds.get(_text(body, "authorization_id"))
        if hold is None:
            raise Refused(400, "authorization_not_found")
        if not hold.is_live:
            raise Refused(400, "authorization_already_used")
        return hold

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"


def _text(body: Json, name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise Unreadable
    return value


def _whole(body: Json, name: str) -> int:
    value = body.get(name, 0)
    if type(value) is not int:
        raise Unreadable
    return value


@dataclass(slots=True, kw_only=True, eq=False)
class Exchange:
    """A request on the wire, and what comes back: a Reply, or None for a connection that broke.

    `is_astray`: it went out or arrived after its sender's time, which no sender can help.
    """

    operation: Operation
    key: str
    body: Json
    is_astray: bool = False
    is_gone: bool = False  # its caller hung up
    is_dropped: bool = False  # by a bank that was restarted
    back: Signal = field(default_factory=Signal)


class SimulatedBank:
    """Whoever answers at the other end of the wire."""

    def __init__(
        self,
        world: "World",
        *,
        keys_kept_seconds: float = KEYS_KEPT_SECONDS,
        hold_lasts_seconds: float = HOLD_LASTS_SECONDS,
        skew_seconds: float = 0.0,
    ) -> None:
        self.books = Books(hold_lasts_seconds)
        self.is_down = False  # its database
        self.has_lock_trouble = False
        self.wrong_for_ever: set[str] = set()  # the keys of which it will never be well
        self._world = world
        self._clock = HostClock(world.scheduler, skew_seconds)
        self._keys_kept_seconds = keys_kept_seconds
        self._remembered: dict[tuple[Operation, str], tuple[float, Json]] = {}
        self._at_work: dict[tuple[Operation, str], list[Exchange]] = {}
        self._on_their_way = 0
        self._work: dict[Operation, Callable[[str, Json, float], Json]] = {
            Operation.AUTHORIZATION: self.books.authorize,
            Operation.CAPTURE: self.books.capture,
            Operation.VOID: self.books.void,
            Operation.REFUND: self.books.refund,
        }

    @property
    def is_idle(self) -> bool:
        return not self._at_work and self._on_their_way == 0

    def will_receive(self, exchange: Exchange, seconds: float) -> None:
        """For so long a request is somewhere between us and the bank."""
        self._on_their_way += 1

        def arrive() -> None:
            self._on_their_way -= 1
            self.receive(exchange)

        self._world.scheduler.after(seconds, arrive)

    def restart(self) -> None:
        """What is being worked on is dropped; whatever was committed stays."""
        for exchanges in list(self._at_work.values()):
            for exchange in exchanges:
                exchange.is_dropped = True
                exchange.back.give(None)
        self._at_work.clear()

    def receive(self, exchange: Exchange) -> None:
        """A request has come in."""
        world, name = self._world, (exchange.operation, exchange.key)
        others = self._at_work.setdefault(name, [])
        world.checks.asked(exchange, others)
        others.append(exchange)
        known = None if self.is_down else self._recall(name)
        if known is not None:
            self._answer(exchange, Reply(status=200, body=known, replayed=True))
            return
        seconds = world.choices.between(*LATENCY_SECONDS)
        if world.befalls("bank_hangs"):
            seconds = world.choices.between(LATENCY_SECONDS[1], LONGEST_HANG_SECONDS)
        if seconds > GIVES_UP_SECONDS:
            world.scheduler.after(GIVES_UP_SECONDS, lambda: self._give_up(exchange))
        else:
            world.scheduler.after(seconds, lambda: self._handle(exchange))

    def _recall(self, name: tuple[Operation, str]) -> Json | None:
        at, body = self._remembered.get(name, (0.0, None))
        if body is None or self._world.scheduler.now - at > self._keys_kept_seconds:
            return None
        return body

    def _give_up(self, exchange: Exchange) -> None:
        exchange.is_gone = True
        exchange.back.give(None)
        self._handle(exchange)

    def _handle(self, exchange: Exchange) -> None:
        """The wait is over."""
        world = self._world
        if exchange.is_dropped:
            return
        if exchange.is_gone and not self._goes_on(exchange):
            self._end(exchange)
        elif world.befalls("bank_hangs_up_before"):
            self._hang_up(exchange)
        elif world.befalls("bank_fails"):
            self._refuse(exchange, 500, "internal_error")
        else:
            self._carry_out(exchange)

    def _goes_on(self, exchange: Exchange) -> bool:
        """What becomes of a call whose caller hung up before the work."""
        choices = self._world.choices
        if choices.happens(FORGOTTEN_SHARE):
            exchange.is_dropped = True  # done, and its key is not stored
            self._world.happened("bank_forgets_the_abandoned")
            return True
        return choices.happens(FINISHED_SHARE)

    def _carry_out(self, exchange: Exchange) -> None:
        """The work, in one transaction."""
        world = self._world
        try:
            if self.is_down:
                raise Refused(400, "internal_error")
            if self.has_lock_trouble and exchange.body:
                world.happened("bank_lock_trouble_felt")
                raise Refused(400, TROUBLE[exchange.operation])
            now = self._clock.now().timestamp()
            body = self._work[exchange.operation](exchange.key, exchange.body, now)
        except Unreadable:
            self._answer(exchange, Reply(status=400, body=None, replayed=False))
            return
        except Refused as refused:
            self._refuse(exchange, refused.status, refused.code)
            return
        self.books.done[exchange.key] += 1
        body = self._dated(exchange.operation, body)
        world.trace("bank", f"did {exchange.key}", sorted(body.items()))
        world.checks.booked(exchange.key)
        late = world.befalls("bank_stores_late")
        delay = LATE_STORE_DELAY_SECONDS if late else STORE_DELAY_SECONDS
        world.scheduler.after(world.choices.between(*delay), lambda: self._store(exchange, body))

    def _dated(self, operation: Operation, body: Json) -> Json:
        now = self._clock.now()
        if operation == Operation.AUTHORIZATION:
            body["expires_at"] = rfc3339(now + timedelta(seconds=self.books.hold_lasts_seconds))
        if operation != Operation.VOID:
            body["currency"] = "USD"
        return body | {"created_at": rfc3339(now)}

    def _store(self, exchange: Exchange, body: Json) -> None:
        """The key, in a transaction of its own, and then the answer."""
        world = self._world
        if exchange.is_dropped:
            self._end(exchange)
            return
        if world.befalls("bank_forgets"):
            self._hang_up(exchange)
            return
        if self.is_down:
            world.happened("bank_answers_and_forgets")
            self._answer(exchange, Reply(status=200, body=body, replayed=False))
            return
        name = (exchange.operation, exchange.key)
        self._remembered.setdefault(name, (world.scheduler.now, body))
        if world.befalls("bank_hangs_up_after"):
            self._hang_up(exchange)
        elif world.befalls("bank_garbles"):
            self._answer(exchange, Reply(status=200, body=None, replayed=False))
        elif world.befalls("bank_mismatches"):
            other = self._other(exchange.operation, body)
            if world.choices.happens(0.5):
                self._remembered[name] = (world.scheduler.now, other)
                self.wrong_for_ever.add(exchange.key)
            self._answer(exchange, Reply(status=200, body=other, replayed=False))
        else:
            self._answer(exchange, Reply(status=200, body=body, replayed=False))

    def _other(self, operation: Operation, body: Json) -> Json:
        """The answer to somebody else's question, which differs in more than its id."""
        others = [known for (of, _), (_, known) in self._remembered.items() if of == operation]
        other = dict(self._world.choices.one_of(others))
        if operation == Operation.VOID:
            other["authorization_id"] = "auth_0"
        elif other["amount"] == body["amount"]:
            other["currency"] = "EUR"
        return other

    def _refuse(self, exchange: Exchange, status: int, code: str) -> None:
        body = {"error": code, "message": "The bank's own words."}
        self._answer(exchange, Reply(status=status, body=body, replayed=False))

    def _answer(self, exchange: Exchange, reply: Reply) -> None:
        world = self._world
        self._end(exchange)
        told = reply.code or ("replayed" if reply.replayed else "")
        world.trace("bank", f"answers {exchange.key}", f"{reply.status} {told}")
        if not world.befalls("bank_reply_lost"):
            world.scheduler.after(
                world.choices.between(*TRANSIT_SECONDS), lambda: exchange.back.give(reply)
            )

    def _hang_up(self, exchange: Exchange) -> None:
        self._end(exchange)
        exchange.back.give(None)

    def _end(self, exchange: Exchange) -> None:
        name = (exchange.operation, exchange.key)
        others = [each for each in self._at_work.get(name, []) if each is not exchange]
        if others:
            self._at_work[name] = others
        else:
            self._at_work.pop(name, None)


class SimulatedClient(BankClient):
    """One process's end of the wire."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def post(self, path: str, key: str, body: Json, *, timeout_seconds: float) -> Reply:
        """As the real one. Raises NotSent, NoReply."""
        world = self._world
        scheduler = world.scheduler
        give_up_at = scheduler.now + timeout_seconds
        world.cross("bank request", key)
        if world.befalls("bank_unreachable"):
            scheduler.pause(world.choices.between(*REFUSES_SECONDS))
            raise NotSent("ConnectTimeout")
        exchange = Exchange(operation=OPERATIONS[path], key=key, body=body)
        exchange.is_astray = scheduler.now > give_up_at  # we were stopped just before
        self._put_on_the_wire(exchange)
        host = scheduler.host()
        assert host is not None
        host.hung_up.append(lambda: setattr(exchange, "is_gone", True))
        scheduler.wait_for(exchange.back, max(0.0, give_up_at - scheduler.now))
        world.cross("bank reply", key)
        too_late = scheduler.now > give_up_at and world.choices.happens(0.5)
        reply: Reply | None = exchange.back.value
        if reply is None or too_late:
            exchange.is_gone = True
            raise NoReply("Timeout")
        return reply

    def _put_on_the_wire(self, exchange: Exchange) -> None:
        world, choices = self._world, self._world.choices
        world.trace("ours", f"asks {exchange.key}", sorted(exchange.body))
        if world.befalls("bank_request_lost"):
            return
        seconds = choices.between(*TRANSIT_SECONDS)
        if world.befalls("bank_request_slow"):
            seconds = choices.between(*SLOW_TRANSIT_SECONDS)
        elif world.befalls("bank_request_strays"):
            exchange.is_astray = True
            seconds = choices.between(*STRAY_SECONDS)
        world.bank.will_receive(exchange, seconds)

    def is_healthy(self, *, timeout_seconds: float = HEALTH_TIMEOUT_SECONDS) -> bool:
        """As the real one."""
        world = self._world
        world.cross("bank health", "")
        lost = world.befalls("bank_reply_lost") or world.befalls("bank_unreachable")
        seconds = world.choices.between(*TRANSIT_SECONDS)
        is_late = lost or seconds > timeout_seconds
        world.scheduler.pause(timeout_seconds if is_late else seconds)
        return not is_late and not world.bank.is_down

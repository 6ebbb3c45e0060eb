"""Payments as they go in a shop's year, made up: the same for the same seed.

Most are captured, some of those refunded, in full or in part; some are voided, declined, or left to
expire. The steps of different payments lie between one another, in order of time, as in a log.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, count
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID

from domain.bank import Operation
from domain.commands import Cause, Mode, Tenant
from domain.ids import Prefix, encode, uuid7
from domain.payment import rfc3339
from infrastructure.shards import SHARDS

MERCHANTS: Final = 20
PAYMENTS_OF_A_CUSTOMER: Final = 10
HOLD_LASTS: Final = timedelta(days=7)
LONGEST_BANK_SECONDS: Final = 2.0

# What becomes of a payment, and of how many in a hundred.
FATES: Final = {
    "captured": 64,
    "refunded": 12,
    "refunded in part": 6,
    "refunded in parts": 2,
    "declined": 8,
    "voided": 6,
    "expired": 2,
}
EVENTS_OF: Final = {
    "captured": 4,
    "refunded": 6,
    "refunded in part": 6,
    "refunded in parts": 8,
    "declined": 2,
    "voided": 4,
    "expired": 4,
}
EVENTS_OF_A_PAYMENT: Final = sum(EVENTS_OF[fate] * of for fate, of in FATES.items()) / 100
DECLINES: Final = ("insufficient_funds", "card_expired", "invalid_cvv")
CARDS: Final = (("visa", "1111"), ("visa", "4242"), ("mastercard", "4444"), ("amex", "0005"))
CURRENCIES: Final = ("USD",) * 8 + ("EUR", "GBP")


class Step(NamedTuple):
    """One event of a life. `state`: its fields, but for the time."""

    at: datetime
    topic: str
    state: dict[str, Any]
    operation: Operation
    cause: Cause

    @property
    def asks(self) -> bool:
        """Whether the bank is about to be asked, rather than has answered."""
        return self.topic.endswith("_requested")


@dataclass(slots=True, kw_only=True)
class Life:
    """One payment, from the first step to the last."""

    payment_id: UUID
    tenant: Tenant
    order_id: str
    steps: list[Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The past to make up: about `events` events in all shards, over the `days` before `until`."""

    events: int
    seed: int
    until: datetime
    days: float = 365.0

    @property
    def payments(self) -> float:
        """About how many."""
        return self.events / EVENTS_OF_A_PAYMENT


def events_of_shard(past: Past, shard: int) -> Iterator[tuple[Life, int]]:
    """Each event as the life that it is of, and the number of its step, in the order of the log.

    Once there are as many as were wanted nothing is asked any more; what was, is answered.
    """
    wanted = past.events // SHARDS + (shard < past.events % SHARDS)
    arrivals = _arrivals(past, shard)
    arriving = next(arrivals)
    waiting: list[tuple[datetime, int, Life, int]] = []
    made, serials = 0, count()
    while made < wanted or waiting:
        is_new = not waiting or arriving.steps[0].at <= waiting[0][0]
        if made < wanted and is_new:
            heapq.heappush(waiting, (arriving.steps[0].at, next(serials), arriving, 0))
            arriving = next(arrivals)
            continue
        _, _, life, place = heapq.heappop(waiting)
        if made >= wanted and life.steps[place].asks:
            continue
        yield life, place
        made += 1
        if place + 1 < len(life.steps):
            at = life.steps[place + 1].at
            heapq.heappush(waiting, (at, next(serials), life, place + 1))


def merchants(seed: int) -> list[str]:
    """Their ids, the one with most payments first."""
    rng = Random(f"{seed}/merchants")  # noqa: S311 - made up, not secret
    return [encode(Prefix.MERCHANT, UUID(int=rng.getrandbits(128))) for _ in range(MERCHANTS)]


def _arrivals(past: Past, shard: int) -> Iterator[Life]:
    rng = Random(f"{past.seed}/{shard}")  # noqa: S311 - made up, not secret
    names = merchants(past.seed)
    weights = list(accumulate(1 / (place + 1) for place in range(MERCHANTS)))
    spacing = timedelta(days=past.days) / max(past.payments / SHARDS, 1)
    began = past.until - timedelta(days=past.days)
    customers = max(past.payments / PAYMENTS_OF_A_CUSTOMER / MERCHANTS, 1)
    fates, shares = list(FATES), list(accumulate(FATES.values()))
    for number in count():
        at = began + spacing * (number + rng.random())
        (merchant_id,) = rng.choices(names, cum_weights=weights)
        teller = _Teller(
            rng=rng,
            payment_id=_id_in(shard, at, rng),
            tenant=Tenant(merchant_id, Mode.LIVE),
            order_id=f"ORD-{shard}-{number}",
            customer_id=f"cus_{int(customers * rng.random() ** 2)}",
            at=at,
        )
        (fate,) = rng.choices(fates, cum_weights=shares)
        yield teller.life(fate)


def _id_in(shard: int, at: datetime, rng: Random) -> UUID:
    """An id of that moment, whose last byte puts it into the shard."""
    bits = (rng.getrandbits(74) & ~0xFF) | (rng.randrange(256 // SHARDS) * SHARDS + shard)
    return uuid7(unix_milliseconds=int(at.timestamp() * 1000), random_bits=bits)


@dataclass(slots=True, kw_only=True)
class _Teller:
    """Tells one life, step by step."""

    rng: Random
    payment_id: UUID
    tenant: Tenant
    order_id: str
    customer_id: str
    at: datetime

    def life(self, fate: str) -> Life:
        """All of it."""
        steps = [*self._authorization(fate), *self._after(fate)]
        return Life(
            payment_id=self.payment_id, tenant=self.tenant, order_id=self.order_id, steps=steps
        )

    def _after(self, fate: str) -> Iterator[Step]:
        rng = self.rng
        match fate:
            case "declined":
                return
            case "voided":
                self._wait(hours=rng.uniform(0.1, 48))
                yield from self._void(on_expiry=False)
                return
            case "expired":
                self._wait(hours=HOLD_LASTS / timedelta(hours=1) + rng.uniform(0.01, 0.1))
                yield from self._void(on_expiry=True)
                return
            case _:
                pass
        self._wait(hours=rng.uniform(0.05, 72))
        amount = self._amount if rng.random() < 0.95 else max(self._amount // 2, 1)
        yield from self._capture(amount)
        for part in _parts(fate, amount):
            self._wait(hours=rng.uniform(12, 480))
            yield from self._refund(part)

    # --- operations: an ask and its outcome ------------------------------------------------------

    _amount: int = 0

    def _authorization(self, fate: str) -> Iterator[Step]:
        rng = self.rng
        self._amount = int(min(max(rng.lognormvariate(8.3, 0.9), 100), 5_000_000))
        brand, last4 = rng.choice(CARDS)
        cause, of = self._cause("authorize"), Operation.AUTHORIZATION
        asked = {
            "class_version": 2,
            "originator_topic": "payment",
            "merchant_id": self.tenant.merchant_id,
            "mode": self.tenant.mode.value,
            "order_id": self.order_id,
            "customer_id": self.customer_id,
            "amount_minor": self._amount,
            "currency": rng.choice(CURRENCIES),
            "card_brand": brand,
            "card_last4": last4,
            "card_exp_month": rng.randrange(1, 13),
            "card_exp_year": self.at.year + rng.randrange(1, 5),
            "card_fingerprint": None,
            "capture_method": "manual",
            "intent_id": None,
            "payment_method_id": None,
            "description": None,
            "test_outcome": None,
            "metadata": {"channel": "web", "items": rng.randrange(1, 9)},
        }
        yield Step(self.at, "payment.authorization_requested", asked, of, cause)
        self._bank_takes_its_time()
        if fate == "declined":
            no = {"code": rng.choice(DECLINES)}
            yield Step(self.at, "payment.authorization_declined", no, of, cause)
        else:
            held = {
                "bank_authorization_id": self._bank_id("auth"),
                "expires_at": rfc3339(self.at + HOLD_LASTS),
            }
            yield Step(self.at, "payment.authorized", held, of, cause)

    def _capture(self, amount: int) -> Iterator[Step]:
        cause, of = self._cause("capture"), Operation.CAPTURE
        yield Step(self.at, "payment.capture_requested", {"amount_minor": amount}, of, cause)
        self._bank_takes_its_time()
        done = {"bank_capture_id": self._bank_id("cap")}
        yield Step(self.at, "payment.captured", done, of, cause)

    def _void(self, *, on_expiry: bool) -> Iterator[Step]:
        cause = Cause(actor="worker") if on_expiry else self._cause("void")
        of = Operation.VOID
        yield Step(self.at, "payment.void_requested", {"on_expiry": on_expiry}, of, cause)
        self._bank_takes_its_time()
        done = {"bank_void_id": self._bank_id("void")}
        yield Step(self.at, "payment.expired" if on_expiry else "payment.voided", done, of, cause)

    def _refund(self, amount: int) -> Iterator[Step]:
        refund_id = encode(Prefix.REFUND, self._new_id())
        cause, of = self._cause(f"refund-{refund_id[-6:]}"), Operation.REFUND
        asked = {
            "refund_id": refund_id,
            "amount_minor": amount,
            "reason": "requested_by_customer",
            "metadata": {},
        }
        yield Step(self.at, "payment.refund_requested", asked, of, cause)
        self._bank_takes_its_time()
        done = {"refund_id": refund_id, "bank_refund_id": self._bank_id("ref")}
        yield Step(self.at, "payment.refunded", done, of, cause)

    # --- small things ------------------------------------------------------------------------------

    def _cause(self, operation: str) -> Cause:
        return Cause(
            actor="key_" + self.tenant.merchant_id[4:],
            request_id=encode(Prefix.REQUEST, self._new_id()),
            idempotency_key=f"{self.order_id}-{operation}",
        )

    def _wait(self, *, hours: float) -> None:
        self.at += timedelta(hours=hours)

    def _bank_takes_its_time(self) -> None:
        self.at += timedelta(seconds=self.rng.uniform(0.05, LONGEST_BANK_SECONDS))

    def _bank_id(self, prefix: str) -> str:
        return f"{prefix}_{UUID(int=self.rng.getrandbits(128))}"

    def _new_id(self) -> UUID:
        milliseconds = int(self.at.timestamp() * 1000)
        return uuid7(unix_milliseconds=milliseconds, random_bits=self.rng.getrandbits(74))


def _parts(fate: str, captured: int) -> list[int]:
    """What is given back of what was captured, refund by refund."""
    part = max(captured // 3, 1)
    return {
        "captured": [],
        "refunded": [captured],
        "refunded in part": [part],
        "refunded in parts": [part, part],
    }[fate]

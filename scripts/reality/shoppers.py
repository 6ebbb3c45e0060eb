"""The clients: each order is a shopper's program that gives up and comes back, asks twice at once,
and goes from one API to the other, always under the same idempotency key.

What is done is drawn from the seed; what is answered, and when, is not.
"""

import heapq
import http.client
import itertools
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from scripts.reality.canaries import CanaryCard
from scripts.reality.system import API_KEY

PATIENCE_SECONDS: Final = 15.0  # of a client that waits for the answer
IMPATIENCE_SECONDS: Final = (0.05, 2.0)  # of one that does not
GIVES_UP: Final = 0.15
ASKS_TWICE: Final = 0.12
TAKES_A_NEW_KEY: Final = 0.06
COMES_BACK_SECONDS: Final = (0.2, 1.5)
# 409s that say: not now. All others are the answer.
NOT_NOW: Final = frozenset({"request_in_progress", "operation_in_progress"})
# What a gateway may say to a request that was right.
EXPECTED: Final = frozenset(
    {
        HTTPStatus.CREATED,
        HTTPStatus.ACCEPTED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.CONFLICT,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
FINAL: Final = EXPECTED - {HTTPStatus.ACCEPTED, HTTPStatus.SERVICE_UNAVAILABLE}

# What shoppers do, and how many of a hundred. Between bars: at once, whichever comes first.
PLANS: Final[Mapping[tuple[str, ...], int]] = {
    ("authorize",): 12,
    ("authorize", "capture"): 24,
    ("authorize", "void"): 18,
    ("authorize", "capture", "refund"): 30,
    ("authorize", "capture|void"): 8,
    ("poor", "authorize", "capture"): 8,
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One command under its idempotency key, which it keeps for ever."""

    key: str
    path: str
    body: Mapping[str, Any]
    number: int  # of the order


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, byte for byte."""

    status: int
    body: bytes
    replayed: bool
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def code(self) -> str:
        """The error's code, or nothing."""
        return str(self.json.get("error", {}).get("code", ""))

    @property
    def is_final(self) -> bool:
        """Whether a client need not ask again."""
        return self.status in FINAL and self.code not in NOT_NOW

    @property
    def payment_id(self) -> str | None:
        """The payment that it is about."""
        found = self.json.get("error", self.json).get("payment_id")
        return None if found is None else str(found)


class Memory:
    """Everything that clients asked and were told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.asks: dict[str, Ask] = {}
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self.silences = 0

    def asked(self, ask: Ask) -> None:
        with self._lock:
            self.asks[ask.key] = ask

    def answered(self, ask: Ask, answer: Answer | None) -> None:
        with self._lock:
            if answer is None:
                self.silences += 1
            else:
                self.answers[ask.key].append(answer)

    def settled(self, key: str) -> Answer | None:
        """The answer that ended it, for the client."""
        return next((answer for answer in self.answers[key] if answer.is_final), None)


def send(ask: Ask, port: int, timeout: float) -> Answer | None:
    """Asks once, over a connection of its own; None where no whole answer came."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {
        "Authorization": f"Bearer {API_KEY}",
        "Content-Type": "application/json",
        "Idempotency-Key": ask.key,
    }
    began = time.monotonic()
    try:
        connection.request("POST", ask.path, json.dumps(ask.body), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return Answer(
        status=response.status,
        body=body,
        replayed=response.headers.get("Idempotent-Replayed") == "true",
        seconds=time.monotonic() - began,
    )


@dataclass(slots=True, kw_only=True)
class Shopper:
    """One order, from its first ask to its last answer."""

    number: int
    run: str
    card: CanaryCard
    poor_card: CanaryCard
    amount: int
    plan: Sequence[str]
    rng: random.Random
    ports: Sequence[int]
    memory: Memory
    payment_id: str | None = None
    asks: list[Ask] = field(default_factory=list)
    step_number: int = 0
    is_calm: bool = False

    @property
    def order_id(self) -> str:
        """Also what the search for cards has to find, to be believed."""
        return f"ORD-{self.run}-{self.number}"

    def step(self) -> float | None:
        """Asks what is to be asked now, once; the seconds until the next, or None at the end."""
        if not self.asks and not self._begin_next():
            return None
        waiting = [ask for ask in self.asks if self.memory.settled(ask.key) is None]
        self._take_a_new_key(waiting)
        self._ask_at_once(waiting)
        if all(self.memory.settled(ask.key) for ask in self.asks):
            self._learn()
            self.asks = []
            return 0.0
        return self.rng.uniform(*COMES_BACK_SECONDS)

    def calm_down(self) -> None:
        """Goes on as planned, patiently and with no more whims."""
        self.is_calm = True

    def _begin_next(self) -> bool:
        if self.step_number >= len(self.plan):
            return False
        names = self.plan[self.step_number].split("|")
        self.step_number += 1
        if self.payment_id is None and not {"authorize", "poor"} & set(names):
            return False
        for name in names:
            self._begin(name)
        return True

    def _begin(self, name: str, again: str = "") -> None:
        paths = {"capture": "/v1/captures", "void": "/v1/voids", "refund": "/v1/refunds"}
        key = f"{self.order_id}-{name}{again}"
        if name in paths:
            ask = Ask(key, paths[name], {"payment_id": self.payment_id}, self.number)
        else:
            card = self.poor_card if name == "poor" else self.card
            body = {
                "order_id": self.order_id,
                "customer_id": f"cus_{self.run}",
                "amount": self.amount,
                "currency": "USD",
                "card": card.as_sent(),
            }
            ask = Ask(key, "/v1/authorizations", body, self.number)
        self.asks.append(ask)
        self.memory.asked(ask)

    def _take_a_new_key(self, waiting: Sequence[Ask]) -> None:
        """Some clients make a new key for the same order when they are not answered."""
        known = self.asks[0].key
        if self.is_calm or not waiting or not known.endswith("-authorize"):
            return
        was_asked = self.memory.answers[known] or self.memory.silences
        if len(self.asks) == 1 and was_asked and self.rng.random() < TAKES_A_NEW_KEY:
            self._begin("authorize", "-again")

    def _ask_at_once(self, waiting: Sequence[Ask]) -> None:
        twice = list(waiting) * (2 if self.rng.random() < ASKS_TWICE else 1)
        drawn = [(ask, self.rng.choice(self.ports), self._patience()) for ask in twice]
        threads = [threading.Thread(target=self._ask, args=one) for one in drawn[1:]]
        for thread in threads:
            thread.start()
        for one in drawn[:1]:
            self._ask(*one)
        for thread in threads:
            thread.join()

    def _patience(self) -> float:
        if not self.is_calm and self.rng.random() < GIVES_UP:
            return self.rng.uniform(*IMPATIENCE_SECONDS)
        return PATIENCE_SECONDS

    def _ask(self, ask: Ask, port: int, timeout: float) -> None:
        self.memory.answered(ask, send(ask, port, timeout))

    def _learn(self) -> None:
        """The payment is the one that was authorized, under whichever key."""
        for ask in self.asks:
            answer = self.memory.settled(ask.key)
            if answer is not None and answer.status == HTTPStatus.CREATED:
                self.payment_id = answer.payment_id or self.payment_id


def shoppers(
    *,
    count: int,
    run: str,
    cards: Sequence[CanaryCard],
    rng: random.Random,
    ports: Sequence[int],
    memory: Memory,
) -> list[Shopper]:
    """So many, each with two cards of its own: one with money, and one without."""
    plans, weights = list(PLANS), list(PLANS.values())
    return [
        Shopper(
            number=number,
            run=run,
            card=cards[2 * number],
            poor_card=cards[2 * number + 1],
            amount=rng.randrange(100, 50_000),
            plan=rng.choices(plans, weights)[0],
            rng=random.Random(rng.random()),  # noqa: S311 - a shopper's whims, which can be had again
            ports=ports,
            memory=memory,
        )
        for number in range(count)
    ]


class Street:
    """Lets shoppers go about their business, many at once: who waits does not hold up another."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Shopper]] = []
        self._numbers = itertools.count()
        self._open = 0

    def run(self, comings: Iterable[tuple[float, Shopper]], seconds: float) -> int:
        """Lets each begin at its time, for so many seconds in all; how many were not done by then."""
        began = time.monotonic()
        for at, shopper in comings:
            self._put(began + at, shopper)
            self._open += 1
        self._until = began + seconds
        with ThreadPoolExecutor(self._threads, thread_name_prefix="shopper") as pool:
            for done in [pool.submit(self._serve) for _ in range(self._threads)]:
                done.result()
        left, self._due, self._open = self._open, [], 0
        return left

    def _put(self, at: float, shopper: Shopper) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), shopper))

    def _serve(self) -> None:
        while (shopper := self._next()) is not None:
            pause = shopper.step()
            with self._changed:
                if pause is None:
                    self._open -= 1
                else:
                    self._put(time.monotonic() + pause, shopper)
                self._changed.notify_all()

    def _next(self) -> Shopper | None:
        """Who is due; None when all are done, or the time is up."""
        with self._changed:
            while self._open and time.monotonic() < self._until:
                wait = self._until - time.monotonic()
                if self._due:
                    wait = min(wait, self._due[0][0] - time.monotonic())
                    if wait <= 0:
                        return heapq.heappop(self._due)[2]
                self._changed.wait(max(0.0, wait))
            return None


def all_at_once(work: Callable[[Any], Any], over: Iterable[Any], threads: int) -> list[Any]:
    """The results, in order."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, over))

"""Clients: order services that repeat themselves, lose patience, take new keys, and race themselves.

They know the contract and lean on it: after no answer the same request is asked again, under the same
key, until there is one.
"""

import json
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from api.http import Answer
from domain.commands import Mode, Tenant
from tests.simulation.cards import ShopperCard
from tests.simulation.gateway import Api, Asked
from tests.simulation.scheduler import Signal

if TYPE_CHECKING:
    from tests.simulation.world import World

MERCHANTS: Final = tuple(Tenant(f"mer_{name}", Mode.TEST) for name in ("ficmart", "other"))
PATIENCE_SECONDS: Final = 12.0
IMPATIENCE_SECONDS: Final = (0.2, 3.0)
SHORTEST_PAUSE_SECONDS: Final = 0.2
PAUSE_GROWS_SECONDS: Final = 4.0
LONGEST_PAUSE_SECONDS: Final = 30.0
THINKING_SECONDS: Final = (0.0, 8.0)
TRANSIT_SECONDS: Final = (0.001, 0.05)
STRAY_SECONDS: Final = (0.0, 40.0)
MOST_KEYS: Final = 3
MOST_PAYMENTS: Final = 3
MOST_ASKS: Final = 60
POOR_SHARE: Final = 0.1
BALANCE_MINOR: Final = 10_000_000


class Merchants:
    """Everybody who asks us for something."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._numbers = count(1)
        self.at_work = 0
        self.on_their_way = 0  # requests, and copies of them
        self.cards: list[ShopperCard] = []

    def order(self, seconds: float) -> None:
        """An order comes in, in `seconds`."""
        number = next(self._numbers)
        self.at_work += 1
        world = self._world

        def begin() -> None:
            world.scheduler.spawn(None, Order(self, world, number).live)

        world.scheduler.after(seconds, begin)

    def left(self) -> None:
        self.at_work -= 1

    def on_its_way(self, seconds: float, arrive: Callable[[], None]) -> None:
        """For so long a request is somewhere between them and us."""
        self.on_their_way += 1

        def end() -> None:
            self.on_their_way -= 1
            arrive()

        self._world.scheduler.after(seconds, end)

    def a_card(self, number: int) -> ShopperCard:
        card = ShopperCard.numbered(number)
        self.cards.append(card)
        poor = self._world.choices.happens(POOR_SHARE)
        self._world.bank.books.issue(card.number, card.cvc, 0 if poor else BALANCE_MINOR)
        return card


class Order:
    """One order, from the first request to the last."""

    def __init__(self, merchants: Merchants, world: "World", number: int) -> None:
        self._merchants = merchants
        self._world = world
        self._tenant = world.choices.one_of(MERCHANTS)
        self._order_id = f"order-{number}"
        self._card = merchants.a_card(number)
        self._amount = int(world.choices.between(100, 90_000))
        self._keys = (f"{self._order_id}-key-{n}" for n in count(1))
        self._running = 1

    def live(self) -> None:
        """Pays, and perhaps, where it did not come to that, pays again."""
        for _ in range(MOST_PAYMENTS):
            payment_id = self._authorize()
            if payment_id is None or not self._go_on(payment_id):
                break
        self._done()

    def _go_on(self, payment_id: str) -> bool:
        """Thinks, and does one of the things that can be done then; whether all is to begin anew."""
        self._think()
        self._look(payment_id)
        if self._befalls("client_is_nosy"):
            other = next(each for each in MERCHANTS if each != self._tenant)
            key = f"nosy-{next(self._keys)}"
            self._ask(
                Asked(tenant=other, path="/v1/voids", key=key, body={"payment_id": payment_id})
            )
        match self._world.choices.one_of(("capture", "capture", "void", "leave", "both")):
            case "capture":
                self._capture(payment_id)
            case "void":
                self._settle("/v1/voids", payment_id)
            case "both":
                self._beside(lambda: self._settle("/v1/voids", payment_id))
                self._capture(payment_id)
            case _:
                pass  # and the hold runs out
        return self._befalls("client_takes_a_new_key")

    def _authorize(self) -> str | None:
        """The payment that was authorized, if one was."""
        body = {
            "order_id": self._order_id,
            "customer_id": "cus_1",
            "amount": self._amount,
            "card": {
                "number": self._card.number,
                "exp_month": 12,
                "exp_year": 2030,
                "cvc": self._card.cvc,
            },
        }
        if self._befalls("client_races_itself"):
            key = next(self._keys)
            self._beside(lambda: self._persist("/v1/authorizations", key, body))
        for _ in range(MOST_KEYS):
            answer = self._persist("/v1/authorizations", next(self._keys), body)
            if answer is not None and answer.status == 201:
                payment_id: str = json.loads(answer.body)["payment_id"]
                return payment_id
            if answer is None or answer.status != 402:
                break  # paid by another of our requests, or we lost patience
            if not self._befalls("client_takes_a_new_key"):
                break
        return None

    def _capture(self, payment_id: str) -> None:
        answer = self._settle("/v1/captures", payment_id)
        if answer is None or self._world.choices.happens(0.5):
            return
        if answer.status != 201:
            self._settle("/v1/voids", payment_id)  # then not
            return
        self._think()
        self._look(payment_id)
        if self._befalls("client_races_itself"):
            self._beside(lambda: self._settle("/v1/refunds", payment_id))
        self._settle("/v1/refunds", payment_id)

    def _settle(self, path: str, payment_id: str) -> Answer | None:
        body = {"payment_id": payment_id}
        if self._befalls("client_races_itself"):
            other = next(self._keys)
            self._beside(lambda: self._persist(path, other, body))
        return self._persist(path, next(self._keys), body)

    def _look(self, payment_id: str) -> None:
        """Reads the receipt: it must tell what was there when it was asked for."""
        world = self._world
        version = world.checks.version_of(payment_id)

        def read(api: Api) -> Answer:
            answer = api.receipt(self._tenant, payment_id)
            world.checks.read(payment_id, version, answer)
            return answer

        letter = Signal()
        self._post(read, letter)
        world.scheduler.wait_for(letter, PATIENCE_SECONDS)

    # --- asking --------------------------------------------------------------------------------

    def _persist(self, path: str, key: str, body: dict[str, Any]) -> Answer | None:
        """Asks under one key until there is an answer that is not 'later'; None: never."""
        world = self._world
        if self._befalls("client_reuses_a_key"):
            other = Asked(
                tenant=self._tenant,
                path="/v1/voids",
                key=key,
                body={"payment_id": "pay_00000000000000000000000000"},
            )
            self._beside(lambda: self._ask(other))
        asked = Asked(tenant=self._tenant, path=path, key=key, body=body)
        for attempt in range(MOST_ASKS):
            gives_up = attempt > 0 and self._befalls("client_takes_a_new_key")
            if gives_up and path == "/v1/authorizations":
                asked = Asked(tenant=self._tenant, path=path, key=next(self._keys), body=body)
            answer = self._ask(asked)
            if answer is not None and not is_later(answer):
                return answer
            longest = min(PAUSE_GROWS_SECONDS * (attempt + 1), LONGEST_PAUSE_SECONDS)
            world.scheduler.pause(world.choices.between(SHORTEST_PAUSE_SECONDS, longest))
        return None

    def _ask(self, asked: Asked) -> Answer | None:
        """One request; None where no answer came in time."""
        world = self._world
        patience = PATIENCE_SECONDS
        if self._befalls("client_is_impatient"):
            patience = world.choices.between(*IMPATIENCE_SECONDS)
        world.trace("client", f"asks {asked.path} under {asked.key}", "")
        letter = Signal()
        self._post(lambda api: api.answer(asked), letter)
        if self._befalls("request_duplicated"):
            seconds = world.choices.between(*STRAY_SECONDS)
            self._merchants.on_its_way(
                seconds, lambda: self._post(lambda api: api.answer(asked), Signal())
            )
        world.scheduler.wait_for(letter, patience)
        answer: Answer | None = letter.value
        told = "nothing" if answer is None else f"{answer.status} {answer.body[:60]!r}"
        world.trace("client", f"was told under {asked.key}", told)
        return answer

    def _post(self, serve: Any, letter: Signal) -> None:
        """Puts a request on the wire to one of the APIs, whichever is up."""
        world = self._world
        if self._befalls("request_lost"):
            return
        api = world.choices.one_of(world.deployment.apis)

        def work() -> None:
            answer = serve(api)
            if not self._befalls("answer_lost"):
                world.scheduler.after(
                    world.choices.between(*TRANSIT_SECONDS), lambda: letter.give(answer)
                )

        def arrive() -> None:
            if api.host.is_alive:
                api.spawn(work)

        self._merchants.on_its_way(world.choices.between(*TRANSIT_SECONDS), arrive)

    # --- and all that goes with it -------------------------------------------------------------

    def _befalls(self, fault: str) -> bool:
        return self._world.befalls(fault)

    def _think(self) -> None:
        world = self._world
        world.scheduler.pause(world.choices.between(*THINKING_SECONDS))

    def _beside(self, work: Any) -> None:
        """Another request of the same order, at the same time."""
        self._running += 1

        def run() -> None:
            self._world.scheduler.pause(self._world.choices.between(0.0, 2.0))
            work()
            self._done()

        self._world.scheduler.spawn(None, run)

    def _done(self) -> None:
        self._running -= 1
        if self._running == 0:
            self._merchants.left()


def is_later(answer: Answer) -> bool:
    """Whether the same request is to be asked again."""
    if answer.status in {202, 503}:
        return True
    code = json.loads(answer.body).get("error", {}).get("code")
    return answer.status == 409 and code in {"request_in_progress", "operation_in_progress"}

"""Where calls are handled: the life of one call, from its key to its answer.

In this order, since payments are won and lost by it: the key is looked up (before the body is
read), then the chaos, then the work in one transaction, then, in another one, the key is stored.
Between these steps a caller may hang up, and another call with the same key may come in.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from infrastructure.bank_simulator import replies
from infrastructure.bank_simulator.books import Asked, Books, Json
from infrastructure.bank_simulator.chaos import Chaos, Mood
from infrastructure.bank_simulator.faults import CountedName, Faults
from infrastructure.bank_simulator.line import Line
from infrastructure.bank_simulator.operations import Operation
from infrastructure.bank_simulator.profiles import Profile
from infrastructure.bank_simulator.refusals import Refused, Unreadable
from infrastructure.bank_simulator.remembered import Answer, Key, RememberedAnswers
from infrastructure.bank_simulator.replies import Reply

UNANSWERED = "unanswered"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One POST."""

    operation: Operation
    key: Key
    body: bytes
    line: Line

    @property
    def slot(self) -> tuple[str, str]:
        """What must not be in flight twice."""
        return self.operation.path, self.key.text


class Abandoned(Exception):
    """The caller hung up before the work, or its time ran out, and the bank drops the call."""


class Fate(Enum):
    """What becomes of a call, by whether its caller hung up before the work."""

    SERVED = "the caller is there"
    STOPPED = "not done"
    FINISHED = "done and remembered"
    FORGOTTEN = "done and not remembered"


class Desk:
    def __init__(
        self,
        *,
        books: Books,
        remembered: RememberedAnswers,
        profile: Profile,
        faults: Faults,
        chaos: Chaos,
        clock: Callable[[], float],
        settle_seconds: float,
        pages_at: str,
    ) -> None:
        self._books = books
        self._remembered = remembered
        self._profile = profile
        self._faults = faults
        self._chaos = chaos
        self._clock = clock
        self._settle_seconds = settle_seconds
        self._pages_at = pages_at
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._queues: dict[tuple[str, str], asyncio.Lock] = {}
        self._closing = False
        self.overlaps = 0
        self.calls: dict[str, Counter[str]] = {}

    async def post(self, call: Call) -> Reply | None:
        """None: the caller gets no answer."""
        with self._counted_in(call.slot):
            reply = await self._in_turn(call)
        self._count(f"POST {call.operation.path}", reply, call.line)
        return reply

    async def get(self, operation: Operation, identifier: str, line: Line) -> Reply | None:
        """None: the caller gets no answer."""
        reply = await self._found(operation, identifier, line)
        self._count(f"GET {operation.path}", reply, line)
        return reply

    @property
    def in_flight(self) -> int:
        """How many calls are here now, those included whose caller hung up."""
        return self._in_flight.total()

    def close(self) -> None:
        """The bank closes: whoever is still waiting is not served any more."""
        self._closing = True

    async def _in_turn(self, call: Call) -> Reply | None:
        if self._faults.switches.overlap:
            return await self._looked_up(call)
        async with self._queues.setdefault(call.slot, asyncio.Lock()):
            return await self._looked_up(call)

    async def _looked_up(self, call: Call) -> Reply | None:
        known = self._recall(call.key, call.operation.path)
        if known is not None:
            return replies.replay(known.status, known.body)
        try:
            return await self._handled(call)
        except Unreadable:
            return replies.protocol_error(400, "invalid request body")
        except Refused as refused:
            return replies.refusal(refused.code)
        except Abandoned:
            return None

    def _recall(self, key: Key, path: str) -> Answer | None:
        # A bank that cannot reach its database goes on as if it had never seen the key.
        if self._faults.switches.database_down:
            return None
        return self._remembered.recall(key, path, self.now())

    async def _handled(self, call: Call) -> Reply | None:
        fate, fails = await self._kept_waiting(call)
        if self._struck("drop_before", call):
            call.line.drop()
            return None
        if fails or self._struck("fail_before", call):
            return replies.refusal("internal_error")
        work = call.operation.read(call.body, self._profile)
        if self._faults.switches.database_down:
            return replies.refusal("internal_error", status=400)
        if self._faults.switches.lock_timeout:
            return replies.refusal(call.operation.trouble, status=400)
        receipt = work(self._books, self._asked(call))
        return await self._settled(call, receipt, fate)

    async def _kept_waiting(self, call: Call) -> tuple[Fate, bool]:
        """Latency, then any hang; what becomes of the call, and whether the chaos fails it."""
        mood = self._mood()
        hang = self._faults.take("hang", call.operation.name)
        extra = (hang.milliseconds or 0) / 1000 if hang else 0
        left = await call.line.wait(mood.latency_seconds + extra)
        fate = self._fate_of(call.line)
        if fate is Fate.STOPPED:
            raise Abandoned
        if left:
            await asyncio.sleep(left)
        if call.line.is_given_up:
            raise Abandoned
        return fate, mood.fails

    def _fate_of(self, line: Line) -> Fate:
        switches = self._faults.switches
        if self._closing:
            return Fate.STOPPED
        if not line.gone:
            return Fate.SERVED
        if self._chaos.befalls(switches.forget):
            return Fate.FORGOTTEN
        return Fate.STOPPED if switches.abandoned == "stopped" else Fate.FINISHED

    async def _settled(self, call: Call, receipt: Json, fate: Fate) -> Reply | None:
        """The work is committed; remember the key, unless this is a call to forget."""
        reply = replies.answer(receipt)
        await self._delayed_store(call.line)
        if self._struck("forget_after", call):
            call.line.drop()
            return None
        if not self._forgets(call, fate):
            self._remember(call, reply)
        return await self._answered(call, receipt, reply)

    async def _delayed_store(self, line: Line) -> None:
        if delay_ms := self._faults.switches.store_delay_ms:
            await asyncio.sleep(await line.wait(delay_ms / 1000))

    def _forgets(self, call: Call, fate: Fate) -> bool:
        hung_up_since = fate is Fate.SERVED and call.line.gone
        return fate is Fate.FORGOTTEN or (hung_up_since and self._faults.switches.forget > 0)

    def _remember(self, call: Call, reply: Reply) -> None:
        answer = Answer(status=reply.status, body=reply.body)
        self._remembered.remember(call.key, call.operation.path, answer, self.now())

    async def _answered(self, call: Call, receipt: Json, reply: Reply) -> Reply | None:
        """Done and remembered; what can still go wrong is only the answer."""
        if hang := self._faults.take("hang_after", call.operation.name):
            await call.line.wait((hang.milliseconds or 0) / 1000)
        if self._struck("drop_after", call):
            call.line.drop()
            return None
        if self._struck("fail_after", call):
            return replies.refusal("internal_error")
        if self._struck("garble", call):
            return replies.garbled(reply)
        if self._struck("mismatch", call):
            return replies.mismatched(receipt)
        if self._struck("wrong_currency", call):
            return replies.in_wrong_currency(receipt)
        return reply

    async def _found(self, operation: Operation, identifier: str, line: Line) -> Reply | None:
        mood = self._mood()
        await line.wait(mood.latency_seconds)
        if line.cut_off:
            return None
        if mood.fails:
            return replies.refusal("internal_error")
        if operation.find is None or self._faults.switches.database_down:
            return replies.refusal("not_found")
        try:
            return replies.answer(operation.find(self._books, identifier, self.now()))
        except Refused as refused:
            return replies.refusal(refused.code)

    def _mood(self) -> Mood:
        switches = self._faults.switches
        return self._chaos.mood(
            failure_rate=switches.failure_rate,
            min_latency_ms=switches.min_latency_ms,
            max_latency_ms=switches.max_latency_ms,
        )

    def _asked(self, call: Call) -> Asked:
        return Asked(
            now=self.now(),
            idempotency_key=call.key.text,
            auth_expiry_seconds=self._faults.switches.auth_expiry_seconds,
            settle_seconds=self._settle_seconds,
            pages_at=self._pages_at,
        )

    def now(self) -> float:
        """The bank's own time, in seconds since 1970."""
        return self._clock() + self._faults.switches.clock_offset_seconds

    def _struck(self, name: CountedName, call: Call) -> bool:
        return self._faults.take(name, call.operation.name) is not None

    @contextmanager
    def _counted_in(self, slot: tuple[str, str]) -> Iterator[None]:
        """Count calls of one key that are here at once, and forget the slot with its last call."""
        if self._in_flight[slot]:
            self.overlaps += 1
        self._in_flight[slot] += 1
        try:
            yield
        finally:
            self._in_flight[slot] -= 1
            if not self._in_flight[slot]:
                del self._in_flight[slot]
                self._queues.pop(slot, None)

    def _count(self, route: str, reply: Reply | None, line: Line) -> None:
        outcome = UNANSWERED if reply is None or line.cut_off else reply.outcome
        self.calls.setdefault(route, Counter())[outcome] += 1

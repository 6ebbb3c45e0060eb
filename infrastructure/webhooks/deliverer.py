"""A worker's part in webhooks: takes what is due, tells each receiver, and keeps what came of it.

One event loop, in a thread of its own. Bodies are made when they are sent, from the log and from what is
known of people then: so nothing that was erased is kept in a delivery, or told.
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from cachetools import LRUCache
from prometheus_client import Counter, Histogram

from domain.commands import Tenant
from domain.errors import StoreUnavailable
from domain.ids import Prefix, encode
from infrastructure.database import UNAVAILABLE
from infrastructure.vault import VaultKeyUnusable
from infrastructure.webhooks.endpoints import WebhookEndpoints
from infrastructure.webhooks.javascript import stringify
from infrastructure.webhooks.queue import (
    LEASE_SECONDS,
    Attempt,
    Attempted,
    DeliveryQueue,
    Due,
    PutBack,
    Tell,
)
from infrastructure.webhooks.rooms import FIRST_ROOM, Rooms
from infrastructure.webhooks.sender import TOTAL_SECONDS, Sender, a_sender
from infrastructure.webhooks.signatures import headers

POLL_SECONDS: Final = 0.05
TROUBLE_SECONDS: Final = 0.5
TAKEN_AT_ONCE: Final = 200
PRUNE_SECONDS: Final = 10.0
# What is under way when the worker is told to stop has so long; the rest is due again at once.
STOP_SECONDS: Final = 2.0
# The first pause, which doubles with each failure up to the longest; each is a fifth more or less.
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0
MOST_DOUBLINGS: Final = 13
JITTER: Final = 0.2
# Our fault, and tried again as soon.
UNREADABLE_PAUSE_SECONDS: Final = 60.0
REMEMBERED_SECRETS: Final = 10_000

log = structlog.get_logger(__name__)
ATTEMPTS: Final = Counter(
    "counterfoil_webhook_attempts_total", "Deliveries attempted.", ["outcome"]
)
SECONDS: Final = Histogram(
    "counterfoil_webhook_attempt_seconds",
    "Time of an attempt.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
LAG: Final = Histogram(
    "counterfoil_webhook_lag_seconds",
    "From an event until its first attempt begins.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 300.0),
)
DISABLED: Final = Counter(
    "counterfoil_webhook_endpoints_disabled_total", "Endpoints disabled for want of answers."
)

Outcome = Attempted | PutBack
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A delivery with all that it takes. `secrets`: the newest first."""

    due: Due
    body: bytes
    secrets: Sequence[str]


def pause_seconds(failures: int, chance: Callable[[float, float], float] = random.uniform) -> float:
    """Until a delivery that failed so often before, and now again, is next tried."""
    doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(failures, MOST_DOUBLINGS)
    return min(doubled, LONGEST_PAUSE_SECONDS) * chance(1 - JITTER, 1 + JITTER)


class Deliverer:
    """Any number of them may run, on any hosts. `limit`: deliveries a merchant may be sent in a minute,
    0 for any number; `pause`: seconds until the next attempt, by how many failed before."""

    def __init__(
        self,
        queue: DeliveryQueue,
        endpoints: WebhookEndpoints,
        tell: Tell,
        *,
        limit: int,
        sending: Callable[[], Any],
        pause: Callable[[int], float] = pause_seconds,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._queue, self._endpoints = queue, endpoints
        self._limit = limit
        self._tell, self._sending, self._pause = tell, sending, pause
        self._rooms = Rooms()
        self._spent_until: dict[str, float] = {}
        self._secrets: LRUCache[bytes, str] = LRUCache(REMEMBERED_SECRETS)
        self._tails: dict[tuple[UUID, int], asyncio.Task[None]] = {}
        self._outcomes: list[Outcome] = []
        self._store = ThreadPoolExecutor(2, thread_name_prefix="deliveries")

    def run(self, stopping: threading.Event) -> None:
        """Delivers until `stopping` is set. What ends the loop before that begins it anew."""
        with self._store:
            while not stopping.is_set():
                try:
                    asyncio.run(self._run(stopping.is_set))
                except Exception:
                    log.exception("deliveries stopped")
                    stopping.wait(TROUBLE_SECONDS)

    def run_once(self) -> int:
        """Takes what is due, once, attempts it, and keeps what came of it; how many there were."""
        return asyncio.run(self._once())

    async def _run(self, is_stopping: Callable[[], bool]) -> None:
        async with self._sending() as sender:
            ended = asyncio.Event()
            pruning = asyncio.create_task(self._prune_for_ever())
            recording = asyncio.create_task(self._record_until(ended.is_set))
            while not is_stopping():
                taken = await self._guarded(partial(self._begin, sender), 0)
                await asyncio.sleep(POLL_SECONDS / 5 if taken else POLL_SECONDS)
            await self._end()
            ended.set()
            pruning.cancel()
            await recording

    async def _once(self) -> int:
        async with self._sending() as sender:
            taken = await self._begin(sender)
            while self._tails:
                await asyncio.wait(self._tails.values())
            await self._record()
        return taken

    async def _end(self) -> None:
        """What is under way ends, or is ended."""
        under_way = list(self._tails.values())
        if under_way:
            _, still = await asyncio.wait(under_way, timeout=STOP_SECONDS)
            for task in still:
                task.cancel()
            await asyncio.gather(*still, return_exceptions=True)

    async def _guarded(self, work: Callable[[], Awaitable[Found]], otherwise: Found) -> Found:
        """The loop outlives whatever happens to one piece of its work."""
        try:
            return await work()
        except (*UNAVAILABLE, StoreUnavailable) as error:
            log.warning("the database is out of reach", error=type(error).__name__)
        except Exception:
            log.exception("deliveries failed")
        await asyncio.sleep(TROUBLE_SECONDS)
        return otherwise

    async def _in_store(self, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._store, work)

    # --- what is due ---

    async def _begin(self, sender: Sender) -> int:
        """Starts on what is due, as far as there is room; how much that was."""
        room = min(TAKEN_AT_ONCE, self._rooms.left)
        if room <= 0:
            return 0
        take = partial(
            self._queue.take_due,
            room,
            rooms=dict(self._rooms.by_endpoint()),
            room=FIRST_ROOM,
            spent=self._spent(),
        )
        # From before it is asked for, since nobody knows when a worker that is stopped goes on.
        lease_ends = self._monotonic() + LEASE_SECONDS - TOTAL_SECONDS
        taken = await self._in_store(take)
        if not taken:
            return 0
        try:
            ready, put_back = await self._in_store(partial(self._prepared, taken))
        except BaseException:
            self._outcomes += [PutBack(due=due, seconds=TROUBLE_SECONDS) for due in taken]
            raise
        self._outcomes += put_back
        for each in ready:
            self._start(sender, each, lease_ends)
        return len(taken)

    def _start(self, sender: Sender, ready: Ready, lease_ends: float) -> None:
        key = (ready.due.endpoint_id, ready.due.event["shard"])
        self._rooms.begun(ready.due.endpoint_id)
        work = self._deliver(sender, ready, self._tails.get(key), lease_ends)
        task = self._tails[key] = asyncio.create_task(work)
        task.add_done_callback(partial(self._forget, key))

    def _forget(self, key: tuple[UUID, int], task: asyncio.Task[None]) -> None:
        if self._tails.get(key) is task:
            del self._tails[key]

    def _spent(self) -> list[str]:
        now = time.monotonic()
        self._spent_until = {who: at for who, at in self._spent_until.items() if at > now}
        return list(self._spent_until)

    def _prepared(self, taken: Sequence[Due]) -> tuple[list[Ready], list[PutBack]]:
        """What can be sent now, and what is put back: that of endpoints that are no more, of merchants
        who were sent enough in this minute, and what cannot be read."""
        put_back = [PutBack(due=due, is_over=True) for due in taken if not due.is_enabled]
        put_back += self._over_limit([due for due in taken if due.is_enabled])
        others = {id(each.due) for each in put_back}
        wanted = [due for due in taken if id(due) not in others]
        told, signed_by = self._told(wanted), self._secrets_of(wanted)
        ready: list[Ready] = []
        for due in wanted:
            event, secrets = told.get(due.event["id"]), signed_by.get(due.endpoint_id)
            if event is None or not secrets:
                put_back.append(PutBack(due=due, seconds=UNREADABLE_PAUSE_SECONDS))
            else:
                ready.append(Ready(due=due, body=_text(event, due), secrets=secrets))
        return ready, put_back

    def _over_limit(self, wanted: Sequence[Due]) -> list[PutBack]:
        """Those that are too many for their merchants in this minute: due when it is over."""
        found: list[PutBack] = []
        if self._limit == 0:
            return found
        for merchant_id in {due.tenant.merchant_id for due in wanted}:
            theirs = [due for due in wanted if due.tenant.merchant_id == merchant_id]
            sent, seconds = self._queue.count(merchant_id, len(theirs))
            over = min(len(theirs), sent - self._limit)
            if over > 0:
                self._spent_until[merchant_id] = time.monotonic() + seconds
                found += [PutBack(due=due, seconds=seconds) for due in theirs[-over:]]
        return found

    def _told(self, taken: Sequence[Due]) -> dict[UUID, dict[str, Any]]:
        """The published events, each once; what cannot be told is not there."""
        found: dict[UUID, dict[str, Any]] = {}
        for tenant in {due.tenant for due in taken}:
            rows = {due.event["id"]: due.event for due in taken if due.tenant == tenant}
            try:
                told = self._tell(tenant, list(rows.values()))
            except (*UNAVAILABLE, StoreUnavailable):
                raise
            except Exception:  # noqa: BLE001 - it comes up again with the one that it is about
                told = [one for row in rows.values() for one in self._told_alone(tenant, row)]
            by_id = {encode(Prefix.EVENT, each): each for each in rows}
            found |= {by_id[event["id"]]: event for event in told}
        return found

    def _told_alone(self, tenant: Tenant, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return self._tell(tenant, [row])
        except (*UNAVAILABLE, StoreUnavailable):
            raise
        except Exception:
            log.exception("an event cannot be told", event_id=encode(Prefix.EVENT, row["id"]))
            return []

    def _secrets_of(self, taken: Sequence[Due]) -> dict[UUID, list[str]]:
        """What each endpoint signs with, the newest first; nothing where that cannot be read."""
        found: dict[UUID, list[str]] = {}
        sealed_of = self._endpoints.sealed_secrets({due.endpoint_id for due in taken})
        for endpoint_id, all_sealed in sealed_of.items():
            try:
                found[endpoint_id] = [self._unsealed(each, endpoint_id) for each in all_sealed]
            except VaultKeyUnusable as error:
                shown = encode(Prefix.WEBHOOK_ENDPOINT, endpoint_id)
                log.warning("a webhook secret is unreadable", endpoint_id=shown, error=str(error))
        return found

    def _unsealed(self, sealed: bytes, endpoint_id: UUID) -> str:
        if sealed not in self._secrets:
            self._secrets[sealed] = self._endpoints.unsealed(sealed, endpoint_id)
        return self._secrets[sealed]

    # --- one delivery ---

    async def _deliver(
        self, sender: Sender, ready: Ready, before: asyncio.Task[None] | None, lease_ends: float
    ) -> None:
        """After the one before it, which is of the same shard, so that what happened first is told
        first as long as nothing fails."""
        outcome: Outcome = PutBack(due=ready.due)
        try:
            if before is not None:
                await asyncio.wait([before])
            if self._monotonic() < lease_ends:
                outcome = await self._attempt(sender, ready)
        except Exception:
            # Ours, and not to be tried again and again at once.
            log.exception("a delivery failed", event_id=encode(Prefix.EVENT, ready.due.event["id"]))
            outcome = PutBack(due=ready.due, seconds=UNREADABLE_PAUSE_SECONDS)
        finally:
            is_ok = outcome.attempt.is_ok if isinstance(outcome, Attempted) else None
            self._rooms.ended(ready.due.endpoint_id, is_ok=is_ok)
            self._outcomes.append(outcome)

    async def _attempt(self, sender: Sender, ready: Ready) -> Attempted:
        due, at, began = ready.due, datetime.now(UTC), time.monotonic()
        if due.is_first:
            LAG.observe(max(0.0, (at - due.event["created_at"]).total_seconds()))
        event_id = encode(Prefix.EVENT, due.event["id"])
        signed = headers(
            ready.body,
            event_id=event_id,
            unix_seconds=int(at.timestamp()),
            secrets_of=ready.secrets,
        )
        assert due.url is not None, "an endpoint that is enabled is there"
        result = await sender.send(due.url, ready.body, signed)
        attempt = Attempt(
            at=at,
            seconds=time.monotonic() - began,
            status_code=result.status_code,
            error=result.error,
            answer=result.answer,
        )
        SECONDS.observe(attempt.seconds)
        ATTEMPTS.labels("succeeded" if attempt.is_ok else result.error or "refused").inc()
        return Attempted(due=due, attempt=attempt, pause_seconds=self._pause(due.failures))

    # --- what came of it ---

    async def _record_until(self, is_ended: Callable[[], bool]) -> None:
        while not is_ended():
            await asyncio.sleep(POLL_SECONDS / 2)
            await self._guarded(self._record, None)
        await self._guarded(self._record, None)

    async def _prune_for_ever(self) -> None:
        """A little at a time, so that nobody waits for it."""
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            await self._guarded(partial(self._in_store, self._queue.prune), 0)

    async def _record(self) -> None:
        """Keeps what there is to keep; what cannot be kept now is tried again."""
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes:
            return
        try:
            await self._in_store(partial(self._kept, outcomes))
        except BaseException:
            self._outcomes = outcomes + self._outcomes
            raise

    def _kept(self, outcomes: Sequence[Outcome]) -> None:
        done = [each for each in outcomes if isinstance(each, Attempted)]
        back = [each for each in outcomes if isinstance(each, PutBack)]
        if back:
            self._queue.put_back(back)
        for row in self._queue.record(done) if done else []:
            DISABLED.inc()
            log.warning(
                "webhook endpoint disabled: it answered nothing well for days",
                endpoint_id=encode(Prefix.WEBHOOK_ENDPOINT, row["id"]),
                merchant_id=row["merchant_id"],
            )


def _text(event: Mapping[str, Any], due: Due) -> bytes:
    """The body: in the words of the version that the endpoint was made with."""
    version = due.api_version or event["api_version"]
    return stringify({**event, "api_version": version}).encode()


def a_deliverer(
    queue: DeliveryQueue,
    endpoints: WebhookEndpoints,
    tell: Tell,
    *,
    limit: int,
    allows_local: bool,
) -> Deliverer:
    """One that sends over the network."""
    return Deliverer(
        queue,
        endpoints,
        tell,
        limit=limit,
        sending=partial(a_sender, allows_local=allows_local),
    )

"""All followers of one worker: a thread for each generation that follows the log, wherever the worker
is the first to lease it. Any number of workers may run; each generation has one runner among them.

What wakes the followers is a short look at the heads of the log, one for all of them: there is no
notification that could be lost, and without any they look themselves now and then. What is new is read
and decoded once; whoever stands elsewhere than the others, because it is new here or was held up, reads
for itself until it stands with them. Whatever the database does, it goes on when the database does; what
takes longer than a statement may, it takes in by smaller steps.

A generation is followed by the code that it was made by and by no other, so that while two versions of
this program run side by side, neither writes the other's rows.
"""

import threading
from collections.abc import Callable
from typing import Final, LiteralString
from uuid import UUID, uuid4

import psycopg
import structlog
from prometheus_client import Counter
from psycopg_pool import PoolTimeout

from infrastructure.database import UNAVAILABLE, Pool
from infrastructure.projections.batches import (
    BATCH_EVENTS,
    Positions,
    RecentBatches,
    as_one,
    heads_of_the_log,
    read_beyond,
)
from infrastructure.projections.follower import Follower, Overtaken
from infrastructure.projections.generations import Generation, all_generations
from projections.registry import is_inline

LEASE_SECONDS: Final = 5.0
RENEW_SECONDS: Final = 1.0
# How often it is looked whether the log went on, for all who are up with it.
POLL_SECONDS: Final = 0.02
# How often a follower that is up with the log looks for more, whatever it was told.
OWN_LOOK_SECONDS: Final = 0.5
# How often it is looked for new generations, and for those that nobody runs.
LOOK_SECONDS: Final = 1.0
TROUBLE_SECONDS: Final = 0.25
# By how much a step is made smaller when it failed, and larger again when it did not.
SMALLER: Final = 4
LARGER: Final = 2

LEASE: Final[LiteralString] = """
    UPDATE projection_generations
    SET owner = %(owner)s, owned_until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE name = %(name)s AND generation = %(generation)s AND code_version = %(code_version)s
      AND NOT paused
      AND status <> 'building' AND (slot = 'beside' OR NOT %(is_inline)s)
      AND (owner IS NULL OR owner = %(owner)s OR owned_until < clock_timestamp())
"""
GIVE_BACK: Final[LiteralString] = """
    UPDATE projection_generations SET owner = NULL, owned_until = NULL
    WHERE name = %(name)s AND generation = %(generation)s AND owner = %(owner)s
"""

log = structlog.get_logger(__name__)
APPLIED = Counter(
    "counterfoil_projection_events_total", "Events that read models have taken in.", ["name"]
)

Clock = Callable[[], float]


class ProjectionEngine:
    """Runs followers until it is told to stop."""

    def __init__(self, pool: Pool, monotonic: Clock) -> None:
        self._pool = pool
        self._monotonic = monotonic
        self._owner = uuid4()
        self._running: dict[tuple[str, int], threading.Thread] = {}
        self._following: set[tuple[str, int]] = set()  # the generations that are followed here
        self._recent = RecentBatches()
        self._went_on = threading.Condition()

    def run(self, stopping: threading.Event) -> None:
        """Looks for what there is to follow, and follows it. Returns once all followers have ended."""
        looking = threading.Thread(target=self._look, args=(stopping,), name="look at the log")
        looking.start()
        while not stopping.is_set():
            for generation in self._to_follow():
                self._start(generation, stopping)
            stopping.wait(LOOK_SECONDS)
        for thread in (looking, *self._running.values()):
            thread.join()

    def _look(self, stopping: threading.Event) -> None:
        """Wakes the followers whenever the log went on, and when they are to stop."""
        while not stopping.wait(POLL_SECONDS):
            try:
                self._look_once()
            except Exception as error:
                if not isinstance(error, psycopg.Error | PoolTimeout):  # the followers say so
                    log.exception("the log could not be looked at")
                # It is begun anew: what was too much once is so each time, and a database that is back
                # may be an older one.
                self._go_on_from(())
                stopping.wait(TROUBLE_SECONDS)
        with self._went_on:
            self._went_on.notify_all()

    def _look_once(self) -> None:
        if not self._following:
            self._go_on_from(())
            return
        with self._pool.connection() as connection:
            after = self._recent.heads
            if not after:
                self._go_on_from(heads_of_the_log(connection))
                return
            try:
                batch = read_beyond(connection, after)
            except UNAVAILABLE:
                # Perhaps there is too much of it, which followers take by smaller steps.
                self._go_on_from(heads_of_the_log(connection))
                return
        if batch is not None:
            with self._went_on:
                self._recent.add(batch)
                self._went_on.notify_all()

    def _go_on_from(self, heads: Positions) -> None:
        with self._went_on:
            self._recent.begin(heads)
            self._went_on.notify_all()

    def _to_follow(self) -> list[Generation]:
        try:
            with self._pool.connection() as connection:
                found = all_generations(connection)
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("the read models cannot be listed", error=type(error).__name__)
            return []
        return [each for each in found if each.follows and each.is_of_this_code]

    def _start(self, generation: Generation, stopping: threading.Event) -> None:
        key = (generation.name, generation.generation)
        if key in self._running and self._running[key].is_alive():
            return
        thread = threading.Thread(
            target=self._follow, args=(generation, stopping), name=f"follow {generation.name}"
        )
        self._running[key] = thread
        thread.start()

    def _follow(self, generation: Generation, stopping: threading.Event) -> None:
        """Until the lease is lost, the generation is paused or gone, or the worker stops."""
        try:
            self._steps(generation, stopping)
        except UNAVAILABLE as error:
            log.warning("a follower lost the database", error=type(error).__name__)
        except Exception:
            log.exception("a follower failed", name=generation.name)
        finally:
            self._following.discard((generation.name, generation.generation))
            self._give_back(generation)

    def _steps(self, generation: Generation, stopping: threading.Event) -> None:
        follower = Follower(generation)
        renew_at, most = 0.0, BATCH_EVENTS
        stands_at: Positions | None = None  # if it is known
        was_told = True
        while not stopping.is_set():
            try:
                if self._monotonic() >= renew_at:
                    if not self._lease(generation):
                        return
                    renew_at = self._monotonic() + RENEW_SECONDS
                stands_at = self._step(follower, stands_at, most, was_told=was_told)
            except Overtaken:
                stands_at = None
                stopping.wait(POLL_SECONDS)
                continue
            except UNAVAILABLE as error:
                # Perhaps it is the size of the step: it must fit in what a statement may take.
                log.warning("a step failed", name=generation.name, error=type(error).__name__)
                stands_at, most = None, max(1, most // SMALLER)
                stopping.wait(TROUBLE_SECONDS)
                continue
            most = min(BATCH_EVENTS, most * LARGER)
            if stands_at is not None:
                was_told = self._waits_until_told(stands_at, stopping)

    def _step(
        self, follower: Follower, stands_at: Positions | None, most: int, *, was_told: bool
    ) -> Positions | None:
        """Where the follower stands then, if that is known: at the end of the log, as it was seen last."""
        with self._went_on:
            heads = self._recent.heads
            batches = self._recent.since(stands_at, most) if stands_at and was_told else []
        with self._pool.connection() as connection:
            if batches:
                batch = as_one(batches)
                applied = follower.take(connection, batch)
                stands_at = batch.upto
            else:
                # No further than was seen, so as to stand with the others.
                applied = follower.step(connection, batch=most, heads=heads if was_told else None)
                stands_at = None if applied else heads
        APPLIED.labels(follower.name).inc(applied)
        return stands_at

    def _waits_until_told(self, position: Positions, stopping: threading.Event) -> bool:
        """That the log goes on, or to stop; not for longer than a follower trusts in being told."""
        with self._went_on:
            return self._went_on.wait_for(
                lambda: self._recent.heads != position or stopping.is_set(), OWN_LOOK_SECONDS
            )

    def _lease(self, generation: Generation) -> bool:
        with self._pool.connection() as connection:
            parameters = _identity(generation, self._owner) | {
                "code_version": generation.code_version,
                "is_inline": is_inline(generation.name),
                "seconds": LEASE_SECONDS,
            }
            is_ours = connection.execute(LEASE, parameters).rowcount == 1
        if is_ours:
            self._following.add((generation.name, generation.generation))
        return is_ours

    def _give_back(self, generation: Generation) -> None:
        try:
            with self._pool.connection() as connection:
                connection.execute(GIVE_BACK, _identity(generation, self._owner))
        except (psycopg.Error, PoolTimeout):
            pass  # the lease runs out by itself


def _identity(generation: Generation, owner: UUID) -> dict[str, object]:
    return {"name": generation.name, "generation": generation.generation, "owner": owner}

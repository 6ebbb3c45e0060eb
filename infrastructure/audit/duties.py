"""What workers do for the log as evidence: seal what is new, sign at times, tell places outside.

Each duty is a step that is taken again and again; whatever ends one is nothing to the next.
"""

from typing import Final

import structlog
from prometheus_client import Counter, Gauge
from psycopg import Connection
from psycopg.rows import DictRow

from domain.ports import Clock
from infrastructure.audit.checkpoints import Checkpoints, Signed, SigningRefused
from infrastructure.audit.sealer import (
    BATCH_EVENTS,
    LEASE_SECONDS,
    LogBroken,
    NotOurs,
    Sealer,
)
from infrastructure.audit.tree import TreeBroken
from infrastructure.checkpoint_keys import SigningKey, key_kept_in, signing_keys
from infrastructure.database import UNAVAILABLE, Pool
from infrastructure.settings import Settings

# How long a duty rests when there was nothing to do.
SEALING_PAUSE_SECONDS: Final = 0.5
PUSHING_PAUSE_SECONDS: Final = 1.0
# What is broken is said again so often.
REPEAT_SECONDS: Final = 60.0
RENEW_SECONDS: Final = LEASE_SECONDS / 4
SMALLER: Final = 4
LARGER: Final = 2
SMALLEST_BATCH: Final = 64

log = structlog.get_logger(__name__)
SEALED = Counter("counterfoil_audit_sealed_events_total", "Events sealed into the one order.")
SIGNED = Counter("counterfoil_audit_checkpoints_total", "Checkpoints signed.")
BROKEN = Counter(
    "counterfoil_audit_refusals_total",
    "Times that sealing or signing was refused since something is not what it was.",
)
SIZE = Gauge(
    "counterfoil_audit_signed_size",
    "Events under the last checkpoint that was signed.",
    multiprocess_mode="livemostrecent",
)


def keys_of(settings: Settings) -> tuple[SigningKey, ...]:
    """What checkpoints are signed with now. Raises SigningKeyUnusable."""
    return signing_keys(settings.checkpoint_key or key_kept_in(settings.data_dir))


class Sealing:
    """One worker's part in sealing and signing."""

    def __init__(self, pool: Pool, settings: Settings, clock: Clock) -> None:
        self._pool, self._settings, self._clock = pool, settings, clock
        self._sealer = Sealer()
        self._checkpoints = Checkpoints(settings.checkpoint_origin)
        self._batch = BATCH_EVENTS
        self._last_number: int | None = None
        self._renew_at = self._sign_at = self._silent_until = 0.0

    def step(self) -> bool:
        """Seals some, and signs where it is time; whether there may be more to seal at once."""
        if self._clock.monotonic() < self._silent_until:
            return False
        try:
            return self._step()
        except NotOurs:
            self._renew_at = 0.0
            return False
        except (LogBroken, TreeBroken, SigningRefused) as error:
            BROKEN.inc()
            self._silent_until = self._clock.monotonic() + REPEAT_SECONDS
            log.critical("the log or its tree is not what it was", error=str(error))
            return False

    def seal_and_sign(self) -> Signed:
        """All that is in the log now, whoever is at it. Raises LogBroken, TreeBroken, SigningRefused,
        NotOurs."""
        with self._pool.connection() as connection:
            self._sealer.lease(connection, by_force=True)
            while self._sealer.step(connection, batch=self._batch):
                self._sealer.lease(connection)
            found = self._checkpoints.sign(connection, self._sealer, keys_of(self._settings))
            self._sealer.give_back(connection)
        return found

    def end(self) -> None:
        """Leaves it to another worker at once."""
        with self._pool.connection() as connection:
            self._sealer.give_back(connection)

    def _step(self) -> bool:
        with self._pool.connection() as connection:
            if self._clock.monotonic() >= self._renew_at:
                if not self._sealer.lease(connection):
                    return False
                self._renew_at = self._clock.monotonic() + RENEW_SECONDS
            try:
                sealed = self._sealer.step(connection, batch=self._batch)
            except UNAVAILABLE:
                # Perhaps it is the size of the step: it must fit in what a statement may take.
                self._batch = max(SMALLEST_BATCH, self._batch // SMALLER)
                raise
            self._batch = min(BATCH_EVENTS, self._batch * LARGER)
            SEALED.inc(sealed)
            self._sign_if_due(connection)
        return sealed > 0

    def _sign_if_due(self, connection: Connection[DictRow]) -> None:
        every = self._settings.checkpoint_every_seconds
        if every == 0 or self._clock.monotonic() < self._sign_at:
            return
        self._sign_at = self._clock.monotonic() + every
        found = self._checkpoints.sign(connection, self._sealer, keys_of(self._settings))
        if found.number != self._last_number:
            SIGNED.inc()
            self._last_number = found.number
        SIZE.set(found.size)

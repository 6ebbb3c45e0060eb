"""The real clock and the real source of ids."""

import random
import secrets
import time
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from domain.ids import uuid7

CHANCE: Final = random.SystemRandom()


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()


class RandomIds:
    """UUIDs of version 7: milliseconds, then randomness from the operating system."""

    def new(self) -> UUID:
        """An id that was never seen before."""
        return uuid7(
            unix_milliseconds=time.time_ns() // 1_000_000, random_bits=secrets.randbits(74)
        )


def between(low_seconds: float, high_seconds: float) -> float:
    """Some time that is neither shorter nor longer, all of them as likely."""
    return CHANCE.uniform(low_seconds, high_seconds)

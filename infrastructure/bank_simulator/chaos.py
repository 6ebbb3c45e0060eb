"""The bank's moods: how long a call takes and whether it fails for no reason.

The draws come from one seeded source, so that a run with one caller can be had again.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Mood:
    """What befalls one call before it is handled."""

    latency_seconds: float
    fails: bool


class Chaos:
    def __init__(self, seed: int | None) -> None:
        # Not cryptography: bad luck that can be repeated.
        self._calls = random.Random(seed)  # noqa: S311
        self._abandoned = random.Random(seed)  # noqa: S311

    def mood(self, *, failure_rate: float, min_latency_ms: int, max_latency_ms: int) -> Mood:
        """Always two draws, so that a changed rate does not shift the latencies that follow."""
        latency, luck = self._calls.random(), self._calls.random()
        milliseconds = min_latency_ms + latency * (max_latency_ms - min_latency_ms)
        return Mood(latency_seconds=milliseconds / 1000, fails=luck < failure_rate)

    def befalls(self, rate: float) -> bool:
        """Whether something that happens to `rate` of the abandoned calls happens to this one."""
        return self._abandoned.random() < rate

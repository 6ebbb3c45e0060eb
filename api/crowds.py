"""How many requests of one key a process works on at once, so that a flood leaves room for others.

Reads and commands have places of their own: who reads without end can still pay, and a key that waits for
the bank as often as it may can still be read with. Off where rate limits are.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.errors import ApiError

# Of the threads of a process, and of those of them that may wait for the bank: together less than all.
SHARE_OF_READS: Final = 0.25
SHARE_OF_COMMANDS: Final = 0.7
RETRY_AFTER_SECONDS: Final = 1


class Crowd:
    """The requests of one kind that are being worked on, by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def one_more(self, key_id: str) -> Iterator[None]:
        """Room for one more request of the key. Raises ApiError where there is none."""
        with self._lock:
            if self._counts[key_id] >= self._most:
                raise _too_many_at_once(self._most)
            self._counts[key_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[key_id] -= 1
                if not self._counts[key_id]:
                    del self._counts[key_id]


def share(threads: int, part: float) -> int:
    """So many of the threads; one, at least."""
    return max(1, int(threads * part))


def _too_many_at_once(most: int) -> ApiError:
    return ApiError(
        status=429,
        type="rate_limit_error",
        code="too_many_requests",
        message=f"More than {most} requests of this key at once.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )

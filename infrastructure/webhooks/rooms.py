"""How many deliveries may be under way at each endpoint, so that none is in another's way.

Every endpoint begins with little room. What is answered well widens it, what is not halves it; and those
that answer nothing well share a part of all that there is, however many they are.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from cachetools import LRUCache

# Of all endpoints together: one that hangs costs a socket, and a worker that begins does not know yet which do.
# And of those of them that fail.
ROOM: Final = 2048
ROOM_FOR_FAILING: Final = 128
FIRST_ROOM: Final = 2
MOST_ROOM: Final = 64
REMEMBERED_ENDPOINTS: Final = 10_000
LATELY: Final = 256


class Rooms:
    """Of one worker. Nobody else knows it, and nothing is lost with it."""

    def __init__(self) -> None:
        self._under_way: Counter[UUID] = Counter()
        # None of those under way are forgotten: there are far fewer.
        self._allowed: LRUCache[UUID, int] = LRUCache(REMEMBERED_ENDPOINTS)
        self._lately: LRUCache[UUID, None] = LRUCache(LATELY)
        # In the order in which they failed last: whoever waited longest is next.
        self._failing: dict[UUID, None] = {}

    @property
    def left(self) -> int:
        """How many more may be begun."""
        return ROOM - self._under_way.total()

    def by_endpoint(self) -> Mapping[UUID, int]:
        """How many more may be begun at each; FIRST_ROOM at those that are not named. Those are all that
        are well and have had nothing lately, which are far too many to be named each time: the next look
        gives them all of theirs."""
        named = {*self._under_way, *self._failing, *self._lately}
        found = {each: self._room(each) for each in named}
        left = ROOM_FOR_FAILING - sum(self._under_way[each] for each in self._failing)
        for each in self._failing:
            found[each] = max(0, min(found[each], left))
            left -= found[each]
        return found

    def begun(self, endpoint: UUID) -> None:
        """One more is under way there."""
        self._under_way[endpoint] += 1

    def ended(self, endpoint: UUID, *, is_ok: bool | None) -> None:
        """One is not any more: it was answered well, or not; None: it was not attempted."""
        self._under_way[endpoint] -= 1
        if self._under_way[endpoint] <= 0:
            del self._under_way[endpoint]
        self._lately[endpoint] = None
        if is_ok is None:
            return
        allowed = self._allowed.get(endpoint, FIRST_ROOM)
        self._allowed[endpoint] = min(MOST_ROOM, allowed + 1) if is_ok else max(1, allowed // 2)
        self._failing.pop(endpoint, None)
        if self._allowed[endpoint] == 1 and not is_ok:
            self._failing[endpoint] = None
        while len(self._failing) > REMEMBERED_ENDPOINTS:
            self._failing.pop(next(iter(self._failing)))

    def _room(self, endpoint: UUID) -> int:
        return max(0, self._allowed.get(endpoint, FIRST_ROOM) - self._under_way[endpoint])

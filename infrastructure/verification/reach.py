"""How far a read model that follows the log has read one shard, and what it has set aside."""

from collections.abc import Sequence
from typing import Final, LiteralString
from uuid import UUID

from infrastructure.projections.generations import Generation
from infrastructure.verification.place import Place
from projections.changes import Change, ReadModel

READ_UPTO: Final[LiteralString] = """
    SELECT position FROM public.projection_positions
    WHERE name = %(name)s AND generation = %(generation)s AND shard = %(shard)s
"""
SET_ASIDE: Final[LiteralString] = """
    SELECT originator_id, applied_version FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s AND shard = %(shard)s
"""


class Reach:
    """Of the live generation, as of the place's snapshot."""

    def __init__(self, place: Place, model: ReadModel) -> None:
        kinds = model.aggregate
        self._kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        self._upto, self._aside = 0, dict[UUID, int]()
        self.is_of_this_code = place.has_rows_of_this_code(model.name)
        if self.is_of_this_code:
            self._look(place, place.live[model.name])

    def _look(self, place: Place, live: Generation) -> None:
        identity = {"name": live.name, "generation": live.generation, "shard": place.shard}
        row = place.connection.execute(READ_UPTO, identity).fetchone()
        self._upto = 0 if row is None else row[0]
        self._aside = dict(place.connection.execute(SET_ASIDE, identity).fetchall())

    def takes_in(self, change: Change) -> bool:
        """Whether the model is made of such, and its rows are those that this code makes."""
        topic: str = type(change.history[0]).TOPIC
        return self.is_of_this_code and topic.partition(".")[0] in self._kinds

    def as_read(self, change: Change, positions: Sequence[int]) -> Change | None:
        """The history as far as the model has it; None: nothing of it."""
        events = len(change.history)
        if positions[-1] > self._upto:
            events = sum(position <= self._upto for position in positions)
        if self._aside:
            events = min(events, self._aside.get(change.history[0].originator_id, events))
        if events == len(change.history):
            return change
        if events == 0:
            return None
        return Change(
            shard=change.shard,
            history=change.history[:events],
            new=events,
            origins=change.origins[:events],
        )

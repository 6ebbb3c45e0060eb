"""How far a read model that follows the log has read one shard, and what it has set aside."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from infrastructure.projections.generations import Slot, in_slot
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
    """Of the live generation, in the snapshot of `connection`."""

    def __init__(self, connection: Connection[Any], shard: int, model: ReadModel) -> None:
        kinds = model.aggregate
        self._kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        self._upto, self._aside = 0, dict[UUID, int]()
        with connection.cursor(row_factory=dict_row) as cursor:
            live = in_slot(cursor, model.name, Slot.LIVE)  # type: ignore[arg-type]
            self.is_of_this_code = live is not None and live.is_of_this_code
            if live is None:
                return
            identity = {"name": live.name, "generation": live.generation, "shard": shard}
            row = cursor.execute(READ_UPTO, identity).fetchone()
            self._upto = 0 if row is None else row["position"]
            aside = cursor.execute(SET_ASIDE, identity).fetchall()
            self._aside = {row["originator_id"]: row["applied_version"] for row in aside}

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

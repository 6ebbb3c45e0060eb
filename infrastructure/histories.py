"""Histories of aggregates of any kind, as they were when something else happened beside them."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection

from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.shards import shard_of

OF: Final[LiteralString] = """
    SELECT e.originator_id, e.originator_version, e.topic, e.state, e.position, e.chain_hash
    FROM unnest(%(shards)s::smallint[], %(ids)s::uuid[]) AS k (shard, id)
    JOIN events AS e ON e.shard = k.shard AND e.originator_id = k.id
    ORDER BY e.originator_id, e.originator_version
"""

_mapper: Final = FlatMapper(FlatJSON())


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An event where it is in its shard. `append_hash`: the same for what was recorded at once."""

    event: Any
    position: int
    append_hash: bytes


def histories(connection: Connection[Any], ids: Collection[UUID]) -> dict[UUID, list[Logged]]:
    """The events of each of these aggregates, from the first."""
    found: defaultdict[UUID, list[Logged]] = defaultdict(list)
    if not ids:
        return found
    parameters = {"shards": [shard_of(each) for each in ids], "ids": list(ids)}
    for row in connection.execute(OF, parameters).fetchall():
        event = _mapper.domain_event(
            row["originator_id"], row["originator_version"], row["topic"], bytes(row["state"])
        )
        found[row["originator_id"]].append(
            Logged(event=event, position=row["position"], append_hash=bytes(row["chain_hash"]))
        )
    return found


def as_of(history: Collection[Logged], moment: Logged) -> list[Any]:
    """The events up to one of the same shard, with those that were recorded at once with it."""
    return [
        each.event
        for each in takewhile(
            lambda each: each.position <= moment.position or each.append_hash == moment.append_hash,
            history,
        )
    ]

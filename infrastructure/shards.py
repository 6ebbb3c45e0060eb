"""Where things are: each aggregate in one of 64 shards, for the life of the store."""

from typing import Final
from uuid import UUID

SHARDS: Final = 64


def shard_of(aggregate_id: UUID) -> int:
    """The shard of an aggregate, by the last byte of its id, which is random in every version."""
    return aggregate_id.bytes[-1] % SHARDS

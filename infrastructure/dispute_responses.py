"""What the bank is to be told of disputes, until it has heard: who writes the table."""

from dataclasses import asdict
from typing import Final, LiteralString

from domain.records import RespondToDispute
from infrastructure.shards import shard_of
from infrastructure.statements import Part

RESPOND: Final[LiteralString] = """
    INSERT INTO dispute_responses (shard, dispute_id, kind, bank_dispute_id)
    VALUES (%(shard)s, %(dispute_id)s, %(kind)s, %(bank_dispute_id)s)
    ON CONFLICT (shard, dispute_id, kind) DO NOTHING
"""


def respond(record: RespondToDispute) -> Part:
    """Once, however often it is recorded."""
    written = {"shard": shard_of(record.dispute_id), **asdict(record)}
    return Part("dispute_response", RESPOND, written)

"""Who people are: kept apart from the log, so that it can be erased and history still verifies."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.commands import Tenant
from domain.records import ForgetPersonalData, KeepPersonalData
from infrastructure.shards import shard_of
from infrastructure.statements import Part

KEEP: Final[LiteralString] = """
    INSERT INTO personal_data (shard, owner, merchant_id, mode, document)
    VALUES (%(shard)s, %(owner)s, %(merchant_id)s, %(mode)s, %(document)s)
    ON CONFLICT (shard, owner) DO UPDATE SET document = excluded.document
"""
FORGET: Final[LiteralString] = """
    DELETE FROM personal_data WHERE shard = %(shard)s AND owner = %(owner)s
"""
OF: Final[LiteralString] = """
    SELECT p.owner, p.document FROM personal_data AS p
    JOIN unnest(%(shards)s::smallint[], %(owners)s::uuid[]) AS k (shard, owner)
      ON p.shard = k.shard AND p.owner = k.owner
"""
WITH_EMAIL: Final[LiteralString] = """
    SELECT owner FROM personal_data
    WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND document ->> 'email' = %(email)s
      AND document ->> 'email' IS NOT NULL
    ORDER BY owner DESC LIMIT 1000
"""


def keep(record: KeepPersonalData) -> Part:
    """All of it, in the place of what was there."""
    return Part(
        "personal",
        KEEP,
        {
            "shard": shard_of(record.owner),
            "owner": record.owner,
            "merchant_id": record.tenant.merchant_id,
            "mode": record.tenant.mode.value,
            "document": Jsonb(dict(record.document)),
        },
    )


def forget(record: ForgetPersonalData) -> Part:
    """All of it."""
    return Part("forgotten", FORGET, {"shard": shard_of(record.owner), "owner": record.owner})


def of(connection: Connection[Any], owners: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """What is known of each of them; nothing of those of whom nothing is."""
    if not owners:
        return {}
    rows = connection.execute(
        OF, {"shards": [shard_of(owner) for owner in owners], "owners": list(owners)}
    ).fetchall()
    return {row["owner"]: row["document"] for row in rows}


def with_email(connection: Connection[Any], tenant: Tenant, email: str) -> list[UUID]:
    """Whose email that is, the newest first, a thousand at most."""
    rows = connection.execute(
        WITH_EMAIL,
        {"merchant_id": tenant.merchant_id, "mode": tenant.mode.value, "email": email},
    ).fetchall()
    return [row["owner"] for row in rows]

"""Who people are: kept apart from the log, so that it can be erased and history still verifies."""

import json
from collections.abc import Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.commands import Tenant
from domain.records import EraseLater, ForgetPersonalData, KeepPersonalData
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
FORGET_ALL: Final[LiteralString] = """
    DELETE FROM personal_data AS p
    USING unnest(%(shards)s::smallint[], %(owners)s::uuid[]) AS k (shard, owner)
    WHERE p.shard = k.shard AND p.owner = k.owner
"""
ERASE_LATER: Final[LiteralString] = """
    INSERT INTO erasures (shard, customer_id, merchant_id, mode, due_at)
    VALUES (
        %(shard)s, %(customer_id)s, %(merchant_id)s, %(mode)s,
        clock_timestamp() + make_interval(secs => %(seconds)s)
    )
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

# What answers tell of people, by the names of fields; in things of these kinds, or in anything. The
# merchant's own notes are none of it.
ANYWHERE: Final = frozenset(
    {"account_holder_name", "address", "email", "phone", "receipt_email", "return_url", "shipping"}
)
OF_CUSTOMERS: Final = ANYWHERE | {"description", "name"}
OF_BILLING: Final = ANYWHERE | {"name"}
NOTES: Final = "metadata"
EVIDENCE: Final = "evidence"  # on a dispute: whatever is said there is about somebody


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


def erase_later(record: EraseLater) -> Part:
    """Has a worker come by."""
    return Part(
        "erasure",
        ERASE_LATER,
        {
            "shard": shard_of(record.customer_id),
            "customer_id": record.customer_id,
            "merchant_id": record.tenant.merchant_id,
            "mode": record.tenant.mode.value,
            "seconds": record.after_seconds,
        },
    )


def forget_all(connection: Connection[Any], owners: Sequence[UUID]) -> None:
    """All of it, of all of them."""
    parameters = {"shards": [shard_of(owner) for owner in owners], "owners": list(owners)}
    connection.execute(FORGET_ALL, parameters)


def redacted(body: bytes) -> bytes:
    """An answer without who people are: null in the place of each text. The same, where it told of
    none."""
    if not body:
        return body
    before = json.loads(body)
    after = _without_people(before, ANYWHERE)
    if after == before:
        return body
    return json.dumps(after, separators=(",", ":"), ensure_ascii=False).encode()


def _without_people(value: Any, personal: frozenset[str]) -> Any:
    match value:
        case list():
            return [_without_people(each, personal) for each in value]
        case dict():
            within = OF_CUSTOMERS if value.get("object") == "customer" else personal
            return {name: _redacted_field(name, each, within) for name, each in value.items()}
        case _:
            return value


def _redacted_field(name: str, value: Any, personal: frozenset[str]) -> Any:
    if name == NOTES:
        return value
    if name == EVIDENCE and isinstance(value, dict):
        return dict.fromkeys(value)
    if name in personal:
        return dict.fromkeys(value) if isinstance(value, dict) and name == "address" else None
    within = OF_BILLING if name == "billing_details" else ANYWHERE
    return _without_people(value, within)


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

"""Idempotency keys: claimed with the first events of a command, answered with its last.

There is no second store to disagree with the log, and nothing is claimed by what was refused. What is
answered at once is kept with the key, and what is answered later beside it, so that no row changes unless
somebody's data is erased.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from domain.commands import Tenant
from domain.errors import KeyAlreadyClaimed
from domain.records import AnswerKey, ClaimKey, StoredAnswer
from infrastructure.bank_calls import IS_PENDING
from infrastructure.database import Pool
from infrastructure.personal_data import redacted
from infrastructure.shards import shard_of
from infrastructure.statements import Part

KEPT_DAYS: Final = 30
# A header that is kept and never sent: the body beside it is encrypted, since it shows a secret.
SEALED: Final = "sealed"

CLAIM: Final[LiteralString] = """
    INSERT INTO idempotency_keys (
        merchant_id, mode, key, fingerprint, request_id, payment_id, claimed_at,
        status, headers, body, tells_of_people
    ) VALUES (
        %(merchant_id)s, %(mode)s, %(key)s, %(fingerprint)s, %(request_id)s, %(payment_id)s,
        clock_timestamp(), %(status)s, %(headers)s, %(body)s, %(tells_of_people)s
    )
"""
CLAIM_IF_FREE: Final[LiteralString] = CLAIM + " ON CONFLICT DO NOTHING"
ANSWER: Final[LiteralString] = """
    INSERT INTO idempotency_answers (
        request_id, merchant_id, mode, key, payment_id, status, headers, body, tells_of_people
    )
    SELECT request_id, merchant_id, mode, key, payment_id, %(status)s, %(headers)s, %(body)s,
           %(tells_of_people)s
    FROM idempotency_keys
    WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND key = %(key)s
    ON CONFLICT ON CONSTRAINT idempotency_answers_pkey DO UPDATE SET
        status = excluded.status, headers = excluded.headers, body = excluded.body,
        tells_of_people = excluded.tells_of_people
"""
FIND: Final[LiteralString] = """
    SELECT k.fingerprint, k.payment_id, coalesce(a.status, k.status) AS status,
           coalesce(a.headers, k.headers) AS headers, coalesce(a.body, k.body) AS body
    FROM idempotency_keys AS k
    LEFT JOIN idempotency_answers AS a USING (request_id, merchant_id, mode, key)
    WHERE k.merchant_id = %(merchant_id)s AND k.mode = %(mode)s AND k.key = %(key)s
"""
# Of what was answered at once, and of what was answered later.
THAT_TELL: Final[tuple[LiteralString, ...]] = (
    """
    SELECT request_id, merchant_id, mode, key, body FROM idempotency_keys
    WHERE tells_of_people AND payment_id = ANY(%(about)s) AND status IS NOT NULL
    """,
    """
    SELECT request_id, merchant_id, mode, key, body FROM idempotency_answers
    WHERE tells_of_people AND payment_id = ANY(%(about)s)
    """,
)
REDACT: Final[tuple[LiteralString, ...]] = (
    """
    UPDATE idempotency_keys SET body = %(body)s, tells_of_people = false
    WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s AND key = %(key)s
    """,
    """
    UPDATE idempotency_answers SET body = %(body)s, tells_of_people = false
    WHERE request_id = %(request_id)s
      AND merchant_id = %(merchant_id)s AND mode = %(mode)s AND key = %(key)s
    """,
)
PRUNE: Final[LiteralString] = """
    WITH old AS (
        SELECT request_id, merchant_id, mode, key FROM idempotency_keys AS k
        WHERE claimed_at < statement_timestamp() - make_interval(days => %(days)s)
          AND (status IS NOT NULL OR EXISTS (
              SELECT FROM idempotency_answers AS a
              WHERE (a.request_id, a.merchant_id, a.mode, a.key)
                  = (k.request_id, k.merchant_id, k.mode, k.key)
          ))
        ORDER BY claimed_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
    ), keys AS (
        DELETE FROM idempotency_keys AS k USING old
        WHERE (k.merchant_id, k.mode, k.key) = (old.merchant_id, old.mode, old.key)
    ), answers AS (
        DELETE FROM idempotency_answers AS a USING old
        WHERE (a.request_id, a.merchant_id, a.mode, a.key)
            = (old.request_id, old.merchant_id, old.mode, old.key)
    )
    SELECT count(*) AS count FROM old
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A key that was used before. `answer` is None while there is none; `pending`: and there will be
    none in time, since nobody is at it now."""

    fingerprint: bytes
    payment_id: UUID
    answer: StoredAnswer | None
    pending: bool


def claim(record: ClaimKey) -> Part:
    """Breaks `idempotency_keys_pkey` when the key was claimed."""
    return Part(
        "claim",
        CLAIM,
        {
            **_identity(record.claim.tenant, record.claim.key),
            "fingerprint": record.claim.fingerprint,
            "request_id": record.request_id,
            "payment_id": record.payment_id,
            **columns_of(record.answer),
        },
    )


def answer(record: AnswerKey) -> Part:
    """Keeps the answer, byte for byte."""
    return Part(
        "answer",
        ANSWER,
        {
            **_identity(record.tenant, record.key),
            **columns_of(record.answer),
        },
    )


def columns_of(answer: StoredAnswer | None) -> dict[str, Any]:
    """As it is kept, in the order of the columns."""
    if answer is None:
        return {"status": None, "headers": None, "body": None, "tells_of_people": False}
    return {
        "status": answer.status,
        "headers": Jsonb(dict(answer.headers)),
        "body": answer.body,
        "tells_of_people": SEALED not in dict(answer.headers)
        and redacted(answer.body) != answer.body,
    }


def redact(connection: Connection[Any], about: Sequence[UUID]) -> None:
    """Takes who people are out of what was answered about any of these. Keys stay claimed."""
    for that_tell, redact_one in zip(THAT_TELL, REDACT, strict=True):
        for row in connection.execute(that_tell, {"about": list(about)}).fetchall():
            connection.execute(redact_one, {**row, "body": redacted(bytes(row["body"]))})


class IdempotencyKeys:
    """What became of the keys."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        """The claim on `key`, or None where it is free."""
        with self._pool.connection() as connection:
            row = connection.execute(FIND, _identity(tenant, key)).fetchone()
            if row is None:
                return None
            call = None
            if row["status"] is None:
                identity = {"payment_id": row["payment_id"], "key": key}
                identity["shard"] = shard_of(row["payment_id"])
                call = connection.execute(IS_PENDING, identity).fetchone()
        return Claimed(
            fingerprint=row["fingerprint"],
            payment_id=row["payment_id"],
            answer=None if row["status"] is None else _answer(row),
            pending=call is not None and call["pending"],
        )

    def keep(self, record: ClaimKey) -> None:
        """Claims the key of what changed nothing, with its answer. Raises KeyAlreadyClaimed."""
        with self._pool.connection() as connection:
            if connection.execute(CLAIM_IF_FREE, claim(record).parameters).rowcount == 0:
                raise KeyAlreadyClaimed

    def prune(self, most: int) -> int:
        """Forgets answered keys that are older than KEPT_DAYS, with their answers, the oldest first; how
        many."""
        with self._pool.connection() as connection:
            row = connection.execute(PRUNE, {"days": KEPT_DAYS, "most": most}).fetchone()
        assert row is not None
        pruned: int = row["count"]
        return pruned


def _identity(tenant: Tenant, key: str) -> dict[str, Any]:
    return {"merchant_id": tenant.merchant_id, "mode": tenant.mode.value, "key": key}


def _answer(row: dict[str, Any]) -> StoredAnswer:
    headers = tuple(sorted(row["headers"].items()))
    return StoredAnswer(status=row["status"], headers=headers, body=bytes(row["body"]))

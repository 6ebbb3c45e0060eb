"""What the bank remembers of idempotency keys: the answers that it gave, for a day.

Kept apart from the books on purpose: an answer is remembered after, and not together with, the
work that it tells of, which is how the partner's service can succeed and forget.
"""

from dataclasses import dataclass

from infrastructure.bank_simulator.database import Database

KEPT_SECONDS = 24 * 3600
PRUNE_EVERY_SECONDS = 3600
LONGEST_KEY = 255

SCHEMA = """
CREATE TABLE IF NOT EXISTS remembered_answers (
    idempotency_key TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (idempotency_key, path)
) WITHOUT ROWID;
"""

# The first answer of a key stays its answer, until it is too old to count.
REMEMBER = """
INSERT INTO remembered_answers (idempotency_key, path, status, body, stored_at)
VALUES (:idempotency_key, :path, :status, :body, :now)
ON CONFLICT (idempotency_key, path) DO UPDATE
SET status = excluded.status, body = excluded.body, stored_at = excluded.stored_at
WHERE remembered_answers.stored_at <= :forgotten_before
"""

RECALL = """
SELECT status, body FROM remembered_answers
WHERE idempotency_key = :idempotency_key AND path = :path AND stored_at > :forgotten_before
"""

PRUNE = "DELETE FROM remembered_answers WHERE stored_at <= :forgotten_before"


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """An idempotency key as it arrived; one that is not `storable` works but is not remembered."""

    text: str
    storable: bool

    @classmethod
    def from_header(cls, raw: bytes) -> "Key":
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return cls(text=raw.decode(errors="backslashreplace"), storable=False)
        return cls(text=text, storable=len(text) <= LONGEST_KEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    body: bytes


class RememberedAnswers:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._pruned_at = float("-inf")
        database.create(SCHEMA)

    def recall(self, key: Key, path: str, now: float) -> Answer | None:
        if not key.storable:
            return None
        row = self._database.execute(
            RECALL,
            {
                "idempotency_key": key.text,
                "path": path,
                "forgotten_before": now - KEPT_SECONDS,
            },
        ).fetchone()
        return row and Answer(status=row["status"], body=row["body"])

    def remember(self, key: Key, path: str, answer: Answer, now: float) -> None:
        """A transaction of its own. Keys that cannot be stored are passed over in silence."""
        if not key.storable:
            return
        self._database.execute(
            REMEMBER,
            {
                "idempotency_key": key.text,
                "path": path,
                "status": answer.status,
                "body": answer.body,
                "now": now,
                "forgotten_before": now - KEPT_SECONDS,
            },
        )
        self._prune_hourly(now)

    def _prune_hourly(self, now: float) -> None:
        if now - self._pruned_at >= PRUNE_EVERY_SECONDS:
            self._database.execute(PRUNE, {"forgotten_before": now - KEPT_SECONDS})
            self._pruned_at = now

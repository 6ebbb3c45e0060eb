"""Disputes: a card's holder says that a payment was not right, and has the money back until the bank
has decided.

Whoever took the payment is not called: they read the notices, of which there is one for each change, in
order and without gaps, as often as they like. Nobody who says nothing in time is right.
"""

import sqlite3
from dataclasses import dataclass, fields

from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.refusals import Refused
from infrastructure.bank_simulator.stamps import new_id, timestamp

EVIDENCE_DUE_SECONDS = 9 * 24 * 3600.0
NOTICES_AT_ONCE = 100
OPEN = "needs_response"
UNDER_REVIEW = "under_review"
WON = "won"
LOST = "lost"
DECISIONS = (WON, LOST)
# What decides a dispute at once where it is said in the evidence, as it does at Stripe's test bank.
DECISIVE = {"winning_evidence": WON, "losing_evidence": LOST}
REASONS = frozenset(
    {
        "credit_not_processed",
        "duplicate",
        "fraudulent",
        "general",
        "product_not_received",
        "product_unacceptable",
        "subscription_canceled",
        "unrecognized",
    }
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS disputes (
    id TEXT PRIMARY KEY,
    capture_id TEXT NOT NULL,
    capture_key TEXT NOT NULL,
    card_number TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    status TEXT NOT NULL,
    opened_at REAL NOT NULL,
    due_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dispute_notices (
    position INTEGER PRIMARY KEY,
    dispute_id TEXT NOT NULL REFERENCES disputes,
    status TEXT NOT NULL,
    at REAL NOT NULL
);
"""
OPEN_ONE = """
INSERT INTO disputes
    (id, capture_id, capture_key, card_number, amount, currency, reason, status, opened_at, due_at)
VALUES
    (:id, :capture_id, :capture_key, :card_number, :amount, :currency, :reason, :status, :opened_at,
     :due_at)
"""
SET_STATUS = "UPDATE disputes SET status = :status WHERE id = :id"
NOTE = "INSERT INTO dispute_notices (dispute_id, status, at) VALUES (:id, :status, :at)"
BY_ID = "SELECT * FROM disputes WHERE id = :id"
ALL = "SELECT * FROM disputes ORDER BY opened_at, id"
OVERDUE = (
    "SELECT * FROM disputes WHERE status = 'needs_response' AND due_at <= :now ORDER BY due_at"
)
NOTICES = """
SELECT n.position, n.status AS status_then, n.at, d.* FROM dispute_notices AS n
JOIN disputes AS d ON d.id = n.dispute_id
WHERE n.position > :after ORDER BY n.position LIMIT :limit
"""
LATEST = "SELECT coalesce(max(position), 0) FROM dispute_notices"
WITHDRAWN = """
SELECT coalesce(sum(amount), 0) FROM disputes WHERE capture_id = :capture_id AND status <> 'won'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispute:
    """One dispute; `amount` in minor units, times in seconds since 1970. `capture_key`: the key that the
    capture was asked for under, by which whoever asked knows it."""

    id: str
    capture_id: str
    capture_key: str
    card_number: str
    amount: int
    currency: str
    reason: str
    status: str
    opened_at: float
    due_at: float

    def body(self) -> dict[str, object]:
        """As it is published."""
        return {
            "dispute_id": self.id,
            "capture_id": self.capture_id,
            "capture_key": self.capture_key,
            "amount": self.amount,
            "currency": self.currency,
            "reason": self.reason,
            "status": self.status,
            "evidence_due_by": timestamp(self.due_at),
            "created_at": timestamp(self.opened_at),
        }


FIELDS = tuple(field.name for field in fields(Dispute))


class Disputes:
    """The tables of disputes and of notices. Whoever changes them has a transaction open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def open(
        self,
        *,
        capture_id: str,
        capture_key: str,
        card_number: str,
        amount: int,
        currency: str,
        reason: str,
        now: float,
    ) -> Dispute:
        """A new one."""
        dispute = Dispute(
            id=new_id("dsp"),
            capture_id=capture_id,
            capture_key=capture_key,
            card_number=card_number,
            amount=amount,
            currency=currency,
            reason=reason,
            status=OPEN,
            opened_at=now,
            due_at=now + EVIDENCE_DUE_SECONDS,
        )
        self._database.execute(OPEN_ONE, {name: getattr(dispute, name) for name in FIELDS})
        self._note(dispute.id, OPEN, now)
        return dispute

    def move(self, dispute: Dispute, status: str, now: float) -> Dispute:
        """It stands otherwise now. Raises `Refused` once it is decided."""
        if dispute.status in DECISIONS:
            raise Refused("dispute_decided")
        self._database.execute(SET_STATUS, {"id": dispute.id, "status": status})
        self._note(dispute.id, status, now)
        return self.by_id(dispute.id)

    def by_id(self, identifier: str) -> Dispute:
        """Raises `Refused` with `dispute_not_found`."""
        row = self._database.execute(BY_ID, {"id": identifier}).fetchone()
        if row is None:
            raise Refused("dispute_not_found")
        return Dispute(**dict(row))

    def overdue(self, now: float) -> list[Dispute]:
        """On which nothing was said in time."""
        rows = self._database.execute(OVERDUE, {"now": now}).fetchall()
        return [Dispute(**dict(row)) for row in rows]

    def withdrawn(self, capture_id: str) -> int:
        """What of a capture the holder has back, in minor units."""
        (amount,) = self._database.execute(WITHDRAWN, {"capture_id": capture_id}).fetchone()
        return int(amount)

    def notices(self, after: int) -> dict[str, object]:
        """The next notices, and how many there are in all."""
        parameters = {"after": after, "limit": NOTICES_AT_ONCE}
        rows = self._database.execute(NOTICES, parameters).fetchall()
        (latest,) = self._database.execute(LATEST).fetchone()
        return {"notices": [_notice(row) for row in rows], "latest": latest}

    def statement(self) -> list[dict[str, object]]:
        """All of them, for an operator or a test."""
        return [Dispute(**dict(row)).body() for row in self._database.execute(ALL)]

    def _note(self, identifier: str, status: str, now: float) -> None:
        self._database.execute(NOTE, {"id": identifier, "status": status, "at": now})


def _notice(row: sqlite3.Row) -> dict[str, object]:
    """What is told of a change: the dispute as it stood then."""
    dispute = Dispute(**{name: row[name] for name in FIELDS})
    then = {"status": row["status_then"], "at": timestamp(row["at"])}
    return {"position": row["position"], **dispute.body(), **then}

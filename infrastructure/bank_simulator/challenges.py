"""Challenges: authorizations that wait until the card's holder approves them at a page of the bank's.

The money is held when the holder approves and not before. Whoever is not answered in time has not been
approved: a challenge that lapsed is refused from then on, whatever is posted to its page.
"""

import secrets
import sqlite3
from dataclasses import dataclass, fields

from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.requests import AuthorizationRequest
from infrastructure.bank_simulator.stamps import new_id, timestamp

LAPSES_SECONDS = 23 * 3600
PAGES = "/challenges"
APPROVED = "approved"
REFUSED = "authentication_required"
WITHDRAWN = "authorization_withdrawn"

SCHEMA = """
CREATE TABLE IF NOT EXISTS challenges (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    card_number TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    return_url TEXT,
    action_url TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    auth_expiry_seconds REAL NOT NULL,
    asked_at REAL NOT NULL,
    decision TEXT
) WITHOUT ROWID;
"""
ASK = """
INSERT INTO challenges
    (id, token, card_number, amount, currency, return_url, action_url, idempotency_key,
     auth_expiry_seconds, asked_at)
VALUES
    (:id, :token, :card_number, :amount, :currency, :return_url, :action_url, :idempotency_key,
     :auth_expiry_seconds, :asked_at)
"""
DECIDE = "UPDATE challenges SET decision = :decision WHERE id = :id AND decision IS NULL"
BY_ID = "SELECT * FROM challenges WHERE id = :id"
BY_TOKEN = "SELECT * FROM challenges WHERE token = :token"  # noqa: S105 - a statement
ALL = "SELECT * FROM challenges ORDER BY asked_at"


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """One question to a card's holder. `token`: what opens its page, which nobody can guess.

    `decision`: None while it is open, `approved`, or the code of the no, which may be the merchant's. Times in seconds since 1970.
    """

    id: str
    token: str
    card_number: str
    amount: int
    currency: str
    return_url: str | None
    action_url: str
    idempotency_key: str
    auth_expiry_seconds: float
    asked_at: float
    decision: str | None = None

    def outcome(self, now: float) -> str | None:
        """What was decided, or that it lapsed; None while it is open."""
        lapsed = now >= self.asked_at + LAPSES_SECONDS
        return REFUSED if self.decision is None and lapsed else self.decision

    def body(self, now: float) -> dict[str, object]:
        """The authorization that it is of, which is not approved; then the books have it."""
        outcome = self.outcome(now)
        terms: dict[str, object] = {
            "authorization_id": self.id,
            "status": "requires_action" if outcome is None else "declined",
            "amount": self.amount,
            "currency": self.currency,
        }
        if outcome is None:
            terms |= {
                "action_url": self.action_url,
                "action_expires_at": timestamp(self.asked_at + LAPSES_SECONDS),
            }
        else:
            terms["code"] = outcome
        return terms | {"created_at": timestamp(self.asked_at)}


FIELDS = tuple(field.name for field in fields(Challenge))


class Challenges:
    """The table of challenges. Whoever changes it has a transaction open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def ask(
        self,
        request: AuthorizationRequest,
        *,
        pages_at: str,
        idempotency_key: str,
        auth_expiry_seconds: float,
        now: float,
    ) -> Challenge:
        """A new one, with a page at the bank's own address `pages_at`."""
        token = secrets.token_urlsafe(24)
        challenge = Challenge(
            id=new_id("auth"),
            token=token,
            card_number=request.card_number,
            amount=request.amount,
            currency=request.currency,
            return_url=request.return_url,
            action_url=f"{pages_at}{PAGES}/{token}",
            idempotency_key=idempotency_key,
            auth_expiry_seconds=auth_expiry_seconds,
            asked_at=now,
        )
        self._database.execute(ASK, {name: getattr(challenge, name) for name in FIELDS})
        return challenge

    def decide(self, challenge: Challenge, decision: str) -> None:
        """For good; a second decision changes nothing."""
        self._database.execute(DECIDE, {"id": challenge.id, "decision": decision})

    def by_id(self, identifier: str) -> Challenge | None:
        return self._one(self._database.execute(BY_ID, {"id": identifier}))

    def by_token(self, token: str) -> Challenge | None:
        return self._one(self._database.execute(BY_TOKEN, {"token": token}))

    def statement(self, now: float) -> list[dict[str, object]]:
        """All of them, for an operator or a test: without what opens their pages."""
        rows = self._database.execute(ALL).fetchall()
        shown = [(Challenge(**dict(row)), row["idempotency_key"]) for row in rows]
        return [
            {
                "id": each.id,
                "amount": each.amount,
                "decision": each.outcome(now),
                "idempotency_key": key,
            }
            for each, key in shown
        ]

    def _one(self, found: sqlite3.Cursor) -> Challenge | None:
        row = found.fetchone()
        return Challenge(**dict(row)) if row else None

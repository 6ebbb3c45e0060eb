"""The bank's books: accounts, what was done to them, and the rules.

No HTTP and no clock of its own. `available_balance` is what a card can still spend: a hold lowers
it and a void gives it back; a capture lowers `balance`; a refund raises both. Rows of the journal
are never changed, so an authorization says `approved` for ever, whatever became of it.
"""

import sqlite3
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Literal, Self

from infrastructure.bank_simulator.challenges import (
    APPROVED,
    REFUSED,
    WITHDRAWN,
    Challenge,
    Challenges,
)
from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.disputes import (
    DECISIONS,
    DECISIVE,
    LOST,
    REASONS,
    UNDER_REVIEW,
    WON,
    Dispute,
    Disputes,
)
from infrastructure.bank_simulator.profiles import HAPPY_CARD, Card, Profile, TestCard
from infrastructure.bank_simulator.refusals import Refused
from infrastructure.bank_simulator.requests import (
    AccountRequest,
    AuthorizationRequest,
    CaptureRequest,
    DisputeRequest,
    EvidenceRequest,
    RefundRequest,
    TransferRequest,
    VoidRequest,
)
from infrastructure.bank_simulator.stamps import new_id, timestamp
from infrastructure.bank_simulator.transfers import Transfers

Kind = Literal["AUTH_HOLD", "CAPTURE", "VOID", "REFUND"]
Json = dict[str, object]

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    card_number TEXT PRIMARY KEY,
    cvv TEXT NOT NULL,
    expiry_month INTEGER NOT NULL,
    expiry_year INTEGER NOT NULL,
    deposited INTEGER NOT NULL,
    balance INTEGER NOT NULL,
    available_balance INTEGER NOT NULL CHECK (available_balance <= balance)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS transactions (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL CHECK (type IN ('AUTH_HOLD', 'CAPTURE', 'VOID', 'REFUND')),
    card_number TEXT NOT NULL REFERENCES accounts,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    status TEXT NOT NULL,
    reference_id TEXT,
    idempotency_key TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT
);
-- A hold ends once: by one capture or by one void.
CREATE UNIQUE INDEX IF NOT EXISTS a_hold_ends_once
ON transactions (reference_id) WHERE type IN ('CAPTURE', 'VOID');
CREATE INDEX IF NOT EXISTS refunds_of_a_capture
ON transactions (reference_id) WHERE type = 'REFUND';
"""

OPEN_ACCOUNT = """
INSERT INTO accounts
    (card_number, cvv, expiry_month, expiry_year, deposited, balance, available_balance)
VALUES (:card_number, :cvv, :expiry_month, :expiry_year, :balance, :balance, :balance)
ON CONFLICT DO NOTHING
"""
DEPOSIT = """
UPDATE accounts
SET deposited = deposited + :amount, balance = balance + :amount,
    available_balance = available_balance + :amount
WHERE card_number = :card_number
"""
MOVE = """
UPDATE accounts
SET balance = balance + :balance, available_balance = available_balance + :available
WHERE card_number = :card_number
"""
ACCOUNT = "SELECT * FROM accounts WHERE card_number = :card_number"
ACCOUNTS = "SELECT card_number, deposited, balance, available_balance FROM accounts"

RECORD = """
INSERT INTO transactions
    (id, type, card_number, amount, currency, status, reference_id, idempotency_key, created_at,
     expires_at)
VALUES
    (:id, :type, :card_number, :amount, :currency, :status, :reference_id, :idempotency_key,
     :created_at, :expires_at)
"""
ENTRY = """
SELECT id, type, card_number, amount, currency, status, reference_id, idempotency_key, created_at,
       expires_at
FROM transactions WHERE id = :id AND type = :type
"""
ENTRIES = """
SELECT id, type, amount, currency, status, reference_id, idempotency_key, created_at
FROM transactions ORDER BY position
"""
HOLD_ENDED = """
SELECT 1 FROM transactions WHERE reference_id = :id AND type IN ('CAPTURE', 'VOID')
"""
REFUNDED = """
SELECT coalesce(sum(amount), 0) FROM transactions WHERE reference_id = :id AND type = 'REFUND'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """When a request is handled, in seconds since 1970, and the key that it came with. `pages_at`: the
    bank's own address, for browsers."""

    now: float
    idempotency_key: str
    auth_expiry_seconds: float
    settle_seconds: float = 2.0
    pages_at: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the journal. `amount` in minor units; times are RFC 3339."""

    id: str
    type: Kind
    card_number: str
    amount: int
    currency: str
    status: str
    reference_id: str | None
    idempotency_key: str
    created_at: str
    expires_at: str | None = None

    def following(self, asked: Asked, *, prefix: str, kind: Kind, status: str, amount: int) -> Self:
        """The entry that captures, voids or refunds this one."""
        return replace(
            self,
            id=new_id(prefix),
            type=kind,
            status=status,
            amount=amount,
            reference_id=self.id,
            idempotency_key=asked.idempotency_key,
            created_at=timestamp(asked.now),
            expires_at=None,
        )


ENTRY_FIELDS = tuple(field.name for field in fields(Entry))


class Books:
    """Every public method that changes something is one transaction, refused or done whole."""

    def __init__(self, database: Database, profile: Profile) -> None:
        self._database = database
        self._profile = profile
        database.create(SCHEMA)
        self._challenges = Challenges(database)
        self._transfers = Transfers(database)
        self._disputes = Disputes(database)
        with database.transaction():
            for card in profile.cards:
                self._open_account(card)

    def authorize(self, request: AuthorizationRequest, asked: Asked) -> Json:
        """Hold `amount` cents. The first failing check refuses: number, CVV, expiry, funds. Where the
        card's holder has to approve, nothing is held yet."""
        with self._database.transaction():
            self._check_card(request, asked.now)
            if self._is_challenged(request.card_number):
                return self._challenge(request, asked)
            self._check_funds(request.card_number, request.amount)
            hold = Entry(
                id=new_id("auth"),
                type="AUTH_HOLD",
                card_number=request.card_number,
                amount=request.amount,
                currency=request.currency,
                status="approved",
                reference_id=None,
                idempotency_key=asked.idempotency_key,
                created_at=timestamp(asked.now),
                expires_at=timestamp(asked.now + asked.auth_expiry_seconds),
            )
            self._post(hold, available=-request.amount)
        return authorization_body(hold)

    def challenge(self, token: str) -> Challenge | None:
        """What the page with this token asks."""
        return self._challenges.by_token(token)

    def answer_challenge(self, token: str, *, approves: bool, now: float) -> None:
        """The holder approves or refuses, once: approved, the money is held if it is there."""
        with self._database.transaction():
            challenge = self._challenges.by_token(token)
            if challenge is not None and challenge.outcome(now) is None:
                decision = self._decision(challenge, now) if approves else REFUSED
                self._challenges.decide(challenge, decision)

    def capture(self, request: CaptureRequest, asked: Asked) -> Json:
        """Take the held money; what a partial capture leaves of the hold is released."""
        with self._database.transaction():
            hold = self._open_hold(request.authorization_id)
            _check_not_expired(hold, asked.now)
            self._check_capture_amount(request.amount, hold)
            capture = hold.following(
                asked, prefix="cap", kind="CAPTURE", status="captured", amount=request.amount
            )
            self._post(capture, balance=-request.amount, available=hold.amount - request.amount)
            self._dispute_if_told_to(capture, asked.now)
        return capture_body(capture)

    def void(self, request: VoidRequest, asked: Asked) -> Json:
        """Release the hold; an expired one too, for nothing else ever does. What waits for its holder
        is closed, and can be approved no more."""
        with self._database.transaction():
            challenge = self._challenges.by_id(request.authorization_id)
            if challenge is not None and challenge.decision != APPROVED:
                return self._withdrawn(challenge, asked)
            hold = self._open_hold(request.authorization_id)
            void = hold.following(
                asked, prefix="void", kind="VOID", status="voided", amount=hold.amount
            )
            self._post(void, available=hold.amount)
        return void_body(void)

    def refund(self, request: RefundRequest, asked: Asked) -> Json:
        """Give captured money back."""
        with self._database.transaction():
            capture = self._find(request.capture_id, "CAPTURE") or self._settled_transfer(
                request.capture_id, asked.now
            )
            if capture is None:
                raise Refused("capture_not_found")
            self._check_refund_amount(request.amount, capture)
            refund = capture.following(
                asked, prefix="ref", kind="REFUND", status="refunded", amount=request.amount
            )
            self._post(refund, balance=request.amount, available=request.amount)
        return refund_body(refund)

    def transfer(self, request: TransferRequest, asked: Asked) -> Json:
        """Ask another bank for money, which comes or does not after a while."""
        with self._database.transaction():
            transfer = self._transfers.ask(
                request,
                idempotency_key=asked.idempotency_key,
                settle_seconds=asked.settle_seconds,
                now=asked.now,
            )
        return transfer.body(asked.now)

    def dispute(self, request: DisputeRequest, now: float) -> Json:
        """A holder disputes a capture, or it is decided who is right. Raises `Refused`."""
        with self._database.transaction():
            if request.dispute_id:
                if request.decision not in DECISIONS:
                    raise Refused("invalid_reason")
                known = self._disputes.by_id(request.dispute_id)
                return self._decide(known, request.decision, now).body()
            capture = self._find(request.capture_id, "CAPTURE")
            if capture is None:
                raise Refused("capture_not_found")
            return self._open_dispute(capture, request.amount, request.reason, now).body()

    def hear_evidence(self, request: EvidenceRequest, asked: Asked) -> Json:
        """What whoever took the payment says; some words decide at once."""
        with self._database.transaction():
            dispute = self._disputes.by_id(request.dispute_id)
            decisive = [DECISIVE[word] for word in request.evidence.split() if word in DECISIVE]
            dispute = self._disputes.move(dispute, UNDER_REVIEW, asked.now)
            if decisive:
                dispute = self._decide(dispute, decisive[0], asked.now)
        return dispute.body()

    def give_up(self, request: EvidenceRequest, asked: Asked) -> Json:
        """Whoever took the payment has nothing to say."""
        with self._database.transaction():
            dispute = self._disputes.by_id(request.dispute_id)
            return self._decide(dispute, LOST, asked.now).body()

    def dispute_notices(self, after: str, now: float) -> Json:
        """The notices that follow the one at that position."""
        with self._database.transaction():
            for overdue in self._disputes.overdue(now):
                self._decide(overdue, LOST, now)
        return self._disputes.notices(_position(after))

    def transferred(self, transfer_id: str, now: float) -> Json:
        """As it is `now`. Raises `Refused` with `not_found`."""
        transfer = self._transfers.by_id(transfer_id)
        if transfer is None:
            raise Refused("not_found")
        return transfer.body(now)

    def authorization(self, authorization_id: str, now: float) -> Json:
        """As it was answered when it was made, or as its holder's answer left it `now`. Raises `Refused`
        with `not_found`."""
        challenge = self._challenges.by_id(authorization_id)
        if challenge is not None and challenge.outcome(now) != APPROVED:
            return challenge.body(now)
        return authorization_body(self._published(authorization_id, "AUTH_HOLD"))

    def captured(self, capture_id: str) -> Json:
        """As it was answered when it was made. Raises `Refused` with `not_found`."""
        return capture_body(self._published(capture_id, "CAPTURE"))

    def refunded(self, refund_id: str) -> Json:
        """As it was answered when it was made. Raises `Refused` with `not_found`."""
        return refund_body(self._published(refund_id, "REFUND"))

    def deposit(self, request: AccountRequest) -> Json:
        """Open an account with a balance, or add the balance to a known card's."""
        opened = Card(
            number=request.card_number,
            cvv=request.cvv,
            expiry_month=request.expiry_month,
            expiry_year=request.expiry_year,
            balance=0,
        )
        with self._database.transaction():
            self._open_account(opened)
            self._add_money(request.card_number, request.balance)
        return _account_body(self._existing(request.card_number))

    def fund_happy_card(self, cents: int) -> None:
        """Bring the happy-path card's deposits up to `cents`, so that a restart adds nothing."""
        with self._database.transaction():
            missing = cents - int(self._existing(HAPPY_CARD)["deposited"])
            if missing > 0:
                self._add_money(HAPPY_CARD, missing)

    def statement(self, now: float) -> Json:
        """Every account and every entry: what an operator or a test holds the bank to."""
        statement: Json = {
            "accounts": [_account_body(row) for row in self._database.execute(ACCOUNTS)],
            "transactions": [dict(row) for row in self._database.execute(ENTRIES)],
        }
        if self._profile.challenges:
            statement["challenges"] = self._challenges.statement(now)
        if self._profile.transfers:
            statement["transfers"] = self._transfers.statement(now)
        if self._profile.disputes:
            statement["disputes"] = self._disputes.statement()
        return statement

    def _dispute_if_told_to(self, capture: Entry, now: float) -> None:
        test_card = self._profile.test_cards.get(capture.card_number)
        if self._profile.disputes and test_card is not None and test_card.disputed is not None:
            self._open_dispute(capture, 0, test_card.disputed, now)

    def _open_dispute(self, capture: Entry, amount: int, reason: str, now: float) -> Dispute:
        """The holder has the money back meanwhile."""
        (refunded,) = self._database.execute(REFUNDED, {"id": capture.id}).fetchone()
        left = capture.amount - refunded - self._disputes.withdrawn(capture.id)
        if not 0 <= amount <= left or left == 0:
            raise Refused("nothing_to_dispute")
        if reason not in REASONS:
            raise Refused("invalid_reason")
        dispute = self._disputes.open(
            capture_id=capture.id,
            capture_key=capture.idempotency_key,
            card_number=capture.card_number,
            amount=amount or left,
            currency=capture.currency,
            reason=reason,
            now=now,
        )
        self._move(dispute.card_number, dispute.amount)
        return dispute

    def _decide(self, dispute: Dispute, decision: str, now: float) -> Dispute:
        decided = self._disputes.move(dispute, decision, now)
        if decision == WON:
            self._move(dispute.card_number, -dispute.amount)
        return decided

    def _move(self, card_number: str, amount: int) -> None:
        moved = {"card_number": card_number, "balance": amount, "available": amount}
        self._database.execute(MOVE, moved)

    def _check_card(self, request: AuthorizationRequest, now: float) -> None:
        account = self._account(request.card_number)
        if account is None:
            raise Refused("invalid_card")
        test_card = self._profile.test_cards.get(request.card_number)
        if test_card is None:
            _check_issued_card(account, request, now)
        else:
            _check_test_card(test_card, request, now)

    def _check_funds(self, card_number: str, amount: int) -> None:
        test_card = self._profile.test_cards.get(card_number)
        unlimited = test_card is not None and test_card.unlimited
        if not unlimited and self._existing(card_number)["available_balance"] < amount:
            raise Refused("insufficient_funds")

    def _is_challenged(self, card_number: str) -> bool:
        test_card = self._profile.test_cards.get(card_number)
        return self._profile.challenges and test_card is not None and test_card.challenged

    def _challenge(self, request: AuthorizationRequest, asked: Asked) -> Json:
        challenge = self._challenges.ask(
            request,
            pages_at=asked.pages_at,
            idempotency_key=asked.idempotency_key,
            auth_expiry_seconds=asked.auth_expiry_seconds,
            now=asked.now,
        )
        return challenge.body(asked.now)

    def _decision(self, challenge: Challenge, now: float) -> str:
        """What comes of an approval: a hold, or the code of a decline."""
        test_card = self._profile.test_cards.get(challenge.card_number)
        if test_card is not None and test_card.decline_after is not None:
            return test_card.decline_after
        try:
            self._check_funds(challenge.card_number, challenge.amount)
        except Refused as refused:
            return refused.code
        self._post(_approved(challenge, now), available=-challenge.amount)
        return APPROVED

    def _withdrawn(self, challenge: Challenge, asked: Asked) -> Json:
        if challenge.outcome(asked.now) is not None:
            raise Refused("authorization_already_used")
        self._challenges.decide(challenge, WITHDRAWN)
        return {
            "void_id": new_id("void"),
            "authorization_id": challenge.id,
            "status": "voided",
            "voided_at": timestamp(asked.now),
        }

    def _settled_transfer(self, transfer_id: str, now: float) -> Entry | None:
        """What came by a transfer, as if it had been captured from the account that it came from, of
        which this bank keeps no balance."""
        transfer = self._transfers.by_id(transfer_id)
        if transfer is None or transfer.status(now) != "settled":
            return None
        return Entry(
            id=transfer.id,
            type="CAPTURE",
            card_number=transfer.account_number,
            amount=transfer.amount,
            currency=transfer.currency,
            status="settled",
            reference_id=None,
            idempotency_key=transfer.idempotency_key,
            created_at=timestamp(transfer.settles_at),
        )

    def _open_hold(self, authorization_id: str) -> Entry:
        hold = self._find(authorization_id, "AUTH_HOLD")
        if hold is None:
            raise Refused("authorization_not_found")
        if self._database.execute(HOLD_ENDED, {"id": authorization_id}).fetchone():
            raise Refused("authorization_already_used")
        return hold

    def _check_capture_amount(self, amount: int, hold: Entry) -> None:
        if amount > hold.amount or (amount != hold.amount and not self._profile.partial):
            raise Refused("amount_mismatch")

    def _check_refund_amount(self, amount: int, capture: Entry) -> None:
        (refunded,) = self._database.execute(REFUNDED, {"id": capture.id}).fetchone()
        if refunded >= capture.amount:
            raise Refused("already_refunded")
        withdrawn = self._disputes.withdrawn(capture.id)
        if self._profile.partial and refunded + withdrawn + amount > capture.amount:
            raise Refused("refund_exceeds_capture")
        if not self._profile.partial and amount != capture.amount:
            raise Refused("amount_mismatch")

    def _published(self, identifier: str, kind: Kind) -> Entry:
        entry = self._find(identifier, kind)
        if entry is None:
            raise Refused("not_found")
        return entry

    def _find(self, identifier: str, kind: Kind) -> Entry | None:
        row = self._database.execute(ENTRY, {"id": identifier, "type": kind}).fetchone()
        return Entry(**dict(row)) if row else None

    def _post(self, entry: Entry, *, balance: int = 0, available: int = 0) -> None:
        """Write the entry and move the account by it."""
        self._database.execute(
            MOVE, {"card_number": entry.card_number, "balance": balance, "available": available}
        )
        self._database.execute(RECORD, {name: getattr(entry, name) for name in ENTRY_FIELDS})

    def _account(self, card_number: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._database.execute(
            ACCOUNT, {"card_number": card_number}
        ).fetchone()
        return row

    def _existing(self, card_number: str) -> sqlite3.Row:
        account = self._account(card_number)
        if account is None:
            raise LookupError(card_number)
        return account

    def _open_account(self, card: Card) -> None:
        self._database.execute(
            OPEN_ACCOUNT,
            {
                "card_number": card.number,
                "cvv": card.cvv,
                "expiry_month": card.expiry_month,
                "expiry_year": card.expiry_year,
                "balance": card.balance,
            },
        )

    def _add_money(self, card_number: str, amount: int) -> None:
        self._database.execute(DEPOSIT, {"card_number": card_number, "amount": amount})


def _approved(challenge: Challenge, now: float) -> Entry:
    """The hold that a challenge's approval makes, under the id that was given when it was asked."""
    return Entry(
        id=challenge.id,
        type="AUTH_HOLD",
        card_number=challenge.card_number,
        amount=challenge.amount,
        currency=challenge.currency,
        status="approved",
        reference_id=None,
        idempotency_key=challenge.idempotency_key,
        created_at=timestamp(now),
        expires_at=timestamp(now + challenge.auth_expiry_seconds),
    )


def _check_issued_card(account: sqlite3.Row, request: AuthorizationRequest, now: float) -> None:
    """The bank's own record decides; an absent CVV got past the bounds only where it may."""
    if request.cvv and account["cvv"] != request.cvv:
        raise Refused("invalid_cvv")
    if _is_past(account["expiry_month"], account["expiry_year"], now):
        raise Refused("card_expired")


def _check_test_card(card: TestCard, request: AuthorizationRequest, now: float) -> None:
    if card.decline is not None:
        raise Refused(card.decline)
    if card.cvv_fails and request.cvv:
        raise Refused("invalid_cvv")
    if request.expiry_year and _is_past(request.expiry_month, request.expiry_year, now):
        raise Refused("card_expired")


def _check_not_expired(hold: Entry, now: float) -> None:
    if hold.expires_at is not None and hold.expires_at <= timestamp(now):
        raise Refused("authorization_expired")


def _position(text: str) -> int:
    """Raises `Refused` with `not_found` for what is no position."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused("not_found")
    return int(text)


def _is_past(month: int, year: int, now: float) -> bool:
    """A card is good until the end of its month."""
    today = datetime.fromtimestamp(now, UTC)
    return (year, month) < (today.year, today.month)


def authorization_body(entry: Entry) -> Json:
    return {
        "authorization_id": entry.id,
        "status": entry.status,
        "amount": entry.amount,
        "currency": entry.currency,
        "expires_at": entry.expires_at,
        "created_at": entry.created_at,
    }


def capture_body(entry: Entry) -> Json:
    return {
        "capture_id": entry.id,
        "authorization_id": entry.reference_id,
        "status": entry.status,
        "amount": entry.amount,
        "currency": entry.currency,
        "captured_at": entry.created_at,
    }


def void_body(entry: Entry) -> Json:
    return {
        "void_id": entry.id,
        "authorization_id": entry.reference_id,
        "status": entry.status,
        "voided_at": entry.created_at,
    }


def refund_body(entry: Entry) -> Json:
    return {
        "refund_id": entry.id,
        "capture_id": entry.reference_id,
        "status": entry.status,
        "amount": entry.amount,
        "currency": entry.currency,
        "refunded_at": entry.created_at,
    }


def _account_body(account: sqlite3.Row) -> Json:
    shown = ("card_number", "deposited", "balance", "available_balance")
    return {name: account[name] for name in shown}

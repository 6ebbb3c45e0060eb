"""Bank transfers: money from an account at another bank, which takes a while and then comes or does not.

What became of one is a matter of its number and of the time: nothing has to run for it to be settled,
and a restart changes nothing. There is one transfer under a key, for ever: asked for again, whenever that
is, it is the same one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.requests import TransferRequest
from infrastructure.bank_simulator.stamps import new_id, timestamp

# Account numbers from which no transfer comes, and why. From every other one it does.
FAILING_ACCOUNTS: Mapping[str, str] = MappingProxyType(
    {"22222227": "insufficient_funds", "33333335": "debit_not_authorized"}
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    id TEXT PRIMARY KEY,
    account_number TEXT NOT NULL,
    sort_code TEXT NOT NULL,
    account_holder_name TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    asked_at REAL NOT NULL,
    settles_at REAL NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS one_transfer_under_a_key ON transfers (idempotency_key);
"""
ASK = """
INSERT INTO transfers
    (id, account_number, sort_code, account_holder_name, amount, currency, idempotency_key,
     asked_at, settles_at)
VALUES
    (:id, :account_number, :sort_code, :account_holder_name, :amount, :currency, :idempotency_key,
     :asked_at, :settles_at)
ON CONFLICT (idempotency_key) DO NOTHING
"""
BY_KEY = "SELECT * FROM transfers WHERE idempotency_key = :key"
BY_ID = "SELECT * FROM transfers WHERE id = :id"
ALL = "SELECT * FROM transfers ORDER BY asked_at"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One transfer; `amount` in minor units, times in seconds since 1970."""

    id: str
    account_number: str
    sort_code: str
    account_holder_name: str
    amount: int
    currency: str
    idempotency_key: str
    asked_at: float
    settles_at: float

    def status(self, now: float) -> str:
        if now < self.settles_at:
            return "pending"
        return "failed" if self.account_number in FAILING_ACCOUNTS else "settled"

    def body(self, now: float) -> dict[str, object]:
        """As it is published: without the account, which the caller knows."""
        status = self.status(now)
        terms: dict[str, object] = {
            "transfer_id": self.id,
            "status": status,
            "amount": self.amount,
            "currency": self.currency,
        }
        if status == "failed":
            terms["code"] = FAILING_ACCOUNTS[self.account_number]
        settled_at = timestamp(self.settles_at) if status == "settled" else None
        return terms | {"created_at": timestamp(self.asked_at), "settled_at": settled_at}


FIELDS = tuple(field.name for field in fields(Transfer))


class Transfers:
    """The table of transfers. Whoever changes it has a transaction open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    def ask(
        self, request: TransferRequest, *, idempotency_key: str, settle_seconds: float, now: float
    ) -> Transfer:
        """A new one, which is settled after `settle_seconds`; or the one that there is under the key."""
        transfer = Transfer(
            id=new_id("trf"),
            account_number=request.account_number,
            sort_code=request.sort_code,
            account_holder_name=request.account_holder_name,
            amount=request.amount,
            currency=request.currency,
            idempotency_key=idempotency_key,
            asked_at=now,
            settles_at=now + settle_seconds,
        )
        self._database.execute(ASK, {name: getattr(transfer, name) for name in FIELDS})
        row = self._database.execute(BY_KEY, {"key": idempotency_key}).fetchone()
        return Transfer(**dict(row))

    def by_id(self, identifier: str) -> Transfer | None:
        row = self._database.execute(BY_ID, {"id": identifier}).fetchone()
        return Transfer(**dict(row)) if row else None

    def statement(self, now: float) -> list[dict[str, object]]:
        """All of them, for an operator or a test."""
        every = [Transfer(**dict(row)) for row in self._database.execute(ALL)]
        return [each.body(now) | {"idempotency_key": each.idempotency_key} for each in every]

"""The bank, as the ledger sees it: a port, what it can do, and the only answers that it can give.

An answer is a value. Drivers translate whatever came over the wire into one of these, by the bank's
error code and never by its HTTP status alone.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from domain.accounts import BankAccount
from domain.cards import Card
from domain.money import Money


class Operation(StrEnum):
    """What the bank can be asked to do."""

    AUTHORIZATION = "authorization"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """Done. `replayed`: the bank answered from memory, so nothing was done twice."""

    bank_id: str
    expires_at: datetime | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequired:
    """Nothing is held yet: the shopper has to approve at `url`, a page of the bank's. `bank_id` is the
    authorization that waits for it, under which the bank says later what became of it.

    `replayed`: the bank answered from memory.
    """

    bank_id: str
    url: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """A transfer was begun, and another bank is at it. `bank_id`: under which the bank says later what
    became of it. `replayed`: the bank answered from memory."""

    bank_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """The bank said no, for good. `code` is the bank's own word."""

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyDone:
    """The bank says that it was done before, and has no remembered answer under our key.

    Ours, if an earlier attempt of the same operation may have reached it; else a disagreement.
    """

    code: str
    after_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The bank says that our request is malformed: our own fault, an alarm, nothing was done."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradicted:
    """The bank goes on answering what cannot be: another amount, or that it does not know its own
    id. Or it was asked so long ago that it would not know. Something for a person."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody answered, or nobody who can be believed.

    `unanswered`: a request went out and no answer of the bank's came that tells what became of it, so
    it may have been, or may still be being, carried out. False when every attempt was answered with a failure. `contradicts`: the answer
    cannot be right, which the bank's own trouble may explain for a while, and not for ever.
    `reached`: something went out at all.
    """

    reason: str
    unanswered: bool
    contradicts: bool = False
    reached: bool = True


Outcome = Approved | Declined | AlreadyDone | Rejected | Contradicted
Answer = Outcome | ActionRequired | UnderWay | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class BankCapabilities:
    """What the bank in use can do. `currencies` None: any. `three_d_secure`: it has shoppers approve
    some payments. `bank_transfers`: it takes money from accounts at other banks, once under a key, for ever.
    `disputes`: it tells of payments that cardholders dispute."""

    currencies: frozenset[str] | None
    partial_amounts: bool
    cvc_optional: bool
    three_d_secure: bool = False
    bank_transfers: bool = False
    disputes: bool = False

    def takes(self, currency: str) -> bool:
        """Whether it takes this currency."""
        return self.currencies is None or currency in self.currencies


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRequest:
    """One operation under a key that never changes for it.

    `bank_id`: the authorization to capture or void, or the capture to refund. To authorize: None, or
    the authorization that waits for its shopper; then nothing is done but to look what became of it.
    To transfer: the same, of a transfer that is under way.
    `card`: only to authorize, and `account`: only to transfer, and not to look. `return_url`: where a shopper who has to approve goes
    after that. `ask_first`: an earlier attempt went unanswered, so the bank is asked
    whether it remembers the key before the request is sent again.
    `ask_only`: so long ago that the bank may have forgotten the key, and would do again what it may
    have done: it is asked what it remembers, and nothing more.
    `seconds_left`: how long the caller can wait, attempts and pauses included.
    """

    operation: Operation
    key: str
    money: Money
    bank_id: str | None = None
    card: Card | None = None
    account: BankAccount | None = None
    return_url: str | None = None
    ask_first: bool = False
    ask_only: bool = False
    attempts_before: int = 0
    seconds_left: float


class Bank(Protocol):
    """Whoever moves the money."""

    @property
    def capabilities(self) -> BankCapabilities:
        """What it can do; asked before any effect."""

    def admits(self) -> bool:
        """Whether a new authorization may be begun now. No while the bank is down, but for a few, by
        which it is found to be back. Nothing else is ever held up."""

    def was_not_begun(self) -> None:
        """What `admits` let through was not begun after all, and will tell nothing of the bank."""

    def perform(self, request: BankRequest) -> Answer:
        """Carries out `request`, retrying what may be retried within its time. Never raises for what
        the bank or the network does."""

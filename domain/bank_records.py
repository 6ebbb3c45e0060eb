"""What the bank has on record: a port for looking, beside the port for doing.

The bank can be asked only about ids and keys that we know. Its record of a hold says `approved` for
ever, whatever became of it, and there is none of a void.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.bank import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class BankRecord:
    """What the bank did, as it has it. `about`: the hold that was captured or voided, or the capture
    that was refunded. Amount and currency are None for a void, of which the bank tells neither."""

    operation: Operation
    bank_id: str
    status: str
    amount_minor: int | None
    currency: str | None
    about: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NoRecord:
    """A bank that is well says that it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTold:
    """Nobody answered, or nobody who can be believed. `bank_is_well`: it says so of itself, so that
    the trouble is with this record."""

    reason: str
    bank_is_well: bool


Told = BankRecord | NoRecord | NotTold


class BankRecords(Protocol):
    """Whoever keeps the books of the money."""

    def is_well(self) -> bool:
        """Whether the bank says so of itself. Nothing that it says it lacks counts while it is not."""

    def look_up(self, operation: Operation, bank_id: str) -> Told:
        """The record of an authorization, a capture or a refund under the bank's id. NoRecord only
        where the bank said so more than once, and was well before and after."""

    def remembered(self, operation: Operation, key: str) -> Told:
        """What the bank did under our idempotency key, which it keeps for a day; asking does nothing.
        NoRecord is no proof: it may have done it and forgotten."""

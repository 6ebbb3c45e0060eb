"""What the ledger needs of the outside, besides the bank: a clock, ids, a vault, answers, leases."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from domain.accounts import Means
from domain.bank import ActionRequired, UnderWay, Unknown
from domain.records import BankCall, StoredAnswer

if TYPE_CHECKING:
    from domain.payment import Payment


class Clock(Protocol):
    """Time. The ledger reads no other clock."""

    def now(self) -> datetime:
        """The present, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""


class Ids(Protocol):
    """New identities."""

    def new(self) -> UUID:
        """A UUID of version 7, so that ids sort by time."""


class Vault(Protocol):
    """Keeps what is paid with, encrypted, for as long as the bank may have to be told of it."""

    def seal(self, means: Means, payment_id: UUID) -> bytes:
        """The card or the account, encrypted and bound to the payment."""

    def unseal(self, sealed: bytes, payment_id: UUID) -> Means:
        """The same again."""


class Answers(Protocol):
    """Writes the answer that a settled command gets, in the words of who asked."""

    def settled(self, history: Sequence["Payment.Event"], call: BankCall) -> StoredAnswer:
        """The final answer to the command whose outcome is the last of `history`."""


class BankCalls(Protocol):
    """The calls without an outcome, and who is at work on each."""

    def park(self, call: BankCall, answer: Unknown | ActionRequired | UnderWay) -> None:
        """Gives the call up for now, to be taken up again by a worker when it may be: soon, where a
        shopper or another bank is waited for.

        Raises LeaseLost when it was not ours any more.
        """

    def take_due(self, limit: int, lease_seconds: float) -> Sequence[BankCall]:
        """Leases up to `limit` calls whose time has come, to nobody else."""

    def unattended(self, payment_id: UUID) -> BankCall | None:
        """The payment's call as it stands, leased to nobody; None where somebody is at work on it,
        or where there is none. It can be ended as long as nobody takes it up."""

    def outstanding(self, payment_id: UUID) -> BankCall | None:
        """The payment's call as it stands, whoever is at work on it; None where there is none."""

"""Accounts at other banks: what may be known of one for ever (last four, sort code) and what may not.

A `BankAccount` holds the number and its holder's name, exists in memory only, and shows neither when
printed.
"""

from dataclasses import dataclass

from domain.cards import Card


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFace:
    """What may be shown of an account. `sort_code`: six digits."""

    last4: str
    sort_code: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BankAccount:
    """A whole account. `number`: eight digits; `sort_code`: six."""

    number: str
    sort_code: str
    holder_name: str

    def __repr__(self) -> str:
        return "BankAccount(…)"

    def face(self) -> AccountFace:
        """The part that may be kept."""
        return AccountFace(last4=self.number[-4:], sort_code=self.sort_code)


Means = Card | BankAccount
"""What is paid with, whole: encrypted wherever it is kept, and gone as soon as the bank has it."""

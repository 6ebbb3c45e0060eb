"""The postings as plain-text accounting: a journal that hledger reads, or one that beancount reads.

One transaction for each event that moves money, in exact amounts. At the end the balances are stated, so
that those programs say themselves if they come to others.
"""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import ClassVar, Final, TextIO

from domain.ids import Prefix, encode
from domain.money import in_major_units, minor_digits
from domain.payment import rfc3339
from infrastructure.export.selection import Posting

# On which side of the balance sheet an account is; those that are not named here are what is between us
# and others.
ASSETS: Final = frozenset({"held", "captured", "refunded", "disputed"})
NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9-]+")
TITLE: Final = "Counterfoil: what was held, captured and refunded"


class Journal(ABC):
    """One program's form, written into `out`."""

    file_name: ClassVar[str]

    @abstractmethod
    def __init__(self, out: TextIO) -> None: ...

    @abstractmethod
    def add(self, posting: Posting) -> None:
        """One more transaction."""

    @abstractmethod
    def end(self) -> None:
        """What comes after the last."""


class Books:
    """Who has what, while the journal is written: few accounts, however many transactions."""

    def __init__(self, separator: str, assets: str, others: str) -> None:
        self._separator, self._assets, self._others = separator, assets, others
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()
        self.sums: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.last: date | None = None

    def moved(self, posting: Posting) -> Iterator[tuple[str, str]]:
        """Accounts and amounts; what moves nothing is left out."""
        for account, amount in posting.amounts.items():
            if amount:
                name = self._account(account, posting.merchant_id, posting.mode)
                self.sums[name, posting.currency] += amount
                yield name, f"{in_major_units(amount, posting.currency)} {posting.currency}"
        day = posting.at.date()
        self.last = day if self.last is None else max(day, self.last)

    def balances(self) -> Iterator[tuple[str, str]]:
        """Accounts and what is in them."""
        for (name, currency), amount in sorted(self.sums.items()):
            yield name, f"{in_major_units(amount, currency)} {currency}"

    def _account(self, account: str, merchant: str, mode: str) -> str:
        side = self._assets if account in ASSETS else self._others
        parts = (side, self._part(account), self._part(merchant), self._part(mode))
        return self._separator.join(parts)

    def _part(self, text: str) -> str:
        """As both programs take it, and no two texts as the same."""
        if text not in self._names:
            plain = NOT_IN_NAMES.sub("-", text).strip("-") or "Unnamed"
            name = plain[0].upper() + plain[1:]
            number = 2
            while name.lower() in self._taken:
                name, number = f"{plain[0].upper()}{plain[1:]}-{number}", number + 1
            self._taken.add(name.lower())
            self._names[text] = name
        return self._names[text]


class HledgerJournal(Journal):
    """For hledger (and ledger)."""

    file_name = "journal.hledger"

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._books = Books(":", "assets", "equity")
        self._declared: set[str] = set()
        out.write(f"; {TITLE}\n\n")

    def add(self, posting: Posting) -> None:
        """One more transaction."""
        moved = list(self._books.moved(posting))
        self._declare(posting.currency, [name for name, _ in moved])
        at = rfc3339(posting.at)
        self._out.write(f"{posting.at.date()} * {_payee(posting)} | {posting.topic}")
        self._out.write(f"  ; version: {posting.version}, at: {at}\n")
        for name, amount in moved:
            self._out.write(f"    {name}  {amount}\n")
        self._out.write("\n")

    def end(self) -> None:
        """The balances, as assertions."""
        if self._books.last is None:
            return
        self._out.write(f"{self._books.last} * balances of all of these\n")
        for name, amount in self._books.balances():
            currency = amount.rpartition(" ")[2]
            self._out.write(f"    {name}  {in_major_units(0, currency)} {currency} = {amount}\n")

    def _declare(self, currency: str, names: list[str]) -> None:
        for what in [f"commodity {_example(currency)}", *(f"account {name}" for name in names)]:
            if what not in self._declared:
                self._declared.add(what)
                self._out.write(f"{what}\n")


class BeancountJournal(Journal):
    """For beancount."""

    file_name = "journal.beancount"

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._books = Books(":", "Assets", "Equity")
        self._opened: dict[str, date] = {}
        out.write(f'option "title" "{TITLE}"\n\n')

    def add(self, posting: Posting) -> None:
        """One more transaction."""
        moved = list(self._books.moved(posting))
        day = posting.at.date()
        for name, _ in moved:
            self._opened[name] = min(day, self._opened.get(name, day))
        self._out.write(f'{day} * "{_payee(posting)}" "{posting.topic}"\n')
        self._out.write(f"  version: {posting.version}\n")
        self._out.write(f'  at: "{rfc3339(posting.at)}"\n')
        for name, amount in moved:
            self._out.write(f"  {name}  {amount}\n")
        self._out.write("\n")

    def end(self) -> None:
        """The accounts, from their first days, and the balances, of the morning after the last."""
        for name, day in sorted(self._opened.items()):
            self._out.write(f"{day} open {name}\n")
        if self._books.last is None:
            return
        self._out.write("\n")
        for name, amount in self._books.balances():
            self._out.write(f"{self._books.last + timedelta(days=1)} balance {name}  {amount}\n")


JOURNALS: Final[Mapping[str, type[Journal]]] = {
    "hledger": HledgerJournal,
    "beancount": BeancountJournal,
}


def _payee(posting: Posting) -> str:
    return encode(Prefix.PAYMENT, posting.aggregate)


def _example(currency: str) -> str:
    """How amounts of it are written, for hledger, which wants a decimal mark even of those without."""
    return f"1000.{'0' * minor_digits(currency)} {currency}"

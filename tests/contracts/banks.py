"""The partner bank as the contract suite sees it: the fake, and the driver at the simulator and at
the bank of the simulated world.
"""

import threading
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from domain.bank import ActionRequired, Answer, BankCapabilities, BankRequest, Operation
from domain.bank import Bank as BankPort
from domain.bank_records import BankRecords
from infrastructure.bank.breaker import FAILURES_IN_A_ROW
from infrastructure.bank.client import BankClient
from infrastructure.bank.driver import BankDriver
from infrastructure.bank.records import BankRecordsOverHTTP, Pace
from infrastructure.clock import SystemClock
from tests.builders import (
    EMPTY_MASTERCARD,
    EXPIRED_MASTERCARD,
    FULL_AMOUNTS,
    SMALL_VISA,
    VISA,
    a_bank_request,
)
from tests.fakes import FakeBank, FakeRecords, Misfortune, SteppableClock
from tests.infrastructure.bank_simulator.a_bank import Bank as Simulator
from tests.simulation.bank import Exchange
from tests.simulation.checks import Checks
from tests.simulation.scheduler import sleeping_in
from tests.simulation.world import ScriptedWorld

DAY = 24 * 3600


class Partner(Protocol):
    """A bank whose luck and whose clock can be set, and whose books can be read."""

    @property
    def bank(self) -> BankPort: ...

    def will_suffer(self, operation: Operation, *misfortunes: Misfortune) -> None:
        """What befalls the next attempts of `operation`; all of one kind."""

    def days_pass(self, days: int) -> None:
        """The bank's calendar moves on."""

    def deposit(self, card_number: str, amount_minor: int) -> None:
        """Money comes in."""

    def goes_down(self) -> None:
        """It fails until that is known; after that it is well again, which is not."""

    def done_under(self, key: str) -> int:
        """How many holds, captures, voids or refunds there are under `key`."""


class RecordKeeper(Partner, Protocol):
    """A bank whose records can be asked for as well."""

    @property
    def records(self) -> BankRecords: ...

    def loses_its_database(self) -> None:
        """It says that it is not well."""


class ChallengingPartner(RecordKeeper, Protocol):
    """A bank of the extended kind, which has some shoppers approve."""

    def shopper_decides(self, asked: ActionRequired, *, approves: bool) -> None:
        """At the page that the shopper was sent to."""


class LittleBank:
    """The fake."""

    def __init__(self, capabilities: BankCapabilities = FULL_AMOUNTS) -> None:
        self._clock = SteppableClock()
        self._fake = FakeBank(self._clock, capabilities)
        self._records = FakeRecords(self._fake)

    @property
    def bank(self) -> BankPort:
        return self._fake

    @property
    def records(self) -> BankRecords:
        return self._records

    def loses_its_database(self) -> None:
        self._records.well = False

    def will_suffer(self, operation: Operation, *misfortunes: Misfortune) -> None:
        self._fake.will_suffer(*misfortunes)

    def days_pass(self, days: int) -> None:
        self._clock.advance(days * DAY)

    def deposit(self, card_number: str, amount_minor: int) -> None:
        self._fake.deposit(card_number, amount_minor)

    def goes_down(self) -> None:
        self._fake.goes_down()

    def done_under(self, key: str) -> int:
        return self._fake.done[key]

    def shopper_decides(self, asked: ActionRequired, *, approves: bool) -> None:
        self._fake.shopper_decides(asked.bank_id, approves=approves)


FAULTS = {
    Misfortune.FAILS: "fail_before",
    Misfortune.SILENT_BEFORE: "drop_before",
    Misfortune.SILENT_AFTER: "drop_after",
    Misfortune.FORGETS: "forget_after",
}


class SimulatedBank:
    """The driver, over HTTP, at the simulator."""

    def __init__(self, simulator: Simulator, profile: str = "ficmart") -> None:
        self._simulator = simulator
        self._simulator.faults(reset=True)
        client = BankClient(f"http://127.0.0.1:{simulator.port}", connections=2)
        pace = Pace(1000, SystemClock(), threading.Event().wait)
        self._records = BankRecordsOverHTTP(client, pace, timeout_seconds=5.0)
        self._driver = BankDriver(client, SystemClock(), profile=profile, timeout_seconds=5.0)

    @property
    def bank(self) -> BankPort:
        return self._driver

    @property
    def records(self) -> BankRecords:
        return self._records

    def loses_its_database(self) -> None:
        self._simulator.faults(database_down=True)

    def will_suffer(self, operation: Operation, *misfortunes: Misfortune) -> None:
        (kind,) = set(misfortunes)
        struck: dict[str, Any] = {"count": len(misfortunes), "operation": f"{operation}s"}
        self._simulator.faults(**{FAULTS[kind]: struck})

    def days_pass(self, days: int) -> None:
        self._simulator.faults(clock_offset_seconds=days * DAY)

    def deposit(self, card_number: str, amount_minor: int) -> None:
        account = {"card_number": card_number, "cvv": "789", "exp_month": 9, "exp_year": 2030}
        answer = self._simulator.request("POST", "/__accounts", account | {"balance": amount_minor})
        assert answer.status == 200, answer.text

    def goes_down(self) -> None:
        self._simulator.faults(failure_rate=1.0)
        # Too little time for a second attempt.
        request = a_bank_request(Operation.VOID, bank_id="auth_1", seconds_left=2.0)
        for _ in range(FAILURES_IN_A_ROW):
            self._driver.perform(request)
        self._simulator.faults(failure_rate=0.0)

    def done_under(self, key: str) -> int:
        return len(self._simulator.entries(key))

    def shopper_decides(self, asked: ActionRequired, *, approves: bool) -> None:
        page = urlsplit(asked.url)
        assert page.port == self._simulator.port
        form = b"decision=approve" if approves else b"decision=refuse"
        answer = self._simulator.request("POST", page.path, form)
        assert answer.status in {200, 303}, answer.text


SCRIPTED = {
    Misfortune.FAILS: "bank_fails",
    Misfortune.SILENT_BEFORE: "bank_hangs_up_before",
    Misfortune.SILENT_AFTER: "bank_hangs_up_after",
    Misfortune.FORGETS: "bank_forgets",
}


class Unwatched(Checks):
    """Of a world in which the bank is asked by a test, and no payment is behind it."""

    def asked(self, exchange: Exchange, others: Sequence[Exchange]) -> None:
        pass

    def booked(self, bank_key: str) -> None:
        pass


class BankOfTheSimulatedWorld:
    """The driver, in a process of the simulated world, at its bank."""

    def __init__(self) -> None:
        self._world = ScriptedWorld(1)
        self._world.checks = Unwatched(self._world)
        self._process = self._world.deployment.apis[0]
        books = self._world.bank.books
        books.issue(VISA, "123", 1_000_000)
        books.issue(SMALL_VISA, "456", 50_000)
        books.issue(EMPTY_MASTERCARD, "789", 0)
        books.issue(EXPIRED_MASTERCARD, "321", 500_000)
        books.accounts[EXPIRED_MASTERCARD].is_expired = True

    @property
    def bank(self) -> BankPort:
        return self

    @property
    def capabilities(self) -> BankCapabilities:
        return self._process.ledger.bank.capabilities

    def perform(self, request: BankRequest) -> Answer:
        """In a thread of the process, while the world goes on."""
        answers: list[Answer] = []
        bank = self._process.ledger.bank
        with sleeping_in(self._world.scheduler, 1):
            self._process.spawn(lambda: answers.append(bank.perform(request)))
            while not answers:
                self._world.scheduler.step()
        return answers[0]

    def will_suffer(self, operation: Operation, *misfortunes: Misfortune) -> None:
        for misfortune in misfortunes:
            self._world.ordered[SCRIPTED[misfortune]] += 1

    def days_pass(self, days: int) -> None:
        self._world.scheduler.skip(days * DAY)

    def deposit(self, card_number: str, amount_minor: int) -> None:
        self._world.bank.books.accounts[card_number].available_minor += amount_minor

    def admits(self) -> bool:
        return self._process.ledger.bank.admits()

    def was_not_begun(self) -> None:
        self._process.ledger.bank.was_not_begun()

    def goes_down(self) -> None:
        request = a_bank_request(Operation.VOID, bank_id="auth_1", seconds_left=2.0)
        for _ in range(FAILURES_IN_A_ROW):
            self._world.ordered["bank_fails"] += 1
            self.perform(request)

    def done_under(self, key: str) -> int:
        return self._world.bank.books.done[key]

    def close(self) -> None:
        self._world.scheduler.close()

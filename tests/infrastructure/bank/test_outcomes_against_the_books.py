"""Our ledger and our driver against the partner at its worst: whatever it does to an operation, the
payment ends as the bank's own books have it, or says that a person has to look.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from prometheus_client import REGISTRY

from domain.bank import Operation
from domain.ids import Prefix, encode
from domain.ledger import LEASE_SECONDS
from domain.payment import Payment, ReviewReason, Status
from domain.records import StoredAnswer
from infrastructure.bank.client import BankClient
from infrastructure.bank.driver import BankDriver
from infrastructure.clock import RandomIds, SystemClock
from tests.builders import (
    ANY_AMOUNT,
    FAR_DEADLINE,
    FULL_AMOUNTS,
    a_tenant,
    authorize,
    capture,
    make_payment,
    refund,
    void,
)
from tests.fakes import InMemoryLedger
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank

PATIENT_SECONDS = 5.0
TIMEOUT_SECONDS = 0.15  # of a bank that is late
TAKE_UPS = 15
DAY = 24 * 3600

Faults = dict[str, Any]
ON_A_CARD = [each for each in Operation if each is not Operation.TRANSFER]
TROUBLES: dict[str, Faults] = {
    "fails before": {"fail_before": 1},
    "fails after": {"fail_after": 1},
    "fails four times": {"fail_before": 4},
    "hangs up before": {"drop_before": 1},
    "hangs up after": {"drop_after": 1},
    "does and forgets": {"forget_after": 1},
    "half an answer": {"garble": 1},
    "another amount": {"mismatch": 1},
    "another amount for long": {"mismatch": 4},
    "another currency": {"wrong_currency": 1},
    "late, and stops": {"hang": {"count": 1, "milliseconds": 250}, "forget": 0.0},
    "late, and forgets": {"hang": {"count": 1, "milliseconds": 250}, "forget": 1.0},
    "late, and finishes": {
        "hang": {"count": 1, "milliseconds": 250},
        "abandoned": "finished",
        "forget": 0.0,
    },
    "done, and late": {"hang_after": {"count": 1, "milliseconds": 250}},
    "database down": {"database_down": True},
    "locked": {"lock_timeout": True},
}
LONGEST_AT_THE_BANK_SECONDS = 3.0
LASTING = {"database_down": False, "lock_timeout": False, "abandoned": "stopped", "forget": 0.0}


@pytest.fixture(scope="session")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("books") / "bank.db", *CALM, "--balance", "100000000")
    yield bank
    bank.kill()


@pytest.fixture(scope="session")
def extended_partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    options = (*CALM, "--profile", "extended", "--balance", "100000000")
    bank = Bank(tmp_path_factory.mktemp("books") / "extended.db", *options)
    yield bank
    bank.kill()


@dataclass
class World:
    """One payment, our ledger in memory, the real driver and the partner."""

    partner: Bank
    extended: bool = False

    def __post_init__(self) -> None:
        self.partner.faults(reset=True)
        profile = "extended" if self.extended else "ficmart"
        capabilities = ANY_AMOUNT if self.extended else FULL_AMOUNTS
        client = BankClient(f"http://127.0.0.1:{self.partner.port}", connections=2)
        self.ledger = InMemoryLedger(capabilities=capabilities)
        self.ledger.ids = RandomIds()
        self._patient, self._impatient = (
            BankDriver(client, SystemClock(), profile=profile, timeout_seconds=seconds)
            for seconds in (PATIENT_SECONDS, TIMEOUT_SECONDS)
        )
        self.ledger.bank = self._patient
        self._overlaps_before: int = self.partner.ledger()["overlaps"]
        self._ahead = asked_of_any_bank() - self._heard()

    @property
    def overlaps(self) -> int:
        """How often two calls of one key were at the bank at once."""
        return int(self.partner.ledger()["overlaps"]) - self._overlaps_before

    def _heard(self) -> int:
        calls = self.partner.ledger()["calls"]
        # What became of a transfer is asked as an operation is; of all else, reading is no attempt.
        asked = [
            calls[route] for route in calls if route.startswith("POST") or "transfers" in route
        ]
        return sum(int(times) for outcomes in asked for times in outcomes.values())

    def _quiet_time_passes(self) -> None:
        """Our clock does not wait for the bank, which has to be done with what it was asked; and what
        it has not heard by then was lost on the way."""
        give_up_at = time.monotonic() + LONGEST_AT_THE_BANK_SECONDS
        while asked_of_any_bank() - self._heard() != self._ahead:
            if time.monotonic() > give_up_at:
                self._ahead = asked_of_any_bank() - self._heard()

    def ready_for(self, operation: Operation) -> None:
        """Everything that comes before it, without any trouble."""
        if operation is not Operation.AUTHORIZATION:
            self.ask(Operation.AUTHORIZATION)
        if operation is Operation.REFUND:
            self.ask(Operation.CAPTURE)

    def ask(self, operation: Operation, **fields: Any) -> None:
        match operation:
            case Operation.AUTHORIZATION:
                reply = self.ledger.authorize(authorize())
                self.payment_id = reply.history[0].originator_id
            case Operation.CAPTURE:
                self.ledger.capture(capture(self.payment_id, **fields))
            case Operation.VOID:
                self.ledger.void(void(self.payment_id, **fields))
            case Operation.REFUND:
                self.ledger.refund(refund(self.payment_id, **fields))
            case Operation.TRANSFER:
                self.ledger.transfer(make_payment(**fields), self._asked_for)
                self.take_up()
        self._quiet_time_passes()

    def _asked_for(self, payment: Payment) -> StoredAnswer:
        self.payment_id = payment.id
        return StoredAnswer(status=201, body=b"")

    def suffers(self, trouble: str) -> None:
        self.ledger.bank = self._impatient if "late" in trouble else self._patient
        self.partner.faults(**(LASTING | TROUBLES[trouble]))

    def take_up(self) -> None:
        """What a worker does once a call is due."""
        self.ledger.steppable.advance(LEASE_SECONDS)
        for call in self.ledger.bank_calls.take_due(10, LEASE_SECONDS):
            self.ledger.resume(call, deadline=FAR_DEADLINE)
            self._quiet_time_passes()

    def comes_to_rest(self, **faults: Any) -> Payment:
        """The bank is well again, and workers have been at it until nothing is left to do."""
        self.ledger.bank = self._patient
        self.partner.faults(**LASTING, **dict.fromkeys(COUNTED), **faults)
        for day in range(2, TAKE_UPS):
            if not self.ledger.store.tables.calls:
                break
            self.take_up()
            if "clock_offset_seconds" in faults:  # the bank does what it does in time
                self.partner.faults(clock_offset_seconds=day * DAY)
        assert self.ledger.store.tables.calls == {}
        return self.payment

    @property
    def payment(self) -> Payment:
        return self.ledger.payment(self.payment_id, a_tenant())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        prefix = encode(Prefix.PAYMENT, self.payment_id)
        return [
            entry
            for entry in self.partner.ledger()["transactions"]
            if entry["type"] == kind and entry["idempotency_key"].startswith(prefix)
        ]


COUNTED = sorted({name for faults in TROUBLES.values() for name in faults if name not in LASTING})


def asked_of_any_bank() -> float:
    """How many requests this process has made of banks."""
    return sum(
        REGISTRY.get_sample_value("counterfoil_bank_attempts_total", {"operation": each}) or 0
        for each in Operation
    )


def assert_as_in_the_books(world: World) -> None:
    payment = world.payment
    holds, captures = world.entries("AUTH_HOLD"), world.entries("CAPTURE")
    voids, refunds = world.entries("VOID"), world.entries("REFUND")
    reviews = set(payment.reviews)

    # What moved, moved once; the bank is never asked twice at once.
    assert world.overlaps == 0
    assert len(captures) + len(voids) <= 1
    given_back = sum(entry["amount"] for entry in refunds)
    assert given_back <= sum(entry["amount"] for entry in captures)
    # Every hold that we do not know of is on the list.
    unexplained = {entry["id"] for entry in holds} - {payment.authorization_id}
    assert not unexplained or ReviewReason.POSSIBLE_ORPHAN_HOLD in reviews
    # What we say is so, unless we say that we do not know.
    if ReviewReason.BANK_DISAGREES in reviews:
        return
    assert payment.status == expected_status(holds, captures, voids, refunds, payment)
    assert payment.captured_minor == sum(entry["amount"] for entry in captures)
    if ReviewReason.REFUND_ID_UNKNOWN not in reviews:
        assert payment.refunded_minor == given_back
    if ReviewReason.CAPTURE_ID_UNKNOWN not in reviews:
        assert payment.capture_id in ({entry["id"] for entry in captures} or {None})


def expected_status(
    holds: list[Any], captures: list[Any], voids: list[Any], refunds: list[Any], payment: Payment
) -> Status:
    if payment.authorization_id is None:
        return Status.DECLINED
    if voids:
        return Status.VOIDED
    if not captures:
        return Status.AUTHORIZED
    whole = sum(entry["amount"] for entry in captures)
    back = sum(entry["amount"] for entry in refunds)
    return Status.REFUNDED if back == whole else Status.CAPTURED


@pytest.mark.parametrize(("operation", "trouble"), list(product(ON_A_CARD, TROUBLES)), ids=str)
def test_one_trouble(partner: Bank, operation: Operation, trouble: str) -> None:
    world = World(partner)
    world.ready_for(operation)
    world.suffers(trouble)

    world.ask(operation)
    world.comes_to_rest()

    assert_as_in_the_books(world)


SEED = 20261121
PAIRS = random.Random(SEED).sample(list(product(ON_A_CARD, TROUBLES, TROUBLES)), 60)


@pytest.mark.parametrize(("operation", "first", "then"), PAIRS, ids=str)
def test_one_trouble_after_another(
    partner: Bank, operation: Operation, first: str, then: str
) -> None:
    world = World(partner)
    world.ready_for(operation)
    world.suffers(first)
    world.ask(operation)

    world.suffers(then)
    world.take_up()
    world.comes_to_rest()

    assert_as_in_the_books(world)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_part_is_given_back_once_or_a_person_looks(extended_partner: Bank, trouble: str) -> None:
    world = World(extended_partner, extended=True)
    world.ready_for(Operation.REFUND)
    world.suffers(trouble)

    world.ask(Operation.REFUND, amount_minor=1000)
    payment = world.comes_to_rest()

    assert_as_in_the_books(world)
    if not payment.reviews:
        assert [entry["amount"] for entry in world.entries("REFUND")] == [1000]


# --- what ends well, and not only safely ---


@pytest.mark.parametrize(
    "trouble",
    [each for each in TROUBLES if "forgets" not in each and each != "locked"],
)
@pytest.mark.parametrize("operation", ON_A_CARD)
def test_what_the_bank_remembers_needs_no_person(
    partner: Bank, operation: Operation, trouble: str
) -> None:
    world = World(partner)
    world.ready_for(operation)
    world.suffers(trouble)

    world.ask(operation)
    payment = world.comes_to_rest()

    done = {
        Operation.AUTHORIZATION: Status.AUTHORIZED,
        Operation.CAPTURE: Status.CAPTURED,
        Operation.VOID: Status.VOIDED,
        Operation.REFUND: Status.REFUNDED,
    }
    harmless = {"hangs up before", "late, and stops"}  # nothing was done, which nobody can know
    if not (operation is Operation.AUTHORIZATION and trouble in harmless):
        assert payment.reviews == {}
    assert payment.status == done[operation]


def test_an_id_that_the_bank_remembers_is_not_given_up_for_a_moment_of_illness(
    partner: Bank,
) -> None:
    world = World(partner)
    world.ready_for(Operation.CAPTURE)
    world.suffers("hangs up after")
    world.ask(Operation.CAPTURE)

    for _ in range(3):
        world.suffers("database down")
        world.take_up()
    payment = world.comes_to_rest()

    assert payment.capture_id == world.entries("CAPTURE")[0]["id"]
    assert payment.reviews == {}


@pytest.mark.parametrize("operation", ON_A_CARD)
def test_a_key_that_the_bank_forgot_after_a_day_does_nothing_twice(
    partner: Bank, operation: Operation
) -> None:
    world = World(partner)
    world.ready_for(operation)
    world.suffers("hangs up after")
    world.ask(operation)

    partner.faults(clock_offset_seconds=2 * DAY)
    world.ledger.steppable.advance(2 * DAY)
    payment = world.comes_to_rest()

    assert len(world.entries("AUTH_HOLD")) == 1
    assert_as_in_the_books(world)
    if operation is Operation.AUTHORIZATION:
        assert payment.status == Status.DECLINED
        assert ReviewReason.POSSIBLE_ORPHAN_HOLD in payment.reviews


def test_a_part_whose_key_the_bank_forgot_is_not_given_back_twice(extended_partner: Bank) -> None:
    world = World(extended_partner, extended=True)
    world.ready_for(Operation.REFUND)
    world.suffers("hangs up after")
    world.ask(Operation.REFUND, amount_minor=1000)

    extended_partner.faults(clock_offset_seconds=2 * DAY)
    world.ledger.steppable.advance(2 * DAY)
    payment = world.comes_to_rest()

    assert [entry["amount"] for entry in world.entries("REFUND")] == [1000]
    assert ReviewReason.BANK_DISAGREES in payment.reviews


# --- money from another bank, which is asked for once, whatever happens ---


@pytest.mark.parametrize(
    ("first", "then"), [(each, each) for each in TROUBLES] + [(each, "locked") for each in TROUBLES]
)
def test_a_transfer_is_made_once_and_ends_as_in_the_books(
    extended_partner: Bank, first: str, then: str
) -> None:
    world = World(extended_partner, extended=True)
    world.suffers(first)
    world.ask(Operation.TRANSFER)
    world.suffers(then)
    world.take_up()

    payment = world.comes_to_rest(clock_offset_seconds=DAY)

    prefix = encode(Prefix.PAYMENT, payment.id)
    booked = [
        entry
        for entry in extended_partner.ledger()["transfers"]
        if entry["idempotency_key"].startswith(prefix)
    ]
    assert len(booked) <= 1
    assert world.overlaps == 0
    if payment.status is Status.CAPTURED:
        assert [entry["transfer_id"] for entry in booked] == [payment.capture_id]
        assert (payment.captured_minor, payment.reviews) == (5000, {})
    else:  # nobody was asked, or a person has to look
        assert payment.status is Status.DECLINED
        assert booked == [] or ReviewReason.BANK_DISAGREES in payment.reviews
    assert "locked" in (first, then) or payment.status is Status.CAPTURED


def test_a_transfer_whose_key_the_bank_forgot_after_a_day_is_not_made_twice(
    extended_partner: Bank,
) -> None:
    world = World(extended_partner, extended=True)
    world.suffers("hangs up after")
    world.ask(Operation.TRANSFER)

    world.ledger.steppable.advance(2 * DAY)
    payment = world.comes_to_rest(clock_offset_seconds=2 * DAY)

    assert (payment.status, payment.reviews) == (Status.CAPTURED, {})
    prefix = encode(Prefix.PAYMENT, payment.id)
    keys = [entry["idempotency_key"] for entry in extended_partner.ledger()["transfers"]]
    assert len([key for key in keys if key.startswith(prefix)]) == 1

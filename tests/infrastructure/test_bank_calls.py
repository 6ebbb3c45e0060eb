"""Who takes a call up when many would, on the real database."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, LiteralString
from uuid import UUID

import pytest

from domain.bank import Unknown
from domain.ledger import LEASE_SECONDS
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.database import Pool
from infrastructure.event_store import PostgresPaymentLedger
from tests.builders import authorize
from tests.fakes import FakeBank, PlainAnswers, PlainVault, SequentialIds, SteppableClock
from tests.patience import patient_pool

CALLS: Final = 60
WORKERS: Final = 8
SILENCE: Final = Unknown(reason="no answer", unanswered=True)
ALL_DUE: Final[LiteralString] = "UPDATE bank_calls SET due_at = clock_timestamp()"
HOLD_THE_OLDEST: Final[LiteralString] = """
    SELECT payment_id FROM bank_calls ORDER BY due_at LIMIT 1 FOR UPDATE
"""
IN_THE_ROW: Final[LiteralString] = "SELECT c::text AS row FROM bank_calls c"


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=WORKERS + 2) as pool:
        yield pool


def a_ledger(pool: Pool) -> PostgresPaymentLedger:
    clock = SteppableClock()
    return PostgresPaymentLedger(
        pool,
        bank=FakeBank(clock),
        bank_calls=PostgresBankCalls(pool),
        clock=clock,
        ids=SequentialIds(),
        vault=PlainVault(),
        answers=PlainAnswers(),
    )


def parked(pool: Pool, number: int) -> PostgresPaymentLedger:
    """So many calls that went unanswered, and are due."""
    ledger = a_ledger(pool)
    assert isinstance(ledger.bank, FakeBank)
    ledger.bank.will_answer(*[SILENCE] * number)
    for each in range(number):
        ledger.authorize(authorize(order_id=f"ORD-{each}"))
    with pool.connection() as connection:
        connection.execute(ALL_DUE)
    return ledger


def test_of_many_workers_each_call_is_taken_up_by_one(pool: Pool) -> None:
    calls = parked(pool, CALLS).bank_calls
    together = threading.Barrier(WORKERS)

    def work(_: int) -> list[UUID]:
        together.wait(10)
        taken: list[UUID] = []
        while some := calls.take_due(5, LEASE_SECONDS):
            taken += [call.payment_id for call in some]
        return taken

    with ThreadPoolExecutor(WORKERS) as threads:
        taken = Counter(each for some in threads.map(work, range(WORKERS)) for each in some)

    assert len(taken) == CALLS
    assert set(taken.values()) == {1}


def test_a_call_that_another_is_about_to_take_up_is_passed_over(pool: Pool) -> None:
    calls = parked(pool, 3).bank_calls
    with pool.connection() as connection, connection.transaction():
        held = connection.execute(HOLD_THE_OLDEST).fetchone()
        assert held is not None

        taken = {call.payment_id for call in calls.take_due(3, LEASE_SECONDS)}

    assert len(taken) == 2
    assert held["payment_id"] not in taken


def test_the_card_waits_with_the_call_and_goes_with_it(pool: Pool) -> None:
    ledger = parked(pool, 1)
    number = authorize().card.number.encode().hex()
    with pool.connection() as connection:
        waiting = connection.execute(IN_THE_ROW).fetchall()

    (call,) = ledger.bank_calls.take_due(1, LEASE_SECONDS)
    ledger.resume(call, deadline=1e9)

    with pool.connection() as connection:
        assert connection.execute(IN_THE_ROW).fetchall() == []
    assert number in waiting[0]["row"]

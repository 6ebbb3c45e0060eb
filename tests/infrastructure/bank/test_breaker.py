"""When nothing new is begun with the bank, and when it is again."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from prometheus_client import REGISTRY

from domain.bank import Approved, Operation, Unknown
from infrastructure.bank.breaker import (
    FAILURES_IN_A_ROW,
    PAUSE_SECONDS,
    PROBES,
    SUCCESSES_IN_A_ROW,
    Breaker,
)
from infrastructure.bank.client import BankClient
from infrastructure.bank.driver import BankDriver
from tests.builders import a_bank_request
from tests.fakes import SteppableClock
from tests.infrastructure.bank.a_bad_bank import (
    BadBank,
    hangs_up,
    is_silent,
    refuses,
    says,
)
from tests.infrastructure.bank.test_classify import APPROVALS, BANK_IDS

FAILS = refuses(500, "internal_error")
A_WELL_BANKS_FAILURE_RATE = 0.05
REQUESTS_A_SECOND = 300
YEAR = 365 * 24 * 3600


@pytest.fixture
def clock() -> SteppableClock:
    return SteppableClock()


@pytest.fixture
def breaker(clock: SteppableClock) -> Breaker:
    return Breaker(clock.monotonic)


@pytest.fixture
def bank() -> Iterator[BadBank]:
    with BadBank() as bank:
        yield bank


def opened(breaker: Breaker) -> Breaker:
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed()
    return breaker


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"counterfoil_{name}") or 0.0


# --- open ---


def test_failures_in_a_row_open_it_and_one_fewer_do_not(breaker: Breaker) -> None:
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed()
    before = (breaker.is_open, breaker.admits())
    breaker.failed()

    assert before == (False, True)
    assert (breaker.is_open, breaker.admits()) == (True, False)


def test_an_answer_in_between_keeps_it_closed(breaker: Breaker) -> None:
    for _ in range(5):
        for _ in range(FAILURES_IN_A_ROW - 1):
            breaker.failed()
        breaker.worked()

    assert breaker.admits()


def test_a_well_bank_opens_it_less_than_once_a_year() -> None:
    expected = A_WELL_BANKS_FAILURE_RATE**FAILURES_IN_A_ROW * REQUESTS_A_SECOND * YEAR

    assert expected < 1


# --- probes ---


def test_a_few_may_try_after_a_pause_and_a_few_more_after_the_next(
    breaker: Breaker, clock: SteppableClock
) -> None:
    opened(breaker)
    admitted = []
    for _ in range(4):
        admitted.append(sum(breaker.admits() for _ in range(PROBES + 5)))
        clock.advance(PAUSE_SECONDS)

    assert admitted == [0, PROBES, PROBES, PROBES]


def test_probes_that_come_to_nothing_do_not_use_it_up_for_ever(
    breaker: Breaker, clock: SteppableClock
) -> None:
    opened(breaker)
    for _ in range(10):
        clock.advance(PAUSE_SECONDS)
        while breaker.admits():
            pass  # refused for another reason, and never put to the bank

    clock.advance(PAUSE_SECONDS)

    assert breaker.admits()


def test_a_probe_that_was_not_begun_is_left_to_another(
    breaker: Breaker, clock: SteppableClock
) -> None:
    opened(breaker)
    breaker.give_back()
    in_the_pause = breaker.admits()
    clock.advance(PAUSE_SECONDS)
    for _ in range(PROBES + 5):
        assert breaker.admits()
        breaker.give_back()

    assert not in_the_pause
    assert sum(breaker.admits() for _ in range(PROBES + 5)) == PROBES


def test_of_many_threads_that_try_at_once_a_few_are_let_through(
    breaker: Breaker, clock: SteppableClock
) -> None:
    opened(breaker)
    clock.advance(PAUSE_SECONDS)
    together = threading.Barrier(32)

    def ask(_: int) -> bool:
        together.wait(10)
        return breaker.admits()

    with ThreadPoolExecutor(32) as threads:
        admitted = list(threads.map(ask, range(32)))

    assert sum(admitted) == PROBES


def test_threads_that_hear_of_failures_at_once_open_it_once(breaker: Breaker) -> None:
    before = metric("bank_breaker_opened_total")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: breaker.failed(), range(200)))

    assert breaker.is_open
    assert metric("bank_breaker_opened_total") - before == 1


# --- closed again ---


def test_answers_in_a_row_close_it_whoever_heard_them(breaker: Breaker) -> None:
    opened(breaker)
    heard = []
    for _ in range(SUCCESSES_IN_A_ROW):
        heard.append(breaker.is_open)
        breaker.worked()

    assert heard == [True] * SUCCESSES_IN_A_ROW
    assert breaker.admits()


def test_a_failure_among_the_answers_keeps_it_open(breaker: Breaker) -> None:
    opened(breaker)
    for _ in range(SUCCESSES_IN_A_ROW - 1):
        breaker.worked()
    breaker.failed()
    breaker.worked()

    assert breaker.is_open


def test_it_opens_again_when_the_bank_goes_down_again(breaker: Breaker) -> None:
    for _ in range(2):
        opened(breaker)
        assert not breaker.admits()
        for _ in range(SUCCESSES_IN_A_ROW):
            breaker.worked()
        assert breaker.admits()


def test_its_state_and_what_it_shed_are_told(breaker: Breaker) -> None:
    shed = metric("authorizations_shed_total")
    opened(breaker)
    breaker.admits()
    while_open = metric("bank_breaker_open")
    for _ in range(SUCCESSES_IN_A_ROW):
        breaker.worked()
    breaker.admits()

    assert (while_open, metric("bank_breaker_open")) == (1.0, 0.0)
    assert metric("authorizations_shed_total") - shed == 1


# --- what the driver hears ---


def a_driver(url: str, clock: SteppableClock, *, timeout_seconds: float = 2.0) -> BankDriver:
    client = BankClient(url, connections=1)
    return BankDriver(client, clock, profile="ficmart", timeout_seconds=timeout_seconds)


def performs(driver: BankDriver, operation: Operation, times: int) -> list[object]:
    request = a_bank_request(operation, bank_id=BANK_IDS.get(operation), seconds_left=2.4)
    return [driver.perform(request) for _ in range(times)]


TROUBLE = {
    "500": FAILS,
    "400 internal_error": refuses(400, "internal_error"),
    "silent": is_silent,
    "hangs up": hangs_up,
    "503 of a proxy": says(503, b"<html>"),
    "garbled": says(200, b"{"),
}


@pytest.mark.parametrize(("operation", "trouble"), list(product(Operation, TROUBLE)), ids=str)
def test_any_operation_finds_out_that_the_bank_is_down(
    bank: BadBank, clock: SteppableClock, operation: Operation, trouble: str
) -> None:
    driver = a_driver(bank.url, clock, timeout_seconds=0.1)
    bank.will(*[TROUBLE[trouble]] * FAILURES_IN_A_ROW)

    performs(driver, operation, FAILURES_IN_A_ROW)

    assert not driver.admits()


def test_a_bank_that_cannot_be_reached_is_down(clock: SteppableClock) -> None:
    with BadBank() as bank:
        url = bank.url
    driver = a_driver(url, clock)

    performs(driver, Operation.AUTHORIZATION, FAILURES_IN_A_ROW)

    assert not driver.admits()


def test_a_bank_that_says_that_it_is_not_well_is_down(bank: BadBank, clock: SteppableClock) -> None:
    driver = a_driver(bank.url, clock)
    bank.health_will(*[says(503, {"status": "unhealthy"})] * FAILURES_IN_A_ROW)

    for _ in range(FAILURES_IN_A_ROW):
        driver.is_healthy(seconds_left=1.0)

    assert not driver.admits()


@pytest.mark.parametrize(
    "word", ["insufficient_funds", "invalid_cvv", "card_expired", "invalid_amount"]
)
def test_a_no_is_an_answer(bank: BadBank, clock: SteppableClock, word: str) -> None:
    driver = a_driver(bank.url, clock)
    bank.will(*([FAILS] * (FAILURES_IN_A_ROW - 1) + [refuses(400, word)]) * 3)

    performs(driver, Operation.AUTHORIZATION, 3 * FAILURES_IN_A_ROW)

    assert driver.admits()


def test_what_a_bank_in_trouble_says_of_good_cards_is_no_proof_that_it_works(
    bank: BadBank, clock: SteppableClock
) -> None:
    driver = a_driver(bank.url, clock)
    bank.will(*[FAILS, refuses(400, "invalid_card")] * FAILURES_IN_A_ROW)

    performs(driver, Operation.AUTHORIZATION, 2 * FAILURES_IN_A_ROW)

    assert not driver.admits()


@pytest.mark.parametrize("operation", [Operation.CAPTURE, Operation.VOID, Operation.REFUND])
def test_what_was_begun_goes_out_while_it_is_open_and_closes_it(
    bank: BadBank, clock: SteppableClock, operation: Operation
) -> None:
    driver = a_driver(bank.url, clock)
    bank.will(*[FAILS] * FAILURES_IN_A_ROW)
    performs(driver, operation, FAILURES_IN_A_ROW)
    shut = not driver.admits()
    bank.will(*[says(200, APPROVALS[operation])] * SUCCESSES_IN_A_ROW)

    answers = performs(driver, operation, SUCCESSES_IN_A_ROW)

    assert shut
    assert all(isinstance(answer, Approved) for answer in answers)
    assert driver.admits()


def test_an_authorization_that_was_begun_goes_out_while_it_is_open(
    bank: BadBank, clock: SteppableClock
) -> None:
    driver = a_driver(bank.url, clock)
    bank.will(*[FAILS] * FAILURES_IN_A_ROW)

    answers = performs(driver, Operation.AUTHORIZATION, FAILURES_IN_A_ROW + 1)

    assert len(bank.posts) == FAILURES_IN_A_ROW + 1
    assert isinstance(answers[-1], Unknown)


def test_each_driver_has_a_breaker_of_its_own(bank: BadBank, clock: SteppableClock) -> None:
    down, well = a_driver(bank.url, clock), a_driver(bank.url, clock)
    bank.will(*[FAILS] * FAILURES_IN_A_ROW)

    performs(down, Operation.VOID, FAILURES_IN_A_ROW)

    assert (down.admits(), well.admits()) == (False, True)

"""What of a bank's records is believed, and how often it is asked."""

import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from domain.bank import Operation
from domain.bank_records import BankRecord, NoRecord, NotTold, Told
from infrastructure.bank.client import BankClient
from infrastructure.bank.records import TRIES, BankRecordsOverHTTP, Pace, Stopped
from infrastructure.clock import SystemClock
from tests.fakes import SteppableClock
from tests.infrastructure.bank.a_bad_bank import BadBank, hangs_up, is_silent, refuses, says

ID = "cap_5f0c2c55-4d0e-4b6e-9d9e-2f6a1c1d7e10"
CAPTURE = {
    "capture_id": ID,
    "authorization_id": "auth_1",
    "status": "captured",
    "amount": 5000,
    "currency": "USD",
    "captured_at": "2026-11-20T12:00:00Z",
}
RECORD = BankRecord(
    operation=Operation.CAPTURE,
    bank_id=ID,
    status="captured",
    amount_minor=5000,
    currency="USD",
    about="auth_1",
)
NOT_FOUND = refuses(404, "not_found")
FAILS = refuses(500, "internal_error")
UNWELL = says(503, {"status": "unhealthy"})
WELL = says(200, {"status": "healthy"})


@pytest.fixture
def bank() -> Iterator[BadBank]:
    with BadBank() as bank:
        yield bank


def records(
    url: str, pace: Pace | None = None, *, timeout_seconds: float = 5.0
) -> BankRecordsOverHTTP:
    client = BankClient(url, connections=1)
    pace = pace or Pace(10_000, SystemClock(), threading.Event().wait)
    return BankRecordsOverHTTP(client, pace, timeout_seconds=timeout_seconds)


def look_up(bank: BadBank) -> Told:
    return records(bank.url).look_up(Operation.CAPTURE, ID)


def remembered(bank: BadBank) -> Told:
    return records(bank.url).remembered(Operation.CAPTURE, "a-key")


def assert_not_told(told: Told, *, well: bool) -> None:
    assert isinstance(told, NotTold), told
    assert told.bank_is_well is well


def test_a_record_is_looked_up_by_its_id(bank: BadBank) -> None:
    bank.will(says(200, CAPTURE))

    assert look_up(bank) == RECORD
    (heard,) = bank.heard
    assert (heard.method, heard.path, heard.body) == ("GET", f"/api/v1/captures/{ID}", None)


def test_our_key_is_asked_for_without_a_body(bank: BadBank) -> None:
    bank.will(says(200, CAPTURE, X_Idempotent_Replayed="true"))

    assert remembered(bank) == RECORD
    (heard,) = bank.posts
    assert (heard.method, heard.path, heard.key) == ("POST", "/api/v1/captures", "a-key")
    assert heard.body == {}


@pytest.mark.parametrize("trouble", [FAILS, hangs_up, is_silent, says(200, b'{"capture_id": "ca')])
def test_a_bank_that_fails_by_chance_is_asked_again(bank: BadBank, trouble: object) -> None:
    bank.will(trouble, trouble, says(200, CAPTURE))  # type: ignore[arg-type]

    told = records(bank.url, timeout_seconds=0.5).look_up(Operation.CAPTURE, ID)

    assert told == RECORD


def test_a_bank_that_fails_for_good_is_asked_a_few_times(bank: BadBank) -> None:
    assert_not_told(look_up(bank), well=True)
    assert (
        len([each for each in bank.heard if each.method == "GET" and "cap_" in each.path]) == TRIES
    )


def test_what_is_not_found_is_missing_once_a_well_bank_has_said_so_again(bank: BadBank) -> None:
    bank.will(NOT_FOUND, NOT_FOUND, NOT_FOUND)

    assert look_up(bank) == NoRecord()
    looks = [each.path.rpartition("/")[2] for each in bank.heard]
    assert looks == [ID, "health", ID, "health", ID, "health"]


@pytest.mark.parametrize("well_before", [0, 1, 2])
def test_what_a_bank_that_is_not_well_does_not_find_is_not_missing(
    bank: BadBank, well_before: int
) -> None:
    bank.will(NOT_FOUND, NOT_FOUND, NOT_FOUND)
    bank.health_will(*[WELL] * well_before, UNWELL)

    assert_not_told(look_up(bank), well=False)


def test_what_is_found_after_all_is_on_record(bank: BadBank) -> None:
    bank.will(NOT_FOUND, NOT_FOUND, says(200, CAPTURE))

    assert look_up(bank) == RECORD


def test_a_404_that_is_not_the_banks_word_is_no_record_and_no_lack_of_one(bank: BadBank) -> None:
    bank.will(*[says(404, b"404 page not found")] * TRIES)

    assert_not_told(look_up(bank), well=True)


@pytest.mark.parametrize(
    "broken",
    [
        {"amount": "5000"},
        {"amount": 5000.0},
        {"amount": True},
        {"amount": None},
        {"currency": 840},
        {"status": "x" * 65},
        {"status": "<b>"},
        {"capture_id": ""},
        {"authorization_id": None},
    ],
)
def test_a_record_that_is_not_clear_is_not_believed(
    bank: BadBank, broken: dict[str, object]
) -> None:
    bank.will(*[says(200, CAPTURE | broken)] * TRIES)

    assert_not_told(look_up(bank), well=True)


@pytest.mark.parametrize(
    "answer", [refuses(400, "authorization_not_found"), says(400, b"invalid"), FAILS]
)
def test_a_key_that_is_not_known_to_a_well_bank_is_not_remembered(
    bank: BadBank, answer: object
) -> None:
    bank.will(answer)  # type: ignore[arg-type]

    assert remembered(bank) == NoRecord()


@pytest.mark.parametrize("well_before", [0, 1])
def test_what_a_bank_that_is_not_well_does_not_remember_is_not_told(
    bank: BadBank, well_before: int
) -> None:
    bank.will(refuses(400, "authorization_not_found"))
    bank.health_will(*[WELL] * well_before, UNWELL)

    assert_not_told(remembered(bank), well=False)


def test_a_bank_that_is_not_there_is_not_well() -> None:
    told = records("http://127.0.0.1:9").look_up(Operation.CAPTURE, ID)

    assert_not_told(told, well=False)


def test_the_pace_is_kept_by_the_clock() -> None:
    clock, slept = SteppableClock(), []

    def sleep(seconds: float) -> bool:
        slept.append(seconds)
        clock.advance(max(0.0, seconds))
        return False

    pace = Pace(4, clock, sleep)
    began = clock.monotonic()
    for _ in range(9):
        pace.wait()

    assert clock.monotonic() - began == pytest.approx(2.0)
    assert max(slept) == pytest.approx(0.25)


def test_what_was_not_used_of_the_pace_is_not_made_up_for() -> None:
    clock = SteppableClock()
    turns = []

    def sleep(seconds: float) -> bool:
        clock.advance(max(0.0, seconds))
        turns.append(clock.monotonic())
        return False

    pace = Pace(10, clock, sleep)
    pace.wait()
    clock.advance(60)
    for _ in range(3):
        pace.wait()

    assert [b - a for a, b in pairwise(turns[1:])] == pytest.approx([0.1, 0.1])


def test_every_question_waits_for_its_turn(bank: BadBank) -> None:
    clock = SteppableClock()

    def sleep(seconds: float) -> bool:
        clock.advance(max(0.0, seconds))
        return False

    began = clock.monotonic()
    bank.will(NOT_FOUND, FAILS, NOT_FOUND, NOT_FOUND)

    told = records(bank.url, Pace(1, clock, sleep)).look_up(Operation.CAPTURE, ID)

    assert told == NoRecord()
    assert clock.monotonic() - began == pytest.approx(3.0)


def test_whoever_is_told_to_stop_asks_no_more(bank: BadBank) -> None:
    stopping = threading.Event()
    stopping.set()

    with pytest.raises(Stopped):
        records(bank.url, Pace(10, SystemClock(), stopping.wait)).look_up(Operation.CAPTURE, ID)

    assert bank.heard == []

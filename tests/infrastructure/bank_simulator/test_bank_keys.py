"""What the bank remembers of idempotency keys."""

from pathlib import Path

import pytest

from infrastructure.bank_simulator.database import Database
from infrastructure.bank_simulator.remembered import (
    KEPT_SECONDS,
    Answer,
    Key,
    RememberedAnswers,
)
from tests.infrastructure.bank_simulator.a_bank import NOON

PATH = "/api/v1/captures"
FIRST = Answer(status=200, body=b"first")
SECOND = Answer(status=200, body=b"second")


@pytest.fixture
def remembered(tmp_path: Path) -> RememberedAnswers:
    return RememberedAnswers(Database(tmp_path / "bank.db"))


def test_an_answer_is_remembered_by_key_and_path(remembered: RememberedAnswers) -> None:
    key = Key.from_header(b"k")
    remembered.remember(key, PATH, FIRST, NOON)
    assert remembered.recall(key, PATH, NOON) == FIRST
    assert remembered.recall(key, "/api/v1/voids", NOON) is None
    assert remembered.recall(Key.from_header(b"K"), PATH, NOON) is None


def test_the_first_answer_of_a_key_stays(remembered: RememberedAnswers) -> None:
    key = Key.from_header(b"k")
    remembered.remember(key, PATH, FIRST, NOON)
    remembered.remember(key, PATH, SECOND, NOON + 1)
    assert remembered.recall(key, PATH, NOON + 1) == FIRST


def test_a_key_is_forgotten_after_a_day(remembered: RememberedAnswers) -> None:
    key = Key.from_header(b"k")
    remembered.remember(key, PATH, FIRST, NOON)
    assert remembered.recall(key, PATH, NOON + KEPT_SECONDS - 1) == FIRST
    assert remembered.recall(key, PATH, NOON + KEPT_SECONDS) is None
    remembered.remember(key, PATH, SECOND, NOON + KEPT_SECONDS)
    assert remembered.recall(key, PATH, NOON + KEPT_SECONDS) == SECOND


def test_old_keys_are_deleted(tmp_path: Path) -> None:
    database = Database(tmp_path / "bank.db")
    remembered = RememberedAnswers(database)
    remembered.remember(Key.from_header(b"old"), PATH, FIRST, NOON)
    remembered.remember(Key.from_header(b"new"), PATH, FIRST, NOON + KEPT_SECONDS)
    kept = database.execute("SELECT idempotency_key FROM remembered_answers").fetchall()
    assert [row[0] for row in kept] == ["new"]


@pytest.mark.parametrize("raw", [b"x" * 256, b"caf\xe9", b"\xff"])
def test_long_and_undecodable_keys_are_not_remembered(
    remembered: RememberedAnswers, raw: bytes
) -> None:
    key = Key.from_header(raw)
    remembered.remember(key, PATH, FIRST, NOON)
    assert remembered.recall(key, PATH, NOON) is None


@pytest.mark.parametrize("raw", [b"x" * 255, "é".encode() * 255])
def test_255_characters_are_remembered(remembered: RememberedAnswers, raw: bytes) -> None:
    key = Key.from_header(raw)
    remembered.remember(key, PATH, FIRST, NOON)
    assert remembered.recall(key, PATH, NOON) == FIRST

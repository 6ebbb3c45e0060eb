"""An operator's decision about a hold, and the sweep that has to end it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domain.errors import BankIdRefused
from infrastructure.operators import resolve_payment
from infrastructure.worker import Worker
from tests.api.an_api import Api, Caller, an_api
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank

EIGHT_DAYS_SECONDS = 8 * 24 * 3600


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    bank = Bank(tmp_path / "books.sqlite", *CALM)
    yield bank
    bank.kill()


@pytest.fixture
def api(database_url: str, bank: Bank) -> Iterator[Api]:
    url = f"http://127.0.0.1:{bank.port}"
    with an_api(database_url, BANK_URL=url) as api:
        yield api


def forgotten_hold(merchant: Caller, bank: Bank) -> tuple[str, str]:
    """The payment and the bank's id of a hold of which the bank told nobody, eight days ago."""
    bank.faults(clock_offset_seconds=-EIGHT_DAYS_SECONDS, forget_after=1)
    payment_id = json.loads(merchant.authorize().data)["payment_id"]
    bank.faults(reset=True)
    (entry,) = bank.ledger()["transactions"]
    return payment_id, entry["id"]


def decide(api: Api, payment_id: str, bank_id: str) -> None:
    resolve_payment(
        api.services,
        payment_id,
        status="authorized",
        bank_id=bank_id,
        reason="it is in the bank's books",
        actor="ada",
        amount=None,
    )


def test_a_hold_that_an_operator_found_ends_when_the_bank_says_and_is_released_then(
    api: Api, bank: Bank
) -> None:
    merchant = api.merchant()
    payment_id, bank_id = forgotten_hold(merchant, bank)

    decide(api, payment_id, bank_id)
    authorized = merchant.receipt(payment_id)
    with ThreadPoolExecutor(1) as executor:
        Worker(api.services).release_expired(executor)

    assert authorized["status"] == "authorized"
    assert authorized["authorization_expires_at"] is not None
    assert merchant.receipt(payment_id)["status"] == "expired"


def test_a_decision_needs_no_bank_to_be_there(api: Api, bank: Bank) -> None:
    merchant = api.merchant()
    payment_id, bank_id = forgotten_hold(merchant, bank)
    bank.kill()

    decide(api, payment_id, bank_id)

    receipt = merchant.receipt(payment_id)
    assert (receipt["status"], receipt["authorization_expires_at"]) == ("authorized", None)


@pytest.mark.parametrize("bank_id", ["..", "auth_\udcff"])
def test_what_is_no_id_of_the_banks_is_refused_and_the_bank_is_not_asked_about_it(
    api: Api, bank: Bank, bank_id: str
) -> None:
    merchant = api.merchant()
    payment_id, _ = forgotten_hold(merchant, bank)

    with pytest.raises(BankIdRefused):
        decide(api, payment_id, bank_id)

    assert merchant.receipt(payment_id)["status"] == "pending"

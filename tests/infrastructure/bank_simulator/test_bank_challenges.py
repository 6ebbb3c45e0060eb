"""3-D Secure and bank transfers of the extended profile, over HTTP, and that the partner has neither."""

import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrastructure.bank_simulator.challenges import LAPSES_SECONDS
from infrastructure.bank_simulator.profiles import TEST_CARDS
from infrastructure.bank_simulator.requests import is_card_number
from tests.infrastructure.bank_simulator.a_bank import CALM, Answer, Bank, eventually

CHALLENGED = "4000002500003155"
WITHOUT_FUNDS = "4000008260003178"
DECLINED_AFTER = "4000008400001629"
SHOP = "https://shop.example/return?payment_intent=pi_1&x=%20"
ACCOUNT = {
    "account_number": "00012345",
    "sort_code": "10-88-00",
    "account_holder_name": "Ada Lovelace",
    "amount": 5_000,
    "currency": "GBP",
}


@pytest.fixture
def bank(extended_bank: Bank) -> Bank:
    extended_bank.faults(reset=True)
    return extended_bank


def asked(bank: Bank, key: str | None = None, **fields: object) -> Any:
    body = {"card_number": CHALLENGED, "cvv": "999", "amount": 5_000, "return_url": SHOP}
    answer = bank.post("authorizations", body | fields, key)
    assert answer.status == 200, answer.text
    return answer.json


def path_of(challenge: Any) -> str:
    return urllib.parse.urlsplit(str(challenge["action_url"])).path


def decide(bank: Bank, challenge: Any, decision: str, **fields: str) -> Answer:
    form = urllib.parse.urlencode({"decision": decision} | fields).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return bank.request("POST", path_of(challenge), form, headers)


def found(bank: Bank, challenge: Any) -> Any:
    return bank.get(f"/api/v1/authorizations/{challenge['authorization_id']}").json


def test_a_challenged_card_holds_nothing_until_its_holder_approves(bank: Bank) -> None:
    challenge = asked(bank, "a-challenge")
    waiting = found(bank, challenge)
    before = bank.entries("a-challenge")
    page = bank.get(path_of(challenge))

    left = decide(bank, challenge, "approve")

    assert challenge["status"] == "requires_action"
    assert challenge["action_url"].startswith(f"http://127.0.0.1:{bank.port}/")
    assert waiting == challenge
    assert before == []
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "50.00 USD" in page.text
    assert CHALLENGED not in page.text
    assert (left.status, left.headers["location"]) == (303, SHOP)
    held = found(bank, challenge)
    assert (held["status"], held["amount"]) == ("approved", 5_000)
    assert held["authorization_id"] == challenge["authorization_id"]
    assert "action_url" not in held
    assert len(bank.entries("a-challenge")) == 1


def test_what_was_approved_is_captured_and_refunded_as_any_other(bank: Bank) -> None:
    challenge = asked(bank)
    decide(bank, challenge, "approve")
    hold = {"authorization_id": challenge["authorization_id"], "amount": 5_000}

    taken = bank.post("captures", hold).json

    refund = {"capture_id": taken["capture_id"], "amount": 5_000}
    assert bank.post("refunds", refund).json["status"] == "refunded"


def test_what_nobody_approved_cannot_be_captured(bank: Bank) -> None:
    hold = {"authorization_id": asked(bank)["authorization_id"], "amount": 5_000}

    assert bank.post("captures", hold).json["error"] == "authorization_not_found"


def test_what_was_voided_before_it_was_approved_never_is(bank: Bank) -> None:
    challenge = asked(bank, "given-up")
    void = {"authorization_id": challenge["authorization_id"]}

    voided = bank.post("voids", void).json
    left = decide(bank, challenge, "approve")
    again = bank.post("voids", void).json

    assert (voided["status"], again["error"]) == ("voided", "authorization_already_used")
    assert (left.status, left.headers["location"]) == (303, SHOP)
    now = found(bank, challenge)
    assert (now["status"], now["code"]) == ("declined", "authorization_withdrawn")
    assert bank.entries("given-up") == []


@pytest.mark.parametrize(
    ("fields", "decision", "code"),
    [
        ({}, "refuse", "authentication_required"),
        ({"card_number": WITHOUT_FUNDS}, "approve", "insufficient_funds"),
        ({"card_number": DECLINED_AFTER}, "approve", "card_declined"),
    ],
)
def test_a_no_is_told_with_its_code_and_holds_nothing(
    bank: Bank, fields: dict[str, object], decision: str, code: str
) -> None:
    key = f"{decision}-{code}"
    challenge = asked(bank, key, **fields)

    left = decide(bank, challenge, decision)

    told = found(bank, challenge)
    assert left.status == 303
    assert (told["status"], told["code"]) == ("declined", code)
    assert bank.entries(key) == []


def test_the_first_decision_counts_and_every_later_one_goes_where_it_went(bank: Bank) -> None:
    challenge = asked(bank, "decided-once")
    decide(bank, challenge, "approve")

    again = [decide(bank, challenge, each) for each in ("approve", "refuse")]
    looked_at = bank.get(path_of(challenge))

    assert [each.headers["location"] for each in [*again, looked_at]] == [SHOP] * 3
    assert found(bank, challenge)["status"] == "approved"
    assert len(bank.entries("decided-once")) == 1


def test_the_replay_of_the_key_is_the_first_answer_whatever_was_decided(bank: Bank) -> None:
    challenge = asked(bank, "replayed-challenge")
    decide(bank, challenge, "approve")

    again = bank.post("authorizations", {}, "replayed-challenge")

    assert again.headers["x-idempotent-replayed"] == "true"
    assert again.json == challenge


def test_a_challenge_lapses_and_is_refused_from_then_on(bank: Bank) -> None:
    challenge = asked(bank)
    bank.faults(clock_offset_seconds=LAPSES_SECONDS + 1)

    late = decide(bank, challenge, "approve")

    assert late.status == 303
    assert found(bank, challenge)["code"] == "authentication_required"


def test_without_a_place_to_return_to_the_page_can_be_closed(bank: Bank) -> None:
    challenge = asked(bank, return_url=None)

    closing = decide(bank, challenge, "approve")

    assert closing.status == 200
    assert "close this page" in closing.text


def test_the_place_to_return_to_may_come_with_the_page_where_none_was_given(bank: Bank) -> None:
    with_none, with_one = asked(bank, return_url=None), asked(bank)
    query = urllib.parse.urlencode({"return_url": "https://late.example/?a=1&b=2"})
    page = bank.get(f"{path_of(with_none)}?{query}").text
    hidden = re.search(r'name="return_url" value="([^"]*)"', page)
    assert hidden is not None

    left = decide(bank, with_none, "approve", return_url=hidden[1].replace("&amp;", "&"))
    elsewhere = decide(bank, with_one, "approve", return_url="https://evil.example/")

    assert left.headers["location"] == "https://late.example/?a=1&b=2"
    assert elsewhere.headers["location"] == SHOP


@pytest.mark.parametrize(
    "address", ["shop", "https://shop.example/\r\nX: y", "javascript:alert(1)", "https://ö", "a:" * 2000]
)  # fmt: skip
def test_what_is_no_address_is_refused(bank: Bank, address: str) -> None:
    body = {"card_number": CHALLENGED, "amount": 100, "return_url": address}

    assert bank.post("authorizations", body).json["error"] == "invalid_return_url"
    page = bank.get(
        f"{path_of(asked(bank, return_url=None))}?{urllib.parse.urlencode({'return_url': address})}"
    )
    assert 'name="return_url" value=""' in page.text


def test_a_page_that_is_not_there_or_is_not_answered_decides_nothing(bank: Bank) -> None:
    challenge = asked(bank)

    answers = [
        bank.get("/challenges/guessed").status,
        decide(bank, challenge, "perhaps").status,
        bank.request("POST", path_of(challenge), b"\xff=\xff").status,
        bank.request("PUT", path_of(challenge), b"").status,
    ]

    assert answers == [404, 400, 400, 405]
    assert found(bank, challenge)["status"] == "requires_action"


def test_what_is_known_of_a_challenged_card_is_said_at_once(bank: Bank) -> None:
    body = {"card_number": CHALLENGED, "amount": 100, "expiry_month": 1, "expiry_year": 2024}

    assert bank.post("authorizations", body).json["error"] == "card_expired"


def test_the_well_known_cards_are_cards_and_are_refused_as_they_are_known_to_be(bank: Bank) -> None:
    assert all(is_card_number(number) for number in TEST_CARDS)
    for number, card in TEST_CARDS.items():
        if card.decline is not None:
            body = {"card_number": number, "cvv": "123", "amount": 100}
            assert bank.post("authorizations", body).json["error"] == card.decline, number


def test_a_cvc_that_fails_is_refused_only_where_it_is_given(bank: Bank) -> None:
    body = {"card_number": "4000000000000101", "amount": 100}

    assert bank.post("authorizations", body | {"cvv": "123"}).json["error"] == "invalid_cvv"
    assert bank.post("authorizations", body).json["status"] == "approved"


def test_challenges_and_transfers_survive_a_restart(
    tmp_path: Path, start_bank: Callable[..., Bank]
) -> None:
    options = (*CALM, "--profile", "extended", "--settle-seconds", "0.5")
    first = start_bank(tmp_path / "bank.db", *options)
    challenge = asked(first)
    transfer = first.post("transfers", ACCOUNT).json
    first.kill()

    second = start_bank(tmp_path / "bank.db", *options)

    assert found(second, challenge)["status"] == "requires_action"
    decide(second, challenge, "approve")
    assert found(second, challenge)["status"] == "approved"
    path = f"/api/v1/transfers/{transfer['transfer_id']}"
    eventually(lambda: second.get(path).json["status"] == "settled")


def test_the_pages_are_where_the_bank_is_said_to_be(
    tmp_path: Path, start_bank: Callable[..., Bank]
) -> None:
    public = ("--public-url", "https://bank.example/sim/")
    bank = start_bank(tmp_path / "bank.db", *CALM, "--profile", "extended", *public)

    assert asked(bank)["action_url"].startswith("https://bank.example/sim/challenges/")


# --- bank transfers ---


def test_a_transfer_is_pending_and_is_settled_by_itself(bank: Bank) -> None:
    asked_for = bank.post("transfers", ACCOUNT, "a-transfer")
    transfer = asked_for.json
    path = f"/api/v1/transfers/{transfer['transfer_id']}"
    at_first = bank.get(path).json
    bank.faults(clock_offset_seconds=3)

    later = bank.get(path).json

    assert transfer["status"] == at_first["status"] == "pending"
    assert (later["status"], later["amount"], later["currency"]) == ("settled", 5_000, "GBP")
    assert later["settled_at"] is not None
    assert "00012345" not in asked_for.text
    assert bank.post("transfers", ACCOUNT, "a-transfer").json == transfer


@pytest.mark.parametrize(
    ("number", "code"), [("22222227", "insufficient_funds"), ("33333335", "debit_not_authorized")]
)
def test_no_transfer_comes_from_some_accounts(bank: Bank, number: str, code: str) -> None:
    transfer = bank.post("transfers", ACCOUNT | {"account_number": number}).json
    bank.faults(clock_offset_seconds=3)

    later = bank.get(f"/api/v1/transfers/{transfer['transfer_id']}").json

    assert (later["status"], later["code"]) == ("failed", code)
    refund = {"capture_id": transfer["transfer_id"], "amount": 5_000}
    assert bank.post("refunds", refund).json["error"] == "capture_not_found"


def test_a_settled_transfer_is_refunded_in_parts_and_a_pending_one_is_not(bank: Bank) -> None:
    transfer = bank.post("transfers", ACCOUNT).json
    refund = {"capture_id": transfer["transfer_id"], "amount": 3_000}
    too_early = bank.post("refunds", refund).json
    bank.faults(clock_offset_seconds=3)

    part = bank.post("refunds", refund).json
    too_much = bank.post("refunds", refund).json
    rest = bank.post("refunds", refund | {"amount": 2_000}).json

    assert too_early["error"] == "capture_not_found"
    assert (part["status"], part["currency"]) == ("refunded", "GBP")
    assert bank.get(f"/api/v1/refunds/{part['refund_id']}").json == part
    assert too_much["error"] == "refund_exceeds_capture"
    assert rest["amount"] == 2_000


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"account_number": "1234567"}, "invalid_account"),
        ({"sort_code": "12345x"}, "invalid_account"),
        ({"account_holder_name": "  "}, "invalid_account"),
        ({"amount": 0}, "invalid_amount"),
        ({"currency": "POUND"}, "invalid_currency"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(
    bank: Bank, wrong: dict[str, object], code: str
) -> None:
    assert bank.post("transfers", ACCOUNT | wrong).json["error"] == code
    assert bank.post("transfers", ACCOUNT | {"amount": "5"}).status == 400


# --- the partner ---


def test_the_partner_has_no_challenges_and_no_transfers(calm_bank: Bank) -> None:
    calm_bank.faults(reset=True)
    body = {"card_number": CHALLENGED, "cvv": "123", "amount": 100, "return_url": 1}

    assert calm_bank.post("authorizations", body).json["error"] == "invalid_card"
    assert calm_bank.post("transfers", ACCOUNT).text == "404 page not found\n"
    assert calm_bank.get("/challenges/x").text == "404 page not found\n"
    assert not {"challenges", "transfers"} & calm_bank.ledger().keys()

"""The bank as its callers see it: a process at a port."""

import http.client
import json
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.infrastructure.bank_simulator.a_bank import (
    CALM,
    HAPPY,
    Answer,
    Bank,
    eventually,
    hang_up_on,
)

NEVER = 60_000  # milliseconds; longer than any test


def new_key() -> str:
    return str(uuid.uuid4())


def authorize(bank: Bank, **changes: object) -> Any:
    answer = bank.post("authorizations", HAPPY | changes)
    assert answer.status == 200, answer.text
    return answer.json


def capture(bank: Bank) -> Any:
    hold = authorize(bank)
    body = {"authorization_id": hold["authorization_id"], "amount": 5_000}
    return bank.post("captures", body).json


def is_refused(answer: Answer, status: int, code: str) -> bool:
    return answer.status == status and answer.json["error"] == code and "message" in answer.json


def is_plain_text(answer: Answer, status: int) -> bool:
    return answer.status == status and answer.headers["content-type"].startswith("text/plain")


def test_a_payment_goes_through_and_can_be_read_again(bank: Bank) -> None:
    taken = capture(bank)
    body = {"capture_id": taken["capture_id"], "amount": 5_000}
    given_back = bank.post("refunds", body).json
    voided = bank.post("voids", {"authorization_id": authorize(bank)["authorization_id"]})

    assert bank.get(f"/api/v1/captures/{taken['capture_id']}").json == taken
    assert bank.get(f"/api/v1/refunds/{given_back['refund_id']}").json == given_back
    assert bank.get(f"/api/v1/authorizations/{taken['authorization_id']}").json["amount"] == 5_000
    assert voided.json["status"] == "voided"


def test_health(bank: Bank) -> None:
    assert bank.get("/health").json == {"status": "healthy"}


def test_a_missing_key_is_refused_in_plain_text(bank: Bank) -> None:
    for operation in ("authorizations", "captures", "voids", "refunds"):
        assert is_plain_text(bank.request("POST", f"/api/v1/{operation}", HAPPY), 400)


def test_protocol_errors_are_plain_text(bank: Bank) -> None:
    assert is_plain_text(bank.get("/nowhere"), 404)
    assert is_plain_text(bank.get("/api/v1/voids/void_1"), 404)
    assert is_plain_text(bank.get("/api/v1/captures"), 405)
    assert is_plain_text(bank.request("PUT", "/__faults", {}), 405)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"amount": NaN}',
        b"[" * 100_000,
        HAPPY | {"amount": "5000"},
        HAPPY | {"amount": 50.0},
        HAPPY | {"amount": True},
        HAPPY | {"amount": 2**63},
        HAPPY | {"card_number": 4111111111111111},
    ],
)
def test_a_wrong_type_is_refused_in_plain_text(bank: Bank, body: object) -> None:
    assert is_plain_text(bank.post("authorizations", body), 400)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"card_number": "4111"}, "invalid_card"),
        ({"card_number": "4111111111111112"}, "invalid_card"),
        ({"cvv": "12"}, "invalid_cvv"),
        ({"amount": 0}, "invalid_amount"),
        ({"amount": -5}, "invalid_amount"),
    ],
)
def test_a_value_out_of_bounds_has_its_code(
    bank: Bank, changes: dict[str, object], code: str
) -> None:
    assert is_refused(bank.post("authorizations", HAPPY | changes), 400, code)


def test_declines(bank: Bank) -> None:
    poor = HAPPY | {"card_number": "5555555555554444", "cvv": "789"}
    old = HAPPY | {"card_number": "5105105105105100", "cvv": "321"}
    assert is_refused(bank.post("authorizations", poor), 402, "insufficient_funds")
    assert is_refused(bank.post("authorizations", old), 400, "card_expired")
    assert is_refused(bank.get("/api/v1/captures/cap_none"), 404, "not_found")


def test_a_known_key_is_replayed_whatever_the_body_says(bank: Bank) -> None:
    key = new_key()
    first = bank.post("authorizations", HAPPY, key)
    assert "x-idempotent-replayed" not in first.headers
    for body in (HAPPY | {"amount": 1}, {}, b"", b"nonsense"):
        again = bank.post("authorizations", body, key)
        assert (again.status, again.text) == (200, first.text)
        assert again.headers["x-idempotent-replayed"] == "true"
    assert len(bank.entries(key)) == 1


def test_a_replay_knows_no_chaos(bank: Bank) -> None:
    key = new_key()
    bank.post("authorizations", HAPPY, key)
    bank.faults(failure_rate=1, min_latency_ms=NEVER, max_latency_ms=NEVER)
    assert bank.post("authorizations", {}, key).status == 200


def test_an_empty_question_with_an_unknown_key_does_nothing(bank: Bank) -> None:
    for operation in ("authorizations", "captures", "voids", "refunds"):
        key = new_key()
        assert bank.post(operation, {}, key).status == 400
        assert bank.entries(key) == []


def test_a_key_counts_for_its_path_alone(bank: Bank) -> None:
    key = new_key()
    hold = bank.post("authorizations", HAPPY, key).json
    body = {"authorization_id": hold["authorization_id"], "amount": 5_000}
    assert bank.post("captures", body, key).json["status"] == "captured"


def test_a_decline_is_asked_again(bank: Bank) -> None:
    key, card = new_key(), "6011000990139424"
    request = HAPPY | {"card_number": card, "cvv": "111", "amount": 10}
    account = {"card_number": card, "cvv": "111", "exp_month": 1, "exp_year": 2031, "balance": 0}
    bank.request("POST", "/__accounts", account)
    assert is_refused(bank.post("authorizations", request, key), 402, "insufficient_funds")
    bank.request("POST", "/__accounts", account | {"balance": 10})
    assert bank.post("authorizations", request, key).status == 200


@pytest.mark.parametrize("key", ["k" * 256, "caf\xe9"])
def test_an_unstorable_key_works_and_is_not_remembered(bank: Bank, key: str) -> None:
    unique = f"{key}{uuid.uuid4()}"
    first, second = (bank.post("authorizations", HAPPY, unique) for _ in range(2))
    assert first.status == second.status == 200
    assert first.json["authorization_id"] != second.json["authorization_id"]


def test_chaos_fails_before_anything_is_done(bank: Bank) -> None:
    key = new_key()
    bank.faults(failure_rate=1)
    assert is_refused(bank.post("authorizations", HAPPY, key), 500, "internal_error")
    assert is_refused(bank.get("/api/v1/captures/cap_none"), 500, "internal_error")
    bank.faults(failure_rate=0)
    assert bank.entries(key) == []
    assert bank.post("authorizations", HAPPY, key).status == 200


def overlapping(bank: Bank, operation: str, body: object, key: str) -> list[Answer]:
    """Two calls of one key, the second sent while the first is surely in flight."""
    bank.faults(hang={"count": 1, "milliseconds": 3_000})
    with ThreadPoolExecutor(2) as pool:
        first: Future[Answer] = pool.submit(bank.post, operation, body, key)
        eventually(lambda: bank.get("/__faults").json["hang"] is None)
        second = bank.post(operation, body, key)
        return [first.result(), second]


def test_overlapping_calls_of_a_key_make_two_holds(bank: Bank) -> None:
    key, before = new_key(), bank.ledger()["overlaps"]
    first, second = overlapping(bank, "authorizations", HAPPY, key)
    assert first.json["authorization_id"] != second.json["authorization_id"]
    assert len(bank.entries(key)) == 2
    assert bank.ledger()["overlaps"] == before + 1


def test_of_overlapping_captures_one_succeeds(bank: Bank) -> None:
    key, hold = new_key(), authorize(bank)
    body = {"authorization_id": hold["authorization_id"], "amount": 5_000}
    first, second = overlapping(bank, "captures", body, key)
    assert is_refused(first, 400, "authorization_already_used")
    assert second.status == 200
    assert bank.post("captures", {}, key).text == second.text


def test_without_overlap_the_second_call_is_a_replay(bank: Bank) -> None:
    key = new_key()
    bank.faults(overlap=False, hang={"count": 1, "milliseconds": 100})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: bank.post("authorizations", HAPPY, key), range(2))
    assert first.text == second.text
    assert len(bank.entries(key)) == 1


def test_a_caller_that_hangs_up_early_is_not_served(bank: Bank) -> None:
    key = new_key()
    bank.faults(forget=0, hang={"count": 1, "milliseconds": NEVER})
    line = hang_up_on(bank, "authorizations", HAPPY, key)
    eventually(lambda: bank.get("/__faults").json["hang"] is None)
    before = unanswered(bank)
    line.close()
    eventually(lambda: unanswered(bank) == before + 1)
    assert bank.entries(key) == []


def test_what_takes_longer_than_the_bank_works_on_a_call_is_not_done(
    start_bank: Callable[..., Bank], tmp_path: Path
) -> None:
    hasty = start_bank(tmp_path / "hasty.db", *CALM, "--gives-up-seconds", "1.5")
    key = new_key()
    hasty.faults(forget=1, hang={"count": 1, "milliseconds": 2_500})

    with pytest.raises((http.client.HTTPException, OSError)):
        hasty.post("authorizations", HAPPY, key)

    eventually(lambda: unanswered(hasty) == 1)
    assert hasty.entries(key) == []
    assert hasty.post("authorizations", HAPPY, key).status == 200


def unanswered(bank: Bank) -> int:
    calls = bank.ledger()["calls"].get("POST /api/v1/authorizations", {})
    return int(calls.get("unanswered", 0))


@pytest.mark.parametrize(
    ("switches", "holds_after_a_retry"),
    [({"forget": 1}, 2), ({"forget": 0, "abandoned": "finished"}, 1)],
)
def test_a_caller_that_hangs_up_can_leave_work_behind(
    bank: Bank, switches: dict[str, object], holds_after_a_retry: int
) -> None:
    key = new_key()
    bank.faults(hang={"count": 1, "milliseconds": 2_000}, **switches)
    line = hang_up_on(bank, "authorizations", HAPPY, key)
    eventually(lambda: bank.get("/__faults").json["hang"] is None)
    line.close()
    eventually(lambda: len(bank.entries(key)) == 1)
    assert bank.post("authorizations", HAPPY, key).status == 200
    assert len(bank.entries(key)) == holds_after_a_retry


def test_hanging_up_between_the_work_and_its_key_makes_the_bank_forget(bank: Bank) -> None:
    key = new_key()
    bank.faults(store_delay_ms=NEVER)
    line = hang_up_on(bank, "authorizations", HAPPY, key)
    eventually(lambda: len(bank.entries(key)) == 1)
    line.close()
    bank.faults(store_delay_ms=0)
    assert is_refused(bank.post("authorizations", {}, key), 400, "invalid_card")


def test_with_its_database_down_the_bank_blames_the_caller(bank: Bank) -> None:
    key = new_key()
    hold = bank.post("authorizations", HAPPY, key).json
    path = f"/api/v1/authorizations/{hold['authorization_id']}"
    bank.faults(database_down=True)

    assert is_refused(bank.post("authorizations", HAPPY, key), 400, "internal_error")
    assert is_refused(bank.post("authorizations", {}, key), 400, "invalid_card")
    assert is_refused(bank.get(path), 404, "not_found")
    assert bank.get("/health").status == 503

    bank.faults(database_down=False)
    assert bank.post("authorizations", {}, key).json == bank.get(path).json == hold


def test_a_lock_timeout_denies_good_ids(bank: Bank) -> None:
    taken = capture(bank)
    hold = {"authorization_id": authorize(bank)["authorization_id"], "amount": 5_000}
    bank.faults(lock_timeout=True)
    assert is_refused(bank.post("authorizations", HAPPY), 400, "invalid_card")
    assert is_refused(bank.post("captures", hold), 400, "authorization_not_found")
    assert is_refused(bank.post("voids", hold), 400, "authorization_not_found")
    refund = {"capture_id": taken["capture_id"], "amount": 5_000}
    assert is_refused(bank.post("refunds", refund), 400, "capture_not_found")


@pytest.mark.parametrize(
    ("fault", "done", "remembered"),
    [
        ("fail_before", 0, False),
        ("fail_after", 1, True),
        ("drop_before", 0, False),
        ("drop_after", 1, True),
        ("forget_after", 1, False),
        ("garble", 1, True),
        ("mismatch", 1, True),
        ("wrong_currency", 1, True),
    ],
)
def test_a_counted_fault_does_what_it_says_once(
    bank: Bank, fault: str, done: int, remembered: bool
) -> None:
    key = new_key()
    bank.faults(**{fault: {"count": 1, "operation": "authorizations"}})
    assert show(bank, key) == FACES[fault]
    assert len(bank.entries(key)) == done
    assert (bank.post("authorizations", {}, key).status == 200) is remembered
    assert bank.get("/__faults").json[fault] is None


FACES = {
    "fail_before": "500",
    "fail_after": "500",
    "drop_before": "hung up",
    "drop_after": "hung up",
    "forget_after": "hung up",
    "garble": "200 without JSON",
    "mismatch": "200 USD 5001",
    "wrong_currency": "200 EUR 5000",
}


def show(bank: Bank, key: str) -> str:
    """An answer as its caller would tell of it."""
    try:
        answer = bank.post("authorizations", HAPPY, key)
        body = answer.json
    except http.client.RemoteDisconnected:
        return "hung up"
    except json.JSONDecodeError:
        return f"{answer.status} without JSON"
    return "500" if answer.status == 500 else f"200 {body['currency']} {body['amount']}"


def test_a_late_answer_is_remembered_before_it_is_given(bank: Bank) -> None:
    key = new_key()
    bank.faults(hang_after={"milliseconds": NEVER, "operation": "authorizations"})
    line = hang_up_on(bank, "authorizations", HAPPY, key)
    eventually(lambda: len(bank.entries(key)) == 1)
    line.close()
    assert bank.post("authorizations", {}, key).headers["x-idempotent-replayed"] == "true"


def test_an_authorization_expires_by_the_banks_clock(bank: Bank) -> None:
    hold = {"authorization_id": authorize(bank)["authorization_id"], "amount": 5_000}
    bank.faults(clock_offset_seconds=7 * 24 * 3600 + 1)
    assert is_refused(bank.post("captures", hold), 400, "authorization_expired")
    assert bank.post("voids", hold).status == 200


def test_a_wrong_switch_is_a_400_that_names_it(bank: Bank) -> None:
    answer = bank.request("POST", "/__faults", {"nonsense": 1})
    assert answer.status == 400
    assert "nonsense" in answer.json["message"]


def test_the_ledger_shows_accounts_entries_and_calls(bank: Bank) -> None:
    key = new_key()
    bank.post("authorizations", HAPPY, key)
    ledger = bank.ledger()
    (entry,) = bank.entries(key)
    assert set(entry) == {
        "id", "type", "amount", "currency", "status", "reference_id", "idempotency_key",
        "created_at",
    }  # fmt: skip
    assert (entry["type"], entry["currency"]) == ("AUTH_HOLD", "USD")
    assert {"card_number", "balance", "available_balance"} <= set(ledger["accounts"][0])
    assert ledger["calls"]["POST /api/v1/authorizations"]["200"] >= 1


def test_the_extended_profile_takes_parts_and_currencies(extended_bank: Bank) -> None:
    request = {"card_number": "378282246310005", "amount": 900, "currency": "eur"}
    hold = extended_bank.post("authorizations", request).json
    body = {"authorization_id": hold["authorization_id"], "amount": 500}
    taken = extended_bank.post("captures", body).json
    refund = {"capture_id": taken["capture_id"], "amount": 200}
    assert extended_bank.post("refunds", refund).json["currency"] == "EUR"
    assert extended_bank.post("refunds", refund).status == 200
    assert is_refused(extended_bank.post("refunds", refund), 400, "refund_exceeds_capture")


def test_the_extended_profile_checks_the_currency(extended_bank: Bank) -> None:
    wrong = HAPPY | {"currency": "EURO"}
    assert is_refused(extended_bank.post("authorizations", wrong), 400, "invalid_currency")
    assert is_plain_text(extended_bank.post("authorizations", HAPPY | {"currency": 1}), 400)


def test_the_partner_ignores_a_currency(bank: Bank) -> None:
    assert authorize(bank, currency="EUR")["currency"] == "USD"

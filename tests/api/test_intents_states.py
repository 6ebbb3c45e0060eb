"""Which command an intent allows when: all others are refused before any effect; and of two at once that
rule one another out, one is done."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from domain.bank import Unknown
from domain.payment_intent import ALLOWED_IN, IntentStatus
from tests.api.an_api import EMPTY_CARD, Api, BankThatWaits, Caller, error_of, json_of
from tests.fakes import FakeBank

INTENTS: Final = "/v1/payment_intents"
REFUNDS: Final = "/v1/refunds"
TERMS: Final = {"amount": 2000, "currency": "usd"}
NOW: Final = {"payment_method": "pm_card_visa", "confirm": True}
MANUAL: Final = {**NOW, "capture_method": "manual"}
BODIES: Final[Mapping[str, dict[str, Any]]] = {
    "update": {"amount": 1999},
    "confirm": {"payment_method": "pm_card_visa"},
    "capture": {},
    "cancel": {},
}
AT_ONCE: Final = 6


def made(merchant: Caller, **fields: Any) -> str:
    answer = merchant.post(INTENTS, TERMS | fields)
    body = json_of(answer)
    told = body["error"]["payment_intent"] if "error" in body else body
    public_id: str = told["id"]
    return public_id


def declined(merchant: Caller, _bank: FakeBank) -> str:
    card = {"type": "card", "card": EMPTY_CARD}
    return made(merchant, payment_method_data=card, confirm=True)


def processing(merchant: Caller, bank: FakeBank) -> str:
    bank.will_answer(Unknown(reason="down", unanswered=False))
    return made(merchant, **NOW)


def canceled(merchant: Caller, _bank: FakeBank) -> str:
    one = made(merchant)
    merchant.post(f"{INTENTS}/{one}/cancel", {})
    return one


def given_up(merchant: Caller, bank: FakeBank) -> str:
    """While its shopper is asked; and the bank has not said yes to that."""
    one = made(merchant, payment_method="tok_3ds", confirm=True)
    bank.will_answer(Unknown(reason="down", unanswered=False))
    merchant.post(f"{INTENTS}/{one}/cancel", {})
    return one


Life = Callable[[Caller, FakeBank], str]
LIVES: Final[list[tuple[str, Life, IntentStatus]]] = [
    ("new", lambda m, _: made(m), IntentStatus.REQUIRES_PAYMENT_METHOD),
    ("declined", declined, IntentStatus.REQUIRES_PAYMENT_METHOD),
    (
        "with a method",
        lambda m, _: made(m, payment_method="pm_card_visa"),
        IntentStatus.REQUIRES_CONFIRMATION,
    ),
    (
        "asked",
        lambda m, _: made(m, payment_method="tok_3ds", confirm=True),
        IntentStatus.REQUIRES_ACTION,
    ),
    ("processing", processing, IntentStatus.PROCESSING),
    ("given up", given_up, IntentStatus.PROCESSING),
    ("held", lambda m, _: made(m, **MANUAL), IntentStatus.REQUIRES_CAPTURE),
    ("paid", lambda m, _: made(m, **NOW), IntentStatus.SUCCEEDED),
    ("canceled", canceled, IntentStatus.CANCELED),
]


@pytest.mark.parametrize(("name", "life", "status"), LIVES, ids=[name for name, _, _ in LIVES])
def test_what_a_status_does_not_allow_is_refused_and_has_no_effect(
    extended_api: Api, extended_bank: FakeBank, name: str, life: Life, status: IntentStatus
) -> None:
    merchant = extended_api.merchant()
    one = f"{INTENTS}/{life(merchant, extended_bank)}"
    was, asked = json_of(merchant.get(one)), len(extended_bank.requests)
    before = extended_api.behind()
    refused = [command for command, allowed in ALLOWED_IN.items() if status not in allowed]

    for command in refused:
        path = one if command == "update" else f"{one}/{command}"
        for caller, code in ((merchant, 409), (merchant.speaking_stripe(), 400)):
            error = error_of(caller.post(path, BODIES[command]), code)
            assert error["code"] == "payment_intent_unexpected_state", command

    assert was["status"] == status, name
    assert len(refused) >= 1
    assert json_of(merchant.get(one)) == was
    assert extended_api.behind() == before
    assert len(extended_bank.requests) == asked


def at_once(*asked: Callable[[], TestResponse]) -> list[int]:
    with ThreadPoolExecutor(len(asked)) as threads:
        return sorted(each.status_code for each in threads.map(lambda ask: ask(), asked))


def test_refunds_at_once_give_back_no_more_than_was_paid(
    extended_merchant: Caller, extended_bank: FakeBank
) -> None:
    merchant = extended_merchant
    paid = made(merchant, **NOW)
    body = {"payment_intent": paid, "amount": 500}

    statuses = at_once(*[lambda: merchant.post(REFUNDS, body)] * AT_ONCE)
    while merchant.post(REFUNDS, body).status_code == 201:
        statuses.append(201)

    assert statuses.count(201) == 4
    assert set(statuses) <= {201, 409, 503}
    assert extended_bank.refunded_minor() == 2000
    charge = json_of(merchant.get(f"{INTENTS}/{paid}"))["charges"]["data"][0]
    assert charge["amount_refunded"] == 2000


def test_of_two_whole_refunds_at_once_one_is_made(merchant: Caller, bank: FakeBank) -> None:
    paid = made(merchant, **NOW)

    statuses = at_once(*[lambda: merchant.post(REFUNDS, {"payment_intent": paid})] * AT_ONCE)

    assert statuses[0] == 201
    assert set(statuses[1:]) <= {409}
    assert bank.refunded_minor() == 2000


@pytest.mark.parametrize("second", ["capture", "cancel"])
def test_who_comes_while_a_hold_is_captured_is_refused(api: Api, second: str) -> None:
    merchant, bank = api.merchant(), BankThatWaits()
    with ThreadPoolExecutor(1) as threads, api.asking(bank):
        bank.may_answer.set()
        one = f"{INTENTS}/{made(merchant, **MANUAL)}"
        bank.was_asked.clear()
        bank.may_answer.clear()
        first = threads.submit(merchant.post, f"{one}/capture", {})
        assert bank.was_asked.wait(20)
        refused = merchant.post(f"{one}/{second}", {})
        bank.may_answer.set()
        assert first.result().status_code == 200

    assert error_of(refused, 409)["code"] == "payment_intent_unexpected_state"
    assert [each.operation.value for each in bank.requests] == ["authorization", "capture"]


@pytest.mark.parametrize("commands", [("confirm", "cancel"), ("cancel", "cancel")])
def test_of_a_confirmation_and_a_cancellation_at_once_one_is_done(
    merchant: Caller, bank: FakeBank, commands: tuple[str, str]
) -> None:
    one = f"{INTENTS}/{made(merchant)}"

    statuses = at_once(
        *[lambda c=command: merchant.post(f"{one}/{c}", BODIES[c]) for command in commands]
    )

    assert statuses == [200, 409]
    status = json_of(merchant.get(one))["status"]
    assert (status, bank.captured_minor()) in [("canceled", 0), ("succeeded", 2000)]

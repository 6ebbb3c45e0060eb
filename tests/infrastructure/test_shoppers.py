"""3-D Secure from the ledger to the shopper and back: the real bank simulator, Postgres and worker."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from domain.commands import Tenant
from domain.ledger import Pending
from domain.payment import Payment, Status
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.worker import Worker
from tests.api.an_api import Api, Caller, an_api, fresh, json_of
from tests.builders import a_challenged_card, a_new_tenant, authorize
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank, eventually

RETURN_URL = "https://shop.example/done?payment_intent=pi_1"
PASS_TIME: LiteralString = """
    UPDATE bank_calls SET since = since - make_interval(secs => %(seconds)s),
                          due_at = due_at - make_interval(secs => %(seconds)s)
"""
INTENTS = "/v1/payment_intents"
ROUNDS = 6
AMOUNT = 2000
CHALLENGED = {
    "amount": AMOUNT,
    "currency": "usd",
    "payment_method": "pm_card_threeDSecure2Required",
    "confirm": True,
}
CARDS: LiteralString = "SELECT count(sealed_card) AS cards FROM bank_calls"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    bank = Bank(tmp_path / "books.sqlite", *CALM, "--profile", "extended")
    yield bank
    bank.kill()


@pytest.fixture
def api(database_url: str, bank: Bank) -> Iterator[Api]:
    url = f"http://127.0.0.1:{bank.port}"
    with an_api(database_url, BANK_URL=url, BANK_PROFILE="extended") as api:
        yield api


@pytest.fixture
def tenant() -> Tenant:
    return a_new_tenant()


def challenged(api: Api, tenant: Tenant, return_url: str | None = RETURN_URL) -> tuple[UUID, str]:
    """A payment that waits for its shopper, and the path of the page."""
    command = authorize(tenant=tenant, card=a_challenged_card(), return_url=return_url)
    reply = api.services.ledger.authorize(command)
    assert isinstance(reply, Pending)
    assert reply.action_url is not None
    return reply.history[0].originator_id, urlsplit(reply.action_url).path


def worked_until(api: Api, payment_id: UUID, tenant: Tenant, status: Status) -> Payment:
    """The payment once the worker has come round as often as it takes."""
    worker = Worker(api.services)

    def is_so() -> bool:
        with ThreadPoolExecutor(4) as executor:
            worker.take_up(executor)
        return api.services.ledger.payment(payment_id, tenant).status == status

    eventually(is_so)
    return api.services.ledger.payment(payment_id, tenant)


def pass_time(api: Api, seconds: float) -> None:
    api.execute(PASS_TIME, seconds=seconds)


def oldest(api: Api) -> float:
    found = re.search(
        r"^counterfoil_oldest_outstanding_seconds (\S+)$",
        api.nobody().get("/metrics").text,
        re.MULTILINE,
    )
    assert found is not None
    return float(found[1])


def test_a_shopper_approves_and_the_payment_goes_on_by_itself(
    api: Api, bank: Bank, tenant: Tenant
) -> None:
    payment_id, page = challenged(api, tenant)
    with api.services.pool.connection() as connection:
        kept = connection.execute(CARDS).fetchone()

    left = bank.request("POST", page, b"decision=approve")

    assert left.headers["location"] == RETURN_URL
    assert kept == {"cards": 0}
    payment = worked_until(api, payment_id, tenant, Status.AUTHORIZED)
    names = [type(event).__name__ for event in payment.history]
    assert names == ["AuthorizationRequested", "ActionRequired", "Authorized"]
    assert len(bank.ledger()["transactions"]) == 1


def test_a_shopper_refuses_and_the_payment_is_declined(
    api: Api, bank: Bank, tenant: Tenant
) -> None:
    payment_id, page = challenged(api, tenant, return_url=None)

    bank.request("POST", page, b"decision=refuse")

    payment = worked_until(api, payment_id, tenant, Status.DECLINED)
    last = payment.history[-1]
    assert isinstance(last, Payment.AuthorizationDeclined)
    assert last.code == "authentication_required"
    assert bank.ledger()["transactions"] == []


def test_a_shopper_who_never_comes_is_given_up_after_a_day(
    api: Api, bank: Bank, tenant: Tenant
) -> None:
    payment_id, page = challenged(api, tenant)
    bank.faults(clock_offset_seconds=24 * 3600)
    pass_time(api, 24 * 3600)

    payment = worked_until(api, payment_id, tenant, Status.DECLINED)

    bank.request("POST", page, b"decision=approve")
    assert bank.ledger()["transactions"] == []
    assert payment.reviews == {}


def test_a_shopper_who_is_waited_for_is_not_stuck_for_an_hour(api: Api, tenant: Tenant) -> None:
    challenged(api, tenant)
    calls = PostgresBankCalls(api.services.pool)
    pass_time(api, 3500)
    within_the_hour = calls.stuck(), oldest(api)
    pass_time(api, 200)

    (row,) = calls.stuck()

    assert within_the_hour == ([], 0.0)
    assert "shopper" in row["reason"]
    assert oldest(api) >= 3600


def test_a_bank_that_fails_while_the_shopper_is_at_it_is_asked_again(
    api: Api, bank: Bank, tenant: Tenant
) -> None:
    payment_id, page = challenged(api, tenant)
    bank.request("POST", page, b"decision=approve")
    bank.faults(database_down=True)
    pass_time(api, 10)
    worker = Worker(api.services)
    with ThreadPoolExecutor(1) as executor:
        worker.take_up(executor)
    bank.faults(reset=True)
    pass_time(api, 60)

    payment = worked_until(api, payment_id, tenant, Status.AUTHORIZED)

    assert payment.reviews == {}


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_who_gives_up_at_the_moment_of_the_decision_ends_with_nothing_held_or_everything_paid(
    api: Api, bank: Bank, decision: str
) -> None:
    merchant, worker = api.merchant(), Worker(api.services)
    ended = set()
    for _ in range(ROUNDS):
        intent = json_of(merchant.post(INTENTS, CHALLENGED, key=fresh("confirm")))
        page = urlsplit(intent["next_action"]["redirect_to_url"]["url"]).path
        one = f"{INTENTS}/{intent['id']}"
        pass_time(api, 10)
        with ThreadPoolExecutor(4) as executor:
            executor.submit(bank.request, "POST", page, f"decision={decision}".encode())
            executor.submit(worker.take_up, executor).result()
            refused = executor.submit(merchant.post, f"{one}/cancel", {}).result()

        def is_over(url: str = one) -> bool:
            pass_time(api, 60)
            with ThreadPoolExecutor(4) as executor:
                worker.take_up(executor)
            return json_of(merchant.get(url))["status"] not in {"processing", "requires_action"}

        eventually(is_over)
        status = json_of(merchant.get(one))["status"]
        ended.add((status, refused.status_code))
        assert held_at(bank) == (AMOUNT * _count_paid(merchant))
    assert ended <= {("canceled", 200), ("succeeded", 409), ("requires_payment_method", 409)}


def _count_paid(merchant: Caller) -> int:
    found = json_of(merchant.get(f"{INTENTS}?limit=100"))["data"]
    return sum(each["status"] == "succeeded" for each in found)


def held_at(bank: Bank) -> int:
    """What the bank holds of its cards, or has taken."""
    accounts = bank.ledger()["accounts"]
    return sum(each["deposited"] - each["available_balance"] for each in accounts)

"""A hold that is past its time is released at the bank, and the payment is then expired."""

from concurrent.futures import ThreadPoolExecutor

import requests

from infrastructure.worker import Worker
from tests.api.an_api import Api, Caller, error_of
from tests.infrastructure.bank_simulator.a_bank import Bank

EIGHT_DAYS_SECONDS = 8 * 24 * 3600


def authorized_long_ago(merchant: Caller, simulator: Bank) -> str:
    """As if the bank had held the money eight days ago: its hold was for seven."""
    simulator.faults(clock_offset_seconds=-EIGHT_DAYS_SECONDS)
    payment_id: str = merchant.authorized()["payment_id"]
    simulator.faults(reset=True)
    return payment_id


def release_expired(api: Api) -> None:
    with ThreadPoolExecutor(4) as executor:
        Worker(api.services).release_expired(executor)


def test_a_hold_past_its_time_is_released_and_the_payment_expired(
    api_over_the_wire: Api, simulator: Bank
) -> None:
    merchant = api_over_the_wire.merchant()
    payment_id = authorized_long_ago(merchant, simulator)

    release_expired(api_over_the_wire)

    receipt = merchant.receipt(payment_id)
    assert receipt["status"] == "expired"
    voids = [each for each in simulator.ledger()["transactions"] if each["type"] == "VOID"]
    assert receipt["bank"]["void_id"] in [each["id"] for each in voids]
    assert error_of(merchant.capture(payment_id), 409)["code"] == "authorization_expired"


def test_until_it_is_released_an_expired_hold_is_authorized_and_can_be_voided(
    api_over_the_wire: Api, simulator: Bank
) -> None:
    merchant = api_over_the_wire.merchant()
    payment_id = authorized_long_ago(merchant, simulator)

    refused = error_of(merchant.capture(payment_id), 409)
    still = merchant.receipt(payment_id)
    voided = merchant.void(payment_id)

    assert refused["code"] == "authorization_expired"
    assert (still["status"], still["needs_review"]) == ("authorized", None)
    assert voided.status_code == 201
    assert merchant.receipt(payment_id)["status"] == "voided"


def test_a_hold_in_its_time_is_left_alone(api_over_the_wire: Api, simulator: Bank) -> None:
    merchant = api_over_the_wire.merchant()
    payment_id = merchant.authorized()["payment_id"]

    release_expired(api_over_the_wire)

    assert merchant.receipt(payment_id)["status"] == "authorized"


def test_a_hold_that_the_bank_will_not_release_is_asked_for_once_and_left_to_a_person(
    api_over_the_wire: Api, simulator: Bank
) -> None:
    merchant = api_over_the_wire.merchant()
    payment_id = authorized_long_ago(merchant, simulator)
    held = merchant.receipt(payment_id)["bank"]["authorization_id"]
    released_elsewhere(simulator, held)

    release_expired(api_over_the_wire)
    after_one = merchant.receipt(payment_id)
    release_expired(api_over_the_wire)

    assert (after_one["status"], after_one["needs_review"]["reason"]) == (
        "authorized",
        "bank_disagrees",
    )
    assert merchant.receipt(payment_id) == after_one


def released_elsewhere(simulator: Bank, authorization_id: str) -> None:
    response = requests.post(
        f"http://127.0.0.1:{simulator.port}/api/v1/voids",
        json={"authorization_id": authorization_id},
        headers={"Idempotency-Key": f"elsewhere-{authorization_id}"},
        timeout=5,
    )
    assert response.status_code == 200

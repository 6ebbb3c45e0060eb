"""So many requests a minute for a key, and for an address that has none that is good."""

from collections.abc import Iterator

import pytest

from tests.api.an_api import Api, Caller, an_api, refusal


@pytest.fixture
def limited(shared_database_url: str) -> Iterator[Api]:
    with an_api(shared_database_url, RATE_LIMIT_PER_MINUTE="3") as api:
        yield api


TOO_MANY = (429, "rate_limit_error", "too_many_requests", None)


def test_each_answer_says_what_is_left(limited: Api) -> None:
    merchant = limited.merchant()

    left = [merchant.get("/v1/receipts").headers for _ in range(3)]

    assert [headers["RateLimit-Limit"] for headers in left] == ["3"] * 3
    assert [headers["RateLimit-Remaining"] for headers in left] == ["2", "1", "0"]
    assert all(0 < int(headers["RateLimit-Reset"]) <= 60 for headers in left)


def test_one_too_many_is_a_429_that_says_when_to_come_back(limited: Api) -> None:
    merchant = limited.merchant()
    for path in ("/v1/receipts", "/v1/receipts/pay_x", "/v1/orders/x"):
        merchant.get(path)

    response = merchant.get("/v1/receipts")

    assert refusal(response) == TOO_MANY
    assert response.headers["RateLimit-Remaining"] == "0"
    assert 0 < int(response.headers["Retry-After"]) <= 60
    assert response.headers["Stripe-Should-Retry"] == "false"


def test_one_too_many_does_nothing_and_keeps_no_key(limited: Api) -> None:
    merchant = limited.merchant()
    for _ in range(3):
        merchant.get("/v1/receipts")
    before = limited.behind()

    response = merchant.authorize()

    assert refusal(response) == TOO_MANY
    assert limited.behind() == before


def test_a_limit_is_the_keys_own(limited: Api) -> None:
    first, second = limited.merchant("a busy merchant"), limited.merchant("a busy merchant")
    for _ in range(4):
        first.get("/v1/receipts")

    assert second.get("/v1/receipts").status_code == 200


def test_a_window_ends(limited: Api) -> None:
    merchant = limited.merchant()
    for _ in range(4):
        merchant.get("/v1/receipts")
    limited.execute("UPDATE rate_limit_windows SET expires_at = clock_timestamp()")

    response = merchant.get("/v1/receipts")

    assert response.status_code == 200
    assert response.headers["RateLimit-Remaining"] == "2"


def test_zero_is_no_limit_and_no_headers(merchant: Caller) -> None:
    for _ in range(5):
        response = merchant.get("/v1/receipts")

        assert response.status_code == 200
        assert not [name for name, _ in response.headers if name.startswith("RateLimit")]


@pytest.fixture
def guarded(database_url: str) -> Iterator[Api]:
    """As it is set by default: 60 a minute from one address without a good key."""
    with an_api(database_url, RATE_LIMIT_IP_PER_MINUTE="") as api:
        yield api


def test_the_sixty_first_bad_key_from_one_address_is_a_429(guarded: Api) -> None:
    nobody = guarded.nobody()
    answers = [
        nobody.get("/v1/receipts", headers={"Authorization": f"Bearer sk_test_{n}"})
        for n in range(61)
    ]

    assert [response.status_code for response in answers] == [401] * 60 + [429]
    assert refusal(answers[-1]) == TOO_MANY
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_an_address_with_bad_keys_may_still_use_a_good_one(guarded: Api) -> None:
    for _ in range(61):
        guarded.nobody().get("/v1/receipts")

    assert guarded.merchant().get("/v1/receipts").status_code == 200
    assert guarded.nobody().get("/v1/health").status_code == 200

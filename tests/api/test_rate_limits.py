"""So many requests a minute for a key, and for an address that has none that is good."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest

from tests.api.an_api import Api, BankThatWaits, Caller, an_api, refusal


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
        merchant.void("pay_x")
    before = limited.behind()

    response = merchant.authorize()

    assert refusal(response) == TOO_MANY
    assert limited.behind() == before


def test_a_limit_is_the_keys_own(limited: Api) -> None:
    first, second = limited.merchant("a busy merchant"), limited.merchant("a busy merchant")
    for _ in range(4):
        first.get("/v1/receipts")

    assert second.get("/v1/receipts").status_code == 200


def test_what_was_a_minute_ago_is_given_back(limited: Api) -> None:
    merchant = limited.merchant()
    for _ in range(4):
        merchant.get("/v1/receipts")
    limited.execute("UPDATE rate_limits SET newest = newest - 60, oldest = oldest - 60")

    response = merchant.get("/v1/receipts")

    assert response.status_code == 200
    assert response.headers["RateLimit-Remaining"] == "2"


def test_zero_is_no_limit_and_no_headers(merchant: Caller) -> None:
    for _ in range(5):
        response = merchant.get("/v1/receipts")

        assert response.status_code == 200
        assert not [name for name, _ in response.headers if name.startswith("RateLimit")]


def test_a_flood_of_reads_leaves_commands_theirs_and_the_other_way_round(limited: Api) -> None:
    reader, writer = limited.merchant(), limited.merchant()
    for _ in range(4):
        reader.get("/v1/receipts")
        writer.void("pay_x")

    assert reader.get("/v1/receipts").status_code == 429
    assert reader.void("pay_x").status_code == 404
    assert writer.void("pay_x").status_code == 429
    assert writer.get("/v1/receipts").status_code == 200


@pytest.mark.parametrize("first", ["/v1/payment_intents", "/payment_intents"])
def test_few_intents_are_created_in_a_minute_in_whichever_family(
    database_url: str, first: str
) -> None:
    (second,) = {"/v1/payment_intents", "/payment_intents"} - {first}
    with an_api(database_url, RATE_LIMIT_INTENTS_PER_MINUTE="2") as api:
        merchant = api.merchant()
        wanted = {"amount": 100, "currency": "usd"}
        body = {first: wanted, second: wanted}
        body["/payment_intents"] = {
            **wanted,
            "customer_id": "cus_123",
            "payment_method_id": "pm_fake_visa",
        }
        answers = [merchant.post(path, body[path]) for path in (first, second, first)]

        assert [each.status_code for each in answers] == [201, 201, 429]
        assert answers[0].headers["RateLimit-Limit"] == "2"
        assert merchant.void("pay_x").status_code == 404


def test_the_thousand_and_first_request_of_a_minute_is_refused_whichever_process_it_is_put_to(
    database_url: str,
) -> None:
    """By the limits as they are set by default."""
    with (
        an_api(database_url, RATE_LIMIT_PER_MINUTE="") as one,
        an_api(database_url, RATE_LIMIT_PER_MINUTE="") as other,
    ):
        merchant = one.merchant()
        elsewhere = Caller(other.app, merchant.key, merchant.record, merchant.merchant)
        both = (merchant, elsewhere)
        with ThreadPoolExecutor(8) as threads:
            answers = list(
                threads.map(lambda n: both[n % 2].get("/v1/orders/x").status_code, range(1001))
            )

        assert sorted(Counter(answers).items()) == [(404, 1000), (429, 1)]


@pytest.fixture
def crowded(shared_database_url: str) -> Iterator[tuple[Api, BankThatWaits]]:
    bank = BankThatWaits()
    with (
        an_api(shared_database_url, threads=24, RATE_LIMIT_PER_MINUTE="1000") as api,
        api.asking(bank),
    ):
        yield api, bank


def test_one_key_holds_no_more_than_its_share_of_a_process(
    crowded: tuple[Api, BankThatWaits],
) -> None:
    """Of 24 threads, 8 may wait for the bank, of which any key may have 5 at once."""
    api, bank = crowded
    greedy, other = api.merchant(), api.merchant()
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(greedy.authorize) for _ in range(12)]
        refused = [each.result() for each in islice(as_completed(asked), 7)]
        others = threads.submit(other.authorize)
        read = greedy.get("/v1/receipts")
        bank.may_answer.set()
        served = [each.result().status_code for each in asked]

        assert {refusal(each) for each in refused} == {TOO_MANY}
        assert all(each.headers["Retry-After"] == "1" for each in refused)
        assert sorted(served) == [201] * 5 + [429] * 7
        assert (others.result().status_code, read.status_code) == (201, 200)
    assert greedy.authorize().status_code == 201


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


def test_behind_a_proxy_of_ours_the_address_is_the_one_that_it_names(database_url: str) -> None:
    """What stands before that in the header, anybody may have written."""
    forwarded = ["6.6.6.6, 203.0.113.1", "7.7.7.7, 203.0.113.1", "203.0.113.2"]

    def statuses(api: Api) -> list[int]:
        nobody = api.nobody()
        sent = [{"X-Forwarded-For": each} for each in forwarded]
        return [nobody.get("/v1/receipts", headers=each).status_code for each in sent]

    with an_api(database_url, TRUSTED_PROXIES="1", RATE_LIMIT_IP_PER_MINUTE="1") as behind:
        assert statuses(behind) == [401, 429, 401]
    with an_api(database_url, RATE_LIMIT_IP_PER_MINUTE="1") as bare:
        assert statuses(bare) == [401, 429, 429]

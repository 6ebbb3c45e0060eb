"""When our Python package asks again, and under which key."""

import pytest

import payments
from payments._client import wait_seconds
from tests.sdk.a_scripted_server import HANG_UP, Asked, Script, Told, a_scripted_server

CUSTOMER = Told(status=201, body={"id": "cus_1", "object": "customer"})
AGAIN = {"Stripe-Should-Retry": "true"}


def refusal(status: int, code: str, error_type: str = "api_error") -> Told:
    body = {"error": {"type": error_type, "code": code, "message": "No.", "request_id": "req_1"}}
    should = status in (500, 503) or code == "request_in_progress"
    return Told(status=status, body=body, headers=AGAIN if should else {})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "retry_wait_seconds", 0.001)
    monkeypatch.setattr(payments, "api_key", "sk_test_x")


def create(script: Script, monkeypatch: pytest.MonkeyPatch) -> payments.Customer:
    monkeypatch.setattr(payments, "api_base", script.url)
    return payments.Customer.create(name="Ada")


@pytest.mark.parametrize(
    "first",
    [
        Told(status=HANG_UP),
        refusal(500, "internal_server_error"),
        refusal(503, "bank_unavailable"),
        refusal(409, "request_in_progress", "idempotency_error"),
    ],
    ids=["hung up", "500", "503", "in progress"],
)
def test_what_was_not_answered_is_asked_again_under_one_key(
    first: Told, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_scripted_server([first, first, CUSTOMER]) as script:
        made = create(script, monkeypatch)

    assert made.id == "cus_1"
    keys = script.idempotency_keys
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (refusal(402, "card_declined", "card_error"), payments.CardError),
        (refusal(429, "too_many_requests", "rate_limit_error"), payments.RateLimitError),
        (refusal(409, "key_reused", "idempotency_error"), payments.IdempotencyError),
        (refusal(502, "bank_protocol_error"), payments.APIError),
        (Told(status=500, text="<html>"), payments.APIError),
        (Told(status=200, text="<html>"), payments.APIError),
        (refusal(400, "x", "a_new_type"), payments.APIError),
    ],
    ids=["402", "429", "key reused", "502", "html", "200 and html", "unknown type"],
)
def test_what_was_answered_is_not_asked_again(
    last: Told,
    kind: type[payments.PaymentsError],
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_scripted_server([last]) as script, pytest.raises(payments.PaymentsError) as refused:
        create(script, monkeypatch)

    assert (type(refused.value), refused.value.http_status) == (kind, last.status)
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (Told(status=HANG_UP), payments.APIConnectionError),
        (refusal(503, "service_unavailable"), payments.APIError),
    ],
    ids=["hung up", "503"],
)
def test_it_is_given_up_after_as_many_times_as_are_set(
    last: Told,
    kind: type[payments.PaymentsError],
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(payments, "max_network_retries", 1)
    with a_scripted_server([last]) as script, pytest.raises(kind):
        create(script, monkeypatch)

    assert len(script.asked) == 2


def test_nobody_listens_is_a_connection_error(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "api_base", "http://127.0.0.1:9")

    with pytest.raises(payments.APIConnectionError) as refused:
        payments.Balance.retrieve()

    assert (refused.value.http_status, refused.value.code) == (None, None)


def test_no_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "api_key", None)

    with pytest.raises(payments.AuthenticationError):
        payments.Balance.retrieve()


def test_an_id_stays_inside_its_part_of_the_path(
    impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_scripted_server([CUSTOMER]) as script:
        monkeypatch.setattr(payments, "api_base", f"{script.url}/")
        payments.Customer.retrieve("a/../b?c", expand=["x", "y"])
        with pytest.raises(ValueError, match="id"):
            payments.Customer.delete("")

    (asked,) = script.asked
    assert asked.path == "/v1/customers/a%2F..%2Fb%3Fc?expand%5B%5D=x&expand%5B%5D=y"
    assert headers_of(asked) == ("Bearer sk_test_x", None)


def headers_of(asked: Asked) -> tuple[str | None, str | None]:
    return asked.headers.get("authorization"), asked.headers.get("idempotency-key")


def test_waits_grow_and_are_not_all_the_same() -> None:
    waits = [(wait_seconds(attempt, 0.0), wait_seconds(attempt, 1.0)) for attempt in range(6)]

    assert waits[:3] == [(0.25, 0.5), (0.5, 1.0), (1.0, 2.0)]
    assert waits[-1] == (4.0, 8.0)

"""What every answer has, what is refused before anything is looked at, and browsers' questions."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.app import ROUTES
from tests.api.an_api import (
    EMPTY_CARD,
    Api,
    Caller,
    an_api,
    an_authorization,
    brief,
    error_of,
    fresh,
    refusal,
)

INVALID = "invalid_request_error"
POSTS = [route.path for route in ROUTES if route.method == "POST"]
GETS = ["/v1/receipts", "/v1/refunds", "/v1/receipts/pay_x", "/v1/refunds/rfnd_x", "/v1/orders/x"]


# --- headers ------------------------------------------------------------------------------------


def test_every_request_has_an_id_of_its_own_which_its_errors_name(merchant: Caller) -> None:
    first, second = merchant.get("/v1/receipts/pay_x"), merchant.get("/v1/receipts/pay_x")

    assert first.headers["Request-Id"] != second.headers["Request-Id"]
    assert error_of(first, 404)["request_id"] == first.headers["Request-Id"]


def test_a_stored_decline_names_the_request_that_was_declined(merchant: Caller) -> None:
    body, key = an_authorization(card=EMPTY_CARD), fresh("key")
    first = merchant.post("/v1/authorizations", body, key=key)

    again = merchant.post("/v1/authorizations", body, key=key)

    assert error_of(again, 402)["request_id"] == first.headers["Request-Id"]


def test_answers_are_not_to_be_kept_or_guessed_at(merchant: Caller) -> None:
    response = merchant.get("/v1/receipts")

    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("version", ["2025-09-01", None])
def test_the_one_version_is_the_default(merchant: Caller, version: str | None) -> None:
    response = merchant.get("/v1/receipts", headers={"X-API-Version": version})

    assert response.status_code == 200
    assert response.headers["X-API-Version"] == "2025-09-01"


@pytest.mark.parametrize("version", ["2024-01-01", "", "v1", "2025-09-01x"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_version_is_refused(merchant: Caller, method: str, version: str) -> None:
    path = "/v1/receipts" if method == "GET" else "/v1/captures"

    response = merchant.request(method, path, headers={"X-API-Version": version})

    assert refusal(response) == (400, INVALID, "unsupported_api_version", "X-API-Version")


def test_an_idempotency_key_is_echoed_on_errors_too(merchant: Caller) -> None:
    response = merchant.post("/v1/captures", {}, key="my key")

    assert response.headers["Idempotency-Key"] == "my key"


# --- what is not looked at ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v2/receipts",
        "/v1/receipt",
        "/v1//receipts",
        "//v1/receipts",
        "/v1/receipts/a/b",
        "/v1/captures/x",
        "/V1/receipts",
        "/v1/receipts%00",
        "/%ff%fe",
        "/v1/orders/",
        "/v1/orders",
        "/" + "x" * 5000,
        "/.env",
        "/static/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_an_unknown_route_is_a_404_in_json(api: Api, method: str, path: str) -> None:
    response = api.nobody().request(method, path)

    assert refusal(response) == (404, "resource_missing", "route_not_found", None)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/captures", {"POST", "OPTIONS"}),
        ("DELETE", "/v1/receipts", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/v1/receipts/pay_x", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/v1/refunds", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("TRACE", "/v1/orders/x", {"GET", "HEAD", "OPTIONS"}),
        ("NONSENSE", "/v1/voids", {"POST", "OPTIONS"}),
        ("POST", "/v1/health", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/openapi.json", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_a_route_does_not_take_is_a_405_with_those_that_it_does(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    response = api.nobody().request(method, path)

    assert refusal(response) == (405, INVALID, "method_not_allowed", None)
    assert set(response.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml, text/*", "application/json;q=0", "image/png;q=0.9"]
)
def test_who_takes_no_json_gets_a_406(merchant: Caller, accept: str) -> None:
    for response in (
        merchant.get("/v1/receipts", headers={"Accept": accept}),
        merchant.post("/v1/captures", {}, headers={"Accept": accept}),
    ):
        assert refusal(response) == (406, INVALID, "not_acceptable", None)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/*",
        "application/json",
        "text/html, */*;q=0.1",
        "application/json; charset=utf-8",
    ],
)
def test_who_takes_json_among_others_gets_it(merchant: Caller, accept: str | None) -> None:
    assert merchant.get("/v1/receipts", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_large_is_a_413(api: Api, merchant: Caller, path: str) -> None:
    before = api.behind()
    for content_type in ("application/json", "application/x-www-form-urlencoded"):
        response = merchant.post(path, data=b"a" * (256 * 1024 + 1), content_type=content_type)

        assert refusal(response) == (413, INVALID, "request_too_large", None)
    assert api.behind() == before


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/json",
        "application/xml",
        "multipart/form-data; boundary=x",
        "",
        "nonsense",
    ],
)
@pytest.mark.parametrize("path", POSTS)
def test_a_body_of_another_type_is_a_415(
    api: Api, merchant: Caller, path: str, content_type: str
) -> None:
    before = api.behind()

    response = merchant.post(
        path, data=json.dumps(an_authorization()), headers={"Content-Type": content_type}
    )

    assert refusal(response) == (415, INVALID, "unsupported_media_type", None)
    assert api.behind() == before


@pytest.mark.parametrize(
    "path", [*GETS, "/v1/health", "/health", "/openapi.json", "/docs", "/metrics"]
)
def test_head_answers_as_get_does_without_a_body(merchant: Caller, path: str) -> None:
    got, head = merchant.get(path), merchant.request("HEAD", path)

    assert head.status_code == got.status_code
    assert head.data == b""
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Host": "evil.example"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"User-Agent": "x" * 5000},
        {"User-Agent": "\xff\xfe"},
        {"Cookie": "session=1; x"},
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"Accept-Encoding": "br;q=nonsense"},
        {"Accept-Language": "\xe9"},
        {"Content-Type": "application/json; charset=nonsense"},
        {"Expect": "200-nonsense"},
        {"Transfer-Encoding": "identity"},
        {"Stripe-Version": "x" * 500},
        {"Origin": "null"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_odd_headers_change_nothing(merchant: Caller, headers: dict[str, str]) -> None:
    assert merchant.get("/v1/receipts", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["", "a b", "evil.example:99999", "[::1", "\xff"])
def test_an_odd_host_is_answered_in_json(merchant: Caller, host: str) -> None:
    response = merchant.get("/v1/receipts", headers={"Host": host})

    assert response.status_code in {200, 400}


# --- browsers -----------------------------------------------------------------------------------

PREFLIGHT = {
    "Origin": "https://shop.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, idempotency-key, content-type",
}


@pytest.fixture(params=["*", "https://shop.example", "https://a.example,https://shop.example"])
def open_api(request: pytest.FixtureRequest, shared_database_url: str) -> Iterator[Api]:
    with an_api(shared_database_url, CORS_ORIGINS=request.param) as api:
        yield api


@pytest.mark.parametrize("path", ["/v1/authorizations", "/v1/receipts/pay_x", "/v1/health"])
def test_a_preflight_needs_no_key(open_api: Api, path: str) -> None:
    response = open_api.nobody().request("OPTIONS", path, headers=PREFLIGHT)

    assert response.status_code in {200, 204}
    assert response.headers["Access-Control-Allow-Origin"] in {"*", "https://shop.example"}
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    allowed = response.headers["Access-Control-Allow-Headers"].lower()
    assert {"authorization", "idempotency-key", "content-type"} <= set(allowed.split(", "))


def test_a_page_may_read_the_headers_that_matter_also_of_errors(open_api: Api) -> None:
    origin = {"Origin": "https://shop.example"}

    refused = open_api.nobody().get("/v1/receipts", headers=origin)
    unknown = open_api.nobody().get("/nowhere", headers=origin)

    for response in (refused, unknown):
        assert response.headers["Access-Control-Allow-Origin"] in {"*", "https://shop.example"}
        exposed = response.headers["Access-Control-Expose-Headers"]
        assert {"Request-Id", "Idempotent-Replayed", "Retry-After"} <= set(exposed.split(", "))


@pytest.mark.parametrize("path", ["/v1/authorizations", "/v1/receipts"])
def test_a_page_of_another_origin_is_not_let_in(shared_database_url: str, path: str) -> None:
    with an_api(shared_database_url, CORS_ORIGINS="https://shop.example") as api:
        headers = {**PREFLIGHT, "Origin": "https://evil.example"}

        response = api.nobody().request("OPTIONS", path, headers=headers)

    assert "Access-Control-Allow-Origin" not in response.headers


def test_in_production_no_page_is_let_in_unless_it_is_said(shared_database_url: str) -> None:
    production: dict[str, Any] = {
        "ENVIRONMENT": "production",
        "BANK_URL": "http://127.0.0.1:9",
        "CHECKPOINT_KEY": "a key",
    }
    with an_api(shared_database_url, threads=8, **production) as api:
        preflight = api.nobody().request("OPTIONS", "/v1/receipts", headers=PREFLIGHT)
        answer = api.nobody().get("/v1/receipts", headers={"Origin": "https://shop.example"})

    assert "Access-Control-Allow-Origin" not in preflight.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


# --- Stripe's clients ---------------------------------------------------------------------------


WRONG: dict[str, dict[str, Any]] = {
    "missing": {"amount": None},
    "wrong": {"amount": "1"},
    "unknown parameter": {"x": 1},
}


def stripe_answer(merchant: Caller, what: str) -> Any:
    """An error, asked for by one of Stripe's clients."""
    client = merchant.speaking_stripe()
    if what == "key_reused":
        client.authorize(key="one key")
        return client.authorize(key="one key")
    if what == "decline":
        return client.authorize(card=EMPTY_CARD)
    if what in WRONG:
        return client.authorize(**WRONG[what])
    if what == "unknown id":
        return client.get("/v1/receipts/pay_x")
    if what == "unknown route":
        return client.get("/v1/nowhere")
    if what == "refunded twice":
        return client.refund(merchant.refunded()["payment_id"])
    return client.capture(merchant.captured()["payment_id"])


@pytest.mark.parametrize(
    ("what", "status", "error_type", "code"),
    [
        ("key_reused", 400, "idempotency_error", "key_reused"),
        ("decline", 402, "card_error", "insufficient_funds"),
        ("missing", 400, INVALID, "parameter_missing"),
        ("wrong", 400, INVALID, "parameter_invalid"),
        ("unknown parameter", 400, INVALID, "parameter_unknown"),
        ("unknown id", 404, INVALID, "resource_missing"),
        ("unknown route", 404, INVALID, "resource_missing"),
        ("refunded twice", 400, INVALID, "charge_already_refunded"),
        ("captured twice", 400, INVALID, "payment_already_captured"),
    ],
)
def test_stripes_clients_are_told_in_stripes_words(
    merchant: Caller, what: str, status: int, *, error_type: str, code: str
) -> None:
    response = stripe_answer(merchant, what)

    assert brief(error_of(response, status), "type", "code") == (error_type, code)
    assert response.headers["Stripe-Should-Retry"] == "false"
    assert response.headers["Stripe-Version"] == "2025-03-31.basil"


def test_an_answer_that_was_kept_is_in_the_words_it_was_asked_for(merchant: Caller) -> None:
    client, body = merchant.speaking_stripe(), an_authorization(card=EMPTY_CARD)
    client.post("/v1/authorizations", body, key="one key")

    replayed = client.post("/v1/authorizations", body, key="one key")

    assert replayed.status_code == 402
    assert replayed.headers["Stripe-Should-Retry"] == "false"


def test_everyone_is_told_whether_to_retry(merchant: Caller) -> None:
    for response in (
        merchant.authorize(card=EMPTY_CARD),
        merchant.authorize(amount=0),
        merchant.get("/nowhere"),
        merchant.request("PUT", "/v1/captures"),
    ):
        assert response.headers["Stripe-Should-Retry"] == "false"


def test_a_success_does_not_say_whether_to_retry(merchant: Caller) -> None:
    assert "Stripe-Should-Retry" not in merchant.get("/v1/receipts").headers

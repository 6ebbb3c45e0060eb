"""What only the production server shows: bodies without a length, broken connections, the log."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.bodies import MAX_BODY_BYTES
from tests.api.a_server import PATIENCE_SECONDS, Received, Server
from tests.api.an_api import Api, an_authorization, fresh
from tests.infrastructure.bank_simulator.a_bank import Bank

TWENTY_MEGABYTES = 20 * 1024 * 1024
CHUNK = b"a" * 65536


@pytest.fixture
def key(server: tuple[Server, Api]) -> str:
    merchant = server[1].merchant()
    assert merchant.key is not None
    return merchant.key


@pytest.fixture
def real(server: tuple[Server, Api], simulator: Bank) -> Server:
    return server[0]


def in_chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // len(CHUNK)):
        yield CHUNK


def headers_of(key: str, **more: str) -> dict[str, str]:
    common = {"Authorization": f"Bearer {key}", "Idempotency-Key": fresh("key")}
    return {**common, "Content-Type": "application/json", **more}


def error_code(received: Received) -> tuple[int, str]:
    assert received.headers["content-type"] == "application/json"
    return received.status, received.json["error"]["code"]


def test_a_payment_goes_through_the_real_server(real: Server, key: str) -> None:
    body, idempotency_key = an_authorization(), fresh("key")

    first = real.post("/v1/authorizations", body, key, idempotency_key)
    again = real.post("/v1/authorizations", body, key, idempotency_key)
    captured = real.post("/v1/captures", {"payment_id": first.json["payment_id"]}, key, fresh("k"))
    read = real.request("GET", first.headers["location"], headers=headers_of(key))

    assert (first.status, captured.status, read.status) == (201, 201, 200)
    assert again.text == first.text
    assert again.headers["idempotent-replayed"] == "true"
    assert read.text == captured.text


def test_a_body_in_chunks_is_read(real: Server, key: str) -> None:
    parts = [json.dumps(an_authorization()).encode()[n : n + 50] for n in range(0, 500, 50)]

    received = real.request("POST", "/v1/authorizations", iter(parts), headers_of(key))

    assert received.status == 201, received.text


def test_a_body_that_is_too_large_is_a_413_with_a_length_and_without(
    server: tuple[Server, Api], key: str
) -> None:
    real, api = server
    before = api.behind()

    with_length = outcome(real, key, b"a" * TWENTY_MEGABYTES)
    in_parts = outcome(real, key, in_chunks(TWENTY_MEGABYTES))

    assert with_length in {(413, "request_too_large"), "hung up"}
    assert in_parts in {(413, "request_too_large"), "hung up"}
    assert api.behind() == before


def test_a_body_without_a_length_is_never_cut_off(server: tuple[Server, Api], key: str) -> None:
    real, api = server
    before = api.behind()
    whole = json.dumps(an_authorization()).encode()
    longest = whole.ljust(MAX_BODY_BYTES)

    one_more = real.request("POST", "/v1/authorizations", iter([longest, b"x"]), headers_of(key))

    assert error_code(one_more) == (413, "request_too_large")
    assert api.behind() == before
    received = real.request("POST", "/v1/authorizations", iter([longest]), headers_of(key))
    assert received.status == 201, received.text


def outcome(real: Server, key: str, body: bytes | Iterator[bytes]) -> Any:
    """What came back, which a sender that is still sending may not see."""
    try:
        return error_code(real.request("POST", "/v1/authorizations", body, headers_of(key)))
    except (BrokenPipeError, ConnectionResetError):
        return "hung up"


def test_a_caller_that_goes_away_half_way_begins_nothing(
    server: tuple[Server, Api], key: str
) -> None:
    real, api = server
    before = api.behind()
    lines = [f"{name}: {value}\r\n" for name, value in headers_of(key).items()]

    with socket.create_connection(("127.0.0.1", real.port)) as line:
        head = "POST /v1/authorizations HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n"
        line.sendall((head + "".join(lines) + "\r\n" + '{"order_id": "').encode())

    assert real.request("GET", "/v1/health").status == 200
    assert api.behind() == before


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v1/orders/%00", (404, "order_not_found")),
        ("/v1/orders/%ff%fe", (404, "order_not_found")),
        ("/v1/orders/a%2F%2Fb", (404, "order_not_found")),
        ("/v1//receipts", (404, "route_not_found")),
        ("/v1/receipts?limit=%zz", (400, "invalid_param")),
        ("/v1/receipts?order_id=%ff", (400, "invalid_param")),
        ("/v1/receipts?" + "a=1&" * 1500, (400, "invalid_param")),
        ("/v1/receipts/" + "x" * 20_000, (404, "payment_not_found")),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_odd_targets_are_errors_in_json(
    real: Server, key: str, target: str, expected: tuple[int, str]
) -> None:
    received = real.request("GET", target, headers=headers_of(key))

    assert error_code(received) == expected


def test_a_head_has_no_body(real: Server, key: str) -> None:
    received = real.request("HEAD", "/v1/receipts", headers=headers_of(key))

    assert (received.status, received.text) == (200, "")


def test_one_connection_serves_many_requests(real: Server, key: str) -> None:
    head = f"GET /v1/receipts/pay_x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n"

    with socket.create_connection(("127.0.0.1", real.port), timeout=10) as line:
        line.sendall(head.encode() * 3)
        received = b""
        while received.count(b"payment_not_found") < 3:
            part = line.recv(65536)
            assert part, "hung up"
            received += part

    assert received.count(b"HTTP/1.1 404") == 3


def test_the_servers_processes_share_their_metrics(real: Server, key: str) -> None:
    real.request("GET", "/v1/receipts", headers=headers_of(key))

    text = real.request("GET", "/metrics").text

    families = {family.name: family for family in text_string_to_metric_families(text)}
    counted = families["counterfoil_http_requests"].samples
    wanted = {"method": "GET", "route": "/v1/receipts", "status": "200"}
    assert [one.value for one in counted if one.labels == wanted and one.value >= 1]
    assert "counterfoil_operations_outstanding" in families


# --- the log ------------------------------------------------------------------------------------

FIELDS = {
    "timestamp",
    "method",
    "path",
    "status_code",
    "processing_time_ms",
    "user_agent",
    "api_key_prefix",
    "request_id",
}


def test_each_request_is_one_line_in_the_log(real: Server, key: str) -> None:
    received = real.request(
        "GET", "/v1/receipts?limit=5", headers=headers_of(key) | {"User-Agent": "a shop/1.0"}
    )

    line = real.log_line(received.headers["request-id"])

    assert set(line) == FIELDS | {"event", "level"}
    assert line["level"] == "info"
    assert (line["method"], line["path"], line["status_code"]) == ("GET", "/v1/receipts", 200)
    assert (line["user_agent"], line["api_key_prefix"]) == ("a shop/1.0", key[:12])
    assert isinstance(line["processing_time_ms"], float)
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("path", "headers", "level", "status"),
    [
        ("/v1/health", {}, "info", 200),
        ("/v1/receipts", {}, "warning", 401),
        ("/nowhere", {"User-Agent": ""}, "warning", 404),
    ],
)
def test_a_line_without_a_key_has_the_level_of_its_status(
    real: Server, path: str, headers: dict[str, str], level: str, status: int
) -> None:
    received = real.request("GET", path, headers=headers)

    line = real.log_line(received.headers["request-id"])

    assert (line["level"], line["status_code"], line["api_key_prefix"]) == (level, status, None)
    assert line["user_agent"] is None


# --- two processes ------------------------------------------------------------------------------


@pytest.fixture
def two_processes(server: tuple[Server, Api], tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Servers of one database."""
    one, api = server
    assert api.services.settings.database_url is not None
    other = Server(tmp_path, api.services.settings.database_url)
    yield one, other
    other.stop()


def seconds_until(status: int, server: Server, key: str) -> float:
    """From now until the last request was begun that was answered otherwise, with no pause between."""
    latest = began = time.monotonic()
    while True:
        asked_at = time.monotonic()
        if server.request("GET", "/v1/orders/x", headers=headers_of(key)).status == status:
            return latest - began
        latest = asked_at
        assert latest - began < PATIENCE_SECONDS


def test_within_a_second_every_process_knows_of_a_revocation_and_of_a_suspension(
    server: tuple[Server, Api], two_processes: tuple[Server, Server]
) -> None:
    keys = server[1].services.api_keys
    revoked, suspended = server[1].merchant(), server[1].merchant()
    for asked in two_processes:
        for each in (revoked, suspended):
            assert seconds_until(404, asked, each.key or "") < PATIENCE_SECONDS

    assert revoked.record is not None
    keys.revoke(revoked.record.key_id)
    keys.suspend(suspended.merchant)

    with ThreadPoolExecutor(4) as threads:
        waits = [
            threads.submit(seconds_until, status, asked, each.key or "")
            for asked in two_processes
            for status, each in ((401, revoked), (403, suspended))
        ]
        assert max(each.result() for each in waits) < 1

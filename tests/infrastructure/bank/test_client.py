"""What came back, whatever it was, and what did not: in bounded time and size."""

import gzip
import socket
import time
from collections.abc import Iterator

import pytest

from infrastructure.bank.client import MAX_BODY_BYTES, BankClient, NoReply, NotSent, Reply
from tests.infrastructure.bank.a_bad_bank import (
    BadBank,
    Behaviour,
    drips,
    hangs_up,
    is_silent,
    refuses,
    says,
    sends,
)
from tests.patience import stopwatch

OK = b"HTTP/1.1 200 OK\r\n"
PATIENCE_SECONDS = 5.0  # for an answer that comes
SHORT_SECONDS = 0.5  # for one that does not
AT_MOST_SECONDS = 15.0  # what it may take to give it up, on a busy machine


@pytest.fixture
def bank() -> Iterator[BadBank]:
    with BadBank() as bank:
        yield bank


def post(bank: BadBank, *, timeout_seconds: float = PATIENCE_SECONDS) -> Reply:
    client = BankClient(bank.url, connections=1)
    return client.post("/api/v1/voids", "a-key", {"a": 1}, timeout_seconds=timeout_seconds)


def test_a_request_is_json_under_its_key(bank: BadBank) -> None:
    bank.will(says(200, {"void_id": "void_1"}))

    reply = post(bank)

    (heard,) = bank.heard
    assert (heard.method, heard.path, heard.key) == ("POST", "/api/v1/voids", "a-key")
    assert heard.headers["content-type"] == "application/json"
    assert heard.body == {"a": 1}
    assert reply == Reply(status=200, body={"void_id": "void_1"}, replayed=False)


def test_a_replay_says_so(bank: BadBank) -> None:
    bank.will(says(200, {}, X_Idempotent_Replayed="true"))

    assert post(bank).replayed


def test_the_code_is_the_banks_own_word(bank: BadBank) -> None:
    bank.will(refuses(402, "insufficient_funds"))

    reply = post(bank)

    assert (reply.status, reply.code) == (402, "insufficient_funds")


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[]", b'"text"', b"null", b"\xff\xfe", b"[" * 60_000, b"{"]
)
def test_what_is_no_json_object_is_a_reply_without_a_body(bank: BadBank, body: bytes) -> None:
    bank.will(says(400, body))

    reply = post(bank)

    assert (reply.status, reply.body, reply.code) == (400, None, None)


@pytest.mark.parametrize("code", [None, 7, {"a": 1}, ["insufficient_funds"]])
def test_a_code_that_is_no_text_is_none(bank: BadBank, code: object) -> None:
    bank.will(says(400, {"error": code}))

    assert post(bank).code is None


def test_a_redirect_is_not_followed(bank: BadBank) -> None:
    bank.will(says(307, {}, Location="/api/v1/refunds"))

    assert post(bank).status == 307
    assert len(bank.heard) == 1


def test_a_proxy_of_the_environment_is_not_used(
    bank: BadBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    bank.will(says(200, {}))

    assert post(bank).status == 200


def test_a_connection_is_kept_for_the_next_request(bank: BadBank) -> None:
    client = BankClient(bank.url, connections=1)
    bank.will(says(200, {}), says(200, {}))

    replies = [
        client.post("/api/v1/voids", "k", {}, timeout_seconds=PATIENCE_SECONDS) for _ in range(2)
    ]

    assert [reply.status for reply in replies] == [200, 200]


# --- nothing reached the bank ---


def test_a_refused_connection_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = BankClient(f"http://127.0.0.1:{port}", connections=1)

    with pytest.raises(NotSent):
        client.post("/api/v1/voids", "k", {}, timeout_seconds=PATIENCE_SECONDS)


# --- something may have ---


@pytest.mark.parametrize(
    "behaviour",
    [
        is_silent,
        hangs_up,
        sends(b"nonsense\r\n\r\n", then="hang up"),
        sends(OK, then="hang up"),
        sends(OK + b"Content-Length: 100\r\n\r\n{", then="hang up"),
        sends(OK + b"Content-Length: 100\r\n\r\n{"),
        sends(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", then="hang up"),
        sends(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", then="hang up"),
        sends(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"),
        says(200, b"x" * (MAX_BODY_BYTES + 1)),
        says(200, gzip.compress(b" " * 50_000_000), Content_Encoding="gzip"),
        drips(OK + b"Content-Length: 100000\r\n\r\n", b" ", every=0.05),
        drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", every=0.05),
        drips(OK, b"X-Slow: 1\r\n", every=0.05),
        drips(b"", b"H", every=0.05),
    ],
    ids=[
        "silent",
        "hangs up",
        "no HTTP",
        "headers cut short",
        "body cut short",
        "body that stops",
        "chunks cut short",
        "chunks of nonsense",
        "no gzip",
        "too large",
        "too large once unpacked",
        "dripping body",
        "dripping chunks",
        "dripping headers",
        "dripping status line",
    ],
)
def test_what_is_no_whole_answer_in_time_is_no_reply(bank: BadBank, behaviour: Behaviour) -> None:
    bank.will(behaviour)
    started = time.monotonic()

    with pytest.raises(NoReply):
        post(bank, timeout_seconds=SHORT_SECONDS)

    assert time.monotonic() - started < AT_MOST_SECONDS
    assert len(bank.heard) == 1


def test_a_body_as_large_as_may_be_is_read(bank: BadBank) -> None:
    padding = b" " * (MAX_BODY_BYTES - 2)
    bank.will(says(200, b"{}" + padding))

    assert post(bank).body == {}


# --- health ---


@pytest.mark.parametrize(
    ("behaviour", "healthy"),
    [
        (says(200, {"status": "healthy"}), True),
        (says(503, {"status": "unhealthy"}), False),
        (says(302, {}, Location="/elsewhere"), False),
        (hangs_up, False),
    ],
)
def test_the_bank_is_well_when_it_says_so(
    bank: BadBank, behaviour: Behaviour, healthy: bool
) -> None:
    bank.health_will(behaviour)

    assert BankClient(bank.url, connections=1).is_healthy() is healthy


@pytest.mark.parametrize(
    "behaviour",
    [is_silent, drips(OK + b"Content-Length: 100000\r\n\r\n", b" ", every=0.1)],
    ids=["silent", "dripping"],
)
def test_a_bank_that_takes_too_long_to_say_so_is_not_well(
    bank: BadBank, behaviour: Behaviour
) -> None:
    bank.health_will(behaviour)
    started = time.monotonic()

    BankClient(bank.url, connections=1).is_healthy()

    assert time.monotonic() - started < AT_MOST_SECONDS


# --- a deadline is one for head and body ---


def test_a_late_head_leaves_the_body_no_more_than_the_time_that_is_left(bank: BadBank) -> None:
    def comes_late_and_stalls(bank: BadBank, line: socket.socket) -> None:
        bank.closed.wait(1.5)
        line.sendall(OK + b"Content-Length: 100\r\n\r\n{")
        bank.closed.wait(PATIENCE_SECONDS)

    bank.will(comes_late_and_stalls)

    with stopwatch() as watch, pytest.raises(NoReply):
        post(bank, timeout_seconds=2.0)

    assert watch.seconds < 3.4


def test_what_is_too_late_when_its_turn_comes_is_not_sent(bank: BadBank) -> None:
    """As by a process that was stopped between deciding to ask and asking."""
    bank.will(says(200, {}))
    bank.will(says(200, {}))
    client = BankClient(bank.url, connections=1)
    client.post("/api/v1/voids", "in-time", {}, timeout_seconds=PATIENCE_SECONDS)

    with pytest.raises(NotSent):
        client.post("/api/v1/voids", "too-late", {}, timeout_seconds=1e-9)

    client.post("/api/v1/voids", "in-time-again", {}, timeout_seconds=PATIENCE_SECONDS)
    assert [heard.key for heard in bank.heard] == ["in-time", "in-time-again"]

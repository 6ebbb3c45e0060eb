"""How the bank starts, stops and comes back."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from infrastructure.bank_simulator.server import BankOptions, WrongOptions
from tests.infrastructure.bank_simulator.a_bank import (
    CALM,
    HAPPY,
    Bank,
    eventually,
    hang_up_on,
    outcome,
    start_process,
)


def test_what_was_answered_survives_a_killed_bank(
    tmp_path: Path, start_bank: Callable[..., Bank]
) -> None:
    first = start_bank(tmp_path / "bank.db", *CALM)
    hold = first.post("authorizations", HAPPY, "k").json
    first.kill()

    second = start_bank(tmp_path / "bank.db", *CALM)
    assert second.post("authorizations", {}, "k").json == hold
    assert second.ledger()["accounts"][0]["available_balance"] == 995_000


def test_a_file_is_held_by_one_bank_alone(tmp_path: Path, start_bank: Callable[..., Bank]) -> None:
    start_bank(tmp_path / "bank.db", *CALM)
    second = start_process("--database", str(tmp_path / "bank.db"), "--port", "0")
    status, complaint = outcome(second)
    assert status == 2
    assert "cannot use the database" in complaint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_bank_although_callers_wait(
    tmp_path: Path, start_bank: Callable[..., Bank], number: int
) -> None:
    bank = start_bank(tmp_path / "bank.db", *CALM)
    bank.faults(hang={"milliseconds": 14_000})
    line = hang_up_on(bank, "authorizations", HAPPY, "k")
    eventually(lambda: bank.get("/__faults").json["hang"] is None)

    assert bank.stop(number) == 0
    assert line.recv(1) == b""
    line.close()


@pytest.mark.parametrize(
    "options",
    [
        ("--failure-rate", "2"),
        ("--failure-rate", "often"),
        ("--min-latency-ms", "5000"),
        ("--auth-expiry-hours", "-1"),
        ("--profile", "unknown"),
        ("--port", "99999"),
    ],
)
def test_a_wrong_value_is_one_clear_line_and_exit_2(
    tmp_path: Path, options: tuple[str, str]
) -> None:
    bank = start_process("--database", str(tmp_path / "bank.db"), *options)
    status, complaint = outcome(bank)
    assert status == 2
    assert complaint.startswith("bank: ")
    assert complaint.count("\n") == 1


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        bank = start_process("--database", str(tmp_path / "bank.db"), "--port", port)
        status, complaint = outcome(bank)
    assert status == 2
    assert "the port is in use" in complaint


def test_the_environment_stands_in_for_options(tmp_path: Path) -> None:
    bank = start_process("--database", str(tmp_path / "bank.db"), FAILURE_RATE="lots")
    status, complaint = outcome(bank)
    assert status == 2
    assert "--failure-rate" in complaint


def test_the_options_state_their_rules() -> None:
    with pytest.raises(WrongOptions, match="profile"):
        BankOptions(profile="other")
    with pytest.raises(WrongOptions, match="latency"):
        BankOptions(min_latency_ms=10, max_latency_ms=5)

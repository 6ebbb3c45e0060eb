"""`up` and `down` refuse in one line what cannot work, before anything is started."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infrastructure.settings import read_settings
from scripts.console import with_bank_beside
from scripts.up import Folder

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 50


def test_a_port_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        port = occupant.getsockname()[1]

        done = run("scripts.up", "--port", str(port), "--data", str(tmp_path))

    assert_refused(done, f"port {port} on 127.0.0.1 cannot be used")
    assert not (tmp_path / "postgres").exists()


def test_a_second_up_on_the_same_data_is_refused_in_one_line(tmp_path: Path) -> None:
    with Folder(tmp_path).lock():
        done = run("scripts.up", "--data", str(tmp_path))

    assert_refused(done, "./scripts/up")


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1", "٣"])
def test_a_wrong_port_in_the_environment_is_refused_in_one_line(tmp_path: Path, port: str) -> None:
    done = run("scripts.up", "--data", str(tmp_path), PORT=port)

    assert_refused(done, "PORT is ")


def test_an_unknown_option_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("scripts.up", "--data", str(tmp_path), "--fast")

    assert_refused(done, "--fast")


def test_down_says_when_nothing_runs(tmp_path: Path) -> None:
    done = run("scripts.down", "--data", str(tmp_path))

    assert done.returncode == 0
    assert done.stderr == "counterfoil: nothing runs\n"


def test_a_command_asks_the_bank_that_up_runs_unless_another_is_named(tmp_path: Path) -> None:
    environ = {"DATA_DIR": str(tmp_path)}
    assert with_bank_beside(read_settings(environ)).bank_url == "http://127.0.0.1:8787"
    Folder(tmp_path).bank_url.write_text("http://127.0.0.1:4711\n")

    assert with_bank_beside(read_settings(environ)).bank_url == "http://127.0.0.1:4711"
    for name, url in (("BANK_URL", "http://b:1"), ("DATABASE_URL", "postgresql:///another")):
        settings = read_settings({**environ, name: url})
        assert with_bank_beside(settings) == settings


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    unset = {name: value for name, value in os.environ.items() if name not in ("PORT", "HOST")}
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env={**unset, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr

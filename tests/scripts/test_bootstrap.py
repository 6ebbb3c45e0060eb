"""The set-up of .venv: refuses what cannot work in one line, and repairs what was left half done."""

import ast
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "scripts" / "bootstrap.py"
PATIENCE_SECONDS = 50
AS_OLDER_PYTHON = """
import runpy, sys
sys.version_info = (3, 10, 13, "final", 0)
runpy.run_path(sys.argv[1], run_name="__main__")
"""

A_CLI_WITH_A_PROCESS = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def main():
    print("begun", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        print(pool.submit(abs, -4).result())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that depends on nothing, so that its set-up needs no network."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(BOOTSTRAP, tmp_path / "scripts")
    for name in ("requirements.lock", "requirements-dev.lock"):
        (tmp_path / name).write_text("")
    return tmp_path


def test_an_older_python_is_refused_in_one_line() -> None:
    done = run([sys.executable, "-c", AS_OLDER_PYTHON, str(BOOTSTRAP)])

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Python 3.11 or newer is needed, this is 3.10" in done.stderr


@pytest.mark.parametrize("name", ["bootstrap.py", "up", "down", "test"])
def test_an_older_python_can_read_the_file_that_refuses_it(name: str) -> None:
    source = (BOOTSTRAP.parent / name).read_text()

    ast.parse(source, feature_version=(3, 7))


def test_a_half_finished_set_up_is_repaired(project: Path) -> None:
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "unfinished").touch()

    done = bootstrap(project)

    assert done.returncode == 0, done.stderr
    assert (project / ".venv" / "bin" / "counterfoil").exists()
    assert not (project / ".venv" / "unfinished").exists()


def test_what_tests_need_is_finished_beside_what_runs(project: Path) -> None:
    assert bootstrap(project).returncode == 0
    venv = project / ".venv"
    (venv / "unfinished").write_text("dev")
    (half,) = [each / "half-1.0.dist-info" for each in venv.glob("lib/python*/site-packages")]
    half.mkdir()
    made = (venv / "pyvenv.cfg").stat().st_mtime_ns

    runtime = bootstrap(project)
    was_left = (venv / "unfinished").exists()
    dev = bootstrap(project, "--dev")

    assert (runtime.returncode, dev.returncode) == (0, 0), dev.stderr
    assert (venv / "pyvenv.cfg").stat().st_mtime_ns == made
    assert was_left
    assert not (venv / "unfinished").exists()
    assert not half.exists()


def test_two_set_ups_at_once_both_end_well_and_a_third_has_nothing_to_do(project: Path) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: bootstrap(project), range(2)))
    made = (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns

    third = bootstrap(project)

    assert [each.returncode for each in (*both, third)] == [0, 0, 0]
    assert (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == made


def test_a_process_that_the_command_spawns_does_not_run_the_command_again(project: Path) -> None:
    (project / "scripts" / "cli.py").write_text(A_CLI_WITH_A_PROCESS)
    assert bootstrap(project).returncode == 0

    done = run([str(project / ".venv" / "bin" / "counterfoil")])

    assert (done.returncode, done.stdout) == (0, "begun\n4\n"), done.stderr


def test_a_lock_that_cannot_be_installed_is_refused_in_one_line(project: Path) -> None:
    (project / "requirements.lock").write_text("no-such-package==1.0 --hash=sha256:00\n")

    done = bootstrap(project, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "could not be installed" in done.stderr


def bootstrap(project: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As on a machine without uv."""
    command = [sys.executable, str(project / "scripts" / "bootstrap.py"), *options]
    return run(command, PATH="/usr/bin:/bin", **environment)


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

"""The private Postgres starts whatever happened before, and only once."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from infrastructure import processes
from infrastructure.embedded_postgres import EmbeddedPostgres, PostgresUnavailable

PATIENCE_SECONDS = 20
START_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from infrastructure.embedded_postgres import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1]), durable=False).start())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that `nobody` can reach too, gone afterwards with whatever runs in it."""
    parent = Path(tempfile.mkdtemp(prefix="counterfoil-postgres-"))
    parent.chmod(0o711)
    try:
        yield parent / "postgres"
    finally:
        EmbeddedPostgres(parent / "postgres").remove()
        shutil.rmtree(parent)


@pytest.fixture
def postgres(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder, durable=False)


def test_what_was_stored_is_there_after_a_stop_and_a_start(postgres: EmbeddedPostgres) -> None:
    run(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.stop()
    assert not postgres.is_running()

    url = postgres.start()

    assert run(url, "SELECT answer FROM kept") == 42


def test_durable_server_has_every_safety_on_and_listens_on_no_network(folder: Path) -> None:
    with EmbeddedPostgres(folder) as postgres:
        url = postgres.url()
        settings = {name: setting(url, name) for name in EXPECTED_SETTINGS}

    assert settings == EXPECTED_SETTINGS


EXPECTED_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_checksums": "on",
    "listen_addresses": "",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "server_encoding": "UTF8",
    "TimeZone": "UTC",
}


def test_starting_a_running_server_attaches_to_it(postgres: EmbeddedPostgres, folder: Path) -> None:
    url = postgres.start()
    pid = postgres.pid

    other = EmbeddedPostgres(folder, durable=False)

    assert other.start() == url
    assert other.pid == pid


def test_two_starters_at_once_share_one_server(folder: Path) -> None:
    command = [sys.executable, "-c", START_IN_ANOTHER_PROCESS, str(folder)]
    with ThreadPoolExecutor() as pool:
        urls = list(pool.map(lambda _: output_of(command), range(3)))

    assert len(set(urls)) == 1
    assert run(urls[0].strip(), "SELECT 1") == 1


def test_a_server_outlives_the_process_that_started_it(folder: Path) -> None:
    output_of([sys.executable, "-c", START_IN_ANOTHER_PROCESS, str(folder)])

    assert EmbeddedPostgres(folder).is_running()


def test_a_killed_postmaster_loses_nothing_and_does_not_block_the_start(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    run(postgres.start(), "CREATE TABLE kept AS SELECT 42 AS answer")
    kill(postgres)

    url = postgres.start()

    assert run(url, "SELECT answer FROM kept") == 42


def test_a_pid_file_with_somebody_elses_number_does_not_block_the_start(
    postgres: EmbeddedPostgres, folder: Path
) -> None:
    postgres.start()
    kill(postgres)
    stale = next(folder.glob("cluster/postmaster.pid"))
    stale.write_text("\n".join([str(os.getpid()), *stale.read_text().splitlines()[1:]]))

    url = postgres.start()

    assert run(url, "SELECT 1") == 1


def test_a_half_made_cluster_is_made_anew(postgres: EmbeddedPostgres, folder: Path) -> None:
    half_made = folder / "cluster.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    (folder.parent / "postgres").chmod(0o755)

    assert run(postgres.start(), "SELECT 1") == 1
    assert not half_made.exists()


def test_a_cleaned_temporary_folder_is_made_again(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    shutil.rmtree(socket_folder_of(postgres))
    assert not postgres.is_running()

    assert run(postgres.start(), "SELECT 1") == 1


def test_stopping_twice_and_asking_a_stopped_server_for_its_url(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    postgres.stop()
    postgres.stop()

    with pytest.raises(PostgresUnavailable, match="no server runs"):
        postgres.url()


def test_the_socket_is_closed_to_other_users(postgres: EmbeddedPostgres) -> None:
    postgres.start()

    assert socket_folder_of(postgres).stat().st_mode & 0o777 == 0o700


def run(url: str, statement: str) -> object:
    """The first value that the statement answers, if any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def setting(url: str, name: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        return row[0] if row else None


def kill(postgres: EmbeddedPostgres) -> None:
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: postgres.pid is None, PATIENCE_SECONDS)


def socket_folder_of(postgres: EmbeddedPostgres) -> Path:
    folder = psycopg.conninfo.conninfo_to_dict(postgres.url())["host"]
    return Path(str(folder))


def output_of(command: list[str]) -> str:
    root = Path(__file__).parents[2]
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    ).stdout

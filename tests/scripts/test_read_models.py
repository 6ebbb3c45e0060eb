"""`counterfoil projections` and `operations`: what operators and their programs see."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import pytest
from psycopg import Connection
from psycopg.rows import DictRow

from domain.ids import Prefix, encode
from domain.payment import Payment
from infrastructure.database import Pool
from infrastructure.migrations import migrate
from infrastructure.projections.engine import LEASE_SECONDS
from infrastructure.projections.generations import Slot, drop_beside, hold_alone
from infrastructure.projections.rebuild import LOCK_BUILDER
from projections.registry import ALL, INLINE, read_model
from scripts import console
from tests.builders import Story, a_payment, an_id
from tests.infrastructure.projections.a_log import (
    FOLLOWING_NAMES,
    append,
    append_unreadable,
    backends_that_wait,
    connect,
    follow,
    follower_of,
    generation_of,
    poll_until,
    replayed_rows,
    rows,
)
from tests.patience import PATIENT, patient_pool
from tests.scripts.test_cli import assert_refused, done
from tests.scripts.test_cli import run as run_command

PATIENCE_SECONDS: Final = 30
LISTED: Final = {
    "name", "version", "status", "inline", "lag_events", "lag_seconds", "quarantined", "promoted",
}  # fmt: skip
SPOILED: Final[LiteralString] = "UPDATE balances SET entries = entries + 7 WHERE customer_id = ''"


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with patient_pool(database_url, size=4) as pool:
        yield pool


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection[DictRow]]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Callable[..., Any]:
    """`counterfoil projections …` on the test's database."""
    return lambda *arguments: run_command("projections", *arguments, DATABASE_URL=database_url)


def a_captured_payment(**overrides: Any) -> Payment:
    return Story(a_payment(**overrides)).authorized().captured().payment


def rebuild(run: Callable[..., Any], name: str, *options: str) -> str:
    return done(run("rebuild", name, "--workers", "1", *options))


def listed(run: Callable[..., Any]) -> dict[tuple[str, int], dict[str, Any]]:
    found = json.loads(done(run("list", "--json")))
    return {(row["name"], row["version"]): row for row in found}


# --- list ---


def test_every_read_model_is_listed_with_its_lag(
    run: Callable[..., Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, a_captured_payment())
    follow(connection, follower_of(connection, "customers"))

    found = listed(run)

    assert set(found) == {(model.name, 1) for model in ALL}
    assert all(set(row) == LISTED for row in found.values())
    assert {name for name, _ in found if found[name, 1]["inline"]} == {m.name for m in INLINE}
    lags = {name: found[name, 1]["lag_events"] for name, _ in found}
    none = {model.name: 0 for model in ALL}
    behind = ("api_events", "balances", "balance_transactions", "operations", "webhook_deliveries")
    assert lags == none | dict.fromkeys(behind, 4)
    assert found["balances", 1]["lag_seconds"] > 0
    assert found["customers", 1]["lag_seconds"] == 0
    assert "balances" in done(run("list"))


def test_what_is_beside_is_listed_with_what_became_of_it(run: Callable[..., Any]) -> None:
    rebuild(run, "receipts")
    rebuild(run, "balances", "--promote")
    done(run("pause", "customers"))

    found = listed(run)

    statuses = {key: found[key]["status"] for key in found}
    assert statuses["receipts", 1] == statuses["balances", 2] == "live"
    assert (statuses["receipts", 2], statuses["balances", 1]) == ("ready", "previous")
    assert statuses["customers", 1] == "paused"
    assert not found["receipts", 2]["inline"]
    done(run("resume", "customers"))
    assert listed(run)["customers", 1]["status"] == "live"


# --- rebuild, diff, promote, rollback, retire ---


def test_a_read_model_is_rebuilt_compared_put_in_place_and_put_back(
    run: Callable[..., Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    append(pool, a_captured_payment())
    follow(connection, follower_of(connection, "balances"))

    assert rebuild(run, "balances") == "balances: version 2 is built from 4 events\n"
    assert done(run("diff", "balances")) == "balances: no row differs\n"
    assert json.loads(done(run("diff", "balances", "--json"))) == []
    assert done(run("promote", "balances")) == "balances: version 2 is live\n"
    assert done(run("rollback", "balances")) == "balances: version 1 is live\n"
    assert done(run("retire", "balances")) == "balances: version 2 is gone\n"
    assert_refused(run("retire", "balances"), 1, "nothing beside")


def test_a_difference_is_shown_field_by_field_and_is_status_one(
    run: Callable[..., Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    payment = a_captured_payment(payment_id=an_id(shard=5))
    append(pool, payment)
    follow(connection, follower_of(connection, "balances"))
    rebuild(run, "balances")
    connection.execute(SPOILED)

    as_json, for_people = run("diff", "balances", "--json"), run("diff", "balances")

    assert (as_json.exit_code, for_people.exit_code) == (1, 1)
    key = {
        "shard": 5,
        "merchant_id": payment.tenant.merchant_id,
        "mode": "test",
        "customer_id": "",
        "currency": "USD",
    }
    assert json.loads(as_json.stdout) == [
        {"table": "balances", "key": key, "fields": {"entries": [9, 2]}}
    ]
    assert for_people.stdout.splitlines()[1:] == ["  entries: 9 -> 2"]
    done(run("promote", "balances"))
    assert rows(connection, read_model("balances")) == replayed_rows(connection, "balances")


def test_the_command_that_is_installed_rebuilds_in_several_processes(
    pool: Pool, database_url: str
) -> None:
    """Each of them begins by reading the file that the command is in."""
    append(pool, a_captured_payment())
    command = [str(Path(sys.executable).with_name("counterfoil")), "projections"]
    environ = {"DATABASE_URL": database_url, "PATH": os.environ["PATH"]}

    built = subprocess.run(
        [*command, "rebuild", "balances", "--workers", "2", "--promote"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    assert built.stdout.endswith("balances: version 2 is live\n")


@pytest.mark.parametrize("command", ["promote", "rollback", "retire", "diff"])
def test_what_there_is_nothing_for_is_refused_in_one_line(
    command: str, run: Callable[..., Any]
) -> None:
    assert_refused(run(command, "balances"), 1, "balances")


def test_a_builder_at_work_is_told_in_one_line(
    run: Callable[..., Any], connection: Connection[DictRow]
) -> None:
    connection.execute(LOCK_BUILDER, {"name": "balances"})

    for command in ("rebuild", "retire"):
        assert_refused(run(command, "balances"), 1, "somebody is rebuilding")


def test_tables_in_use_are_told_in_one_line(
    run: Callable[..., Any], connection: Connection[DictRow]
) -> None:
    rebuild(run, "balances")

    with connection.transaction():
        connection.execute("SELECT count(*) FROM balances")
        assert_refused(run("promote", "balances"), 1, "in use", "nothing was changed")

    assert done(run("promote", "balances")) == "balances: version 2 is live\n"


def test_pausing_and_resuming_is_for_what_follows_the_log(run: Callable[..., Any]) -> None:
    assert run("pause", "receipts").exit_code == 2
    assert done(run("pause", "balances")) == "balances is paused\n"
    assert done(run("resume", "balances")) == "balances goes on\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["rebuild", "balances", "--workers", "1"],
        ["diff", "balances"],
        ["promote", "balances"],
        ["rollback", "balances"],
        ["retire", "balances"],
        ["pause", "balances"],
        ["resume", "balances"],
        ["quarantine", "balances"],
        ["retry", "balances"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_database_without_a_schema_is_one_line(
    arguments: list[str], run: Callable[..., Any], connection: Connection[DictRow]
) -> None:
    connection.execute("DROP SCHEMA public, beside, swapping CASCADE; CREATE SCHEMA public")

    assert_refused(run(*arguments), 1, "counterfoil migrate")


# --- what could not be taken in ---


def test_what_is_set_aside_is_listed_and_retried(
    run: Callable[..., Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    bad, good = a_captured_payment(), a_captured_payment()
    append(pool, bad, good)
    append_unreadable(connection, bad, "payment.invented")
    follow(connection, follower_of(connection, "balances"))
    payment_id = encode(Prefix.PAYMENT, bad.id)

    (row,) = json.loads(done(run("quarantine", "balances", "--json")))
    still = run("retry", "balances", payment_id)
    others = done(run("retry", "balances", encode(Prefix.PAYMENT, good.id)))

    assert set(row) == {
        "payment_id", "version", "applied_version", "error", "attempts", "since",
    }  # fmt: skip
    assert (row["payment_id"], row["version"], row["applied_version"]) == (payment_id, 1, 0)
    assert "payment.invented" in row["error"]
    assert (still.exit_code, still.stdout) == (
        1,
        "balances: 1 payments still cannot be taken in\n",
    )
    assert others == "balances: 0 payments still cannot be taken in\n"
    assert json.loads(done(run("quarantine", "balances", "--json")))[0]["attempts"] == 2
    assert listed(run)["balances", 1]["quarantined"] == 1
    rebuilt = rebuild(run, "balances")
    assert rebuilt.endswith("built from 9 events; 1 payments set aside\n")
    assert_refused(run("promote", "balances"), 1, "counterfoil projections quarantine balances")


def test_what_is_no_payments_id_is_not_retried(run: Callable[..., Any]) -> None:
    assert_refused(run("retry", "balances", "nonsense"), 2, "nonsense")
    assert done(run("quarantine", "balances")) == "none\n"


def test_what_other_code_made_is_not_retried_by_this(
    run: Callable[..., Any], pool: Pool, connection: Connection[DictRow]
) -> None:
    bad = a_captured_payment()
    append(pool, bad)
    append_unreadable(connection, bad, "payment.invented")
    follow(connection, follower_of(connection, "balances"))
    connection.execute("UPDATE projection_generations SET code_version = 99")

    assert run("retry", "balances").exit_code == 1

    (row,) = json.loads(done(run("quarantine", "balances", "--json")))
    assert row["attempts"] == 1


def test_what_is_retired_while_it_is_retried_is_told_in_one_line(
    run: Callable[..., Any],
    pool: Pool,
    connection: Connection[DictRow],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "OF_COMMANDS", PATIENT)
    bad = a_captured_payment()
    append(pool, bad)
    append_unreadable(connection, bad, "payment.invented")
    rebuild(run, "balances")

    with ThreadPoolExecutor(1) as threads, connect(database_url) as other:
        with other.transaction():
            hold_alone(other, "balances")
            retried = threads.submit(run, "retry", "balances")
            poll_until(lambda: backends_that_wait(connection) == 1)
            drop_beside(
                other, read_model("balances"), generation_of(other, "balances", Slot.BESIDE)
            )
        assert_refused(retried.result(), 1, "balances", "run it again")


# --- operations ---


def test_operations_are_counted_with_their_outcomes(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    now = datetime.now(UTC)
    paid, declined = (Story(a_payment(at=now), at=now) for _ in range(2))
    append(pool, paid.authorized().captured().payment, declined.declined().payment)
    follow(connection, follower_of(connection, "operations"))
    arguments = ["operations", "--hours", "2", "--json"]

    found = json.loads(done(run_command(*arguments, DATABASE_URL=database_url)))

    counts = {(row["operation"], row["outcome"], row["code"]): row["count"] for row in found}
    assert counts == {
        ("authorization", "requested", ""): 2,
        ("authorization", "succeeded", ""): 1,
        ("authorization", "declined", "insufficient_funds"): 1,
        ("capture", "requested", ""): 1,
        ("capture", "succeeded", ""): 1,
    }
    succeeded = next(row for row in found if row["outcome"] == "succeeded")
    assert (succeeded["mean_seconds"], succeeded["slowest_seconds"]) == (1.0, 1.0)
    requested = next(row for row in found if row["outcome"] == "requested")
    assert (requested["mean_seconds"], requested["slowest_seconds"]) == (None, None)


# --- a new read model, or another version of one ---


def test_migrating_says_what_has_to_be_rebuilt(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    """One that is written with the events and began among them; one that other code made."""
    append(pool, a_captured_payment())
    connection.execute("DROP TABLE refunds")
    connection.execute("DELETE FROM projection_generations WHERE name = 'refunds'")
    connection.execute(
        "UPDATE projection_generations SET code_version = 99 WHERE name = 'balances'"
    )

    migrated = run_command("migrate", DATABASE_URL=database_url)

    assert done(migrated) == "applied the read model refunds\n"
    assert migrated.stderr.splitlines() == [
        f"to do: counterfoil projections rebuild {name} --promote"
        for name in ("refunds", "balances")
    ]
    for name in ("refunds", "balances"):
        options = ["rebuild", name, "--promote", "--workers", "1"]
        done(run_command("projections", *options, DATABASE_URL=database_url))
    again = run_command("migrate", DATABASE_URL=database_url)
    assert (again.stdout, again.stderr) == ("the schema is up to date\n", "")


def test_a_new_database_has_nothing_to_rebuild(
    database_url: str, connection: Connection[DictRow]
) -> None:
    connection.execute("DROP SCHEMA public, beside, swapping CASCADE; CREATE SCHEMA public")

    migrated = run_command("migrate", DATABASE_URL=database_url)

    assert (migrated.exit_code, migrated.stderr) == (0, "")
    assert migrate(database_url) == []


# --- the worker ---


def test_a_worker_that_is_told_to_end_ends_though_it_follows(
    database_url: str, pool: Pool, connection: Connection[DictRow]
) -> None:
    environ = {"DATABASE_URL": database_url, "PATH": os.environ["PATH"]}
    environ |= {"BANK_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "scripts.cli", "work"]
    append(pool, a_captured_payment())
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as worker:
        try:
            poll_until(lambda: positions(connection) == 4 * len(FOLLOWING_NAMES))
            began = time.monotonic()
            worker.send_signal(signal.SIGTERM)

            assert worker.wait(PATIENCE_SECONDS) == 0
            assert time.monotonic() - began < LEASE_SECONDS
        finally:
            worker.kill()

    assert connection.execute(OWNED).fetchone() == {"generations": 0}


POSITIONS: Final[LiteralString] = """
    SELECT sum(position)::int AS n FROM projection_positions WHERE name = ANY(%(names)s)
"""
OWNED: Final[LiteralString] = (
    "SELECT count(*) AS generations FROM projection_generations WHERE owner IS NOT NULL"
)


def positions(connection: Connection[DictRow]) -> int:
    row = connection.execute(POSITIONS, {"names": list(FOLLOWING_NAMES)}).fetchone()
    assert row is not None
    total: int = row["n"]
    return total

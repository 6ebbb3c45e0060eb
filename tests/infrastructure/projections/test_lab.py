"""Two versions of a read model's code over one history: what differs is told field by field, and nothing
of it is left."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from projections import balances, receipts
from scripts.cli import main
from tests.builders import Story
from tests.infrastructure.projections.a_log import append, connect
from tests.patience import patient_pool


@pytest.fixture
def log(database_url: str) -> list[Any]:
    """Two payments of one event more than a hold."""
    payments = [Story().authorized().captured().payment, Story().authorized().voided().payment]
    with patient_pool(database_url, size=1) as pool:
        append(pool, *payments)
    return payments


def other_code(folder: Path, module: Any, *changes: tuple[str, str]) -> Path:
    """The module's code with some of it changed."""
    text = inspect.getsource(module)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "other.py"
    path.write_text(text)
    return path


def diff(database_url: str, *command: str) -> Any:
    environ = {"DATABASE_URL": database_url}
    return CliRunner().invoke(
        main, ["projections", "diff", *command, "--workers", "1"], env=environ
    )


def test_the_same_code_makes_the_same_rows(
    database_url: str, log: list[Any], tmp_path: Path
) -> None:
    path = other_code(tmp_path, receipts)

    result = diff(database_url, "receipts", "--code", str(path))

    assert (result.exit_code, result.stdout) == (0, "receipts: 2 rows, 0 differ\n")


def test_what_another_version_makes_otherwise_is_told_field_by_field(
    database_url: str, log: list[Any], tmp_path: Path
) -> None:
    changed = (
        'receipt["amount_captured"] = receipt["pending_amount"]',
        'receipt["amount_captured"] = 1',
    )
    path = other_code(tmp_path, receipts, changed)

    result = diff(database_url, "receipts", "--code", str(path), "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["tables"]["receipts"] == {
        "ours": 2,
        "other": 2,
        "differ": 1,
        "only_ours": 0,
        "only_other": 0,
    }
    (field,) = told["fields"]
    assert (field["field"], field["count"]) == ("document.amount_captured", 1)
    (example,) = field["examples"]
    assert (example["key"]["payment_id"], example["ours"], example["other"]) == (
        str(log[0].id),
        5000,
        1,
    )


def test_rows_that_only_one_version_makes_and_sums_that_follow_are_told(
    database_url: str, log: list[Any], tmp_path: Path
) -> None:
    changed = ("Payment.Voided() | Payment.Expired() if held", "Payment.Expired() if held")
    path = other_code(tmp_path, balances, changed)

    told = json.loads(diff(database_url, "balances", "--code", str(path), "--json").stdout)

    assert told["tables"]["entries"]["only_ours"] == 1
    assert {"balances", "entries"} == {each["table"] for each in told["fields"]}


def test_code_that_cannot_take_in_what_happened_is_told(
    database_url: str, log: list[Any], tmp_path: Path
) -> None:
    changed = ("case Payment.VoidRequested():", "case Payment.VoidRequested() if 1 / 0:")
    path = other_code(tmp_path, receipts, changed)

    result = diff(database_url, "receipts", "--code", str(path), "--json")

    assert json.loads(result.stdout)["failed"] == {"other": 1}


def test_nothing_of_a_comparison_is_left(database_url: str, log: list[Any], tmp_path: Path) -> None:
    diff(database_url, "receipts", "--code", str(other_code(tmp_path, receipts)))

    with connect(database_url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace").fetchall()
        kept = connection.execute("SELECT count(*) AS n FROM projection_generations").fetchone()
    assert not [row for row in rows if row["nspname"].startswith("lab_")]
    assert kept is not None


@pytest.mark.parametrize("code", ["no/such.py", "no.such.module", "json"])
def test_code_that_is_none_is_refused_in_one_line(database_url: str, code: str) -> None:
    result = diff(database_url, "receipts", "--code", code)

    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


def test_the_code_of_a_revision_is_found_by_git(database_url: str, log: list[Any]) -> None:
    same = diff(database_url, "receipts", "--revision", "HEAD")
    unknown = diff(database_url, "receipts", "--revision", "no-such-revision")

    assert same.exit_code in (0, 1)
    assert "receipts: 2 rows" in same.stdout
    assert (unknown.exit_code, len(unknown.stderr.splitlines())) == (2, 1)

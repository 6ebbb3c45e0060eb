"""The tests can fail: each deliberate mistake can still be made, and is caught."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scripts.mutants import SERVER, Mutant, read_table
from tests.conftest import Databases

ROOT: Final = Path(__file__).parents[2]
FEWEST: Final = 24
PATIENCE_SECONDS: Final = 1500
TABLE: Final = read_table()


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def run(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scripts.mutants", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_there_are_enough_of_them() -> None:
    assert len(TABLE) >= FEWEST


@pytest.mark.parametrize("mutant", TABLE, ids=[each.name for each in TABLE])
def test_a_mistake_can_be_made_and_its_tests_are_there(mutant: Mutant) -> None:
    before = (ROOT / mutant.file).read_text("utf-8")

    after = mutant.made_in(before)

    assert ast.dump(ast.parse(after)) != ast.dump(ast.parse(before))
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert name in functions_in(ROOT / path), test


@pytest.mark.parametrize("text", ["", "twice twice"])
def test_a_mistake_that_cannot_be_made_is_told(text: str) -> None:
    mutant = Mutant(name="a", breaks="b", file="c", old="twice", new="d", tests=[])

    with pytest.raises(ValueError, match="its old text is"):
        mutant.made_in(text)


def test_a_name_that_nobody_has_is_refused() -> None:
    done = run("--only", "nobody")

    assert done.returncode == 2
    assert "there is no nobody" in done.stderr


@pytest.mark.proof
@pytest.mark.timeout(PATIENCE_SECONDS)
def test_each_mistake_is_caught(databases: Databases) -> None:
    done = run("--json", "-j", "2", **{SERVER: databases.url})

    assert done.stdout, done.stderr
    survived = [each for each in json.loads(done.stdout) if each["caught_by"] is None]
    assert survived == []
    assert done.returncode == 0

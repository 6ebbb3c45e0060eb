"""`./scripts/mutants`: makes deliberate mistakes in the way that money takes, and shows what catches each.

The mistakes are chosen, in SQL as in Python, and each names the few tests that are to see it: mutmut and
cosmic-ray make their own by the thousand, of operators in Python alone, and run a whole suite for each.
"""

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from infrastructure.embedded_postgres import EmbeddedPostgres

ROOT: Final = Path(__file__).resolve().parent.parent
TABLE: Final = Path("tests/mutants/table.toml")
NOT_COPIED: Final = (
    ".git",
    ".venv",
    ".data",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "node_modules",
)
SURVIVED, FAILING_ANYWAY = 1, 2
LONGEST_SECONDS: Final = 300.0
SERVER: Final = "TEST_DATABASE_URL"

# As few plug-ins as the tests need: most of the time is start-up.
PYTEST: Final = (
    *("-m", "pytest", "--quiet", "--exitfirst", "--no-header", "--tb=no", "--timeout=60"),
    *("-p", "no:randomly", "-p", "no:xdist", "-p", "no:schemathesis", "-p", "no:cacheprovider"),
)
PASSED, FAILED = 0, 1
FIRST_FAILURE: Final = re.compile(r"^(?:FAILED|ERROR) (\S+(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake: `old` is once in `file`, and becomes `new`; `tests` are to see it."""

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: Sequence[str]

    def made_in(self, text: str) -> str:
        """The file's text with the mistake. Raises ValueError where it cannot be made."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: its old text is {text.count(self.old)} times in it")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a mistake. `caught_by`: the first test that failed, or None: it survived."""

    name: str
    breaks: str
    file: str
    caught_by: str | None
    seconds: float
    note: str = ""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, metavar="NAME", help="These alone; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="An array instead of a table.")
@click.option("-j", "jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1)
def mutants(only: tuple[str, ...], as_json: bool, jobs: int) -> None:
    """Make each mistake of tests/mutants/table.toml in a copy of the tree, run the tests that are to
    catch it, and show which did. Exit 1 if one survives, 2 if the tests fail without any mistake."""
    chosen = [mutant for mutant in read_table() if not only or mutant.name in only]
    unknown = set(only) - {mutant.name for mutant in chosen}
    if unknown:
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}", param_hint="--only")
    with a_workshop() as workshop:
        complaint = workshop.complaint_without(chosen)
        if complaint:
            click.echo(complaint, err=True)
            sys.exit(FAILING_ANYWAY)
        verdicts = workshop.verdicts_on(chosen, jobs)
    click.echo(json.dumps([asdict(each) for each in verdicts]) if as_json else shown(verdicts))
    if any(verdict.caught_by is None for verdict in verdicts):
        sys.exit(SURVIVED)


def read_table(root: Path = ROOT) -> list[Mutant]:
    """All of them, in the order of the table."""
    table = tomllib.loads((root / TABLE).read_text("utf-8"))
    return [Mutant(name=name, **fields) for name, fields in table.items()]


def shown(verdicts: Sequence[Verdict]) -> str:
    """A table to read."""
    wide = max(len(verdict.name) for verdict in verdicts)
    lines = [
        f"{verdict.name:<{wide}}  {verdict.seconds:5.1f} s  {verdict.breaks}\n"
        f"{'':<{wide}}           {verdict.caught_by or f'SURVIVED {verdict.note}'}"
        for verdict in verdicts
    ]
    caught = sum(verdict.caught_by is not None for verdict in verdicts)
    return "\n".join([*lines, f"{caught} of {len(verdicts)} caught"])


@contextmanager
def a_workshop() -> Iterator["Workshop"]:
    """A copy of the tree and a database server, which are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-mutants-"))
    folder.chmod(0o711)  # as root, the server runs as nobody and has to get to its own folder
    private = None
    try:
        url = os.environ.get(SERVER)
        if url is None:
            private = EmbeddedPostgres(folder / "postgres", durable=False)
            url = private.start()
        ignored = shutil.ignore_patterns(*NOT_COPIED)
        shutil.copytree(ROOT, folder / "tree", ignore=ignored, symlinks=True)
        yield Workshop(folder, url)
    finally:
        if private is not None:
            private.remove()
        shutil.rmtree(folder, ignore_errors=True)


class Workshop:
    """Makes mistakes in copies of the tree, one at a time in each."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._database_url = database_url
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def complaint_without(self, chosen: Sequence[Mutant]) -> str | None:
        """What fails without any mistake, which would prove nothing; None where all is well."""
        tests = sorted({test for mutant in chosen for test in mutant.tests})
        status, output = self._run(self._folder / "tree", tests)
        return None if status == PASSED else f"without any mistake:\n{output}"

    def verdicts_on(self, chosen: Sequence[Mutant], jobs: int) -> list[Verdict]:
        """In the order asked, `jobs` at once, each in a copy of the tree with its bytecode."""
        for number in range(jobs):
            tree = self._folder / f"tree-{number}"
            shutil.copytree(self._folder / "tree", tree, symlinks=True)
            self._free.put(tree)
        with ThreadPoolExecutor(jobs) as threads:
            running = threads.map(self._verdict_on, chosen)
            with click.progressbar(running, length=len(chosen), file=sys.stderr) as progress:
                return list(progress)

    def _verdict_on(self, mutant: Mutant) -> Verdict:
        tree = self._free.get()
        try:
            return self._in_tree(tree, mutant)
        finally:
            self._free.put(tree)

    def _in_tree(self, tree: Path, mutant: Mutant) -> Verdict:
        path, began = tree / mutant.file, time.monotonic()
        text = path.read_text("utf-8")
        path.write_text(mutant.made_in(text), "utf-8")
        try:
            # Two mistakes of one size in one second would share their bytecode.
            status, output = self._run(tree, mutant.tests, PYTHONDONTWRITEBYTECODE="1")
        finally:
            path.write_text(text, "utf-8")
        found = FIRST_FAILURE.search(output)
        caught = status == FAILED and found is not None
        return Verdict(
            name=mutant.name,
            breaks=mutant.breaks,
            file=mutant.file,
            caught_by=found[1] if caught and found else None,
            seconds=round(time.monotonic() - began, 1),
            note="" if caught or status == PASSED else f"(pytest: {output.strip()[-300:]})",
        )

    def _run(self, tree: Path, tests: Sequence[str], **more: str) -> tuple[int, str]:
        """Pytest's status and what it said."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "COUNTERFOIL_"))
        }
        environment |= {SERVER: self._database_url, "PYTHONPATH": str(tree), **more}
        try:
            done = subprocess.run(
                [sys.executable, "-P", *PYTEST, *tests],
                cwd=tree,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"it took longer than {LONGEST_SECONDS:.0f} s"
        return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    mutants(prog_name="./scripts/mutants")

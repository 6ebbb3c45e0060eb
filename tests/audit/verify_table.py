"""The table in docs/audit-verify.md: `python -m tests.audit.verify_table` writes it.

Each of the tests' own tamperings is done to a database of its own, and what `counterfoil verify` says of it
is written down. Hashes differ from run to run and are left out.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from infrastructure.checkpoint_keys import VerifierKey, key_kept_in, signing_keys
from infrastructure.embedded_postgres import EmbeddedPostgres
from infrastructure.migrations import migrate
from infrastructure.verification.findings import Finding
from infrastructure.verification.run import Wanted, verify
from infrastructure.verification.sealed import Outside
from tests.audit.tamperings import TAMPERINGS, Tampering, World, a_world
from tests.conftest import with_database

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "audit-verify.md"
MARK: Final = "<!-- table -->\n"
HASHES: Final = re.compile(r"\b[0-9a-f]{64}\b|[A-Za-z0-9+/]{43}=|counterfoil\+[0-9a-f]{8}\+\S+")


def main() -> None:
    with a_server() as url:
        rows = [row_of(url, tampering) for tampering in TAMPERINGS]
    head = ["| what was done | what is said | in all |", "|---|---|---|"]
    before, _, rest = DOCUMENT.read_text().partition(MARK)
    after = rest.partition(MARK)[2]
    table = "\n".join([*head, *rows]) + "\n"
    DOCUMENT.write_text(f"{before}{MARK}{table}{MARK}{after}")


@contextmanager
def a_server() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-table-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", durable=False)
    try:
        yield postgres.start()
    finally:
        postgres.remove()
        shutil.rmtree(folder, ignore_errors=True)


def row_of(server: str, tampering: Tampering) -> str:
    """One line of the table."""
    url = with_database(server, "tampered")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE IF EXISTS {}").format(Identifier("tampered")))
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier("tampered")))
    migrate(url)
    with tempfile.TemporaryDirectory() as folder:
        world = a_world(url, Path(folder))
        tampering.tamper(world)
        keys = [key.verifier for key in signing_keys(key_kept_in(world.settings.data_dir))]
        found = verified(world, keys, with_outside=tampering.needs_outside)
    told = next(
        each for each in found if each.kind is tampering.finds and is_there(each, tampering)
    )
    line = HASHES.sub("…", told.line).replace("|", "\\|")
    kind, _, says = line.partition(": ")
    print(line)
    return f"| {tampering.name} | `{kind}`: {says} | {len(found)} |"


def verified(world: World, keys: Sequence[VerifierKey], *, with_outside: bool) -> Sequence[Finding]:
    outside = [Outside(name="kept.txt", note=world.kept)] if with_outside else []
    wanted = Wanted(database_url=world.url, keys=keys, outside=outside)
    return verify(wanted, lambda *_: None, workers=1).findings


def is_there(finding: Finding, tampering: Tampering) -> bool:
    return all(getattr(finding, name) == value for name, value in tampering.where.items())


if __name__ == "__main__":
    main()

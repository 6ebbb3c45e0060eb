"""The same events and postings as Parquet files, for analysis at scale: written by DuckDB, and partitioned
by the month in which a payment was made and by a part of its id, so that a partition has whole histories and
the partitions can be read side by side.
"""

import importlib.util
from pathlib import Path
from typing import Any, Final

MEMORY: Final = "512MB"
FOLDER: Final = "parquet"
EVENTS: Final = {
    "position": "BIGINT",
    "event_id": "VARCHAR",
    "aggregate": "VARCHAR",
    "version": "BIGINT",
    "topic": "VARCHAR",
    "at": "VARCHAR",
    "state": "VARCHAR",
    "cause": "VARCHAR",
}
POSTINGS: Final = {
    "aggregate": "VARCHAR",
    "version": "BIGINT",
    "topic": "VARCHAR",
    "at": "VARCHAR",
    "merchant_id": "VARCHAR",
    "mode": "VARCHAR",
    "customer_id": "VARCHAR",
    "currency": "VARCHAR",
    "amounts": "MAP(VARCHAR, BIGINT)",
}
# The first 48 bits of an id are the milliseconds since 1970 at which it was made; the last are random.
COPY: Final = """
    COPY (
        SELECT * REPLACE ("at"::TIMESTAMP AS "at"), strftime(
            make_timestamp(1000 * ('0x' || replace(aggregate, '-', '')[1:12])::BIGINT), '%Y-%m'
        ) AS month, ('0x' || right(aggregate, 1))::INTEGER % 8 AS part
        FROM read_json($source, format = 'newline_delimited', columns = $columns)
    ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (month, part))
"""


class TablesUnavailable(Exception):
    """The library that writes them is not there. One line that says what to do."""


def refuse_if_unavailable() -> None:
    """Before anything is written. Raises TablesUnavailable."""
    if importlib.util.find_spec("duckdb") is None:
        raise TablesUnavailable(
            "Parquet files need the duckdb package: pip --python .venv/bin/python install duckdb"
        )


def write(folder: Path) -> None:
    """From the bundle's lines, of which it reads a few at a time."""
    with connected() as connection:
        for name, columns in (("events", EVENTS), ("postings", POSTINGS)):
            target = folder / FOLDER / name
            target.mkdir(parents=True)
            source = folder / f"{name}.jsonl"
            if source.stat().st_size:
                statement = COPY.replace("{target}", str(target).replace("'", "''"))
                connection.execute(statement, {"source": str(source), "columns": columns})


def connected() -> Any:
    """To DuckDB, in bounded memory."""
    import duckdb  # only where there are tables

    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{MEMORY}'; SET threads = 2; SET TimeZone = 'UTC'")
    return connection

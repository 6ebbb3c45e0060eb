"""A read model by two versions of its code, over the same history, compared field by field.

Both are run over the whole log, shard by shard, each shard in one snapshot, into tables of their own in a
transaction that is rolled back: nobody ever sees them, and nothing is left whatever is killed.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection, Error, sql
from psycopg.rows import DictRow, dict_row

from infrastructure.counted_work import all_of, count, executor, new_count
from infrastructure.projections.batches import Read, decoded, heads_of_the_log
from infrastructure.projections.differences import KEY_COLUMNS
from infrastructure.projections.rebuild import EVENTS, FETCHED_AT_ONCE, write_new
from infrastructure.verification.written import differing
from projections.changes import Change, ReadModel, topics_of
from projections.registry import read_model

AGGREGATES_AT_ONCE: Final = 1_000
OURS: Final = "ours"
OTHER: Final = "other"
SETTINGS: Final[LiteralString] = """
    SELECT set_config('statement_timeout', '0', true), set_config('timezone', 'UTC', true)
"""
DIFFERENCES: Final[LiteralString] = """
    SELECT to_jsonb(a) AS ours, to_jsonb(b) AS other
    FROM {ours} AS a FULL JOIN {other} AS b ON {joined}
    WHERE to_jsonb(a) IS DISTINCT FROM to_jsonb(b)
"""

Progress = Callable[[int, int], None]


class OtherCodeUnusable(Exception):
    """The other version cannot be run. One line that says why."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row in which a field differs."""

    key: dict[str, Any]
    ours: Any
    other: Any


@dataclass(slots=True)
class Compared:
    """What differs: `rows` made by each, by table; `only` in one of them; `fields`, by table and field,
    with the first examples of each; `failed`: histories that one of them could not take in."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    only: dict[str, Counter[str]] = field(default_factory=dict)
    differ: Counter[str] = field(default_factory=Counter)
    fields: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)

    @property
    def is_same(self) -> bool:
        """Whether both make the same of it."""
        return not self.differ and not self.failed

    def add(self, other: "Compared", limit: int) -> None:
        """What another shard has."""
        for mine, theirs in ((self.rows, other.rows), (self.only, other.only)):
            for table, counts in theirs.items():
                mine.setdefault(table, Counter()).update(counts)
        self.differ += other.differ
        self.fields += other.fields
        self.failed += other.failed
        for place, examples in other.examples.items():
            kept = self.examples.setdefault(place, [])
            kept += examples[: limit - len(kept)]


def compare(
    database_url: str, name: str, code: str, progress: Progress, *, workers: int, limit: int
) -> Compared:
    """`name` by the code that runs, beside `code`: a file, or a module's name. `limit`: examples of each
    field. Raises OtherCodeUnusable."""
    other = load(code, name)
    if set(other.TABLES) != set(read_model(name).TABLES):
        raise OtherCodeUnusable(f"it has other tables: {', '.join(other.TABLES)}")
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        heads = heads_of_the_log(connection)
    total = sum(heads)
    counted, found = new_count(), Compared()
    found.rows = {table: Counter() for table in other.TABLES}
    found.only = {table: Counter() for table in other.TABLES}
    with executor(workers, counted) as pool:
        task = partial(compare_shard, database_url, name, code, limit)
        waiting = {pool.submit(task, shard) for shard, head in enumerate(heads) if head}
        parts = all_of(pool, waiting, lambda: progress(min(counted.value // 2, total), total))
    for part in parts:
        found.add(part, limit)
    return found


def load(code: str, name: str) -> ReadModel:
    """The read model of that name in a file, or in a module. Raises OtherCodeUnusable."""
    path = Path(code)
    try:
        if path.suffix == ".py":
            known_as = f"lab_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
            spec = importlib.util.spec_from_file_location(known_as, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(code)
    except Exception as error:
        raise OtherCodeUnusable(f"{code} cannot be imported: {error!r}") from error
    classes: list[Any] = [found for _, found in inspect.getmembers(module, inspect.isclass)]
    for found in classes:
        if found.__module__ == module.__name__ and getattr(found, "name", None) == name:
            model: ReadModel = found()
            return model
    raise OtherCodeUnusable(f"{code} has no read model {name}")


def file_of(name: str) -> Path:
    """Where the code of a read model is."""
    return Path(inspect.getfile(type(read_model(name))))


# --- one shard ----------------------------------------------------------------------------------


def compare_shard(database_url: str, name: str, code: str, limit: int, shard: int) -> Compared:
    """One shard's history by both."""
    found = Compared()
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(SETTINGS)
        models: dict[str, ReadModel] = {OURS: read_model(name), OTHER: load(code, name)}
        schemas = {side: f"lab_{os.getpid()}_{shard}_{side}" for side in models}
        for side, model in models.items():
            found.failed[side] += _make(connection, schemas[side], model, shard)
        found.failed = +found.failed
        for table in models[OURS].TABLES:
            _compare_table(connection, schemas, table, found, limit)
        connection.rollback()
    return found


def _make(connection: Connection[DictRow], schema: str, model: ReadModel, shard: int) -> int:
    """The rows of one version, in a schema of its own; how many histories it could not take in."""
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    connection.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
    connection.execute(model.CREATE)
    failed = 0
    changes = _changes(connection, model, shard)
    while batch := list(islice(changes, AGGREGATES_AT_ONCE)):
        readable = [each for each in batch if isinstance(each, Change)]
        failed += len(batch) - len(readable)
        if readable and not _write(connection, model, readable):
            failed += sum(not _write(connection, model, [each]) for each in readable)
        count(sum(each.new for each in readable))
    return failed


def _changes(connection: Connection[DictRow], model: ReadModel, shard: int) -> Iterator[Read]:
    with connection.cursor(name="history") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        cursor.execute(EVENTS, {"shard": shard, "topics": topics_of(model)}, binary=True)
        yield from decoded(cursor)


def _write(connection: Connection[DictRow], model: ReadModel, changes: Sequence[Change]) -> bool:
    """All of them or none."""
    try:
        writes = model.writes(changes)
        with connection.transaction():
            for write in writes:
                write_new(connection, write)
    except (
        Error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ):
        return False
    return True


def _compare_table(
    connection: Connection[DictRow],
    schemas: dict[str, str],
    table: str,
    found: Compared,
    limit: int,
) -> None:
    names = {side: sql.Identifier(schema, table) for side, schema in schemas.items()}
    found.rows[table] = Counter(
        {side: _count_rows(connection, name) for side, name in names.items()}
    )
    found.only[table] = Counter()
    keys = {side: _key(connection, name) for side, name in names.items()}
    if keys[OURS] != keys[OTHER]:
        raise OtherCodeUnusable(f"the key of {table} is {keys[OTHER]} there, and {keys[OURS]} here")
    joined = sql.SQL(" AND ").join(
        sql.SQL("a.{0} = b.{0}").format(sql.Identifier(name)) for name in keys[OURS]
    )
    query = sql.SQL(DIFFERENCES).format(ours=names[OURS], other=names[OTHER], joined=joined)
    with connection.cursor(name="differences") as cursor:
        cursor.itersize = FETCHED_AT_ONCE
        for row in cursor.execute(query):
            _note(found, table, keys[OURS], row, limit)


def _note(
    found: Compared, table: str, keys: Sequence[str], row: dict[str, Any], limit: int
) -> None:
    ours, other = row[OURS], row[OTHER]
    found.differ[table] += 1
    if ours is None or other is None:
        found.only[table][OTHER if ours is None else OURS] += 1
    present = ours or other
    key = {name: present[name] for name in keys}
    for name, (here, there) in differing("", ours or {}, other or {}):
        place = (table, name.removeprefix("."))
        found.fields[place] += 1
        examples = found.examples.setdefault(place, [])
        if len(examples) < limit:
            examples.append(Example(key, here, there))


def _count_rows(connection: Connection[DictRow], name: sql.Identifier) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) AS rows FROM {}").format(name)).fetchone()
    assert row is not None
    rows: int = row["rows"]
    return rows


def _key(connection: Connection[DictRow], name: sql.Identifier) -> list[str]:
    rows = connection.execute(KEY_COLUMNS, {"table": name.as_string(connection)}).fetchall()
    return [row["name"] for row in rows]

"""The Parquet tables of a bundle, replayed: every payment's history from its events, partition by partition
in several processes, and the balances of it all against those that the bundle says."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from infrastructure.counted_work import all_of, count, executor, new_count
from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.export import tables
from infrastructure.export.selection import OF_POSTING
from infrastructure.shards import shard_of
from projections.balances import Balances
from projections.changes import Change, topics_of

FETCHED_AT_ONCE: Final = 5_000
EVENTS: Final = """
    SELECT aggregate, version, topic, state FROM read_parquet($files, hive_partitioning = false)
    WHERE len(list_filter($topics, lambda each: topic LIKE each)) > 0
    ORDER BY aggregate, version
"""

Sums = dict[str, dict[str, int]]
Progress = Callable[[int, int], None]


class NoTables(Exception):
    """The folder has none. One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """By currency and account, in minor units."""

    events: int
    partitions: int
    replayed: Sums
    bundled: Sums

    @property
    def is_same(self) -> bool:
        """Whether the replay comes to what the bundle says."""
        return self.replayed == self.bundled

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.is_same,
            "events": self.events,
            "partitions": self.partitions,
            "replayed": self.replayed,
            "bundled": self.bundled,
        }


def replay(folder: Path, progress: Progress, *, workers: int) -> Replayed:
    """Of a bundle with tables and whole histories. Raises TablesUnavailable, NoTables."""
    tables.refuse_if_unavailable()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    partitions = sorted((folder / tables.FOLDER / "events").glob("month=*/part=*"))
    if not partitions and manifest["events"]:
        raise NoTables(f"{folder} has no Parquet tables; export with --parquet")
    if not manifest["has_whole_histories"]:
        raise NoTables(
            f"{folder} has no whole histories, but a part of time; nothing can be replayed"
        )
    counted, of = new_count(), manifest["events"]
    with executor(workers, counted) as pool:
        waiting = {pool.submit(partial(replay_partition, each)) for each in partitions}
        found = all_of(pool, waiting, lambda: progress(min(counted.value, of), of))
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for part in found:
        for currency, accounts in part.items():
            sums[currency].update(accounts)
    return Replayed(
        events=manifest["events"],
        partitions=len(partitions),
        replayed={currency: dict(sorted(each.items())) for currency, each in sorted(sums.items())},
        bundled=manifest["postings"],
    )


def replay_partition(partition: Path) -> Sums:
    """What all postings of its payments sum to."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    model, mapper = Balances(), FlatMapper(FlatJSON())
    for aggregate, rows in groupby(_rows(partition, model), key=itemgetter(0)):
        known = UUID(aggregate)
        history = [
            mapper.domain_event(known, version, topic, state.encode())
            for _, version, topic, state in rows
        ]
        change = Change(shard=shard_of(known), history=history, new=len(history))
        for entry in model.entries(change):
            accounts = {name: entry[name] for name in entry if name not in OF_POSTING}
            sums[entry["currency"]].update(accounts)
        count(len(history))
    return {currency: dict(accounts) for currency, accounts in sums.items()}


def _rows(partition: Path, model: Balances) -> Iterator[tuple[str, int, str, str]]:
    with tables.connected() as connection:
        files = [str(path) for path in sorted(partition.glob("*.parquet"))]
        found = connection.execute(EVENTS, {"files": files, "topics": topics_of(model)})
        while rows := found.fetchmany(FETCHED_AT_ONCE):
            yield from rows

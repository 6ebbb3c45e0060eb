"""How many deliveries are made a second, and how soon, while many receivers hang:
`python -m scripts.bench.webhooks`.

Workers run as in production. First each of the receivers that hang is given a backlog, which is tried
again and again for as long as this runs. Then payments are authorized at a steady pace, and each event is
told to each of the fast receivers. The lag is from the millisecond in an event's id, before its commit,
to when the receiver has read it.
"""

import asyncio
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, LiteralString

import click

from domain.ids import Prefix, decode
from infrastructure.clock import RandomIds
from infrastructure.database import Pool, open_pool
from infrastructure.event_store import ShardedRecorder
from infrastructure.vault import FernetVault, new_key
from infrastructure.webhooks.endpoints import Endpoint, WebhookEndpoints
from infrastructure.webhooks.signatures import new_secret
from scripts.bench.procfs import cpu_seconds
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import a_cluster
from scripts.bench.system import COUNTERFOIL, Starter
from scripts.bench.writers import TENANT, append_authorization

WANTED_PER_SECOND: Final = 500.0
LONGEST_P99_MS: Final = 1_000.0
WRITERS: Final = 8
BACKLOG: Final = 20
START_SECONDS: Final = 30.0
# Of what was written last, the deliveries are waited for so long.
PATIENCE_SECONDS: Final = 60.0
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
IS_BEHIND: Final[LiteralString] = """
    SELECT count(*) AS shards FROM shard_heads h
    LEFT JOIN projection_positions p ON p.name = 'webhook_deliveries' AND p.shard = h.shard
    WHERE p.position IS DISTINCT FROM h.position
"""
WANT_NO_MORE: Final[LiteralString] = (
    "UPDATE webhook_endpoints SET enabled_events = '{payment.voided}'"
)
OF_THOSE_THAT_HANG: Final[LiteralString] = """
    SELECT coalesce(sum(attempts), 0)::bigint AS attempts, count(*) AS deliveries
    FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
    WHERE e.description = 'hangs'
"""


@click.command()
@click.option("--seconds", type=float, default=20.0, show_default=True)
@click.option("--events", type=float, default=250.0, show_default=True, help="A second.")
@click.option(
    "--receivers", type=click.IntRange(1), default=2, show_default=True, help="Fast ones."
)
@click.option("--hanging", type=click.IntRange(0, 100), default=100, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@as_json_option
def main(
    *, seconds: float, events: float, receivers: int, hanging: int, workers: int, as_json: bool
) -> None:
    """Measure deliveries to fast receivers beside receivers that hang."""
    options = {"seconds": seconds, "events_per_second": events, "receivers": receivers}
    options |= {"hanging": hanging, "workers": workers}
    with a_cluster() as cluster, ExitStack() as at_end:
        result: dict[str, Any] = {"machine": cluster.facts(), "options": options}
        url, keys = cluster.store("delivered"), new_key()
        folder = Path(tempfile.mkdtemp(prefix="counterfoil-bench-"))
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        pool = at_end.enter_context(open_pool(url, size=WRITERS + 2))
        arrivals = at_end.enter_context(receiving())
        pids = start_workers(Starter(folder, at_end), url, keys, folder, workers)
        endpoints = WebhookEndpoints(pool, FernetVault((keys,)), RandomIds())
        for _ in range(hanging):
            register(endpoints, f"http://127.0.0.1:{arrivals.hanging_port}/", "hangs")
        give_backlog(pool)
        for number in range(receivers):
            register(endpoints, f"http://127.0.0.1:{arrivals.port}/{number}", "is fast")
        cpu_before = sum(cpu_seconds(pids).values())
        written = write(pool, seconds, events)
        result["delivered"] = arrivals.all(written * receivers)
        spent = sum(cpu_seconds(pids).values()) - cpu_before
        result["delivered"]["cpu_ms"] = round(1000 * spent / max(written * receivers, 1), 2)
        with pool.connection() as connection:
            result["hanging"] = connection.execute(OF_THOSE_THAT_HANG).fetchone()
        result["delivered"]["of"] = written * receivers
    show(result, table(result), as_json=as_json)


# --- receivers ----------------------------------------------------------------------------------


class Arrivals:
    """What the receivers, which are in another process, have had."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        self.port, self.hanging_port = pipe.recv()

    def all(self, expected: int) -> dict[str, Any]:
        """Once so many came, or no more come."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            self._pipe.send("count")
            if self._pipe.recv() >= expected or time.monotonic() > give_up_at:
                break
            time.sleep(0.2)
        self._pipe.send("all")
        lags, began, ended = self._pipe.recv()
        return {
            "deliveries": len(lags),
            "per_second": round(len(lags) / max(ended - began, 0.001), 1),
            "lag_ms": percentiles(lags, 50, 95, 99),
        }


@contextmanager
def receiving() -> Iterator[Arrivals]:
    """Receivers at two ports: one answers at once, the other never."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Arrivals(ours)
    finally:
        process.terminate()
        process.join()


def receive(pipe: "Connection[Any, Any]") -> None:
    """In a process of its own."""
    asyncio.run(_receive(pipe))


async def _receive(pipe: "Connection[Any, Any]") -> None:
    seen: dict[tuple[str, str], float] = {}
    loop = asyncio.get_running_loop()
    fast = await loop.create_server(lambda: Fast(seen), "127.0.0.1", 0, backlog=1024)
    hanging = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, backlog=1024)
    pipe.send((fast.sockets[0].getsockname()[1], hanging.sockets[0].getsockname()[1]))
    while True:
        asked = await loop.run_in_executor(None, pipe.recv)
        if asked == "count":
            pipe.send(len(seen))
        else:
            lags = [1000 * at - milliseconds(event) for (_, event), at in seen.items()]
            pipe.send((lags, min(seen.values(), default=0.0), max(seen.values(), default=0.0)))


class Fast(asyncio.Protocol):
    """Answers at once, and notes when each event came for the first time."""

    def __init__(self, seen: dict[tuple[str, str], float]) -> None:
        self._seen, self._read = seen, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        while end:
            names = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            length = int(names[b"Content-Length"])
            if len(rest) < length:
                return
            path = head.split(b" ", 2)[1].decode()
            self._seen.setdefault((path, names[b"webhook-id"].decode()), time.time())
            self._transport.write(ANSWER)
            self._read = rest[length:]
            head, end, rest = self._read.partition(b"\r\n\r\n")


def milliseconds(event_id: str) -> int:
    """When an event was recorded: its id begins with that."""
    return decode(Prefix.EVENT, event_id).int >> 80


# --- what is delivered --------------------------------------------------------------------------


def start_workers(
    starter: Starter, url: str, keys: str, folder: Path, workers: int
) -> dict[str, int]:
    """As `counterfoil work` runs. Their process ids."""
    environment = {
        "DATABASE_URL": url,
        "VAULT_KEYS": keys,
        "DATA_DIR": str(folder),
        "BANK_URL": "http://127.0.0.1:9",
        "RATE_LIMIT_WEBHOOKS_PER_MINUTE": "0",
    }
    names = [f"work-{number}" for number in range(workers)]
    return {name: starter.program(name, (*COUNTERFOIL, "work"), environment) for name in names}


def register(endpoints: WebhookEndpoints, url: str, description: str) -> None:
    """One more endpoint of the only merchant."""
    at = datetime.now(UTC)
    endpoint = Endpoint(
        id=RandomIds().new(),
        tenant=replace(TENANT),
        url=url,
        enabled_events=["payment.authorized"],
        api_version=None,
        description=description,
        metadata={},
        disabled_reason=None,
        created_at=at,
        updated_at=at,
    )
    # There may be as many of each as there may be of all: that is no limit to be measured.
    endpoints.create(endpoint, new_secret(), lambda _: [], most=sys.maxsize)


def give_backlog(pool: Pool) -> None:
    """Events for those that hang; what comes after is for the others."""
    recorder, ids = ShardedRecorder(pool), RandomIds()
    for _ in range(BACKLOG):
        append_authorization(recorder, ids)
    give_up_at = time.monotonic() + START_SECONDS
    with pool.connection() as connection:
        while (row := connection.execute(IS_BEHIND).fetchone()) and row["shards"]:
            if time.monotonic() > give_up_at:
                raise click.ClickException("no worker takes the events in")
            time.sleep(0.1)
        connection.execute(WANT_NO_MORE)


def write(pool: Pool, seconds: float, per_second: float) -> int:
    """Authorizations at a steady pace, each in its turn; how many."""
    recorder, ids = ShardedRecorder(pool), RandomIds()
    began = time.monotonic()

    def one(number: int) -> None:
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        append_authorization(recorder, ids)

    with ThreadPoolExecutor(WRITERS) as writers:
        return len(list(writers.map(one, range(int(seconds * per_second)))))


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    options, found = result["options"], result["delivered"]
    lags = found["lag_ms"]
    hanging = result["hanging"]
    setting = (
        f"{options['events_per_second']:g} events a second to {options['receivers']} fast receivers; "
        f"{options['hanging']} hang, {hanging['attempts']} attempts there; "
        f"{options['workers']} workers"
    )
    delivered = (
        f"  delivered {found['deliveries']:,} of {found['of']:,}, {found['per_second']:,} a second, "
        f"{against_target(found['per_second'], 0.95 * WANTED_PER_SECOND, at_least=True)}"
    )
    lag = (
        f"  lag in ms: p50 {lags['p50']:,.0f}, p95 {lags['p95']:,.0f}, p99 {lags['p99']:,.0f}, "
        f"max {lags['max']:,.0f}; p99 {against_target(lags['p99'], LONGEST_P99_MS, at_least=False)}"
    )
    cpu = f"  CPU of the workers, all that they do: {found['cpu_ms']} ms a delivery"
    return "\n".join((setting, delivered, lag, cpu))


if __name__ == "__main__":
    main()

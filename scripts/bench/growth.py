"""What growth costs: `python -m scripts.bench.growth`.

The latency of an authorization through the ledger (both transactions; the bank answers at once), of
receipts by id, order and customer as the API reads them, and of loading a payment of six events beside
one indexed query for the same six rows: in stores of 10 thousand, 1 million and 10 million events, in
one Postgres, whose memory is enough for what is asked about in all of them, as a server's would be. The
stores are asked in turn, a few questions at a time, so that whatever else the machine does hits all of
them; and about the same few hundred payments again and again: warm. The indexes in which a new payment's
place may be anywhere are read once before, so that no authorization waits for what the system has put out
of its memory while the next store was filled.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, LiteralString
from uuid import UUID

import click
import psycopg
from psycopg.rows import dict_row

from api.answers import FamilyAnswers
from domain.bank import Approved, BankCapabilities, BankRequest
from domain.cards import Card
from domain.commands import Audience, AuthorizePayment, Cause, Claim, Mode, Tenant
from domain.ids import Prefix, encode
from domain.money import Money
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.database import Pool, open_pool
from infrastructure.event_store import PostgresPaymentLedger
from infrastructure.shards import SHARDS, shard_of
from infrastructure.vault import FernetVault, new_key
from projections.pages import Page
from projections.receipts import Receipts
from scripts.bench.fill import PROCESSES, build_read_models, fill, midnight
from scripts.bench.lives import Past
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import MEMORY, Cluster, a_cluster
from scripts.bench.system import BenchFailed

MOST_GROWTH: Final = 1.10
MOST_TIMES_ONE_QUERY: Final = 2.0
PAYMENTS: Final = 300
AT_A_TIME: Final = 50
PAGE_OF: Final = 10
SEED: Final = 1
FAR: Final = 1e9
RECEIPTS: Final = Receipts()

SOME_PAYMENTS: Final[LiteralString] = """
    SELECT payment_id, merchant_id, mode, order_id, customer_id FROM receipts
    TABLESAMPLE BERNOULLI (%(percent)s) REPEATABLE (1)
    WHERE version = 6 AND status IN ('refunded', 'captured') LIMIT %(limit)s
"""
ONE_QUERY: Final[LiteralString] = """
    SELECT originator_id, originator_version, topic, state FROM events
    WHERE shard = %(shard)s AND originator_id = %(payment_id)s ORDER BY originator_version
"""
READ_ALONG_INDEXES: Final[LiteralString] = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
           set_config('enable_sort', 'off', true), set_config('statement_timeout', '0', true)
"""
ANYWHERE: Final[tuple[LiteralString, ...]] = (
    "SELECT count(*) FROM (SELECT FROM order_slots ORDER BY merchant_id, mode, order_id OFFSET 0) t",
    "SELECT count(*) FROM (SELECT FROM receipts ORDER BY merchant_id, mode, order_id OFFSET 0) t",
    "SELECT count(*) FROM (SELECT FROM idempotency_keys ORDER BY merchant_id, mode, key OFFSET 0) t",
)


class AgreeableBank:
    """A bank that says yes at once."""

    capabilities = BankCapabilities(currencies=None, partial_amounts=True, cvc_optional=True)

    def admits(self) -> bool:
        """Always."""
        return True

    def perform(self, request: BankRequest) -> Approved:
        """Holds whatever it is asked to."""
        return Approved(bank_id=f"auth_{request.key}")


@dataclass(slots=True)
class Store:
    """One size, and what is asked of it."""

    events: int
    url: str
    pool: Pool
    payments: Sequence[dict[str, Any]]
    ledger: PostgresPaymentLedger
    ids: RandomIds

    def questions(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        """By name; each is asked about a payment."""
        return {
            "authorize": self.authorize,
            "receipt by id": self.receipt,
            "receipts of an order": self.order,
            "receipts of a customer": self.customer,
            "load six events": self.load,
            "one indexed query": self.query,
        }

    def authorize(self, row: dict[str, Any]) -> None:
        """A new payment, under an idempotency key."""
        order_id, tenant = f"ORD-{self.ids.new().hex}", _tenant(row)
        key = f"{order_id}-authorize"
        command = AuthorizePayment(
            tenant=tenant,
            cause=Cause(
                actor="key_bench",
                request_id=encode(Prefix.REQUEST, self.ids.new()),
                idempotency_key=key,
            ),
            audience=Audience(family="gateway"),
            deadline=time.monotonic() + FAR,
            claim=Claim(tenant=tenant, key=key, fingerprint=b"0" * 48),
            order_id=order_id,
            customer_id=row["customer_id"],
            money=Money(5000, "USD"),
            card=Card(number="4111111111111111", exp_month=12, exp_year=2030, cvc="123"),
            metadata={"channel": "web"},
        )
        self.ledger.authorize(command)

    def receipt(self, row: dict[str, Any]) -> None:
        """As GET /v1/receipts/{id} does."""
        payment_id: UUID = row["payment_id"]
        with self.pool.connection() as connection:
            RECEIPTS.by_id(connection, shard_of(payment_id), payment_id, _tenant(row))

    def order(self, row: dict[str, Any]) -> None:
        """As GET /v1/orders/{id} does."""
        self._page(row, {"order_id": row["order_id"]})

    def customer(self, row: dict[str, Any]) -> None:
        """As GET /v1/receipts?customer_id= does."""
        self._page(row, {"customer_id": row["customer_id"]})

    def load(self, row: dict[str, Any]) -> None:
        """The payment, as before a command."""
        self.ledger.payment(row["payment_id"], _tenant(row))

    def query(self, row: dict[str, Any]) -> None:
        """The rows of the same six events, and nothing made of them."""
        parameters = {"shard": shard_of(row["payment_id"]), "payment_id": row["payment_id"]}
        with self.pool.connection() as connection:
            connection.execute(ONE_QUERY, parameters).fetchall()

    def _page(self, row: dict[str, Any], filters: dict[str, str]) -> None:
        with self.pool.connection() as connection:
            RECEIPTS.page(connection, _tenant(row), Page(limit=PAGE_OF, filters=filters))


def _tenant(row: dict[str, Any]) -> Tenant:
    return Tenant(row["merchant_id"], Mode(row["mode"]))


@click.command()
@click.option("--sizes", default="10000,1000000,10000000", show_default=True, help="By commas.")
@click.option("--rounds", type=click.IntRange(1), default=100, show_default=True)
@click.option("--processes", type=click.IntRange(1, 64), default=PROCESSES, show_default=True)
@as_json_option
def main(*, sizes: str, rounds: int, processes: int, as_json: bool) -> None:
    """Measure latencies in stores of different sizes."""
    with a_cluster(MEMORY) as cluster:
        result: dict[str, Any] = {"machine": cluster.facts(), "rounds": rounds}
        try:
            numbers = [int(word) for word in sizes.split(",")]
            stores = [a_store(cluster, number, processes) for number in numbers]
        except BenchFailed as error:
            raise click.ClickException(str(error)) from error
        for store in stores:
            warm(store.url)
        result["machine"]["load_average"] = cluster.facts()["load_average"]
        result |= measured(stores, rounds)
        for store in stores:
            store.pool.close()
    show(result, table(result), as_json=as_json)


def a_store(cluster: Cluster, events: int, processes: int) -> Store:
    """Filled, with the read model that all of it is about."""
    url = cluster.store(f"of_{events}")
    # A shard at a time, since ten million events may be more than fit into memory, and what is made of
    # each shard would be read from everywhere.
    past = Past(events=events, seed=SEED, until=midnight())
    fill(url, past, processes=processes, parts=SHARDS)
    build_read_models(url, ["receipts"], processes=processes)
    return opened(url, events)


def warm(url: str) -> None:
    """Has the server read what it cannot know that it will need."""
    with psycopg.connect(url) as connection:
        connection.execute(READ_ALONG_INDEXES)
        for query in ANYWHERE:
            connection.execute(query)


def opened(url: str, events: int) -> Store:
    """A filled one, with some of its payments. Raises BenchFailed."""
    pool = open_pool(url, size=2)
    ids = RandomIds()
    ledger = PostgresPaymentLedger(
        pool,
        bank=AgreeableBank(),
        bank_calls=PostgresBankCalls(pool),
        clock=SystemClock(),
        ids=ids,
        vault=FernetVault((new_key(),)),
        answers=FamilyAnswers(),
    )
    # About a thousand candidates, wherever they lie.
    percent = min(100.0, 100.0 * 40 * PAYMENTS / events)
    with psycopg.connect(url, row_factory=dict_row) as connection:  # it reads the whole table
        payments = connection.execute(
            SOME_PAYMENTS, {"percent": percent, "limit": PAYMENTS}
        ).fetchall()
    if not payments:
        raise BenchFailed(f"a store of {events} events has no payment of six")
    return Store(events=events, url=url, pool=pool, payments=payments, ledger=ledger, ids=ids)


def measured(stores: Sequence[Store], rounds: int) -> dict[str, Any]:
    """Every question to every store, in turn; the first time round only warms up."""
    rng = random.Random(SEED)  # noqa: S311 - an order, not a secret
    taken: dict[str, dict[int, list[float]]] = {}
    about = {store.events: cycle(store.payments) for store in stores}
    for store in stores:
        for ask in store.questions().values():
            for row in store.payments:
                ask(row)
    for _ in range(rounds):
        for name in stores[0].questions():
            for store in rng.sample(list(stores), len(stores)):
                ask = store.questions()[name]
                times = taken.setdefault(name, {}).setdefault(store.events, [])
                for _ in range(AT_A_TIME):
                    row = next(about[store.events])
                    began = time.perf_counter()
                    ask(row)
                    times.append((time.perf_counter() - began) * 1000)
    return {
        "milliseconds": {
            name: {str(size): percentiles(values, 50, 95) for size, values in by_size.items()}
            for name, by_size in taken.items()
        },
        "growth": {
            name: round(_median(by_size, max(by_size)) / _median(by_size, min(by_size)), 3)
            for name, by_size in taken.items()
        },
        "times_one_query": {
            str(store.events): round(
                _median(taken["load six events"], store.events)
                / _median(taken["one indexed query"], store.events),
                2,
            )
            for store in stores
        },
    }


def _median(by_size: dict[int, list[float]], size: int) -> float:
    return statistics.median(by_size[size])


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    times = result["milliseconds"]
    sizes = sorted({int(size) for by_size in times.values() for size in by_size})
    lines = [
        "Milliseconds, p50 / p95, at so many events",
        f"  {'':<24}" + "".join(f"{size:>18,}" for size in sizes) + f"{'growth':>9}",
    ]
    for name, by_size in times.items():
        cells = "".join(
            f"{by_size[str(size)]['p50']:>10.2f} /{by_size[str(size)]['p95']:>6.2f}"
            for size in sizes
        )
        lines.append(f"  {name:<24}{cells}{result['growth'][name]:>9.2f}")
    worst = max(result["growth"].values())
    lines.append(f"  growth of p50 {against_target(worst, MOST_GROWTH, at_least=False)}")
    load = max(result["times_one_query"].values())
    met = against_target(load, MOST_TIMES_ONE_QUERY, at_least=False)
    lines.append(f"  loading six events, times one indexed query: {load:g}, {met}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What a page of a list costs: `python -m scripts.bench.lists`.

One merchant with a million payments over a year, a fifth as many refunds, a quarter as many intents,
customers and payment methods; asked through the application as a program of the merchant's would, with a
key and over JSON, but for the network. Rows are made from what the domain makes of one of each, with
ids, times and states of their own, and put into the tables by COPY. Events are not among them: they are
told from the log, which is not made here. Beside it, a store of a hundredth of the size is asked the same,
in turn: on a busy machine it is their ratio that says something.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import click
import psycopg
from werkzeug.test import Client

from api.answers import FamilyAnswers
from api.app import create_app
from domain.cards import CardFace
from domain.commands import Mode, Tenant
from domain.customer import Customer
from domain.ids import Prefix, encode, uuid7
from domain.money import Money
from domain.payment import Payment, rfc3339
from domain.payment_intent import PaymentIntent, Terms
from domain.payment_method import PaymentMethod
from infrastructure.logs import configure_logs
from infrastructure.services import build_services
from infrastructure.settings import read_settings
from infrastructure.shards import shard_of
from infrastructure.vault import new_key
from projections import receipts
from projections.customer_records import CustomerRecords
from projections.payment_intents import Intents
from projections.payment_methods import Methods
from scripts.bench.report import against_target, as_json_option, percentiles, show
from scripts.bench.store import a_cluster

TARGET_MILLISECONDS: Final = 15.0
DAYS: Final = 365
SEED: Final = 1
THREADS: Final = 8
PAYMENTS_OF_A_CUSTOMER: Final = 10
# Of how many thousand payments one is in each state; the rest is captured.
RARE: Final = (
    ("pending", 0.02),
    ("authorized", 5),
    ("declined", 80),
    ("refunded", 120),
    ("voided", 60),
)
REFUND_IN: Final = 5
OTHERS_IN: Final = 4

RECEIPT: Final[LiteralString] = """
    COPY receipts (
        shard, payment_id, merchant_id, mode, order_id, customer_id, status, needs_review, pending,
        created_at, version, document
    ) FROM STDIN
"""
REFUND: Final[LiteralString] = """
    COPY refunds (
        shard, payment_id, refund_id, merchant_id, mode, status, created_at, version, document
    ) FROM STDIN
"""
DOCUMENTS: Final[dict[str, LiteralString]] = {
    "payment_intents": """
        COPY payment_intents (
            shard, id, merchant_id, mode, customer_id, is_listed, created_at, version, document
        ) FROM STDIN
    """,
    "customer_records": """
        COPY customer_records (
            shard, id, merchant_id, mode, customer_id, is_listed, created_at, version, document
        ) FROM STDIN
    """,
    "payment_methods": """
        COPY payment_methods (
            shard, id, merchant_id, mode, customer_id, is_listed, created_at, version, document
        ) FROM STDIN
    """,
}
PERSONAL: Final[LiteralString] = """
    COPY personal_data (shard, owner, merchant_id, mode, document) FROM STDIN
"""
VACUUM: Final[LiteralString] = "VACUUM (ANALYZE)"

Document = dict[str, Any]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """So many payments of one merchant, evenly over a year up to now."""

    tenant: Tenant
    payments: int
    until: datetime

    def at(self, number: int) -> datetime:
        """When the payment of that number was made."""
        share = (number + 1) / self.payments
        return self.until - timedelta(days=DAYS) * (1 - share)

    def id(self, kind: str, number: int) -> UUID:
        """The same for the same; its time is its payment's."""
        bits = random.Random(f"{SEED}/{kind}/{number}").getrandbits(74)  # noqa: S311 - made up
        return uuid7(unix_milliseconds=int(self.at(number).timestamp() * 1000), random_bits=bits)

    def customer(self, number: int) -> str:
        """Whose payment it is; customers have ten each, one after another and never all at once."""
        first = (number // OTHERS_IN) % max(1, self.payments // PAYMENTS_OF_A_CUSTOMER)
        return encode(Prefix.CUSTOMER, self.id("customer", first * OTHERS_IN))


# --- rows ---------------------------------------------------------------------------------------


def statuses(made: Made) -> Iterator[str]:
    """Of the payments, in their order."""
    rng = random.Random(SEED)  # noqa: S311 - made up
    names, weights = [name for name, _ in RARE], [weight for _, weight in RARE]
    names, weights = [*names, "captured"], [*weights, 1000 - sum(weights)]
    return iter(rng.choices(names, weights, k=made.payments))


def receipt_rows(made: Made) -> Iterator[Row]:
    """A receipt for each payment."""
    document = _receipt(made)
    for number, status in enumerate(statuses(made)):
        payment_id, at = made.id("payment", number), made.at(number)
        whose, order_id = made.customer(number), f"ORD-{number}"
        told = document | {
            "payment_id": encode(Prefix.PAYMENT, payment_id),
            "order_id": order_id,
            "customer_id": whose,
            "status": status,
            "created_at": rfc3339(at),
        }
        yield (shard_of(payment_id), payment_id, *_whose(made), order_id, whose, status, False,
               status == "pending", at, 4, json.dumps(told))  # fmt: skip


def refund_rows(made: Made) -> Iterator[Row]:
    """One for every fifth payment; one in a thousand failed."""
    for number in range(0, made.payments, REFUND_IN):
        payment_id, refund_id = made.id("payment", number), made.id("refund", number)
        at, status = made.at(number), "failed" if number % (1000 * REFUND_IN) == 0 else "succeeded"
        told = {
            "id": encode(Prefix.REFUND, refund_id),
            "payment_id": encode(Prefix.PAYMENT, payment_id),
            "amount": 500,
            "currency": "USD",
            "reason": None,
            "status": status,
            "created_at": rfc3339(at),
            "updated_at": rfc3339(at),
            "version": 6,
            "metadata": {},
        }
        shard = shard_of(payment_id)
        yield shard, payment_id, refund_id, *_whose(made), status, at, 6, json.dumps(told)


def document_rows(made: Made, kind: str) -> Iterator[Row]:
    """One of every fourth payment: its intent, a customer, or a payment method."""
    document, prefix = _document(made, kind)
    for number in range(0, made.payments, OTHERS_IN):
        own_id, at = made.id(kind, number), made.at(number)
        whose = None if kind == "customer" else made.customer(number)
        told = document | {"id": encode(prefix, own_id), "created_at": rfc3339(at)}
        if kind == "intent":
            last = made.id("payment", number)
            told |= {"attempts": [encode(Prefix.PAYMENT, last)], "last_payment": str(last)}
        if whose is not None:
            told["customer_id"] = whose
        yield shard_of(own_id), own_id, *_whose(made), whose, True, at, 2, json.dumps(told)


def personal_rows(made: Made) -> Iterator[Row]:
    """Who the customers are."""
    for number in range(0, made.payments, OTHERS_IN):
        owner = made.id("customer", number)
        who = {"email": email(number), "name": f"Customer {number}"}
        yield shard_of(owner), owner, *_whose(made), json.dumps(who)


def _whose(made: Made) -> tuple[str, str]:
    return made.tenant.merchant_id, made.tenant.mode.value


def _receipt(made: Made) -> Document:
    payment = Payment.request_authorization(
        payment_id=made.id("payment", 0),
        tenant=made.tenant,
        order_id="ORD-0",
        customer_id="cus_0",
        money=Money(5000, "USD"),
        card=_face(),
        metadata={"cart": "a"},
        at=made.until,
    )
    settled = {"status": "captured", "amount_captured": 5000, "pending_operation": None}
    return receipts.fold(payment.history) | settled


def _document(made: Made, kind: str) -> tuple[Document, Prefix]:
    own_id, at = made.id(kind, 0), made.until
    match kind:
        case "intent":
            terms = Terms(money=Money(5000, "USD"), metadata={})
            intent = PaymentIntent.create(
                intent_id=own_id, tenant=made.tenant, family="payment_intents", terms=terms, at=at
            )
            return Intents().fold(intent.history), Prefix.INTENT
        case "customer":
            customer = Customer.create(
                customer_id=own_id, tenant=made.tenant, metadata={"tier": "gold"}, at=at
            )
            return CustomerRecords().fold(customer.history), Prefix.CUSTOMER
        case _:
            method = PaymentMethod.create(
                method_id=own_id,
                tenant=made.tenant,
                face=_face(),
                fingerprint="0" * 16,
                metadata={},
                at=at,
            )
            return Methods().fold(method.history), Prefix.PAYMENT_METHOD


def _face() -> CardFace:
    return CardFace(brand="visa", last4="1111", exp_month=12, exp_year=2030)


def fill(url: str, made: Made) -> None:
    """Fills the tables of a migrated store that is empty."""
    tables: tuple[tuple[LiteralString, Iterator[Row]], ...] = (
        (RECEIPT, receipt_rows(made)),
        (REFUND, refund_rows(made)),
        (DOCUMENTS["payment_intents"], document_rows(made, "intent")),
        (DOCUMENTS["customer_records"], document_rows(made, "customer")),
        (DOCUMENTS["payment_methods"], document_rows(made, "method")),
        (PERSONAL, personal_rows(made)),
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement, rows in tables:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)
        connection.execute(VACUUM)


# --- questions ----------------------------------------------------------------------------------

Ask = Callable[[int], str]  # a path, by the number of the payment that it is about


def questions(made: Made) -> dict[str, Ask]:
    """What is asked, about whichever payment; most of them lie anywhere in the year."""
    return {**of_receipts(made), **of_refunds_and_charges(made), **of_people_and_intents(made)}


def of_receipts(made: Made) -> dict[str, Ask]:
    """The list with the most filters."""
    payment, at = _cursor(made, Prefix.PAYMENT, "payment", 1), _seconds(made)
    url = "/v1/receipts"
    return {
        "receipts, newest": lambda _: url,
        "receipts, hundred": lambda _: f"{url}?limit=100",
        "receipts, after": lambda n: f"{url}?starting_after={payment(n)}",
        "receipts, before": lambda n: f"{url}?ending_before={payment(n)}",
        "receipts of a customer": lambda n: f"{url}?customer_id={made.customer(n)}",
        "receipts of an order": lambda n: f"{url}?order_id=ORD-{n}",
        "receipts, pending": lambda _: f"{url}?status=pending",
        "receipts, declined, after": lambda n: f"{url}?status=declined&starting_after={payment(n)}",
        "receipts, up to": lambda n: f"{url}?created[lte]={at(n)}",
        "receipts, of an hour": lambda n: f"{url}?created[gte]={at(n) - 3600}&created[lt]={at(n)}",
        "receipts, since now": lambda _: f"{url}?created[gt]={at(made.payments - 1)}",
    }


def of_refunds_and_charges(made: Made) -> dict[str, Ask]:
    """What follows a payment."""
    payment = _cursor(made, Prefix.PAYMENT, "payment", 1)
    refund = _cursor(made, Prefix.REFUND, "refund", REFUND_IN)
    charge = _cursor(made, Prefix.CHARGE, "payment", 1)
    intent = _cursor(made, Prefix.INTENT, "intent", OTHERS_IN)
    return {
        "refunds, newest": lambda _: "/v1/refunds",
        "refunds, after": lambda n: f"/v1/refunds?starting_after={refund(n)}",
        "refunds of a payment": lambda n: f"/v1/refunds?payment_id={payment(n)}",
        "refunds, failed": lambda _: "/v1/refunds?status=failed",
        "charges, after": lambda n: f"/v1/charges?starting_after={charge(n)}",
        "charges of a customer": lambda n: f"/v1/charges?customer={made.customer(n)}",
        "charges of an intent": lambda n: f"/v1/charges?payment_intent={intent(n)}",
    }


def of_people_and_intents(made: Made) -> dict[str, Ask]:
    """What payments are made of."""
    intent = _cursor(made, Prefix.INTENT, "intent", OTHERS_IN)
    customer = _cursor(made, Prefix.CUSTOMER, "customer", OTHERS_IN)
    method = _cursor(made, Prefix.PAYMENT_METHOD, "method", OTHERS_IN)
    at, intents, methods = _seconds(made), "/v1/payment_intents", "/v1/payment_methods"
    return {
        "intents, newest": lambda _: intents,
        "intents, after": lambda n: f"{intents}?starting_after={intent(n)}",
        "intents of a customer": lambda n: f"{intents}?customer={made.customer(n)}",
        "customers, after": lambda n: f"/v1/customers?starting_after={customer(n)}",
        "customers by email": lambda n: f"/v1/customers?email={email(n)}",
        "customers, up to": lambda n: f"/v1/customers?created[lte]={at(n)}",
        "methods, after": lambda n: f"{methods}?starting_after={method(n)}",
        "methods of a customer": lambda n: f"{methods}?customer={customer(n)}",
    }


def email(number: int) -> str:
    """Of the customer who came with the payment of that number, or just before."""
    return f"c{number // OTHERS_IN * OTHERS_IN}@example.com"


def _cursor(made: Made, prefix: Prefix, kind: str, every: int) -> Ask:
    return lambda number: encode(prefix, made.id(kind, number // every * every))


def _seconds(made: Made) -> Callable[[int], int]:
    return lambda number: int(made.at(number).timestamp())


@contextmanager
def asked(url: str, payments: int) -> Iterator["Store"]:
    """A store that is filled, an application on it, and the headers of the merchant's requests."""
    settings = read_settings(
        {"DATABASE_URL": url, "VAULT_KEYS": new_key(), "RATE_LIMIT_PER_MINUTE": "0"}
    )
    services = build_services(
        settings, answers=FamilyAnswers(), connections=THREADS, bank_connections=1
    )
    try:
        record, key = services.api_keys.create("the merchant", mode=Mode.TEST)
        made = Made(record.tenant, payments, datetime.now(UTC))
        fill(url, made)
        client = create_app(services, threads=THREADS).test_client()
        yield made, client, {"Authorization": f"Bearer {key}"}
    finally:
        services.close()


Store = tuple[Made, Client, dict[str, str]]
Times = dict[str, list[float]]


def measured(stores: Sequence[Store], rounds: int) -> list[Times]:
    """Milliseconds of each question to each store, in turn, so that whatever else the machine does hits
    all of them; about payments that are chosen by chance. The first tenth warms up."""
    rng = random.Random(SEED)  # noqa: S311 - a choice, not a secret
    times: list[Times] = [{} for _ in stores]
    for place in range(-(rounds // 10) - 1, rounds):
        for (made, client, headers), its in zip(stores, times, strict=True):
            for name, ask in questions(made).items():
                taken = _milliseconds(client, headers, ask(rng.randrange(made.payments)))
                if place >= 0:
                    its.setdefault(name, []).append(taken)
    return times


def _milliseconds(client: Client, headers: dict[str, str], path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path, headers=headers)
    taken = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise click.ClickException(f"{path}: {answer.status_code} {answer.text}")
    return taken


@click.command()
@click.option("--payments", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--beside", type=click.IntRange(1000), default=10_000, help="Those of a small store.")
@click.option("--rounds", type=click.IntRange(10), default=200, show_default=True)
@as_json_option
def main(*, payments: int, beside: int, rounds: int, as_json: bool) -> None:
    """Fill two stores, and ask both for pages of all kinds."""
    configure_logs("WARNING", "json")
    with a_cluster() as cluster, ExitStack() as at_end:
        machine = cluster.facts()
        began = time.perf_counter()
        stores = [
            at_end.enter_context(asked(cluster.store(f"of_{each}"), each))
            for each in (beside, payments)
        ]
        filled = time.perf_counter() - began
        machine["load_average"] = cluster.facts()["load_average"]
        small, large = measured(stores, rounds)
    result = {
        "machine": machine,
        "payments": payments,
        "filled_in_seconds": round(filled, 1),
        "milliseconds": {name: percentiles(each, 50, 95, 99) for name, each in large.items()},
        "of_a_small_store": {name: percentiles(each, 50, 95, 99) for name, each in small.items()},
        "growth": {
            name: round(statistics.median(each) / statistics.median(small[name]), 2)
            for name, each in large.items()
        },
    }
    show(result, table(result), as_json=as_json)


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    times: dict[str, dict[str, Any]] = result["milliseconds"]
    heads = "".join(f"{each:>8}" for each in ("p50", "p95", "p99", "growth"))
    lines = [f"Milliseconds at {result['payments']:>9,} payments   {heads}"]
    for name, each in times.items():
        cells = "".join(f"{each[column]:>8.2f}" for column in ("p50", "p95", "p99"))
        lines.append(f"  {name:<34}{cells}{result['growth'][name]:>8.2f}")
    worst = max(each["p95"] for each in times.values())
    lines.append(f"  p95 {against_target(worst, TARGET_MILLISECONDS, at_least=False)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

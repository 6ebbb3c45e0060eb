"""What a page of a list costs: `python -m scripts.bench.lists`.

One merchant with a million payments over a year, a fifth as many refunds, a quarter as many intents,
customers and payment methods; asked through the application as a program of the merchant's would, with a
key and over JSON, but for the network. Rows are made from what the domain makes of one of each, with
ids, times and states of their own, and put into the tables by COPY. Events are not among them: they are
told from the log, which is not made here.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
RARE: Final = (("pending", 0.02), ("authorized", 5), ("declined", 80), ("refunded", 120), ("voided", 60))
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
        who = {"email": f"c{number}@example.com", "name": f"Customer {number}"}
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
                card=_face(),
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

    def cursor(prefix: Prefix, kind: str, every: int) -> Ask:
        return lambda n: encode(prefix, made.id(kind, n // every * every))

    def seconds(number: int) -> int:
        return int(made.at(number).timestamp())

    payment, refund = cursor(Prefix.PAYMENT, "payment", 1), cursor(Prefix.REFUND, "refund", REFUND_IN)
    charge = cursor(Prefix.CHARGE, "payment", 1)
    intent = cursor(Prefix.INTENT, "intent", OTHERS_IN)
    customer = cursor(Prefix.CUSTOMER, "customer", OTHERS_IN)
    method = cursor(Prefix.PAYMENT_METHOD, "method", OTHERS_IN)
    return {
        "receipts, newest": lambda _: "/v1/receipts",
        "receipts, hundred": lambda _: "/v1/receipts?limit=100",
        "receipts, after": lambda n: f"/v1/receipts?starting_after={payment(n)}",
        "receipts, before": lambda n: f"/v1/receipts?ending_before={payment(n)}",
        "receipts of a customer": lambda n: f"/v1/receipts?customer_id={made.customer(n)}",
        "receipts of an order": lambda n: f"/v1/receipts?order_id=ORD-{n}",
        "receipts, pending": lambda _: "/v1/receipts?status=pending",
        "receipts, declined, after": (
            lambda n: f"/v1/receipts?status=declined&starting_after={payment(n)}"
        ),
        "receipts, up to": lambda n: f"/v1/receipts?created[lte]={seconds(n)}",
        "receipts, of an hour": (
            lambda n: f"/v1/receipts?created[gte]={seconds(n) - 3600}&created[lt]={seconds(n)}"
        ),
        "receipts, since now": lambda _: f"/v1/receipts?created[gt]={seconds(made.payments - 1)}",
        "refunds, newest": lambda _: "/v1/refunds",
        "refunds, after": lambda n: f"/v1/refunds?starting_after={refund(n)}",
        "refunds of a payment": lambda n: f"/v1/refunds?payment_id={payment(n)}",
        "refunds, failed": lambda _: "/v1/refunds?status=failed",
        "charges, after": lambda n: f"/v1/charges?starting_after={charge(n)}",
        "charges of a customer": lambda n: f"/v1/charges?customer={made.customer(n)}",
        "charges of an intent": lambda n: f"/v1/charges?payment_intent={intent(n)}",
        "intents, newest": lambda _: "/v1/payment_intents",
        "intents, after": lambda n: f"/v1/payment_intents?starting_after={intent(n)}",
        "intents of a customer": lambda n: f"/v1/payment_intents?customer={made.customer(n)}",
        "customers, after": lambda n: f"/v1/customers?starting_after={customer(n)}",
        "customers by email": (
            lambda n: f"/v1/customers?email=c{n // OTHERS_IN * OTHERS_IN}@example.com"
        ),
        "customers, up to": lambda n: f"/v1/customers?created[lte]={seconds(n)}",
        "methods, after": lambda n: f"/v1/payment_methods?starting_after={method(n)}",
        "methods of a customer": (
            lambda n: f"/v1/payment_methods?customer={customer(n)}"
        ),
    }


@contextmanager
def asked(url: str, payments: int) -> Iterator[tuple[Made, Client, dict[str, str]]]:
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


def measured(
    made: Made, client: Client, headers: dict[str, str], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each question, in turn, about payments that are chosen by chance; the first of
    each ten warms up."""
    rng = random.Random(SEED)  # noqa: S311 - a choice, not a secret
    times: dict[str, list[float]] = {name: [] for name in questions(made)}
    for place in range(rounds + rounds // 10 + 1):
        for name, ask in questions(made).items():
            path = ask(rng.randrange(made.payments))
            began = time.perf_counter()
            answer = client.get(path, headers=headers)
            taken = (time.perf_counter() - began) * 1000
            if answer.status_code != 200:
                raise click.ClickException(f"{name}: {answer.status_code} {answer.text}")
            if place > rounds // 10:
                times[name].append(taken)
    return times


@click.command()
@click.option("--payments", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(10), default=200, show_default=True)
@as_json_option
def main(*, payments: int, rounds: int, as_json: bool) -> None:
    """Fill a store, and ask for pages of all kinds."""
    with a_cluster() as cluster:
        machine = cluster.facts()
        began = time.perf_counter()
        with asked(cluster.store("lists"), payments) as (made, client, headers):
            filled = time.perf_counter() - began
            machine["load_average"] = cluster.facts()["load_average"]
            times = measured(made, client, headers, rounds)
    result = {
        "machine": machine,
        "payments": payments,
        "filled_in_seconds": round(filled, 1),
        "milliseconds": {name: percentiles(each, 50, 95, 99) for name, each in times.items()},
    }
    show(result, table(result), as_json=as_json)


def table(result: dict[str, Any]) -> str:
    """What a person wants to know."""
    times: dict[str, dict[str, Any]] = result["milliseconds"]
    lines = [f"Milliseconds at {result['payments']:,} payments{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}"]
    lines += [f"  {name:<34}" + _cells(each) for name, each in times.items()]
    worst = max(each["p95"] for each in times.values())
    lines.append(f"  p95 {against_target(worst, TARGET_MILLISECONDS, at_least=False)}")
    return "\n".join(lines)


def _cells(each: dict[str, Any]) -> str:
    values: Sequence[float] = [each[name] for name in ("p50", "p95", "p99", "max")]
    return "".join(f"{value:>8.2f}" for value in values)


if __name__ == "__main__":
    main()

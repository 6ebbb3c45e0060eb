"""What the lists' benchmark asks, in a small store: no page is looked for through the whole table."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.rows import dict_row
from werkzeug.test import Client

from domain.commands import Mode, Tenant
from projections.customer_records import CustomerRecords
from projections.pages import Page, PageOf, select_page
from projections.payment_intents import Intents
from projections.payment_methods import Methods
from projections.receipts import Receipts
from projections.refunds import Refunds
from scripts.bench.lists import Made, asked, measured, questions
from tests.conftest import Databases

PAYMENTS = 6_000
LIMIT = 20
# A page and one more; and those of the minute before and after, where it is of a time.
MOST_ROWS_READ = 3 * LIMIT

Store = tuple[Made, Client, dict[str, str], str]


@pytest.fixture(scope="module")
def store(databases: Databases) -> Iterator[Store]:
    with databases.clone() as url, asked(url, PAYMENTS) as (made, client, headers):
        yield made, client, headers, url


def test_each_question_is_answered(store: Store) -> None:
    made, client, headers, _ = store

    (times,) = measured([(made, client, headers)], 3)

    assert {name: len(each) for name, each in times.items()} == dict.fromkeys(questions(made), 3)


def lists(made: Made) -> dict[str, tuple[PageOf, Page]]:
    """Pages of every list by every filter, from the middle of the year and from where there are few."""
    middle, customer = made.payments // 2, made.customer(made.payments // 2)
    then = int(made.at(middle).timestamp())
    payment = made.id("payment", middle)
    return {
        "newest": (Receipts.PAGE, Page(limit=LIMIT)),
        "after": (Receipts.PAGE, Page(limit=LIMIT, after=payment)),
        "before": (Receipts.PAGE, Page(limit=LIMIT, before=payment)),
        "order": (Receipts.PAGE, Page(limit=LIMIT, filters={"order_id": "ORD-9"})),
        "customer": (Receipts.PAGE, Page(limit=LIMIT, filters={"customer_id": customer})),
        "rare": (Receipts.PAGE, Page(limit=LIMIT, filters={"status": "pending"})),
        "none": (Receipts.PAGE, Page(limit=LIMIT, filters={"status": "expired"})),
        "up to": (Receipts.PAGE, Page(limit=LIMIT, filters={"created_lte": then})),
        "since": (Receipts.PAGE, Page(limit=LIMIT, filters={"created_gte": then + 10**8})),
        "refunds": (Refunds.PAGE, Page(limit=LIMIT)),
        "failed refunds": (Refunds.PAGE, Page(limit=LIMIT, filters={"status": "failed"})),
        "pending refunds": (Refunds.PAGE, Page(limit=LIMIT, filters={"status": "pending"})),
        "refunds of a payment": (
            Refunds.PAGE,
            Page(limit=LIMIT, filters={"payment_id": made.id("payment", 0)}),
        ),
        "refunds up to": (Refunds.PAGE, Page(limit=LIMIT, filters={"created_lt": then})),
        "intents": (Intents().PAGE, Page(limit=LIMIT)),
        "a customer's intents": (
            Intents().PAGE,
            Page(limit=LIMIT, filters={"customer_id": customer}),
        ),
        "intents up to": (Intents().PAGE, Page(limit=LIMIT, filters={"created_lt": then})),
        "a customer's methods": (
            Methods().PAGE,
            Page(limit=LIMIT, filters={"customer_id": customer}),
        ),
        "customers": (CustomerRecords().PAGE, Page(limit=LIMIT)),
        "customers up to": (
            CustomerRecords().PAGE,
            Page(limit=LIMIT, filters={"created_lt": then}),
        ),
        "customers of ids": (
            CustomerRecords().PAGE,
            Page(limit=LIMIT, filters={"ids": [made.id("customer", 0)]}),
        ),
    }


@pytest.mark.parametrize(
    "name", sorted(lists(Made(Tenant("x", Mode.TEST), 100, datetime.now(UTC))))
)
def test_a_page_is_read_and_not_looked_for(store: Store, name: str) -> None:
    made, _, _, url = store
    page_of, page = lists(made)[name]
    with psycopg.connect(url, row_factory=dict_row) as connection:
        explained = _Explained(connection)
        select_page(explained, page_of, made.tenant, page)  # type: ignore[arg-type]

    assert explained.rows_read <= MOST_ROWS_READ


class _Explained:
    """In the place of a connection: how many rows are read for what it is asked."""

    def __init__(self, connection: Connection[dict[str, Any]]) -> None:
        self._connection = connection
        self.rows_read = 0

    def execute(self, query: sql.Composed, parameters: dict[str, Any]) -> "_Explained":
        explained = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + query
        row = self._connection.execute(explained, parameters).fetchone()
        assert row is not None
        self._add([entry["Plan"] for entry in row["QUERY PLAN"]])
        return self

    def fetchall(self) -> list[dict[str, Any]]:
        return []

    def _add(self, plans: list[dict[str, Any]]) -> None:
        for plan in plans:
            if "Scan" in plan["Node Type"]:
                dropped = plan.get("Rows Removed by Filter", 0)
                self.rows_read += (plan["Actual Rows"] + dropped) * plan["Actual Loops"]
            self._add(plan.get("Plans", []))

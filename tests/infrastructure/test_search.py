"""Searches are answered by indexes where there is much to look through."""

from collections.abc import Iterator
from typing import Any, LiteralString

import pytest
from psycopg import Connection, sql
from psycopg.rows import DictRow

from infrastructure.search import (
    CHARGES,
    CUSTOMERS,
    INTENTS,
    Clause,
    Operator,
    Search,
    Searched,
    found,
)
from tests.builders import a_tenant
from tests.infrastructure.projections.a_log import connect

NO_SCANS: LiteralString = """
    SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off;
"""


class Explained:
    """A connection that is asked how it would answer."""

    def __init__(self, connection: Connection[DictRow]) -> None:
        self._connection, self.plan = connection, ""

    def execute(self, query: sql.Composed, parameters: dict[str, Any]) -> "Explained":
        explain = sql.SQL("EXPLAIN {}").format(query)
        rows = self._connection.execute(explain, parameters).fetchall()
        self.plan = "\n".join(row["QUERY PLAN"] for row in rows)
        return self

    def fetchall(self) -> list[DictRow]:
        return []


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection[DictRow]]:
    with connect(database_url) as connection:
        connection.execute(NO_SCANS)
        yield connection


@pytest.mark.parametrize(
    ("searched", "field", "value", "index"),
    [
        (INTENTS, "amount", 5, "payment_intents_newest"),
        (CHARGES, "amount", 5, "receipts_newest"),
        (CUSTOMERS, "created", 5, "customer_records_newest"),
        (CUSTOMERS, "email", "Ada@example.com", "personal_data_by_folded_email"),
        (INTENTS, "customer", "cus_1", "payment_intents_by_customer"),
        (CHARGES, "customer", "cus_1", "receipts_by_customer"),
    ],
)
def test_what_is_sought_is_found_by_an_index(
    connection: Connection[DictRow], searched: Searched, field: str, value: int | str, index: str
) -> None:
    explained = Explained(connection)
    search = Search(clauses=[Clause(field=field, operator=Operator.IS, value=value)])

    found(explained, searched, a_tenant(), search, limit=10, after=None)  # type: ignore[arg-type]

    assert index in explained.plan

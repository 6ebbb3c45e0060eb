"""Searches over what is written with the events, so that they see all that was answered before.

Which fields there are and what each is in SQL is fixed here; what is sought are parameters. Each search
is of one tenant's things, and bounded in what it asks for and in how long it may take.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection, sql

from domain.commands import Tenant
from domain.money import ISO_4217
from domain.payment_intent import IntentStatus


class Kind(StrEnum):
    """What a field is, from which it follows how it can be compared."""

    NUMBER = "number"
    REFERENCE = "reference"  # an id, as it is written
    TOKEN = "token"  # noqa: S105 - a word, in whatever case
    TEXT = "text"  # and also a part of it
    TRUTH = "truth"
    METADATA = "metadata"  # by key, else as a text


class Operator(StrEnum):
    """How a field is compared."""

    IS = ":"
    CONTAINS = "~"
    GREATER = ">"
    LESS = "<"
    AT_LEAST = ">="
    AT_MOST = "<="


SAME: Final[LiteralString] = "{} = {}"
FOLDED: Final[LiteralString] = "lower({}) = lower({}::text)"
PART: Final[LiteralString] = "strpos(lower({}), lower({}::text)) > 0"
# How each kind of field can be compared, and with what in SQL.
COMPARISONS: Final[Mapping[Kind, Mapping[Operator, LiteralString]]] = {
    Kind.NUMBER: {
        Operator.IS: SAME,
        Operator.GREATER: "{} > {}",
        Operator.LESS: "{} < {}",
        Operator.AT_LEAST: "{} >= {}",
        Operator.AT_MOST: "{} <= {}",
    },
    Kind.REFERENCE: {Operator.IS: SAME},
    Kind.TOKEN: {Operator.IS: FOLDED},
    Kind.TEXT: {Operator.IS: FOLDED, Operator.CONTAINS: PART},
    Kind.TRUTH: {Operator.IS: SAME},
    Kind.METADATA: {Operator.IS: FOLDED, Operator.CONTAINS: PART},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field that can be searched by. `values`: all that it can have, where these are few."""

    kind: Kind
    expression: LiteralString
    values: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One condition. `value` of None: that the field is null. `key`: of the metadata."""

    field: str
    operator: Operator
    value: str | int | bool | None
    key: str | None = None
    is_negated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is sought: all of the clauses, or any of them."""

    clauses: Sequence[Clause]
    is_any: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Something that can be searched: its tables, of which `t` has the tenant, and its fields."""

    tables: LiteralString
    id_column: LiteralString
    fields: Mapping[str, Field]


CURRENCIES: Final = frozenset(code.lower() for code in ISO_4217)
CREATED: Final = Field(
    kind=Kind.NUMBER, expression="floor(extract(epoch FROM t.created_at))::bigint"
)
METADATA: Final = Field(kind=Kind.METADATA, expression="t.document -> 'metadata'")
CUSTOMER: Final = Field(kind=Kind.REFERENCE, expression="t.customer_id")

# As `domain.payment_intent.status_of` has it.
INTENT_STATUS: Final[LiteralString] = """
    CASE
        WHEN r.status IS NULL OR r.status = 'declined' THEN CASE
            WHEN t.document ->> 'canceled_at' IS NOT NULL THEN 'canceled'
            WHEN t.document -> 'terms' ->> 'payment_method_id' IS NOT NULL
             AND (t.document ->> 'is_method_new')::boolean THEN 'requires_confirmation'
            ELSE 'requires_payment_method'
        END
        WHEN r.status = 'pending' AND r.document ->> 'action_url' IS NOT NULL
            THEN 'requires_action'
        WHEN r.status = 'authorized' AND NOT r.pending THEN 'requires_capture'
        WHEN r.status IN ('captured', 'refunded') THEN 'succeeded'
        WHEN r.status IN ('voided', 'expired') THEN 'canceled'
        ELSE 'processing'
    END
"""
INTENTS: Final = Searched(
    tables="""
        (SELECT * FROM payment_intents WHERE is_listed) AS t LEFT JOIN receipts AS r
          ON r.shard = t.shard AND r.payment_id = (t.document ->> 'last_payment')::uuid
    """,
    id_column="t.id",
    fields={
        "amount": Field(
            kind=Kind.NUMBER, expression="(t.document -> 'terms' ->> 'amount_minor')::bigint"
        ),
        "created": CREATED,
        "currency": Field(
            kind=Kind.TOKEN,
            expression="t.document -> 'terms' ->> 'currency'",
            values=CURRENCIES,
        ),
        "customer": CUSTOMER,
        "status": Field(
            kind=Kind.TOKEN, expression=INTENT_STATUS, values=frozenset(map(str, IntentStatus))
        ),
        "metadata": Field(kind=Kind.METADATA, expression="t.document -> 'terms' -> 'metadata'"),
    },
)
CHARGES: Final = Searched(
    tables="receipts AS t",
    id_column="t.payment_id",
    fields={
        "amount": Field(kind=Kind.NUMBER, expression="(t.document ->> 'amount')::bigint"),
        "created": CREATED,
        "currency": Field(
            kind=Kind.TOKEN, expression="t.document ->> 'currency'", values=CURRENCIES
        ),
        "customer": CUSTOMER,
        "disputed": Field(kind=Kind.TRUTH, expression="t.document ? 'disputes'"),
        "metadata": METADATA,
        "payment_method_details.card.last4": Field(
            kind=Kind.REFERENCE, expression="t.document -> 'card' ->> 'last4'"
        ),
        "refunded": Field(
            kind=Kind.TRUTH, expression="t.status IN ('refunded', 'voided', 'expired')"
        ),
        "status": Field(
            kind=Kind.TOKEN,
            expression="CASE t.status WHEN 'pending' THEN 'pending'"
            " WHEN 'declined' THEN 'failed' ELSE 'succeeded' END",
            values=frozenset({"pending", "failed", "succeeded"}),
        ),
    },
)
# What is known of people is kept apart, and what was erased is not found.
CUSTOMERS: Final = Searched(
    tables="""
        (SELECT * FROM customer_records WHERE is_listed) AS t
        LEFT JOIN personal_data AS p ON p.shard = t.shard AND p.owner = t.id
          AND p.merchant_id = t.merchant_id AND p.mode = t.mode
    """,
    id_column="t.id",
    fields={
        "created": CREATED,
        "email": Field(kind=Kind.TEXT, expression="p.document ->> 'email'"),
        "metadata": METADATA,
        "name": Field(kind=Kind.TEXT, expression="p.document ->> 'name'"),
        "phone": Field(kind=Kind.TEXT, expression="p.document ->> 'phone'"),
    },
)


def found(
    connection: Connection[Any],
    searched: Searched,
    tenant: Tenant,
    search: Search,
    *,
    limit: int,
    after: UUID | None,
) -> tuple[list[dict[str, Any]], bool]:
    """Documents, newest first, from the one after `after`, and whether there are more."""
    where, parameters = _where(searched, tenant, search)
    if after is not None:
        older = sql.SQL("{} < %(after)s").format(sql.SQL(searched.id_column))
        where = sql.SQL("{} AND {}").format(where, older)
    query = sql.SQL("SELECT t.document FROM {} WHERE {} ORDER BY {} DESC LIMIT %(limit)s").format(
        sql.SQL(searched.tables), where, sql.SQL(searched.id_column)
    )
    parameters |= {"after": after, "limit": limit + 1}
    rows = connection.execute(query, parameters).fetchall()
    return [row["document"] for row in rows[:limit]], len(rows) > limit


def count(connection: Connection[Any], searched: Searched, tenant: Tenant, search: Search) -> int:
    """How many there are in all."""
    where, parameters = _where(searched, tenant, search)
    query = sql.SQL("SELECT count(*) AS found FROM {} WHERE {}").format(
        sql.SQL(searched.tables), where
    )
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    total: int = row["found"]
    return total


def _where(
    searched: Searched, tenant: Tenant, search: Search
) -> tuple[sql.Composable, dict[str, Any]]:
    parameters: dict[str, Any] = {
        "merchant_id": tenant.merchant_id,
        "mode": tenant.mode.value,
    }
    conditions = []
    for place, clause in enumerate(search.clauses):
        value, key = f"value_{place}", f"key_{place}"
        parameters |= {value: clause.value, key: clause.key}
        field = searched.fields[clause.field]
        conditions.append(_condition(field, clause, sql.Placeholder(value), sql.Placeholder(key)))
    return sql.SQL("t.merchant_id = %(merchant_id)s AND t.mode = %(mode)s AND ({})").format(
        sql.SQL(" OR " if search.is_any else " AND ").join(conditions)
    ), parameters


def _condition(
    field: Field, clause: Clause, value: sql.Placeholder, key: sql.Placeholder
) -> sql.Composable:
    """What is null is nothing else, so that it is also found where something else is negated."""
    expression: sql.Composable = sql.SQL("({})").format(sql.SQL(field.expression))
    if field.kind is Kind.METADATA:
        expression = sql.SQL("({} ->> {}::text)").format(expression, key)
    if clause.value is None:
        condition = sql.SQL("{} IS NULL").format(expression)
    else:
        condition = sql.SQL(COMPARISONS[field.kind][clause.operator]).format(expression, value)
    if clause.is_negated:
        return sql.SQL("NOT coalesce({}, false)").format(condition)
    return condition

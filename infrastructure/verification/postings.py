"""Double-entry bookkeeping against a replay: each posting while the histories go by, then the balances
against the sums of the postings, which by then are known to be those of the log.

Whatever accounts a posting has are checked: they are all of its columns but those that say what it is of.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import add, itemgetter
from typing import Any, Final
from uuid import UUID

from psycopg import sql
from psycopg.rows import dict_row

from infrastructure.verification.findings import Kind, named
from infrastructure.verification.place import Place
from infrastructure.verification.reach import Reach
from infrastructure.verification.written import in_batches, shown
from projections.balances import EVERYONE, Balances
from projections.changes import PAYMENT, Change

OF_POSTING: Final = (
    "shard",
    "payment_id",
    "version",
    "merchant_id",
    "mode",
    "customer_id",
    "currency",
    "at",
)
CURRENCY: Final = OF_POSTING.index("currency")
VERSION: Final = OF_POSTING.index("version")
OWNER: Final = OF_POSTING.index("payment_id")

STORED: Final = """
    SELECT {columns} FROM public.entries WHERE shard = {shard} ORDER BY payment_id, version
"""
UNEQUAL_BALANCES: Final = """
    WITH by_customer AS (
        SELECT merchant_id, mode, customer_id, currency, {sums}, count(*)::bigint AS entries
        FROM public.entries WHERE shard = {shard}
        GROUP BY merchant_id, mode, customer_id, currency
    ), summed AS (
        SELECT * FROM by_customer WHERE customer_id IS DISTINCT FROM {everyone}
        UNION ALL
        SELECT merchant_id, mode, {everyone}, currency, {sums}, sum(entries)::bigint
        FROM by_customer GROUP BY merchant_id, mode, currency
    )
    SELECT to_jsonb(b) AS live, to_jsonb(s) AS summed
    FROM (SELECT * FROM public.balances WHERE shard = {shard}) AS b
    FULL JOIN summed AS s USING (merchant_id, mode, customer_id, currency)
    WHERE ({of_live}, b.entries) IS DISTINCT FROM ({of_summed}, s.entries)
"""

Row = tuple[Any, ...]


class Postings:
    """The postings and balances of one shard."""

    def __init__(self, place: Place) -> None:
        self._place, self._model = place, Balances()
        self._reach = Reach(place, self._model)
        all_columns = place.layout["entries"].columns
        self._accounts = [name for name in all_columns if name not in OF_POSTING]
        self._columns = (*OF_POSTING, *self._accounts)
        self._values = itemgetter(*self._columns)
        self._sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * len(self._accounts))
        self._stored = self._read() if self._reach.is_of_this_code else iter(())
        self._next = next(self._stored, None)

    def take_in(self, change: Change, positions: Sequence[int]) -> None:
        """The history of the next aggregate."""
        if not self._reach.takes_in(change):
            return
        aggregate = change.history[0].originator_id
        stored = self._rows_of(aggregate.int)
        read = self._reach.as_read(change, positions)
        try:
            entries = [] if read is None else self._model.entries(read)
        except Exception:  # noqa: BLE001 - whatever it is, it is what is wrong
            self._find(Kind.HISTORY_IMPOSSIBLE, "no such thing can have happened", aggregate)
            return
        expected = [self._values(entry) for entry in entries]
        self._add_up(aggregate, expected)
        if expected != stored:
            self._tell_apart(aggregate, expected, stored)

    def end(self) -> dict[str, dict[str, int]]:
        """The sums by currency and account."""
        while self._next is not None:
            self._without_events(self._next)
            self._next = next(self._stored, None)
        if self._reach.is_of_this_code:
            self._compare_balances()
        return {
            currency: dict(zip(self._accounts, sums, strict=True))
            for currency, sums in self._sums.items()
        }

    def _rows_of(self, number: int) -> list[Row]:
        """Those of the next aggregate, whose id has this number."""
        rows = []
        while self._next is not None and (owner := self._next[OWNER].int) <= number:
            if owner == number:
                rows.append(self._next)
            else:
                self._without_events(self._next)
            self._next = next(self._stored, None)
        return rows

    def _without_events(self, row: Row) -> None:
        says = "there is a posting of what the log knows nothing of"
        self._find(Kind.ROW_WITHOUT_EVENTS, says, row[OWNER], version=row[VERSION])

    def _add_up(self, aggregate: UUID, expected: Sequence[Row]) -> None:
        for row in expected:
            amounts = row[len(OF_POSTING) :]
            if sum(amounts):
                self._find(
                    Kind.POSTINGS_UNBALANCED,
                    "what one event moves does not sum to zero",
                    aggregate,
                    version=row[VERSION],
                    expected="0",
                    found=str(sum(amounts)),
                )
            currency = row[CURRENCY]
            self._sums[currency] = list(map(add, self._sums[currency], amounts))

    def _tell_apart(self, aggregate: UUID, expected: Sequence[Row], stored: Sequence[Row]) -> None:
        must_be = {row[VERSION]: row for row in expected}
        are = {row[VERSION]: row for row in stored}
        for version in sorted(must_be.keys() | are.keys()):
            wanted, found = must_be.get(version), are.get(version)
            if wanted == found:
                continue
            if found is None:
                self._find(
                    Kind.ROW_MISSING, "there is no posting of it", aggregate, version=version
                )
            elif wanted is None:
                says = "no event makes such a posting"
                self._find(Kind.ROW_WITHOUT_EVENTS, says, aggregate, version=version)
            else:
                self._tell_columns(aggregate, wanted, found)

    def _tell_columns(self, aggregate: UUID, wanted: Row, found: Row) -> None:
        for name, must_be, is_ in zip(self._columns, wanted, found, strict=True):
            if must_be != is_:
                self._find(
                    Kind.ROW_DIFFERS,
                    f"`{name}` of the posting is not what the event makes it",
                    aggregate,
                    version=found[VERSION],
                    expected=shown(must_be),
                    found=shown(is_),
                )

    # --- in the database -----------------------------------------------------------------------

    def _read(self) -> Iterator[Row]:
        query = sql.SQL(STORED).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, self._columns)), shard=self._place.shard
        )
        with self._place.connection.cursor(name="postings") as cursor:
            cursor.execute(query, binary=True)
            yield from in_batches(cursor)

    def _compare_balances(self) -> None:
        query = sql.SQL(UNEQUAL_BALANCES).format(
            shard=self._place.shard,
            everyone=sql.Literal(EVERYONE),
            sums=sql.SQL(", ").join(
                sql.SQL("sum({0})::bigint AS {0}").format(sql.Identifier(name))
                for name in self._accounts
            ),
            of_live=sql.SQL(", ").join(sql.Identifier("b", name) for name in self._accounts),
            of_summed=sql.SQL(", ").join(sql.Identifier("s", name) for name in self._accounts),
        )
        with self._place.connection.cursor(row_factory=dict_row) as cursor:
            for row in cursor.execute(query):
                self._tell_balance(row["live"] or {}, row["summed"] or {})

    def _tell_balance(self, live: dict[str, Any], summed: dict[str, Any]) -> None:
        row = live or summed
        of = {name: row[name] for name in ("merchant_id", "mode", "customer_id", "currency")}
        for name in (*self._accounts, "entries"):
            if live.get(name, 0) != summed.get(name, 0):
                self._place.findings.add(
                    Kind.BALANCE_DIFFERS,
                    f"`{name}` of {shown(of)} is not the sum of its postings",
                    table="balances",
                    shard=self._place.shard,
                    expected=shown(summed.get(name)),
                    found=shown(live.get(name)),
                )

    def _find(self, kind: Kind, says: str, aggregate: UUID, **more: Any) -> None:
        places = {"shard": self._place.shard, "table": "entries"}
        self._place.findings.add(kind, says, **places, **named(aggregate, PAYMENT), **more)

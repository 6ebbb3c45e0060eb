"""What follows the log, made again: one read model's rows of one shard, in temporary tables, by the
statements of its own code, up to where the live ones have read; and then both compared.

Of an aggregate that was set aside, the live rows have what came before; so has what is made here.
"""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from psycopg import Error, sql
from psycopg.rows import dict_row

from infrastructure.projections.rebuild import write_new
from infrastructure.verification.findings import Kind, named
from infrastructure.verification.place import Place
from infrastructure.verification.reach import Reach
from infrastructure.verification.written import FETCHED_AT_ONCE, differing, shown
from projections.changes import PAYMENT, Change, ReadModel

DIFFERENCES: Final[LiteralString] = """
    SELECT to_jsonb(a) AS made, to_jsonb(b) AS live
    FROM pg_temp.{table} AS a
    FULL JOIN (SELECT * FROM public.{table} WHERE shard = {shard}) AS b ON {joined}
    WHERE ({a}) IS DISTINCT FROM ({b})
"""

Placed = tuple[Change, Sequence[int]]


class Following:
    """The rows of one model in one shard."""

    def __init__(self, place: Place, model: ReadModel) -> None:
        self._place, self._model = place, model
        self._reach = Reach(place, model)
        if self._reach.is_of_this_code:
            place.connection.execute(model.CREATE)

    def take_in(self, placed: Sequence[Placed]) -> None:
        """More histories, whole."""
        changes = [
            change
            for each in placed
            if self._reach.takes_in(each[0]) and (change := self._reach.as_read(*each)) is not None
        ]
        if changes and not self._write(changes):
            for change in changes:
                self._write_one(change)

    def end(self) -> None:
        """Compares all of it."""
        if self._reach.is_of_this_code:
            for table in self._model.TABLES:
                self._compare(table)

    # --- making --------------------------------------------------------------------------------

    def _write(self, changes: Sequence[Change]) -> bool:
        """All of them or none."""
        try:
            writes = self._model.writes(changes)
            with self._place.connection.transaction():
                for write in writes:
                    write_new(self._place.connection, write)
        except (Error, ArithmeticError, AssertionError, LookupError, TypeError, ValueError):
            return False
        return True

    def _write_one(self, change: Change) -> None:
        if not self._write([change]):
            first = change.history[0]
            self._place.findings.add(
                Kind.HISTORY_IMPOSSIBLE,
                f"no such thing can have happened: a replay into {self._model.name} fails",
                shard=self._place.shard,
                **named(first.originator_id, type(first).TOPIC),
            )

    # --- comparing -----------------------------------------------------------------------------

    def _compare(self, table: str) -> None:
        key, columns = ("shard", *self._place.layout[table].key), self._place.layout[table].columns
        query = sql.SQL(DIFFERENCES).format(
            table=sql.Identifier(table),
            shard=self._place.shard,
            joined=sql.SQL(" AND ").join(
                sql.SQL("a.{0} = b.{0}").format(sql.Identifier(name)) for name in key
            ),
            a=_qualified("a", columns),
            b=_qualified("b", columns),
        )
        self._place.connection.execute(sql.SQL("ANALYZE pg_temp.{}").format(sql.Identifier(table)))
        with self._place.connection.cursor(name="compared", row_factory=dict_row) as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            for row in cursor.execute(query):
                self._find(table, key, row["made"], row["live"])

    def _find(
        self,
        table: str,
        key: Sequence[str],
        made: dict[str, Any] | None,
        live: dict[str, Any] | None,
    ) -> None:
        row = live or made or {}
        places = {"table": table, "shard": self._place.shard, "version": row.get("version")}
        owner = row.get("payment_id") or row.get("aggregate_id")
        if owner is not None:
            places |= named(owner, PAYMENT if "payment_id" in row else None)
        place = shown({name: row[name] for name in key if name != "shard"})
        if live is None:
            says = f"there is no row {place}"
            self._place.findings.add(
                Kind.ROW_MISSING, says, expected=shown(made), found="none", **places
            )
        elif made is None:
            says = f"no event says that there is a row {place}"
            self._place.findings.add(Kind.ROW_WITHOUT_EVENTS, says, found=shown(live), **places)
        else:
            for field, (wanted, found) in differing("", made, live):
                says = f"`{field.removeprefix('.')}` of {place} is not what the events make it"
                self._place.findings.add(
                    Kind.ROW_DIFFERS, says, expected=shown(wanted), found=shown(found), **places
                )


def _qualified(alias: str, columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in columns)

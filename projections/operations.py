"""Operations: what was asked of the bank and what became of it, by the hour.

For those who run it: how many authorizations were declined, and as what; how long captures take; what
was asked for and has no outcome. By merchant, mode and currency. Follows the log.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg import Connection

from domain.bank import Operation
from domain.payment import Begun, Payment
from projections.changes import FIRST_MIGRATION, PAYMENT, Change, Write, columns

NAME: Final[LiteralString] = "operations"
VERSION: Final = 1

REQUESTED: Final = "requested"
SUCCEEDED: Final = "succeeded"
DECLINED: Final = "declined"
MILLISECOND: Final = timedelta(milliseconds=1)


NOES: Final = (
    Payment.AuthorizationDeclined,
    Payment.CaptureDeclined,
    Payment.VoidDeclined,
    Payment.RefundDeclined,
    Payment.TransferDeclined,
)
OF_AUTHORIZATION: Final = (Payment.Authorized, Payment.AuthorizationDeclined)
YESES: Final = (
    Payment.Authorized,
    Payment.Captured,
    Payment.Voided,
    Payment.Expired,
    Payment.Refunded,
    Payment.Transferred,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An ask, or its outcome, which came after `milliseconds`. `code`: the bank's no."""

    version: int
    at: datetime
    operation: Operation
    outcome: str
    code: str
    amount_minor: int
    milliseconds: int


def steps(history: Sequence[Payment.Event]) -> Iterator[Step]:
    """The asks and outcomes of a payment, in order."""
    operation, amount, asked_at = Operation.AUTHORIZATION, 0, history[0].timestamp
    held = 0
    for event in history:
        outcome, code = SUCCEEDED, ""
        if isinstance(event, OF_AUTHORIZATION):  # also where it was to be given up, in vain
            operation, amount = Operation.AUTHORIZATION, held
        match event:
            case Payment.AuthorizationRequested():
                amount = held = event.amount_minor
                outcome = REQUESTED
            case Payment.TransferRequested():
                operation, outcome, amount = Operation.TRANSFER, REQUESTED, event.amount_minor
            case Payment.CaptureRequested() | Payment.RefundRequested():
                captures = isinstance(event, Payment.CaptureRequested)
                operation = Operation.CAPTURE if captures else Operation.REFUND
                outcome, amount = REQUESTED, event.amount_minor
            case Payment.VoidRequested():
                operation, outcome, amount = Operation.VOID, REQUESTED, held
            case _ if isinstance(event, NOES):
                outcome, code = DECLINED, event.code
            case _ if isinstance(event, YESES):
                pass
            case _:
                continue
        asked_at = event.timestamp if outcome == REQUESTED else asked_at
        yield Step(
            version=event.originator_version,
            at=event.timestamp,
            operation=operation,
            outcome=outcome,
            code=code,
            amount_minor=amount,
            # Two hosts' clocks may say that an answer came before the ask.
            milliseconds=max(0, (event.timestamp - asked_at) // MILLISECOND),
        )


class Operations:
    """The table of hours: who writes it, and how it is asked."""

    name: LiteralString = NAME
    version = VERSION
    aggregate: LiteralString = PAYMENT
    migration: LiteralString = FIRST_MIGRATION

    TABLES: tuple[LiteralString, ...] = ("operation_hours",)
    CREATE: LiteralString = """
        CREATE TABLE operation_hours (
            shard           smallint         NOT NULL,
            hour            timestamptz      NOT NULL,
            merchant_id     text             NOT NULL,
            mode            text             NOT NULL,
            currency        text             NOT NULL,
            operation       text             NOT NULL,
            outcome         text             NOT NULL,
            code            text             NOT NULL,
            count           bigint           NOT NULL,
            amount          bigint           NOT NULL,
            milliseconds    bigint           NOT NULL,
            slowest         bigint           NOT NULL,
            CONSTRAINT operation_hours_pkey PRIMARY KEY (
                shard, hour, merchant_id, mode, currency, operation, outcome, code
            )
        ) WITH (fillfactor = 50)
    """
    INDEXES: LiteralString = """
        CREATE INDEX operation_hours_newest ON operation_hours (hour);
    """
    ADD: LiteralString = """
        INSERT INTO operation_hours AS old (
            shard, hour, merchant_id, mode, currency, operation, outcome, code,
            count, amount, milliseconds, slowest
        )
        SELECT * FROM unnest(
            %(shard)b::smallint[], %(hour)b::timestamptz[], %(merchant_id)b::text[],
            %(mode)b::text[], %(currency)b::text[], %(operation)b::text[], %(outcome)b::text[],
            %(code)b::text[], %(count)b::bigint[], %(amount)b::bigint[],
            %(milliseconds)b::bigint[], %(slowest)b::bigint[]
        )
        ON CONFLICT (shard, hour, merchant_id, mode, currency, operation, outcome, code)
        DO UPDATE SET
            count = old.count + excluded.count, amount = old.amount + excluded.amount,
            milliseconds = old.milliseconds + excluded.milliseconds,
            slowest = greatest(old.slowest, excluded.slowest)
    """
    SINCE: LiteralString = """
        SELECT operation, outcome, code, currency, sum(count)::bigint AS count,
               sum(amount)::bigint AS amount,
               CASE WHEN outcome <> 'requested'
                    THEN round(sum(milliseconds) / sum(count) / 1000, 3)::float END AS mean_seconds,
               CASE WHEN outcome <> 'requested'
                    THEN round(max(slowest) / 1000.0, 3)::float END AS slowest_seconds
        FROM operation_hours WHERE hour >= date_trunc('hour', %(since)s::timestamptz)
        GROUP BY operation, outcome, code, currency
        ORDER BY operation, outcome, code, currency
    """

    def writes(self, changes: Sequence[Change]) -> list[Write]:
        """What the new asks and outcomes add to their hours."""
        counted: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        for change in changes:
            begun = change.history[0]
            assert isinstance(begun, Begun)
            known = len(change.history) - change.new
            of = (begun.merchant_id, begun.mode, begun.currency)
            for step in steps(change.history):
                if step.version <= known:
                    continue
                hour = step.at.replace(minute=0, second=0, microsecond=0)
                key = (change.shard, hour, *of, step.operation.value, step.outcome, step.code)
                count = counted[key]
                count[0] += 1
                count[1] += step.amount_minor
                count[2] += step.milliseconds
                count[3] = max(count[3], step.milliseconds)
        rows = [dict(zip(COLUMNS, (*key, *counted[key]), strict=True)) for key in sorted(counted)]
        return [Write(self.ADD, columns(rows))] if rows else []

    def since(self, connection: Connection[Any], at: datetime) -> list[dict[str, Any]]:
        """Since the hour of `at`, over all merchants: `operation`, `outcome`, `code`, `currency`,
        `count`, `amount`, and of outcomes `mean_seconds` and `slowest_seconds`."""
        return connection.execute(self.SINCE, {"since": at}).fetchall()


COLUMNS: Final = (
    "shard",
    "hour",
    "merchant_id",
    "mode",
    "currency",
    "operation",
    "outcome",
    "code",
    "count",
    "amount",
    "milliseconds",
    "slowest",
)

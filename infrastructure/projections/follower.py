"""One generation of a read model, kept up with the log.

A step reads what is new in some shards, lets the model say what that does to its rows, and writes the
rows and the positions in one transaction: exactly once, whatever dies. The positions are advanced
only from where this step found them, so that of two followers of one generation, which a lease keeps
apart, the slower one writes nothing.

What a model cannot take in is set aside with its error: the payment, from the event that failed on,
and nothing else. A later event of that payment waits for it.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import structlog
from psycopg import Connection, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow

from domain.ids import Prefix, encode
from infrastructure.database import at_once
from infrastructure.projections.batches import (
    BATCH_EVENTS,
    Batch,
    Positions,
    Ranges,
    Read,
    Unreadable,
    decoded,
    id_of,
    kind_of,
    new_since,
    read_between,
)
from infrastructure.projections.generations import HOLD_OR_FAIL, Generation, held_as, hold
from projections.changes import Change, ReadModel, Write, topics_of
from projections.registry import followed

LONGEST_ERROR: Final = 500

# Those that are furthest behind come first, for steps that are too short for all of them.
BEHIND: Final[LiteralString] = """
    SELECT p.shard, p.position AS after, h.position AS head
    FROM public.projection_positions p JOIN public.shard_heads h ON h.shard = p.shard
    WHERE p.name = %(name)s AND p.generation = %(generation)s AND h.position > p.position
    ORDER BY h.position - p.position DESC, p.shard
"""
ONE_HISTORY: Final[LiteralString] = """
    SELECT e.shard, e.originator_id, %(since)s::bigint AS since, e.originator_version, e.topic,
           e.state, e.event_id, e.cause
    FROM public.events e
    JOIN public.projection_positions p
      ON p.name = %(name)s AND p.generation = %(generation)s AND p.shard = e.shard
    WHERE e.shard = %(shard)s AND e.originator_id = %(originator_id)s
      AND e.position <= p.position
    ORDER BY e.originator_version
"""
# Of these aggregates.
SET_ASIDE: Final[LiteralString] = """
    SELECT originator_id FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s
      AND shard = ANY(%(shards)b::smallint[]) AND originator_id = ANY(%(ids)b::uuid[])
"""
ADVANCE: Final[LiteralString] = """
    WITH held AS (
        SELECT shard, position FROM public.projection_positions
        WHERE name = %(name)s AND generation = %(generation)s AND shard = ANY(%(shards)b::smallint[])
        ORDER BY shard FOR NO KEY UPDATE
    )
    UPDATE public.projection_positions p SET position = r.upto
    FROM held
    JOIN unnest(%(shards)b::smallint[], %(after)b::bigint[], %(upto)b::bigint[])
         AS r (shard, after, upto) ON r.shard = held.shard AND r.after = held.position
    WHERE p.name = %(name)s AND p.generation = %(generation)s AND p.shard = held.shard
"""
ALL_OR_FAIL: Final[LiteralString] = """
    SELECT public.require(count(*) = cardinality(%(shards)b::smallint[]), 'overtaken') FROM advanced
"""
ADVANCE_OR_FAIL: Final[LiteralString] = (
    "WITH advanced AS (" + ADVANCE + "RETURNING p.shard)" + ALL_OR_FAIL
)
NONE_ASIDE_OR_FAIL: Final[LiteralString] = (
    "SELECT public.require(NOT EXISTS (" + SET_ASIDE + "), 'set aside')"
)
QUARANTINE: Final[LiteralString] = """
    INSERT INTO public.projection_quarantine AS old (
        name, generation, shard, originator_id, applied_version, error, attempts
    ) VALUES (
        %(name)s, %(generation)s, %(shard)s, %(originator_id)s, %(applied_version)s, %(error)s, 1
    )
    ON CONFLICT (name, generation, shard, originator_id) DO UPDATE SET
        error = excluded.error, attempts = old.attempts + 1
"""
TO_RETRY: Final[LiteralString] = """
    SELECT shard, originator_id, applied_version, error, attempts, since
    FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s
      AND (%(originator_id)s::uuid IS NULL OR originator_id = %(originator_id)s)
    ORDER BY since
"""
RELEASE: Final[LiteralString] = """
    DELETE FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s AND shard = %(shard)s
      AND originator_id = %(originator_id)s
"""
# Whoever was first to retry it has it; the other finds it gone.
STILL_SET_ASIDE: Final[LiteralString] = """
    SELECT applied_version FROM public.projection_quarantine
    WHERE name = %(name)s AND generation = %(generation)s AND shard = %(shard)s
      AND originator_id = %(originator_id)s FOR UPDATE
"""
# Nobody may go on in this shard meanwhile.
HOLD_POSITION: Final[LiteralString] = """
    SELECT shard FROM public.projection_positions
    WHERE name = %(name)s AND generation = %(generation)s AND shard = %(shard)s FOR UPDATE
"""

# The driver counts these among the errors that pass. But what is longer than an index takes, or deeper
# than the server reads, is so each time.
LIMITS: Final = (errors.ProgramLimitExceeded, errors.StatementTooComplex)
# And this one, where it does not say what it was that came before it.
MAY_BE_A_POISON: Final = (*LIMITS, errors.PipelineAborted)

log = structlog.get_logger(__name__)


class Overtaken(Exception):
    """Another follower of the same generation was quicker, or it is no more; nothing was written."""


class Follower:
    """Keeps `generation` up with the log; it has no state of its own."""

    def __init__(self, generation: Generation, model: ReadModel | None = None) -> None:
        self._generation = generation
        self._model = followed(generation.name) if model is None else model
        self._identity = {"name": generation.name, "generation": generation.generation}
        self.name = generation.name
        self.topics = topics_of(self._model)

    def step(
        self,
        connection: Connection[DictRow],
        *,
        batch: int = BATCH_EVENTS,
        heads: Positions | None = None,
    ) -> int:
        """Takes in up to `batch` events in one transaction; how many. None: it is up with the log, or
        up to `heads`. Raises Overtaken."""
        behind = connection.execute(BEHIND, self._identity).fetchall()
        if heads:
            known = [{**row, "head": min(row["head"], heads[row["shard"]])} for row in behind]
            behind = [row for row in known if row["after"] < row["head"]]
        if not behind:
            return 0
        # In one order, so that of two who do this at once neither waits for the other.
        behind = sorted(behind[:batch], key=itemgetter("shard"))
        share = batch // len(behind)
        ranges = {
            "shards": [row["shard"] for row in behind],
            "after": [row["after"] for row in behind],
            "upto": [min(row["head"], row["after"] + share) for row in behind],
        }
        return self._take(connection, ranges, list(read_between(connection, ranges, self.topics)))

    def take(self, connection: Connection[DictRow], batch: Batch) -> int:
        """Takes in, in one transaction, a batch that follows on where the generation stands; how many
        events. Raises Overtaken."""
        return self._take(connection, batch.ranges, batch.of(self._model))

    def _take(self, connection: Connection[DictRow], ranges: Ranges, read: Sequence[Read]) -> int:
        """The log does not change, so that it is read before; who stands where, and what is set aside,
        only the transaction that holds the positions knows."""
        # An error would cost the whole transaction, which may be somebody else's.
        is_its_own = connection.info.transaction_status is TransactionStatus.IDLE
        if not (is_its_own and self._could_be_taken_at_once(connection, ranges, read)):
            self._take_in_steps(connection, ranges, read)
        taken: int = sum(ranges["upto"]) - sum(ranges["after"])
        return taken

    def _could_be_taken_at_once(
        self, connection: Connection[DictRow], ranges: Ranges, read: Sequence[Read]
    ) -> bool:
        try:
            self._take_at_once(connection, ranges, read)
        except MAY_BE_A_POISON:
            return False
        except psycopg.OperationalError:
            raise
        except Exception:  # noqa: BLE001 - it comes up again, and is kept with what it is about
            return False
        return True

    def _take_at_once(
        self, connection: Connection[DictRow], ranges: Ranges, read: Sequence[Read]
    ) -> None:
        """All of it, or an error that need not say what is wrong. On a busy machine each wait for the
        database is a wait for a turn."""
        changes = []
        for each in read:
            if isinstance(each, Unreadable):
                raise each.error
            changes.append(each)
        writes = self._model.writes(changes)
        with at_once(connection):
            connection.execute(HOLD_OR_FAIL, held_as(self._generation))
            # First, so that whoever retries what was set aside comes before all this or after it.
            connection.execute(ADVANCE_OR_FAIL, {**ranges, **self._identity})
            connection.execute(NONE_ASIDE_OR_FAIL, self._asked_for(ranges, read))
            for write in writes:
                self.write(connection, write)

    def _take_in_steps(
        self, connection: Connection[DictRow], ranges: Ranges, read: Sequence[Read]
    ) -> None:
        """All but what is set aside, or now has to be. Raises Overtaken."""
        with connection.transaction():
            self.hold(connection)
            advanced = connection.execute(ADVANCE, {**ranges, **self._identity})
            if advanced.rowcount != len(ranges["shards"]):
                raise Overtaken(self._generation.name)
            aside = connection.execute(SET_ASIDE, self._asked_for(ranges, read)).fetchall()
            ids = {row["originator_id"] for row in aside}
            self.take_in(connection, [each for each in read if id_of(each) not in ids])

    def _asked_for(self, ranges: Ranges, read: Sequence[Read]) -> dict[str, Any]:
        ids = [id_of(each) for each in read]
        return {**self._identity, "shards": ranges["shards"], "ids": ids}

    def hold(self, connection: Connection[DictRow]) -> None:
        """Until the transaction ends, the generation's tables stay where they are, and are what is
        written. Raises Overtaken."""
        if hold(connection, self._generation).fetchone() is None:
            raise Overtaken(self._generation.name)

    def take_in(self, connection: Connection[DictRow], read: Sequence[Read]) -> None:
        """Writes what the changes do, in the transaction that is open; sets aside what cannot be."""
        for each in read:
            if isinstance(each, Unreadable):
                self._set_aside(connection, each)
        self._take_in(connection, [each for each in read if isinstance(each, Change)])

    def _take_in(self, connection: Connection[DictRow], changes: Sequence[Change]) -> None:
        error = self._error_of(connection, changes) if changes else None
        if error is None:
            return
        if len(changes) == 1:
            self._set_aside(connection, _unreadable(changes[0], error))
            return
        for half in (changes[: len(changes) // 2], changes[len(changes) // 2 :]):
            self._take_in(connection, half)

    def retry(self, connection: Connection[DictRow], originator_id: UUID | None = None) -> int:
        """Takes in what was set aside, all of it or one payment's; how many still cannot be."""
        waiting = self.quarantine(connection, originator_id)
        return sum(not self._retry_one(connection, row) for row in waiting)

    def quarantine(
        self, connection: Connection[DictRow], originator_id: UUID | None = None
    ) -> list[dict[str, Any]]:
        """What is set aside, oldest first: `originator_id`, `applied_version`, `error`, `attempts`,
        `since`."""
        parameters = {**self._identity, "originator_id": originator_id}
        return connection.execute(TO_RETRY, parameters).fetchall()

    def _retry_one(self, connection: Connection[DictRow], row: dict[str, Any]) -> bool:
        identity = {
            **self._identity,
            "shard": row["shard"],
            "originator_id": row["originator_id"],
        }
        with connection.transaction():
            self.hold(connection)
            connection.execute(HOLD_POSITION, identity)
            still = connection.execute(STILL_SET_ASIDE, identity).fetchone()
            if still is None:
                return True
            since = still["applied_version"] + 1
            rows = connection.execute(ONE_HISTORY, {**identity, "since": since}).fetchall()
            (read,) = decoded(rows)
            error = (
                read.error if isinstance(read, Unreadable) else self._error_of(connection, [read])
            )
            if error is None:
                connection.execute(RELEASE, identity)
            else:
                self._set_aside(connection, _unreadable(read, error))
        return error is None

    def _error_of(
        self, connection: Connection[DictRow], changes: Sequence[Change]
    ) -> Exception | None:
        """Takes all of them in, or says why they cannot be, and has written nothing."""
        try:
            with connection.transaction():
                for write in self._model.writes(changes):
                    self.write(connection, write)
        except LIMITS as error:
            return error
        except psycopg.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - it is kept with what it is about
            return error
        return None

    def write(self, connection: Connection[DictRow], write: Write) -> None:
        """Carries it out."""
        connection.execute(write.sql, write.parameters)

    def _set_aside(self, connection: Connection[DictRow], each: Unreadable) -> None:
        text = f"{type(each.error).__name__}: {each.error}"[:LONGEST_ERROR].replace("\x00", "")
        log.error(
            "a read model cannot take in a payment",
            name=self._generation.name,
            payment_id=encode(Prefix.PAYMENT, each.originator_id),
            error=type(each.error).__name__,
        )
        connection.execute(
            QUARANTINE,
            {
                **self._identity,
                "shard": each.shard,
                "originator_id": each.originator_id,
                "applied_version": each.since - 1,
                "error": text.encode(errors="replace").decode(),
            },
        )


def _unreadable(read: Read, error: Exception) -> Unreadable:
    if isinstance(read, Unreadable):
        return read
    return Unreadable(read.shard, id_of(read), kind_of(read), new_since(read), error)

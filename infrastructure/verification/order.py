"""One shard of the log in its order: positions without gaps, each event's digest, the chain over all of
them, and, as far as the shard is sealed, the leaf that the tree has of each event.

Everything is computed here again from the columns, by what the log's documentation says and not by what
the database says of itself.
"""

import sys
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, LiteralString

import orjson

from domain.evidence import HASH_BYTES, leaf_bytes, leaf_hash
from infrastructure.counted_work import count
from infrastructure.verification.findings import Kind, named
from infrastructure.verification.place import Place

# Few enough that what was read is still in the processor's cache when it is looked at.
FETCHED_AT_ONCE: Final = 500
NOT_SEALED: Final = (sys.maxsize, 0, b"")
BEGINNING: Final = sha256(b"").digest()
AT: Final = b'"at":"'
AT_LENGTH: Final = len("2026-11-20T12:00:00.000000Z")

EVENTS: Final[LiteralString] = """
    SELECT position, event_id::text, originator_id::text, originator_version, topic,
           coalesce(to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'never')
           || CASE WHEN recorded_at < '0001-01-01T00:00:00Z' THEN ' BC' ELSE '' END,
           state, cause, digest, chain_hash
    FROM public.events WHERE shard = %(shard)s ORDER BY position
"""
HEAD: Final[LiteralString] = """
    SELECT h.position, h.hash, coalesce(r.position, 0), c.position
    FROM (VALUES (%(shard)s::smallint)) AS s (shard)
    LEFT JOIN public.shard_heads h ON h.shard = s.shard
    LEFT JOIN public.audit_cursors c ON c.shard = s.shard
    LEFT JOIN LATERAL (
        SELECT shard_position + events - 1 AS position FROM public.audit_runs
        WHERE shard = s.shard ORDER BY shard_position DESC LIMIT 1
    ) AS r ON true
"""
# Each stretch of a run that lies in one tile: where it begins in the one order and in the shard, and the
# leaves that the tree has of it.
SEALED: Final[LiteralString] = """
    SELECT greatest(r.position, n.tile << 8),
           r.shard_position + greatest(r.position, n.tile << 8) - r.position,
           least(r.position + r.events, (n.tile + 1) << 8) - greatest(r.position, n.tile << 8),
           substr(
               t.hashes, 1 + 32 * (greatest(r.position, n.tile << 8) & 255)::integer,
               32 * (least(r.position + r.events, (n.tile + 1) << 8)
                     - greatest(r.position, n.tile << 8))::integer
           )
    FROM public.audit_runs r
    CROSS JOIN LATERAL generate_series(r.position >> 8, (r.position + r.events - 1) >> 8) AS n (tile)
    LEFT JOIN public.audit_tiles t ON t.level = 0 AND t.tile = n.tile
    WHERE r.shard = %(shard)s ORDER BY r.shard_position, n.tile
"""

Row = tuple[Any, ...]


class ShardOrder:
    """Goes once through a shard by position."""

    def __init__(self, place: Place) -> None:
        self._connection, self._shard = place.connection, place.shard
        self._findings = place.findings
        self._chain = BEGINNING
        self._append_hash: bytes | None = None
        self._appended: list[bytes] = []
        self._appended_from = 0
        self._is_whole = True

    def check(self) -> int:
        """How many events there are."""
        # Written out: this is done for every event, and two calls for each take a tenth more.
        ends = self._connection.execute(HEAD, {"shard": self._shard}).fetchone()
        expected, events = 1, 0
        leaves = self._leaves()
        sealed_at, log_position, leaf = next(leaves, NOT_SEALED)
        for batch in self._batches():
            for row in batch:
                position, event_id, aggregate, version, topic, at, state, cause, digest, append = (
                    row
                )
                if position != expected:
                    self._misplaced(row, expected)
                expected = position + 1
                try:
                    fields = [event_id, aggregate, str(version), topic, at, state.decode(), cause]
                    found = sha256(orjson.dumps(fields)).digest()
                except UnicodeDecodeError:
                    found = b""
                if found != digest:
                    self._changed(row, found)
                if append != self._append_hash:
                    self._end_append()
                    self._append_hash, self._appended_from = append, position
                self._appended.append(digest)
                while sealed_at < position:
                    sealed_at, log_position, leaf = next(leaves, NOT_SEALED)
                if sealed_at == position:
                    sealed = (log_position, event_id, aggregate, version, topic, at, state, cause)
                    found = leaf_hash(leaf_bytes(sealed))
                    if found != leaf:
                        self._sealed_otherwise(row, log_position, leaf, found)
            events += len(batch)
            count(len(batch))
        self._end_append()
        self._check_end(expected - 1, *(ends or (None, None, 0, None)))
        return events

    def _batches(self) -> Iterator[list[Row]]:
        with self._connection.cursor(name="by_position", binary=True) as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute(EVENTS, {"shard": self._shard}, binary=True)
            while batch := cursor.fetchmany(FETCHED_AT_ONCE):
                yield batch

    # --- one event -----------------------------------------------------------------------------

    def _changed(self, row: Row, found: bytes) -> None:
        """Not all that can be changed leaves a trace that tells what it was; the time does."""
        at, state = row[5], row[6]
        begin = state.rfind(AT) + len(AT)
        said = state[begin : begin + AT_LENGTH].decode(errors="replace")
        if said != at and state.count(AT) == 1:
            self._find(
                Kind.TIME_CHANGED,
                "the time of the event is not the one that it was recorded with",
                row,
                expected=said,
                found=at,
            )
            return
        self._find(
            Kind.EVENT_CHANGED,
            "the event (its content, topic, cause, time, id or version) is not what was recorded; its "
            "digest is another",
            row,
            expected=row[8].hex(),
            found=found.hex() or "no UTF-8",
        )

    def _misplaced(self, row: Row, expected: int) -> None:
        self._is_whole = False
        position = row[0]
        if position < expected:
            self._find(Kind.EVENT_TWICE, "two events have this position", row)
            return
        missing = position - expected
        self._findings.add(
            Kind.EVENT_MISSING,
            f"{missing} event{'s are' if missing > 1 else ' is'} gone from the log, before what is "
            f"at position {position}",
            shard=self._shard,
            position=expected,
            expected="an event",
            found="none",
        )

    # --- the chain -----------------------------------------------------------------------------

    def _end_append(self) -> None:
        """What was recorded at once goes on from what was recorded before."""
        if self._append_hash is None:
            return
        computed = sha256(b"".join((self._chain, *self._appended))).digest()
        if computed != self._append_hash and self._is_whole:
            self._findings.add(
                Kind.CHAIN_BROKEN,
                "the events from here on are not those that were recorded after the ones before",
                shard=self._shard,
                position=self._appended_from,
                expected=computed.hex(),
                found=self._append_hash.hex(),
            )
        # From here on as it says, so that one break is told once.
        self._chain = self._append_hash
        self._appended.clear()
        self._is_whole = True

    def _check_end(
        self,
        last: int,
        head: int | None,
        hash_of_head: bytes | None,
        sealed: int,
        cursor: int | None,
    ) -> None:
        if last < max(head or 0, sealed):
            self._findings.add(
                Kind.LOG_TRUNCATED,
                f"the end of the log is gone: {max(head or 0, sealed) - last} events",
                shard=self._shard,
                position=last,
                expected=str(max(head or 0, sealed)),
                found=str(last),
            )
        elif (last, self._chain) != (head, hash_of_head):
            self._findings.add(
                Kind.CHAIN_BROKEN,
                "the head of the shard is not the end of its log",
                table="shard_heads",
                shard=self._shard,
                position=last,
                expected=f"{last} {self._chain.hex()}",
                found="none" if hash_of_head is None else f"{head} {hash_of_head.hex()}",
            )
        if cursor != sealed:
            self._findings.add(
                Kind.SEALING_BROKEN,
                "sealing does not go on where it is: what is between would be sealed twice, or never",
                table="audit_cursors",
                shard=self._shard,
                position=sealed,
                expected=str(sealed),
                found="none" if cursor is None else str(cursor),
            )

    # --- the leaves ----------------------------------------------------------------------------

    def _leaves(self) -> Iterator[tuple[int, int, bytes]]:
        """Of each sealed event in order: its position here, its position in the one order, and its
        hash in the tree."""
        with self._connection.cursor(name="leaves") as cursor:
            cursor.itersize = FETCHED_AT_ONCE
            cursor.execute(SEALED, {"shard": self._shard}, binary=True)
            for log_position, position, events, hashes in cursor:
                found = hashes or b""
                if len(found) != events * HASH_BYTES:
                    self._findings.add(
                        Kind.TREE_BROKEN,
                        "the tree has no leaves for events that were sealed",
                        table="audit_tiles",
                        shard=self._shard,
                        position=position,
                        log_position=log_position,
                    )
                    continue
                for number in range(events):
                    begin = number * HASH_BYTES
                    leaf = found[begin : begin + HASH_BYTES]
                    yield position + number, log_position + number, leaf

    def _sealed_otherwise(self, row: Row, log_position: int, expected: bytes, found: bytes) -> None:
        self._find(
            Kind.LEAF_DIFFERS,
            "the event is not the one that was sealed here",
            row,
            log_position=log_position,
            expected=expected.hex(),
            found=found.hex(),
        )

    def _find(self, kind: Kind, says: str, row: Row, **more: Any) -> None:
        places = {"shard": self._shard, "position": row[0], "version": row[3]}
        self._findings.add(kind, says, **places, **named(row[2], row[4]), **more)

"""Checkpoints: the head of the tree, signed; kept for ever, with what witnesses said of each.

None is ever signed that does not go on from the one that was signed last: both roots are made again from
the tree as it is now, and the proof between the two is made and checked. What does not hold is refused,
loudly, and the last checkpoint stays what is published.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, LiteralString

import structlog
from psycopg import Connection
from psycopg.rows import DictRow

from domain.evidence import Checkpoint, CheckpointMalformed, ProofWrong, read_checkpoint
from domain.evidence import verify_consistency as verify
from infrastructure.audit.notes import Note, NoteMalformed, cosignatures, read_note, signed, signers
from infrastructure.audit.sealer import Sealer
from infrastructure.audit.tree import TreeBroken, consistency, root_at
from infrastructure.checkpoint_keys import SigningKey, VerifierKey, verifier_key

# A witness's clock may be ahead of ours by so much.
FUTURE_SECONDS: Final = 300
# In what is signed, before each key's name: that both signed a text vouches for neither, since anybody can
# put a signature of their own under a text.
NAMES_KEY: Final = "counterfoil key "

LAST: Final[LiteralString] = """
    SELECT number, size, root, note, keys, created_at FROM audit_checkpoints
    ORDER BY number DESC LIMIT 1
"""
PAGE: Final[LiteralString] = """
    SELECT number, size, root, note, keys, created_at FROM audit_checkpoints
    WHERE number > %(after)s ORDER BY number LIMIT %(limit)s
"""
NEWEST: Final[LiteralString] = """
    SELECT number, size, root, note, keys, created_at FROM audit_checkpoints
    ORDER BY number DESC LIMIT %(limit)s
"""
OF_TEXT: Final[LiteralString] = """
    SELECT number, size, root, note, keys, created_at FROM audit_checkpoints
    WHERE size = %(size)s AND root = %(root)s ORDER BY number
"""
KEEP: Final[LiteralString] = """
    INSERT INTO audit_checkpoints (number, size, root, note, keys, created_at)
    VALUES (%(number)s, %(size)s, %(root)s, %(note)s, %(keys)s, clock_timestamp())
    RETURNING created_at
"""
KEEP_KEY: Final[LiteralString] = """
    INSERT INTO audit_keys AS k (vkey, first_used, last_used)
    VALUES (%(vkey)s, clock_timestamp(), clock_timestamp())
    ON CONFLICT (vkey) DO UPDATE SET last_used = excluded.last_used
"""
KEYS: Final[LiteralString] = (
    "SELECT vkey, first_used, last_used FROM audit_keys ORDER BY first_used"
)
# Whatever else is set later: to another name it would be another log.
ORIGIN: Final[LiteralString] = """
    UPDATE audit_tree SET origin = coalesce(origin, %(origin)s) RETURNING origin
"""
# Signing waits for the disk, and with it all that was sealed before.
DURABLE: Final[LiteralString] = "SELECT set_config('synchronous_commit', 'on', true)"
COSIGN: Final[LiteralString] = """
    INSERT INTO audit_cosignatures AS c (number, witness, timestamp, line)
    VALUES (%(number)s, %(witness)s, %(timestamp)s, %(line)s)
    ON CONFLICT (number, witness) DO UPDATE
    SET timestamp = excluded.timestamp, line = excluded.line
    WHERE c.timestamp < excluded.timestamp
"""
COSIGNATURES: Final[LiteralString] = """
    SELECT number, line FROM audit_cosignatures WHERE number = ANY(%(numbers)s)
    ORDER BY number, witness
"""

log = structlog.get_logger(__name__)


class SigningRefused(Exception):
    """A checkpoint would contradict one that was signed. One line that says how."""


class CosignatureRefused(Exception):
    """The note is not of a checkpoint of ours, or no witness that is known signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint that was signed. `note`: as we signed it; `cosigned`: what witnesses added."""

    number: int
    size: int
    root: bytes
    note: str
    keys: Sequence[str]
    created_at: datetime
    cosigned: str = ""

    @property
    def whole(self) -> str:
        """The note with all of its signatures."""
        return self.note + self.cosigned


class Checkpoints:
    """Signs them, for one process: which also remembers the last that it signed, whatever the database
    says."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._signed: Checkpoint | None = None

    def sign(
        self, connection: Connection[DictRow], sealer: Sealer, keys: Sequence[SigningKey]
    ) -> Signed:
        """A checkpoint of all that is sealed; the last one, where there is nothing to add to it. Raises
        SigningRefused, NotOurs."""
        with connection.transaction():
            size = sealer.hold(connection)
            connection.execute(DURABLE)
            before = last(connection)
            vkeys = [key.verifier.text for key in keys]
            new = replace(self._checked(connection, size, before), more=_naming(keys))
            if before is not None and (before.size, list(before.keys)) == (size, vkeys):
                return before
            found = _kept(connection, new, keys, 1 if before is None else before.number + 1)
        self._signed = new
        return found

    def _checked(
        self, connection: Connection[DictRow], size: int, before: Signed | None
    ) -> Checkpoint:
        row = connection.execute(ORIGIN, {"origin": self._origin}).fetchone()
        assert row is not None, "the migration made it"
        try:
            new = Checkpoint(origin=row["origin"], size=size, root=root_at(connection, size))
            if before is not None:
                _check_between(connection, _checkpoint_of(connection, before), new)
            if self._signed is not None:
                _check_between(connection, self._signed, new)
        except (TreeBroken, ProofWrong, CheckpointMalformed, NoteMalformed) as error:
            log.critical("no checkpoint is signed: the tree is not what it was", error=str(error))
            raise SigningRefused(str(error)) from error
        return new


def _naming(keys: Sequence[SigningKey]) -> tuple[str, ...]:
    """While one key takes another's place, each of them signs which ones they are."""
    return tuple(NAMES_KEY + key.verifier.text for key in keys) if len(keys) > 1 else ()


def keys_named(checkpoint: Checkpoint) -> list[VerifierKey]:
    """The keys that whoever signed the checkpoint says to be the log's. Raises VerifierKeyUnusable."""
    lines = (line for line in checkpoint.more if line.startswith(NAMES_KEY))
    return [verifier_key(line.removeprefix(NAMES_KEY)) for line in lines]


def _check_between(connection: Connection[DictRow], old: Checkpoint, new: Checkpoint) -> None:
    """That the tree which was signed is in this one as it was. Raises ProofWrong, TreeBroken."""
    if new.size < old.size:
        raise ProofWrong(f"the tree has {new.size} leaves, of which {old.size} were signed")
    if old.origin != new.origin:
        raise ProofWrong("what was signed is of another origin")
    if root_at(connection, old.size) != old.root:
        raise ProofWrong(f"the tree had another root when it had {old.size} leaves")
    verify(old.size, new.size, consistency(connection, old.size, new.size), old.root, new.root)


def _checkpoint_of(connection: Connection[DictRow], kept: Signed) -> Checkpoint:
    """What was signed, by the signature and not by the row. Raises ProofWrong, NoteMalformed."""
    note = read_note(kept.note)
    if not signers(note, [key for key, _, _ in known_keys(connection)]):
        raise ProofWrong("the last checkpoint is not signed by us")
    checkpoint = read_checkpoint(note.text)
    if (checkpoint.size, checkpoint.root) != (kept.size, kept.root):
        raise ProofWrong("the last checkpoint is not what was signed")
    return checkpoint


def _kept(
    connection: Connection[DictRow], new: Checkpoint, keys: Sequence[SigningKey], number: int
) -> Signed:
    note, vkeys = signed(new.text, keys), [key.verifier.text for key in keys]
    for vkey in vkeys:
        connection.execute(KEEP_KEY, {"vkey": vkey})
    fields: dict[str, Any] = {"number": number, "size": new.size, "root": new.root, "keys": vkeys}
    row = connection.execute(KEEP, {**fields, "note": note.whole}).fetchone()
    assert row is not None
    return Signed(note=note.whole, created_at=row["created_at"], **fields)


# --- what was signed ----------------------------------------------------------------------------


def last(connection: Connection[Any]) -> Signed | None:
    """The last one; None before the first."""
    found = _all(connection, connection.execute(LAST).fetchall())
    return found[0] if found else None


def since(connection: Connection[Any], number: int, limit: int) -> list[Signed]:
    """The next ones after a number, in order."""
    rows = connection.execute(PAGE, {"after": number, "limit": limit}).fetchall()
    return _all(connection, rows)


def newest(connection: Connection[Any], limit: int) -> list[Signed]:
    """The last ones, newest first."""
    return _all(connection, connection.execute(NEWEST, {"limit": limit}).fetchall())


def known_keys(connection: Connection[Any]) -> list[tuple[VerifierKey, datetime, datetime]]:
    """Every key that signed, and when first and last; oldest first."""
    rows = connection.execute(KEYS).fetchall()
    return [(verifier_key(row["vkey"]), row["first_used"], row["last_used"]) for row in rows]


def _all(connection: Connection[Any], rows: Sequence[DictRow]) -> list[Signed]:
    lines: dict[int, str] = {}
    numbers = [row["number"] for row in rows]
    for row in connection.execute(COSIGNATURES, {"numbers": numbers}).fetchall():
        lines[row["number"]] = lines.get(row["number"], "") + row["line"]
    return [
        Signed(
            number=row["number"],
            size=row["size"],
            root=bytes(row["root"]),
            note=row["note"],
            keys=row["keys"],
            created_at=row["created_at"],
            cosigned=lines.get(row["number"], ""),
        )
        for row in rows
    ]


# --- witnesses ----------------------------------------------------------------------------------


def cosign(
    connection: Connection[DictRow], whole: str, witnesses: Sequence[VerifierKey], now: datetime
) -> list[str]:
    """Keeps what witnesses signed of a checkpoint of ours; their names. Raises CosignatureRefused."""
    try:
        note = read_note(whole)
        checkpoint = read_checkpoint(note.text)
    except (NoteMalformed, CheckpointMalformed) as error:
        raise CosignatureRefused(str(error)) from error
    with connection.transaction():
        ours = _of_text(connection, note, checkpoint)
        good = cosignatures(note, witnesses)
        if not good:
            raise CosignatureRefused("no witness of CHECKPOINT_WITNESSES has signed it")
        if any(each.timestamp > now.timestamp() + FUTURE_SECONDS for each in good):
            raise CosignatureRefused("it is cosigned in the future")
        for each in good:
            parameters = {
                "number": ours.number,
                "witness": each.witness.text,
                "timestamp": each.timestamp,
                "line": each.signature.line,
            }
            connection.execute(COSIGN, parameters)
    return [each.witness.name for each in good]


def _of_text(connection: Connection[DictRow], note: Note, checkpoint: Checkpoint) -> Signed:
    parameters = {"size": checkpoint.size, "root": checkpoint.root}
    rows = connection.execute(OF_TEXT, parameters).fetchall()
    found = [each for each in _all(connection, rows) if each.note.startswith(note.text + "\n")]
    if not found:
        raise CosignatureRefused("it is no checkpoint of this log")
    return found[-1]

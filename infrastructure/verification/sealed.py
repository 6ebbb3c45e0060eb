"""The log as it was sealed and signed: that the sealed runs are all of it in one order, that each node of
the tree is the hash of what is below it, and that every checkpoint is signed by a key that is trusted and
is of this tree. Also those that somebody kept outside.

That the leaves are those of the events is looked at where the events are read (`order`).
"""

import base64
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

from domain.evidence import (
    EMPTY_ROOT,
    HASH_BYTES,
    Checkpoint,
    CheckpointMalformed,
    read_checkpoint,
    root_of,
)
from infrastructure.audit.checkpoints import keys_named
from infrastructure.audit.notes import Note, NoteMalformed, cosignatures, read_note, signers
from infrastructure.audit.tree import (
    TILE_NODES,
    Key,
    TreeBroken,
    nodes_of,
    root_of_part,
)
from infrastructure.checkpoint_keys import VerifierKey, VerifierKeyUnusable, verifier_key
from infrastructure.counted_work import count
from infrastructure.verification.findings import Findings, Kind

TILES_AT_ONCE: Final = 64
CHECKPOINTS_AT_ONCE: Final = 500
TILES_REMEMBERED: Final = 256

SIZE: Final[LiteralString] = "SELECT size, origin FROM public.audit_tree"
# Where a run does not begin where the one before ends: in the whole order, and in its shard.
GAPS: Final[LiteralString] = """
    SELECT position, shard, shard_position, expected FROM (
        SELECT position, shard, shard_position,
               coalesce(lag(position + events) OVER (ORDER BY position), 0) AS expected
        FROM public.audit_runs
    ) AS r WHERE position <> expected ORDER BY position
"""
GAPS_OF_SHARDS: Final[LiteralString] = """
    SELECT position, shard, shard_position, expected FROM (
        SELECT position, shard, shard_position, coalesce(
                   lag(shard_position + events) OVER (PARTITION BY shard ORDER BY shard_position), 1
               ) AS expected
        FROM public.audit_runs
    ) AS r WHERE shard_position <> expected ORDER BY shard, shard_position
"""
ENDS: Final[LiteralString] = """
    SELECT t.size, coalesce((
        SELECT position + events FROM public.audit_runs ORDER BY position DESC LIMIT 1
    ), 0) AS sealed
    FROM public.audit_tree AS t
"""
TILES: Final[LiteralString] = """
    SELECT t.tile, t.hashes, substr(
        p.hashes, 1 + 32 * (t.tile & 255)::integer, 32
    ) AS above
    FROM public.audit_tiles AS t
    LEFT JOIN public.audit_tiles AS p ON p.level = t.level + 1 AND p.tile = t.tile >> 8
    WHERE t.level = %(level)s AND t.tile >= %(first)s AND t.tile < %(end)s ORDER BY t.tile
"""
TILE: Final[LiteralString] = """
    SELECT hashes FROM public.audit_tiles WHERE level = %(level)s AND tile = %(tile)s
"""
CHECKPOINTS: Final[LiteralString] = """
    SELECT number, size, root, note, keys, ARRAY(
        SELECT ARRAY[witness, line, timestamp::text] FROM public.audit_cosignatures AS c
        WHERE c.number = k.number ORDER BY witness
    ) AS cosigned
    FROM public.audit_checkpoints AS k WHERE number >= %(first)s AND number < %(end)s
    ORDER BY number
"""
# A log that is signed again as it was earlier: the last one is what is published.
SHRUNK: Final[LiteralString] = """
    SELECT number, size, larger FROM (
        SELECT number, size, lag(size) OVER (ORDER BY number) AS larger FROM public.audit_checkpoints
    ) AS k WHERE size < larger ORDER BY number
"""
COSIGNED_NOTHING: Final[LiteralString] = """
    SELECT c.number, c.witness FROM public.audit_cosignatures AS c
    WHERE NOT EXISTS (SELECT FROM public.audit_checkpoints AS k WHERE k.number = c.number)
"""
PUSHED_FURTHER: Final[LiteralString] = """
    SELECT p.number, k.last FROM public.audit_pushes AS p
    CROSS JOIN (SELECT coalesce(max(number), 0) AS last FROM public.audit_checkpoints) AS k
    WHERE p.number > k.last
"""
TILES_THERE: Final[LiteralString] = """
    SELECT count(*) AS found, (
        SELECT (greatest(size, 0) + 255) >> 8 FROM public.audit_tree
    ) AS wanted FROM public.audit_tiles WHERE level = 0
"""
TILES_OF_NOTHING: Final[LiteralString] = """
    SELECT t.level, t.tile FROM public.audit_tiles AS t CROSS JOIN public.audit_tree AS a
    WHERE t.level NOT BETWEEN 0 AND 7 OR t.tile < 0 OR t.tile > ((a.size >> 8 * t.level) - 1) >> 8
    ORDER BY t.level, t.tile
"""
# Of each set of keys that checkpoints say that they are signed with, one.
SIGNED_WITH: Final[LiteralString] = """
    SELECT DISTINCT ON (keys) note, keys FROM public.audit_checkpoints ORDER BY keys, number
"""
KEYS: Final[LiteralString] = "SELECT vkey FROM public.audit_keys ORDER BY first_used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """A checkpoint that somebody kept. `name`: what it is called in what is said."""

    name: str
    note: str


class Tiles(Mapping[Key, bytes]):
    """The tree's tiles, read when they are asked for; the last ones are remembered."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._remembered: OrderedDict[Key, bytes] = OrderedDict()

    def __getitem__(self, key: Key) -> bytes:
        if key not in self._remembered:
            parameters = {"level": key[0], "tile": key[1]}
            row = self._connection.execute(TILE, parameters, binary=True).fetchone()
            self._remembered[key] = b"" if row is None else bytes(row[0])
            if len(self._remembered) > TILES_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return self._remembered[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._remembered)

    def __len__(self) -> int:
        return len(self._remembered)

    def root_at(self, size: int) -> bytes:
        """The root of the tree when it had that size. Raises TreeBroken."""
        return root_of_part(self, 0, size) if size else EMPTY_ROOT


class Tree:
    """The tree as it is now, which checkpoints are held against."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._tiles = Tiles(connection)
        self._size, self._origin = size_of_tree(connection)

    def compare(self, name: str, checkpoint: Checkpoint, kind: Kind, findings: Findings) -> None:
        """Finds that what is called `name` is not of this tree."""
        places = {"log_position": checkpoint.size}
        if self._origin is not None and checkpoint.origin != self._origin:
            says = f"{name} is of another log"
            findings.add(kind, says, expected=checkpoint.origin, found=self._origin, **places)
        elif checkpoint.size > self._size:
            says = f"{name} is of a longer log: its end is gone"
            sizes = {"expected": str(checkpoint.size), "found": str(self._size)}
            findings.add(kind, says, **sizes, **places)
        else:
            self._compare_root(name, checkpoint, kind, findings)

    def _compare_root(
        self, name: str, checkpoint: Checkpoint, kind: Kind, findings: Findings
    ) -> None:
        places = {"log_position": checkpoint.size}
        try:
            root = self._tiles.root_at(checkpoint.size)
        except TreeBroken as error:
            findings.add(kind, f"{name} cannot be compared: {error}", **places)
            return
        if root != checkpoint.root:
            says = f"{name} is of another history: what is before position {checkpoint.size} was changed"
            findings.add(kind, says, expected=_text(checkpoint.root), found=_text(root), **places)


# --- the tree -----------------------------------------------------------------------------------


def check_runs(connection: Connection[Any], findings: Findings) -> None:
    """That the one order has every place once, and every shard's events in their order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        for query, says in (
            (GAPS, "the one order of the log has a gap, or a place twice"),
            (GAPS_OF_SHARDS, "the sealed order does not have all of a shard's events in order"),
        ):
            for row in cursor.execute(query).fetchmany(CHECKPOINTS_AT_ONCE):
                is_of_shard = query is GAPS_OF_SHARDS
                findings.add(
                    Kind.SEALING_BROKEN,
                    says,
                    table="audit_runs",
                    shard=row["shard"],
                    position=row["shard_position"],
                    log_position=row["position"],
                    expected=str(row["expected"]),
                    found=str(row["shard_position"] if is_of_shard else row["position"]),
                )
        ends = cursor.execute(ENDS).fetchone()
        tiles = cursor.execute(TILES_THERE).fetchone()
        if tiles is not None and tiles["found"] < (tiles["wanted"] or 0):
            _tile_wrong(0, tiles["found"], "tiles of the tree are gone", findings)
        for row in cursor.execute(TILES_OF_NOTHING).fetchmany(CHECKPOINTS_AT_ONCE):
            says = "there is a tile that the tree does not go on to"
            _tile_wrong(row["level"], row["tile"], says, findings)
    if ends is None or ends["size"] != ends["sealed"]:
        findings.add(
            Kind.SEALING_BROKEN,
            "the tree has not as many leaves as events were sealed",
            table="audit_tree",
            expected=str(ends and ends["sealed"]),
            found=str(ends and ends["size"]),
        )


def size_of_tree(connection: Connection[Any]) -> tuple[int, str | None]:
    """How many leaves it says that it has, and what the log is called."""
    row = connection.execute(SIZE).fetchone()
    return (0, None) if row is None else (row[0], row[1])


def check_tiles(
    connection: Connection[Any], part: tuple[int, int, int], findings: Findings
) -> None:
    """That these tiles, of one level from the first up to an end, are all there, as long as they must
    be, and that what is above each whole one is its root."""
    level, first, end = part
    nodes = size_of_tree(connection)[0] >> 8 * level
    end = min(end, -(-nodes // TILE_NODES))
    expected = first
    with connection.cursor(name="tiles", row_factory=dict_row) as cursor:
        cursor.itersize = TILES_AT_ONCE
        cursor.execute(TILES, {"level": level, "first": first, "end": end}, binary=True)
        for row in cursor:
            _check_tile(level, expected, nodes, row, findings)
            expected = row["tile"] + 1
            count(TILE_NODES if level == 0 else 0)
    if expected < end:
        _tile_wrong(level, expected, "tiles of the tree are gone", findings)


def _check_tile(level: int, expected: int, nodes: int, row: Any, findings: Findings) -> None:
    tile = row["tile"]
    if tile != expected:
        _tile_wrong(level, expected, "a tile of the tree is gone", findings)
    count = min(TILE_NODES, nodes - tile * TILE_NODES)
    if len(row["hashes"]) != count * HASH_BYTES:
        _tile_wrong(level, tile, "a tile of the tree has not the nodes that it must have", findings)
        return
    if count < TILE_NODES:
        return
    root = root_of(nodes_of(row["hashes"]))
    if root != row["above"]:
        _tile_wrong(
            level,
            tile,
            "the node above a tile is not the hash of what is in it",
            findings,
            expected=root.hex(),
            found=(row["above"] or b"").hex() or "none",
        )


def _tile_wrong(level: int, tile: int, says: str, findings: Findings, **more: Any) -> None:
    findings.add(
        Kind.TREE_BROKEN,
        f"{says} (level {level}, tile {tile})",
        table="audit_tiles",
        log_position=tile << 8 * (level + 1),
        **more,
    )


# --- keys ---------------------------------------------------------------------------------------


def trusted_keys(
    connection: Connection[Any], own: Sequence[VerifierKey], findings: Findings
) -> list[VerifierKey]:
    """The keys whose checkpoints count: `own`, and those that a checkpoint of one of them names, as it
    does while one key takes another's place. Of no own key, those that the log has: whoever can write to
    it can change them."""
    found = list(own)
    kept = [key for (text,) in connection.execute(KEYS).fetchall() if (key := _key(text))]
    if not own:
        return kept
    notes = [note for note, _ in connection.execute(SIGNED_WITH).fetchall()]
    is_more = True
    while is_more:
        new = [key for note in notes for key in _vouched_for(note, found) if key not in found]
        found += dict.fromkeys(new)
        is_more = bool(new)
    for key in kept:
        if key not in found:
            findings.add(
                Kind.CHECKPOINT_KEY_UNKNOWN,
                f"the log has checkpoints by a key that nobody vouches for, {key.text}: if it is one of "
                "yours, give it as --key",
                table="audit_keys",
            )
    return found


def _key(text: str) -> VerifierKey | None:
    try:
        return verifier_key(text)
    except VerifierKeyUnusable:
        return None


def _vouched_for(whole: str, keys: Sequence[VerifierKey]) -> list[VerifierKey]:
    """The keys that the checkpoint names, if one of these has signed it."""
    try:
        note = read_note(whole)
        return keys_named(read_checkpoint(note.text)) if signers(note, keys) else []
    except (NoteMalformed, CheckpointMalformed, VerifierKeyUnusable):
        return []


# --- checkpoints --------------------------------------------------------------------------------


def check_checkpoints(
    connection: Connection[Any],
    numbers: tuple[int, int],
    keys: Sequence[VerifierKey],
    findings: Findings,
) -> None:
    """Those of these numbers, from one up to another."""
    tree, expected = Tree(connection), numbers[0]
    known = {text for (text,) in connection.execute(KEYS).fetchall()}
    with connection.cursor(name="checkpoints", row_factory=dict_row) as cursor:
        cursor.itersize = CHECKPOINTS_AT_ONCE
        for row in cursor.execute(CHECKPOINTS, {"first": numbers[0], "end": numbers[1]}):
            name = f"checkpoint {row['number']}"
            if row["number"] != expected:
                _gone(expected, findings)
            expected = row["number"] + 1
            read = _read(name, row["note"], keys, findings, Kind.CHECKPOINT_FORGED)
            if read is None:
                continue
            note, checkpoint = read
            if (checkpoint.size, checkpoint.root) != (row["size"], bytes(row["root"])):
                says = f"{name} is kept as another than was signed"
                _differs(says, checkpoint, row["size"], bytes(row["root"]), findings)
            _check_keys(name, note, row["keys"], known, findings)
            _check_cosignatures(name, note, row["cosigned"], findings)
            tree.compare(name, checkpoint, Kind.CHECKPOINT_DIFFERS, findings)
    if expected < numbers[1]:
        _gone(expected, findings)


def _gone(number: int, findings: Findings) -> None:
    says = f"checkpoint {number} is gone"
    findings.add(Kind.CHECKPOINT_MISSING, says, table="audit_checkpoints")


def check_outside(
    connection: Connection[Any],
    outside: Sequence[Outside],
    keys: Sequence[VerifierKey],
    findings: Findings,
) -> None:
    """That each of them is signed by one of these keys, and is of the tree as it is now."""
    tree = Tree(connection)
    kind = Kind.OUTSIDE_CHECKPOINT_DIFFERS
    for each in outside:
        name = f"the checkpoint kept in {each.name}"
        read = _read(name, each.note, keys, findings, kind)
        if read is not None:
            tree.compare(name, read[1], kind, findings)


def _read(
    name: str, whole: str, keys: Sequence[VerifierKey], findings: Findings, kind: Kind
) -> tuple[Note, Checkpoint] | None:
    try:
        note = read_note(whole)
        checkpoint = read_checkpoint(note.text)
    except (NoteMalformed, CheckpointMalformed) as error:
        findings.add(kind, f"{name} is none: {error}")
        return None
    if not signers(note, keys):
        findings.add(
            kind,
            f"{name} is not signed by a key that is trusted",
            log_position=checkpoint.size,
            expected=" or ".join(key.text for key in keys) or "a key",
            found=" and ".join(sorted({each.name for each in note.signatures})),
        )
        return None
    return note, checkpoint


def _check_keys(
    name: str, note: Note, kept: Sequence[str], known: set[str], findings: Findings
) -> None:
    """That it says to be signed by those who signed it, all of whom the log has."""
    keys = [key for text in kept if (key := _key(text))]
    signed = [(each.name, each.key_id) for each in note.signatures]
    if signed != [(key.name, key.key_id) for key in keys] or len(signers(note, keys)) != len(
        signed
    ):
        says = f"{name} says that others signed it than did"
        findings.add(Kind.CHECKPOINT_FORGED, says, table="audit_checkpoints")
    for text in sorted(set(kept) - known):
        known.add(text)  # it is told once
        says = f"the key that {name} was signed with is gone"
        findings.add(
            Kind.CHECKPOINT_KEY_UNKNOWN, says, table="audit_keys", expected=text, found="none"
        )


def _check_cosignatures(
    name: str, note: Note, cosigned: Sequence[Sequence[str]], findings: Findings
) -> None:
    for witness, line, timestamp in cosigned:
        key = _key(witness)
        try:
            whole = read_note(note.whole + line)
        except NoteMalformed:
            whole = note
        good = [] if key is None else cosignatures(whole, [key])
        if [str(each.timestamp) for each in good] != [timestamp]:
            says = f"{name} has a cosignature that its witness did not make"
            findings.add(Kind.COSIGNATURE_WRONG, says, table="audit_cosignatures", found=witness)


def check_numbers(connection: Connection[Any], findings: Findings) -> None:
    """That no checkpoint is of a shorter log than one before it, and that none is gone of which somebody
    was told, or which a witness signed."""
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(SHRUNK).fetchmany(CHECKPOINTS_AT_ONCE):
            findings.add(
                Kind.CHECKPOINT_DIFFERS,
                f"checkpoint {row['number']} is of a shorter log than the one before it",
                table="audit_checkpoints",
                expected=f"{row['larger']} or more",
                found=str(row["size"]),
            )
        for row in cursor.execute(PUSHED_FURTHER).fetchall():
            says = f"checkpoint {row['number']} is gone, of which a place outside was told"
            findings.add(
                Kind.CHECKPOINT_MISSING, says, table="audit_pushes", found=str(row["last"])
            )
        for row in cursor.execute(COSIGNED_NOTHING).fetchmany(CHECKPOINTS_AT_ONCE):
            says = f"checkpoint {row['number']} is gone, which a witness signed"
            findings.add(
                Kind.CHECKPOINT_MISSING, says, table="audit_cosignatures", found=row["witness"]
            )


def _differs(says: str, checkpoint: Checkpoint, size: int, root: bytes, findings: Findings) -> None:
    findings.add(
        Kind.CHECKPOINT_FORGED,
        says,
        table="audit_checkpoints",
        log_position=checkpoint.size,
        expected=f"{checkpoint.size} {_text(checkpoint.root)}",
        found=f"{size} {_text(root)}",
    )


def _text(root: bytes) -> str:
    return base64.b64encode(root).decode()

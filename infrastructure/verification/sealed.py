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
    SELECT number, size, root, note, ARRAY(
        SELECT ARRAY[witness, line] FROM public.audit_cosignatures AS c WHERE c.number = k.number
        ORDER BY witness
    ) AS cosigned
    FROM public.audit_checkpoints AS k WHERE number >= %(first)s AND number < %(end)s
    ORDER BY number
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
    """The keys whose checkpoints count: `own`, and those that a checkpoint says belong to them, being
    signed by both, as it is while one key takes another's place. Of no own key, those that the log has:
    whoever can write to it can change them."""
    found = list(own)
    kept = [key for (text,) in connection.execute(KEYS).fetchall() if (key := _key(text))]
    if not own:
        return kept
    notes = [note for note, _ in connection.execute(SIGNED_WITH).fetchall()]
    is_more = True
    while is_more:
        is_more = False
        for note in notes:
            signed_by = _signers(note, kept)
            new = [key for key in signed_by if key not in found]
            if new and any(key in found for key in signed_by):
                found += new
                is_more = True
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


def _signers(note: str, keys: Sequence[VerifierKey]) -> list[VerifierKey]:
    try:
        return signers(read_note(note), keys)
    except NoteMalformed:
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
    with connection.cursor(name="checkpoints", row_factory=dict_row) as cursor:
        cursor.itersize = CHECKPOINTS_AT_ONCE
        for row in cursor.execute(CHECKPOINTS, {"first": numbers[0], "end": numbers[1]}):
            name = f"checkpoint {row['number']}"
            if row["number"] != expected:
                says = f"checkpoint {expected} is gone"
                findings.add(Kind.CHECKPOINT_MISSING, says, table="audit_checkpoints")
            expected = row["number"] + 1
            read = _read(name, row["note"], keys, findings, Kind.CHECKPOINT_FORGED)
            if read is None:
                continue
            note, checkpoint = read
            if (checkpoint.size, checkpoint.root) != (row["size"], bytes(row["root"])):
                says = f"{name} is kept as another than was signed"
                _differs(says, checkpoint, row["size"], bytes(row["root"]), findings)
            _check_cosignatures(name, note, row["cosigned"], findings)
            tree.compare(name, checkpoint, Kind.CHECKPOINT_DIFFERS, findings)


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


def _check_cosignatures(
    name: str, note: Note, cosigned: Sequence[Sequence[str]], findings: Findings
) -> None:
    for witness, line in cosigned:
        key = _key(witness)
        try:
            whole = read_note(note.whole + line)
        except NoteMalformed:
            whole = note
        if key is None or not cosignatures(whole, [key]):
            says = f"{name} has a cosignature that its witness did not make"
            findings.add(Kind.COSIGNATURE_WRONG, says, table="audit_cosignatures", found=witness)


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

"""The tree's nodes in the database, in tiles of 256: few to read for a proof, and few to write.

A tile of level L has nodes of the tree's level 8 L: a node of one level up is the root over a whole tile.
Only whole nodes are kept, so that what was read for a tree of one size is as good for every larger one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, LiteralString

import psycopg
from psycopg import Connection

from domain.evidence import (
    EMPTY_ROOT,
    HASH_BYTES,
    Part,
    consistency_parts,
    folded,
    inclusion_parts,
    proof,
    root_of,
    whole_parts,
)

TILE_LEVELS: Final = 8
TILE_NODES: Final = 1 << TILE_LEVELS

# As the migration has it.
CHANGE_REFUSED: Final = "CF003"

# Level and number.
Key = tuple[int, int]
Tiles = Mapping[Key, bytes]

READ: Final[LiteralString] = """
    SELECT t.level, t.tile, t.hashes
    FROM unnest(%(levels)s::smallint[], %(tiles)s::bigint[]) AS k (level, tile)
    JOIN audit_tiles AS t ON t.level = k.level AND t.tile = k.tile
"""
WRITE: Final[LiteralString] = """
    INSERT INTO audit_tiles (level, tile, hashes)
    SELECT * FROM unnest(%(levels)s::smallint[], %(tiles)s::bigint[], %(hashes)s::bytea[])
    ON CONFLICT (level, tile) DO UPDATE SET hashes = excluded.hashes
"""


class TreeBroken(Exception):
    """The tree is not what it was: something was changed in it. One line that says where."""


# --- in memory ----------------------------------------------------------------------------------


def edge(size: int) -> list[Key]:
    """The tiles that a tree of that size goes on in."""
    keys, nodes, level = [], size, 0
    while nodes:
        if nodes % TILE_NODES:
            keys.append((level, nodes // TILE_NODES))
        nodes //= TILE_NODES
        level += 1
    return keys


def grown(size: int, tiles: Tiles, leaves: Sequence[bytes]) -> dict[Key, bytes]:
    """The tiles that change when hashed leaves come to a tree of that size, of which `tiles` has the
    edge."""
    changed: dict[Key, bytes] = {}
    level, nodes, new = 0, size, list(leaves)
    while new:
        tile, within = divmod(nodes, TILE_NODES)
        before = _of_length(tiles, (level, tile), within) if within else b""
        known = before + b"".join(new)
        whole = []
        for start in range(0, len(known), TILE_NODES * HASH_BYTES):
            hashes = known[start : start + TILE_NODES * HASH_BYTES]
            changed[level, tile] = hashes
            tile += 1
            if len(hashes) == TILE_NODES * HASH_BYTES:
                whole.append(root_of(nodes_of(hashes)))
        level, nodes, new = level + 1, nodes // TILE_NODES, whole
    return changed


def nodes_of(hashes: bytes) -> list[bytes]:
    """A tile's nodes, one by one."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def tiles_for(parts: Iterable[Part]) -> list[Key]:
    """The tiles that the roots of these parts are made of."""
    whole = {each for part in parts for each in whole_parts(part)}
    return sorted({_place(begin, end)[0] for begin, end in whole})


def root_of_part(tiles: Tiles, begin: int, end: int) -> bytes:
    """The root over these leaves, of a part that begins where a part of a proof can. Raises
    TreeBroken."""
    return folded([_root_of_whole(tiles, *part) for part in whole_parts((begin, end))])


def _root_of_whole(tiles: Tiles, begin: int, end: int) -> bytes:
    key, first, count = _place(begin, end)
    hashes = _of_length(tiles, key, first + count)
    return root_of(nodes_of(hashes[first * HASH_BYTES :]))


def _place(begin: int, end: int) -> tuple[Key, int, int]:
    """Where the nodes are that a part which is one node is made of: the tile, the first, how many."""
    height = (end - begin).bit_length() - 1
    level = height // TILE_LEVELS
    tile, first = divmod(begin >> level * TILE_LEVELS, TILE_NODES)
    return (level, tile), first, 1 << height % TILE_LEVELS


def _of_length(tiles: Tiles, key: Key, nodes: int) -> bytes:
    """The first nodes of a tile. Raises TreeBroken."""
    hashes = tiles.get(key, b"")[: nodes * HASH_BYTES]
    if len(hashes) != nodes * HASH_BYTES:
        raise TreeBroken(f"tile {key[1]} of level {key[0]} lacks nodes")
    return hashes


# --- in the database ----------------------------------------------------------------------------


def read_tiles(connection: Connection[Any], keys: Sequence[Key]) -> dict[Key, bytes]:
    """Those of the tiles that there are."""
    parameters = {"levels": [level for level, _ in keys], "tiles": [tile for _, tile in keys]}
    rows = connection.execute(READ, parameters).fetchall()
    return {(row["level"], row["tile"]): bytes(row["hashes"]) for row in rows}


def write_tiles(connection: Connection[Any], changed: Tiles) -> None:
    """Keeps the tiles, of which the database refuses any that is not what it was, or longer. Raises
    TreeBroken."""
    keys = list(changed)
    parameters = {
        "levels": [level for level, _ in keys],
        "tiles": [tile for _, tile in keys],
        "hashes": [changed[key] for key in keys],
    }
    try:
        connection.execute(WRITE, parameters)
    except psycopg.DatabaseError as error:
        if error.sqlstate == CHANGE_REFUSED:
            raise TreeBroken("a tile would be another than it was") from error
        raise


def root_at(connection: Connection[Any], size: int) -> bytes:
    """The root of the tree when it had that size. Raises TreeBroken."""
    if size == 0:
        return EMPTY_ROOT
    tiles = read_tiles(connection, tiles_for([(0, size)]))
    return root_of_part(tiles, 0, size)


def inclusion(connection: Connection[Any], position: int, size: int) -> tuple[bytes, list[bytes]]:
    """The leaf's hash, and the proof that it is in the tree of that size. Raises TreeBroken."""
    parts = inclusion_parts(position, size)
    own = (position, position + 1)
    tiles = read_tiles(connection, tiles_for([*parts, own]))
    hashes = proof(parts, lambda begin, end: root_of_part(tiles, begin, end))
    return root_of_part(tiles, *own), hashes


def consistency(connection: Connection[Any], old: int, new: int) -> list[bytes]:
    """The proof that the tree of size `new` goes on from that of size `old`. Raises TreeBroken."""
    parts = consistency_parts(old, new)
    tiles = read_tiles(connection, tiles_for(parts))
    return proof(parts, lambda begin, end: root_of_part(tiles, begin, end))

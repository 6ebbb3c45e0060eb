"""Proofs of many events in one tree: what their paths have in common is hashed once."""

from collections import OrderedDict
from typing import Any, Final

from psycopg import Connection

from domain.evidence import consistency_parts, inclusion_parts
from infrastructure.audit.tree import root_of_part
from infrastructure.verification.sealed import Tiles

ROOTS_REMEMBERED: Final = 20_000


class Proofs:
    """Of the tree when it had one size. `connection` gives rows as tuples."""

    def __init__(self, connection: Connection[Any], size: int) -> None:
        self._tiles, self._size = Tiles(connection), size
        self._roots: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def inclusion(self, position: int) -> list[bytes]:
        """That the leaf at this position is in the tree. Raises TreeBroken."""
        return [self._root(*part) for part in inclusion_parts(position, self._size)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """That the tree of size `new` goes on from that of size `old`. Raises TreeBroken."""
        return [self._root(*part) for part in consistency_parts(old, new)]

    def root_at(self, size: int) -> bytes:
        """The tree's root at a size."""
        return self._tiles.root_at(size)

    def _root(self, begin: int, end: int) -> bytes:
        part = (begin, end)
        if part not in self._roots:
            self._roots[part] = root_of_part(self._tiles, begin, end)
            if len(self._roots) > ROOTS_REMEMBERED:
                self._roots.popitem(last=False)
        self._roots.move_to_end(part)
        return self._roots[part]

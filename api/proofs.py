"""Proofs of the log, as they are told."""

import base64
from typing import Any

from psycopg import Connection

from infrastructure.audit import checkpoints, tree

Document = dict[str, Any]


def in_base64(content: bytes) -> str:
    """As hashes are told everywhere."""
    return base64.b64encode(content).decode()


def inclusion_of(connection: Connection[Any], position: int) -> Document | None:
    """That the event at the position is under the last checkpoint; None where it is not."""
    last = checkpoints.last(connection)
    if last is None or position >= last.size:
        return None
    leaf, hashes = tree.inclusion(connection, position, last.size)
    return {
        "position": position,
        "tree_size": last.size,
        "leaf_hash": in_base64(leaf),
        "root_hash": in_base64(last.root),
        "hashes": [in_base64(each) for each in hashes],
    }

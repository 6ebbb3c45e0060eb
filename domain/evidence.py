"""The log as evidence: what is hashed of an event, the tree over all events, and proofs in it.

Nothing here reads or writes anything, so that a verifier that stands alone can say the same. The tree
is that of RFC 6962: a leaf is hashed after a zero byte, two nodes after a one byte, and of a tree that
is no power of two the left part is the largest power of two below it. A position counts from 0.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

LEAF: Final = b"counterfoil event v1\n"
LENGTH: Final = struct.Struct(">I")
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
HASH_BYTES: Final = 32

# The root of a part of the tree: of the leaves from one position up to, and without, another.
RootOf = Callable[[int, int], bytes]
Part = tuple[int, int]


class ProofWrong(Exception):
    """The proof does not show what it is said to show. One line that says why."""


class CheckpointMalformed(Exception):
    """The text is no checkpoint. One line that says why."""


# --- one event ----------------------------------------------------------------------------------


class Leaf(NamedTuple):
    """An event as the tree has it: each field as it is written in the log.

    `event_id`, `aggregate`: UUIDs in lower-case hexadecimal with hyphens. `at`: RFC 3339 in UTC, with
    microseconds and a Z. `state`, `cause`: the very bytes of their JSON.
    """

    position: int
    event_id: str
    aggregate: str
    version: int
    topic: str
    at: str
    state: bytes
    cause: str


# The fields of a Leaf, in its order, for who would make one of each event only to have it hashed.
Fields = tuple[int, str, str, int, str, str, bytes, str]


def leaf_bytes(leaf: Fields) -> bytes:
    """What is hashed: a line that names the form, then each field, after its length in four bytes."""
    # Written out, since it is done for every event, and a loop takes twice as long.
    number, event_id, aggregate, version, topic, at, state, cause = leaf
    text, pack = b"%d" % number, LENGTH.pack
    of, to, version_text = event_id.encode(), aggregate.encode(), b"%d" % version
    topic_text, at_text, cause_text = topic.encode(), at.encode(), cause.encode()
    # fmt: off
    return b"".join((
        LEAF, pack(len(text)), text, pack(len(of)), of, pack(len(to)), to,
        pack(len(version_text)), version_text, pack(len(topic_text)), topic_text,
        pack(len(at_text)), at_text, pack(len(state)), state, pack(len(cause_text)), cause_text,
    ))
    # fmt: on


def read_leaf(encoded: bytes) -> Leaf:
    """The event that these bytes are of. Raises ValueError for what `leaf_bytes` did not write."""
    if not encoded.startswith(LEAF):
        raise ValueError("the bytes are of no event")
    fields, place = [], len(LEAF)
    while place < len(encoded):
        (length,) = LENGTH.unpack_from(encoded.ljust(place + LENGTH.size), place)
        place += LENGTH.size
        fields.append(encoded[place : place + length])
        place += length
    position, event_id, aggregate, version, topic, at, state, cause = fields
    leaf = Leaf(
        position=int(position),
        event_id=event_id.decode(),
        aggregate=aggregate.decode(),
        version=int(version),
        topic=topic.decode(),
        at=at.decode(),
        state=state,
        cause=cause.decode(),
    )
    if leaf_bytes(leaf) != encoded:
        raise ValueError("the bytes are of no event")
    return leaf


# --- the tree -----------------------------------------------------------------------------------


def leaf_hash(leaf: bytes) -> bytes:
    """Of the bytes of one leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Of two parts of the tree that lie beside one another."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaves that are hashed already."""
    if not hashes:
        return EMPTY_ROOT
    layer = list(hashes)
    while len(layer) > 1:
        odd = layer[-1:] if len(layer) % 2 else []
        layer = list(map(node_hash, layer[::2], layer[1::2])) + odd
    return layer[0]


def split(size: int) -> int:
    """How many leaves the left part of a tree of more than one has."""
    return 1 << (size - 1).bit_length() - 1


def whole_parts(part: Part) -> list[Part]:
    """The part as parts that are powers of two each and lie on their multiples, from the left. A part
    of a proof begins on such a multiple; so that they are folded from the right."""
    begin, end = part
    parts = []
    while begin < end:
        widest = begin & -begin or 1 << (end - begin).bit_length()
        while begin + widest > end:
            widest >>= 1
        parts.append((begin, begin + widest))
        begin += widest
    return parts


def folded(roots: Sequence[bytes]) -> bytes:
    """The root over such parts, of their roots."""
    if not roots:
        return EMPTY_ROOT
    found = roots[-1]
    for root in reversed(roots[:-1]):
        found = node_hash(root, found)
    return found


# --- proofs -------------------------------------------------------------------------------------


def inclusion_parts(position: int, size: int) -> list[Part]:
    """Whose roots prove that the leaf at `position` is in the tree of that size (RFC 6962, 2.1.1), from
    the leaf up."""
    if not 0 <= position < size:
        raise ValueError("the position is not in the tree")
    parts: list[Part] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split(end - begin)
        if position < middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((begin, middle))
            begin = middle
    return parts[::-1]


def consistency_parts(old: int, new: int) -> list[Part]:
    """Whose roots prove that the tree of size `new` goes on from that of size `old` (RFC 6962, 2.1.2).
    None between trees of one size, and none from the empty one."""
    if not 0 <= old <= new:
        raise ValueError("the later tree is the larger one")
    parts: list[Part] = []
    begin, end, is_known = 0, new, True
    while old not in (0, end):
        middle = begin + split(end - begin)
        if old <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((begin, middle))
            begin, is_known = middle, False
    if old and not is_known:
        parts.append((begin, end))
    return parts[::-1]


def verify_inclusion(
    leaf: bytes, position: int, size: int, hashes: Sequence[bytes], root: bytes
) -> None:
    """That the tree has the leaf of this hash there. Raises ProofWrong."""
    if not 0 <= position < size:
        raise ProofWrong("the position is not in a tree of that size")
    parts = inclusion_parts(position, size)
    if len(parts) != len(hashes):
        raise ProofWrong(f"{len(hashes)} hashes where there must be {len(parts)}")
    found = leaf
    for (begin, _), beside in zip(parts, hashes, strict=True):
        is_right = begin > position
        found = node_hash(found, beside) if is_right else node_hash(beside, found)
    if found != root:
        raise ProofWrong("the hashes lead to another root")


def verify_consistency(
    old: int, new: int, hashes: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """That the tree of size `new` has that of size `old` unchanged in it. Raises ProofWrong."""
    if not 0 <= old <= new:
        raise ProofWrong("the later tree is smaller")
    parts = consistency_parts(old, new)
    if len(parts) != len(hashes):
        raise ProofWrong(f"{len(hashes)} hashes where there must be {len(parts)}")
    if old == 0 and old_root != EMPTY_ROOT:
        raise ProofWrong("an empty tree has another root")
    if old in (0, new):
        if old == new and old_root != new_root:
            raise ProofWrong("two roots of one size")
        return
    known = dict(zip(parts, hashes, strict=True))
    # What the old root is the fold of, or, where it is one part of the new tree, is itself.
    left = sorted(part for part in known if part[1] <= old)
    if not left or left[0][0] != 0:
        known[0, old] = old_root
        left = [(0, old)]
    if folded([known[part] for part in left]) != old_root:
        raise ProofWrong("the hashes lead to another old root")
    if _root_from(known, (0, new)) != new_root:
        raise ProofWrong("the hashes lead to another new root")


def _root_from(known: dict[Part, bytes], part: Part) -> bytes:
    """The root over a part, of the roots of the parts that it is made of."""
    if part in known:
        return known[part]
    begin, end = part
    middle = begin + split(end - begin)
    return node_hash(_root_from(known, (begin, middle)), _root_from(known, (middle, end)))


def proof(parts: Iterable[Part], root: RootOf) -> list[bytes]:
    """The hashes of a proof, by whoever knows the roots of the tree's parts."""
    return [root(begin, end) for begin, end in parts]


# --- checkpoints --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of the tree at one size, as it is signed (C2SP tlog-checkpoint). `more`: lines that follow,
    which are nothing to who does not know them."""

    origin: str
    size: int
    root: bytes
    more: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is signed."""
        lines = (self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.more)
        return "".join(f"{line}\n" for line in lines)


def read_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a signed note's text. Raises CheckpointMalformed."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not all(lines[:-1]) or lines[-1]:
        raise CheckpointMalformed("a checkpoint is an origin, a size and a root, each on its line")
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", lines[1], re.ASCII):
        raise CheckpointMalformed("the size is no number")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error as error:
        raise CheckpointMalformed("the root is not in base64") from error
    if len(root) != HASH_BYTES:
        raise CheckpointMalformed("the root is not of 32 bytes")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root, more=tuple(lines[3:-1]))

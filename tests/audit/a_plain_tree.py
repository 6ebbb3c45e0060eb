"""The tree and its proofs word for word as RFC 6962 defines them, by recursion and slowly."""

from collections.abc import Sequence

from domain.evidence import EMPTY_ROOT, node_hash


def plain_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else EMPTY_ROOT
    k = largest_power_below(len(hashes))
    return node_hash(plain_root(hashes[:k]), plain_root(hashes[k:]))


def plain_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1."""
    if len(hashes) == 1:
        return []
    k = largest_power_below(len(hashes))
    if m < k:
        return [*plain_path(m, hashes[:k]), plain_root(hashes[k:])]
    return [*plain_path(m - k, hashes[k:]), plain_root(hashes[:k])]


def plain_proof(m: int, hashes: Sequence[bytes], *, is_known: bool = True) -> list[bytes]:
    """RFC 6962, 2.1.2."""
    if m == len(hashes):
        return [] if is_known else [plain_root(hashes)]
    k = largest_power_below(len(hashes))
    if m <= k:
        return [*plain_proof(m, hashes[:k], is_known=is_known), plain_root(hashes[k:])]
    return [*plain_proof(m - k, hashes[k:], is_known=False), plain_root(hashes[:k])]


def largest_power_below(number: int) -> int:
    power = 1
    while power * 2 < number:
        power *= 2
    return power

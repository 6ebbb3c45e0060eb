"""The tree is that of RFC 6962, and no proof shows what is not so."""

from functools import cache
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.evidence import (
    EMPTY_ROOT,
    Checkpoint,
    CheckpointMalformed,
    Leaf,
    ProofWrong,
    consistency_parts,
    inclusion_parts,
    leaf_bytes,
    leaf_hash,
    proof,
    read_checkpoint,
    read_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.audit.a_plain_tree import plain_path, plain_proof, plain_root

# The leaves, roots and proofs that implementations of Certificate Transparency are tested by.
LEAVES: Final = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS: Final = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A: Final = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B: Final = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C: Final = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D: Final = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E: Final = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F: Final = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
G: Final = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSION: Final = {(0, 8): [A, B, C], (5, 8): [D, E, F]}
CONSISTENCY: Final = {(1, 1): [], (1, 8): [A, B, C], (6, 8): [G, E, F], (2, 5): [B, D]}

HASHES: Final = [leaf_hash(leaf) for leaf in LEAVES]
MANY: Final = [leaf_hash(b"%d" % number) for number in range(200)]


@cache
def root(begin: int, end: int) -> bytes:
    return plain_root(MANY[begin:end])


def of_the_vectors(begin: int, end: int) -> bytes:
    return root_of(HASHES[begin:end])


def test_roots_are_those_of_the_public_vectors() -> None:
    assert [root_of(HASHES[:size]).hex() for size in range(9)] == ROOTS
    assert EMPTY_ROOT.hex() == ROOTS[0]


def test_proofs_are_those_of_the_public_vectors() -> None:
    for (position, size), hashes in INCLUSION.items():
        found = proof(inclusion_parts(position, size), of_the_vectors)
        assert [each.hex() for each in found] == hashes
    for (old, new), hashes in CONSISTENCY.items():
        found = proof(consistency_parts(old, new), of_the_vectors)
        assert [each.hex() for each in found] == hashes


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    new = draw(st.integers(1, len(MANY)))
    return draw(st.integers(0, new)), new


@given(sizes())
def test_a_proof_is_the_one_that_the_rfc_defines_and_holds(pair: tuple[int, int]) -> None:
    old, new = pair
    hashes = proof(consistency_parts(old, new), root)

    assert hashes == (plain_proof(old, MANY[:new]) if old else [])
    verify_consistency(old, new, hashes, root(0, old), root(0, new))
    if old < new:
        path = proof(inclusion_parts(old, new), root)
        assert path == plain_path(old, MANY[:new])
        verify_inclusion(MANY[old], old, new, path, root(0, new))


@given(sizes(), st.data())
def test_no_other_hashes_prove_it(pair: tuple[int, int], data: st.DataObject) -> None:
    old, new = pair
    between = proof(consistency_parts(old, new), root)
    other = data.draw(altered(between))

    with pytest.raises(ProofWrong):
        verify_consistency(old, new, other, root(0, old), root(0, new))
    if old < new:
        path = data.draw(altered(proof(inclusion_parts(old, new), root)))
        with pytest.raises(ProofWrong):
            verify_inclusion(MANY[old], old, new, path, root(0, new))


def altered(hashes: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    """One hash more, one less, two in each other's place, or one bit flipped."""
    changes = [st.just([*hashes, MANY[0]])]
    if hashes:
        changes.append(st.just(hashes[:-1]))
        changes.append(
            st.integers(0, len(hashes) - 1).map(
                lambda at: [*hashes[:at], flipped(hashes[at]), *hashes[at + 1 :]]
            )
        )
    if len(hashes) > 1:
        changes.append(st.just([*hashes[1:], hashes[0]]))
    return st.one_of(changes)


def flipped(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


@given(sizes())
def test_no_other_tree_is_gone_on_from(pair: tuple[int, int]) -> None:
    old, new = pair
    hashes = proof(consistency_parts(old, new), root)

    with pytest.raises(ProofWrong):
        verify_consistency(old, new, hashes, flipped(root(0, old)), root(0, new))
    with pytest.raises(ProofWrong):
        verify_consistency(new, old - 1, hashes, root(0, new), root(0, old))
    if old > 0:
        with pytest.raises(ProofWrong):
            verify_consistency(old, new, hashes, root(0, old), flipped(root(0, new)))
    if old < new:
        path = proof(inclusion_parts(old, new), root)
        with pytest.raises(ProofWrong):
            verify_inclusion(flipped(MANY[old]), old, new, path, root(0, new))
        with pytest.raises(ProofWrong):
            verify_inclusion(MANY[old], new, new, path, root(0, new))


texts = st.text(st.characters(codec="utf-8"), max_size=20)
leaves = st.builds(
    Leaf,
    position=st.integers(0, 2**62),
    event_id=texts,
    aggregate=texts,
    version=st.integers(1, 2**62),
    topic=texts,
    at=texts,
    state=st.binary(max_size=40),
    cause=texts,
)


@given(leaves, leaves)
def test_two_events_are_never_the_same_bytes(one: Leaf, other: Leaf) -> None:
    assert read_leaf(leaf_bytes(one)) == one
    assert (leaf_bytes(one) == leaf_bytes(other)) == (one == other)


@given(leaves, st.data())
def test_bytes_that_are_of_no_event_are_not_read(leaf: Leaf, data: st.DataObject) -> None:
    encoded = leaf_bytes(leaf)
    for wrong in (b"", encoded[:-1] if leaf.cause else b"x", encoded + b"\0", b"x" + encoded):
        with pytest.raises(ValueError, match=r"."):
            read_leaf(wrong)


@given(st.integers(0, 2**62), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_is_read_as_it_is_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin="ledger.example/log", size=size, root=root)

    assert read_checkpoint(checkpoint.text) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n1\n",
        "\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "log\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "log\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "log\n1\n47DEQpj8HBSa\n",
        "log\n1\n%%%\n",
        "log\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "log\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(CheckpointMalformed):
        read_checkpoint(text)

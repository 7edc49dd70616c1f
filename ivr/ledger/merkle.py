"""Merkle trees as in RFC 6962 (Certificate Transparency): the root of a block's records, and proofs of inclusion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def root(leaves: Sequence[bytes]) -> bytes:
    """The 32-byte root of the leaves, in their order; of none, the hash of nothing."""
    if not leaves:
        return hashlib.sha256().digest()
    level = [_leaf(leaf) for leaf in leaves]
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """What ``verify`` needs to get from leaf ``index`` to the root: the siblings, from below. Raises IndexError."""
    level, siblings = [_leaf(leaf) for leaf in leaves], []
    if not 0 <= index < len(level):
        raise IndexError(f"no leaf {index} of {len(level)}")
    while len(level) > 1:
        if (sibling := index ^ 1) < len(level):
            siblings.append(level[sibling])
        level, index = _above(level), index // 2
    return siblings


def verify(leaf: bytes, index: int, count: int, siblings: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether ``leaf`` is number ``index`` of ``count`` leaves under this root."""
    if not 0 <= index < count:
        return False
    node, left = _leaf(leaf), list(siblings)
    while count > 1:
        if index ^ 1 < count:
            if not left:
                return False
            sibling = left.pop(0)
            node = _node(sibling, node) if index % 2 else _node(node, sibling)
        index, count = index // 2, (count + 1) // 2
    return not left and node == expected_root


def _leaf(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _above(level: list[bytes]) -> list[bytes]:
    """The next level: pairs hashed, an odd last one carried up as it is, which gives the RFC's tree."""
    pairs = [_node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return pairs + level[len(level) // 2 * 2 :]

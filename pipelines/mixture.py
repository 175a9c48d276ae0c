"""A mixture as arithmetic: which source the i-th sample of a phase is of, and the how-manieth of that source.

The index runs down a binary tree of two-way splits, one leaf a source: at a node that gives the share p to its left side,
floor(i p + 1/2) of the first i samples go left. Counts per source are therefore a closed form, and exact to about a sample at
every prefix, whatever the number of sources (floors of weight x index per source would not partition the indices).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

_BITS = 40  # of a split's share, and the most of a phase's sample index
ONE, _HALF = 1 << _BITS, 1 << (_BITS - 1)
_LOW = (1 << (_BITS // 2)) - 1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Node:
    """Share (of 2**_BITS) of the left child; a child is a node or, as a name, a leaf."""

    left_share: int
    left: Node | str
    right: Node | str


def build_tree(weights: Mapping[str, float]) -> Node | str:
    """A Huffman tree: heavy sources near the root, so that few splits and little rounding lie on their way."""
    heap: list[tuple[Fraction, str, Node | str]] = [(Fraction(w), s, s) for s, w in weights.items() if w > 0]
    heapq.heapify(heap)
    while len(heap) > 1:
        small, large = heapq.heappop(heap), heapq.heappop(heap)
        weight = small[0] + large[0]
        share = min(max(round(large[0] / weight * ONE), 1), ONE - 1)
        heapq.heappush(heap, (weight, min(small[1], large[1]), Node(share, large[2], small[2])))
    return heap[0][2]


def _left(share: int, count: int) -> int:
    """How many of the first `count` samples of a node go left."""
    return (count * share + _HALF) >> _BITS


def _left_many(share: int, count: Ints) -> Ints:
    # the same in two halves of 20 bits, so that no product passes 2**63
    low = (count & _LOW) * share + _HALF
    result: Ints = ((count >> (_BITS // 2)) * share + (low >> (_BITS // 2))) >> (_BITS // 2)
    return result


def leaves(tree: Node | str, count: int) -> Iterator[tuple[str, int]]:
    """How many of the first `count` samples each source gets."""
    if isinstance(tree, str):
        yield tree, count
        return
    left = _left(tree.left_share, count)
    yield from leaves(tree.left, left)
    yield from leaves(tree.right, count - left)


def descend(tree: Node | str, where: Ints, index: Ints) -> Iterator[tuple[str, Ints, Ints]]:
    """Per source: which of the samples are its own, and their ranks inside it."""
    if isinstance(tree, str):
        yield tree, where, index
        return
    before = _left_many(tree.left_share, index)
    goes_left = _left_many(tree.left_share, index + 1) > before
    yield from descend(tree.left, where[goes_left], before[goes_left])
    yield from descend(tree.right, where[~goes_left], (index - before)[~goes_left])


def path_to(tree: Node | str, source: str) -> list[tuple[int, bool]] | None:
    """The splits from a leaf up to the root: (share of the left side, whether the leaf lies there); None without the leaf."""
    if isinstance(tree, str):
        return [] if tree == source else None
    for child, is_left in ((tree.left, True), (tree.right, False)):
        if (below := path_to(child, source)) is not None:
            return [*below, (tree.left_share, is_left)]
    return None


def slot(path: list[tuple[int, bool]], rank: int) -> int:
    """The index in the phase of the sample with this rank in its source: the reverse of `descend`."""
    for share, is_left in path:
        # the first i with _left(i + 1) = rank + 1, and with i + 1 - _left(i + 1) = rank + 1
        rank = -((_HALF - ((rank + 1) << _BITS)) // share) - 1 if is_left else ((rank << _BITS) + _HALF) // (ONE - share)
    return rank

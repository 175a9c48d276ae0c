"""A mixture as arithmetic: which source the i-th sample of a phase is of, and the how-manieth of that source.

The index runs down a binary tree of two-way splits, one leaf a source: at a node that gives the share p to its left side,
floor(i p + 1/2) of the first i samples go left. Counts per source are therefore a closed form, exact to about a sample at
every prefix (`largest_error`), whatever the number of sources (floors of weight x index per source would not partition the
indices).
"""

from __future__ import annotations

from bisect import insort
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


@dataclass(frozen=True)
class _Part:
    """A tree on its way: weight, first name; per leaf its weight, and the sum of its shares of all nodes above it."""

    weight: Fraction
    name: str
    tree: Node | str
    leaves: tuple[tuple[float, float], ...]

    @property
    def load(self) -> float:
        return max(load for _, load in self.leaves)


def build_tree(weights: Mapping[str, float]) -> Node | str:
    """A tree in which few splits, and little of their rounding, lie on the way to a source.

    Parts are joined from the lightest on, as in a Huffman tree, but each time those two neighbours by weight whose union bears
    the least error: the rounding of a node reaches its leaves by their share of it, so a light source beside a heavy one, deep
    down, would cost the heavy one. A few forests are followed at once, the best one stays.
    """
    parts = sorted((_Part(Fraction(w), s, s, ((w, 0.0),)) for s, w in weights.items() if w > 0), key=_key)
    while len(parts) > 32:  # the lightest of very many, as Huffman has it
        insort(parts, _join(parts.pop(0), parts.pop(0)), key=_key)
    forests, width = [tuple(parts)], max(1, 64 // len(parts))
    while len(forests[0]) > 2:
        joined = [(*f[:i], *f[i + 2 :], _join(f[i], f[i + 1])) for f in forests for i in range(len(f) - 1)]
        ranked = {_rank(forest): forest for forest in joined}
        forests = [tuple(sorted(ranked[rank], key=_key)) for rank in sorted(ranked)[:width]]
    best = forests[0]
    return _join(*best).tree if len(best) == 2 else best[0].tree


def _join(light: _Part, heavy: _Part) -> _Part:
    weight = light.weight + heavy.weight
    share = min(max(round(heavy.weight / weight * ONE), 1), ONE - 1)
    leaves = tuple((w, load + w / float(weight)) for w, load in light.leaves + heavy.leaves)
    return _Part(weight, min(light.name, heavy.name), Node(share, heavy.tree, light.tree), leaves)


def _key(part: _Part) -> tuple[Fraction, str]:
    return part.weight, part.name


def _rank(forest: tuple[_Part, ...]) -> tuple[float, float, tuple[str, ...]]:
    loads = [part.load for part in forest]
    return (
        max(*loads, 0.8),
        sum(loads),
        tuple(sorted(part.name for part in forest)),
    )  # under .8 all are well off: the sum decides


def largest_error(tree: Node | str) -> float:
    """By how many samples, at most, a source's count at any prefix lies off its share of the samples so far."""

    def below(tree: Node | str, share: float, error: float) -> float:
        # a node is off by half a sample of its own rounding and by its share of what its parent is off
        error = share * error + 0.5
        if isinstance(tree, str):
            return error
        left = tree.left_share / ONE
        return max(below(tree.left, left, error), below(tree.right, 1 - left, error))

    if isinstance(tree, str):
        return 0.0
    left = tree.left_share / ONE
    return max(below(tree.left, left, 0.0), below(tree.right, 1 - left, 0.0))


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

"""All pairs of similar sets, exactly: an inverted index with prefix, length and position filters (pure: no Spark).

Prefix filter: Chaudhuri, Ganti, Kaushik 2006; sets by ascending size and the shorter prefix of the index: Bayardo, Ma, Srikant
2007; positions: Xiao, Wang, Lin, Yu 2008 (PPJoin). Members stand by ascending frequency, so prefixes hold the rare ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.dedup.shingles import Hashes
from pipelines.kernel import kernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MOST_PAIRS = 4 << 20  # 96 MB
MOST_STEPS = 8 << 30  # entries and members looked at: about half a minute


class TooMany(Exception):
    """The sets hold more similar pairs, or are more work to tell apart, than was allowed."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of sets by their numbers, `a` < `b`, in ascending order, and their Jaccard similarity. Shapes (pairs,)."""

    a: Ints
    b: Ints
    similarity: Floats

    def __len__(self) -> int:
        return len(self.a)


def similar_pairs(sets: Sequence[Hashes], floor: float, most_pairs: int = MOST_PAIRS, most_steps: int = MOST_STEPS) -> Pairs:
    """Every pair whose Jaccard similarity is at least `floor` (above 0). An empty set is like nothing.

    `sets`: ascending arrays of distinct hashes. Raises TooMany instead of running on; whether it does depends on the sets
    alone. Memory: about 50 bytes a member.
    """
    if not 0 < floor <= 1:
        raise ValueError(f"floor is {floor}; it must be in (0, 1]")
    size = np.array([len(s) for s in sets], np.int64)
    if not size.sum():
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    members, starts, frequency = _by_frequency(sets, size)
    order = np.argsort(size, kind="stable")[np.count_nonzero(size == 0) :]
    a, b, similarity, whole = _join(members, starts, size, order, frequency, floor, most_pairs, most_steps)
    if not whole:
        raise TooMany(f"more than {most_pairs} pairs or {most_steps} steps among {len(sets)} sets")
    a, b = np.minimum(a, b), np.maximum(a, b)
    ascending = np.lexsort((b, a))
    return Pairs(a[ascending], b[ascending], similarity[ascending])


def _by_frequency(sets: Sequence[Hashes], size: Ints) -> tuple[npt.NDArray[np.int32], Ints, Ints]:
    """Members that two sets have, as ranks by ascending frequency; where each set's begin; how many sets have each rank.

    Members of one set only match nothing; they count in the set's size.
    """
    flat = np.concatenate(sets)
    distinct, inverse, count = np.unique(flat, return_inverse=True, return_counts=True)
    del flat, distinct
    common = np.flatnonzero(count > 1)
    by_count = common[np.argsort(count[common], kind="stable")]
    rank = np.full(len(count), -1, np.int32)
    rank[by_count] = np.arange(len(by_count), dtype=np.int32)
    ranks = rank[inverse]
    owner = np.repeat(np.arange(len(size), dtype=np.int32), size)
    ranks, owner = ranks[ranks >= 0], owner[ranks >= 0]
    starts = np.searchsorted(owner, np.arange(len(size) + 1))
    _sort_each(ranks, starts)
    return ranks, starts, count[by_count]


@kernel
def _sort_each(members: npt.NDArray[np.int32], starts: Ints) -> None:
    for x in range(len(starts) - 1):
        members[starts[x] : starts[x + 1]] = np.sort(members[starts[x] : starts[x + 1]])


@kernel
def _join(
    members: npt.NDArray[np.int32],
    starts: Ints,
    size: Ints,
    order: Ints,
    frequency: Ints,
    floor: float,
    most_pairs: int,
    most_steps: int,
) -> tuple[Ints, Ints, Floats, bool]:
    # The place of a member in its whole set: members of one set only stand before the others. EPS: against rounding of ceil.
    eps = 1e-9
    begins = np.empty(len(frequency) + 1, np.int64)  # of a member's list of (set, place)
    begins[0] = 0
    for w in range(len(frequency)):
        begins[w + 1] = begins[w] + frequency[w]
    first, last = begins[:-1].copy(), begins[:-1].copy()  # of a list: what is not too short yet, what is filled
    list_set, list_place = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.int32)
    shared = np.zeros(len(size), np.int32)  # of the candidates: members of both prefixes; -1: cannot reach the floor
    candidates = np.empty(len(size), np.int32)
    room, pairs, steps = 1024, 0, 0
    a, b, similarity = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float64)
    for at in range(len(order)):
        x = order[at]
        n = size[x]
        alone = n - (starts[x + 1] - starts[x])
        least = floor * n - eps
        found = 0
        for i in range(alone, n - np.int64(np.ceil(least)) + 1):
            w = members[starts[x] + i - alone]
            while first[w] < last[w] and size[list_set[first[w]]] < least:
                first[w] += 1
            steps += last[w] - first[w]
            for k in range(first[w], last[w]):
                y = list_set[k]
                if shared[y] < 0:
                    continue
                if shared[y] == 0:
                    candidates[found] = y
                    found += 1
                need = floor / (1 + floor) * (n + size[y]) - eps
                rest = min(n - i, size[y] - list_place[k])  # this member and what may follow
                shared[y] = shared[y] + 1 if shared[y] + rest >= need else -1
        for c in range(found):
            y = candidates[c]
            maybe, shared[y] = shared[y] > 0, 0
            if not maybe:
                continue
            i, j, both = starts[x], starts[y], 0
            need = floor / (1 + floor) * (n + size[y]) - eps
            while i < starts[x + 1] and j < starts[y + 1]:
                if members[i] == members[j]:
                    both += 1
                    i += 1
                    j += 1
                elif members[i] < members[j]:
                    i += 1
                else:
                    j += 1
                if both + min(starts[x + 1] - i, starts[y + 1] - j) < need:
                    break
            steps += i - starts[x] + j - starts[y]
            value = both / (n + size[y] - both)
            if value < floor:
                continue
            if pairs == most_pairs:
                return a[:pairs], b[:pairs], similarity[:pairs], False
            if pairs == room:
                room *= 2
                a, b = _longer(a, room), _longer(b, room)
                more = np.empty(room, np.float64)
                more[:pairs] = similarity
                similarity = more
            a[pairs], b[pairs], similarity[pairs] = x, y, value
            pairs += 1
        if steps > most_steps:
            return a[:pairs], b[:pairs], similarity[:pairs], False
        for i in range(alone, n - np.int64(np.ceil(2 * floor / (1 + floor) * n - eps)) + 1):
            w = members[starts[x] + i - alone]
            list_set[last[w]], list_place[last[w]] = x, i
            last[w] += 1
    return a[:pairs], b[:pairs], similarity[:pairs], True


@kernel
def _longer(values: Ints, room: int) -> Ints:
    more = np.empty(room, np.int64)
    more[: len(values)] = values
    return more

"""Learn byte-pair merges over words that are split into tokens already: BPE goes on where a vocabulary ends.

`tokenizers` trains from single characters only. Here all words lie in one array as a linked list, and a merge is a few NumPy
calls over the places of its pair, so that time goes with what changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

WALL = -1  # between words: no pair reaches across it
_GONE = -2
_HALF = 32


def learn_merges(
    symbols: npt.NDArray[np.int32], counts: Ints, number: int, first_id: int, allowed: Callable[[int, int], bool]
) -> list[tuple[int, int]]:
    """The next `number` merges (left id, right id): each time the most frequent pair, of equals the one of lower ids (Sennrich
    et al. 2016, algorithm 1). The k-th makes the id first_id + k. Fewer, where no more pair occurs twice.

    `symbols`: ids of all words, WALL around and between them, shape (n,), with `counts` how often the word of each symbol
    occurs, shape (n,). `allowed(left, right)` is asked once of a pair, when its turn comes; for one that is not, the next is
    taken. A text encoded with the merges has the ids that were counted here if no two of all merges make the same bytes,
    which `allowed` must see to.
    """
    words = _Words(symbols.astype(np.int32), counts)
    heap = [(-count, key) for key, count in words.counts.items()]
    heapq.heapify(heap)
    made: list[tuple[int, int]] = []
    while heap and len(made) < number:
        count, key = heap[0]
        if (now := words.counts[key]) != -count:  # counts fall after a pair's first, never rise
            heapq.heapreplace(heap, (-now, key))
            continue
        if now < 2:
            break
        heapq.heappop(heap)
        left, right = key >> _HALF, key & ((1 << _HALF) - 1)
        if allowed(left, right):
            for new in words.merge(key, left, right, first_id + len(made)):
                heapq.heappush(heap, (-words.counts[new], new))
            made.append((left, right))
    return made


class _Words:
    """The words as they are after some merges: how often each pair of neighbours occurs, and where it did when it was made."""

    def __init__(self, symbols: npt.NDArray[np.int32], counts: Ints) -> None:
        self.symbols, self.weights = symbols, counts
        self.after = np.arange(1, len(symbols) + 1, dtype=np.int32)
        self.before = np.arange(-1, len(symbols) - 1, dtype=np.int32)
        self.counts: dict[int, int] = {}
        self.places: dict[int, Ints] = {}
        for key, count, places in self._pairs(np.arange(len(symbols) - 1)):
            self.counts[key], self.places[key] = count, places

    def _pairs(self, places: Ints) -> Iterator[tuple[int, int, Ints]]:
        """(pair, how often it occurs, where) of the pairs that begin at these places."""
        left, right = self.symbols[places].astype(np.int64), self.symbols[self.after[places]].astype(np.int64)
        inside = (left >= 0) & (right >= 0)
        keys, places = (left << _HALF | right)[inside], places[inside]
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        if len(starts):
            sums, firsts = np.add.reduceat(self.weights[places], starts).tolist(), starts.tolist()
            for key, count, first, end in zip(keys[starts].tolist(), sums, firsts, [*firsts[1:], len(keys)], strict=True):
                yield key, count, places[first:end]

    def merge(self, key: int, left: int, right: int, made: int) -> list[int]:
        """Put `made` wherever left and right stand side by side, leftmost first; returns the pairs that are new."""
        places = self.places.pop(key)
        seconds = self.after[places]
        places = places[(self.symbols[places] == left) & (self.symbols[seconds] == right)]
        if left == right:
            places = _every_other(places, self.after[places])
        seconds = self.after[places]
        for gone, count, _ in self._pairs(np.unique(np.concatenate([self.before[places], places, seconds]))):
            self.counts[gone] -= count
        self.symbols[places], self.symbols[seconds] = made, _GONE
        after = self.after[seconds]
        self.after[places], self.before[after] = after, places
        new = []
        for pair, count, where in self._pairs(np.unique(np.concatenate([self.before[places], places]))):
            self.counts[pair], self.places[pair] = count, where
            new.append(pair)
        return new


def _every_other(places: Ints, after: Ints) -> Ints:
    """Of places where x x begins, those that are merged: in x x x x the first and the third, in x x x the first."""
    index = np.arange(len(places))
    chained = np.zeros(len(places), bool)
    chained[1:] = after[:-1] == places[1:]
    start = np.maximum.accumulate(np.where(chained, 0, index))
    first: Ints = places[(index - start) % 2 == 0]
    return first

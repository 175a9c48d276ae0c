"""Byte-pair merges in kernels: of a piece, repeatedly the pair of the lowest rank, leftmost first (Sennrich et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.kernel import inlined, kernel
from pipelines.tokens.kernels.split import point_at, width

SHORT = 64  # bytes up to which a piece is merged by looking at all its pairs each time; a longer one keeps them in a heap
MOST_IDS, MOST_MERGES = (1 << 21) - 1, (1 << 22) - 1  # a pair and its rank are one word, and no pair is _FREE

NONE = np.uint32(0xFFFFFFFF)
MIX = np.uint64(0x9E3779B97F4A7C15)
_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
_LEFT, _RANK, _HALF = np.uint64(21), np.uint64(22), np.uint64(32)
_RANKS, _LOW = np.uint64(MOST_MERGES), np.uint64(0xFFFFFFFF)
_BITS_A_JOIN = 32  # of the filter, so that it takes one seam in 32 for a join: that costs time, never ids


class Merges(NamedTuple):
    """The merges of a vocabulary as the kernels read them.

    `starts`: the id of each character, uint32 (0x110000,), NONE if its bytes do not become one. `byte_ids`: of each byte,
    uint32 (256,). `pairs`: open addressing by the upper bits of a hash, a pair and its rank in one word (left << 43 | right <<
    22 | rank), uint64 (slots,); `shift` brings a hash down to a slot. `made`: the id that each rank makes, uint32 (merges,).
    `joins`: a bit for the hash of two characters, or parts of two, that stand side by side in some token, uint64 (words,), and
    its `join_shift`. `loose`: for the last byte of the one and the first of the other, a bit 4 * (l - 1) + r - 1 if some token
    has l and r bytes of two characters of which it cuts one, uint16 (65536,).
    """

    starts: npt.NDArray[np.uint32]
    byte_ids: npt.NDArray[np.uint32]
    pairs: npt.NDArray[np.uint64]
    shift: np.uint64
    made: npt.NDArray[np.uint32]
    joins: npt.NDArray[np.uint64]
    join_shift: np.uint64
    loose: npt.NDArray[np.uint16]


class Work(NamedTuple):
    """Room to merge a piece of SHORT bytes, and the room in which a key is put together at the end of the buffer."""

    symbols: npt.NDArray[np.uint32]
    ranks: npt.NDArray[np.uint32]
    tail: npt.NDArray[np.uint8]


def make_work() -> Work:
    """Room for one kernel at a time."""
    return Work(np.zeros(SHORT, np.uint32), np.zeros(SHORT, np.uint32), np.zeros(64, np.uint8))


def make_merges(
    byte_ids: npt.NDArray[np.uint32], merges: Mapping[tuple[int, int], tuple[int, int]], tokens: Sequence[bytes]
) -> Merges:
    """The tables of merges {(left, right): (rank, id)}; `tokens`: the bytes of each token that a merge makes."""
    keys = np.array([left << 43 | right << 22 | rank for (left, right), (rank, _) in merges.items()], np.uint64)
    bits = max(6, (2 * len(keys)).bit_length())
    pairs, shift = np.full(1 << bits, _FREE, np.uint64), np.uint64(64 - bits)
    _fill_pairs(keys, pairs, shift)
    made = np.zeros(len(tokens), np.uint32)
    for rank, token in merges.values():
        made[rank] = token
    data, offsets = np.frombuffer(b"".join(tokens), np.uint8), np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    joined, loose = np.zeros(len(data), np.uint64), np.zeros(1 << 16, np.uint16)
    joined = np.unique(joined[: _find_joins(data, offsets, joined, loose)])
    bits = max(6, (_BITS_A_JOIN * len(joined)).bit_length())
    bit = joined * MIX >> np.uint64(64 - bits)
    joins = np.zeros(1 << bits - 6, np.uint64)
    np.bitwise_or.at(joins, bit >> np.uint64(6), np.uint64(1) << (bit & np.uint64(63)))
    bare = Merges(np.full(0x110000, NONE, np.uint32), byte_ids, pairs, shift, made, joins, np.uint64(64 - bits), loose)
    _merge_characters(bare, make_work())
    return bare


@kernel
def _merge_characters(merges: Any, work: Any) -> None:
    """Fill `starts`: what the bytes of each character by itself become."""
    data, out = np.empty(4, np.uint8), np.empty(4, np.uint32)
    for point in range(len(merges.starts)):
        if 0xD800 <= point < 0xE000:
            continue
        if point < 0x80:
            size = 1
            data[0] = point
        else:
            size = 2 if point < 0x800 else 3 if point < 0x10000 else 4
            for k in range(1, size):
                data[k] = 0x80 | point >> 6 * (size - 1 - k) & 0x3F
            data[0] = (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0) | point >> 6 * (size - 1)
        if merge(data, 0, size, merges, work, out, 0) == 1:
            merges.starts[point] = out[0]


@kernel
def _fill_pairs(keys: Any, pairs: Any, shift: Any) -> None:
    last = np.uint64(len(pairs) - 1)
    for k in range(len(keys)):
        slot = (keys[k] >> _RANK) * MIX >> shift
        while pairs[slot] != _FREE:
            slot = (slot + np.uint64(1)) & last
        pairs[slot] = keys[k]


@kernel
def _rank(pairs: Any, shift: Any, left: Any, right: Any) -> Any:
    """The rank of the merge of two tokens, or NONE."""
    key = np.uint64(left) << _LEFT | np.uint64(right)
    last = np.uint64(len(pairs) - 1)
    slot = key * MIX >> shift
    while True:
        found = pairs[slot]
        if found >> _RANK == key:
            return np.uint32(found & _RANKS)
        if found == _FREE:
            return NONE
        slot = (slot + np.uint64(1)) & last


# --- seams: where no merge can cross --------------------------------------------------------------------------------------


@inlined
def _join(left: Any, right: Any) -> Any:
    return np.uint64(left) << _LEFT | np.uint64(right)


@kernel
def _part(data: Any, first: int, middle: int, end: int) -> Any:
    """Up to eight bytes around the place where two characters meet, as a key that is none of `_join`."""
    key = np.uint64(1)
    for k in range(first, end):
        key = key << np.uint64(8) | np.uint64(data[k])
    return key << np.uint64(2) ^ np.uint64(middle - first - 1) << np.uint64(60)


@kernel
def _find_joins(data: Any, offsets: Any, joined: Any, loose: Any) -> int:
    """The keys of what stands side by side in the tokens; returns how many. Enters the bits of `loose`."""
    found = 0
    for token in range(len(offsets) - 1):
        first, end = offsets[token], offsets[token + 1]
        for i in range(first + 1, end):
            if data[i] & 0xC0 == 0x80:
                continue
            k = i - 1
            while k > first and data[k] & 0xC0 == 0x80:
                k -= 1
            after = i + width(data[i])
            if data[k] & 0xC0 != 0x80 and k + width(data[k]) == i and after <= end:
                joined[found] = _join(point_at(data, k), point_at(data, i))
                found += 1
            elif i - k <= 4:  # no text has more bytes that continue a character
                joined[found] = _part(data, k, i, min(after, end))
                found += 1
                loose[int(data[i - 1]) << 8 | int(data[i])] |= 1 << (4 * (i - k - 1) + min(after, end) - i - 1)
    return found


@inlined
def _has(merges: Any, key: Any) -> Any:
    bit = key * MIX >> merges.join_shift
    return merges.joins[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1)


@kernel
def _cut_across(data: Any, k: int, i: int, after: int, bits: int, merges: Any) -> bool:
    """Whether some token has bytes of both characters, data[k:i] and data[i:after], but not all of them."""
    for left in range(1, i - k + 1):
        for right in range(1, after - i + 1):
            if bits >> (4 * (left - 1) + right - 1) & 1 and _has(merges, _part(data, i - left, i, i + right)):
                return True
    return False


@inlined
def seam(data: Any, first: Any, end: Any, merges: Any) -> Any:
    """The next place after `first` between two characters that stand side by side in no token, or the end.

    No merge crosses it, so what lies before it and what lies after it can be merged apart, with the same ids.
    """
    k, left = first, point_at(data, first)
    i = k + width(data[k])
    while i < end:
        right = point_at(data, i)
        if not _has(merges, _join(left, right)):
            bits = merges.loose[int(data[i - 1]) << 8 | int(data[i])]
            if not bits or not _cut_across(data, k, i, i + width(data[i]), int(bits), merges):
                break
        k, left = i, right
        i += width(data[i])
    return i


# --- merging ------------------------------------------------------------------------------------------------------------


@kernel
def merge(data: Any, first: int, end: int, merges: Any, work: Any, out: Any, at: int) -> Any:
    """Write the ids of data[first:end] to `out` from `at` on; returns where they end. Linear time but for a logarithm."""
    if end - first > SHORT:
        symbols = np.empty(end - first, np.uint32)
        return _merge_long(symbols, _start(data, first, end, merges, symbols), merges, out, at)
    return merge_short(data, first, end, merges, work, out, at)


@inlined
def merge_short(data: Any, first: Any, end: Any, merges: Any, work: Any, out: Any, at: Any) -> Any:
    """`merge` of a piece of up to SHORT bytes, for a kernel that calls it often."""
    symbols, ranks, pairs, shift = work.symbols, work.ranks, merges.pairs, merges.shift
    size = _start(data, first, end, merges, symbols)
    for k in range(size - 1):
        ranks[k] = _rank(pairs, shift, symbols[k], symbols[k + 1])
    while size > 1:
        best, place = ranks[0], 0
        for k in range(1, size - 1):
            if ranks[k] < best:
                best, place = ranks[k], k
        if best == NONE:
            break
        size -= 1
        symbols[place] = merges.made[best]
        for k in range(place + 1, size):
            symbols[k] = symbols[k + 1]
            ranks[k - 1] = ranks[k]
        if place:
            ranks[place - 1] = _rank(pairs, shift, symbols[place - 1], symbols[place])
        if place < size - 1:
            ranks[place] = _rank(pairs, shift, symbols[place], symbols[place + 1])
    for k in range(size):
        out[at + k] = symbols[k]
    return at + size


@inlined
def _start(data: Any, first: Any, end: Any, merges: Any, symbols: Any) -> Any:
    """The tokens to begin with; returns how many. A character whose bytes merge to one token counts as merged already: where no
    token has a part of it and of its neighbour, nothing else can become of them.
    """
    number, i, free = 0, first, True
    while i < end:
        after, before, free = i + width(data[i]), free, True
        if after < end:
            bits = merges.loose[int(data[after - 1]) << 8 | int(data[after])]
            free = not bits or not _cut_across(data, i, after, after + width(data[after]), int(bits), merges)
        token = merges.starts[point_at(data, i)] if before and free else NONE
        if token != NONE:
            symbols[number] = token
            number += 1
        else:
            for k in range(i, after):
                symbols[number] = merges.byte_ids[data[k]]
                number += 1
        i = after
    return number


@kernel
def _merge_long(symbols: Any, size: int, merges: Any, out: Any, at: int) -> int:
    """The same with a linked list of tokens and a heap of (rank << 32 | place); entries out of date are passed over."""
    pairs, shift = merges.pairs, merges.shift
    ranks = np.full(size, NONE, np.uint32)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, held = np.empty(2 * size, np.uint64), 0  # each merge takes one entry and brings two at most
    for k in range(size):
        before[k], after[k] = k - 1, k + 1
    for k in range(size - 1):
        ranks[k] = _rank(pairs, shift, symbols[k], symbols[k + 1])
        if ranks[k] != NONE:
            held = _push(heap, held, np.uint64(ranks[k]) << _HALF | np.uint64(k))
    while held:
        best = heap[0]
        held = _pop(heap, held)
        k = int(best & _LOW)
        if np.uint64(ranks[k]) != best >> _HALF:
            continue
        gone = after[k]
        symbols[k] = merges.made[ranks[k]]
        after[k] = after[gone]
        ranks[k] = ranks[gone] = NONE
        if after[k] < size:
            before[after[k]] = k
            ranks[k] = _rank(pairs, shift, symbols[k], symbols[after[k]])
            if ranks[k] != NONE:
                held = _push(heap, held, np.uint64(ranks[k]) << _HALF | np.uint64(k))
        if k:
            left = before[k]
            ranks[left] = _rank(pairs, shift, symbols[left], symbols[k])
            if ranks[left] != NONE:
                held = _push(heap, held, np.uint64(ranks[left]) << _HALF | np.uint64(left))
    k = 0
    while k < size:
        out[at] = symbols[k]
        at += 1
        k = after[k]
    return at


@kernel
def _push(heap: Any, held: int, entry: Any) -> int:
    k = held
    while k and heap[(k - 1) >> 1] > entry:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = entry
    return held + 1


@kernel
def _pop(heap: Any, held: int) -> int:
    """Take the least entry out; returns how many are left."""
    held -= 1
    entry, k = heap[held], 0
    while True:
        child = 2 * k + 1
        if child >= held:
            break
        if child + 1 < held and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = entry
    return held

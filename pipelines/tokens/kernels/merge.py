"""Byte-pair merges in kernels: of a piece, repeatedly the pair of the lowest rank, leftmost first (Sennrich et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.kernel import kernel
from pipelines.tokens.kernels.split import point_at, width

SHORT = 64  # bytes up to which a piece is merged by looking at all its pairs each time; a longer one keeps them in a heap

NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
MIX = np.uint64(0x9E3779B97F4A7C15)
_BITS_A_JOIN = 16  # of the filter, so that it takes one seam in 16 for a join: that costs time, never ids
_HALF = np.uint64(32)


class Merges(NamedTuple):
    """The merges of a vocabulary as the kernels read them.

    `byte_ids`: the id of each byte, uint32 (256,). `pairs`: open addressing by the upper bits of a hash, a pair (left << 32 |
    right) and its (rank << 32 | id) side by side, uint64 (2 * slots,), NONE where free; `shift` brings a hash down to a slot.
    `joins`: a bit for the hash of two characters that stand side by side in some token, uint64 (words,), and its `join_shift`.
    `loose`: last and first byte of two of which some token has but a part, bool (65536,).
    """

    byte_ids: npt.NDArray[np.uint32]
    pairs: npt.NDArray[np.uint64]
    shift: np.uint64
    joins: npt.NDArray[np.uint64]
    join_shift: np.uint64
    loose: npt.NDArray[np.bool_]


class Work(NamedTuple):
    """Room to merge a piece of SHORT bytes, and the room in which a key is put together at the end of the buffer."""

    symbols: npt.NDArray[np.uint32]
    values: npt.NDArray[np.uint64]
    tail: npt.NDArray[np.uint8]


def make_merges(
    byte_ids: npt.NDArray[np.uint32], merges: Mapping[tuple[int, int], tuple[int, int]], made: Sequence[bytes]
) -> Merges:
    """The tables of merges {(left, right): (rank, id)}; `made`: the bytes of each token that a merge makes."""
    keys = np.array([left << 32 | right for left, right in merges], np.uint64)
    values = np.array([rank << 32 | token for rank, token in merges.values()], np.uint64)
    bits = max(6, (2 * len(keys)).bit_length())
    pairs, shift = np.full(2 << bits, NONE, np.uint64), np.uint64(64 - bits)
    _fill_pairs(keys, values, pairs, shift)
    data = np.frombuffer(b"".join(made), np.uint8)
    offsets = np.cumsum([0, *map(len, made)], dtype=np.int64)
    bits = max(6, (_BITS_A_JOIN * sum(len(token.decode(errors="ignore")) - 1 for token in made)).bit_length())
    joins, join_shift, loose = np.zeros(1 << bits - 6, np.uint64), np.uint64(64 - bits), np.zeros(1 << 16, np.bool_)
    _enter_joins(data, offsets, joins, join_shift, loose)
    return Merges(byte_ids, pairs, shift, joins, join_shift, loose)


def make_work() -> Work:
    """Room for one kernel at a time."""
    return Work(np.zeros(SHORT, np.uint32), np.zeros(SHORT, np.uint64), np.zeros(64, np.uint8))


@kernel
def _fill_pairs(keys: Any, values: Any, pairs: Any, shift: Any) -> None:
    last = np.uint64(len(pairs) // 2 - 1)
    for k in range(len(keys)):
        slot = keys[k] * MIX >> shift
        while pairs[2 * slot] != NONE:
            slot = (slot + np.uint64(1)) & last
        pairs[2 * slot], pairs[2 * slot + 1] = keys[k], values[k]


@kernel
def _pair(pairs: Any, shift: Any, left: Any, right: Any) -> Any:
    """(rank << 32 | id) of what two tokens merge to, or NONE."""
    key = np.uint64(left) << _HALF | np.uint64(right)
    last = np.uint64(len(pairs) // 2 - 1)
    slot = key * MIX >> shift
    while True:
        found = pairs[np.uint64(2) * slot]
        if found == key:
            return pairs[np.uint64(2) * slot + np.uint64(1)]
        if found == NONE:
            return NONE
        slot = (slot + np.uint64(1)) & last


# --- seams: where no merge can cross --------------------------------------------------------------------------------------


@kernel
def _join(left: int, right: int, shift: Any) -> Any:
    return ((np.uint64(left) << np.uint64(21) | np.uint64(right)) * MIX) >> shift


@kernel
def _enter_joins(data: Any, offsets: Any, joins: Any, shift: Any, loose: Any) -> None:
    """Enter what stands side by side in the tokens."""
    for token in range(len(offsets) - 1):
        first, end = offsets[token], offsets[token + 1]
        for i in range(first + 1, end):
            if data[i] & 0xC0 == 0x80:
                continue
            k = i - 1
            while k > first and data[k] & 0xC0 == 0x80:
                k -= 1
            if data[k] & 0xC0 != 0x80 and k + width(data[k]) == i and i + width(data[i]) <= end:
                bit = _join(point_at(data, k), point_at(data, i), shift)
                joins[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
            else:
                loose[int(data[i - 1]) << 8 | int(data[i])] = True


@kernel
def seam(data: Any, i: int, end: int, merges: Any) -> int:
    """The first place after i between two characters that stand side by side in no token, or the end.

    No merge crosses it, so what lies before it and what lies after it can be merged apart, with the same ids.
    """
    left = point_at(data, i)
    i += width(data[i])
    while i < end:
        right = point_at(data, i)
        bit = _join(left, right, merges.join_shift)
        joined = merges.joins[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1)
        if not joined and not merges.loose[int(data[i - 1]) << 8 | int(data[i])]:
            return i
        left = right
        i += width(data[i])
    return i


# --- merging ------------------------------------------------------------------------------------------------------------


@kernel
def merge(data: Any, first: int, end: int, merges: Any, work: Any, out: Any, at: int) -> int:
    """Write the ids of data[first:end] to `out` from `at` on; returns where they end. Linear time but for a logarithm."""
    size = end - first
    if size > SHORT:
        return _merge_long(data, first, end, merges, out, at)
    symbols, values, pairs, shift = work.symbols, work.values, merges.pairs, merges.shift
    for k in range(size):
        symbols[k] = merges.byte_ids[data[first + k]]
    for k in range(size - 1):
        values[k] = _pair(pairs, shift, symbols[k], symbols[k + 1])
    while size > 1:
        best, place = values[0], 0
        for k in range(1, size - 1):
            if values[k] < best:
                best, place = values[k], k
        if best == NONE:
            break
        size -= 1
        symbols[place] = np.uint32(best & np.uint64(0xFFFFFFFF))
        for k in range(place + 1, size):
            symbols[k] = symbols[k + 1]
            values[k - 1] = values[k]
        if place:
            values[place - 1] = _pair(pairs, shift, symbols[place - 1], symbols[place])
        if place < size - 1:
            values[place] = _pair(pairs, shift, symbols[place], symbols[place + 1])
    for k in range(size):
        out[at + k] = symbols[k]
    return at + size


@kernel
def _merge_long(data: Any, first: int, end: int, merges: Any, out: Any, at: int) -> int:
    """The same with a linked list of tokens and a heap of (rank << 32 | place); entries out of date are passed over."""
    size = end - first
    pairs, shift = merges.pairs, merges.shift
    symbols, values = np.empty(size, np.uint32), np.full(size, NONE, np.uint64)
    before, after = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, held = np.empty(2 * size, np.uint64), 0  # each merge takes one entry and brings two at most
    for k in range(size):
        symbols[k] = merges.byte_ids[data[first + k]]
        before[k], after[k] = k - 1, k + 1
    for k in range(size - 1):
        values[k] = _pair(pairs, shift, symbols[k], symbols[k + 1])
        if values[k] != NONE:
            held = _push(heap, held, values[k] >> _HALF << _HALF | np.uint64(k))
    while held:
        best = heap[0]
        held = _pop(heap, held)
        k = int(best & np.uint64(0xFFFFFFFF))
        if values[k] == NONE or values[k] >> _HALF != best >> _HALF:
            continue
        gone = after[k]
        symbols[k] = np.uint32(values[k] & np.uint64(0xFFFFFFFF))
        values[gone] = NONE
        after[k] = after[gone]
        values[k] = NONE
        if after[k] < size:
            before[after[k]] = k
            values[k] = _pair(pairs, shift, symbols[k], symbols[after[k]])
            if values[k] != NONE:
                held = _push(heap, held, values[k] >> _HALF << _HALF | np.uint64(k))
        if k:
            left = before[k]
            values[left] = _pair(pairs, shift, symbols[left], symbols[k])
            if values[left] != NONE:
                held = _push(heap, held, values[left] >> _HALF << _HALF | np.uint64(left))
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

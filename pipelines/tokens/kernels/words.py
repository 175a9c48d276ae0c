"""Texts to ids over a batch: each piece from a cache of pieces seen, or merged."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from pipelines.kernel import borrowed, inlined, kernel
from pipelines.tokens.kernels.merge import MIX, Merges, Work, merge, seam
from pipelines.tokens.kernels.split import piece_end

LONGEST = 31  # bytes of a piece that is cached
MOST = 8  # ids of one
QUICK = 15  # bytes of a piece that is looked up before seams are sought in it
_CACHE_BITS = 17
_SIZE = np.uint64(56)
_COUNT = np.uint64(61)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_BLANK = 0x20


class Model(NamedTuple):
    """All that decides ids: the preset of `split.py`, bytes that are letters, tables of `class_table` and `make_merges`."""

    preset: int
    letters: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    folds: npt.NDArray[np.uint8]
    merges: Merges


def make_cache() -> npt.NDArray[np.uint64]:
    """An empty cache: lines of four words of piece and length, and eight ids; two lines that follow another are one bucket."""
    words = np.zeros((8 << _CACHE_BITS) + 8, np.uint64)
    skip = -(words.ctypes.data // 8) % 8
    return words[skip : skip + (8 << _CACHE_BITS)]  # a line of ours is one of the processor's


def _word(typing_context: Any, array: Any, index: Any) -> Any:
    """In a kernel: the eight bytes from `index` on as uint64, little-endian."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return numba.uint64(array, numba.int64), codegen


_load: Any = intrinsic(_word)


@inlined
def _bucket(mixed: Any) -> Any:
    """Where the line of a piece begins, of which all words are mixed in; its bucket has another, this place ^ 8."""
    mixed *= MIX
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX
    return int(mixed >> np.uint64(64 - _CACHE_BITS)) * 8


@kernel
def _line(data: Any, first: int, size: int, cache: Any, tail: Any):  # type: ignore[no-untyped-def]
    """The words of a piece of up to LONGEST bytes, the place of its bucket, and where its line begins; -1 if not cached."""
    if first + 32 > len(data):
        for k in range(size):
            tail[k] = data[first + k]
        data, first = tail, 0
    a, b, c, d = _load(data, first), np.uint64(0), np.uint64(0), np.uint64(0)
    if size <= 8:
        a &= _ONES >> np.uint64(64 - 8 * size)
    else:
        b = _load(data, first + 8)
        if size <= 16:
            b &= _ONES >> np.uint64(128 - 8 * size)
        else:
            c = _load(data, first + 16)
            if size <= 24:
                c &= _ONES >> np.uint64(192 - 8 * size)
            else:
                d = _load(data, first + 24) & (_ONES >> np.uint64(256 - 8 * size))
    place = _bucket(a ^ (b ^ (c ^ d * MIX) * MIX) * MIX)
    d |= np.uint64(size) << _SIZE
    for line in (place, place ^ 8):
        same = (cache[line] ^ a) | (cache[line + 1] ^ b) | (cache[line + 2] ^ c) | (cache[line + 3] ^ d) << np.uint64(3)
        if same == 0:
            return a, b, c, d, place, line
    return a, b, c, d, place, -1


@kernel
def _cached(data: Any, first: int, size: int, merges: Any, cache: Any, work: Any, out: Any, at: int) -> int:
    """Write the ids of a piece of up to LONGEST bytes; returns where they end."""
    a, b, c, d, place, line = _line(data, first, size, cache, work.tail)
    if line >= 0:
        count = int(cache[line + 3] >> _COUNT)
        ids = cache[line + 4]
        out[at] = np.uint32(ids)
        if count:
            out[at + 1] = np.uint32(ids >> np.uint64(32))
            for k in range(2, count + 1):
                out[at + k] = np.uint32(cache[line + 4 + (k >> 1)] >> np.uint64((k & 1) * 32))
        return at + count + 1
    end = merge(data, first, first + size, merges, work, out, at)
    count = end - at
    if count <= MOST:
        if cache[place + 3]:
            for k in range(8):
                cache[(place ^ 8) + k] = cache[place + k]
        cache[place], cache[place + 1], cache[place + 2] = a, b, c
        cache[place + 3] = d | np.uint64(count - 1) << _COUNT
        for k in range(0, count, 2):
            high = np.uint64(out[at + k + 1]) << np.uint64(32) if k + 1 < count else np.uint64(0)
            cache[place + 4 + (k >> 1)] = np.uint64(out[at + k]) | high
    return end


@kernel
def _piece(data: Any, first: int, end: int, merges: Any, cache: Any, work: Any, out: Any, at: int) -> int:
    """Write the ids of a piece that `encode_rows` did not find; returns where they end."""
    while first < end:
        cut = seam(data, first, end, merges)
        if cut - first <= LONGEST:
            at = _cached(data, first, cut - first, merges, cache, work, out, at)
        else:
            at = merge(data, first, cut, merges, work, out, at)
        first = cut
    return at


@inlined
def _borrow(merges: Any) -> Any:
    return Merges(
        borrowed(merges.byte_ids),
        borrowed(merges.pairs),
        merges.shift,
        borrowed(merges.joins),
        merges.join_shift,
        borrowed(merges.loose),
    )


@inlined
def _borrow_work(work: Any) -> Any:
    return Work(borrowed(work.symbols), borrowed(work.values), borrowed(work.tail))


@kernel
def encode_rows(data: Any, offsets: Any, valid: Any, model: Any, cache: Any, work: Any, eos: Any, out: Any, ends: Any) -> int:
    """Write the ids of texts, each with `eos` at its end, one after the other; returns how many.

    `data`, `offsets` (rows + 1,): valid UTF-8. `valid` (rows,): a text that is not gets no id. `out`: room for an id each byte
    and each row. `ends` (rows,): where the ids of each text end.
    """
    at = 0
    data, out, cache, work, merges = borrowed(data), borrowed(out), borrowed(cache), _borrow_work(work), _borrow(model.merges)
    letters, safe = borrowed(model.letters), len(data) - 16
    preset, classes, folds = model.preset, borrowed(model.classes), borrowed(model.folds)
    for row in range(len(offsets) - 1):
        if valid[row]:
            i, end = int(offsets[row]), int(offsets[row + 1])
            while i < end:
                # nearly all pieces of most texts: a blank or none, ASCII letters, and no character beyond ASCII after them
                first = i + 1 if data[i] == _BLANK else i
                cut = first
                while cut < end and letters[data[cut]]:
                    cut += 1
                if cut == first or (cut < end and data[cut] >= 0x80):
                    cut = piece_end(preset, data, classes, folds, i, end)
                size = cut - i
                if size <= QUICK and i < safe:
                    a, b = _load(data, i), np.uint64(0)
                    if size <= 8:
                        a &= _ONES >> np.uint64(64 - 8 * size)
                    else:
                        b = _load(data, i + 8) & (_ONES >> np.uint64(128 - 8 * size))
                    line = _bucket(a ^ b * MIX)
                    d = np.uint64(size) << _SIZE
                    if cache[line] != a or cache[line + 1] != b or (cache[line + 3] ^ d) << np.uint64(3):
                        line ^= 8
                    if cache[line] == a and cache[line + 1] == b and (cache[line + 3] ^ d) << np.uint64(3) == 0:
                        ids = cache[line + 4]
                        out[at] = np.uint32(ids & _LOW)
                        count = int(cache[line + 3] >> _COUNT) + 1
                        if count > 1:
                            out[at + 1] = np.uint32(ids >> np.uint64(32))
                            for k in range(2, count):
                                out[at + k] = np.uint32(cache[line + 4 + (k >> 1)] >> np.uint64((k & 1) * 32) & _LOW)
                        at += count
                        i = cut
                        continue
                at = _piece(data, i, cut, merges, cache, work, out, at)
                i = cut
            out[at] = eos
            at += 1
        ends[row] = at
    return at

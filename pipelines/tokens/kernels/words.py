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
from pipelines.tokens.kernels.merge import MIX, Merges, Work, merge, merge_short, seam
from pipelines.tokens.kernels.split import piece_end

LONGEST = 31  # bytes of a piece that is cached
MOST = 8  # ids of one
MERGED = 12  # bytes of characters of three or more that are merged sooner than found in the cache
QUICK = 15  # bytes of a piece that is looked up before seams are sought in it
_CACHE_BITS = 16  # of the number of lines: 4 MB
# the last byte of the fourth word of a line: five bits for the bytes of the piece, three for its ids less one
_SIZE, _COUNT, _COUNT_BITS = np.uint64(56), np.uint64(61), np.uint64(3)
_HALF = np.uint64(32)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_BLANK = 0x20
_THREE_BYTES = 0xE0  # the first byte of a character of so many or more


class Model(NamedTuple):
    """All that decides ids: the preset of `split.py`, bytes that are letters, tables of `class_table` and `make_merges`."""

    preset: int
    letters: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    folds: npt.NDArray[np.uint8]
    merges: Merges


def make_cache() -> npt.NDArray[np.uint64]:
    """An empty cache, which is for one kernel at a time: lines of 64 bytes, four words of a piece and its length, and its ids.

    Two neighbouring lines are a bucket, so it stays as large as it is; what it holds decides speed and never ids.
    """
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
def _line(data: Any, first: Any, size: Any, cache: Any, tail: Any) -> Any:
    """The words of a piece of up to LONGEST bytes, where its bucket begins, and where its line begins; -1 if it has none."""
    text, start = data, first
    if first + LONGEST >= len(data):
        for k in range(size):
            tail[k] = data[first + k]
        text, start = tail, 0
    a, b, c, d = _load(text, start), np.uint64(0), np.uint64(0), np.uint64(0)
    if size <= 8:
        a &= _ONES >> np.uint64(64 - 8 * size)
    else:
        b = _load(text, start + 8)
        if size <= 16:
            b &= _ONES >> np.uint64(128 - 8 * size)
        else:
            c = _load(text, start + 16)
            if size <= 24:
                c &= _ONES >> np.uint64(192 - 8 * size)
            else:
                d = _load(text, start + 24) & (_ONES >> np.uint64(256 - 8 * size))
    mixed = (a ^ (b ^ (c ^ d * MIX) * MIX) * MIX) * MIX
    mixed = (mixed ^ (mixed >> np.uint64(29))) * MIX
    place = int(mixed >> np.uint64(64 - _CACHE_BITS)) * 8
    d |= np.uint64(size) << _SIZE
    line = place
    if cache[line] != a or cache[line + 1] != b or cache[line + 2] != c or (cache[line + 3] ^ d) << _COUNT_BITS:
        line ^= 8
        if cache[line] != a or cache[line + 1] != b or cache[line + 2] != c or (cache[line + 3] ^ d) << _COUNT_BITS:
            line = -1
    return a, b, c, d, place, line


@inlined
def _copy(cache: Any, line: Any, out: Any, at: Any) -> Any:
    """Write the ids of a line; returns where they end."""
    ids, count = cache[line + 4], int(cache[line + 3] >> _COUNT) + 1
    out[at] = np.uint32(ids & _LOW)
    if count > 1:
        out[at + 1] = np.uint32(ids >> _HALF)
        for k in range(2, count):
            out[at + k] = np.uint32(cache[line + 4 + (k >> 1)] >> np.uint64((k & 1) * 32) & _LOW)
    return at + count


@kernel
def _keep(cache: Any, place: int, a: Any, b: Any, c: Any, d: Any, out: Any, at: int, end: int) -> None:
    """Enter a piece with its ids, out[at:end]; the older line of its bucket goes."""
    if cache[place + 3]:
        for k in range(8):
            cache[(place ^ 8) + k] = cache[place + k]
    cache[place], cache[place + 1], cache[place + 2] = a, b, c
    cache[place + 3] = d | np.uint64(end - at - 1) << _COUNT
    for k in range(0, end - at, 2):
        high = np.uint64(out[at + k + 1]) << _HALF if at + k + 1 < end else np.uint64(0)
        cache[place + 4 + (k >> 1)] = np.uint64(out[at + k]) | high


@inlined
def _borrow(merges: Any) -> Any:
    return Merges(
        borrowed(merges.starts),
        borrowed(merges.byte_ids),
        borrowed(merges.pairs),
        merges.shift,
        borrowed(merges.made),
        borrowed(merges.joins),
        merges.join_shift,
        borrowed(merges.loose),
    )


@inlined
def _borrow_work(work: Any) -> Any:
    return Work(borrowed(work.symbols), borrowed(work.ranks), borrowed(work.tail))


@kernel
def encode_rows(data: Any, offsets: Any, valid: Any, model: Any, cache: Any, work: Any, eos: Any, out: Any, ends: Any) -> int:
    """Write the ids of texts, each with `eos` at its end, one after the other; returns how many.

    `data`, `offsets` (rows + 1,): valid UTF-8. `valid` (rows,): a text that is not gets no id. `out`: room for an id each byte
    and each row. `ends` (rows,): where the ids of each text end.
    """
    at = 0
    data, out, cache, work, merges = borrowed(data), borrowed(out), borrowed(cache), _borrow_work(work), _borrow(model.merges)
    letters, classes, folds, preset = borrowed(model.letters), borrowed(model.classes), borrowed(model.folds), model.preset
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
                # a run of CJK is seldom seen again as a whole, its words are
                if cut - i <= QUICK and data[i] < _THREE_BYTES:
                    _, _, _, _, _, line = _line(data, i, cut - i, cache, work.tail)
                    if line >= 0:
                        at = _copy(cache, line, out, at)
                        i = cut
                        continue
                while i < cut:
                    until = seam(data, i, cut, merges)
                    size = until - i
                    if size > LONGEST:
                        at = merge(data, i, until, merges, work, out, at)
                        i = until
                        continue
                    start, line = at, -1
                    keep = size > MERGED or data[i] < _THREE_BYTES
                    if keep:
                        a, b, c, d, place, line = _line(data, i, size, cache, work.tail)
                    if line >= 0:
                        at = _copy(cache, line, out, at)
                    else:
                        at = merge_short(data, i, until, merges, work, out, at)
                        if keep and at - start <= MOST:
                            _keep(cache, place, a, b, c, d, out, start, at)
                    i = until
            out[at] = eos
            at += 1
        ends[row] = at
    return at


@kernel
def sampled_rows(data: Any, offsets: Any, one_in: int) -> Any:
    """One in so many rows, chosen by a hash of a text's length, its first 32 bytes and its last 32; an empty one never is."""
    rows, found = np.empty(len(offsets) - 1, np.int64), 0
    for row in range(len(offsets) - 1):
        first, last = offsets[row], offsets[row + 1]
        value = np.uint64(last - first)
        for k in range(first, min(first + 32, last)):
            value = (value ^ np.uint64(data[k])) * MIX
        for k in range(max(first, last - 32), last):
            value = (value ^ np.uint64(data[k])) * MIX
        value = (value ^ (value >> np.uint64(29))) * MIX
        if last > first and (value >> np.uint64(32)) % np.uint64(one_in) == 0:
            rows[found] = row
            found += 1
    return rows[:found]

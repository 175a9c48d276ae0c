"""Repeated spans of tokens, in kernels: tokens, winnowing anchors, windows and their first places, and the cut.

A token is a run of letters, digits and `_` with the marks on them; a character of a script without blanks (Han, kana, Thai,
Lao, Khmer, Burmese) is one by itself. Tokens are compared in lower case and Unicode's form NFD;
what stands between them is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.dedup.counting import is_set
from pipelines.dedup.kernels.lines import count_points, point_at
from pipelines.filter.kernels.tokens import HASH_BASIS, HASH_PRIME
from pipelines.filter.kernels.unicode import ALNUM, CLOSING, MARK, PAUSE, SENTENCE, SPACE, UNSPACED
from pipelines.kernel import inlined, kernel

MARKED, RELIED_ON = 0, 1  # kinds of what `settle` finds
CHUNK = 1 << 15  # windows of one row
_HOT_PARTS = 256
# Odd multipliers for polynomials modulo 2**64 (golden ratio; Steele and Vigna 2021) and of the second hash of a token.
_B1 = np.uint64(0x9E3779B97F4A7C15)
_B2 = np.uint64(0xD1342543DE82EF95)
_PRIME2 = np.uint64(0xAF251AF3B0F025B5)
_BASIS2 = np.uint64(0x6A09E667F3BCC908)
_WORD = ALNUM


@inlined
def fmix(x: Any) -> Any:
    """MurmurHash3's finaliser."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@kernel
def most_tokens(data: Any, offsets: Any) -> tuple[int, int]:
    """Bounds of the tokens of the document that has most, and of all."""
    most = total = 0
    for row in range(len(offsets) - 1):
        number, inside = 1, False
        for i in range(offsets[row], offsets[row + 1]):
            b = data[i]
            word = b >= 0x80 or 97 <= b <= 122 or 65 <= b <= 90 or 48 <= b <= 57 or b == 95
            number += (word and not inside) + (b >= 0xC2) + (b >= 0xE0)
            inside = word
        most, total = max(most, number), total + number
    return most, total


@kernel
def tokenise(data: Any, first: int, last: int, t: Any, hashes: bool, begin: Any, end: Any, one: Any, two: Any) -> int:
    """Byte offsets of the tokens of data[first:last] and, with `hashes`, two independent hashes; returns how many."""
    flag_of, forms_at, forms = t.flags, t.first, t.forms
    n, i = 0, first
    while i < last:
        point, length = np.int64(data[i]), 1
        if point >= 0x80:
            point, length = point_at(data, i, last)
        flag = flag_of[point]
        if not flag & _WORD and point != 95:
            i += length
            continue
        begin[n] = i
        alone = flag & UNSPACED != 0
        v, w = HASH_BASIS, _BASIS2
        while True:
            if hashes:
                if point < 0x80:
                    if 65 <= point <= 90:
                        point += 32
                    v = (v ^ np.uint64(point)) * HASH_PRIME
                    w = (w + np.uint64(point)) * _PRIME2
                else:
                    for k in range(forms_at[point], forms_at[point + 1]):
                        v = (v ^ np.uint64(forms[k])) * HASH_PRIME
                        w = (w + np.uint64(forms[k])) * _PRIME2
            i += length
            if i >= last:
                break
            point, length = np.int64(data[i]), 1
            if point >= 0x80:
                point, length = point_at(data, i, last)
            flag = flag_of[point]
            if not flag & MARK and (alone or flag & UNSPACED or not (flag & _WORD or point == 95)):
                break
        end[n] = i
        if hashes:
            one[n], two[n] = fmix(v), fmix(w)
        n += 1
    return n


@kernel
def _power(base: Any, exponent: int) -> Any:
    value = np.uint64(1)
    for _ in range(exponent):
        value *= base
    return value


@kernel
def _anchors(one: Any, n: int, size: int, gram: Any, place: Any) -> int:
    """For each window of `size` tokens the place of its anchor: the least hash of its (size // 2)-grams, the last of equals.

    Equal windows have equal anchors at the same distance (winnowing: Schleimer, Wilkerson, Aiken 2003). Returns their number.
    """
    wide = size // 2
    windows = n - size + 1
    if windows <= 0:
        return 0
    drop, value = _power(_B1, wide), np.uint64(0)
    for i in range(n):
        value = value * _B1 + one[i]
        if i >= wide:
            value -= one[i - wide] * drop
        if i >= wide - 1:
            gram[i - wide + 1] = fmix(value)
    span = size - wide + 1  # grams of a window
    least = -1
    for i in range(windows):
        if least < i:
            least = i
            for k in range(i + 1, i + span):
                if gram[k] <= gram[least]:
                    least = k
        elif gram[i + span - 1] <= gram[least]:
            least = i + span - 1
        place[i] = least
    return windows


@kernel
def count_anchors(data: Any, offsets: Any, size: int, t: Any, most: int, out: Any) -> int:
    """Entries (hash, 1) of the anchors of all documents; returns how many. `most`: tokens of the longest document."""
    begin, end, place = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    one, two, gram = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64)
    made = 0
    for row in range(len(offsets) - 1):
        n = tokenise(data, offsets[row], offsets[row + 1], t, True, begin, end, one, two)
        before = -1
        for i in range(_anchors(one, n, size, gram, place)):
            if place[i] != before:
                before = place[i]
                out[made, 0], out[made, 1] = np.int64(gram[before]), 1
                made += 1
    return made


@kernel
def _grown(array: Any, size: int) -> Any:
    made = np.empty((max(size, 2 * len(array)), array.shape[1]), array.dtype)
    made[: len(array)] = array
    return made


@kernel
def windows_at_anchors(
    data: Any, offsets: Any, size: int, t: Any, most: int, twice: Any, hot: Any, shift: int
) -> tuple[Any, Any, Any, int]:
    """The windows whose anchor is set in `twice`: occurrences (key, first window, how many), their hashes (windows, 2), chunks.

    Windows in a row with one anchor make an occurrence, whose key is the anchor's hash; where that is set in `hot`, each by
    itself, and the key has part of the window's own hash: equal windows always have equal keys. A chunk (row, number in the
    document, end of its occurrences, end of its windows) has about CHUNK windows at most. Returns also the number of chunks.
    """
    begin, end, place = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    one, two, gram = np.empty(most, np.uint64), np.empty(most, np.uint64), np.empty(most, np.uint64)
    found, hashes, chunks = np.empty((1024, 3), np.int64), np.empty((16384, 2), np.int64), np.empty((256, 4), np.int64)
    occurrences = windows = made = 0
    drop1, drop2 = _power(_B1, size), _power(_B2, size)
    for row in range(len(offsets) - 1):
        n = tokenise(data, offsets[row], offsets[row + 1], t, True, begin, end, one, two)
        number = _anchors(one, n, size, gram, place)
        chunk, opened = 0, windows
        before, wanted, is_hot = -1, False, False
        v = w = np.uint64(0)
        for k in range(size - 1 if number > 0 else 0):
            v, w = v * _B1 + one[k], w * _B2 + two[k]
        for i in range(number):
            v, w = v * _B1 + one[i + size - 1], w * _B2 + two[i + size - 1]
            if i > 0:
                v -= one[i - 1] * drop1
                w -= two[i - 1] * drop2
            fresh = place[i] != before
            if fresh:
                before = place[i]
                wanted = is_set(twice, shift, gram[before])
                is_hot = wanted and is_set(hot, shift, gram[before])
                if windows - opened >= CHUNK:
                    if made == len(chunks):
                        chunks = _grown(chunks, 0)
                    chunks[made, 0], chunks[made, 1], chunks[made, 2], chunks[made, 3] = row, chunk, occurrences, windows
                    made, chunk, opened = made + 1, chunk + 1, windows
            if not wanted:
                continue
            if windows == len(hashes):
                hashes = _grown(hashes, 0)
            hashes[windows, 0], hashes[windows, 1] = np.int64(fmix(v)), np.int64(fmix(w))
            if fresh or is_hot:
                if occurrences == len(found):
                    found = _grown(found, 0)
                key = gram[before]
                if is_hot:
                    key = fmix(key ^ (np.uint64(hashes[windows, 1]) % np.uint64(_HOT_PARTS)))
                found[occurrences, 0], found[occurrences, 1], found[occurrences, 2] = np.int64(key), i, 0
                occurrences += 1
            found[occurrences - 1, 2] += 1
            windows += 1
        if windows > opened:
            if made == len(chunks):
                chunks = _grown(chunks, 0)
            chunks[made, 0], chunks[made, 1], chunks[made, 2], chunks[made, 3] = row, chunk, occurrences, windows
            made += 1
    return found, hashes, chunks, made


# --- first places -------------------------------------------------------------------------------------------------------------

_STAMP, _ONE, _TWO, _RANK, _START, _RELIED = range(6)


def new_slots() -> npt.NDArray[np.int64]:
    """The table of `settle`: 48 bytes a different window of one key, twice."""
    return np.zeros((1 << 10, 6), np.int64)


@kernel
def _slot(slots: Any, stamp: int, one: int, two: int) -> int:
    mask = np.uint64(len(slots) - 1)
    at = np.uint64(one) & mask
    while slots[at, _STAMP] == stamp and not (slots[at, _ONE] == one and slots[at, _TWO] == two):
        at = (at + np.uint64(1)) & mask
    return np.int64(at)  # type: ignore[return-value]


@kernel
def settle(
    keys: Any, ranks: Any, starts: Any, ends: Any, hashes: Any, within: bool, slots: Any, state: Any
) -> tuple[Any, int, Any]:
    """Of windows that occur again: rows (rank, first window, how many, rank of the first place, kind), how many, and the table.

    Rows come by key, and within one by rank and place; ends[r] is where the windows of row r end in `hashes`. A window is
    MARKED where it was seen before (with `within` in the same document too); that first place is RELIED_ON.
    `state` (3,), for the next batch: stamp of the key, its entries, the key itself.
    """
    out = np.empty((1024, 5), np.int64)
    made, j = 0, 0
    last_mark = last_relied = -1  # rows of `out` that may go on
    for r in range(len(keys)):
        if state[0] == 0 or keys[r] != state[2]:
            state[0] += 1
            state[1], state[2] = 0, keys[r]
            last_relied = -1
        last_mark = -1
        begin = j
        while j < ends[r]:
            start = starts[r] + (j - begin)
            one, two = hashes[j, 0], hashes[j, 1]
            j += 1
            at = _slot(slots, state[0], one, two)
            if slots[at, _STAMP] != state[0]:
                slots[at, _STAMP], slots[at, _ONE], slots[at, _TWO] = state[0], one, two
                slots[at, _RANK], slots[at, _START], slots[at, _RELIED] = ranks[r], start, 0
                state[1] += 1
                last_mark = -1
                if 2 * state[1] > len(slots):
                    slots = _rehashed(slots, state[0])
                continue
            rank, place = slots[at, _RANK], slots[at, _START]
            if rank == ranks[r] and (not within or place >= start):  # not a later place: a row that came twice
                last_mark = -1
                continue
            if made + 2 > len(out):
                out = _grown(out, 0)
            if last_mark >= 0 and out[last_mark, 3] == rank:
                out[last_mark, 2] += 1
            else:
                out[made, 0], out[made, 1], out[made, 2], out[made, 3], out[made, 4] = ranks[r], start, 1, rank, MARKED
                last_mark = made
                made += 1
            if slots[at, _RELIED] == 0:
                slots[at, _RELIED] = 1
                if last_relied >= 0 and out[last_relied, 0] == rank and out[last_relied, 1] + out[last_relied, 2] == place:
                    out[last_relied, 2] += 1
                else:
                    out[made, 0], out[made, 1], out[made, 2], out[made, 3], out[made, 4] = rank, place, 1, rank, RELIED_ON
                    last_relied = made
                    made += 1
    return out, made, slots


@kernel
def _rehashed(slots: Any, stamp: int) -> Any:
    made = np.zeros((2 * len(slots), 6), np.int64)
    for k in range(len(slots)):
        if slots[k, _STAMP] == stamp:
            at = _slot(made, stamp, slots[k, _ONE], slots[k, _TWO])
            made[at] = slots[k]
    return made


@kernel
def assemble(ranks: Any, starts: Any, counts: Any, firsts: Any, kinds: Any, size: int) -> tuple[Any, int]:
    """Spans of tokens (rank, first token, end, rank of the first place, 1 where others rely on the document), and how many.

    Rows are those of `settle`, by rank and first window, whole documents. A token belongs to the marked window that begins
    first of those that have it; tokens of windows that are relied on stay.
    """
    out = np.empty((1024, 5), np.int64)
    made, head = 0, 0
    while head < len(ranks):
        stop, relied = head, 0
        while stop < len(ranks) and ranks[stop] == ranks[head]:
            relied |= kinds[stop] == RELIED_ON
            stop += 1
        p, reached, from_here = head, 0, made
        for r in range(head, stop):
            if kinds[r] == RELIED_ON:
                continue
            a, b = max(starts[r], reached), starts[r] + counts[r] - 1 + size
            reached = b
            while a < b:
                while p < stop and (kinds[p] != RELIED_ON or starts[p] + counts[p] - 1 + size <= a):
                    p += 1
                until = b if p == stop else min(max(starts[p], a), b)
                if until > a:
                    if made > from_here and out[made - 1, 2] == a and out[made - 1, 3] == firsts[r]:
                        out[made - 1, 2] = until
                    else:
                        if made == len(out):
                            out = _grown(out, 0)
                        out[made, 0], out[made, 1], out[made, 2] = ranks[r], a, until
                        out[made, 3], out[made, 4] = firsts[r], relied
                        made += 1
                a = until if until == b else starts[p] + counts[p] - 1 + size
        head = stop
    return out, made


# --- the cut ------------------------------------------------------------------------------------------------------------------


@kernel
def cut_spans(
    data: Any, offsets: Any, rows: Any, first: Any, last: Any, t: Any, most: int, out: Any, ends: Any, cuts: Any, chars: Any,
    left: Any, from_char: Any, to_char: Any,
) -> None:  # fmt: skip
    """Write the documents without their spans to `out`, up to ends[row + 1].

    The spans of a row are tokens first[k]:last[k], k in rows[row]:rows[row + 1], ascending; adjacent ones are one cut. Cuts,
    characters cut and left go to (rows,) arrays, the characters of the spans' ends to (spans,) arrays.
    """
    begin, end = np.empty(most, np.int64), np.empty(most, np.int64)
    none = np.empty(0, np.uint64)
    at = 0
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        head, tail = rows[row], rows[row + 1]
        origin, done = at, start
        if tail > head:
            tokenise(data, start, stop, t, False, begin, end, none, none)
            char, seen = 0, start
            for k in range(head, tail):
                char += count_points(data, seen, begin[first[k]])
                from_char[k], seen = char, begin[first[k]]
                char += count_points(data, seen, end[last[k] - 1])
                to_char[k], seen = char, end[last[k] - 1]
        k = head
        while k < tail:
            token = first[k]
            while k + 1 < tail and first[k + 1] == last[k]:
                k += 1
            a = _opening(data, begin[token], done if token == 0 else end[token - 1], start, t.flags)
            b = _closing(data, end[last[k] - 1], stop, t.flags)
            a_blank = a
            while a_blank > done and _blank_before(data, a_blank, done, t.flags) < a_blank:
                a_blank = _blank_before(data, a_blank, done, t.flags)
            b_blank = b
            while b_blank < stop:
                point, length = point_at(data, b_blank, stop)
                if not t.flags[point] & SPACE:
                    break
                b_blank += length
            for i in range(done, a_blank):
                out[at] = data[i]
                at += 1
            if at > origin and b_blank < stop:
                at = _seam(data, a_blank, a, b, b_blank, out, at, t.flags, stop)
            done = b_blank
            cuts[row] += 1
            k += 1
        for i in range(done, stop):
            out[at] = data[i]
            at += 1
        left[row] = count_points(out, origin, at)
        chars[row] = count_points(data, start, stop) - left[row] if tail > head else 0
        ends[row + 1] = at


@kernel
def _before(data: Any, i: int, first: int) -> int:
    """Where the character before byte `i` begins."""
    i -= 1
    while i > first and data[i] & 0xC0 == 0x80:
        i -= 1
    return i


@kernel
def _blank_before(data: Any, i: int, first: int, table: Any) -> int:
    """Where the blank before `i` begins; `i` where there is none."""
    if i <= first:
        return i
    j = _before(data, i, first)
    point, _ = point_at(data, j, i)
    return j if table[point] & np.uint32(SPACE) else i


@kernel
def _opening(data: Any, a: int, floor: int, start: int, table: Any) -> int:
    """The begin of the marks right before a cut, where a blank or nothing is before them; else `a`."""
    i = a
    while i > floor and _blank_before(data, i, floor, table) == i:
        i = _before(data, i, floor)
    return i if i == start or _blank_before(data, i, floor, table) < i else a


@kernel
def _closing(data: Any, b: int, stop: int, table: Any) -> int:
    """The end of the marks right after a cut: those that end or close something, and others where a blank follows them."""
    while b < stop:
        point, length = point_at(data, b, stop)
        if not table[point] & np.uint32(SENTENCE | PAUSE | CLOSING):
            break
        b += length
    i = b
    while i < stop:
        point, length = point_at(data, i, stop)
        if table[point] & np.uint32(SPACE):
            return i
        if table[point] & np.uint32(_WORD) or point == 95:
            return b
        i += length
    return i


@kernel
def _seam(data: Any, a: int, a_end: int, b: int, b_end: int, out: Any, at: int, table: Any, stop: int) -> int:
    """Write the blanks of one side of a cut: with more ends of lines, else those before it; a space where words would join."""
    lines_a = lines_b = 0
    for i in range(a, a_end):
        lines_a += data[i] == 10
    for i in range(b, b_end):
        lines_b += data[i] == 10
    first, last = (b, b_end) if lines_b > lines_a or a == a_end else (a, a_end)
    for i in range(first, last):
        out[at] = data[i]
        at += 1
    if first == last:
        before, _ = point_at(out, _before(out, at, 0), at)
        after, _ = point_at(data, b_end, stop)
        word_before = table[before] & np.uint32(ALNUM | MARK) or before == 95
        word_after = table[after] & np.uint32(ALNUM) or after == 95
        if word_before and word_after and not (table[before] & np.uint32(UNSPACED) or table[after] & np.uint32(UNSPACED)):
            out[at] = 32
            at += 1
    return at

"""Characters, lines and paragraphs of one document, in kernels. A line is what lies between newlines, unless it says else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.repetition import add, clear
from pipelines.filter.kernels.tokens import HASH_BASIS, HASH_PRIME, hash_points, mix
from pipelines.filter.kernels.unicode import (
    ALNUM,
    ALPHA,
    BREAK,
    BROKEN,
    CLOSING,
    DIGIT,
    PAUSE,
    PUNCT,
    SENTENCE,
    SPACE,
    UNSPACED,
    UPPER,
)
from pipelines.kernel import kernel

SHORT_LINE_CHARS = 30  # FineWeb
LIST_LINE_WORDS = 5  # a line of fewer words that ends in no mark is an entry of a list, a menu or a table


class Lines(NamedTuple):
    """Segments of one document: bounds, those without blanks at the ends (equal where all is blank), hash, characters."""

    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    inner_first: npt.NDArray[np.int32]
    inner_last: npt.NDArray[np.int32]
    hash: npt.NDArray[np.uint64]
    length: npt.NDArray[np.int32]
    plain: npt.NDArray[np.bool_]  # no digit and no blank but single ones


def line_buffers(number: int) -> Lines:
    """Buffers for documents of at most `number` lines."""
    made = [np.empty(number, np.int32) for _ in range(5)]
    return Lines(made[0], made[1], made[2], made[3], np.empty(number, np.uint64), made[4], np.empty(number, np.bool_))


@kernel
def trim(flag: Any, first: int, last: int) -> tuple[int, int]:
    """The bounds without blanks at the ends; (last, last) where nothing is left."""
    while first < last and flag[first] & SPACE:
        first += 1
    while last > first and flag[last - 1] & SPACE:
        last -= 1
    return first, last


@kernel
def split_lines(points: Any, flag: Any, n: int, lines: Any) -> int:
    """The lines of `text.split("\\n")`; returns how many, at least one."""
    number, first, i = 0, 0, 0
    while True:
        value, plain, before = HASH_BASIS, True, False
        while i < n and points[i] != 10:
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            blank = (flag[i] & SPACE) != 0
            plain &= not (flag[i] & DIGIT) and not (blank and (before or points[i] != 32))
            before = blank
            i += 1
        lines.first[number] = first
        lines.last[number] = i
        lines.inner_first[number], lines.inner_last[number] = trim(flag, first, i)
        lines.hash[number] = mix(value)
        lines.length[number] = i - first
        lines.plain[number] = plain
        number += 1
        if i == n:
            return number
        i += 1
        first = i


@kernel
def ends_in_ellipsis(points: Any, first: int, last: int) -> bool:
    """Whether the characters end in "..." or U+2026."""
    if last > first and points[last - 1] == 0x2026:
        return True
    return last - first >= 3 and points[last - 1] == 46 and points[last - 2] == 46 and points[last - 3] == 46


@kernel
def bullets_and_ellipses(points: Any, flag: Any, n: int, out: Any) -> None:
    """Of the lines of `str.splitlines`: out[0] how many, out[1] that start with U+2022 or "-" after blanks, out[2] that end
    in an ellipsis before blanks.
    """
    out[:] = 0
    first = 0
    i = 0
    while i <= n:
        if i == n or flag[i] & BREAK:
            if i == n and first == n:
                break
            a, b = trim(flag, first, i)
            out[0] += 1
            if a < b:
                out[1] += points[a] == 0x2022 or points[a] == 45
                out[2] += ends_in_ellipsis(points, a, b)
            if i + 1 < n and points[i] == 13 and points[i + 1] == 10:
                i += 1
            first = i + 1
        i += 1


@kernel
def split_newline_runs(points: Any, n: int, lines: Any, number: int, hashes: Any, lengths: Any) -> int:
    """The segments of a split at one or more newlines, an empty one at the beginning and at the end included."""
    made = 0
    if n == 0 or points[0] == 10:
        hashes[0], lengths[0] = np.uint64(0), 0
        made = 1
    for i in range(number):
        if lines.length[i]:
            hashes[made] = lines.hash[i]
            lengths[made] = lines.length[i]
            made += 1
    if n and points[n - 1] == 10:
        hashes[made], lengths[made] = np.uint64(0), 0
        made += 1
    return made


@kernel
def split_paragraphs(points: Any, flag: Any, n: int, lines: Any, number: int, each: bool, hashes: Any, lengths: Any) -> int:
    """The segments between two or more newlines of the text without blanks at its ends; with `each`, each without blanks at its
    ends, and blank ones left out. A segment's hash is made of those of its lines.
    """
    start, stop = trim(flag, 0, n)
    made = k = 0
    while k < number:
        while k < number and (lines.length[k] == 0 or lines.last[k] <= start):
            k += 1
        head = k
        while k < number and lines.length[k] and lines.first[k] < stop:
            k += 1
        if k == head:
            break
        first, last = max(lines.first[head], start), min(lines.last[k - 1], stop)
        if each:
            first, last = trim(flag, first, last)
            if first == last:
                continue
        value = HASH_BASIS
        for line in range(head, k):
            a, b = max(lines.first[line], first), min(lines.last[line], last)
            if a < b:
                whole = b - a == lines.length[line]
                value = (value ^ (lines.hash[line] if whole else hash_points(points, a, b))) * HASH_PRIME
            elif first < lines.first[line] and lines.last[line] < last:
                value *= HASH_PRIME
        hashes[made] = mix(value)
        lengths[made] = last - first
        made += 1
    if made == 0 and not each:
        hashes[0], lengths[0], made = np.uint64(0), 0, 1  # the empty text is one empty segment
    return made


@kernel
def split_double_newlines(points: Any, n: int, lines: Any) -> int:
    """The segments of `text.split("\\n\\n")`; only bounds, hash and length are set."""
    made, begin, i = 0, 0, 0
    while i <= n:
        if i == n or (points[i] == 10 and i + 1 < n and points[i + 1] == 10):
            lines.first[made] = begin
            lines.last[made] = i
            lines.hash[made] = hash_points(points, begin, i)
            lines.length[made] = i - begin
            made += 1
            i += 2
            begin = i
            if i > n:
                break
            continue
        i += 1
    return made


@kernel
def widths(flag: Any, first: int, last: int) -> int:
    """Characters, one of a script without blanks counted twice (it says about twice as much)."""
    wide = last - first
    for i in range(first, last):
        wide += (flag[i] & UNSPACED) != 0
    return wide


@kernel
def shape_repeats(points: Any, flag: Any, lines: Any, number: int, hashes: Any, seen: Any) -> int:
    """Lines that repeat an earlier one but for digits and the width of blanks; `hashes` is scratch."""
    mask = clear(seen, number)
    repeated = made = 0
    for k in range(number):
        a, b = lines.inner_first[k], lines.inner_last[k]
        if a == b:
            continue
        if lines.plain[k] and b - a == lines.length[k]:
            hashes[made] = lines.hash[k]
        else:
            value, i = HASH_BASIS, a
            while i < b:
                point = np.int64(points[i])
                if flag[i] & DIGIT:
                    while i + 1 < b and flag[i + 1] & DIGIT:
                        i += 1
                    point = np.int64(48)
                elif flag[i] & SPACE:
                    while flag[i + 1] & SPACE:
                        i += 1
                    point = np.int64(32)
                value = (value ^ np.uint64(point)) * HASH_PRIME
                i += 1
            hashes[made] = mix(value)
        repeated += add(seen, hashes, made, mask) != made
        made += 1
    return repeated


@kernel
def is_list_line(flag: Any, points: Any, first: int, last: int) -> bool:
    """Whether a line (without blanks at its ends) is a few words that end in no mark."""
    end = last
    while end > first and (flag[end - 1] & CLOSING or points[end - 1] == 92):
        end -= 1
    if end > first and flag[end - 1] & (SENTENCE | PAUSE):
        return False
    words, wide, i = 0, 0, first
    while i < last:
        begin, word = i, False
        while i < last and not flag[i] & SPACE:
            word |= (flag[i] & ALNUM) != 0 or (points[i] > 0x7F and not flag[i] & PUNCT)
            wide += points[i] > 0x0DFF and (flag[i] & ALPHA) != 0  # about: scripts without blanks, and Hangul
            i += 1
        words += i > begin and word
        i += 1
        if words >= LIST_LINE_WORDS or wide >= 2 * LIST_LINE_WORDS:
            return False
    return True


@kernel
def count_line_sentences(flag: Any, points: Any, first: int, last: int) -> int:
    """Sentences of a line without blanks at its ends: marks count before a blank, wide ones anywhere; at least one."""
    ends, i, after = 0, first, first
    while i < last:
        if flag[i] & SENTENCE:
            wide = False
            while i < last and flag[i] & SENTENCE:
                wide |= points[i] > 0x2FF or points[i] == 0x589
                i += 1
            while i < last and (flag[i] & CLOSING or points[i] == 92):
                i += 1
            if wide or i == last or flag[i] & SPACE:
                ends += 1
                after = i
        else:
            i += 1
    return ends + (ends == 0 or after < last)


@kernel
def character_counts(points: Any, flag: Any, n: int, table: Any, histogram: Any, out: Any) -> None:
    """out[0..11]: blanks, letters, digits, capitals, punctuation, number signs, ellipses ("..." and U+2026), broken characters,
    newlines, curly brackets, all brackets, characters of addresses (from http://, https:// or www. to the next blank).

    ASCII is counted by character in `histogram` (128,), and looked at once a character.
    """
    out[:] = 0
    histogram[:] = 0
    row = 0
    for i in range(n):
        p = points[i]
        if p < 128:
            histogram[p] += 1
            if p == 46:
                row += 1
                if row == 3:
                    out[6] += 1
                    row = 0
            else:
                row = 0
        else:
            row = 0
            _count(out, flag[i], 1)
            out[6] += p == 0x2026
            out[10] += p == 0x27E8 or p == 0x27E9
    for p in range(128):
        if histogram[p]:
            _count(out, table[p], histogram[p])
    out[5] = histogram[35]
    out[8] = histogram[10]
    out[9] = histogram[123] + histogram[125]
    out[10] += out[9] + histogram[40] + histogram[41] + histogram[91] + histogram[93]
    if histogram[58] or histogram[119] > 2:
        out[11] = _address_chars(points, flag, n)


@kernel
def _count(out: Any, f: Any, number: int) -> None:
    out[0] += number if f & SPACE else 0
    out[1] += number if f & ALPHA else 0
    out[2] += number if f & DIGIT else 0
    out[3] += number if f & UPPER else 0
    out[4] += number if f & PUNCT else 0
    out[7] += number if f & BROKEN else 0


@kernel
def _address_chars(points: Any, flag: Any, n: int) -> int:
    chars, i = 0, 0
    while i + 3 < n:
        p = points[i]
        found = False
        if p == 58 and points[i + 1] == 47 and points[i + 2] == 47:  # ://
            begin = i
            while begin > 0 and begin > i - 5 and flag[begin - 1] & ALPHA:
                begin -= 1
            found = i - begin >= 4
        elif p == 119 and points[i + 1] == 119 and points[i + 2] == 119 and points[i + 3] == 46:
            begin = i
            found = i == 0 or not flag[i - 1] & ALNUM
        if found:
            while i < n and not flag[i] & SPACE:
                i += 1
            chars += i - begin
        else:
            i += 1
    return chars


@kernel
def blank_pieces(flag: Any, n: int) -> tuple[int, int, int]:
    """Of the pieces between blanks: how many, characters of the longest, how many of two characters or more are in capitals."""
    pieces = longest = capital = 0
    i = 0
    while i < n:
        if flag[i] & SPACE:
            i += 1
            continue
        begin, letters, small = i, np.uint32(0), np.uint32(0)
        while i < n and not flag[i] & SPACE:
            alpha = flag[i] & ALPHA
            letters |= alpha
            small |= alpha & ~((flag[i] & UPPER) >> np.uint32(3))  # ALPHA where it is no capital
            i += 1
        pieces += 1
        longest = max(longest, i - begin)
        capital += i - begin > 1 and letters != 0 and small == 0
    return pieces, longest, capital


@kernel
def compressed_size(data: Any, first: int, last: int, table: Any) -> int:
    """Bytes that a greedy LZ77 coder needs (a match of 4 bytes or more, at most 65,535 back, costs 3; else a byte costs 1).

    `table` (4,096,) int32 is scratch. An own coder, so that the measure does not depend on a library's version.
    """
    table[:] = -1
    size, misses, i = 0, 0, first
    while i + 4 <= last:
        word = np.uint32(data[i]) | np.uint32(data[i + 1]) << 8 | np.uint32(data[i + 2]) << 16 | np.uint32(data[i + 3]) << 24
        slot = np.int64((word * np.uint32(2654435761)) >> np.uint32(20)) & 4095
        at = np.int64(table[slot]) + first
        table[slot] = i - first
        if at >= first and i - at <= 65535 and data[at] == data[i] and data[at + 1] == data[i + 1]:
            length = 2
            while i + length < last and data[at + length] == data[i + length]:
                length += 1
            if length >= 4:
                size += 3 + length // 255
                i += length
                misses = 0
                continue
        misses += 1
        step = min(2 + (misses >> 5), last - i)  # every second place; where nothing repeats, less often, as LZ4 does
        size += step
        i += step
    return size + last - i

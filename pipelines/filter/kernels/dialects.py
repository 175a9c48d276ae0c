"""The measures of Gopher as DCLM, dolma, NeMo Curator and RedPajama-v2 read them, in kernels; datatrove's are in document.py.

Each function writes one row of numbers in the order in which `measures.MEASURES` names them, from the lines and the tokens that
document.py has made. What differs is told in that table; the sources are named there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.filter.kernels.repetition import repeats, repeats_of_lines, word_statistics
from pipelines.filter.kernels.segments import split_double_newlines, split_paragraphs
from pipelines.filter.kernels.stop_words import LONGEST, place_of
from pipelines.filter.kernels.tokens import HAS_LETTER, HASH_BASIS, HASH_PRIME, STARTS_ALNUM, hash_points, hash_text, mix
from pipelines.filter.kernels.unicode import ALNUM, CASED, SPACE, UPPER
from pipelines.kernel import inlined, kernel

_MEDIAN_CHARS = 4096  # longer words count as of this length: a median of this is over any bound


@kernel
def dclm(points: Any, flag: Any, n: int, lines: Any, number: int, words: Any, count: int, lower: Any, s: Any, out: Any) -> None:
    """The first twelve of DCLM's; its n-grams come from `dclm_grams`."""
    chars = letters = starts = stops = 0
    for k in range(count):
        chars += words.length[k]
        letters += (words.kind[k] & HAS_LETTER) != 0
        starts += (words.kind[k] & STARTS_ALNUM) != 0
        stops += _is_stop_word(points, words, k, lower, s.stop_words)
    signs = s.counts[5] + s.counts[6] + (_spaced_ellipses(points, n) if s.ascii[46] > 2 else 0)
    plain = s.ascii[32] + s.ascii[9:14].sum() == s.counts[0] and s.ascii[0] == 0  # Python's blanks are fastText's
    out[0] = starts if plain else _fasttext_words(points, flag, n)
    out[1] = chars / count if count else 0.0
    out[2] = out[3] = signs / count if count else 0.0
    bullets = ellipses = total = 0
    for k in range(number):
        a, b = lines.inner_first[k], lines.inner_last[k]
        if a < b:
            point = points[a]
            bullets += point == 0x25CF or point == 0x2022 or point == 42 or point == 45
            ellipses += _ends_in_any_ellipsis(points, a, b)
            s.hashes[total] = lines.hash[k]
            if b - a != lines.length[k]:
                s.hashes[total] = hash_points(points, a, b)
            s.lengths[total] = b - a
            total += 1
    out[4] = bullets / total if total else 0.0
    out[5] = ellipses / total if total else 0.0
    out[6] = letters / count if count else 0.0
    out[7] = stops
    repeats(s.hashes, s.lengths, total, s.seen, s.five)
    out[10], out[11] = _all_copies(s.five, total)
    total = split_paragraphs(points, flag, n, lines, number, True, s.hashes, s.lengths)
    repeats(s.hashes, s.lengths, total, s.seen, s.five)
    out[8], out[9] = _all_copies(s.five, total)


@kernel
def _fasttext_words(points: Any, flag: Any, n: int) -> int:
    """Words of fastText that begin with a letter or digit. Its blanks are those of C and NUL: a no-break space is none."""
    count, blank = 0, True
    for i in range(n):
        p = points[i]
        count += blank and (flag[i] & ALNUM) != 0
        blank = p == 32 or 9 <= p <= 13 or p == 0
    return count


@kernel
def dclm_grams(words: Any, count: int, grams: Any, out: Any) -> None:
    """DCLM's nine n-gram measures from the table of `repetition.ngrams` over the segments of UAX 29."""
    chars = words.length[:count].sum()
    for n in range(2, 11):
        row, value = n - 2, 0.0
        if chars and grams[row, 0] > 1:
            value = grams[row, 2] * grams[row, 0] / chars if n < 5 else grams[row, 4] / chars
        out[row] = value


@kernel
def dolma(points: Any, n: int, lines: Any, number: int, words: Any, count: int, grams: Any, s: Any, out: Any) -> None:
    """All of dolma's."""
    chars = letters = symbols = stops = 0
    signs = s.counts[5] + s.counts[6] > 0
    s.histogram[:] = 0
    for k in range(count):
        first, length = words.start[k], words.length[k]
        chars += length
        s.histogram[min(length, _MEDIAN_CHARS - 1)] += 1
        letters += (words.kind[k] & HAS_LETTER) != 0
        if signs:
            symbol = False
            for i in range(first, first + length):
                symbol |= points[i] == 35 or points[i] == 0x2026
            symbols += symbol
        if length <= 4 and _begins_stop_word(points[first]):
            stops += place_of(s.stop_words, words.hash[k], 0) != 0
    out[0] = count
    out[1] = _median(s.histogram, count)
    out[2] = out[3] = symbols / max(count, 1)
    bullets = ellipses = 0
    for k in range(number):
        first, last = lines.first[k], lines.last[k]
        if first < last:
            bullets += points[first] == 42 or points[first] == 45
            ellipses += points[last - 1] == 0x2026
    out[4] = bullets / max(number, 1)
    out[5] = ellipses / max(number, 1)
    out[6] = letters / max(count, 1)
    out[7] = stops
    repeats(lines.hash, lines.length, number, s.seen, s.five)
    out[8] = s.five[2] / max(number, 1)
    out[9] = s.five[3] / max(chars, 1)
    for g in range(2, 11):
        row = g - 2
        if g < 5:
            out[10 + row] = grams[row, 0] * grams[row, 1] / max(chars, 1)
        else:
            out[10 + row] = grams[row, 5] / max(grams[row, 7], 1)


@kernel
def nemo(
    points: Any, flag: Any, n: int, counts: Any, lines: Any, number: int, words: Any, count: int, grams: Any, s: Any, out: Any
) -> None:
    """All of NeMo's; `counts` are those of `segments.character_counts`. Splits the lines anew: call it last."""
    chars = letters = symbols = stops = longest = 0
    for k in range(count):
        first, length = words.start[k], words.length[k]
        chars += length
        longest = max(longest, length)
        letters += (words.kind[k] & HAS_LETTER) != 0
        symbols += _is_symbol(points, first, length)
        if length <= 4 and _begins_stop_word(points[first]):
            stops += place_of(s.stop_words, words.hash[k], 0) != 0
    out[0] = count
    out[1] = chars / count if count else 0.0
    out[2] = out[3] = symbols / count if count else 0.0
    bullets = ellipses = unmarked = total = 0
    for k in range(number):
        a, b = lines.inner_first[k], lines.inner_last[k]
        if a < b:
            total += 1
            bullets += _is_bullet(points[a])
            ellipses += _is_ellipsis_mark(points, a, b)
            point = points[b - 1]
            unmarked += not (point == 46 or point == 63 or point == 33 or point == 34 or point == 39)
    out[4] = bullets / total if total else 0.0
    out[5] = ellipses / total if total else 0.0
    out[6] = letters / count if count else 0.0
    out[7] = stops
    repeats_of_lines(lines, number, s.hashes, s.lengths, s.seen, s.five)
    out[10] = s.five[0] / total if total else 0.0
    out[11] = s.five[1] / s.five[4] if s.five[4] else 0.0
    for g in range(2, 11):
        row = g - 2
        value = 0.0 if count >= g else 1.0
        if count >= g and n:
            if g < 5:
                value = _deleted(points, n, words, int(grams[row, 8]), int(grams[row, 8]) + g - 1) / n
            else:
                value = grams[row, 6] / n
        out[12 + row] = value
    alnum = blanks = 0
    digits = s.ascii[48:58].sum()
    for p in range(128):
        if 48 <= p <= 57 or 65 <= p <= 90 or 97 <= p <= 122 or p == 10 or p == 63 or p == 33 or p == 44 or p == 46:
            alnum += s.ascii[p]
        if p == 32 or 8 <= p <= 10 or p == 13:
            blanks += s.ascii[p]
    out[21] = (n - alnum) / n if n else 0.0
    out[22] = digits / n if n else 0.0
    out[23] = _nemo_url_chars(points, n) / n if n else 0.0
    out[24] = blanks / n if n else 0.0
    out[25] = counts[10] / n if n else 0.0
    out[26] = longest
    out[28] = unmarked / total if total else 0.0
    parts = split_double_newlines(points, n, lines)
    repeats(lines.hash, lines.length, parts, s.seen, s.five)
    out[8] = s.five[0] / parts
    out[9] = s.five[1] / s.five[4] if s.five[4] else 0.0


@kernel
def redpajama(
    points: Any, flag: Any, n: int, counts: Any, lines: Any, number: int, words: Any, count: int, grams: Any, lang: int, s: Any,
    out: Any
) -> None:  # fmt: skip
    """RedPajama-v2's, `words` being its normalised ones; `out` has the document signals first, then n-grams."""
    chars = words.length[:count].sum()
    out[0] = _regex_sentences(points, flag, n)
    out[1] = count
    out[2] = chars / count if count else 0.0
    raw, without, capital, stops = _raw_words(points, flag, n, lang, s)
    out[3] = (counts[5] + counts[6]) / raw if raw else 0.0
    ellipses = marks = bullets = total = 0
    for k in range(number):
        if k == number - 1 and lines.length[k] == 0:
            break  # nothing after the last newline is no line
        total += 1
        a, b = lines.inner_first[k], lines.inner_last[k]
        if a < b:
            p, q = points[b - 1], points[a]
            ellipses += p == 0x2026 or (b - a >= 3 and p == 46 and points[b - 2] == 46 and points[b - 3] == 46)
            marks += p == 46 or p == 33 or p == 63 or p == 0x201D
            bullets += (
                q == 0x2022 or q == 0x2023 or q == 0x25B6 or q == 0x25C0 or q == 0x25E6 or q == 0x25A0 or q == 0x25A1
                or q == 0x25AA or q == 0x25AB or q == 0x2013
            )  # fmt: skip
    out[4] = ellipses / total if total else 0.0
    out[5] = without / raw if raw else 0.0
    unique, entropy = word_statistics(words.hash, count, s.seen)
    out[6] = unique / count if count else 0.0
    out[7] = entropy
    out[8] = capital / raw if raw else 0.0
    out[9] = stops / raw if raw else 0.0
    out[10] = _lorem_ipsum(words, count) / max(chars + count - 1, 1)
    out[11] = counts[9] / n if n else 0.0
    out[12] = marks / total if total else 0.0
    out[13] = bullets / total if total else 0.0
    for g in range(2, 11):
        row, value = g - 2, 0.0
        if chars and grams[row, 0] > 1:
            value = grams[row, 1] * grams[row, 0] / chars if g < 5 else grams[row, 4] / chars
        out[14 + row] = value


@kernel
def _all_copies(five: Any, total: int) -> tuple[float, float]:
    if total == 0:
        return 1.0, 1.0  # a page without a segment is dropped
    if total == 1:
        return 0.0, 0.0
    return five[2] / total, five[3] / max(five[4], 1)


@inlined
def _begins_stop_word(p: int) -> bool:
    """Whether one of Gopher's eight begins with this small letter: most short words need not be looked up."""
    return p == 116 or p == 98 or p == 111 or p == 97 or p == 104 or p == 119


@inlined
def _is_stop_word(points: Any, words: Any, k: int, lower: Any, table: Any) -> bool:
    if words.length[k] > 4 or not _begins_stop_word(points[words.start[k]] | 32):
        return False
    value = HASH_BASIS
    for i in range(words.start[k], words.start[k] + words.length[k]):
        value = (value ^ np.uint64(lower[points[i]])) * HASH_PRIME
    return place_of(table, mix(value), 0) != 0


@kernel
def _spaced_ellipses(points: Any, n: int) -> int:
    """Occurrences of ". . .", counted as `str.count` does."""
    found, after = 0, 0
    for i in range(4, n):
        dots = points[i] == 46 and i >= after + 4 and points[i - 2] == 46 and points[i - 4] == 46
        if dots and points[i - 1] == 32 and points[i - 3] == 32:
            found += 1
            after = i + 1
    return found


@kernel
def _ends_in_any_ellipsis(points: Any, a: int, b: int) -> bool:
    p = points[b - 1]
    if p == 0x2026:
        return True
    if p != 46:
        return False
    if b - a >= 3 and points[b - 2] == 46 and points[b - 3] == 46:
        return True
    return b - a >= 5 and points[b - 2] == 32 and points[b - 3] == 46 and points[b - 4] == 32 and points[b - 5] == 46


@kernel
def _median(histogram: Any, count: int) -> float:
    if count == 0:
        return 0.0
    below = 0
    low = -1
    for length in range(len(histogram)):
        below += histogram[length]
        if low < 0 and 2 * below >= count:
            low = length
            if 2 * below > count:
                return float(length)
        elif low >= 0 and histogram[length]:
            return (low + length) / 2
    return float(low)


@kernel
def _is_symbol(points: Any, first: int, length: int) -> bool:
    """Whether a word is one of the ellipsis marks, or has more runs of number signs than half its characters."""
    last = first + length
    p, q = points[first], points[last - 1]
    if length == 1 and q == 0x2026:
        return True
    if length == 2 and p == 45 and q == 0xBB:
        return True
    if length == 3 and (
        (p == 46 and points[first + 1] == 46 and q == 46) or (p == 91 and points[first + 1] == 0x2026 and q == 93)
    ):
        return True
    inside = length == 5 and points[first + 1] == 46 and points[first + 2] == 46 and points[first + 3] == 46
    if inside and ((p == 91 and q == 93) or (p == 40 and q == 41)):
        return True
    if p != 35:  # then runs are half of the characters at most
        return False
    runs = 1
    for i in range(first + 1, last):
        runs += points[i] == 35 and points[i - 1] != 35
    return 2 * runs > length


@inlined
def _is_bullet(p: int) -> bool:
    return (
        p == 0x2022 or p == 0x2023 or p == 0x2043 or p == 0x204C or p == 0x204D or p == 0x2219 or p == 0x25CB or p == 0x25CF
        or p == 0x25D8 or p == 0x25E6 or p == 0x29BE or p == 0x29BF
    )  # fmt: skip


@kernel
def _is_ellipsis_mark(points: Any, a: int, b: int) -> bool:
    """Whether the characters end in one of NeMo's marks: ... [...] U+2026 (...) [U+2026] -U+00BB, read more, read more.."""
    p = points[b - 1]
    if p == 0x2026:
        return True
    if p == 0xBB:
        return b - a >= 2 and points[b - 2] == 45
    end = b
    if p == 46:
        if b - a >= 3 and points[b - 2] == 46 and points[b - 3] == 46:
            return True
        if b - a < 2 or points[b - 2] != 46:
            return False
        end = b - 2
    elif p == 93 or p == 41:
        opening = 91 if p == 93 else 40
        if b - a >= 5 and points[b - 2] == 46 and points[b - 3] == 46 and points[b - 4] == 46 and points[b - 5] == opening:
            return True
        return p == 93 and b - a >= 3 and points[b - 2] == 0x2026 and points[b - 3] == 91
    if end - a < 9:
        return False
    for k in range(9):
        p, want = points[end - 9 + k], _READ_MORE[k]
        if p != want and (p != want - 32 or want == 32):
            return False
    return True


@kernel
def _deleted(points: Any, n: int, words: Any, a: int, b: int) -> int:
    """Characters that go when the words a..b, joined by blanks, are deleted wherever they stand (mid-word too).

    Compared character by character up to 64 of them, beyond that by a rolling hash, so that no text takes quadratic time.
    """
    starts, lengths = words.start, words.length
    length = b - a
    for k in range(a, b + 1):
        length += lengths[k]
    pattern = np.empty(length, np.int32)
    at = 0
    for k in range(a, b + 1):
        if k > a:
            pattern[at] = 32
            at += 1
        for i in range(starts[k], starts[k] + lengths[k]):
            pattern[at] = points[i]
            at += 1
    deleted = 0
    if length <= 64:
        i = 0
        while i + length <= n:
            k = 0
            while k < length and points[i + k] == pattern[k]:
                k += 1
            if k == length:
                deleted += length
                i += length
            else:
                i += 1
        return deleted
    target, value, power = np.uint64(0), np.uint64(0), np.uint64(1)
    for k in range(length):
        target = target * HASH_PRIME + np.uint64(pattern[k])
        power *= HASH_PRIME
    since = 0
    for i in range(n):
        value = value * HASH_PRIME + np.uint64(points[i])
        since += 1
        if since > length:
            value -= power * np.uint64(points[i - length])
            since = length
        if since == length and value == target:
            deleted += length
            value, since = np.uint64(0), 0
    return deleted


@kernel
def _nemo_url_chars(points: Any, n: int) -> int:
    """Characters matched by http[s]?:// and then ASCII letters, digits, $-_@.&+!*(), or percent escapes."""
    chars, i = 0, 0
    while i + 7 < n:
        if not (points[i] == 104 and points[i + 1] == 116 and points[i + 2] == 116 and points[i + 3] == 112):
            i += 1
            continue
        j = i + 4
        if points[j] == 115:
            j += 1
        if j + 2 >= n or points[j] != 58 or points[j + 1] != 47 or points[j + 2] != 47:
            i += 1
            continue
        j += 3
        begin = j
        while j < n:
            p = points[j]
            if (
                48 <= p <= 57
                or 65 <= p <= 90
                or 97 <= p <= 122
                or p == 36
                or p == 33
                or p == 38
                or p == 95
                or p == 64
                or 40 <= p <= 46
            ):
                j += 1
            elif p == 37 and j + 2 < n and _is_hex(points[j + 1]) and _is_hex(points[j + 2]):
                j += 3
            else:
                break
        if j == begin:
            i += 1
            continue
        chars += j - i
        i = j
    return chars


@inlined
def _is_hex(p: int) -> bool:
    return (48 <= p <= 57) or (65 <= p <= 70) or (97 <= p <= 102)


@kernel
def _regex_sentences(points: Any, flag: Any, n: int) -> int:
    """Matches of \\b[^.!?]+[.!?]*: they begin at an edge of a word and run to the end of the next marks."""
    found, i = 0, 0
    while i < n:
        word = (flag[i] & ALNUM) != 0 or points[i] == 95
        before = i > 0 and ((flag[i - 1] & ALNUM) != 0 or points[i - 1] == 95)
        mark = points[i] == 46 or points[i] == 33 or points[i] == 63
        if word == before or mark:
            i += 1
            continue
        found += 1
        while i < n and not (points[i] == 46 or points[i] == 33 or points[i] == 63):
            i += 1
        while i < n and (points[i] == 46 or points[i] == 33 or points[i] == 63):
            i += 1
    return found


@kernel
def _raw_words(points: Any, flag: Any, n: int, lang: int, s: Any) -> tuple[int, int, int, int]:
    """Runs of word characters and runs of others: how many, without an ASCII letter, upper case, stop words of the language."""
    raw = without = capital = stops = 0
    i = 0
    while i < n:
        if flag[i] & SPACE:
            i += 1
            continue
        word = (flag[i] & ALNUM) != 0 or points[i] == 95
        begin, ascii_letter, cased, small = i, False, False, False
        value = HASH_BASIS
        while i < n and not flag[i] & SPACE and ((flag[i] & ALNUM) != 0 or points[i] == 95) == word:
            p = points[i]
            ascii_letter |= 65 <= p <= 90 or 97 <= p <= 122
            cased |= (flag[i] & CASED) != 0
            small |= (flag[i] & CASED) != 0 and not flag[i] & UPPER
            value = (value ^ np.uint64(p)) * HASH_PRIME
            i += 1
        raw += 1
        without += not ascii_letter
        capital += cased and not small
        if lang >= 0 and word and i - begin <= LONGEST:
            stops += place_of(s.stop_words, mix(value), lang) != 0
    return raw, without, capital, stops


@kernel
def _lorem_ipsum(words: Any, count: int) -> int:
    """Occurrences of lorem and ipsum in a row among normalised words."""
    found, last = 0, False
    for k in range(count):
        hit = words.hash[k] == _LOREM
        found += last and words.hash[k] == _IPSUM
        last = hit
    return found


_READ_MORE = np.array([ord(c) for c in "read more"], np.int64)
_LOREM, _IPSUM = hash_text("lorem"), hash_text("ipsum")

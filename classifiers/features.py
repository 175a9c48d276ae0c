"""From text to rows of a table: tokens, hashed n-grams and measures of the text, read from Arrow's buffers.

The `hashed` kind folds a text (lower case, digits alike) into tokens: words, each letter of a script without blanks, runs of
other signs. Word and letter n-grams become rows by hashing (Weinberger et al., arXiv 0902.2206); a row counts once a text.
The `fasttext` kind is that of the fastText library (Joulin et al., arXiv 1607.01759) to the letter (`classifiers.words`): words
between blanks, looked up in a dictionary, and hashed n-grams. What follows is the same for both: a sum of rows.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from classifiers import scripts
from classifiers.jit import kernel

BLANK, LETTER, SOLID, SIGN, IGNORED, LINE = range(6)
LONGEST = 40  # code points of a word that are read for letter n-grams
_EDGE = 1  # stands for a word's edge among code points

# Measures of a text, each in [0, 1]
MEASURES = (
    "word length",
    "capitals",
    "digits",
    "signs",
    "solid letters",
    "lines that end a sentence",
    "short lines",
    "line length",
    "new tokens",
    "new pairs",
)


@lru_cache(maxsize=1)
def alphabet() -> tuple[np.ndarray, np.ndarray]:
    """Class (uint8) and folded form (uint16: lower case, digits as "0") of each code point of the first plane."""
    script, kind = scripts.kinds()
    unspaced = [scripts.NUMBER[name] for name in ("Hani", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt")]
    klass = np.full(65536, SIGN, np.uint8)
    klass[kind == scripts.BLANK] = BLANK
    klass[np.isin(kind, (scripts.LETTER, scripts.MARK, scripts.DIGIT))] = LETTER
    klass[np.isin(script, unspaced)] = SOLID
    klass[kind == scripts.IGNORED] = IGNORED
    klass[10] = LINE
    fold = np.arange(65536).astype(np.uint16)
    for point in np.flatnonzero(klass == LETTER).tolist():
        lower = chr(point).lower()
        fold[point] = 48 if unicodedata.category(chr(point)) == "Nd" else ord(lower[0])
    return klass, fold


def buffers(texts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes (uint8), offsets (int64, N + 1) and which are there (bool, N) of an Arrow array of strings; no text is copied.

    Takes a StringArray, LargeStringArray, ChunkedArray of these, or a sequence of str and None. Raises TypeError for others.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not isinstance(texts, pa.Array):
        texts = pa.array(texts, pa.large_string())
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"texts are {texts.type}; they must be string or large_string")
    wide = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, wide, len(texts) + 1, texts.offset * np.dtype(wide).itemsize) if len(texts) else np.zeros(1)
    found = np.frombuffer(data if data is not None and data.size else b" ", np.uint8)  # read-only, whatever is in it
    return found, at.astype(np.int64), np.asarray(texts.is_valid())


@kernel
def _mix(key: np.uint64) -> np.uint64:
    key = (key ^ (key >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    key = (key ^ (key >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return key ^ (key >> np.uint64(32))


@kernel
def _point(data: np.ndarray, i: int, end: int) -> tuple[int, int]:
    """The code point at byte `i`, 0xFFFD for one outside of the first plane or for a stray byte, and where the next begins."""
    first: Any = np.int64(data[i])
    if first < 0x80:
        return first, i + 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or i + size > end:
        return 0xFFFD, i + 1
    if size == 2:
        return (first & 0x1F) << 6 | np.int64(data[i + 1] & 0x3F), i + 2
    if size == 3:
        return (first & 0x0F) << 12 | np.int64(data[i + 1] & 0x3F) << 6 | np.int64(data[i + 2] & 0x3F), i + 3
    return 0xFFFD, i + 4


@kernel
def tokenise(
    data: np.ndarray, start: int, end: int, klass: np.ndarray, fold: np.ndarray, tokens: np.ndarray, found: np.ndarray
) -> int:
    """Hashes of the tokens of a text into `tokens` (uint64); how many. `found` (10,) gets what the measures are made of."""
    count = 0
    points = words = letters = capitals = digits = signs = solid = lines = ended = short = 0
    line_points = line_tokens = 0
    last: Any = 0  # sign that a line would end with
    open_word = False
    mark: Any = np.int64(-1)
    h: Any = np.uint64(0)
    i = start
    while i <= end:
        if i < end:
            point, following = _point(data, i, end)
        else:
            point, following = 10, end + 1
        kind = klass[point]
        if kind == IGNORED:
            i = following
            continue
        if kind == LETTER:
            if not open_word:
                open_word = True
                h = np.uint64(0xCBF29CE484222325)
                words += 1
            low = fold[point]
            h = (h ^ np.uint64(low)) * np.uint64(0x100000001B3)
            letters += 1
            digits += low == 48
            capitals += low != point and low != 48
            mark = -1
            last = 0
        else:
            if open_word:
                tokens[count] = _mix(h)
                count += 1
                line_tokens += 1
                open_word = False
            if kind == SOLID:
                tokens[count] = _mix((np.uint64(0x9AE16A3B2F90404F) ^ np.uint64(point)) * np.uint64(0x100000001B3))
                count += 1
                line_tokens += 1
                solid += 1
                last = 0
                mark = -1
            elif kind == SIGN:
                signs += 1
                last = point
                if point != mark:  # a run of one sign is one token
                    tokens[count] = _mix((np.uint64(0xC3A5C85C97CB3127) ^ np.uint64(point)) * np.uint64(0x100000001B3))
                    count += 1
                mark = point
            else:
                mark = -1
        if kind == LINE:
            if line_points:
                lines += 1
                short += line_tokens < 6
                # . ! ? : ; quotes and brackets that close, and the full-width ones
                ended += (
                    last == 46 or last == 33 or last == 63 or last == 58 or last == 34 or last == 41 or last == 0x201D
                    or last == 0x3002 or last == 0xFF01 or last == 0xFF1F or last == 0x300D or last == 0x2026
                )  # fmt: skip
            line_points = line_tokens = last = 0
        elif kind != BLANK:
            line_points += 1
            points += 1
        i = following
    found[0], found[1], found[2], found[3] = points, words, letters, capitals
    found[4], found[5], found[6], found[7] = digits, signs, solid, lines
    found[8], found[9] = ended, short
    return count


@kernel
def _hashed_ids(
    data: np.ndarray, start: int, end: int, klass: np.ndarray, fold: np.ndarray, words: int, low: int, high: int, bits: int,
    tokens: np.ndarray, found: np.ndarray, seen: np.ndarray, doc: int, ids: np.ndarray, measures: np.ndarray,
) -> int:  # fmt: skip
    """Rows of a text into `ids`, each once; how many. `seen` (2 ** bits,) holds the last text that had a row."""
    shift = np.uint64(64 - bits)
    count = tokenise(data, start, end, klass, fold, tokens, found)
    used = single = double = 0
    for i in range(count):
        h = tokens[i]
        for n in range(words):
            if n:
                if i + n >= count:
                    break
                h = _mix(h * np.uint64(0x9E3779B97F4A7C15) + tokens[i + n])
            row = np.int64(h >> shift)
            if seen[row] != doc:
                seen[row] = doc
                ids[used] = row
                used += 1
                single += n == 0
                double += n == 1
    if high > 0:
        used = _letters(data, start, end, klass, fold, low, high, shift, seen, doc, ids, used)
    points, letters, lines = max(found[0], 1.0), max(found[2], 1.0), max(found[7], 1.0)
    measures[0] = min(found[2] / max(found[1], 1.0) / 16.0, 1.0)
    measures[1] = found[3] / letters
    measures[2] = found[4] / letters
    measures[3] = found[5] / points
    measures[4] = found[6] / points
    measures[5] = found[8] / lines
    measures[6] = found[9] / lines
    measures[7] = min(np.log2(1.0 + points / lines) / 12.0, 1.0)
    measures[8] = min(single / np.sqrt(max(count, 1)) / 32.0, 1.0)
    measures[9] = min(double / np.float64(max(count - 1, 1)), 1.0)
    return used


@kernel
def _letters(
    data: np.ndarray, start: int, end: int, klass: np.ndarray, fold: np.ndarray, low: int, high: int, shift: np.uint64,
    seen: np.ndarray, doc: int, ids: np.ndarray, used: int,
) -> int:  # fmt: skip
    """Rows of the letter n-grams of words, edges included."""
    word = np.zeros(LONGEST + 2, np.uint64)
    word[0] = _EDGE
    size = 1
    i = start
    while i <= end:
        if i < end:
            point, i = _point(data, i, end)
        else:
            point, i = 10, end + 1
        kind = klass[point]
        if kind == LETTER:
            if size <= LONGEST:
                word[size] = fold[point]
                size += 1
        elif kind != IGNORED and size > 1:
            word[size] = _EDGE
            size += 1
            for a in range(size):
                h = np.uint64(0x84222325CBF29CE4)
                for n in range(1, high + 1):
                    if a + n > size:
                        break
                    h = (h ^ word[a + n - 1]) * np.uint64(0x100000001B3)
                    if n >= low:
                        row = np.int64(_mix(h) >> shift)
                        if seen[row] != doc:
                            seen[row] = doc
                            ids[used] = row
                            used += 1
            size = 1
    return used


@kernel
def add_rows(ids: np.ndarray, count: int, table: np.ndarray, into: np.ndarray) -> None:
    """Add the first `count` rows of `ids` to `into`."""
    columns = table.shape[1]
    if columns == 1:
        total = np.float64(0)
        for k in range(count):
            total += table[ids[k], 0]
        into[0] = total
        return
    for k in range(count):
        for c in range(columns):
            into[c] += table[ids[k], c]


@kernel
def hashed_sums(
    data: np.ndarray, offsets: np.ndarray, klass: np.ndarray, fold: np.ndarray, words: int, low: int, high: int, bits: int,
    limit: int, tokens: np.ndarray, seen: np.ndarray, ids: np.ndarray, table: np.ndarray,
    sums: np.ndarray, counts: np.ndarray, measures: np.ndarray,
) -> None:  # fmt: skip
    """Sums of the table's rows (N, columns), how many rows each text had (N,; 0: no token), and measures (N, MEASURES)."""
    found = np.zeros(10, np.float64)
    for doc in range(len(offsets) - 1):
        start = offsets[doc]
        end = min(offsets[doc + 1], start + limit)
        counts[doc] = _hashed_ids(
            data, start, end, klass, fold, words, low, high, bits, tokens, found, seen, doc + 1, ids, measures[doc]
        )
        add_rows(ids, counts[doc], table, sums[doc])


@kernel
def hashed_rows(
    data: np.ndarray, offsets: np.ndarray, klass: np.ndarray, fold: np.ndarray, words: int, low: int, high: int, bits: int,
    limit: int, tokens: np.ndarray, seen: np.ndarray, ids: np.ndarray, rows: np.ndarray,
    counts: np.ndarray, measures: np.ndarray,
) -> int:  # fmt: skip
    """The rows themselves, one text after the other, into `rows`; how many. Counts and measures as above."""
    found = np.zeros(10, np.float64)
    used = 0
    for doc in range(len(offsets) - 1):
        start = offsets[doc]
        end = min(offsets[doc + 1], start + limit)
        count = _hashed_ids(
            data, start, end, klass, fold, words, low, high, bits, tokens, found, seen, doc + 1, ids, measures[doc]
        )
        rows[used : used + count] = ids[:count]
        used += count
        counts[doc] = count
    return used


@kernel
def token_rows(
    data: np.ndarray, offsets: np.ndarray, klass: np.ndarray, fold: np.ndarray, limit: int, bits: int,
    tokens: np.ndarray, rows: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """The first tokens of each text as numbers of `bits` bits, (N, length), and how many there are (N,), in their order."""
    found = np.zeros(10, np.float64)
    for doc in range(len(offsets) - 1):
        start = offsets[doc]
        count = tokenise(data, start, min(offsets[doc + 1], start + limit), klass, fold, tokens, found)
        counts[doc] = min(count, rows.shape[1])
        for k in range(counts[doc]):
            rows[doc, k] = np.int32(tokens[k] >> np.uint64(64 - bits))

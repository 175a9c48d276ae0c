"""Rows of a text in a fastText model, to the letter of the library: dictionary words, word n-grams, letter n-grams.

Source: fastText 0.9.2, dictionary.cc (`getLine`, `computeSubwords`, `addWordNgrams`). A line end is a blank here, as where the
library is given a text in one line; and as there, an end-of-line word comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifiers.features import add_rows
from classifiers.jit import kernel

EOS = b"</s>"
_LOW = 0xFFFFFFFF
_MARK = tuple(b"__label__")  # words that begin so are labels and say nothing


@dataclass(frozen=True)
class Dictionary:
    """W words and the rows of hashed n-grams behind them."""

    slots: np.ndarray  # int32: hash table of word numbers, -1 for none; a power of 2
    hashes: np.ndarray  # uint32 (W,)
    starts: np.ndarray  # int64 (W + 1,): where each word begins in
    letters: np.ndarray  # uint8: the words one after the other
    buckets: int  # rows of hashed n-grams, 0 for none
    moved: np.ndarray  # int32: where a bucket's row is in a pruned model, -1 for nowhere; (0,) if each is in its place
    longest: int  # words of a word n-gram
    low: int  # letters of the shortest letter n-gram
    high: int  # and of the longest; 0 for none

    def find(self, word: bytes) -> int:
        """The number of a word, -1 for none."""
        data = np.frombuffer(word or b" ", np.uint8)
        return int(_find(data, 0, len(word), word_hash(data, 0, len(word)), self.slots, self.hashes, self.starts, self.letters))


def dictionary(words: Sequence[bytes], buckets: int, moved: np.ndarray, longest: int, low: int, high: int) -> Dictionary:
    """The dictionary of words in their order; each is there once."""
    letters = np.frombuffer(b"".join(words) or b" ", np.uint8)
    starts = np.concatenate([[0], np.cumsum([len(word) for word in words], dtype=np.int64)]).astype(np.int64)
    slots, hashes = np.full(1 << max(2 * len(words), 2).bit_length(), -1, np.int32), np.zeros(len(words), np.uint32)
    _fill(letters, starts, slots, hashes)
    return Dictionary(slots, hashes, starts, letters, buckets, moved, longest, low, high)


def most_rows(model: Dictionary, lengths: np.ndarray) -> np.ndarray:
    """How many rows texts of so many bytes have at most, int64 (N,)."""
    grams = model.high - model.low + 1 if model.high else 0
    rows: np.ndarray = (lengths // 2 + 2) * model.longest + (2 * lengths + 8) * grams
    return rows


def room(model: Dictionary, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for rows, hashes of words and one word with its edges, of the longest of texts of so many bytes (N,)."""
    longest = int(lengths.max(initial=0))
    rows = int(most_rows(model, np.array([longest]))[0])
    return np.empty(rows, np.int64), np.empty(longest // 2 + 2, np.uint64), np.empty(longest + 2, np.uint8)


@kernel
def word_hash(data: np.ndarray, start: int, end: int) -> int:
    """The 32-bit FNV-1a of fastText, which takes bytes for signed."""
    h = np.uint64(2166136261)
    for i in range(start, end):
        byte = np.uint64(data[i])
        if byte > 127:
            byte |= np.uint64(0xFFFFFF00)
        h = ((h ^ byte) * np.uint64(16777619)) & np.uint64(_LOW)
    found: Any = np.int64(h)
    return int(found)


@kernel
def _fill(letters: np.ndarray, starts: np.ndarray, slots: np.ndarray, hashes: np.ndarray) -> None:
    for w in range(len(starts) - 1):
        h = word_hash(letters, starts[w], starts[w + 1])
        hashes[w] = h
        at = h & (len(slots) - 1)
        while slots[at] >= 0:
            at = (at + 1) & (len(slots) - 1)
        slots[at] = w


@kernel
def _find(
    data: np.ndarray,
    start: int,
    end: int,
    h: int,
    slots: np.ndarray,
    hashes: np.ndarray,
    starts: np.ndarray,
    letters: np.ndarray,
) -> int:
    at = h & (len(slots) - 1)
    while slots[at] >= 0:
        word: Any = slots[at]
        begin = starts[word]
        if np.int64(hashes[word]) == h and starts[word + 1] - begin == end - start:
            same = True
            for k in range(end - start):
                same = same and letters[begin + k] == data[start + k]
            if same:
                return int(word)
        at = (at + 1) & (len(slots) - 1)
    return -1


@kernel
def _row(h: np.uint64, buckets: int, moved: np.ndarray, words: int) -> int:
    at: Any = np.int64(h % np.uint64(buckets))
    if len(moved):
        at = np.int64(moved[at])
        if at < 0:
            return -1
    return int(words + at)


@kernel
def _letter_rows(
    word: np.ndarray, size: int, low: int, high: int, buckets: int, moved: np.ndarray, words: int, ids: np.ndarray, used: int
) -> int:
    """Rows of the letter n-grams of a word with its edges."""
    for i in range(size):
        if word[i] & 0xC0 == 0x80:
            continue
        h = np.uint64(2166136261)
        j = i
        for n in range(1, high + 1):
            if j >= size:
                break
            while True:
                byte = np.uint64(word[j])
                if byte > 127:
                    byte |= np.uint64(0xFFFFFF00)
                h = ((h ^ byte) * np.uint64(16777619)) & np.uint64(_LOW)
                j += 1
                if j >= size or word[j] & 0xC0 != 0x80:
                    break
            if n >= low and not (n == 1 and (i == 0 or j == size)):
                row = _row(h, buckets, moved, words)
                if row >= 0:
                    ids[used] = row
                    used += 1
    return used


@kernel
def text_rows(
    data: np.ndarray, start: int, end: int, slots: np.ndarray, hashes: np.ndarray, starts: np.ndarray, letters: np.ndarray,
    buckets: int, moved: np.ndarray, longest: int, low: int, high: int, eos: int, eos_hash: int,
    ids: np.ndarray, tokens: np.ndarray, word: np.ndarray,
) -> int:  # fmt: skip
    """Rows of a text into `ids`; how many, 0 for a text without a word. `eos`: number of the end-of-line word, -1 for none."""
    words = len(starts) - 1
    used = count = 0
    i = start
    while i < end:
        while i < end and (data[i] == 32 or 9 <= data[i] <= 13 or data[i] == 0):
            i += 1
        begin = i
        while i < end and not (data[i] == 32 or 9 <= data[i] <= 13 or data[i] == 0):
            i += 1
        if i == begin:
            break
        h = word_hash(data, begin, i)
        if h == eos_hash and i - begin == 4 and data[begin] == 60 and data[begin + 1] == 47:
            break  # "</s>" in the text ends it, as in the library
        marked = i - begin >= len(_MARK)
        if marked:
            for k in range(len(_MARK)):
                marked = marked and data[begin + k] == _MARK[k]
        if marked:
            continue
        found = _find(data, begin, i, h, slots, hashes, starts, letters)
        if found >= 0:
            ids[used] = found
            used += 1
        if high > 0 and buckets > 0:
            size = i - begin + 2
            word[0] = 60
            word[1 : size - 1] = data[begin:i]
            word[size - 1] = 62
            used = _letter_rows(word, size, low, high, buckets, moved, words, ids, used)
        tokens[count] = np.uint64(h) if h < 2147483648 else np.uint64(h) | np.uint64(0xFFFFFFFF00000000)
        count += 1
    if count == 0:
        return 0
    if eos >= 0:
        ids[used] = eos
        used += 1
    tokens[count] = np.uint64(eos_hash) if eos_hash < 2147483648 else np.uint64(eos_hash) | np.uint64(0xFFFFFFFF00000000)
    count += 1
    if buckets > 0:
        for a in range(count):
            h64 = tokens[a]
            for b in range(a + 1, min(count, a + longest)):
                h64 = h64 * np.uint64(116049371) + tokens[b]
                row = _row(h64, buckets, moved, words)
                if row >= 0:
                    ids[used] = row
                    used += 1
    return used


@kernel
def word_sums(
    data: np.ndarray, offsets: np.ndarray, slots: np.ndarray, hashes: np.ndarray, starts: np.ndarray, letters: np.ndarray,
    buckets: int, moved: np.ndarray, longest: int, low: int, high: int, eos: int, eos_hash: int,
    ids: np.ndarray, tokens: np.ndarray, word: np.ndarray, table: np.ndarray, sums: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Sums of the table's rows (N, columns), and how many rows each text has (N,)."""
    for doc in range(len(offsets) - 1):
        counts[doc] = text_rows(
            data, offsets[doc], offsets[doc + 1], slots, hashes, starts, letters, buckets, moved, longest, low, high, eos,
            eos_hash, ids, tokens, word,
        )  # fmt: skip
        add_rows(ids, counts[doc], table, sums[doc])


@kernel
def word_rows(
    data: np.ndarray, offsets: np.ndarray, slots: np.ndarray, hashes: np.ndarray, starts: np.ndarray, letters: np.ndarray,
    buckets: int, moved: np.ndarray, longest: int, low: int, high: int, eos: int, eos_hash: int,
    ids: np.ndarray, tokens: np.ndarray, word: np.ndarray, rows: np.ndarray, counts: np.ndarray,
) -> int:  # fmt: skip
    """The rows themselves, one text after the other, into `rows`; how many."""
    used = 0
    for doc in range(len(offsets) - 1):
        count = text_rows(
            data, offsets[doc], offsets[doc + 1], slots, hashes, starts, letters, buckets, moved, longest, low, high, eos,
            eos_hash, ids, tokens, word,
        )  # fmt: skip
        rows[used : used + count] = ids[:count]
        used += count
        counts[doc] = count
    return used

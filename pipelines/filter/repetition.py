"""Repeated lines, paragraphs and word n-grams (Gopher, arXiv 2112.11446, table A1) as datatrove 0.10.1 reads them.

Repeats are counted after the first copy. The top n-gram is the most frequent one (the first of equals), its characters those of
the n words with single blanks between. Duplicate n-grams are found from left to right: a repeat adds its characters without
blanks and jumps n words, so spans do not overlap. All are divided by the characters of the text, blanks included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

TOP_NGRAMS = (2, 3, 4)
DUP_NGRAMS = (5, 6, 7, 8, 9, 10)
_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd; products and sums are taken modulo 2**64


def duplicates(segments: Iterable[str]) -> tuple[int, int]:
    """Repeats after the first copy, and their characters."""
    seen: set[str] = set()
    count = chars = 0
    for segment in segments:
        if segment in seen:
            count += 1
            chars += len(segment)
        else:
            seen.add(segment)
    return count, chars


def segment_repetition(text: str) -> dict[str, float]:
    """Shares of duplicate paragraphs and lines. Paragraphs come from the stripped text, lines from the text as it is."""
    paragraphs, lines = _PARAGRAPHS.split(text.strip()), _LINES.split(text)
    dup_paragraphs, paragraph_chars = duplicates(paragraphs)
    dup_lines, line_chars = duplicates(lines)
    size = max(len(text), 1)
    return {
        "dup_paragraph_ratio": dup_paragraphs / len(paragraphs),
        "dup_paragraph_char_ratio": paragraph_chars / size,
        "dup_line_ratio": dup_lines / len(lines),
        "dup_line_char_ratio": line_chars / size,
    }


def ngram_repetition(tokens: Sequence[str], chars: int, step: int = 1) -> dict[str, float]:
    """Shares of characters in the top 2- to 4-gram and in duplicate 5- to 10-grams, over `chars`.

    An n-gram is n * step tokens. n-grams are compared by a 64-bit hash.
    """
    result = {f"top_{n}gram_char_ratio": 0.0 for n in TOP_NGRAMS} | {f"dup_{n}gram_char_ratio": 0.0 for n in DUP_NGRAMS}
    if not tokens or not chars:
        return result
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(token, len(numbers)) for token in tokens), np.uint64, len(tokens))
    ends = np.concatenate([[0], np.cumsum(np.fromiter(map(len, tokens), np.int64, len(tokens)))])
    hashes: npt.NDArray[np.uint64] = ids + np.uint64(1)
    width = 1
    for n in (*TOP_NGRAMS, *DUP_NGRAMS):
        if len(tokens) < n * step:
            break
        while width < n * step:
            hashes = hashes[:-1] * _MULTIPLIER + ids[width:] + np.uint64(1)
            hashes ^= hashes >> np.uint64(29)
            width += 1
        lengths = ends[width:] - ends[:-width]
        _, first, inverse, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
        if n in TOP_NGRAMS:
            top = int(first[counts == counts.max()].min())
            blanks = n - 1
            result[f"top_{n}gram_char_ratio"] = (int(lengths[top]) + blanks) * int(counts.max()) / chars
        elif len(counts) == len(hashes):
            break  # no n-gram occurs twice, so none longer does
        else:
            result[f"dup_{n}gram_char_ratio"] = _scan(inverse, first, lengths, width) / chars
    return result


def _scan(groups: npt.NDArray[np.intp], first: npt.NDArray[np.intp], lengths: npt.NDArray[np.int64], width: int) -> int:
    """Characters of repeated n-grams, scanned from left to right with jumps over repeats."""
    start = int(np.argmax(first[groups] != np.arange(len(groups))))  # before the first repeat every n-gram is new
    seen = set(groups[:start].tolist())
    numbers, sizes = groups.tolist(), lengths.tolist()
    total, at = 0, start
    while at < len(numbers):
        if numbers[at] in seen:
            total += sizes[at]
            at += width
        else:
            seen.add(numbers[at])
            at += 1
    return total

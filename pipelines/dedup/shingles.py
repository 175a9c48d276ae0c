"""Hashed n-gram sets of texts, and their exact Jaccard similarity: what "near duplicate" means here.

A text is normalised (NFKC, lower case) and cut into units: words (`\\w+`), or single word characters where more than 30 % of
its characters belong to scripts written without blanks. A shingle is the 64-bit hash of `ngram` consecutive units. A text of
fewer units gives one shingle, the hash of all of them, so that two short texts are alike only where they are equal; a text
without units gives none, and is like nothing.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes: TypeAlias = npt.NDArray[np.uint64]

UNSPACED_SHARE = 0.30
# Thai, Lao, Hangul, kana, CJK ideographs with their extensions and compatibility forms (after NFKC no half-width form is left)
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1100, 0x11FF), (0x3000, 0x30FF), (0x3130, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
_WORD, _BARE, _UNDERSCORE = 1, 2, 1 | 4
_CHUNK = 1 << 20  # characters hashed at a time: the working arrays are about 60 bytes a character

# Odd multipliers for polynomials modulo 2**64 (golden ratio; Steele and Vigna 2021, "Computationally easy, spectrally good
# multipliers"); the finaliser is MurmurHash3's fmix64.
_UNIT = np.uint64(0xD1342543DE82EF95)
_GRAM = np.uint64(0x9E3779B97F4A7C15)
_SALT = np.uint64(0xAF251AF3B0F025B5)


def mix64(x: Hashes) -> Hashes:
    """MurmurHash3's 64-bit finaliser, element by element: a bijection in which every input bit moves every output bit."""
    x = x ^ (x >> np.uint64(33))
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    x ^= x >> np.uint64(33)
    return x


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """For each code point: bit 0 = matched by `\\w`, bit 1 = of a script written without blanks. Shape (0x110000,)."""
    table = np.frombuffer(bytes(map(str.isalnum, map(chr, range(0x110000)))), np.uint8).copy()
    table[ord("_")] = _UNDERSCORE
    for first, last in _UNSPACED:
        table[first : last + 1] |= _BARE
    return table


def normalise(text: str) -> str:
    """NFKC, then lower case."""
    return unicodedata.normalize("NFKC", text).lower()


def shingles(texts: pa.Array, ngram: int) -> list[Hashes]:
    """The hashed shingles of each text in order, repeats included; an empty array for a null or a text without units.

    `texts`: string or large_string of shape (rows,). Raises ValueError for `ngram` under 1.
    """
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; it counts units, so at least 1")
    result: list[Hashes] = []
    group: list[str] = []
    size = 0
    for text in texts.to_pylist():
        group.append(normalise(text or ""))
        size += len(group[-1])
        if size >= _CHUNK:
            result += _hash_group(group, ngram)
            group, size = [], 0
    return result + _hash_group(group, ngram) if group else result


def shingle_sets(texts: pa.Array, ngram: int) -> list[Hashes]:
    """The distinct shingles of each text, ascending."""
    return [np.unique(s) for s in shingles(texts, ngram)]


def jaccard(a: Hashes, b: Hashes) -> float:
    """|a and b| / |a or b| of two ascending arrays of distinct shingles; 0 where either is empty."""
    if not len(a) or not len(b):
        return 0.0
    both = np.concatenate((a, b))
    both.sort(kind="stable")  # a merge: each half is a run already
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(a) + len(b) - shared)


def _hash_group(texts: list[str], ngram: int) -> list[Hashes]:
    # C characters of all texts with one separator each, D texts, W word characters, U units
    text_D = np.array([len(t) + 1 for t in texts])
    chars_C = np.frombuffer(("\n".join(texts) + "\n").encode("utf-32-le"), np.uint32)
    class_C = _classes()[chars_C]
    first_D = np.cumsum(text_D) - text_D
    bare_D = np.add.reduceat((class_C & _BARE) > 0, first_D, dtype=np.int64) > UNSPACED_SHARE * np.maximum(text_D - 1, 1)
    word_C = (class_C & _WORD) > 0
    start_C = word_C.copy()
    start_C[1:] &= ~word_C[:-1]
    for first, length in zip(first_D[bare_D], text_D[bare_D], strict=True):
        of_text = slice(first, first + length)
        word_C[of_text] &= class_C[of_text] != _UNDERSCORE
        start_C[of_text] = word_C[of_text]
    units_D = np.add.reduceat(start_C, first_D, dtype=np.int64)
    units_U = _hash_units(chars_C[word_C], start_C[word_C])
    grams_U = _hash_grams(units_U, units_D, ngram)
    last_D = np.cumsum(units_D)
    keep_D = np.maximum(units_D - ngram + 1, np.minimum(units_D, 1))
    return [grams_U[last - units : last - units + keep] for last, units, keep in zip(last_D, units_D, keep_D, strict=True)]


def _hash_units(chars_W: npt.NDArray[np.uint32], start_W: npt.NDArray[np.bool_]) -> Hashes:
    """A polynomial of the unit's mixed code points. Shape (U,)."""
    if not len(chars_W):
        return np.empty(0, np.uint64)
    starts_U = np.flatnonzero(start_W)
    length_U = np.diff(starts_U, append=len(chars_W))
    place_W = np.arange(len(chars_W)) - np.repeat(starts_U, length_U)
    powers = np.cumprod(np.full(int(length_U.max()), _UNIT))
    return mix64(np.add.reduceat(mix64(chars_W + _SALT) * powers[place_W], starts_U))


def _hash_grams(units_U: Hashes, units_D: npt.NDArray[np.int64], ngram: int) -> Hashes:
    """The hash of the units i .. i+ngram-1 of the same text; where the text ends sooner, of what is left of it. Shape (U,)."""
    left_U = np.repeat(np.cumsum(units_D), units_D) - np.arange(len(units_U))
    grams_U = units_U * _GRAM
    for k in range(1, min(ngram, len(units_U))):
        factor = np.uint64(pow(int(_GRAM), k + 1, 1 << 64))
        grams_U[:-k] += np.where(left_U[:-k] > k, units_U[k:] * factor, np.uint64(0))
    return mix64(grams_U)

"""A batch of texts in one pass: units, n-grams of them, and for signatures the least value of each under every permutation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.dedup.kernels.folding import folding
from pipelines.dedup.kernels.units import MOST, begin, fill, is_ascii, mix64, survey
from pipelines.kernel import borrowed, kernel

UNSPACED_SHARE = 0.30
AUTO, WORDS, CHARACTERS = 0, 1, 2  # which units: words or characters as the text's scripts are, or always the one
PYTHON = -2  # a row that Python must fold first
_BLOCK = 1024  # units at a time: they and their n-grams stay in the first-level cache
_LANES = 64  # hashes are padded to a multiple of this, so that the loop over them has no rest
_GRAM = np.uint64(0x9E3779B97F4A7C15)  # odd; the n-gram is a polynomial in it modulo 2**64


class Scratch(NamedTuple):
    """What a text needs while it is read."""

    units: npt.NDArray[np.uint64]
    grams: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint32]
    state: npt.NDArray[np.uint64]


def scratch(ngram: int) -> Scratch:
    """Buffers for n-grams of `ngram` units."""
    size = ngram + _BLOCK + MOST
    return Scratch(
        np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size + _LANES, np.uint32), np.empty(3, np.uint64)
    )


def survey_batch(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], unit: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
    """For each text: WORDS, CHARACTERS or PYTHON; and a bound of the number of its shingles."""
    units, most = np.empty(len(offsets) - 1, np.int8), np.empty(len(offsets) - 1, np.int64)
    _survey(data, offsets, unit, False, folding(), units, most)
    return units, most


def survey_folded(data: npt.NDArray[np.uint8], unit: int) -> tuple[int, int]:
    """The same for one text that `folding.normalise` has folded."""
    units, most = np.empty(1, np.int8), np.empty(1, np.int64)
    _survey(data, np.array([0, len(data)]), unit, True, folding(), units, most)
    return int(units[0]), int(most[0])


@kernel
def _survey(data: Any, offsets: Any, unit: int, folded: bool, folding: Any, units: Any, most: Any) -> None:
    for row in range(len(units)):
        first, last = offsets[row], offsets[row + 1]
        if is_ascii(data, first, last):
            chars, unspaced = last - first, 0
        else:
            chars, unspaced = survey(data, first, last, folding, folded)
        if chars < 0:
            units[row], most[row] = PYTHON, 0
        elif unit == CHARACTERS or (unit == AUTO and unspaced > UNSPACED_SHARE * chars):
            units[row], most[row] = CHARACTERS, chars
        else:
            units[row], most[row] = WORDS, (chars + 1) // 2


@kernel
def _grams(units: Any, n: int, ngram: int, out: Any, place: int) -> int:
    """Hash the n-grams of units[:n] (of all of them, where they are fewer) to out[place:]; returns the place after them."""
    leave = np.uint64(1)
    for _ in range(ngram):
        leave *= _GRAM
    value = np.uint64(0)
    for k in range(min(ngram, n)):
        value = value * _GRAM + units[k]
    out[place] = mix64(value)
    place += 1
    for k in range(ngram, n):
        value = value * _GRAM + units[k] - units[k - ngram] * leave
        out[place] = mix64(value)
        place += 1
    return place


@kernel
def _least(low: Any, n: int, factors: Any, terms: Any, out: Any) -> None:
    """out = min(out, least of factor * value + term modulo 2**32 over low[:n]); low[n:] has _LANES places to spare."""
    full = (n + _LANES - 1) // _LANES * _LANES
    for k in range(n, full):
        low[k] = low[n - 1]
    for p in range(len(out)):
        factor, term, least = factors[p], terms[p], out[p]
        for k in range(full):
            least = min(least, np.uint32(factor * low[k] + term))
        out[p] = least


def least_of(
    values: npt.NDArray[np.uint32], factors: npt.NDArray[np.uint32], terms: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]
) -> None:
    """out = least of factor * mixed + term modulo 2**32 over values, mixed by MurmurHash3's 32-bit finaliser."""
    low = np.empty(len(values) + _LANES, np.uint32)
    low[: len(values)] = values
    low ^= low >> np.uint32(16)
    low *= np.uint32(0x85EBCA6B)
    low ^= low >> np.uint32(13)
    low *= np.uint32(0xC2B2AE35)
    low ^= low >> np.uint32(16)
    _least(low, len(values), factors, terms, out)


@kernel
def sign_batch(
    data: Any, offsets: Any, units: Any, ngram: int, factors: Any, terms: Any, folding: Any, scratch: Any, out: Any
) -> None:
    """Signatures, out (rows, permutations), of the texts that need no folding by Python; out must be filled with ones."""
    data = borrowed(data)
    for row in range(len(units)):
        if units[row] == PYTHON:
            continue
        i, last, n, any_gram = offsets[row], offsets[row + 1], 0, False
        begin(scratch.state)
        while i < last:
            i, n = fill(data, i, last, units[row] == CHARACTERS, folding, scratch.units, n, scratch.state)
            if n >= ngram or (i >= last and n > 0 and not any_gram):
                number = _grams(scratch.units, n, ngram, scratch.grams, 0)
                for k in range(number):
                    scratch.low[k] = np.uint32(scratch.grams[k])
                _least(scratch.low, number, factors, terms, out[row])
                any_gram = True
                n = _carry(scratch.units, n, ngram)


@kernel
def shingle_batch(data: Any, offsets: Any, units: Any, ngram: int, folding: Any, scratch: Any, out: Any, ends: Any) -> int:
    """The shingles of the texts that need no folding by Python, one after the other; ends[row] is where a row's are over."""
    data = borrowed(data)
    place = 0
    for row in range(len(units)):
        if units[row] != PYTHON:
            i, last, n, any_gram = offsets[row], offsets[row + 1], 0, False
            begin(scratch.state)
            while i < last:
                i, n = fill(data, i, last, units[row] == CHARACTERS, folding, scratch.units, n, scratch.state)
                if n >= ngram or (i >= last and n > 0 and not any_gram):
                    place = _grams(scratch.units, n, ngram, out, place)
                    any_gram = True
                    n = _carry(scratch.units, n, ngram)
        ends[row] = place
    return place


@kernel
def _carry(units: Any, n: int, ngram: int) -> int:
    """Move the units that later n-grams begin with to the front; returns how many."""
    keep = min(n, ngram - 1)
    for k in range(keep):
        units[k] = units[n - keep + k]
    return keep

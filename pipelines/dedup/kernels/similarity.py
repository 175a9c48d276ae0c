"""What two sets, or two sketches, share; bucket keys; distinct values."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.dedup.kernels.units import mix64
from pipelines.kernel import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOOK = 64  # steps between two looks at what can still be reached


@kernel
def shared_until(a: Any, b: Any, threshold: float) -> int:
    """The common values of two ascending arrays of distinct values; -1 as soon as the Jaccard similarity cannot reach it."""
    i, j, shared, size_a, size_b = 0, 0, 0, len(a), len(b)
    while i < size_a and j < size_b:
        reach = shared + min(size_a - i, size_b - j)
        if reach / (size_a + size_b - reach) < threshold:  # the division that `jaccard` makes, to the last bit
            return -1
        for _ in range(min(_LOOK, size_a - i, size_b - j)):  # a step takes at most one of each
            x, y = a[i], b[j]
            shared += x == y
            i += x <= y
            j += y <= x
    return shared


@kernel
def equal_shares(a: Any, b: Any, out: Any) -> None:
    """out[row] = the share of equal values of a[row] and b[row]."""
    width = a.shape[1]
    for row in range(len(a)):
        equal = np.int32(0)
        for k in range(width):
            equal += np.int32(a[row, k] == b[row, k])
        out[row] = equal / width


@kernel
def band_keys(signature: Any, rows: int, out: Any) -> None:
    """out[row, band] = a hash of the band's number and its values."""
    for row in range(len(signature)):
        for band in range(out.shape[1]):
            key = np.uint64(band + 1)
            for k in range(band * rows, band * rows + rows):
                key = mix64(key * _GOLDEN + np.uint64(signature[row, k]))
            out[row, band] = key


@kernel
def distinct(values: Any, ends: Any) -> None:
    """Drop repeats from each ascending row values[ends[row - 1]:ends[row]], in place; ends then are the new ones."""
    place = first = 0
    for row in range(len(ends)):
        begin = place
        for k in range(first, ends[row]):
            if place == begin or values[k] != values[place - 1]:
                values[place] = values[k]
                place += 1
        first, ends[row] = ends[row], place


@kernel
def least_legacy(hashes: Any, factors: Any, terms: Any, out: Any) -> None:
    """out[p] = least of the low 32 bits of (factor * hash + term modulo 2**64) modulo the Mersenne prime 2**61 - 1."""
    prime = np.uint64((1 << 61) - 1)
    for p in range(len(out)):
        least = np.uint32(0xFFFFFFFF)
        for k in range(len(hashes)):
            value = factors[p] * hashes[k] + terms[p]
            value = (value & prime) + (value >> np.uint64(61))
            value = value - prime if value >= prime else value
            least = min(least, np.uint32(value))
        out[p] = least

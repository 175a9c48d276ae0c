"""MinHash signatures and their LSH band keys (Broder 1997; Leskovec et al., Mining of Massive Datasets, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasketch import MinHash

from pipelines.dedup.shingles import Hashes, mix64, shingles

Signatures: TypeAlias = npt.NDArray[np.uint32]

NO_SHINGLES = np.uint32(0xFFFFFFFF)  # every value of the signature of a text without shingles
_ROWS = 2048  # shingles permuted at a time: (2048, 112) values of 4 bytes stay in the cache


@dataclass(frozen=True)
class MinhashConfig:
    """Two texts of Jaccard s share a band with probability 1 - (1 - s**rows)**bands: .772 at .75, .924 at .8, .988 at .85.

    The defaults are FineWeb's (Penedo et al. 2024, section 3.4): 14 bands of 8 rows over 5-grams.
    """

    bands: int = 14
    rows: int = 8
    ngram: int = 5  # words, or characters in scripts without blanks (see shingles.py)
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("bands", "rows", "ngram"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}; it must be in 0 .. 2**32-1")


def hit_probability(jaccard: float, cfg: MinhashConfig) -> float:
    """The chance that two texts of this Jaccard similarity share at least one band."""
    return float(1 - (1 - jaccard**cfg.rows) ** cfg.bands)


def signatures(texts: pa.Array, cfg: MinhashConfig) -> Signatures:
    """MinHash signatures of shape (rows, bands * cfg.rows); all NO_SHINGLES for a text without shingles.

    The permutations are datasketch's scheme "affine32" over the low 32 bits of the shingles.
    """
    blank = MinHash(cfg.bands * cfg.rows, seed=cfg.seed, scheme="affine32", hashfunc=_same)
    result = np.empty((len(texts), cfg.bands * cfg.rows), np.uint32)
    for row, hashes in enumerate(shingles(texts, cfg.ngram)):
        result[row] = _signature(hashes, blank)
    return result


def bands(signature: Signatures, cfg: MinhashConfig) -> npt.NDArray[np.int64]:
    """Bucket keys of shape (rows, bands): a hash of the band's number and its values, so keys of two bands do not meet."""
    parts = signature.reshape(len(signature), cfg.bands, cfg.rows).astype(np.uint64)
    keys = np.broadcast_to(np.arange(1, cfg.bands + 1, dtype=np.uint64), parts.shape[:2])
    for k in range(cfg.rows):
        keys = mix64(keys * np.uint64(0x9E3779B97F4A7C15) + parts[:, :, k])
    return keys.view(np.int64)


def _signature(hashes: Hashes, blank: MinHash) -> Signatures:
    sketch = blank.copy()
    low = hashes.astype(np.uint32)  # the low 32 bits
    for start in range(0, len(low), _ROWS):
        # one "value" that is an array: datasketch then hashes and permutes the whole array in NumPy
        sketch.update_batch([low[start : start + _ROWS]])
    return np.asarray(sketch.hashvalues, np.uint32)


def _same(value: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return value

"""MinHash signatures and their LSH band keys (Broder 1997; Leskovec et al., Mining of Massive Datasets, section 3.4)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.kernels.documents import PYTHON, least_of, scratch, sign_batch, survey_batch, survey_folded
from pipelines.dedup.kernels.folding import folding
from pipelines.dedup.kernels.similarity import band_keys, equal_shares, least_legacy
from pipelines.dedup.settings import setting
from pipelines.dedup.shingles import UNITS, Unit, buffers, folded_bytes, shingle_texts

Signatures: TypeAlias = npt.NDArray[np.uint32]
Sketches: TypeAlias = npt.NDArray[np.uint8]

NO_SHINGLES = np.uint32(0xFFFFFFFF)  # every value of the signature of a text without shingles
SCHEMES = {"headrace": "", "datasketch": "affine32", "datasketch-legacy": "legacy"}  # and what datasketch calls them
_CHANCE = 1 / 256  # two different values have the same low byte


@dataclass(frozen=True)
class MinhashConfig:
    """Two texts of Jaccard s share a band with probability 1 - (1 - s**rows)**bands: .772 at .75, .924 at .8, .988 at .85.

    The defaults are FineWeb's (Penedo et al. 2024, section 3.4): 14 bands of 8 rows over 5-grams; `unit` says of what (see
    shingles.py). `scheme`: "headrace" is fast; "datasketch" gives the values of `datasketch.MinHash(num_perm, seed)` since
    its version 2.0, "datasketch-legacy" those of versions 1.1.3 to 1.x, for indexes made with them. Raises ValueError.
    """

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    unit: Unit = "auto"
    seed: int = 1
    scheme: Literal["headrace", "datasketch", "datasketch-legacy"] = "headrace"

    def __post_init__(self) -> None:
        for name in ("bands", "rows", "ngram"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}; it must be in 0 .. 2**32-1")
        for name, known in (("unit", UNITS), ("scheme", SCHEMES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")

    @classmethod
    def named(cls, name: str) -> MinhashConfig:
        """A published setting (settings.py) by its name or by bands x rows. Raises ValueError that lists the known ones."""
        found = setting(name)
        return cls(found.bands, found.rows, found.ngram, found.unit)

    @classmethod
    def for_threshold(
        cls,
        threshold: float,
        permutations: int = 128,
        false_positive_weight: float = 0.5,
        false_negative_weight: float = 0.5,
    ) -> MinhashConfig:
        """Bands and rows of at most `permutations` values with the least weighted error at `threshold`, by datasketch.

        The error is the area under the curve left of the threshold and over it right of it. Raises ValueError for a threshold
        outside 0 .. 1 and for weights that do not add up to 1.
        """
        from datasketch import MinHashLSH  # a third of a second to load, and not needed in workers

        found = MinHashLSH(threshold, permutations, weights=(false_positive_weight, false_negative_weight))
        return cls(found.b, found.r)


def hit_probability(jaccard: float, cfg: MinhashConfig) -> float:
    """The chance that two texts of this Jaccard similarity share at least one band."""
    return float(1 - (1 - jaccard**cfg.rows) ** cfg.bands)


def signatures(texts: pa.Array, cfg: MinhashConfig) -> Signatures:
    """MinHash signatures of shape (rows, bands * cfg.rows); all NO_SHINGLES for a text without shingles.

    `texts`: string or large_string. "headrace": value k is the least of a[k] * h + b[k] modulo 2**32 over the low 32 bits h of
    the shingles, a[k] odd. datasketch's schemes: as if its MinHash were updated with each of `shingles.shingle_texts` in
    UTF-8. Memory: the signatures, and a constant ("headrace") or the shingles of one text.
    """
    result = np.full((len(texts), cfg.bands * cfg.rows), NO_SHINGLES)
    if cfg.scheme != "headrace":
        for row, text in enumerate(texts):
            _sign_as_datasketch(text.as_py(), cfg, result[row])
        return result
    data, offsets = buffers(texts)
    factors, terms = _permutations(result.shape[1], cfg.seed)
    work = scratch(cfg.ngram)
    kinds, _ = survey_batch(data, offsets, UNITS[cfg.unit])
    sign_batch(data, offsets, kinds, cfg.ngram, factors, terms, folding(), work, result)
    for row in np.flatnonzero(kinds == PYTHON).tolist():
        folded = folded_bytes(data[offsets[row] : offsets[row + 1]])
        kind = np.array([survey_folded(folded, UNITS[cfg.unit])[0]], np.int8)
        where = np.array([0, len(folded)])
        sign_batch(folded, where, kind, cfg.ngram, factors, terms, folding(), work, result[row : row + 1])
    return result


def has_shingles(signature: Signatures) -> npt.NDArray[np.bool_]:
    """Which rows have a signature: texts without shingles are like nothing, so leave them out before you compare band keys."""
    return np.asarray((signature != NO_SHINGLES).any(axis=1))


def bands(signature: Signatures, cfg: MinhashConfig) -> npt.NDArray[np.int64]:
    """Bucket keys of shape (rows, bands): a hash of the band's number and its values, so keys of two bands do not meet.

    All texts without shingles have the same keys: `has_shingles` says which ones they are.
    """
    keys = np.empty((len(signature), cfg.bands), np.uint64)
    band_keys(signature, cfg.rows, keys)
    return keys.view(np.int64)


def sketch(signature: Signatures) -> Sketches:
    """The low byte of each value, shape (rows, values): b-bit minwise hashing with b = 8 (Li and Koenig 2010)."""
    return signature.astype(np.uint8)


def estimate(a: Sketches, b: Sketches) -> npt.NDArray[np.float64]:
    """Jaccard similarity of a[row] and b[row] by their sketches, shape (rows,): the share of equal bytes less what chance adds.

    The standard error is at most .5 / sqrt(values): .047 for 112. Holds for texts of up to some millions of shingles: beyond,
    least values come near 0 and their low bytes are no longer spread evenly.
    """
    shares = np.empty(len(a))
    equal_shares(a, b, shares)
    return np.maximum((shares - _CHANCE) / (1 - _CHANCE), 0.0)


@lru_cache(maxsize=8)
def _permutations(number: int, seed: int) -> tuple[Signatures, Signatures]:
    """Odd factors and terms, drawn by SplitMix64 (Steele, Lea and Flood 2014); fewer are the first of more."""
    drawn = []
    for k in range(1, 2 * number + 1):
        x = (seed << 32) + k * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        drawn.append((x ^ x >> 31) >> 32)
    values = np.array(drawn, np.uint32)
    return values[::2] | np.uint32(1), values[1::2].copy()


@lru_cache(maxsize=8)
def _datasketch_permutations(number: int, seed: int, scheme: str) -> tuple[Any, Any]:
    from datasketch import MinHash

    factors, terms = MinHash(number, seed, scheme=scheme).permutations
    return np.ascontiguousarray(factors), np.ascontiguousarray(terms)


def _sign_as_datasketch(text: str | None, cfg: MinhashConfig, out: Signatures) -> None:
    grams = set(shingle_texts(text, cfg.ngram, cfg.unit))
    if not grams:
        return
    hashes = np.frombuffer(b"".join(hashlib.sha1(gram.encode()).digest()[:4] for gram in grams), "<u4")
    factors, terms = _datasketch_permutations(len(out), cfg.seed, SCHEMES[cfg.scheme])
    if cfg.scheme == "datasketch":
        least_of(hashes, factors, terms, out)
    else:
        least_legacy(hashes.astype(np.uint64), factors, terms, out)

"""Hashed n-gram sets of texts, and their exact Jaccard similarity: what "near duplicate" means here.

A text is normalised (NFKC, lower case) and cut into units: words (`\\w+`), or single word characters where more than 30 % of
its characters belong to scripts written without blanks. A shingle is the 64-bit hash of `ngram` consecutive units. A text of
fewer units gives one shingle, the hash of all of them, so that two short texts are alike only where they are equal; a text
without units gives none, and is like nothing. Bytes that are no UTF-8 count as U+FFFD, as in Python's decoding with "replace".

`unit` "word" or "char" takes the one or the other for every text; "auto" is the above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.kernels.documents import (
    AUTO,
    CHARACTERS,
    PYTHON,
    UNSPACED_SHARE,
    WORDS,
    scratch,
    shingle_batch,
    survey_batch,
    survey_folded,
)
from pipelines.dedup.kernels.folding import UNSPACED_RANGES, folding, normalise
from pipelines.dedup.kernels.similarity import distinct, shared_until
from pipelines.filter.kernels.phrases import text_buffers

Hashes: TypeAlias = npt.NDArray[np.uint64]
Unit: TypeAlias = Literal["auto", "word", "char"]

UNITS: dict[str, int] = {"auto": AUTO, "word": WORDS, "char": CHARACTERS}
_GROUP = 1 << 21  # shingles hashed at a time, but for a text that has more
_PIECE, _BLANK = 1 << 20, re.compile(rb"[ \n]")  # bytes folded by Python at a time
_WORD, _CHARACTER = re.compile(r"\w+"), re.compile(r"[^\W_]")
_UNSPACED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_RANGES) + "]")


def shingles(texts: pa.Array, ngram: int, unit: Unit = "auto") -> list[Hashes]:
    """The hashed shingles of each text in order, repeats included; an empty array for a null or a text without units.

    `texts`: string or large_string of shape (rows,). Raises ValueError for `ngram` under 1 and an unknown `unit`. Memory:
    8 bytes a shingle, and as much again while a group of texts is worked on.
    """
    return [hashes for values, ends in _groups(texts, ngram, unit) for hashes in _split(values, ends)]


def shingle_sets(texts: pa.Array, ngram: int, unit: Unit = "auto") -> list[Hashes]:
    """The distinct shingles of each text, ascending."""
    result: list[Hashes] = []
    for values, ends in _groups(texts, ngram, unit):
        for hashes in _split(values, ends):
            hashes.sort()
        distinct(values, ends)
        result += _split(values[: ends[-1]].copy(), ends)
    return result


def jaccard(a: Hashes, b: Hashes) -> float:
    """|a and b| / |a or b| of two ascending arrays of distinct shingles; 0 where either is empty."""
    return _share(shared_until(a, b, 0.0), a, b)


def jaccard_at_least(a: Hashes, b: Hashes, threshold: float) -> float:
    """`jaccard(a, b)` where it is at least `threshold`, else 0: given up as soon as that much is out of reach."""
    value = _share(shared_until(a, b, threshold), a, b)
    return value if value >= threshold else 0.0


def containment(a: Hashes, b: Hashes) -> float:
    """|a and b| / min(|a|, |b|) of two ascending arrays of distinct shingles; 0 where either is empty."""
    return shared_until(a, b, 0.0) / min(len(a), len(b)) if len(a) and len(b) else 0.0


def shingle_texts(text: str | None, ngram: int, unit: Unit = "auto") -> list[str]:
    """What the shingles are hashes of, in order: the units joined by one blank, characters by nothing. In plain Python."""
    _check(ngram, unit)
    text = normalise(text or "")
    single = unit == "char" or (unit == "auto" and len(_UNSPACED.findall(text)) > UNSPACED_SHARE * len(text))
    units, between = (_CHARACTER.findall(text), "") if single else (_WORD.findall(text), " ")
    return [between.join(units[i : i + ngram]) for i in range(max(len(units) - ngram + 1, min(len(units), 1)))]


def buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The bytes of texts, and the offsets (rows + 1,); a null is an empty text."""
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string())
    return text_buffers(texts)


def folded_bytes(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The bytes of one text, folded by Python: what the kernels read where characters interact or bytes are broken.

    A piece at a time, which bounds memory: nothing composes with a blank, and no sigma is judged by what lies beyond one.
    """
    raw, folded, first = data.tobytes(), bytearray(), 0
    while first < len(raw):
        blank = _BLANK.search(raw, first + _PIECE)
        last = blank.end() if blank else len(raw)
        folded += normalise(raw[first:last].decode("utf-8", "replace")).encode()
        first = last
    return np.frombuffer(memoryview(folded).toreadonly(), np.uint8)


def _check(ngram: int, unit: str) -> None:
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; it counts units, so at least 1")
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}; it must be one of {', '.join(UNITS)}")


def _share(shared: int, a: Hashes, b: Hashes) -> float:
    return shared / (len(a) + len(b) - shared) if shared > 0 else 0.0


def _split(values: Hashes, ends: npt.NDArray[np.int64]) -> list[Hashes]:
    bounds = [0, *ends.tolist()]
    return [values[first:last] for first, last in pairwise(bounds)]


def _groups(texts: pa.Array, ngram: int, unit: Unit) -> Iterator[tuple[Hashes, npt.NDArray[np.int64]]]:
    """Shingles of some texts after the other in one array, and where each text's are over."""
    _check(ngram, unit)
    data, offsets = buffers(texts)
    units, most = survey_batch(data, offsets, UNITS[unit])
    work = scratch(ngram)
    group_of_row = np.cumsum(most) // _GROUP
    python = np.flatnonzero(units == PYTHON)
    # a text that Python folds is a group of its own
    cuts = np.union1d(np.flatnonzero(np.diff(group_of_row)) + 1, np.concatenate((python, python + 1, [0, len(units)])))
    for first, last in pairwise(cuts.tolist()):
        part, where, bound = units[first:last], offsets[first : last + 1], int(most[first:last].sum())
        source = data
        if part[0] == PYTHON:
            source = folded_bytes(data[where[0] : where[1]])
            where = np.array([0, len(source)])
            kind, bound = survey_folded(source, UNITS[unit])
            part = np.array([kind], np.int8)
        values, ends = np.empty(bound, np.uint64), np.empty(last - first, np.int64)
        size = shingle_batch(source, where, part, ngram, folding(), work, values, ends)
        yield values[:size].copy(), ends

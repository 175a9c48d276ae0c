"""A sample that holds similar documents together: those whose least shingle hash falls into one class of many (pure: no Spark).

A plain sample of one in M documents holds one in M^2 of the pairs. Here the class of a document is that of its least shingle
under a hash that the bands of the index do not use, and two documents of Jaccard similarity s have the same least shingle
with probability s (Broder 1997): the pair is in the sample with probability s/M + (1 - s)/M^2, found by the index or not.

One pass, without knowing the corpus: the number of classes is doubled whenever what is held passes a bound, as in the
distinct sampling of Gibbons (2001). What is left depends on the documents alone, not on their order or partitioning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.kernels.units import mix64
from pipelines.dedup.shingles import Hashes, Unit, shingles
from pipelines.kernel import kernel

# What is asked of a document besides its text; `duplicate_of` and `drop_value` are null where it was kept.
COLUMNS = ("doc_id", "source", "url", "lang", "text", "duplicate_of", "drop_value")
# `value`: the least shingle hash; `members`: their sum over the rows of a value is the number of documents that have it;
# `classes`: how many there are. A row without doc_id only tells `classes`.
SAMPLE = pa.schema(
    [
        ("value", pa.int64()),
        ("members", pa.int64()),
        ("classes", pa.int64()),
        ("doc_id", pa.binary()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("lang", pa.string()),
        ("text", pa.string()),
        ("duplicate_of", pa.binary()),
        ("drop_value", pa.float64()),
    ]
)
_SALT = np.uint64(0x5851F42D4C957F2D)
NONE = np.uint64(0xFFFFFFFFFFFFFFFF)  # the least hash of a text without shingles


@dataclass(frozen=True)
class Bounds:
    """Of what a sample holds: documents, bytes of text, bytes of one text (longer ones have no part in it), and of documents
    with one least shingle (of more, those with the least doc_id, which is a hash)."""

    documents: int = 20_000
    bytes: int = 64 << 20
    longest: int = 1 << 20
    alike: int = 40

    def __post_init__(self) -> None:
        if self.documents < 0 or min(self.longest, self.alike) < 1 or self.bytes < self.alike * self.longest:
            raise ValueError(f"{self} holds nothing: each must be positive, and bytes at least alike x longest")


@dataclass
class _Value:
    """The documents of one least shingle: how many there are, and the first of them by doc_id."""

    members: int
    rows: list[tuple[bytes, tuple[Any, ...], int]]  # doc_id, row, bytes of text


class Sampler:
    """Holds the documents of the classes that are still asked for."""

    def __init__(self, bounds: Bounds, classes: int = 1) -> None:
        """`classes`: a power of two to begin with."""
        if classes < 1 or classes & (classes - 1):
            raise ValueError(f"classes is {classes}; it must be a power of two")
        self.bounds, self.classes = bounds, classes
        self._values: dict[int, _Value] = {}
        self._documents = self._bytes = 0

    def add(self, value: int, members: int, row: tuple[Any, ...]) -> None:
        """Take a row (of COLUMNS) into account, once; `members` as in SAMPLE.

        Its class is given by the low bits of `value`: that it is the least of many says something of the high ones only.
        """
        if value & (self.classes - 1):
            return
        size = len(row[_TEXT].encode("utf-8", "surrogatepass"))
        held = self._values.setdefault(value, _Value(0, []))
        held.members += members
        held.rows.append((row[_ID], row, size))
        self._documents, self._bytes = self._documents + 1, self._bytes + size
        if len(held.rows) > self.bounds.alike:
            greatest = max(held.rows)
            held.rows.remove(greatest)
            self._documents, self._bytes = self._documents - 1, self._bytes - greatest[2]
        while self._documents > self.bounds.documents or self._bytes > self.bounds.bytes:
            self.thin(2 * self.classes)

    def thin(self, classes: int) -> None:
        """So many classes (a greater power of two), and only what is in the first of them."""
        self.classes = classes
        self._values = {v: held for v, held in self._values.items() if not v & (self.classes - 1)}
        rows = [row for held in self._values.values() for row in held.rows]
        self._documents, self._bytes = len(rows), sum(size for _, _, size in rows)

    def table(self) -> pa.Table:
        """The sample (schema SAMPLE), by value and doc_id; `members` of a value's first row only, 0 in the others."""
        columns: list[list[Any]] = [[] for _ in SAMPLE]
        for value, held in sorted(self._values.items()):
            for index, (_, row, _) in enumerate(sorted(held.rows)):
                for column, cell in zip(columns, (value, 0 if index else held.members, self.classes, *row), strict=True):
                    column.append(cell)
        return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SAMPLE, strict=True)], schema=SAMPLE)


_ID, _TEXT = COLUMNS.index("doc_id"), COLUMNS.index("text")


def sampled(
    batches: Iterable[pa.RecordBatch], bounds: Bounds, ngram: int, unit: Unit = "auto", classes: int = 1
) -> Iterator[pa.RecordBatch]:
    """The sample of documents (columns COLUMNS) as rows of SAMPLE, the first of which tells the number of classes."""
    sampler = Sampler(bounds, classes)
    for batch in batches:
        batch = batch.select(COLUMNS)
        batch = batch.filter(pc.less_equal(pc.binary_length(batch["text"]), bounds.longest))
        values = least_shingles(shingles(batch["text"], ngram, unit))
        chosen = np.flatnonzero((values != NONE) & (values & np.uint64(sampler.classes - 1) == 0))
        rows = batch.take(pa.array(chosen)).to_pylist()
        for value, row in zip(values[chosen].view(np.int64).tolist(), rows, strict=True):
            sampler.add(value, 1, tuple(row.values()))
    yield from _told(sampler)


def merged(batches: Iterable[pa.RecordBatch], bounds: Bounds) -> Iterator[pa.RecordBatch]:
    """Samples of parts of a corpus (rows of SAMPLE, in any order) to that of the whole."""
    sampler = Sampler(bounds)
    for batch in batches:
        if batch.num_rows and (most := pc.max(batch["classes"]).as_py()) > sampler.classes:
            sampler.thin(most)
        for row in batch.to_pylist():
            if row["doc_id"] is not None:
                sampler.add(row["value"], row["members"], tuple(row[name] for name in COLUMNS))
    yield from _told(sampler)


def least_shingles(texts: Sequence[Hashes]) -> npt.NDArray[np.uint64]:
    """The least hash of each text's shingles, NONE for a text without any. Shape (texts,)."""
    ends = np.cumsum([len(t) for t in texts], dtype=np.int64)
    flat = np.concatenate(texts) if len(texts) else np.empty(0, np.uint64)
    least = np.empty(len(ends), np.uint64)
    _least(flat, ends, least)
    return least


def _told(sampler: Sampler) -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pylist([{"classes": sampler.classes}], SAMPLE)
    yield from sampler.table().to_batches(max_chunksize=1000)


@kernel
def _least(flat: Hashes, ends: npt.NDArray[np.int64], least: npt.NDArray[np.uint64]) -> None:
    start = 0
    for row in range(len(ends)):
        best = NONE
        for i in range(start, ends[row]):
            best = min(best, mix64(flat[i] ^ _SALT))
        least[row] = best
        start = ends[row]

"""Counts of 64-bit hashes over a corpus, without a row of Spark a hash: they travel packed, thousands in a row.

    entries of a partition -> sorted, equal ones merged -> a row a bucket | shuffle by bucket | merged again -> who is frequent

A bucket is the top bits of the hash. A task holds the entries of its partition up to a bound, and then of one bucket (but for
small ones together): the distinct hashes of a corpus over BUCKETS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.kernel import kernel

# (n, width) int64: the hash; then numbers that are added up; of a width of 4 the last is a mark of which the least is kept
Entries: TypeAlias = npt.NDArray[np.int64]
Bits: TypeAlias = npt.NDArray[np.uint8]

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_HELD = 1 << 21  # entries that a task collects before it merges and sends them
_TOGETHER = 64 << 20  # bytes of small buckets that are merged at once


def packed_counts(rows: DataFrame, entries: Callable[[pa.RecordBatch], Entries], width: int) -> DataFrame:
    """The entries of all rows, merged within partitions: columns `bucket` (int) and `data` (int64 entries of that width)."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[Entries] = []
        number = 0
        for batch in batches:
            held.append(entries(batch))
            number += len(held[-1])
            if number >= _HELD:
                merged = merge(np.concatenate(held))
                held, number = [merged], len(merged)
                if number >= _HELD // 2:  # merging does not help: send them
                    yield _pack(merged)
                    held, number = [], 0
        if held:
            yield _pack(merge(np.concatenate(held)))

    return rows.mapInArrow(work, "bucket int, data binary")


def over_buckets(packed: DataFrame, width: int, made: Callable[[Entries], pa.RecordBatch], schema: str) -> DataFrame:
    """What `made` gives of the merged entries of one or several whole buckets, ascending by hash."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_groups(batches, "bucket", _TOGETHER):
            yield made(merge(_unpack(group.column("data"), width)))

    return packed.repartition("bucket").sortWithinPartitions("bucket").mapInArrow(work, schema)


def bitmaps(packed: DataFrame, width: int, wanted: list[Callable[[Entries], npt.NDArray[np.bool_]]], bits: int) -> list[Bits]:
    """For each of `wanted` 2**bits bits, the top `bits` bits of each hash wanted set: filters that may say yes wrongly.

    Each bucket makes its own part, so that the driver gets at most 2**bits / 8 bytes for each, whatever the corpus.
    """
    shift = bits - BUCKET_BITS

    def slices(entries: Entries) -> pa.RecordBatch:
        made = [_slices(entries[choose(entries)], bits, number) for number, choose in enumerate(wanted)]
        return concat(made)

    results = [np.zeros((BUCKETS, (1 << shift) >> 3), np.uint8) for _ in wanted]
    found = over_buckets(packed, width, slices, "bitmap int, bucket int, data binary").toArrow()
    for batch in found.to_batches():
        parts = values(batch.column("data"), np.uint8).reshape(batch.num_rows, -1)
        for number, result in enumerate(results):
            own = batch.column("bitmap").to_numpy() == number
            result[batch.column("bucket").to_numpy()[own]] = parts[own]
    return [result.ravel() for result in results]


def _slices(entries: Entries, bits: int, number: int) -> pa.RecordBatch:
    shift = bits - BUCKET_BITS
    place = np.unique(entries[:, 0].view(np.uint64) >> np.uint64(64 - bits))
    buckets, index = np.unique(place >> np.uint64(shift), return_inverse=True)
    parts = np.zeros((len(buckets), (1 << shift) >> 3), np.uint8)
    inner = (place & np.uint64((1 << shift) - 1)).astype(np.int64)
    np.bitwise_or.at(parts, (index, inner >> 3), (1 << (inner & 7)).astype(np.uint8))
    ends = np.arange(len(buckets) + 1) * parts.shape[1]
    columns = [pa.array([number] * len(buckets), pa.int32()), pa.array(buckets.astype(np.int32)), blobs(parts, ends)]
    return pa.RecordBatch.from_arrays(columns, ["bitmap", "bucket", "data"])


def bits_for(entries: int, most: int) -> int:
    """Bits of a bitmap in which so many hashes fill a sixteenth, within bounds."""
    return min(max((16 * entries).bit_length(), BUCKET_BITS + 3), most)


def entries_of(packed: DataFrame, width: int) -> int:
    """How many entries are packed in all."""
    row = packed.agg(F.sum(F.length("data"))).head()
    return int(row[0] or 0) // (8 * width) if row is not None else 0


@kernel
def is_set(bits: Any, shift: Any, key: Any) -> bool:
    """Whether the bit of a hash is set; `shift` is 64 less the bits of the bitmap."""
    place = np.uint64(key) >> np.uint64(shift)
    return (bits[place >> np.uint64(3)] >> (place & np.uint64(7))) & 1 != 0  # type: ignore[no-any-return]


def merge(entries: Entries) -> Entries:
    """Ascending by unsigned hash, each once."""
    if not len(entries):
        return entries
    keys = entries[:, 0].view(np.uint64)
    entries = entries[np.argsort(keys, kind="stable")]
    starts = np.flatnonzero(np.concatenate(([True], entries[1:, 0] != entries[:-1, 0])))
    if len(starts) == len(entries):
        return entries
    merged = np.add.reduceat(entries, starts, axis=0)
    merged[:, 0] = entries[starts, 0]
    if entries.shape[1] == 4:
        merged[:, 3] = np.minimum.reduceat(entries[:, 3], starts)
    return merged


def whole_groups(batches: Iterator[pa.RecordBatch], column: str, most: int = 0) -> Iterator[pa.RecordBatch]:
    """The rows in batches that end where a value of `column`, by which they are grouped, ends; `most` bytes or some more."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        size += batch.nbytes
        if size < most:
            continue
        key = batch.column(column)[-1]
        begin = pc.index(batch.column(column), key).as_py()  # of the group that may go on in the next batch
        done = [*held[:-1], batch.slice(0, begin)] if begin else held[:-1]
        if done and done[-1].column(column)[-1] != key:
            yield concat(done)
            held = [batch.slice(begin)]
            size = held[0].nbytes
    if held:
        yield concat(held)


def concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of several of one schema."""
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays([b.column(i) for b in batches]) for i in range(batches[0].num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def blobs(data: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> pa.Array:
    """A binary array of pieces of the bytes of `data`; `ends`, (rows + 1,), are byte offsets, under 2 GiB."""
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data).view(np.uint8).ravel())]
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, buffers)


def values(column: pa.Array, kind: Any) -> npt.NDArray[Any]:
    """The bytes of all values of a binary column without nulls in a row, read as `kind`."""
    _, offsets, data = column.buffers()
    wide = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    ends = np.frombuffer(offsets, wide)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]].view(kind)


def _unpack(column: pa.Array, width: int) -> Entries:
    # the bytes may lie anywhere: a copy is aligned
    return np.frombuffer(values(column, np.uint8).tobytes(), np.int64).reshape(-1, width)


def _pack(entries: Entries) -> pa.RecordBatch:
    bucket = (entries[:, 0].view(np.uint64) >> np.uint64(64 - BUCKET_BITS)).astype(np.int32)
    starts = np.flatnonzero(np.concatenate(([True], bucket[1:] != bucket[:-1]))) if len(entries) else np.zeros(0, np.int64)
    ends = np.append(starts, len(entries)) * (8 * entries.shape[1])
    return pa.RecordBatch.from_arrays([pa.array(bucket[starts]), blobs(entries, ends)], ["bucket", "data"])

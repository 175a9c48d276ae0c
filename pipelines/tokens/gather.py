"""The runs of a source to one shard: its rows are found in each run, brought into order and copied, a record batch at a time.

A task holds the places of a shard's rows (41 bytes each), a record batch, and `GROUP_ROWS` rows of provenance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dedup.counting import concat
from pipelines.shards import ShardFile, published, shard_path, shard_schema, write_batches
from pipelines.shards.write import BATCH_TOKENS
from pipelines.tokens.runs import Places, Run, by_block, keys, places, read_run

GROUP_ROWS = 1 << 15  # a row group of provenance
LAST_KEY = 2**64 - 1

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """Which documents of a source and split lie in a file: places in [low, high), of them keyed hashes in [first, last].

    `size`: of their ids in bytes, about. `high`: b"" for no bound. `window`: so many rows in a row are shuffled by the hash;
    0: they lie by place.
    """

    source: str
    split: str
    index: int
    size: int
    low: bytes
    high: bytes = b""
    first: int = 0
    last: int = LAST_KEY
    window: int = 0


def write_from_runs(shard: Shard, runs: tuple[Run, ...], folder: str, root: str, dtype: str) -> ShardFile | None:
    """Write a shard and its provenance; None if no row is in it. A retry writes the same files again."""
    batches, rows = [], []
    for run in runs:
        batch = read_run(folder, run)
        if len(chosen := _chosen(places(batch), shard)):
            batches.append(batch)
            rows.append(chosen)
    if not batches:
        return None
    names = batches[0].schema.names
    schema = batches[0].drop_columns([n for n in ("place", "tokens", "roles") if n in names]).schema
    name = shard_path(shard.source, shard.split, shard.index)
    empty = ShardFile(name, shard.source, shard.split, 0, 0, "")
    with published(Path(root) / empty.provenance_path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        made = _in_order(batches, rows, shard.window, np.dtype(dtype).itemsize)
        ids = (_shard_batch(batch, dtype) for batch in _beside(made, writer))
        written = write_batches(root, shard.source, shard.split, shard.index, ids, shard_schema(dtype, "roles" in names))
    return replace(written, provenance=file.sha256)


def _chosen(found: Places, shard: Shard) -> Numbers:
    """The rows of a run that lie in the shard."""
    low, high = np.searchsorted(found, np.array([shard.low, shard.high], found.dtype))
    rows = np.arange(low, high if shard.high else len(found))
    if (shard.first, shard.last) == (0, LAST_KEY):
        return rows
    hashes = keys(found[rows])
    return rows[(hashes >= shard.first) & (hashes <= shard.last)]


def _in_order(batches: list[pa.RecordBatch], rows: list[Numbers], window: int, width: int) -> Iterator[pa.RecordBatch]:
    """The chosen rows of all runs in the order of the shard, in batches that close with the row that reaches BATCH_TOKENS."""
    found = np.concatenate([places(batch)[chosen] for batch, chosen in zip(batches, rows, strict=True)])
    order = np.argsort(found, kind="stable")
    if window:
        blocks = np.empty(len(order), np.int64)
        blocks[order] = np.arange(len(order)) // window
        order = np.argsort(by_block(found, blocks), kind="stable")
    run_of = np.repeat(np.arange(len(batches)), [len(r) for r in rows])[order]
    sizes = np.concatenate([np.diff(_offsets(b.column("tokens")))[r] for b, r in zip(batches, rows, strict=True)])[order]
    row_of, ends = np.concatenate(rows)[order], np.cumsum(sizes // width)
    start, before = 0, 0
    while start < len(order):
        stop = int(np.searchsorted(ends, before + BATCH_TOKENS)) + 1
        yield _gathered(batches, run_of[start:stop], row_of[start:stop])
        start, before = stop, int(ends[min(stop, len(ends)) - 1])


def _gathered(batches: list[pa.RecordBatch], run_of: Numbers, row_of: Numbers) -> pa.RecordBatch:
    """Row `row_of[i]` of the batch `run_of[i]`, for each i."""
    by_run = np.argsort(run_of, kind="stable")
    pieces = []
    for part in np.split(by_run, np.flatnonzero(np.diff(run_of[by_run])) + 1):
        batch, rows = batches[run_of[part[0]]], row_of[part]
        one_run = (np.diff(rows) == 1).all()
        pieces.append(batch.slice(rows[0], len(rows)) if one_run else batch.take(pa.array(rows)))
    back = np.empty_like(by_run)
    back[by_run] = np.arange(len(by_run))
    return concat(pieces).take(pa.array(back))


def _beside(batches: Iterator[pa.RecordBatch], writer: pq.ParquetWriter) -> Iterator[pa.RecordBatch]:
    """The same batches, when their provenance has gone to the writer, GROUP_ROWS rows or some more at once."""
    names, held = writer.schema.names, list[pa.RecordBatch]()
    for batch in batches:
        held.append(batch.select(names))
        if sum(b.num_rows for b in held) >= GROUP_ROWS:
            writer.write_batch(concat(held))
            held.clear()
        yield batch
    if held:
        writer.write_batch(concat(held))


def _shard_batch(batch: pa.RecordBatch, dtype: str) -> pa.RecordBatch:
    """doc_id, tokens and, where they are, roles as a shard has them, without a copy of the ids."""
    schema = shard_schema(dtype, "roles" in batch.schema.names)
    lists = [_list(batch.column(name), kind) for name, kind in zip(schema.names[1:], (dtype, "uint8"), strict=False)]
    return pa.RecordBatch.from_arrays([batch.column("doc_id"), *lists], schema=schema)


def _list(column: pa.Array, dtype: str) -> pa.ListArray[Any]:
    """The bytes of a large_binary column that begins with its buffer, as lists of numbers."""
    kind = np.dtype(dtype).newbyteorder("<")
    offsets = pa.array((_offsets(column) // kind.itemsize).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.frombuffer(column.buffers()[2], kind)[: offsets[-1].as_py()]))


def _offsets(column: pa.Array) -> Numbers:
    """Where the values of a large_binary column begin and end, in bytes; shape (rows + 1,)."""
    return np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]

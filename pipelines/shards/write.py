"""A shard file, written whole or not at all: part of `pipelines.shards`."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pipelines.shards.manifest import ShardError, ShardFile, temporary_name
from pipelines.shards.stream import Array, cumulative, shard_schema

BATCH_TOKENS = 1 << 20  # a record batch closes with the document that reaches this
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def shard_path(source: str, split: str, index: int) -> str:
    """Where a shard lies below the root. Raises ShardError on a name that is no plain folder name."""
    for name in (source, split):
        if not _NAME.fullmatch(name):
            raise ShardError(
                f"{name!r} cannot name a shard: use letters, digits, '.', '_' and '-', not starting with '.' or '-'"
            )
    return f"{source}/{split}-{index:05d}.arrow"


def write_shard(
    root: str | Path,
    source: str,
    split: str,
    index: int,
    doc_ids: Iterable[bytes],
    tokens: Iterable[Sequence[int] | Array],
    dtype: str,
    roles: Iterable[Sequence[int] | Array] | None = None,
) -> ShardFile:
    """Write one file: to a temporary name, fsync, rename. The same rows give the same bytes; both iterables are streamed.

    Rows are written in the order given. Memory: one record batch (`BATCH_TOKENS` and one document).
    Raises ShardError on an empty document, a doc_id that has not 16 bytes, an id that does not fit `dtype`.
    """
    schema = shard_schema(dtype, roles is not None)
    batches = _batches(shard_path(source, split, index), doc_ids, tokens, roles, schema)
    return write_batches(root, source, split, index, batches, schema)


def write_batches(
    root: str | Path, source: str, split: str, index: int, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> ShardFile:
    """Write one file of record batches of `shard_schema`, as they are: to a temporary name, fsync, rename."""
    rows = total = 0
    path = Path(root) / (name := shard_path(source, split, index))
    with published(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
            column: Any = batch.column("tokens")
            total += len(column.values)
    return ShardFile(name, source, split, rows, total, file.sha256)


class Hashed:
    """A file to write to, and the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.closed = file, hashlib.sha256(), False

    def write(self, data: Any) -> int:
        """Any object with a buffer."""
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """For what writes through this: nothing is held back here."""

    def close(self) -> None:
        """For what writes through this: the file is closed by who opened it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """Hex digits."""
        return self._hash.hexdigest()


@contextmanager
def published(path: Path) -> Iterator[Hashed]:
    """A file that lies at `path` when the block has ended well, and nothing if it has not: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield Hashed(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _batches(
    name: str,
    doc_ids: Iterable[bytes],
    tokens: Iterable[Sequence[int] | Array],
    roles: Iterable[Sequence[int] | Array] | None,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    kind = np.dtype(schema.field("tokens").type.value_type.to_pandas_dtype())
    rows: list[tuple[Any, ...]] = []
    pending = 0
    columns = (doc_ids, tokens) if roles is None else (doc_ids, tokens, roles)
    for number, (doc_id, ids, *marks) in enumerate(zip(*columns, strict=True)):
        array = np.asarray(ids)
        if len(doc_id) != 16 or not array.size or any(len(m) != array.size for m in marks):
            raise ShardError(
                f"{name} row {number}: a doc_id of {len(doc_id)} bytes and {array.size} tokens; must be 16, and 1 or more"
            )
        if array.dtype != kind and (int(array.min()) < 0 or int(array.max()) > np.iinfo(kind).max):
            raise ShardError(f"{name} row {number}: ids from {array.min()} to {array.max()} do not fit {kind.name}")
        rows.append((doc_id, array.astype(kind, copy=False), *(np.asarray(m, np.uint8) for m in marks)))
        pending += array.size
        if pending >= BATCH_TOKENS:
            yield _batch(rows, schema)
            rows, pending = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    doc_ids, *lists = zip(*rows, strict=True)
    columns: list[Any] = [pa.array(doc_ids, pa.binary())]
    for column, kind in zip(lists, schema.types[1:], strict=True):
        offsets: Any = pa.array(np.array(cumulative(map(len, column)), np.int32))
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(column))).cast(kind))
    return pa.RecordBatch.from_arrays(columns, schema=schema)

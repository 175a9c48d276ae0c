"""The shard format: documents as token ids in Arrow IPC files under one manifest; to write, check and read by position.

    ROOT/<source>/<split>-00000.arrow   one row a document: doc_id, tokens (+ roles); memory-mappable, uncompressed
    ROOT/manifest.json                  written last: what it does not list does not exist

Within a source and split the rows lie in the order of `order_key(seed, doc_id)`, so one shuffle at write time serves every
reader, and a source is an immutable token stream: files in manifest order, rows in order, each document ending in eos.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.manifest import (
    MANIFEST,
    VERSION,
    Manifest,
    ShardError,
    ShardFile,
    is_validation,
    order_key,
    read_manifest,
    temporary_name,
    write_atomic,
    write_manifest,
)

__all__ = [
    "MANIFEST",
    "VERSION",
    "Manifest",
    "ShardError",
    "ShardFile",
    "Shards",
    "Span",
    "TokenStream",
    "is_validation",
    "order_key",
    "read_manifest",
    "shard_path",
    "shard_schema",
    "verify",
    "write_atomic",
    "write_manifest",
    "write_shard",
]

DTYPES = {"uint16": pa.uint16(), "uint32": pa.uint32()}
BATCH_TOKENS = 1 << 20  # a record batch closes with the document that reaches this
OPEN_FILES = 64  # memory maps a stream holds at once
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

Array = npt.NDArray[Any]


def shard_schema(dtype: str, roles: bool = False) -> pa.Schema:
    """The Arrow schema of a shard. `doc_id` is plain binary (16 bytes): the type that every reader of the field knows."""
    columns = [("doc_id", pa.binary()), ("tokens", pa.list_(DTYPES[dtype]))]
    return pa.schema(columns + ([("roles", pa.list_(pa.uint8()))] if roles else []))


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
    path = Path(root) / (name := shard_path(source, split, index))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    rows = total = 0
    schema = shard_schema(dtype, roles is not None)
    try:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in _batches(name, doc_ids, tokens, roles, schema):
                writer.write_batch(batch)
                rows += batch.num_rows
                column: Any = batch.column("tokens")
                total += len(column.values)
        with temporary.open("rb") as raw:
            os.fsync(raw.fileno())
            sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return ShardFile(name, source, split, rows, total, sha256)


def verify(root: str | Path) -> Manifest:
    """Read and check every byte against the manifest; returns it. Raises ShardError with one line a bad file."""
    manifest = read_manifest(root)
    if manifest.dtype not in DTYPES or not 0 <= manifest.eos_id < manifest.vocab_size <= np.iinfo(manifest.dtype).max + 1:
        raise ShardError(
            f"{root}/{MANIFEST}: dtype {manifest.dtype!r}, vocab_size {manifest.vocab_size} and eos_id {manifest.eos_id} "
            "do not go together; write the shards again"
        )
    problems: list[str] = []
    last: dict[tuple[str, str], tuple[int, bytes]] = {}
    for file in manifest.files:
        try:
            _check(Path(root) / file.path, file, manifest, last)
        except ShardError as error:
            problems.append(str(error))
    if problems:
        count = f"{len(problems)} of {len(manifest.files)} shard files are bad; delete them and run the recipe again"
        raise ShardError("\n  ".join([count, *problems]))
    return manifest


def _check(path: Path, file: ShardFile, manifest: Manifest, last: dict[tuple[str, str], tuple[int, bytes]]) -> None:
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    if digest != file.sha256:
        raise ShardError(f"{path}: sha256 is {digest}, the manifest says {file.sha256}")
    for batch in _Shard(path, file, manifest.dtype).batches:
        if (top := int(batch.tokens.max())) >= manifest.vocab_size:
            raise ShardError(f"{path}: holds id {top}, the vocabulary has {manifest.vocab_size}")
        if (bad := np.flatnonzero(batch.tokens[batch.offsets[1:] - 1] != manifest.eos_id)).size:
            raise ShardError(f"{path}: row {batch.first_row + int(bad[0])} does not end in eos ({manifest.eos_id})")
        ids: list[Any] = batch.doc_ids.to_pylist()
        for row, doc_id in enumerate(ids if manifest.seed is not None else []):
            key = order_key(manifest.seed or 0, doc_id), doc_id
            if key < last.get((file.source, file.split), key):
                raise ShardError(f"{path}: row {batch.first_row + row} breaks the keyed order (seed {manifest.seed})")
            last[file.source, file.split] = key


@dataclass(frozen=True)
class Span:
    """Tokens [start, start + length) of one document: row `row` of the file `file`."""

    doc_id: bytes
    file: str
    row: int
    start: int
    length: int


class Shards:
    """A shard folder to read. Nothing is opened before it is asked for."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(root)

    def stream(self, source: str, split: str = "train") -> TokenStream:
        """The token stream of a source. Raises ShardError for one that the manifest does not list."""
        files = tuple(f for f in self.manifest.files if f.source == source and f.split == split)
        if not files:
            known = ", ".join(self.manifest.source_tokens(split)) or "none"
            raise ShardError(f"{self.root} has no source {source!r} in split {split!r}; it has {known}")
        return TokenStream(self.root, files, self.manifest.dtype, self.manifest.seed)


class TokenStream:
    """The tokens of one source in their fixed order, read by position; positions wrap, so an epoch follows the last.

    Memory: a few numbers a file and, for at most `OPEN_FILES` mapped files, a few a record batch; nothing a document, since
    the offsets of documents are read where they lie.
    """

    def __init__(self, root: Path, files: tuple[ShardFile, ...], dtype: str, seed: int | None = None) -> None:
        self._args = (root, files, dtype, seed)
        self._root, self._files, self.dtype, self._seed = self._args
        self._starts = _cumulative(f.tokens for f in files)
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        self.n_tokens = self._starts.pop()
        self.n_documents = sum(f.rows for f in files)
        if self.n_tokens == 0:
            raise ShardError(f"source {files[0].source!r} has no tokens in split {files[0].split!r}")

    def __reduce__(self) -> tuple[type[TokenStream], tuple[Any, ...]]:
        return TokenStream, self._args

    def slice(self, start: int, length: int) -> Array:
        """Tokens [start, start + length), wrapping. A read-only view of the mapped file, or a copy across record batches."""
        return _join([batch.tokens[low:high] for _, batch, low, high in self._pieces(start, length)], self.dtype)

    def roles(self, start: int, length: int) -> Array:
        """The roles (uint8) of the same slice. Raises ShardError where the shards have none."""
        pieces = list(self._pieces(start, length))
        missing = [file for file, batch, _, _ in pieces if batch.roles is None]
        if missing:
            raise ShardError(f"{self._files[missing[0]].path} has no column 'roles'; use shards of a post-training recipe")
        return _join([batch.roles[low:high] for _, batch, low, high in pieces if batch.roles is not None], "uint8")

    def documents(self, start: int, length: int) -> list[Span]:
        """The documents that make up `slice(start, length)`, in order; their lengths sum to `length`."""
        spans = []
        for file, batch, low, high in self._pieces(start, length):
            offsets = batch.offsets
            first, last = int(np.searchsorted(offsets, low, "right")) - 1, int(np.searchsorted(offsets, high, "left"))
            for row in range(first, last):
                begin, end = max(int(offsets[row]), low), min(int(offsets[row + 1]), high)
                doc_id = batch.doc_ids[row].as_py()
                path = self._files[file].path
                spans.append(Span(doc_id, path, batch.first_row + row, begin - int(offsets[row]), end - begin))
        return spans

    def document_starts(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Positions inside the slice at which a document begins, shape (documents,); 0 comes first, cut document or not."""
        parts, done = [np.zeros(1, np.int64)], 0
        for _, batch, low, high in self._pieces(start, length):
            first, last = np.searchsorted(batch.offsets, (low if done else low + 1, high), "left")
            parts.append(batch.offsets[first:last].astype(np.int64) + (done - low))
            done += high - low
        return np.concatenate(parts)

    def locate(self, doc_id: bytes) -> tuple[int, int] | None:
        """Position and length of a document in the stream, or None; a binary search, since rows lie in keyed order.

        Raises ShardError where the manifest has no seed.
        """
        if self._seed is None:
            raise ShardError(
                f"the rows of source {self._files[0].source!r} lie in no keyed order; read the doc_id column instead"
            )
        key = order_key(self._seed, doc_id), doc_id

        def begins_at_or_before(ids: pa.Array[Any], row: int) -> bool:
            return (order_key(self._seed or 0, found := ids[row].as_py()), found) <= key

        index = _last(len(self._files), lambda i: begins_at_or_before(self._shard(i).batches[0].doc_ids, 0))
        if index < 0:
            return None
        shard = self._shard(index)
        number = _last(len(shard.batches), lambda i: begins_at_or_before(shard.batches[i].doc_ids, 0))
        batch = shard.batches[number]
        row = _last(len(batch.doc_ids), lambda i: begins_at_or_before(batch.doc_ids, i))
        if batch.doc_ids[row].as_py() != doc_id:
            return None
        begin, end = int(batch.offsets[row]), int(batch.offsets[row + 1])
        return self._starts[index] + shard.starts[number] + begin, end - begin

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, _Batch, int, int]]:
        """(file index, record batch, low, high): the runs inside one record batch that make up the slice."""
        if length < 0:
            raise ValueError(f"length {length} is negative")
        while length > 0:
            start %= self.n_tokens
            file = bisect_right(self._starts, start) - 1
            shard = self._shard(file)
            inside = start - self._starts[file]
            number = bisect_right(shard.starts, inside) - 1
            batch = shard.batches[number]
            low = inside - shard.starts[number]
            high = min(low + length, len(batch.tokens))
            yield file, batch, low, high
            start += high - low
            length -= high - low

    def _shard(self, index: int) -> _Shard:
        shard = self._open.get(index)
        if shard is None:
            shard = self._open[index] = _Shard(self._root / self._files[index].path, self._files[index], self.dtype)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return shard


@dataclass(frozen=True)
class _Batch:
    first_row: int  # in the file
    doc_ids: pa.Array[Any]
    offsets: npt.NDArray[np.int32]  # (rows + 1,)
    tokens: Array  # (tokens,)
    roles: Array | None


class _Shard:
    """One mapped file as record batches of numpy views."""

    def __init__(self, path: Path, file: ShardFile, dtype: str) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{path}: cannot be read as Arrow IPC ({error})") from error
        if reader.schema not in (shard_schema(dtype), shard_schema(dtype, roles=True)):
            raise ShardError(f"{path}: has columns {_named(reader.schema)}, expected {_named(shard_schema(dtype))}")
        self.batches: list[_Batch] = []
        row = 0
        for batch in batches:
            lists: list[Any] = batch.columns[1:]
            if batch.num_rows == 0 or any(c.null_count for c in batch.columns):
                raise ShardError(f"{path}: has nulls or an empty record batch")
            views = [c.values.to_numpy() for c in lists]
            offsets = lists[0].offsets.to_numpy()
            ends = [(c.offsets[0].as_py(), c.offsets[-1].as_py()) for c in lists]
            if (np.diff(offsets) < 1).any() or ends != [(0, len(v)) for v in views]:
                raise ShardError(f"{path}: has an empty document, or offsets that do not fit the tokens")
            self.batches.append(_Batch(row, batch.column(0), offsets, views[0], views[1] if len(views) > 1 else None))
            row += batch.num_rows
        self.starts = _cumulative(len(b.tokens) for b in self.batches)
        tokens = self.starts.pop()
        if (row, tokens) != (file.rows, file.tokens):
            raise ShardError(f"{path}: has {row} rows and {tokens} tokens, the manifest says {file.rows} and {file.tokens}")


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
        offsets: Any = pa.array(np.array(_cumulative(map(len, column)), np.int32))
        columns.append(pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(column))).cast(kind))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cumulative(sizes: Iterable[int]) -> list[int]:
    """Start of each part, and last the end of all."""
    return [0, *accumulate(sizes)]


def _last(count: int, holds: Callable[[int], bool]) -> int:
    """The last of 0 .. count - 1 for which `holds`, which is true first and false after; -1 if it never is."""
    return bisect_left(range(count), True, key=lambda i: not holds(i)) - 1


def _join(parts: list[Array], dtype: str) -> Array:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _named(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name}: {f.type}" for f in schema)

"""A source as an immutable token stream, read by position from mapped shards: part of `shards.py`."""

from __future__ import annotations

import hashlib
import os
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
import pyarrow.compute as pc

from pipelines.shards.manifest import ShardError, ShardFile, order_key
from pipelines.shards.roles import NONE

DTYPES = {"uint16": pa.uint16(), "uint32": pa.uint32()}
OPEN_FILES = 64  # memory maps a stream holds at once
ARROW = b"ARROW1"  # the first and the last bytes of an Arrow IPC file

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
NOTHING: Ints = np.zeros((0, 2), np.int64)


def shard_schema(dtype: str, roles: bool = False) -> pa.Schema:
    """The Arrow schema of a shard. `doc_id` is plain binary (16 bytes): the type that every reader of the field knows."""
    columns = [("doc_id", pa.binary()), ("tokens", pa.list_(DTYPES[dtype]))]
    return pa.schema(columns + ([("roles", pa.list_(pa.uint8()))] if roles else []))


@dataclass(frozen=True)
class Span:
    """Tokens [start, start + length) of one document: row `row` of the file `file`."""

    doc_id: bytes
    file: str
    row: int
    start: int
    length: int


class TokenStream:
    """The tokens of one source in their fixed order, read by position; positions wrap, so an epoch follows the last.

    A document that was taken down keeps its place and loses its tokens: `slice` gives eos there, `gaps` says where, and all
    that tells positions is as before, so a schedule keeps its meaning. `gone`: its places in the stream as [start, end), shape
    (k, 2), sorted and disjoint. `seed`: of the keyed order, None where the rows lie in another.

    Memory: a few numbers a file and, for at most `OPEN_FILES` mapped files, a few a record batch; nothing a document, since
    the offsets of documents are read where they lie.
    """

    def __init__(
        self, root: Path, files: tuple[ShardFile, ...], dtype: str, eos_id: int, seed: int | None = None, gone: Ints = NOTHING
    ) -> None:
        self._args = (root, files, dtype, eos_id, seed, gone)
        self._root, self._files, self.dtype, self.eos_id, self._seed, self._gone = self._args
        self._starts = cumulative(f.tokens for f in files)
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        self.n_tokens = self._starts.pop()
        self.n_documents = sum(f.rows for f in files)
        if self.n_tokens == 0:
            raise ShardError(f"source {files[0].source!r} has no tokens in split {files[0].split!r}")

    def __reduce__(self) -> tuple[type[TokenStream], tuple[Any, ...]]:
        return TokenStream, self._args

    def slice(self, start: int, length: int) -> Array:
        """Tokens [start, start + length), wrapping. A read-only view of the mapped file, or a copy across record batches."""
        parts = [batch.tokens[low:high] for _, batch, low, high in self._pieces(start, length)]
        return self._blanked(_join(parts, self.dtype), self.eos_id, start, length)

    def read(self, start: int, length: int) -> tuple[Array, Ints]:
        """`slice` and `document_starts` in one go."""
        parts, begins, done = list[Array](), list[Ints](), 0
        for _, batch, low, high in self._pieces(start, length):
            # asked in the offsets' own type: else all of them would be converted
            first, last = batch.offsets.searchsorted(np.array((low + (not done), high), batch.offsets.dtype)).tolist()
            begins.append(inside := batch.offsets[first - (not done) : last].astype(np.int64))
            inside += done - low
            parts.append(batch.tokens[low:high])
            done += high - low
        if begins:
            begins[0][0] = 0  # of the document that the slice begins in
        tokens = self._blanked(_join(parts, self.dtype), self.eos_id, start, length)
        return tokens, _join(begins or [np.zeros(1, np.int64)], "int64")

    def _blanked(self, values: Array, blank: int, start: int, length: int) -> Array:
        """The values of a slice with what was taken down in it blank."""
        gaps = self.gaps(start, length)
        if len(gaps):
            values = values.copy()
            for low, high in gaps.tolist():
                values[low:high] = blank
        return values

    def gaps(self, start: int, length: int) -> Ints:
        """What of `slice(start, length)` was taken down: [low, high) inside the slice, sorted and disjoint. Shape (k, 2)."""
        if not len(self._gone):
            return NOTHING
        parts, done = [NOTHING], 0
        while done < length:
            start %= self.n_tokens
            take = min(length - done, self.n_tokens - start)
            first = np.searchsorted(self._gone[:, 1], start, "right")
            last = np.searchsorted(self._gone[:, 0], start + take, "left")
            parts.append(np.clip(self._gone[first:last], start, start + take) + (done - start))
            start, done = start + take, done + take
        return np.concatenate(parts)

    def roles(self, start: int, length: int) -> Array:
        """The codes of roles.py (uint8) of the same slice, NONE for what was taken down. Raises ShardError without any."""
        pieces = list(self._pieces(start, length))
        missing = [file for file, batch, _, _ in pieces if batch.roles is None]
        if missing:
            raise ShardError(f"{self._files[missing[0]].path} has no column 'roles'; use shards of a post-training recipe")
        parts = [batch.roles[low:high] for _, batch, low, high in pieces if batch.roles is not None]
        return self._blanked(_join(parts, "uint8"), NONE, start, length)

    @property
    def has_roles(self) -> bool:
        """Whether the tokens have roles, told by the first file."""
        return self._shard(0).batches[0].roles is not None

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

    def document_starts(self, start: int, length: int) -> Ints:
        """Positions inside the slice at which a document begins, shape (documents,); 0 comes first, cut document or not."""
        return self.read(start, length)[1]

    def locate(self, doc_id: bytes) -> tuple[int, int] | None:
        """Position and length of a document in the stream, or None.

        A binary search where the rows lie in keyed order; in another order the doc_id columns are read.
        """
        found = self._scan(doc_id) if self._seed is None else self._search(doc_id, self._seed)
        if found is None:
            return None
        index, number, row = found
        shard = self._shard(index)
        begin, end = shard.batches[number].offsets[row : row + 2].tolist()
        return self._starts[index] + shard.starts[number] + begin, end - begin

    def places(self, file: str, rows: Sequence[int] | Ints) -> tuple[Ints, Ints]:
        """Positions in the stream and lengths of documents, given as rows of one shard file. Shapes (rows,).

        Raises ShardError for a file that is not of this stream, or a row that it has not.
        """
        rows = np.asarray(rows, np.int64)
        index = next((i for i, f in enumerate(self._files) if f.path == file), None)
        if index is None or (len(rows) and not 0 <= rows.min() <= rows.max() < self._files[index].rows):
            last = "" if index is None else f", whose rows are 0 to {self._files[index].rows - 1}"
            raise ShardError(f"there are no rows {rows.tolist()[:3]} of {file!r}{last} in source {self._files[0].source!r}")
        bounds = self.bounds(index)
        return bounds[rows], bounds[rows + 1] - bounds[rows]

    def bounds(self, file: int) -> Ints:
        """Where in the stream the documents of file number `file` begin, and where its last one ends. Shape (rows + 1,)."""
        shard, first = self._shard(file), self._starts[file]
        starts = [b.offsets[:-1].astype(np.int64) + (first + s) for s, b in zip(shard.starts, shard.batches, strict=True)]
        return np.append(np.concatenate(starts), first + self._files[file].tokens)

    def files_of(self, start: int, length: int) -> range:
        """The numbers of the files that hold [start, start + length) of the stream, which does not wrap here."""
        return range(bisect_right(self._starts, start) - 1, bisect_right(self._starts, start + length - 1))

    def _scan(self, doc_id: bytes) -> tuple[int, int, int] | None:
        """File, record batch and row of a document: the first one."""
        for index in range(len(self._files)):
            for number, batch in enumerate(self._shard(index).batches):
                if (row := pc.index(batch.doc_ids, doc_id).as_py()) >= 0:
                    return index, number, row
        return None

    def _search(self, doc_id: bytes, seed: int) -> tuple[int, int, int] | None:
        """The same by the keyed order: the last one."""
        key = order_key(seed, doc_id), doc_id

        def begins_at_or_before(ids: pa.Array[Any], row: int) -> bool:
            return (order_key(seed, found := ids[row].as_py()), found) <= key

        index = _last(len(self._files), lambda i: begins_at_or_before(self._shard(i).batches[0].doc_ids, 0))
        if index < 0:
            return None
        batches = self._shard(index).batches
        number = _last(len(batches), lambda i: begins_at_or_before(batches[i].doc_ids, 0))
        ids = batches[number].doc_ids
        row = _last(len(ids), lambda i: begins_at_or_before(ids, i))
        return (index, number, row) if ids[row].as_py() == doc_id else None

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, Batch, int, int]]:
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

    def _shard(self, index: int) -> MappedShard:
        shard = self._open.get(index)
        if shard is None:
            shard = self._open[index] = MappedShard(self._root, self._files[index], self.dtype)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return shard


@dataclass(frozen=True)
class Batch:
    """A record batch as views: `offsets` of documents (rows + 1,), `tokens` and `roles` (tokens,)."""

    first_row: int  # in the file
    doc_ids: pa.Array[Any]
    offsets: npt.NDArray[np.int32]
    tokens: Array
    roles: Array | None


class MappedShard:
    """One mapped file as record batches of numpy views, the first tokens of which are `starts`. Raises ShardError."""

    def __init__(self, root: Path, file: ShardFile, dtype: str) -> None:
        path = root / file.path
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{path}: cannot be read as Arrow IPC ({error})") from error
        if reader.schema not in (shard_schema(dtype), shard_schema(dtype, roles=True)):
            raise ShardError(f"{path}: has columns {_named(reader.schema)}, expected {_named(shard_schema(dtype))}")
        self.batches: list[Batch] = []
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
            self.batches.append(Batch(row, batch.column(0), offsets, views[0], views[1] if len(views) > 1 else None))
            row += batch.num_rows
        self.starts = cumulative(len(b.tokens) for b in self.batches)
        tokens = self.starts.pop()
        if (row, tokens) != (file.rows, file.tokens):
            raise ShardError(f"{path}: has {row} rows and {tokens} tokens, the manifest says {file.rows} and {file.tokens}")


def check_digest(path: Path, expected: str) -> None:
    """Read a file whole. Raises ShardError where it is missing or its SHA-256 is another."""
    try:
        with path.open("rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    if digest != expected:
        raise ShardError(f"{path}: sha256 is {digest}, the manifest says {expected}")


def check_ends(path: Path, least: int) -> None:
    """Raise ShardError where a file is missing, has fewer than `least` bytes, or does not end as Arrow IPC files do."""
    try:
        with path.open("rb") as raw:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(max(0, size - len(ARROW)))
            end = raw.read()
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror}") from error
    if size < least or end != ARROW:
        raise ShardError(f"{path}: was cut short, or is no Arrow IPC file ({size} bytes)")


def cumulative(sizes: Iterable[int]) -> list[int]:
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

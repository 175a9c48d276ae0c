"""Parts of a table to runs: documents as ids, with their provenance, sorted, in Arrow files that every worker can map.

    row groups of Parquet -> ids, place | held up to RUN_BYTES, sorted -> a file: a record batch a source and split

A place is the bytes that the rows of a source are sorted by: rank column, keyed hash, doc_id, origin. What a task reads is
given, and so is what it writes: an attempt that is repeated writes the same files again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dedup.counting import concat
from pipelines.errors import UserError
from pipelines.schema import DECISION, OUTCOME
from pipelines.shards import Order, ShardError, shard_path
from pipelines.shards.manifest import GROUP, ORDER, SPLIT, digests, temporary_name
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode_array

RUN_BYTES = 32 << 20  # of documents that a task holds before it sorts, encodes and writes them
READ_BYTES = 1 << 20  # of documents that are read, or brought into order and encoded, at once
PART_BYTES = 64 << 20  # of Parquet that are a task: the work of seconds
PLACE = 41  # bytes of a place: 1 (no value), 8 (value), 8 (keyed hash), 16 (doc_id), 8 (origin)
_KEY, _ID, _ORIGIN = 9, 17, 33  # where these begin
_FIRST = ("doc_id", "url", "date", "lang", "file", "offset", "record_id")
_NOT_KEPT = {"text", "html", "messages", "answers", "tokens", "roles", *DECISION.names, *OUTCOME.names}
_READ = ("text", "tokens", "roles")  # of these, what is there

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.bytes_]


@dataclass(frozen=True)
class Part:
    """The row groups of a file whose middle lies in bytes [start, stop)."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True)
class Run:
    """A record batch of a file of runs: sorted documents of one source and split. `size`: of their ids in bytes."""

    source: str
    split: str
    file: str
    batch: int
    rows: int
    size: int


@dataclass(frozen=True)
class Plan:
    """How documents become runs. `schema`: of the table's columns that are read; `folder`: of the runs."""

    tokenizer: TokenizerInfo
    schema: pa.Schema
    folder: str
    seed: int
    validation_share: float
    orders: tuple[Order, ...]

    @property
    def provenance(self) -> list[str]:
        """The columns that tell where a document comes from and what was found of it."""
        names = self.schema.names
        return [n for n in _FIRST if n in names] + [n for n in names if n not in _NOT_KEPT and n not in _FIRST]


def columns(schema: pa.Schema) -> pa.Schema:
    """The columns of a table that are read to write shards."""
    return pa.schema([f for f in schema if f.name in _READ or f.name not in _NOT_KEPT])


def parts(folder: Path, cores: int) -> list[list[Part]]:
    """The Parquet files of a folder as tasks of about PART_BYTES, or less where there would be too few for the cores."""
    files = [(str(path), path.stat().st_size) for path in sorted(folder.glob("*.parquet"))]
    most = min(PART_BYTES, max(sum(size for _, size in files) // (2 * cores), 1 << 20))
    cut = [Part(path, start, min(start + most, size)) for path, size in files for start in range(0, size, most)]
    return packed(cut, [part.stop - part.start for part in cut], most)


def packed(items: Sequence[T], sizes: Sequence[int], most: int) -> list[list[T]]:
    """The items in groups of at most so much together, or of one: a task costs Spark 25 ms, however little it has to do."""
    groups: list[list[T]] = []
    room = 0
    for item, size in zip(items, sizes, strict=True):
        if size > room or not groups:
            groups.append([])
            room = most
        groups[-1].append(item)
        room -= size
    return groups


def write_runs(number: int, task: list[Part], plan: Plan) -> Iterator[Run]:
    """Encode the documents of a task; what was written."""
    held: list[pa.RecordBatch] = []
    size = files = 0
    for batch in (b for part in task for b in _documents(part, plan.schema)):
        held.append(batch)
        size += batch.nbytes
        if size >= RUN_BYTES:
            yield from _write(f"{number:06d}-{files:04d}.arrow", concat(held), plan)
            held, size, files = [], 0, files + 1
    if held:
        yield from _write(f"{number:06d}-{files:04d}.arrow", concat(held), plan)


def read_run(folder: str, run: Run) -> pa.RecordBatch:
    """A run as it lies on disk, mapped; no file stays open."""
    with pa.memory_map(f"{folder}/{run.file}") as mapped:
        return pa.ipc.open_file(mapped).get_batch(run.batch)


def places(run: pa.RecordBatch) -> Places:
    """The places of a run's rows, ascending."""
    return _bytes(run.column("place"), PLACE).view(f"S{PLACE}").ravel()


def keys(found: Places) -> npt.NDArray[np.uint64]:
    """The keyed hashes in places."""
    raw = found.view(np.uint8).reshape(-1, PLACE)
    return np.ascontiguousarray(raw[:, _KEY:_ID]).view(">u8").ravel().astype(np.uint64)


def first_place(key: int) -> bytes:
    """The least place that a document of a source without a rank column has, whose keyed hash is `key` or more."""
    return bytes(_KEY) + key.to_bytes(8, "big")


def by_block(found: Places, blocks: npt.NDArray[np.int64]) -> Places:
    """The places with the number of a block instead of the value they were ranked by."""
    raw = found.view(np.uint8).reshape(-1, PLACE).copy()
    raw[:, 0] = 0
    raw[:, 1:_KEY] = blocks.astype(">u8").view(np.uint8).reshape(-1, 8)
    return raw.view(f"S{PLACE}").ravel()


# --- documents ----------------------------------------------------------------------------------------------------------


def _documents(part: Part, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(part.path, memory_map=True) as file:
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            chunks = [group.column(i) for i in range(group.num_columns)]
            begin = min(c.dictionary_page_offset or c.data_page_offset for c in chunks)
            middle = begin + sum(c.total_compressed_size for c in chunks) // 2
            if not part.start <= middle < part.stop or not group.num_rows:
                continue
            size = next(c.total_uncompressed_size for c in chunks if c.path_in_schema == "text")
            rows = max(1, READ_BYTES * group.num_rows // max(size, 1))
            for batch in file.iter_batches(rows, [index], schema.names, use_threads=False):
                yield batch if batch.schema.equals(schema) else batch.cast(schema)


def _write(name: str, documents: pa.RecordBatch, plan: Plan) -> list[Run]:
    """Sort, then encode: texts of one source in a row have words in common, and the encoder finds them sooner."""
    _refuse(documents)
    ids: list[Any] = documents.column("doc_id").to_pylist()
    found, source = _places(documents, ids, plan), documents.column("source").dictionary_encode()
    together = documents.column(GROUP).to_pylist() if GROUP in documents.schema.names else ids
    held_out = np.frombuffer(digests(plan.seed, together, SPLIT), ">u8") < np.uint64(int(plan.validation_share * 2**64))
    group = source.indices.to_numpy() * 2 + held_out
    rows = np.lexsort((found, group))
    starts = np.flatnonzero(np.diff(group[rows], prepend=-1))
    kept = [plan.schema.field(n) for n in plan.provenance]
    roles = [pa.field("roles", pa.large_binary())] if "roles" in documents.schema.names else []
    schema = pa.schema([pa.field("place", pa.binary(PLACE)), pa.field("tokens", pa.large_binary()), *roles, *kept])
    made: list[Run] = []
    temporary = temporary_name(path := Path(plan.folder) / name)
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for chosen in np.split(rows, starts[1:]):
            tokens, code = _tokens(documents, chosen, plan.tokenizer), int(group[chosen[0]])
            place = pa.Array.from_buffers(pa.binary(PLACE), len(chosen), [None, pa.py_buffer(found[chosen])])
            beside = [documents.column(f.name).take(pa.array(chosen)).cast(f.type) for f in roles]
            columns = [place, tokens, *beside, *documents.select(plan.provenance).take(pa.array(chosen)).columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            stream = source.dictionary[code >> 1].as_py(), "validation" if code & 1 else "train"
            made.append(Run(*stream, name, len(made), len(chosen), pc.sum(pc.binary_length(tokens)).as_py()))
    temporary.replace(path)
    return made


def _tokens(documents: pa.RecordBatch, rows: npt.NDArray[np.int64], info: TokenizerInfo) -> pa.Array:
    """The ids of these rows as bytes of the shards' dtype, little-endian: those of a stage that has encoded already, or the
    text's. Texts are brought into order a few at a time: what is copied is encoded while the processor has it at hand."""
    if "tokens" in documents.schema.names:
        return documents.column("tokens").take(pa.array(rows)).cast(pa.large_binary())
    how, kind = EncodeConfig(info.path, info.sha256, info.eos), np.dtype(info.dtype).newbyteorder("<")
    texts = documents.select(["doc_id", "text"])
    many = max(1, READ_BYTES * len(texts) // texts.nbytes)
    parts, lengths = [], [np.zeros(1, np.int64)]
    for start in range(0, len(rows), many):
        piece = texts.take(pa.array(rows[start : start + many]))
        tokens, offsets = encode_array(piece.column("text"), how, piece.column("doc_id"))
        parts.append(tokens.astype(kind))
        lengths.append(np.diff(offsets))
    ends = np.cumsum(np.concatenate(lengths)) * kind.itemsize
    data = [None, pa.py_buffer(ends), pa.py_buffer(np.concatenate(parts))]
    return pa.Array.from_buffers(pa.large_binary(), len(rows), data)


def _refuse(batch: pa.RecordBatch) -> None:
    lengths = pc.fill_null(pc.binary_length(batch.column("doc_id")), 0)
    good = pc.and_(pc.equal(lengths, 16), pc.and_(pc.is_valid(batch.column("text")), pc.is_valid(batch.column("source"))))
    if not pc.all(good).as_py():
        row = batch.slice(pc.index(good, False).as_py(), 1).to_pylist()[0]
        raise UserError(
            f"document {row['doc_id']!r} of source {row['source']!r} has no text, no source, or a doc_id that is not 16 bytes; "
            "put a stage before the shards that extracts text, or drops it"
        )
    if "tokens" in batch.schema.names and batch.column("tokens").null_count:
        row = batch.filter(batch.column("tokens").is_null()).slice(0, 1).to_pylist()[0]
        raise UserError(
            f"document {row['doc_id'].hex()} of source {row['source']!r} has no tokens, and others have; "
            "let the stage that encodes see all sources, or write the others with a recipe of their own"
        )
    try:
        for source in pc.unique(batch.column("source")).to_pylist():
            shard_path(source, "train", 0)
    except ShardError as error:
        raise UserError(str(error)) from error


def _places(batch: pa.RecordBatch, ids: list[bytes], plan: Plan) -> Places:
    place = np.zeros((len(ids), PLACE), np.uint8)
    for order in plan.orders:
        mine = np.asarray(pc.equal(batch.column("source"), order.source))
        if mine.any():
            place[mine, :_KEY] = ranked(batch.column(order.by), order.descending)[mine]
    place[:, _KEY:_ID] = np.frombuffer(digests(plan.seed, ids, ORDER), np.uint8).reshape(-1, 8)
    place[:, _ID:_ORIGIN] = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16)
    place[:, _ORIGIN:] = _big_endian(_origins(batch))
    return place.view(f"S{PLACE}").ravel()


def ranked(column: pa.Array, descending: bool) -> Bytes:
    """Numbers as 9 bytes that are in order as the numbers are, shape (rows, 9); nulls and NaN come last either way."""
    if pa.types.is_floating(column.type):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0  # -0.0 is 0.0
        bits = values.view(np.uint64)
        bits = np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))
        last = np.isnan(values)
    else:
        kind = pa.uint64() if pa.types.is_uint64(column.type) else pa.int64()
        numbers = pc.fill_null(column.cast(kind), 0).to_numpy(zero_copy_only=False)
        bits = numbers if kind == pa.uint64() else numbers.view(np.uint64) ^ np.uint64(1 << 63)
        last = np.asarray(column.is_null())
    made = np.zeros((len(column), _KEY), np.uint8)
    made[:, 0] = last
    made[:, 1:] = _big_endian(np.where(last, np.uint64(0), ~bits if descending else bits))
    return made


def _origins(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    """A hash of file and offset: it decides between rows of one doc_id, so that their provenance has an order."""
    found = np.zeros(batch.num_rows, np.uint64)
    if "offset" in batch.schema.names:
        found += pc.fill_null(batch.column("offset").cast(pa.int64()), 0).to_numpy(zero_copy_only=False).view(np.uint64)
    if "file" in batch.schema.names:
        files = pc.fill_null(batch.column("file"), "").dictionary_encode()
        names = (hashlib.blake2b(f.encode(), digest_size=8).digest() for f in files.dictionary.to_pylist())
        found += np.array([int.from_bytes(n, "big") for n in names], np.uint64)[files.indices.to_numpy()]
    return found


def _big_endian(numbers: npt.NDArray[Any]) -> Bytes:
    return numbers.astype(">u8").view(np.uint8).reshape(-1, 8)


def _bytes(column: pa.Array, width: int) -> Bytes:
    """The values of a fixed-size binary column, shape (rows, width), without a copy."""
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)

"""Shards in the files that other trainers read: `python -m pipelines export OUT/shards DIR --to megatron`.

Documents in the order of the stream, each with its eos, without those that were taken down. DIR appears when all of it is
written. Memory: one record batch, whatever the corpus.

    megatron      SOURCE-SPLIT.bin, .idx           Megatron-LM, NeMo: IndexedDataset, format version 1; a pair a source
    nanotron      SOURCE/SPLIT-00000.ds            nanotron, datatrove; with .ds.index and .ds.metadata, one a shard
    huggingface   SOURCE/SPLIT-00000.parquet       datasets, the Hub: doc_id and input_ids; README.md makes sources configs
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.shards import Shards, TokenStream
from pipelines.shards.manifest import ShardFile, temporary_name
from pipelines.shards.stream import Ints, MappedShard

CHUNK = 1 << 20  # numbers of an index that are in memory at once


@dataclass(frozen=True)
class Documents:
    """Some documents of a source: ids (n,), lengths (n,) and their tokens one after the other."""

    doc_ids: pa.Array[Any]
    lengths: Ints
    tokens: npt.NDArray[Any]


@dataclass(frozen=True)
class Written:
    """What was written of a source; `left_out`: documents that were taken down."""

    source: str
    documents: int
    left_out: int
    tokens: int
    files: tuple[Path, ...]


@dataclass
class _Source:
    """One source to be written, file by file; counts what it has given."""

    name: str
    split: str
    shards: Shards
    stream: TokenStream
    advance: Callable[[int], object]
    documents: int = 0
    tokens: int = 0

    def files(self) -> Iterator[tuple[ShardFile, Iterator[Documents]]]:
        """Each shard and its documents, a record batch at a time."""
        at = 0
        for file in self.shards.manifest.files:
            if (file.source, file.split) == (self.name, self.split):
                yield file, self._documents(file, at)
                at += file.tokens

    def _documents(self, file: ShardFile, at: int) -> Iterator[Documents]:
        for batch in MappedShard(self.shards.root, file, self.shards.manifest.dtype).batches:
            starts, lengths, tokens, ids = batch.offsets[:-1], np.diff(batch.offsets), batch.tokens, batch.doc_ids
            gone = self.stream.gaps(at, len(tokens))  # whole documents, neighbours joined
            at += len(tokens)
            if len(gone):
                kept = np.searchsorted(gone[:, 0], starts, "right") == np.searchsorted(gone[:, 1], starts, "right")
                ids, lengths, tokens = ids.filter(pa.array(kept)), lengths[kept], tokens[np.repeat(kept, lengths)]
            self.documents += len(lengths)
            self.tokens += len(tokens)
            if len(lengths):
                yield Documents(ids, lengths.astype(np.int64), tokens)
            self.advance(len(starts))


def export(
    root: Path,
    out: Path,
    to: str,
    sources: Sequence[str] = (),
    split: str = "train",
    advance: Callable[[int], object] = lambda rows: None,
) -> list[Written]:
    """Write the sources (default: all) of a split to the new folder `out` in the form `to`, one of FORMATS.

    `advance` is told the rows done. Raises UserError where `out` holds something or there is no such split, ShardError on a
    source that is not there or a shard that is damaged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty; name a new folder, or delete it")
    shards, write = Shards(root), FORMATS[to].write
    names = dict.fromkeys(sources or shards.manifest.source_tokens(split))
    if not names:
        held = ", ".join(sorted({file.split for file in shards.manifest.files})) or "none"
        raise UserError(f"the shards of {root} have no split {split!r}; --split takes one that they have: {held}")
    chosen = [_Source(name, split, shards, shards.stream(name, split), advance) for name in names]
    temporary, written = temporary_name(out), list[Written]()
    try:
        temporary.mkdir(parents=True)
        for source in chosen:
            files = tuple(out / path.relative_to(temporary) for path in write(temporary, source))
            left_out = source.stream.n_documents - source.documents
            written.append(Written(source.name, source.documents, left_out, source.tokens, files))
        if to == "huggingface":
            (temporary / "README.md").write_text(_card(written, split), encoding="utf-8", newline="\n")
        for path in (path for path in temporary.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return written


def _megatron(folder: Path, source: _Source) -> list[Path]:
    """IndexedDataset of Megatron-LM (megatron/core/datasets/indexed_dataset.py), a document one sequence.

    .bin: the tokens. .idx: magic, version, dtype code, numbers of sequences and of bounds of documents, then the lengths
    (int32), byte offsets (int64) and bounds of documents in sequences (int64). It knows no uint32: int32 there.
    """
    bin_, idx = (folder / f"{source.name}-{source.split}.{kind}" for kind in ("bin", "idx"))
    kind, code = (np.dtype("<u2"), 8) if source.shards.manifest.dtype == "uint16" else (np.dtype("<i4"), 4)
    lengths = folder / "lengths"
    with bin_.open("wb") as tokens, lengths.open("wb") as sizes:
        for _, documents in source.files():
            for some in documents:
                _put(tokens, some.tokens, kind)
                _put(sizes, some.lengths, np.dtype("<i4"))
    with idx.open("wb") as file, lengths.open("rb") as sizes:
        count = source.documents
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, count, count + 1))
        shutil.copyfileobj(sizes, file)
        sizes.seek(0)
        before = 0
        while len(part := np.fromfile(sizes, "<i4", CHUNK).astype(np.int64)):
            _put(file, (before + np.cumsum(part) - part) * kind.itemsize, np.dtype("<i8"))
            before += int(part.sum())
        for first in range(0, count + 1, CHUNK):
            _put(file, np.arange(first, min(first + CHUNK, count + 1)), np.dtype("<i8"))
    lengths.unlink()
    return [bin_, idx]


def _nanotron(folder: Path, source: _Source) -> list[Path]:
    """Tokenised files of datatrove (datatrove/pipeline/tokens/tokenizer.py).

    .ds: the tokens. .ds.index: where documents end, in tokens (uint64). .ds.metadata: tokenizer and bytes a token, tokens,
    and the tokens once more for people.
    """
    kind = np.dtype(source.shards.manifest.dtype).newbyteorder("<")
    paths = []
    for shard, documents in source.files():
        path = folder / shard.path.replace(".arrow", ".ds")
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as tokens, Path(f"{path}.index").open("wb") as index:
            end = 0
            for some in documents:
                _put(tokens, some.tokens, kind)
                _put(index, end + np.cumsum(some.lengths), np.dtype("<u8"))
                end += len(some.tokens)
        about = f"{source.shards.manifest.tokenizer_sha256}|{kind.itemsize}\n{end}\n{end / 1e6:.3g} MT"
        Path(f"{path}.metadata").write_text(about, encoding="utf-8", newline="\n")
        made = [path, Path(f"{path}.index"), Path(f"{path}.metadata")]
        if end:
            paths += made
        else:  # all of the shard was taken down, and readers map no empty file
            for empty in made:
                empty.unlink()
    return paths


def _huggingface(folder: Path, source: _Source) -> list[Path]:
    """Parquet with a row a document: doc_id (16 bytes) and input_ids (int32), a row group a record batch."""
    import pyarrow.parquet as pq

    schema = pa.schema([("doc_id", pa.binary()), ("input_ids", pa.list_(pa.int32()))])
    paths = []
    for shard, documents in source.files():
        path = folder / shard.path.replace(".arrow", ".parquet")
        path.parent.mkdir(exist_ok=True)
        with ExitStack() as opened:
            writer: pq.ParquetWriter | None = None
            for some in documents:
                if writer is None:
                    writer = opened.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
                    paths.append(path)
                offsets = pa.array(np.append(0, np.cumsum(some.lengths)), pa.int32())
                ids = pa.ListArray.from_arrays(offsets, pa.array(some.tokens).cast(pa.int32()))
                writer.write_batch(pa.RecordBatch.from_arrays([some.doc_ids, ids], schema=schema))
    return paths


def _card(written: Sequence[Written], split: str) -> str:
    """README.md of a dataset folder: each source is a config of its own, as `load_dataset` and the Hub read it."""
    lines, rows = ["---", "configs:"], []
    for source in (source for source in written if source.files):
        lines += [f"- config_name: {source.source}", "  data_files:", f"  - split: {split}"]
        lines += [f"    path: {source.source}/{split}-*.parquet"]
        rows += [f"- {source.source}: {source.documents:,} documents, {source.tokens:,} tokens"]
    about = "Token ids by source: `input_ids`, each document with its eos, and `doc_id`."
    return "\n".join([*lines, "---", "", about, "", *rows, ""])


def _put(file: BinaryIO, numbers: npt.NDArray[Any], kind: np.dtype[Any]) -> None:
    file.write(np.ascontiguousarray(numbers, kind).data)


@dataclass(frozen=True)
class Format:
    """How a form is written, and how its reader is called: a template of out, source, split and size (bytes a token)."""

    write: Callable[[Path, _Source], list[Path]]
    reading: str


FORMATS = {
    "megatron": Format(_megatron, "--data-path {out}/{source}-{split}"),
    "nanotron": Format(_nanotron, "DatatroveFolderDataset('{out}/{source}', seq_len, '*.ds', token_size={size})"),
    "huggingface": Format(_huggingface, "load_dataset('{out}', '{source}', split='{split}')"),
}

"""Documents to an index on Spark: keys and compressed texts, sorted by keyed hash, written; then the keys, sorted, written.

Where a document and a key lie is a function of the documents alone, as in tokens/write.py: the same bytes for any partitioning,
executor count or retry. A task holds an Arrow batch and a record batch at a time, the driver sees one row a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.index.format import (
    SKETCH,
    VERSION,
    IndexConfig,
    IndexFile,
    IndexManifest,
    Ints,
    Writing,
    compressed,
    documents_name,
    keys_name,
    lookup_keys,
    probe,
    write_documents,
    write_keys,
    write_manifest,
)
from pipelines.dedup.minhash import MinhashConfig, has_shingles, signatures, sketch
from pipelines.schema import record_batch
from pipelines.shards.manifest import MANIFEST, order_key
from pipelines.spark import to_spark_schema

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_COLUMNS = ("doc_id", "source", "url", "date", "text")
# Between the passes. `order`: order_key - 2**63, so that Spark's signed order is the order of the hash.
_ENCODED = "doc_id binary, source string, url string, date string, order long, keys binary, sketch binary, text binary"
# a key with the place of its document, or a file
_PLACED = pa.schema(
    [
        ("key", pa.int64()),
        ("place", pa.int64()),
        ("path", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)


def write_index(df: DataFrame, cfg: IndexConfig, root: str | Path, recipe: str = "", fingerprint: str = "") -> IndexManifest:
    """Write the documents of `df` (doc_id, source, url, date, text) as an index to ROOT, manifest last; returns the manifest.

    ROOT is a folder that the driver and all workers reach under one path. No documents make an index in which nothing is
    found. Disk: the compressed texts twice, until it is done.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    root = Path(root).absolute()
    root.mkdir(parents=True, exist_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)
    encoded = df.select(*_COLUMNS).mapInArrow(_Encode(cfg.minhash), _ENCODED).persist(StorageLevel.DISK_ONLY)
    placed_schema = to_spark_schema(_PLACED)
    placed = None
    try:
        held = F.length("text") + F.length("sketch")
        sums = encoded.agg(F.count(F.lit(1)), F.sum(held), 2 * F.sum(F.length("keys"))).head()
        rows, *sizes = (int(n or 0) for n in sums or ())
        files, slots = (max(1, -(-n // cfg.target_bytes)) for n in sizes)
        ordered = _spread(encoded, "order", files).sortWithinPartitions("file", "order", *_COLUMNS[:-1])
        placed = ordered.mapInArrow(_WriteDocuments(str(root)), placed_schema).persist(StorageLevel.DISK_ONLY)
        is_key = F.col("path").isNull()
        written = placed.where(~is_key).collect()
        sorted_keys = _spread(placed.where(is_key), "key", slots).sortWithinPartitions("key", "place")
        written += sorted_keys.mapInArrow(_WriteKeys(str(root)), placed_schema).collect()
    finally:
        encoded.unpersist()
        if placed is not None:
            placed.unpersist()
    made = sorted((IndexFile(r["path"], r["rows"], r["bytes"], r["sha256"]) for r in written), key=lambda f: f.path)
    manifest = IndexManifest(
        version=VERSION,
        dump=cfg.dump or recipe,
        recipe=recipe,
        recipe_fingerprint=fingerprint,
        minhash=asdict(cfg.minhash),
        probe=probe(cfg.minhash),
        rows=rows,
        slots=slots,
        files=tuple(made),
    )
    write_manifest(root, manifest)
    return manifest


def range_of(name: str, parts: int) -> Column:
    """The part of a column of longs, of as many equal ranges: index.key_file on Spark."""
    from pyspark.sql import functions as F

    return F.shiftright((F.shiftright(name, 32) + F.lit(1 << 31)) * F.lit(parts), 32).cast("int")


def _spread(df: DataFrame, name: str, files: int) -> DataFrame:
    return df.select("*", range_of(name, files).alias("file")).repartition(files, "file")


@dataclass(frozen=True)
class _Encode:
    """Arrow batches of _COLUMNS to rows of _ENCODED; a text without shingles has no keys and an empty sketch."""

    minhash: MinhashConfig

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            signature = signatures(batch.column("text"), self.minhash)
            some = has_shingles(signature)
            ids, texts = (batch.column(name).to_pylist() for name in ("doc_id", "text"))
            columns: dict[str, Any] = {name: batch.column(name) for name in _COLUMNS[:-1]}
            columns |= {
                "order": pa.array([order_key(0, i) - 2**63 for i in ids], pa.int64()),
                "keys": _bytes(lookup_keys(signature, self.minhash).astype("<i8"), some),
                "sketch": _bytes(sketch(signature[:, :SKETCH]), some),
                "text": pa.array(compressed(t or "" for t in texts), pa.binary()),
            }
            yield pa.record_batch(columns)


@dataclass(frozen=True)
class _WriteDocuments:
    """Sorted rows of _ENCODED, with `file`, to files; rows of _PLACED for the keys of each and for itself. A retry writes the
    same files again."""

    root: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = (row for batch in batches for row in _rows(batch))
        for number, group in groupby(rows, key=itemgetter("file")):
            with Writing(self.root, documents_name(number)) as out:
                for written, places in write_documents(out, number, group):
                    keys = [np.frombuffer(row["keys"], "<i8") for row in written]
                    columns = {"key": np.concatenate(keys), "place": np.repeat(places, [len(k) for k in keys])}
                    yield record_batch({name: pa.array(c) for name, c in columns.items()}, _PLACED)
            yield _described(out)


@dataclass(frozen=True)
class _WriteKeys:
    """Sorted rows of _PLACED, with `file`, to files; a row of _PLACED for each."""

    root: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = (part for batch in batches for part in _by_file(batch))
        for number, group in groupby(parts, key=itemgetter(0)):
            with Writing(self.root, keys_name(number)) as out:
                write_keys(out, (pairs for _, pairs in group))
            yield _described(out)


def _bytes(matrix: npt.NDArray[Any], some: npt.NDArray[np.bool_]) -> pa.Array:
    """Each row's bytes; none where not `some`."""
    return pa.array([row.tobytes() if s else b"" for row, s in zip(matrix, some, strict=True)], pa.binary())


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = [column.to_pylist() for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _by_file(batch: pa.RecordBatch) -> Iterator[tuple[int, Ints]]:
    files = batch.column("file").to_numpy()
    pairs = np.column_stack([batch.column(name).to_numpy() for name in ("key", "place")])
    cuts = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), len(files)]
    for begin, end in pairwise(cuts):
        if begin < end:
            yield int(files[begin]), pairs[begin:end]


def _described(out: Writing) -> pa.RecordBatch:
    return record_batch({name: [value] for name, value in asdict(out.made).items()}, _PLACED)

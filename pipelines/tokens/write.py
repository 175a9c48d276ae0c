"""Documents to shards on Spark: encode, sort by keyed hash, write.

Which shard a document lies in and where is a function of the documents alone: the split and the order are keyed hashes of
doc_id, the number of shards of a source follows from its tokens, and a shard is a range of the hash. So the bytes are the same
for any partitioning, executor count or retry, and a task holds one Arrow batch and one record batch at a time.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.shards import MANIFEST, VERSION, Manifest, ShardFile, is_validation, order_key, write_manifest, write_shard
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode_array

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Between the two passes. Ids travel as bytes (little-endian, of the shards' dtype): Spark copies them whole, and has no
# unsigned integers. `key`: order_key - 2**63, so that Spark's signed order is the order of the hash.
_ENCODED = "source string, split string, key long, doc_id binary, size long, tokens binary"
_FILES = "path string, source string, split string, rows long, tokens long, sha256 string"


@dataclass(frozen=True)
class ShardConfig:
    """`target_bytes`: about the bytes of ids a file; `validation_share`: of documents, held out by a hash of doc_id."""

    target_bytes: int = 256 << 20
    validation_share: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target_bytes < 1 or not 0 <= self.validation_share < 1:
            raise ValueError(
                f"target_bytes {self.target_bytes} must be positive and validation_share {self.validation_share} in [0, 1)"
            )


def write_shards(
    df: DataFrame, cfg: ShardConfig, root: str | Path, tokenizer: TokenizerInfo, recipe: str, fingerprint: str
) -> Manifest:
    """Encode (doc_id, source, text) and write ROOT, manifest last; returns the manifest.

    ROOT is a folder that the driver and all workers reach under one path. What an earlier, killed run left in it is removed.
    The driver sees one row a shard. Raises UserError if there are no documents.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    root = Path(root).absolute()
    (root / MANIFEST).unlink(missing_ok=True)
    root.mkdir(parents=True, exist_ok=True)
    encoded = (
        df.select("doc_id", "source", "text").mapInArrow(_Encode(cfg, tokenizer), _ENCODED).persist(StorageLevel.DISK_ONLY)
    )
    try:
        totals = encoded.groupBy("source", "split").agg(F.sum("size").alias("bytes")).orderBy("source", "split").collect()
        if not totals:
            raise UserError("there are no documents to write as shards: all were dropped; see the report, or widen the inputs")
        if "train" not in {r["split"] for r in totals}:
            raise UserError("all documents fell to validation; lower shards.validation_share or add documents")
        shards = {(r["source"], r["split"]): -(-r["bytes"] // cfg.target_bytes) for r in totals}
        placed = encoded.select("*", _number(shards).alias("shard")).repartition(
            sum(shards.values()), "source", "split", "shard"
        )
        ordered = placed.sortWithinPartitions("source", "split", "shard", "key", "doc_id")
        rows = ordered.mapInArrow(_Write(str(root), tokenizer.dtype), _FILES).collect()
    finally:
        encoded.unpersist()
    files = sorted((ShardFile(**row.asDict()) for row in rows), key=operator.attrgetter("source", "split", "path"))
    _remove_stale(root, {f.path for f in files})
    manifest = Manifest(
        version=VERSION,
        dtype=tokenizer.dtype,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        tokenizer_sha256=tokenizer.sha256,
        recipe=recipe,
        recipe_fingerprint=fingerprint,
        files=tuple(files),
        seed=cfg.seed,
    )
    write_manifest(root, manifest)
    return manifest


def _number(shards: dict[tuple[str, str], int]) -> Column:
    """The shard of a row: the range of the hash it lies in, of as many equal ranges as its source and split has shards."""
    from pyspark.sql import functions as F

    count = F.lit(1)
    for (source, split), number in shards.items():
        if number > 1:
            count = F.when((F.col("source") == source) & (F.col("split") == split), F.lit(number)).otherwise(count)
    # the upper 32 bits decide, so that the product fits a long
    return F.shiftright((F.shiftright("key", 32) + F.lit(1 << 31)) * count.cast("long"), 32).cast("int")


@dataclass(frozen=True)
class _Encode:
    """Arrow batches of (doc_id, source, text) to rows of _ENCODED."""

    cfg: ShardConfig
    tokenizer: TokenizerInfo

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        seed, share, dtype = self.cfg.seed, self.cfg.validation_share, np.dtype(self.tokenizer.dtype).newbyteorder("<")
        how = EncodeConfig(self.tokenizer.path, self.tokenizer.sha256, self.tokenizer.eos)
        for batch in batches:
            ids: list[Any] = batch.column("doc_id").to_pylist()
            tokens, offsets = encode_array(batch.column("text"), how, batch.column("doc_id"))
            places = offsets * dtype.itemsize
            columns: dict[str, Any] = {
                "source": batch.column("source"),
                "split": ["validation" if is_validation(seed, i, share) else "train" for i in ids],
                "key": pa.array([order_key(seed, i) - 2**63 for i in ids], pa.int64()),
                "doc_id": batch.column("doc_id"),
                "size": pa.array(np.diff(places)),
                "tokens": _binary(tokens.astype(dtype), places),
            }
            yield pa.record_batch(columns)


def _binary(data: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> Any:
    """A binary array of bytes that lie one after the other, without a copy."""
    if places[-1] >= 1 << 31:
        raise UserError(f"a batch has {places[-1]} bytes of ids, more than Spark takes at once; make Arrow batches smaller")
    buffers = [None, pa.py_buffer(places.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(places) - 1, buffers)


@dataclass(frozen=True)
class _Write:
    """Sorted rows of _ENCODED, with `shard`, to files; one row of _FILES each. A retry writes the same files again."""

    root: str
    dtype: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for (source, split, shard), rows in groupby(self._rows(batches), key=operator.itemgetter(0)):
            ids, tokens = tee(rows)  # read in step, so that one row waits at most
            file = write_shard(self.root, source, split, shard, (r[1] for r in ids), (r[2] for r in tokens), self.dtype)
            yield pa.RecordBatch.from_pylist([dataclasses.asdict(file)])

    def _rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[tuple[str, str, int], bytes, npt.NDArray[Any]]]:
        dtype = np.dtype(self.dtype).newbyteorder("<")
        for batch in batches:
            columns = (batch.column(name).to_pylist() for name in ("source", "split", "shard", "doc_id", "tokens"))
            for source, split, shard, doc_id, tokens in zip(*columns, strict=True):
                yield (source, split, shard), doc_id, np.frombuffer(tokens, dtype)


def _remove_stale(root: Path, listed: set[str]) -> None:
    for path in sorted(root.glob("**/*"), reverse=True):  # what a folder holds comes before it
        if path.is_file() and path.relative_to(root).as_posix() not in listed:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()

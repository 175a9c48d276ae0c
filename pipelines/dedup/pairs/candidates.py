"""Candidates of near duplicates on Spark: signatures, ranks, buckets, pairs (LSH; Leskovec et al., section 3.4).

    texts -> band keys and a sketch -> rank in the survivor order -> buckets -> pairs -> the likely ones

A document is a rank from here on: one integer, less for the better of two, so that rows are small and the order goes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, LongType, StructField, StructType

from pipelines.dedup.decide import small_side, undecided, wide_batches
from pipelines.dedup.minhash import MinhashConfig, bands, estimate, has_shingles, signatures, sketch
from pipelines.dedup.order import order_columns, sort_keys
from pipelines.dedup.pairs.buckets import PAIRS, bucket_pairs
from pipelines.dedup.pairs.components import cut, cut_and_sum
from pipelines.spark import to_spark_schema

SKETCH = 256  # values of a signature that the sketch keeps at most
_DEVIATIONS = 4.0  # a pair whose estimate is so many standard deviations under the threshold is no candidate


def ranked(df: DataFrame, minhash: MinhashConfig, order: tuple[str, ...]) -> DataFrame:
    """The undecided documents that have shingles: `rank`, `doc_id`, `keys` (one a band), `sketch`, `head`.

    `rank` is unique, and less for the better of two documents; `head` is the least rank of those with the same keys.
    """
    documents = df.where(undecided()).select("doc_id", *order_columns(df, order), "text")
    fields = [f for f in documents.schema if f.name != "text"]
    schema = StructType([*fields, StructField("keys", ArrayType(LongType())), StructField("sketch", BinaryType())])

    def sign(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield signed(batch, minhash)

    signs = cut(documents.mapInArrow(sign, schema))  # the sort samples it first
    by_rank = signs.sort(*sort_keys(order)).select(F.monotonically_increasing_id().alias("rank"), "doc_id", "keys", "sketch")
    head = F.min("rank").over(Window.partitionBy(F.xxhash64("keys")))
    return cut(by_rank.select("*", head.alias("head")))


def signed(batch: pa.RecordBatch, cfg: MinhashConfig) -> pa.RecordBatch:
    """The batch with `keys` and `sketch` in place of `text`, less the documents without shingles."""
    values = signatures(batch.column("text"), cfg)
    full = has_shingles(values)
    batch = batch.drop_columns(["text"]).filter(pa.array(full))
    keys, short = bands(values[full], cfg), sketch(values[full])[:, :SKETCH]
    return batch.append_column("keys", _lists(keys)).append_column("sketch", _blobs(short))


def paired(index: DataFrame, hubs: int) -> tuple[DataFrame, DataFrame, dict[str, Any]]:
    """Pairs of ranks that share a band: `a`, and `b` before it, each once; and the hot buckets (`key`, `members`).

    Documents whose keys are all the same are paired with the best of them, which alone goes into the buckets. Third, numbers:
    of `pairs`, of `hot` buckets, and of the `members` of these in all and of the `largest` (None where there are none).
    """

    def pair(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return bucket_pairs(batches, hubs)

    heads = index.where("rank = head").select(F.explode("keys").alias("key"), "rank")
    buckets = heads.repartition("key").sortWithinPartitions("key", "rank")
    with wide_batches(index.sparkSession):
        found, of_hot = cut_and_sum(
            buckets.mapInArrow(pair, to_spark_schema(PAIRS)),
            hot=F.count("key"), members=F.sum("members"), largest=F.max("members"),
        )  # fmt: skip
    alike = index.where("rank > head").select(F.col("rank").alias("a"), F.col("head").alias("b"))
    once = found.where("a is not null").select("a", "b").distinct()
    pairs, of_pairs = cut_and_sum(once.union(alike), pairs=F.count(F.lit(1)))
    return pairs, found.where("key is not null").select("key", "members"), of_pairs | of_hot


def likely(
    pairs: DataFrame, number: int, index: DataFrame, threshold: float, minhash: MinhashConfig
) -> tuple[DataFrame, dict[str, Any]]:
    """The pairs, `number` in all, whose sketches do not say that they are far below the threshold; and how many (`pairs`).

    A pair at the threshold is lost with probability 3e-5 (four standard deviations of the estimate); what goes are pairs that
    met by chance, which would make components of documents that have nothing in common.
    """
    values = min(minhash.bands * minhash.rows, SKETCH)
    least = threshold - _DEVIATIONS * (threshold * (1 - threshold) / values) ** 0.5

    def keep(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            mine, other = (_bytes(batch.column(name), values) for name in ("mine", "other"))
            yield batch.select(["a", "b"]).filter(pa.array(estimate(mine, other) >= least))

    of_a = index.select(F.col("rank").alias("a"), F.col("sketch").alias("mine"))
    of_b = index.select(F.col("rank").alias("b"), F.col("sketch").alias("other"))
    both = of_b.join(small_side(of_a.join(small_side(pairs, number), "a"), number), "b")
    with wide_batches(index.sparkSession):
        near = both.select("a", "b", "mine", "other").mapInArrow(keep, "a long, b long")
        return cut_and_sum(near, pairs=F.count(F.lit(1)))


def _lists(keys: npt.NDArray[np.int64]) -> pa.Array:
    """Each row as a list of its values."""
    offsets = pa.array(np.arange(0, keys.size + 1, keys.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(keys.ravel()))


def _blobs(rows: npt.NDArray[np.uint8]) -> pa.Array:
    """Each row as a binary value."""
    offsets = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(rows.tobytes())])


def _bytes(column: pa.Array, width: int) -> npt.NDArray[np.uint8]:
    """The reverse of `_blobs`: shape (rows, width)."""
    if not len(column):
        return np.empty((0, width), np.uint8)
    data = column.to_numpy(zero_copy_only=False)
    return np.frombuffer(b"".join(data), np.uint8).reshape(len(column), width)

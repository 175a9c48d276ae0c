"""Near duplicates: MinHash-LSH candidates, verified by exact Jaccard similarity with the document that survives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, LongType, StructField, StructType

from pipelines.dedup.components import connected_components, cut
from pipelines.dedup.decide import drop, undecided, with_decision
from pipelines.dedup.minhash import NO_SHINGLES, MinhashConfig, bands, signatures
from pipelines.dedup.order import ORDER, order_columns, sort_keys
from pipelines.dedup.verify import verify
from pipelines.recipe import table_stage

log = logging.getLogger(__name__)

_SMALL = 50_000  # rows of ids that are sent to every task instead of shuffling texts to them: about 5 MB


@dataclass(frozen=True)
class NearConfig:
    """`threshold`: least exact Jaccard similarity with the survivor at which a document goes.

    .75 is what FineWeb aims its 14 bands of 8 at (Penedo et al. 2024). `order`: the best document survives (order.py).
    `hubs`: in a bucket of the index each document is compared with that many of the best before it, so that buckets
    of up to `hubs` + 1 are compared completely and greater ones in linear time; how many are greater is logged.
    """

    threshold: float = 0.75
    minhash: MinhashConfig = field(default_factory=MinhashConfig)
    order: tuple[str, ...] = ORDER
    hubs: int = 8
    max_rounds: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be in (0, 1]")
        for name in ("hubs", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@table_stage()
def near_duplicates(df: DataFrame, cfg: NearConfig) -> DataFrame:
    """Drop documents whose exact Jaccard similarity with a better, kept one reaches the threshold: `near_duplicates.jaccard`.

    `drop_value` is that similarity, `duplicate_of` the kept document. Expects each doc_id once (after exact_duplicates),
    and reads `df` three times, so pass a materialised table. Texts leave their place only where their document has a
    candidate. The same rows go for every partitioning and every plan. Raises NotConverged (components.py).
    """
    df = with_decision(df)
    pairs = candidates(df, cfg)
    if pairs.isEmpty():
        return df
    found = cut(_verified(df, pairs, cfg))
    found = found.select("doc_id", F.col("survivor").alias("_survivor"), F.col("jaccard").alias("_jaccard"))
    removed = found.count()
    log.info("near duplicates: %d documents removed", removed)
    marked = df.join(F.broadcast(found) if removed <= _SMALL else found, "doc_id", "left")
    marked = drop(
        marked, F.col("_survivor").isNotNull(), "near_duplicates.jaccard", F.col("_jaccard"), cfg.threshold, F.col("_survivor")
    )
    return marked.select(*df.columns)


def candidates(df: DataFrame, cfg: NearConfig) -> DataFrame:
    """Pairs of doc_ids that share a band: `a`, and `b` that is before it in the survivor order. Repeats are possible.

    Computed and cut from its lineage. Greater buckets than `hubs` + 1 are counted in the log.
    """
    buckets = bucket_keys(df, cfg).select("*", F.explode("_keys").alias("_key")).drop("_keys")
    by_key = Window.partitionBy("_key").orderBy(*sort_keys(cfg.order))
    before = by_key.rowsBetween(Window.unboundedPreceding, -1)
    best = [F.nth_value("doc_id", i + 1).over(before) for i in range(cfg.hubs)]
    ranked = buckets.select(F.col("doc_id").alias("a"), F.row_number().over(by_key).alias("rank"), F.array(*best).alias("best"))
    pairs = cut(ranked.where("rank > 1").select("a", "rank", F.explode(F.array_compact("best")).alias("b")).where("a != b"))
    _report_hot(pairs, cfg)
    return pairs.select("a", "b")


def bucket_keys(df: DataFrame, cfg: NearConfig) -> DataFrame:
    """`doc_id`, the order's columns and `_keys` (one 64-bit key a band) of the undecided documents that have shingles."""
    documents = df.where(undecided()).select("doc_id", *order_columns(df, cfg.order), "text")
    fields = [f for f in documents.schema if f.name != "text"]
    schema = StructType([*fields, StructField("_keys", ArrayType(LongType()))])
    minhash = cfg.minhash

    def keys(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield with_keys(batch, minhash)

    return documents.mapInArrow(keys, schema)


def with_keys(batch: pa.RecordBatch, cfg: MinhashConfig) -> pa.RecordBatch:
    """The batch with `_keys` for `text`, without the rows that have no shingles."""
    sketches = signatures(batch.column("text"), cfg)
    some = (sketches != NO_SHINGLES).any(axis=1)
    keys = pa.FixedSizeListArray.from_arrays(pa.array(bands(sketches[some], cfg).ravel()), cfg.bands)
    return batch.drop_columns(["text"]).filter(pa.array(some)).append_column("_keys", keys.cast(pa.list_(pa.int64())))


def _report_hot(pairs: DataFrame, cfg: NearConfig) -> None:
    # a document of rank r in its bucket was compared with `hubs` of the r - 1 before it
    over = F.col("rank") - 1 - cfg.hubs
    documents = pairs.where(over > 0).groupBy("a", "rank", over.alias("over")).count()
    row = documents.agg(F.count(F.lit(1)), F.max("rank"), F.sum("over")).head()
    if row is not None and row[0]:
        log.warning(
            "near duplicates: buckets of more than %d documents (the largest: %d): %d members compared with the best %d only",
            cfg.hubs + 1, row[1], row[0], cfg.hubs,
        )  # fmt: skip


def _verified(df: DataFrame, pairs: DataFrame, cfg: NearConfig) -> DataFrame:
    labels = connected_components(pairs, cfg.max_rounds).withColumnRenamed("node", "doc_id")
    linked = pairs.select(F.col("a").alias("doc_id"), F.col("b").alias("neighbour")).union(
        pairs.select("b", F.lit(None).cast(pairs.schema["b"].dataType))
    )
    members = linked.groupBy("doc_id").agg(
        F.collect_set("neighbour").alias("neighbours"), F.max(F.col("neighbour").isNull()).alias("is_neighbour")
    )
    members = cut(members.join(labels, "doc_id"))
    if members.count() <= _SMALL:
        members = F.broadcast(members)
    texts = df.where(undecided()).select("doc_id", *order_columns(df, cfg.order), "text")
    placed = texts.join(members, "doc_id").repartition("component").sortWithinPartitions("component", *sort_keys(cfg.order))
    threshold, ngram = cfg.threshold, cfg.minhash.ngram

    def decide(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return verify(batches, threshold, ngram)

    columns = placed.select("component", "doc_id", "text", "neighbours", "is_neighbour")
    return columns.mapInArrow(decide, "doc_id binary, survivor binary, jaccard double")

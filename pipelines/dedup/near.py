"""Near duplicates: MinHash-LSH candidates, verified by exact similarity with the document that survives.

    texts -> band keys and a sketch -> rank in the survivor order -> buckets -> pairs -> the likely ones -> components
          -> texts of one component in one task, best first -> what goes, for whom, how alike

Texts are read for the signatures, moved where their document has a likely candidate, and read for the result; all between is
rows of integers. Nothing but counts comes to the driver.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.dedup.decide import CLUSTER_SIZE, drop, lookup_side, small_side, undecided, with_cluster_size, with_decision
from pipelines.dedup.minhash import MinhashConfig
from pipelines.dedup.order import ORDER
from pipelines.dedup.pairs.candidates import likely, paired, ranked
from pipelines.dedup.pairs.components import connected_components, cut_and_sum
from pipelines.dedup.pairs.verify import EVIDENCE, Linkage, Measure, Rule, verify
from pipelines.dedup.quality.estimates import QualityConfig
from pipelines.recipe import Table, table_stage
from pipelines.spark import to_spark_schema

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NearConfig:
    """`threshold`: least exact similarity with the survivor at which a document goes; of Jaccard, or of containment.

    .75 is what FineWeb aims its 14 bands of 8 at (Penedo et al. 2024). `order`: the best document survives (order.py).
    `covered`: a document goes only if each run of three units of its text is in the survivor's too. `linkage`: "complete" asks
    that it be as much like each that went for the same survivor, so that any two of a cluster are alike; fewer go.

    `hubs`: in a bucket of the index each document is paired with that many of the best before it, so that buckets of up to
    `hubs` + 1 are paired completely and greater ones in linear time; these are listed in the table `hot_buckets`. `complete`:
    so many documents of a component are compared each with each, whatever their buckets. `max_rounds`: of the components
    (pairs/components.py). `quality`: how a run measures what was found (quality/measure.py).
    """

    threshold: float = 0.75
    minhash: MinhashConfig = field(default_factory=MinhashConfig)
    order: tuple[str, ...] = ORDER
    measure: Measure = "jaccard"
    covered: bool = False
    linkage: Linkage = "star"
    hubs: int = 8
    complete: int = 64
    max_rounds: int = 64
    quality: QualityConfig = field(default_factory=QualityConfig, compare=False)  # decides nothing: not in the fingerprint

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be in (0, 1]")
        for name, known in (("measure", ("jaccard", "containment")), ("linkage", ("star", "complete"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it may be {' or '.join(map(repr, known))}")
        for name, least in (("hubs", 1), ("complete", 0), ("max_rounds", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


@table_stage(version=2, adds=CLUSTER_SIZE)
def near_duplicates(df: DataFrame, cfg: NearConfig) -> Table:
    """Drop documents whose exact similarity with a better, kept one reaches the threshold: `near_duplicates.jaccard`.

    `drop_value` is that similarity, `duplicate_of` the kept document, whose `cluster_size` grows by that of the dropped one.
    Beside: `pairs` (EVIDENCE, all pairs that were found alike) and `hot_buckets` (key, members). Expects each doc_id once
    (after exact_duplicates), and reads `df` three times, so pass a materialised table. The same rows go for every partitioning
    and every plan. Raises NotConverged (components.py).
    """
    df = with_cluster_size(with_decision(df))
    index = ranked(df, cfg.minhash, cfg.order)
    pairs, hot, numbers = paired(index, cfg.hubs)
    _warn_hot(numbers, cfg)
    if cfg.measure == "jaccard":  # of containment the sketches say nothing
        pairs, numbers = likely(pairs, numbers["pairs"], index, cfg.threshold, cfg.minhash)
    evidence, gone = cut_and_sum(_verified(df, index, pairs, numbers["pairs"], cfg), number=F.count_if("survivor"))
    log.info("near duplicates: %d documents removed", gone["number"])
    return Table(_marked(df, evidence, gone["number"], cfg), {"pairs": evidence, "hot_buckets": hot})


def _verified(df: DataFrame, index: DataFrame, pairs: DataFrame, number: int, cfg: NearConfig) -> DataFrame:
    labels = connected_components(pairs, cfg.max_rounds).withColumnRenamed("node", "rank")
    of_a = pairs.select(F.col("a").alias("rank"), F.col("b").alias("before"), F.lit(False).alias("leads"))
    of_b = pairs.select(F.col("b").alias("rank"), F.lit(None).cast("long").alias("before"), F.lit(True).alias("leads"))
    ends = of_a.union(of_b).groupBy("rank")
    around = ends.agg(F.collect_set("before").alias("neighbours"), F.max("leads").alias("is_neighbour"))
    nodes = around.join(small_side(labels, 2 * number), "rank")
    found = index.select("rank", "doc_id").join(small_side(nodes, 2 * number), "rank")
    members, counted = cut_and_sum(found, number=F.count(F.lit(1)))
    texts = df.where(undecided()).select("doc_id", "text").join(lookup_side(members, **counted), "doc_id")
    placed = texts.repartition("component").sortWithinPartitions("component", "rank")
    minhash = cfg.minhash
    rule = Rule(cfg.threshold, minhash.ngram, minhash.unit, cfg.measure, cfg.covered, cfg.linkage, cfg.complete)

    def decide(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return verify(batches, rule)

    columns = placed.select("component", "rank", "doc_id", "text", "neighbours", "is_neighbour")
    return columns.mapInArrow(decide, to_spark_schema(EVIDENCE))


def _marked(df: DataFrame, evidence: DataFrame, number: int, cfg: NearConfig) -> DataFrame:
    gone = evidence.where("survivor").select("doc_id", F.col("other").alias("_survivor"), F.col("similarity").alias("_value"))
    sizes = df.select("doc_id", F.col("cluster_size").alias("_size")).join(lookup_side(gone, number), "doc_id")
    gained = sizes.groupBy(F.col("_survivor").alias("doc_id")).agg(F.sum("_size").alias("_gained"))
    marks, made = cut_and_sum(gone.unionByName(gained, allowMissingColumns=True), number=F.count(F.lit(1)))
    marked = df.join(lookup_side(marks, **made), "doc_id", "left")
    marked = marked.withColumn("cluster_size", F.col("cluster_size") + F.coalesce("_gained", F.lit(0)))
    rule = f"near_duplicates.{cfg.measure}"
    marked = drop(marked, F.col("_survivor").isNotNull(), rule, F.col("_value"), cfg.threshold, F.col("_survivor"))
    return marked.select(*df.columns)


def _warn_hot(numbers: Mapping[str, int], cfg: NearConfig) -> None:
    if numbers["hot"]:
        log.warning(
            "near duplicates: %d buckets hold more than %d documents (the largest: %d, in all: %d); there each was paired with "
            "the best %d only", numbers["hot"], cfg.hubs + 1, numbers["largest"], numbers["members"], cfg.hubs,
        )  # fmt: skip

"""Connected components on DataFrames: forests of partitions, then one task or alternating large-star and small-star.

    edges -> [ forest of each partition ] -> few edges:  one task labels them (forest.py)
                                          -> many edges: rounds of stars, until they are few or converged

Kiveris et al., "Connected Components in MapReduce and Beyond", SoCC 2014. Every round turns the edges into edges of the same
components, until each component is one star around its least node; O(log^2 n) rounds are proven, fewer than log2 n seen.
Nothing but two numbers a round comes to the driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Observation, Window
from pyspark.sql import functions as F

from pipelines.dedup.pairs import forest

ONE_TASK = 2 << 20  # edges that one task finishes: about 250 MB at most, a second or two


class NotConverged(RuntimeError):
    """The labels are not the components: an edge connects two labels, or the rounds are used up."""


def connected_components(edges: DataFrame, max_rounds: int = 64) -> DataFrame:
    """The component of every node of `edges`: columns `node` and `component` (its least node), of type long.

    `edges` has columns `a` and `b` of type long, any value, never null, in any direction, repeats and loops allowed; it is
    read once. Raises NotConverged when `max_rounds` are not enough, or when the result fails the proof: each partition's forest
    connects the ends of each of its edges, no edge of a forest connects two labels, every node has one label, and a label is
    its own. The lineage is cut every round: by `checkpoint` where the session has a checkpoint folder (then lost executors
    do no harm), by `localCheckpoint` elsewhere.
    """
    first, (left, loops, code) = _cut_and_sum(_forests(edges))
    stars, seen = first.where("a != b"), (left, code)
    rounds, before = 0, (0, 0)
    while (many := seen[0] + loops > ONE_TASK) and seen != before:
        if rounds == max_rounds:
            raise NotConverged(
                f"components have not converged after {max_rounds} rounds ({seen[0]} edges left); raise max_rounds"
            )
        before = seen
        stars, (left, _, code) = _cut_and_sum(_forests(_small_star(_large_star(stars))).distinct())
        rounds, seen = rounds + 1, (left, code)
    if many:
        labels = _labels(first, stars)
    else:
        left_over = stars.union(first.where("a = b")).coalesce(1)
        labels = cut(left_over.mapInArrow(forest.labels, "node long, component long"))
    if many or rounds:  # else the task that made the labels has held them against all of `first`
        _prove(first, labels)
    return labels


def cut(df: DataFrame) -> DataFrame:
    """`df` computed, with its lineage cut."""
    checkpointed = df.sparkSession.sparkContext.getCheckpointDir() is not None
    return df.checkpoint() if checkpointed else df.localCheckpoint()


def cut_and_sum(df: DataFrame, **sums: Column) -> tuple[DataFrame, dict[str, Any]]:
    """`cut`, and aggregates of its rows taken in the same pass, so that no job of its own counts them."""
    seen = Observation()
    observed = cut(df.observe(seen, *(value.alias(name) for name, value in sums.items())))
    return observed, seen.get


def _forests(edges: DataFrame) -> DataFrame:
    # a > b, or a = b for a node that has only loops in its partition
    most = forest.EDGES

    def shrink(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return forest.stars(batches, most)

    return edges.select("a", "b").mapInArrow(shrink, "a long, b long")


def _large_star(stars: DataFrame) -> DataFrame:
    # each node hangs its greater neighbours onto the least node around it (itself included)
    both = stars.select("a", "b").union(stars.select(F.col("b").alias("a"), F.col("a").alias("b")))
    least = F.least(F.min("b").over(Window.partitionBy("a")), F.col("a"))
    hung = both.select("a", "b", least.alias("m")).where("b > a")
    return hung.select(F.col("b").alias("a"), F.col("m").alias("b"))  # repeats go in the small star


def _small_star(stars: DataFrame) -> DataFrame:
    # each node hangs itself and its lesser neighbours onto the least of them; stars here always have a > b
    least = F.min("b").over(Window.partitionBy("a"))
    hung = stars.select("a", "b", least.alias("m"))
    moved = F.when(F.col("b") == F.col("m"), F.col("a")).otherwise(F.col("b"))  # the least one's row carries the node itself
    return hung.select(moved.alias("a"), F.col("m").alias("b"))  # repeats go in the forests and after them


def _cut_and_sum(stars: DataFrame) -> tuple[DataFrame, tuple[int, int, int]]:
    """`cut`, with the numbers of edges and of loops and the exclusive or of the edges' hashes, taken in the same pass."""
    edge = F.expr("a != b")
    code = F.bit_xor(F.when(edge, F.xxhash64("a", "b")))
    observed, seen = cut_and_sum(stars, edges=F.count_if(edge), loops=F.count_if(~edge), code=code)
    return observed, (int(seen["edges"]), int(seen["loops"]), int(seen["code"] or 0))


def _labels(first: DataFrame, stars: DataFrame) -> DataFrame:
    nodes = first.select(F.col("a").alias("node")).union(first.select(F.col("b").alias("node")))
    hung = stars.select(F.col("a").alias("node"), F.col("b").alias("component"))
    labels = nodes.select("node", F.col("node").alias("component")).union(hung)
    return cut(labels.groupBy("node").agg(F.min("component").alias("component")))


def _prove(edges: DataFrame, labels: DataFrame) -> None:
    left = labels.select(F.col("node").alias("a"), F.col("component").alias("of_a"))
    right = labels.select(F.col("node").alias("b"), F.col("component").alias("of_b"))
    own = labels.select(F.col("node").alias("a"), F.col("component").alias("b"))  # a label has itself for its label
    joined = edges.select("a", "b").union(own).join(left, "a", "left").join(right, "b", "left")
    torn = joined.where(~F.col("of_a").eqNullSafe(F.col("of_b"))).count()
    if torn:
        raise NotConverged(f"{torn} edges connect two components after convergence; this is a defect, please report it")

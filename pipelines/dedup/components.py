"""Connected components on DataFrames: alternating large-star and small-star.

Kiveris et al., "Connected Components in MapReduce and Beyond", SoCC 2014. Every round turns the edges into edges of the same
components, until each component is one star around its least node; O(log^2 n) rounds are proven, fewer than log2 n seen.
Nothing but two numbers a round comes to the driver.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Observation, Window
from pyspark.sql import functions as F


class NotConverged(RuntimeError):
    """The labels are not the components: an edge connects two labels, or the rounds are used up."""


def connected_components(edges: DataFrame, max_rounds: int = 64) -> DataFrame:
    """The component of every node of `edges`: columns `node` and `component` (its least node).

    `edges` has columns `a` and `b` of one orderable type, never null, in any direction, repeats and loops allowed; it is read
    three times, so pass it cached or `cut` where it is dear. Raises NotConverged when `max_rounds` are not enough, or when
    the result fails the check that no edge connects two labels. The lineage is cut every round: by `checkpoint` where the
    session has a checkpoint folder (then lost executors do no harm), by `localCheckpoint` elsewhere.
    """
    loopless = edges.where("a != b")
    stars, seen = _cut_and_sum(loopless.select(F.greatest("a", "b").alias("a"), F.least("a", "b").alias("b")).distinct())
    rounds, before = 0, None
    while seen[0] and seen != before:
        if rounds == max_rounds:
            raise NotConverged(
                f"components have not converged after {max_rounds} rounds ({seen[0]} edges left); raise max_rounds"
            )
        before = seen
        stars, seen = _cut_and_sum(_small_star(_large_star(stars)))
        rounds += 1
    labels = _labels(edges, stars)
    _prove(edges, labels)
    return labels


def cut(df: DataFrame) -> DataFrame:
    """`df` computed, with its lineage cut."""
    checkpointed = df.sparkSession.sparkContext.getCheckpointDir() is not None
    return df.checkpoint() if checkpointed else df.localCheckpoint()


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
    return hung.select(moved.alias("a"), F.col("m").alias("b")).distinct()


def _cut_and_sum(stars: DataFrame) -> tuple[DataFrame, tuple[int, int]]:
    """`cut`, with the number of edges and the exclusive or of their hashes, taken in the same pass."""
    seen = Observation()
    observed = cut(stars.observe(seen, F.count(F.lit(1)).alias("edges"), F.expr("bit_xor(xxhash64(a, b))").alias("hash")))
    return observed, (int(seen.get["edges"]), int(seen.get["hash"] or 0))


def _labels(edges: DataFrame, stars: DataFrame) -> DataFrame:
    nodes = edges.select(F.col("a").alias("node")).union(edges.select(F.col("b").alias("node")))
    hung = stars.select(F.col("a").alias("node"), F.col("b").alias("component"))
    labels = nodes.select("node", F.col("node").alias("component")).union(hung)
    return cut(labels.groupBy("node").agg(F.min("component").alias("component")))


def _prove(edges: DataFrame, labels: DataFrame) -> None:
    left = labels.select(F.col("node").alias("a"), F.col("component").alias("of_a"))
    right = labels.select(F.col("node").alias("b"), F.col("component").alias("of_b"))
    torn = edges.join(left, "a", "left").join(right, "b", "left").where(~F.col("of_a").eqNullSafe(F.col("of_b"))).count()
    if torn:
        raise NotConverged(f"{torn} edges connect two components after convergence; this is a defect, please report it")

"""What the table stages of this folder share: the DECISION columns on a DataFrame, who still takes part, how rows travel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.schema import DECISION

CLUSTER_SIZE = pa.schema([("cluster_size", pa.int64())])  # of a kept document: itself and the copies that went for it

_SPARK_TYPES = {pa.string(): "string", pa.float64(): "double", pa.binary(): "binary"}


def with_decision(df: DataFrame) -> DataFrame:
    """`df` with the DECISION columns, null where it lacked them."""
    missing = [field for field in DECISION if field.name not in df.columns]
    return df.select("*", *[F.lit(None).cast(_SPARK_TYPES[field.type]).alias(field.name) for field in missing])


def with_cluster_size(df: DataFrame) -> DataFrame:
    """`df` with the column of CLUSTER_SIZE, 1 where nothing has counted copies so far."""
    return df if "cluster_size" in df.columns else df.withColumn("cluster_size", F.lit(1).cast("long"))


def undecided() -> Column:
    """True for the rows that no rule has dropped and no error has quarantined so far."""
    return F.col("drop_rule").isNull() & F.col("error_class").isNull()


def drop(df: DataFrame, where: Column, rule: str, value: Column, bound: float, duplicate_of: Column) -> DataFrame:
    """Mark undecided rows as dropped. `where` must be without nulls; the first decision on a row stands."""
    marked = undecided() & where
    new = {
        "drop_rule": F.lit(rule),
        "drop_value": value.cast("double"),
        "drop_bound": F.lit(bound),
        "duplicate_of": duplicate_of,
    }
    # one projection: every condition sees the row as it was
    return df.select(*[F.when(marked, new[c]).otherwise(F.col(c)).alias(c) if c in new else F.col(c) for c in df.columns])


BROADCAST_ROWS = 200_000  # rows of ids that are sent to every task instead of shuffling the other side: about 25 MB
_WIDE = "spark.sql.execution.arrow.maxRecordsPerBatch"


@contextmanager
def wide_batches(spark: SparkSession, rows: int = 100_000) -> Iterator[None]:
    """Actions inside give so many rows to a batch: for tables of a few integers, where 2,000 rows are no work for a kernel."""
    before = spark.conf.get(_WIDE)
    spark.conf.set(_WIDE, str(rows))
    try:
        yield
    finally:
        spark.conf.set(_WIDE, str(before))


def lookup_side(ids: DataFrame, number: int) -> DataFrame:
    """The side of a join with texts that holds only ids: sent to all tasks where they are few, else hashed, so that no text is
    sorted. The other side is shuffled unsorted in the second case."""
    return F.broadcast(ids) if number <= BROADCAST_ROWS else ids.hint("shuffle_hash")


def small_side(rows: DataFrame, number: int) -> DataFrame:
    """The smaller side of a join of ids: sent to all tasks where they are few, else left to Spark."""
    return F.broadcast(rows) if number <= BROADCAST_ROWS else rows

"""What the table stages of this folder share: the DECISION columns on a DataFrame, and who still takes part."""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.schema import DECISION

_SPARK_TYPES = {pa.string(): "string", pa.float64(): "double", pa.binary(): "binary"}


def with_decision(df: DataFrame) -> DataFrame:
    """`df` with the DECISION columns, null where it lacked them."""
    missing = [field for field in DECISION if field.name not in df.columns]
    return df.select("*", *[F.lit(None).cast(_SPARK_TYPES[field.type]).alias(field.name) for field in missing])


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

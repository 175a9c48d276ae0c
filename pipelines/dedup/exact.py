"""Exact duplicates: the same text, or the same address, more than once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from pipelines.dedup.decide import CLUSTER_SIZE, drop, undecided, with_cluster_size, with_decision
from pipelines.dedup.order import ORDER, order_columns, sort_keys
from pipelines.dedup.text import text_digests, url_digests
from pipelines.recipe import table_stage


@dataclass(frozen=True)
class ExactConfig:
    """`order`: which of several equal documents survives (see order.py); doc_id, file and offset decide what is left."""

    order: tuple[str, ...] = ORDER


@dataclass(frozen=True)
class UrlConfig:
    """`order`: which of several captures of one address survives; the newest, unless a recipe says otherwise."""

    order: tuple[str, ...] = ("-date", "-length", "url_length")


@table_stage(version=2, adds=CLUSTER_SIZE)
def exact_duplicates(df: DataFrame, cfg: ExactConfig) -> DataFrame:
    """Keep one document of each text (NFC, runs of blanks as one space, case kept); rule `exact_duplicates.content`.

    `drop_value` is the size of the group, the bound 1. Rows that carry the same doc_id (one file fed twice) are duplicates too,
    empty texts otherwise never are. Afterwards no two kept rows have the same doc_id; the `cluster_size` of a kept row is that
    of its group. One shuffle.
    """
    return _keep_best(with_cluster_size(df), "text", text_digests, cfg.order, "exact_duplicates.content", copies=True)


@table_stage()
def url_duplicates(df: DataFrame, cfg: UrlConfig) -> DataFrame:
    """Keep one capture of each canonical address (text.canonical_url), the newest by default; rule `url_duplicates.url`.

    For crawls that come back to a page, where an older state of it is of no use. Rows without an address are kept.
    """
    return _keep_best(df, "url", url_digests, cfg.order, "url_duplicates.url")


def _keep_best(
    df: DataFrame, column: str, digests: Callable[[pa.Array], pa.Array], order: tuple[str, ...], rule: str, copies: bool = False
) -> DataFrame:
    df = with_decision(df)
    columns = df.columns
    places = [F.col(c).asc_nulls_last() for c in ("file", "offset") if c in columns]
    digest = arrow_udf(digests, "binary")(F.col(column))  # type: ignore[call-overload]  # its kind is told by its hints
    marked = df.select("*", *order_columns(df, order), undecided().alias("_live"), digest.alias("_digest"))
    # A row without a digest, or with a decision, stands alone by its doc_id.
    alone = F.col("_digest").isNull() | ~F.col("_live")
    group = Window.partitionBy("_live", alone, F.when(alone, F.col("doc_id")).otherwise(F.col("_digest")))
    ranked = group.orderBy(*sort_keys(order), *places)
    best = F.row_number().over(ranked) == 1
    size = F.when(best, F.sum("cluster_size").over(group)).otherwise(F.col("cluster_size"))
    marked = marked.select(
        *[size.alias(c) if copies and c == "cluster_size" else F.col(c) for c in columns],
        F.row_number().over(ranked).alias("_rank"),
        F.first("doc_id").over(ranked).alias("_best"),
        F.count(F.lit(1)).over(group).alias("_size"),
    )
    return drop(marked, F.col("_rank") > 1, rule, F.col("_size"), 1.0, F.col("_best")).select(*columns)

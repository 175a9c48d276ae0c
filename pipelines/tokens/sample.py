"""The texts a tokenizer is trained on and measured on: a deterministic sample, stratified by source and language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from pipelines.tokens.train import TokenizerConfig


def sample_documents(df: DataFrame, cfg: TokenizerConfig) -> pa.Table:
    """A stratified sample of columns (source, lang, text), in an order and of a content that only the rows decide.

    `df` has doc_id, source, lang, text. About `sample_bytes` of text reach the driver: a document is sent if its keyed hash
    lies below its stratum's share, and the last few over the budget are left out. Raises UserError if there is no text.
    """
    from pyspark.sql import functions as F

    hashed = df.where(F.col("text") != "").select(
        "doc_id",
        "source",
        F.coalesce("lang", F.lit("")).alias("lang"),
        F.xxhash64(F.lit(cfg.seed), "doc_id").alias("key"),
        F.left("text", F.lit(cfg.max_document_bytes)).alias("text"),
    )
    size = F.least(F.octet_length("text"), F.lit(cfg.max_document_bytes)).cast("long")
    sizes = {(r["source"], r["lang"]): r["n"] for r in hashed.groupBy("source", "lang").agg(F.sum(size).alias("n")).collect()}
    if not sizes:
        raise UserError(
            "there is no text to train a tokenizer on: all documents were dropped; see the report, or widen the inputs"
        )
    budgets = share_out(sizes, cfg.sample_bytes, cfg.temperature)
    chosen = F.lit(False)
    for (source, lang), budget in sorted(budgets.items()):
        # an eighth more than the share, so that the cut below is by bytes and not by luck
        bound = min(int(2**64 * 1.125 * budget / sizes[source, lang]) - 2**63, 2**63 - 1)
        chosen = chosen | ((F.col("source") == source) & (F.col("lang") == lang) & (F.col("key") <= F.lit(bound)))
    table = hashed.where(chosen).toArrow().sort_by([(c, "ascending") for c in ("source", "lang", "key", "doc_id")])
    return _cut(table.select(["source", "lang", "text"]), budgets, cfg.max_document_bytes)


def share_out(sizes: Mapping[Any, int], total: int, temperature: float) -> dict[Any, int]:
    """Bytes to take of each stratum: in proportion to size ** temperature, no stratum past its size, the rest shared again."""
    budgets: dict[Any, int] = {}
    left = dict(sorted(sizes.items()))
    while left:
        weights = {k: n**temperature for k, n in left.items()}
        free, weight = max(total - sum(budgets.values()), 0), sum(weights.values())
        full = {k: n for k, n in left.items() if free * weights[k] >= n * weight}
        if not full:
            return budgets | {k: int(free * weights[k] / weight) for k in left}
        budgets |= full
        left = {k: n for k, n in left.items() if k not in full}
    return budgets


def _cut(table: pa.Table, budgets: Mapping[Any, int], longest: int) -> pa.Table:
    rows, left = [], dict(budgets)
    for row in table.to_pylist():
        data = row["text"].encode()[:longest]
        stratum = row["source"], row["lang"]
        if left[stratum] > 0:
            left[stratum] -= len(data)
            rows.append({**row, "text": data.decode(errors="ignore")})  # a character cut in two is left out
    return pa.Table.from_pylist(rows, table.schema)

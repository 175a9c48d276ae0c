"""Sites that are bad as a whole, found in the corpus itself: measure every document, then drop domains where too many are hit.

A site that is mostly adult pages, or mostly lists of addresses and phone numbers, has pages that no rule on a single page
catches. Two passes: a batch stage measures (any float column will do), then the table stage here counts per domain the share of
documents above a bound, and drops all documents of the domains whose share is too high.

    Stage(bad_words, BadWordsConfig(max_hits=None)),
    Stage(pii_rate, PiiRateConfig()),
    Stage(drop_domains_by_rate, DomainRateConfig("adult", "bad_word_ratio", 0.01, max_rate=0.3), name="adult_domains"),
    Stage(drop_domains_by_rate, DomainRateConfig("pii", "pii_per_1000_chars", 5.0, max_rate=0.5), name="pii_domains"),

| rule | drops the documents of a domain |
|---|---|
| `domains.<name>` | if it has `min_documents` measured ones, more than `max_rate` of them with a `measure` above `max_value` |

`drop_value` is the rate, the bound `max_rate`, `drop_entry` the domain. The rates in the example are where to start, not
measured optima: look at `python -m pipelines inspect OUT --rule domains` before you keep them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from pipelines.dedup.decide import undecided, with_decision
from pipelines.errors import UserError
from pipelines.filter.hosts import registered_domain
from pipelines.filter.url import host
from pipelines.privacy.pii import KINDS, PII_COLUMNS, find_pii
from pipelines.recipe import batch_stage, table_stage
from pipelines.schema import with_columns

PII_RATE = pa.schema([("pii_per_1000_chars", pa.float64())])


@dataclass(frozen=True)
class DomainRateConfig:
    """Which domains are dropped. A document without a URL belongs to none; one whose measure is null or NaN is not counted."""

    name: str  # of the rule: domains.<name>
    measure: str  # a float column
    max_value: float  # a document above it is hit
    max_rate: float  # hits over measured documents, 0 to 1; a domain above it goes
    min_documents: int = 20  # measured ones; of fewer, a rate says little
    by: Literal["registered", "host"] = "registered"  # example.co.uk with all below it, or each host for itself


@dataclass(frozen=True)
class PiiRateConfig:
    """The kinds of personal data that count."""

    kinds: tuple[str, ...] = KINDS


@batch_stage(adds=PII_RATE)
def pii_rate(docs: pa.RecordBatch, cfg: PiiRateConfig) -> pa.RecordBatch:
    """Add `pii_per_1000_chars`: places with personal data in 1,000 characters of text; null without a text. Drops nothing.

    Behind `mask_pii` that stage's counts are taken, which costs nothing; before it the text is searched.
    """
    kinds = [kind for kind in KINDS if kind in cfg.kinds]
    if all(docs.schema.get_field_index(name) >= 0 for name in PII_COLUMNS.names):
        columns = [docs[f"pii_{kind}"].to_pylist() for kind in kinds]
        counts = [sum(n or 0 for n in row) for row in zip(*columns, strict=True)] if columns else [0] * docs.num_rows
    else:
        pairs = zip(docs["text"].to_pylist(), docs["lang"].to_pylist(), strict=True)
        counts = [len(find_pii(text, lang, tuple(kinds))) if text else 0 for text, lang in pairs]
    rates = [1000 * n / len(text) if text else None for n, text in zip(counts, docs["text"].to_pylist(), strict=True)]
    return with_columns(docs, {"pii_per_1000_chars": pa.array(rates, pa.float64())})


@table_stage()
def drop_domains_by_rate(df: DataFrame, cfg: DomainRateConfig) -> DataFrame:
    """Drop every document of the domains that the measure condemns; see the module. Raises UserError without the column.

    Counts are added up where the rows lie; the driver sees none of them. The result does not depend on the partitioning.
    """
    if cfg.measure not in df.columns:
        raise UserError(f"domains.{cfg.name} needs the column {cfg.measure!r}; put the stage that measures it before this one")
    df = with_decision(df)
    domain = arrow_udf(registered_domains if cfg.by == "registered" else hosts, "string")(F.col("url"))  # type: ignore[call-overload]  # its kind is told by its hints
    value = F.col(cfg.measure)
    rates = (
        df.where(undecided() & value.isNotNull() & ~F.isnan(value))
        .select(domain.alias("_domain"), (value > cfg.max_value).cast("long").alias("_hit"))
        .groupBy("_domain")
        .agg(F.count("_hit").alias("_documents"), (F.sum("_hit") / F.count("_hit")).alias("_rate"))
        .where(F.col("_domain").isNotNull() & (F.col("_documents") >= cfg.min_documents) & (F.col("_rate") > cfg.max_rate))
        .select("_domain", "_rate")
    )
    # Rows without a domain each get a key of their own (no domain has a blank), or all would meet in one partition.
    key = F.coalesce(domain, F.concat(F.lit(" "), F.hex("doc_id"), F.lit(" ")), F.lit(" "))
    found = df.withColumn("_domain", key).join(rates, "_domain", "left")
    marked = undecided() & F.col("_rate").isNotNull()
    new = {
        "drop_rule": F.lit(f"domains.{cfg.name}"),
        "drop_value": F.col("_rate"),
        "drop_bound": F.lit(float(cfg.max_rate)),
        "drop_entry": F.col("_domain"),
    }
    return found.select(*[F.when(marked, new[c]).otherwise(F.col(c)).alias(c) if c in new else F.col(c) for c in df.columns])


def registered_domains(urls: pa.Array) -> pa.Array:
    """The registered domain of each URL's host in IDNA ASCII (hosts.registered_domain); null where there is no host."""
    return pa.array([registered_domain(name) or None for name in _hosts(urls)], pa.string())


def hosts(urls: pa.Array) -> pa.Array:
    """Each URL's host in IDNA ASCII; null where there is none."""
    return pa.array([name or None for name in _hosts(urls)], pa.string())


def _hosts(urls: pa.Array) -> list[str]:
    return [host(url) if url else "" for url in urls.to_pylist()]

"""Near-duplicate removal measured on its own result: a sample (estimates.py), and counts by source, host and cluster (Spark).

What leaves the tables is bounded by constants: the sample (sample.py), its survivors, and rows of aggregates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.dedup.minhash import hit_probability
from pipelines.dedup.quality.estimates import QualityConfig, all_pairs, by_band, examples, precision, recall, to_check
from pipelines.dedup.quality.sample import COLUMNS, SAMPLE, Bounds, merged, sampled
from pipelines.recipe import Step, config_dict, fingerprint
from pipelines.rundir import BESIDE, QUALITY, read_json, write_json
from pipelines.schema import DROPPED, QUARANTINED

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from pipelines.dedup.near import NearConfig

VERSION = 1
MOST_SOURCES, MOST_HOSTS, LARGEST, PLACES, HOTTEST = 200, 30, 10, 5, 10  # rows for the report
BEGINNING = 400  # characters of a large cluster's survivor


def wanted(step: Step, folder: Path) -> str | None:
    """The fingerprint of what is to be measured of a step whose rows lie in `folder`; None where nothing is, or it is there."""
    if not step.stages or step.stages[-1].spec.name != "near_duplicates" or step.stages[-1].spec.kind != "table":
        return None
    cfg = _config(step)
    want, file = fingerprint("quality", VERSION, cfg, step.fingerprint), folder / BESIDE / QUALITY
    done = file.is_file() and read_json(file)["fingerprint"] == want
    return None if done or cfg.sample.documents == 0 else want


def write_quality(spark: SparkSession, step: Step, folder: Path, schema: pa.Schema) -> None:
    """Measure a complete step of near_duplicates into `_beside/quality.json` of its folder, for the report."""
    from pipelines.spark import spark_path
    from pipelines.tables import read_table

    (stage,) = step.stages
    rows = read_table(spark, folder, schema, outcome=None)
    if stage.sources:
        rows = rows.where(rows["source"].isin(*stage.sources))
    hot = folder / BESIDE / "hot_buckets"
    buckets = spark.read.parquet(spark_path(hot)) if hot.is_dir() else None
    measured = measure_quality(rows, stage.cfg, _config(step), buckets)
    (folder / BESIDE).mkdir(exist_ok=True)
    write_json(folder / BESIDE / QUALITY, {"fingerprint": wanted(step, folder), "stage": stage.name, **measured})


def _config(step: Step) -> QualityConfig:
    cfg: QualityConfig = step.stages[-1].cfg.quality
    return cfg


def measure_quality(
    rows: DataFrame, stage: NearConfig, cfg: QualityConfig, hot_buckets: DataFrame | None = None
) -> dict[str, Any]:
    """What the report shows, as JSON values, of a table of near_duplicates: its kept and dropped rows (`outcome`).

    Reads the texts of `rows` twice: once for the sample, once for its survivors and those of the largest clusters.
    """
    from pyspark.sql import functions as F

    seen = rows.where(rows["outcome"] != QUARANTINED)
    sources = _by_source(seen)
    documents = sum(s["documents"] for s in sources)
    sample = draw(seen, stage, cfg.sample, documents)
    found = all_pairs(sample, stage, cfg)
    checked = to_check(found, cfg)
    clusters = _clusters(seen)
    largest = clusters.orderBy(F.desc("size"), "survivor").limit(LARGEST).toArrow().to_pylist()
    wanted = {c["survivor"] for c in largest}
    if checked:
        wanted |= {*found.rows["duplicate_of"].take(checked).to_pylist()}
    survivors = _documents(seen, wanted, cfg.sample.longest)
    texts = {i: d["text"] for i, d in survivors.items() if len(d["text"]) == d["text_chars"]}
    exact = precision(found, checked, texts, stage)
    similarity = exact.pop("similarity")
    removed = sum(s["removed"] for s in sources)
    return {
        "settings": {
            "threshold": stage.threshold,
            "measure": stage.measure,
            "covered": stage.covered,
            "bands": stage.minhash.bands,
            "rows": stage.minhash.rows,
            "quality": config_dict(cfg),
        },
        "documents": documents,
        "removed": removed,
        "sample": {
            "documents": found.rows.num_rows,
            "bytes": found.rows["text"].nbytes,
            "classes": found.classes,
            "pairs": len(found.pairs),
        },
        "curve": [(s, hit_probability(s, stage.minhash)) for s in (cfg.floor + (1 - cfg.floor) * k / 60 for k in range(61))],
        "bands": [asdict(band) for band in by_band(found, stage, cfg)],
        "recall": _plain(recall(found, stage)),
        "precision": _plain(exact),
        "examples": examples(found, similarity, survivors, stage, cfg),
        "clusters": {"sizes": _sizes(clusters, documents, removed), "largest": _largest(seen, largest, survivors)},
        "sources": sources[:MOST_SOURCES],
        "hosts": _by_host(seen, cfg),
        "hot_buckets": None if hot_buckets is None else _hot(hot_buckets),
    }


def draw(seen: DataFrame, stage: NearConfig, bounds: Bounds, documents: int) -> pa.Table:
    """The sample (schema SAMPLE) of so many documents, drawn where they lie and brought together in one task."""
    from pipelines.spark import to_spark_schema

    ngram, unit = stage.minhash.ngram, stage.minhash.unit
    classes = 1 << max(-(-documents // bounds.documents) - 1, 0).bit_length()

    def of_part(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return sampled(batches, bounds, ngram, unit, classes)

    def of_all(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return merged(batches, bounds)

    schema = to_spark_schema(SAMPLE)
    drawn = seen.select(*COLUMNS).mapInArrow(of_part, schema).repartition(1).mapInArrow(of_all, schema)
    table: pa.Table = drawn.toArrow()
    return table.cast(SAMPLE)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return values | {"share": asdict(values["share"])}


def _is_removed() -> Column:
    from pyspark.sql import functions as F

    return (F.col("outcome") == DROPPED) & F.col("duplicate_of").isNotNull()


def _host() -> Column:
    """The host of an address in lower case, without user, port and "www."; empty where there is none."""
    from pyspark.sql import functions as F

    return F.coalesce(
        F.regexp_extract(F.lower("url"), r"^[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(?:www\.)?([^/?#:]+)", 1), F.lit("")
    )


def _by_source(seen: DataFrame) -> list[dict[str, Any]]:
    """Documents and removed per source, the greatest share of removed first."""
    from pyspark.sql import functions as F

    counted = seen.groupBy("source").agg(F.count(F.lit(1)).alias("documents"), F.count_if(_is_removed()).alias("removed"))
    rows = [r | {"share": r["removed"] / r["documents"]} for r in counted.toArrow().to_pylist()]
    return sorted(rows, key=lambda r: (-r["share"], -r["documents"], r["source"] or ""))


def _by_host(seen: DataFrame, cfg: QualityConfig) -> dict[str, Any]:
    """Hosts of more than `host_documents`: how many, how many lose more than `alarm`, and those that lose most."""
    from pyspark.sql import functions as F

    counted = seen.groupBy("source", _host().alias("host")).agg(
        F.count(F.lit(1)).alias("documents"), F.count_if(_is_removed()).alias("removed")
    )
    large = counted.where((F.col("documents") > cfg.host_documents) & (F.col("host") != ""))
    large = large.withColumn("share", F.col("removed") / F.col("documents"))
    number, alarms = large.agg(F.count(F.lit(1)), F.count_if(F.col("share") > cfg.alarm)).toArrow().to_pylist()[0].values()
    first = large.orderBy(F.desc("share"), F.desc("documents"), "source", "host").limit(MOST_HOSTS)
    return {"number": number, "alarms": alarms, "first": first.toArrow().to_pylist()}


def _clusters(seen: DataFrame) -> DataFrame:
    """The survivors with the number of documents of their clusters: themselves and what went for them."""
    from pyspark.sql import functions as F

    removed = seen.where(_is_removed())
    return removed.groupBy(F.col("duplicate_of").alias("survivor")).agg((F.count(F.lit(1)) + 1).alias("size"))


def _sizes(clusters: DataFrame, documents: int, removed: int) -> list[dict[str, Any]]:
    """How many clusters hold 1, 2, 3, 4-7, 8-15, ... documents (`least` to `most`), and how many documents these are."""
    from pyspark.sql import functions as F

    least = F.expr("if(size < 4, size, shiftleft(1L, length(bin(size)) - 1))")
    counted = clusters.groupBy(least.alias("least")).agg(F.count(F.lit(1)).alias("clusters"), F.sum("size").alias("documents"))
    rows = counted.orderBy("least").toArrow().to_pylist()
    alone = documents - removed - sum(r["clusters"] for r in rows)
    every = [{"least": 1, "clusters": alone, "documents": alone}, *rows]
    return [r | {"most": r["least"] if r["least"] < 4 else 2 * r["least"] - 1} for r in every]


def _largest(seen: DataFrame, largest: list[dict[str, Any]], survivors: dict[bytes, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of clusters (`survivor`, `size`): the survivor with the beginning of its text, and where most documents are from."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not largest:
        return []
    members = seen.withColumn("cluster", F.when(_is_removed(), F.col("duplicate_of")).otherwise(F.col("doc_id")))
    members = members.where(F.col("cluster").isin([c["survivor"] for c in largest]))
    counts = members.groupBy("cluster", "source", _host().alias("host")).agg(F.count(F.lit(1)).alias("documents"))
    of_cluster = Window.partitionBy("cluster")
    nth = F.row_number().over(of_cluster.orderBy(F.desc("documents"), "source", "host"))
    ranked = counts.select("*", nth.alias("nth"), F.count(F.lit(1)).over(of_cluster).alias("hosts"))
    places = ranked.where(F.col("nth") <= PLACES).orderBy("cluster", "nth").toArrow().to_pylist()
    result = []
    for cluster in largest:
        document = survivors[cluster["survivor"]]
        here = [p for p in places if p["cluster"] == cluster["survivor"]]
        result.append(
            {"size": cluster["size"], **document, "doc_id": cluster["survivor"].hex(), "text": document["text"][:BEGINNING]}
            | {"hosts": here[0]["hosts"], "places": [{k: p[k] for k in ("source", "host", "documents")} for p in here]}
        )
    return result


def _documents(seen: DataFrame, ids: set[bytes], longest: int) -> dict[bytes, dict[str, Any]]:
    """Documents by doc_id; of a text of more than `longest` characters, the beginning."""
    from pyspark.sql import functions as F

    if not ids:
        return {}
    wanted = seen.sparkSession.createDataFrame([(i,) for i in sorted(ids)], "doc_id binary")
    chars = F.length("text")
    text = F.when(chars <= longest, F.col("text")).otherwise(F.substring("text", 1, BEGINNING)).alias("text")
    rows = seen.join(F.broadcast(wanted), "doc_id", "left_semi").select(
        "doc_id", "source", "url", "lang", text, chars.alias("text_chars")
    )
    return {r["doc_id"]: r for r in rows.toArrow().to_pylist()}


def _hot(buckets: DataFrame) -> dict[str, Any]:
    """How many buckets were too great to be paired completely, their documents, and the greatest of them."""
    from pyspark.sql import functions as F

    number, members, most = buckets.agg(F.count(F.lit(1)), F.sum("members"), F.max("members")).toArrow().to_pylist()[0].values()
    first = buckets.orderBy(F.desc("members"), "key").limit(HOTTEST).select("key", "members").toArrow().to_pylist()
    return {"number": number, "members": members or 0, "most": most or 0, "first": first}

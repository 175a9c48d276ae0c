"""Compile the kernels of the recipes once, so that no run waits for it: `python -m pipelines.warm`."""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import pyarrow as pa

from pipelines.recipe import Table, load_recipe
from pipelines.schema import DECISION, RECORD, record_batch
from pipelines.tokens.encode import EncodeConfig, encode_array
from pipelines.tokens.train import TOKENIZER, TokenizerConfig, save, train_tokenizer

TEXT = "The river had been rising since the morning.\nPeople of the village came to look at it, and nobody could say how far."
RECIPES = ("demo", "web")


def main() -> int:
    """Run each batch stage that works on text or addresses over a document, table stages over a few, the encoder."""
    begin = time.monotonic()
    for name in RECIPES:
        record = {"doc_id": [bytes(16)], "source": ["web"], "url": ["https://example.org/a"], "text": [TEXT]}
        docs = record_batch(record, RECORD)
        for stage in load_recipe(name).stages:
            if stage.spec.kind == "batch" and stage.spec.name != "extract":
                made = stage.run(docs, stage.cfg)
                docs = made.select([column for column in made.schema.names if column not in DECISION.names])
    _encoder()
    _tables()
    sys.stdout.write(f"kernels are ready ({time.monotonic() - begin:.0f} s)\n")
    return 0


def _encoder() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sha256 = save(train_tokenizer([TEXT], TokenizerConfig(vocab_size=300)), folder)
        encode_array(pa.array([TEXT]), EncodeConfig(f"{folder}/{TOKENIZER}", sha256))


def _tables() -> None:
    """Kernels of table stages by a run of each: what is compiled in a worker lies in the same cache."""
    from pyspark.sql import functions as F

    from pipelines.dedup.lines import LinesConfig, repeated_lines
    from pipelines.dedup.near import NearConfig, near_duplicates
    from pipelines.dedup.quality.measure import measure_quality
    from pipelines.dedup.substrings import SubstringsConfig, repeated_substrings
    from pipelines.schema import DROPPED, KEPT
    from pipelines.spark import session, to_spark_schema

    spark = session("local[1]", app="headrace warm", settings={"spark.sql.shuffle.partitions": "1"})
    try:
        texts = [TEXT, f"{TEXT} {TEXT}", f"{TEXT} {TEXT} Nobody."]
        rows = [
            {"doc_id": bytes([n]), "source": "web", "url": f"https://example.org/{n}", "text": t} for n, t in enumerate(texts)
        ]
        schema = to_spark_schema(RECORD)
        docs = spark.createDataFrame([tuple(row.get(name) for name in RECORD.names) for row in rows], schema)
        stages: tuple[tuple[Any, Any], ...] = (
            (repeated_lines, LinesConfig(more_than=1, min_left=0)),
            (repeated_substrings, SubstringsConfig(tokens=8, min_left=0)),
            (near_duplicates, NearConfig()),
        )
        for stage, cfg in stages:
            made = stage(docs, cfg)
            made = made if isinstance(made, Table) else Table(made)
            for table in (made.rows, *made.beside.values()):
                table.toArrow()
        outcome = F.when(F.col("drop_rule").isNull(), KEPT).otherwise(DROPPED)
        measure_quality(made.rows.withColumn("outcome", outcome), cfg, cfg.quality)
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())

"""Once a machine, so that no run waits for it: compile the kernels, archive Spark's classes. `python -m pipelines.warm`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from pipelines.java import archiving
from pipelines.recipe import Input, Recipe, Stage, load_recipe
from pipelines.schema import DECISION, RECORD, record_batch

TEXT = "The river had been rising since the morning.\nPeople of the village came to look at it, and nobody could say how far."
RECIPES = ("demo", "web")


def main() -> int:
    """Run each batch stage that works on text or addresses over a document, and a small recipe of all that needs tables."""
    begin = time.monotonic()
    for name in RECIPES:
        record = {"doc_id": [bytes(16)], "source": ["web"], "url": ["https://example.org/a"], "text": [TEXT]}
        docs = record_batch(record, RECORD)
        for stage in load_recipe(name).stages:
            if stage.spec.kind == "batch" and stage.spec.name != "extract":
                made = stage.run(docs, stage.cfg)
                docs = made.select([column for column in made.schema.names if column not in DECISION.names])
    with tempfile.TemporaryDirectory() as folder, archiving() as option:
        _run(Path(folder), option)
    sys.stdout.write(f"kernels are ready ({time.monotonic() - begin:.0f} s)\n")
    return 0


def _run(folder: Path, option: str) -> None:
    """From texts to shards, in a Java of its own: what a worker compiles lies in the same cache."""
    from pyspark import SparkContext
    from rich.console import Console

    from pipelines.run import run

    words, more = TEXT.split(), "Read more"
    texts = [TEXT, f"{TEXT} {TEXT}", f"{TEXT} {TEXT} Nobody."]  # alike, a run of words in another text, a line in two
    texts += [f"{' '.join(words[::-1])}\n{more}", f"{' '.join(words[::2])}\n{TEXT}\n{more}"]
    lines = [json.dumps({"url": f"https://example.org/{n}", "text": text}) for n, text in enumerate(texts)]
    (folder / "web.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run(_recipe(folder), folder / "out", Console(quiet=True), "local[2]", {"spark.driver.extraJavaOptions": option})
    gateway = SparkContext._gateway
    if gateway is not None:  # Java ends with its input
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
        SparkContext._gateway = SparkContext._jvm = None


def _recipe(folder: Path) -> Recipe:
    from pipelines.dedup.exact import ExactConfig, exact_duplicates
    from pipelines.dedup.index.format import IndexConfig
    from pipelines.dedup.lines import LinesConfig, repeated_lines
    from pipelines.dedup.near import NearConfig, near_duplicates
    from pipelines.dedup.substrings import SubstringsConfig, repeated_substrings
    from pipelines.read.jsonl import JsonlConfig, read_jsonl
    from pipelines.tokens.train import TokenizerConfig
    from pipelines.tokens.write import ShardConfig

    stages = (
        Stage(exact_duplicates, ExactConfig()),
        Stage(near_duplicates, NearConfig()),
        Stage(repeated_substrings, SubstringsConfig(tokens=8, min_left=0)),
        Stage(repeated_lines, LinesConfig(more_than=1, min_left=0)),
    )
    inputs = (Input("web", f"{folder}/web.jsonl", read_jsonl, JsonlConfig()),)
    return Recipe(
        "warm",
        inputs,
        stages,
        index=IndexConfig(),
        tokenizer=TokenizerConfig(vocab_size=300),
        shards=ShardConfig(validation_share=0.0),
    )


if __name__ == "__main__":
    sys.exit(main())

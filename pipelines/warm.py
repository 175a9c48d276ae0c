"""Compile the kernels of the recipes once, so that no run waits for it: `python -m pipelines.warm`."""

from __future__ import annotations

import sys
import time

import pyarrow as pa

from pipelines.dedup.minhash import MinhashConfig, bands, estimate, signatures, sketch
from pipelines.dedup.shingles import jaccard_at_least, shingle_sets
from pipelines.recipe import load_recipe
from pipelines.schema import DECISION, RECORD, record_batch

TEXT = "The river had been rising since the morning.\nPeople of the village came to look at it, and nobody could say how far."
RECIPES = ("demo", "web")


def main() -> int:
    """Run each batch stage of the recipes that works on text or addresses over one document, and what compares documents."""
    begin = time.monotonic()
    _compare(MinhashConfig())
    for name in RECIPES:
        record = {"doc_id": [bytes(16)], "source": ["web"], "url": ["https://example.org/a"], "text": [TEXT]}
        docs = record_batch(record, RECORD)
        for stage in load_recipe(name).stages:
            if stage.spec.kind == "batch" and stage.spec.name != "extract":
                made = stage.run(docs, stage.cfg)
                docs = made.select([column for column in made.schema.names if column not in DECISION.names])
    sys.stdout.write(f"kernels are ready ({time.monotonic() - begin:.0f} s)\n")
    return 0


def _compare(cfg: MinhashConfig) -> None:
    texts = pa.array([TEXT, f"{TEXT} {TEXT}"])
    made = signatures(texts, cfg)
    bands(made, cfg)
    estimate(sketch(made[:1]), sketch(made[1:]))
    one, two = shingle_sets(texts, cfg.ngram)
    jaccard_at_least(one, two, 0.5)


if __name__ == "__main__":
    sys.exit(main())

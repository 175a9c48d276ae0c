"""The recipe that `bench.dedup` runs over planted duplicates: read, near duplicates, nothing else."""

from __future__ import annotations

from pipelines.dedup.minhash import MinhashConfig
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.dedup.quality.estimates import QualityConfig
from pipelines.dedup.quality.sample import Bounds
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage

UNMEASURED = QualityConfig(sample=Bounds(documents=0))  # the peer does not measure itself either
MINHASH = MinhashConfig(bands=14, rows=8, ngram=5)


def planted() -> Recipe:
    """Near duplicates at 14 x 8 over word 5-grams; --set planted.paths=FOLDER says of what."""
    return Recipe(
        name="planted",
        inputs=(Input("planted", "out/bench-dedup/texts/*.jsonl.zst", read_jsonl, JsonlConfig()),),
        stages=(Stage(near_duplicates, NearConfig(minhash=MINHASH, quality=UNMEASURED)),),
    )

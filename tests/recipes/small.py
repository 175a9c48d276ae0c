"""The demo with a quick extractor, a small vocabulary and no measurement of its duplicates; tests set the inputs."""

from dataclasses import replace

from pipelines.dedup.near import NearConfig
from pipelines.dedup.quality.estimates import QualityConfig
from pipelines.dedup.quality.sample import Bounds
from pipelines.extract.html import ExtractConfig
from pipelines.recipe import Recipe
from pipelines.recipes.demo import demo
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig


def small() -> Recipe:
    """Sources web and code; shards of about 100 kB, so that a source has several."""
    recipe = demo()
    changed = {
        "extract": ExtractConfig(engine="resiliparse", rescue=0.0),
        "near_duplicates": NearConfig(threshold=0.75, quality=QualityConfig(sample=Bounds(documents=0))),
    }
    main = Phase("main", 16_384, 128, 1024, {"web-en": 0.5, "web-zh": 0.2, "code": 0.3})
    annealing = Phase("annealing", 4096, 64, 512, {"web-en": 1.0})
    return replace(
        recipe,
        name="small",
        inputs=tuple(i for i in recipe.inputs if i.source in ("web", "code")),
        stages=tuple(replace(s, cfg=changed.get(s.name, s.cfg)) for s in recipe.stages),
        tokenizer=TokenizerConfig(vocab_size=1000, sample_bytes=1 << 20),
        shards=ShardConfig(target_bytes=100_000, validation_share=0.1),
        schedule=ScheduleConfig((main, annealing)),
    )

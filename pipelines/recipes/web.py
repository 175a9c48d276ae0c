"""A web crawl at full strength: all languages, rules that hold in all of them, verified dedup, a 100k-entry tokenizer.

python -m pipelines run web --out out/web --set web.paths=crawl/
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.extract.html import ExtractConfig, extract
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.model import ModelConfig, score_text
from pipelines.filter.rules import decide, web_rules
from pipelines.filter.url import UrlConfig, url_filter
from pipelines.privacy.pii import PiiConfig, mask_pii
from pipelines.read.warc import WarcConfig, read_warc
from pipelines.recipe import Input, Recipe, Stage
from pipelines.route import RouteConfig, route_by_language
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig


def web() -> Recipe:
    """WARC files (web.paths) to shards by language, then one epoch with annealing."""
    return Recipe(
        name="web",
        inputs=(Input("web", "crawl", read_warc, WarcConfig()),),
        stages=(
            Stage(url_filter, UrlConfig()),
            Stage(extract, ExtractConfig(engine="trafilatura"), checkpoint=True),
            Stage(identify_language, LanguageConfig(keep=(), min_score=0.5)),  # a score of .5 and up is right nine times of ten
            Stage(measure, MeasureConfig()),
            Stage(decide, web_rules()),  # the published bounds drop a third of the real pages that are not English
            Stage(score_text, ModelConfig("quality"), name="quality"),  # a column: --set quality.least=0.1 makes it a decision
            Stage(exact_duplicates, ExactConfig()),
            Stage(near_duplicates, NearConfig()),
            Stage(mask_pii, PiiConfig()),
            Stage(route_by_language, RouteConfig()),
        ),
        tokenizer=TokenizerConfig(vocab_size=100_000, preset="deepseek_llm"),
        shards=ShardConfig(),
        schedule=one_epoch,
    )


def one_epoch(source_tokens: Mapping[str, int]) -> ScheduleConfig:
    """One epoch in the natural mixture; over its last tenth the sources weigh by the square root of their size (annealing).

    Sequence length and batch are powers of two that fit the corpus, at most 4,096 and 4 Mi tokens (RECIPES: Llama 3's first).
    """
    total = sum(source_tokens.values())
    batch = min(max(1 << max((total // 200).bit_length() - 1, 0), 64), 4 << 20)
    length = min(batch, 4096)
    return ScheduleConfig(
        phases=(
            Phase("main", max(total * 9 // 10, batch), length, batch, dict(source_tokens)),
            Phase("annealing", max(total // 10, batch), length, batch, {s: n**0.5 for s, n in source_tokens.items()}),
        )
    )

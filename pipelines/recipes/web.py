"""A web crawl at full strength: every published rule, all languages, verified dedup, 100k-entry tokenizer.

python -m pipelines run web --out out/web --set web.paths=crawl/
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.extract.html import ExtractConfig, extract
from pipelines.filter.c4 import C4LinesConfig, c4_lines
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import C4, FineWeb, GopherQuality, GopherRepetition, RulesConfig, WebPage, decide
from pipelines.filter.url import UrlConfig, url_filter
from pipelines.privacy.pii import PiiConfig, mask_pii
from pipelines.read.warc import WarcConfig, read_warc
from pipelines.recipe import Input, Recipe, Stage
from pipelines.route import RouteConfig, route_by_language
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig


def web() -> Recipe:
    """WARC files (web.paths) to shards by language, one epoch with annealing; the order and rules of FineWeb, in all languages."""
    rules = RulesConfig(
        web_page=WebPage(), gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality(), c4=C4(), fineweb=FineWeb()
    )
    return Recipe(
        name="web",
        inputs=(Input("web", "crawl", read_warc, WarcConfig()),),
        stages=(
            Stage(url_filter, UrlConfig()),
            Stage(extract, ExtractConfig(engine="trafilatura"), checkpoint=True),
            Stage(identify_language, LanguageConfig(keep=())),
            Stage(c4_lines, C4LinesConfig(end_mark=False)),
            Stage(measure, MeasureConfig()),
            Stage(decide, rules),
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

"""The demo: the pages, code, mathematics and books of examples/ to shards for a small model, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.extract.html import ExtractConfig, extract
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import C4, FineWeb, GopherQuality, GopherRepetition, RulesConfig, WebPage, decide
from pipelines.filter.url import UrlConfig, url_filter
from pipelines.privacy.pii import PiiConfig, mask_pii
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.read.parquet import ParquetConfig, read_parquet
from pipelines.read.warc import WarcConfig, read_warc
from pipelines.recipe import Input, Recipe, Stage
from pipelines.route import RouteConfig, route_by_language
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
WEB = ("web",)


def demo() -> Recipe:
    """Four sources of examples/ to shards and a two-phase schedule: a general phase, then annealing on the better half."""
    rules = RulesConfig(
        web_page=WebPage(), gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality(), c4=C4(), fineweb=FineWeb()
    )
    return Recipe(
        name="demo",
        inputs=(
            Input("web", f"{EXAMPLES}/crawl/*.warc.gz", read_warc, WarcConfig()),
            Input("code", f"{EXAMPLES}/code.jsonl.gz", read_jsonl, JsonlConfig()),
            Input("math", f"{EXAMPLES}/math.jsonl.gz", read_jsonl, JsonlConfig()),
            Input("books", f"{EXAMPLES}/books.parquet", read_parquet, ParquetConfig()),
        ),
        stages=(
            Stage(url_filter, UrlConfig(), sources=WEB),
            Stage(extract, ExtractConfig(engine="trafilatura"), checkpoint=True),
            Stage(identify_language, LanguageConfig(keep=("en", "zh")), sources=WEB),
            Stage(c4_lines, C4LinesConfig(end_mark=False), sources=WEB),
            Stage(measure, MeasureConfig(), sources=WEB),
            Stage(decide, rules, sources=WEB),
            Stage(exact_duplicates, ExactConfig()),
            Stage(near_duplicates, NearConfig()),
            Stage(mask_pii, PiiConfig(), sources=WEB),  # arithmetic and code are full of look-alikes
            Stage(route_by_language, RouteConfig(sources=WEB, languages=("en", "zh"))),
        ),
        tokenizer=TokenizerConfig(vocab_size=8192, preset="deepseek_llm", sample_bytes=16 << 20),
        shards=ShardConfig(validation_share=0.03),
        schedule=ScheduleConfig(
            phases=(
                Phase("main", 800_000, 256, 2048, {"web-en": 0.30, "web-zh": 0.20, "books": 0.25, "code": 0.15, "math": 0.10}),
                Phase(
                    "annealing", 200_000, 256, 2048, {"web-en": 0.15, "web-zh": 0.15, "books": 0.40, "code": 0.10, "math": 0.20}
                ),
            )
        ),
    )

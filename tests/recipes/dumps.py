"""A recipe for one dump after the other: each is held against the indexes of those before it, and leaves one itself."""

from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.index.format import IndexConfig
from pipelines.dedup.known import KnownConfig, known_duplicates
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage


def dump() -> Recipe:
    """Source web from JSON lines; set index.dump to the dump's name, known_duplicates.index to the earlier indexes."""
    return Recipe(
        name="dump",
        inputs=(Input("web", "dump.jsonl", read_jsonl, JsonlConfig()),),
        stages=(Stage(exact_duplicates, ExactConfig()), Stage(known_duplicates, KnownConfig())),
        index=IndexConfig(),
    )

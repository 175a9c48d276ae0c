"""The text that `bench.prove_post` trains its base on: prose of DATA/prose, tokenized for a small model."""

from __future__ import annotations

import os

from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig

SOURCES = {"en": 0.4, "zh": 0.2, "code": 0.2, "math": 0.2}


def prose() -> Recipe:
    """PROSE names the folder. About four epochs in sequences of 2,048."""
    folder = os.environ.get("PROSE", "examples")
    return Recipe(
        name="prose",
        inputs=tuple(Input(name, f"{folder}/{name}.jsonl.zst", read_jsonl, JsonlConfig()) for name in SOURCES),
        stages=(Stage(exact_duplicates, ExactConfig()),),
        tokenizer=TokenizerConfig(vocab_size=16_384, preset="deepseek_llm", sample_bytes=32 << 20),
        shards=ShardConfig(validation_share=0.01),
        schedule=ScheduleConfig((Phase("main", 48_005_120, 2048, 32_768, SOURCES),)),
    )

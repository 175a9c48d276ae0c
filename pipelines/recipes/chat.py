r"""Conversations and preferences to shards with roles, in the tokenizer of the base model that is to learn them.

python -m pipelines run chat --out out/sft --set chat.paths=sft.jsonl \
    --set encode_chat.tokenizer=out/demo/tokenizer/tokenizer.json
python -m pipelines run pipelines/recipes/chat.py:preference --out out/dpo --set chat.paths=pairs.jsonl ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.chat.encode import EncodeChatConfig, encode_chat
from pipelines.chat.normalise import ChatConfig, normalise_chat
from pipelines.chat.read import RecordsConfig, read_records
from pipelines.decontaminate import DecontaminateConfig, decontaminate
from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.recipe import Input, Recipe, Stage
from pipelines.schedule import Phase, ScheduleConfig
from pipelines.tokens.write import ShardConfig

LENGTH = 4096
FULLEST = 0.99  # of a sequence, about, that best-fit packing fills


def chat() -> Recipe:
    """Conversations (chat.paths) in any known shape to shards with roles, then four epochs (DeepSeek LLM 7B, section 5)."""
    return _recipe("chat", four_epochs)


def preference() -> Recipe:
    """Preferences (chat.paths) to shards with roles, then one epoch (DeepSeek LLM, section 5, DPO)."""
    return _recipe("preference", one_epoch)


def four_epochs(source_tokens: Mapping[str, int]) -> ScheduleConfig:
    """All sources in their natural mixture, four times."""
    return packed(source_tokens, 4)


def one_epoch(source_tokens: Mapping[str, int]) -> ScheduleConfig:
    """All sources in their natural mixture, once."""
    return packed(source_tokens, 1)


def packed(source_tokens: Mapping[str, int], epochs: float, length: int = LENGTH) -> ScheduleConfig:
    """So many epochs of whole documents in sequences of `length`, 1 to 64 of them a batch, which makes about 200 steps."""
    tokens = int(epochs * sum(source_tokens.values()) / FULLEST)
    sequences = min(max(1 << max((tokens // length // 200).bit_length() - 1, 0), 1), 64)
    phase = Phase("chat", max(tokens, sequences * length), length, sequences * length, dict(source_tokens), packing="best_fit")
    return ScheduleConfig((phase,))


def _recipe(name: str, schedule: Callable[[Mapping[str, int]], ScheduleConfig]) -> Recipe:
    return Recipe(
        name=name,
        inputs=(Input("chat", "chat", read_records, RecordsConfig()),),
        stages=(
            Stage(normalise_chat, ChatConfig()),
            Stage(identify_language, LanguageConfig(keep=(), min_score=0.0)),  # named, not judged: a question may be a formula
            Stage(decontaminate, DecontaminateConfig()),
            Stage(encode_chat, EncodeChatConfig(context=LENGTH)),
            Stage(exact_duplicates, ExactConfig()),
            Stage(near_duplicates, NearConfig()),
        ),
        tokenizer="encode_chat",
        shards=ShardConfig(validation_share=0.02),
        schedule=schedule,
    )

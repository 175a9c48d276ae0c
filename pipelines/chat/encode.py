"""Conversations to token ids with roles: a batch stage, with the tokenizer of the base model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop
from pipelines.shards import ShardError
from pipelines.shards.roles import ANSWER, CONTEXT, Codes
from pipelines.shards.template import WRITTEN, Ids, Markers, Template, Turn, markers, render
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode_array, tokenizer_info

# Ids in the shards' dtype and codes of roles.py, bytes each: what write_shards takes as they are.
TOKENS = pa.schema([("tokens", pa.binary()), ("roles", pa.binary())])


@dataclass(frozen=True)
class EncodeChatConfig:
    """`tokenizer`: the base model's tokenizer.json; `context`: most tokens of a document, all its sequences together."""

    tokenizer: str = ""
    context: int = 4096
    template: Template = field(default_factory=Template)

    def __post_init__(self) -> None:
        if self.context < 8:
            raise ValueError(f"context is {self.context}; a question and its answer take 8 tokens or more")

    @property
    def eos(self) -> str:
        """The token that ends a sequence."""
        return self.template.eos

    def files(self) -> tuple[str, ...]:
        """What decides beside the config: the tokenizer."""
        if not self.tokenizer:
            raise UserError(
                "a conversation is written with the tokenizer of the base model, and none is given; "
                "use --set encode_chat.tokenizer=OUT/tokenizer/tokenizer.json, with the OUT of the base's run"
            )
        return (self.tokenizer,)


@batch_stage(adds=TOKENS)
def encode_chat(batch: pa.RecordBatch, cfg: EncodeChatConfig) -> pa.RecordBatch:
    """Add `tokens` and `roles` (TOKENS) of `messages` and `answers`; drops `chat.too_long` (value: tokens, bound: context).

    Raises UserError for a tokenizer without the tokens of the template.
    """
    info, marks = load_chat(cfg)
    documents = list(zip(batch["messages"].to_pylist(), batch["answers"].to_pylist(), strict=True))
    texts = [part["content"] for document in documents for parts in document for part in parts]
    ids, ends = encode_array(pa.array(texts, pa.large_string()), EncodeConfig(info.path, info.sha256, info.eos))
    encoded = iter([ids[start : stop - 1] for start, stop in pairwise(ends.tolist())])  # without its eos
    rendered = [_document(*document, encoded, marks) for document in documents]
    kind = np.dtype(info.dtype).newbyteorder("<")
    lengths = pa.array([len(codes) for _, codes in rendered], pa.float64())
    batch = batch.append_column("tokens", pa.array([tokens.astype(kind).tobytes() for tokens, _ in rendered], pa.binary()))
    batch = batch.append_column("roles", pa.array([codes.tobytes() for _, codes in rendered], pa.binary()))
    return drop(batch, [len(codes) > cfg.context for _, codes in rendered], "chat.too_long", lengths, float(cfg.context))


def load_chat(cfg: EncodeChatConfig) -> tuple[TokenizerInfo, Markers]:
    """The tokenizer and its markers. Raises UserError if it cannot be read, or has none."""
    cfg.files()
    return _load(cfg.tokenizer, cfg.template)


@lru_cache(maxsize=4)
def _load(path: str, template: Template) -> tuple[TokenizerInfo, Markers]:
    info = tokenizer_info(path, template.eos)
    tokenizer = Tokenizer.from_file(path)
    special = {t.content: number for number, t in tokenizer.get_added_tokens_decoder().items() if t.special}
    try:
        return info, markers(template, special.get)
    except ShardError as error:
        raise UserError(f"tokenizer {path}: {error}") from error


def _document(
    messages: list[dict[str, Any]], answers: list[dict[str, Any]], encoded: Iterator[Any], marks: Markers
) -> tuple[Ids, Codes]:
    learnt = CONTEXT if answers else ANSWER
    turns = [Turn(m["role"], next(encoded), learnt if m["role"] in WRITTEN else CONTEXT) for m in messages]
    last = [Turn("assistant", next(encoded), a["grade"]) for a in answers]
    sequences = [render([*turns, answer], marks) for answer in last] or [render(turns, marks)]
    return np.concatenate([ids for ids, _ in sequences]), np.concatenate([codes for _, codes in sequences])

"""Train a byte-level BPE tokenizer, or extend one, on a deterministic sample of the corpus (sample.py).

The same corpus gives the same bytes of tokenizer.json whatever the partitioning: the sample is chosen by a keyed hash of
doc_id and trained on in that order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from pipelines.shards import write_atomic
from pipelines.tokens.presets import PUBLISHED_SIZE, SPECIAL_TOKENS, TOKENIZER, Preset, byte_level

Guard = Literal["characters", "sample"]


@dataclass(frozen=True)
class TokenizerConfig:
    """How the tokenizer is trained.

    `vocab_size`: entries, special tokens among them. `special_tokens`: the first ends every document. `sample_bytes`: UTF-8
    bytes of text to train on, shared out over strata of source and language in proportion to bytes ** `temperature` (1 as
    they are, 0 all alike; Conneau et al. 2020, XLM-R, section 3.1). A document longer than `max_document_bytes` counts and is
    read up to there.

    `base`: a tokenizer.json to extend (extend.py) instead of training anew, with `extra` entries learnt on the languages or
    sources that `extend_on` names; it keeps its own pattern, entries and ids, so `preset` and `vocab_size` say nothing then.
    `guard`: what keeps the ids of all other text. "characters": no new entry is made of characters that the other documents
    are written in. "sample": one may be, if it occurs nowhere in them; for a language of the same script.
    """

    vocab_size: int = 32_000
    preset: Preset = "deepseek_llm"
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    sample_bytes: int = 256 << 20
    temperature: float = 0.7
    max_document_bytes: int = 1 << 16
    seed: int = 0
    base: str = ""
    extra: int = 28_000
    extend_on: tuple[str, ...] = ()
    guard: Guard = "characters"

    def __post_init__(self) -> None:
        least = 256 + len(self.special_tokens)
        if self.preset not in get_args(Preset):
            raise ValueError(f"preset {self.preset!r} is none of {', '.join(get_args(Preset))}")
        if self.guard not in get_args(Guard):
            raise ValueError(f"guard {self.guard!r} is none of {', '.join(get_args(Guard))}")
        if self.vocab_size < least:
            raise ValueError(f"vocab_size {self.vocab_size} holds not even bytes and special tokens; take {least} or more")
        if not 0 <= self.temperature <= 1 or min(self.sample_bytes, self.max_document_bytes) < 1 or not self.special_tokens:
            raise ValueError("temperature lies in [0, 1], sample_bytes and max_document_bytes are positive, an eos is needed")
        if self.extra < 1:
            raise ValueError(f"extra is {self.extra}, but an extension adds at least one entry")

    @classmethod
    def named(cls, preset: str) -> TokenizerConfig:
        """A published tokenizer's pattern and size, to be trained on our corpus. Raises ValueError for an unknown name."""
        known = {name: cls(preset=name, vocab_size=size) for name, size in PUBLISHED_SIZE.items()}
        if preset not in known:
            raise ValueError(f"there is no tokenizer {preset!r}; known are {', '.join(known)}")
        return known[preset]

    def files(self) -> tuple[str, ...]:
        """What decides beside the config: the base's file."""
        return (self.base,) if self.base else ()


def train_tokenizer(texts: Iterable[str], cfg: TokenizerConfig) -> Tokenizer:
    """A byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019, section 2.2) trained on texts.

    All 256 bytes are in the vocabulary, so every text can be encoded. Where the texts have fewer pairs that occur twice than
    `vocab_size` asks for, the vocabulary is smaller.
    """
    tokenizer = byte_level(cfg.preset)
    trainer = trainers.BpeTrainer(
        vocab_size=cfg.vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in cfg.special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: str | Path) -> str:
    """Write `folder`/tokenizer.json atomically; returns the SHA-256 of its bytes."""
    return _write(Path(folder), (tokenizer.to_str(pretty=True) + "\n").encode())


def copy(path: str | Path, folder: str | Path) -> str:
    """Another run's tokenizer as `folder`/tokenizer.json, byte for byte; returns the SHA-256 of its bytes."""
    return _write(Path(folder), Path(path).read_bytes())


def _write(folder: Path, data: bytes) -> str:
    write_atomic(folder / TOKENIZER, data)
    return hashlib.sha256(data).hexdigest()

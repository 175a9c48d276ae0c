"""A sample of texts becomes a tokenizer, trained anew or extended from a base, and what is to be said of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.tokens.compression import use
from pipelines.tokens.extend import Extension, extend, load_base
from pipelines.tokens.train import TokenizerConfig, train_tokenizer


def fit(sample: pa.Table, cfg: TokenizerConfig) -> tuple[Tokenizer, Extension | None]:
    """The tokenizer of a sample (columns source, lang, text); with a base, what became of it. Raises UserError."""
    if not cfg.base:
        return train_tokenizer(sample["text"].to_pylist(), cfg), None
    return extend(load_base(cfg.base), sample, cfg)


def facts(tokenizer: Tokenizer, sample: pa.Table, cfg: TokenizerConfig, extension: Extension | None) -> dict[str, Any]:
    """For the tokenizer's manifest and the report: entries, compression per source and language (of a base too), usage."""
    usage = use(tokenizer, sample)
    said = {
        "vocab_size": tokenizer.get_vocab_size(with_added_tokens=True),
        "sample_bytes": sum(c.bytes for c in usage.compression),
        **usage.to_json(),
    }
    if extension is None:
        return said | {"preset": cfg.preset}
    before = [c.to_json() for c in use(load_base(cfg.base), sample).compression]
    return said | {"extension": {"base": cfg.base, "extend_on": [*cfg.extend_on], **asdict(extension), "compression": before}}

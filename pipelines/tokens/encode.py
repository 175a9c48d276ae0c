"""Text to token ids: a batch stage around `tokenizers`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.tokens.train import EOS

CHUNK_CHARACTERS = 4 << 20  # of text encoded at once: an encoding takes some 100 bytes a token until its ids are copied

TOKENS = pa.schema([("tokens", pa.list_(pa.uint32()))])


@dataclass(frozen=True)
class TokenizerInfo:
    """A tokenizer file and what shards must know of it. `vocab_size`: largest id, added tokens included, plus one."""

    path: str
    sha256: str
    vocab_size: int
    eos_id: int
    eos: str = EOS

    @property
    def dtype(self) -> str:
        """The smallest type of the shard format that holds every id."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True)
class EncodeConfig:
    """`tokenizer`: path of a tokenizer.json that every worker can read; `sha256` of its bytes; `eos`: ends each document."""

    tokenizer: str
    sha256: str
    eos: str = EOS


def tokenizer_info(path: str | Path, eos: str = EOS) -> TokenizerInfo:
    """What a tokenizer.json holds. Raises UserError if it cannot be read or has no `eos`."""
    try:
        data = Path(path).read_bytes()
        tokenizer = Tokenizer.from_str(data.decode())
    except OSError as error:
        raise UserError(f"tokenizer {path}: {error.strerror}") from error
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"tokenizer {path} is no tokenizer.json ({error}); train it again") from error
    eos_id = tokenizer.token_to_id(eos)
    if eos_id is None:
        raise UserError(f"tokenizer {path} has no token {eos!r} to end documents with; name its own in `eos`")
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return TokenizerInfo(str(path), hashlib.sha256(data).hexdigest(), vocab_size, eos_id, eos)


@lru_cache(maxsize=4)
def _load(path: str, sha256: str) -> Tokenizer:
    data = Path(path).read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise UserError(f"tokenizer {path} has sha256 {found}, the run was started with {sha256}; run again with one tokenizer")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a Spark task has one core; its threads would fight for it
    tokenizer = Tokenizer.from_str(data.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a page is text, never the special id
    return tokenizer


def encode_texts(texts: Sequence[str], cfg: EncodeConfig) -> Iterator[npt.NDArray[np.uint32]]:
    """The ids of each text, eos last, in order; a shape (tokens,) each. Memory: `CHUNK_CHARACTERS` or one text at a time."""
    tokenizer = _load(cfg.tokenizer, cfg.sha256)
    eos = tokenizer.token_to_id(cfg.eos)
    start = 0
    while start < len(texts):
        stop, characters = start + 1, len(texts[start])
        while stop < len(texts) and characters + len(texts[stop]) <= CHUNK_CHARACTERS:
            characters += len(texts[stop])
            stop += 1
        for encoding in tokenizer.encode_batch_fast(list(texts[start:stop]), add_special_tokens=False):
            yield np.array([*encoding.ids, eos], np.uint32)
        start = stop


@batch_stage(adds=TOKENS)
def encode(batch: pa.RecordBatch, cfg: EncodeConfig) -> pa.RecordBatch:
    """Add `tokens`, list<uint32>: the ids of `text`, eos last; null where the text is null."""
    texts: Any = batch.column("text")
    present = [t for t in texts.to_pylist() if t is not None]
    arrays = encode_texts(present, cfg)
    rows = [next(arrays) if valid else None for valid in texts.is_valid().to_pylist()]
    return batch.append_column("tokens", pa.array(rows, TOKENS.field("tokens").type))

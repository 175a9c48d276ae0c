"""Train a byte-level BPE tokenizer on a deterministic sample of the corpus.

The same corpus gives the same bytes of tokenizer.json whatever the partitioning: the sample is chosen by a keyed hash of
doc_id and trained on in that order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pipelines.errors import UserError
from pipelines.shards import write_atomic

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Preset = Literal["deepseek_llm", "llama3", "gpt2"]

TOKENIZER = "tokenizer.json"
EOS = "<|endoftext|>"
# eos first, so that its id is 0 in every vocabulary; the chat roles are reserved here so that post-training needs no new ids
SPECIAL_TOKENS = (EOS, "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")

# Patterns of the published tokenizer.json files. DeepSeek LLM splits in five passes; its list of letters is the cased letters
# of Unicode less those named after &&, which the list leaves out (lower case Armenian, Georgian, mathematical alphabets ...).
_CASED = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^\u0560-\u0588\u10C7-\u10FF\u1C80-\u1C8A\u2D00-\u2D2D\uA78F-\uA7FF\uAB30-\uAB68"
    r"\x{10570}-\x{105BC}\x{10D50}-\x{10D85}\x{16E40}-\x{1DF2A}]]"
)
_PATTERNS: Mapping[Preset, tuple[str, ...]] = {
    "deepseek_llm": (
        r"[\r\n]",
        rf"\s?{_CASED}+",
        r"\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+",
        r"\s+$",
        r"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
    ),
    "llama3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "gpt2": (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
}


@dataclass(frozen=True)
class TokenizerConfig:
    """How the tokenizer is trained.

    `sample_bytes`: UTF-8 bytes of text to train on, shared out over strata of source and language in proportion to
    bytes ** `temperature` (1 as they are, 0 all alike; Conneau et al. 2020, XLM-R, section 3.1). A document longer than
    `max_document_bytes` counts and is read up to there. `special_tokens`: the first ends every document.
    """

    vocab_size: int = 32_000
    preset: Preset = "deepseek_llm"
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    sample_bytes: int = 256 << 20
    temperature: float = 0.7
    max_document_bytes: int = 1 << 16
    seed: int = 0

    def __post_init__(self) -> None:
        least = 256 + len(self.special_tokens)
        if self.preset not in _PATTERNS:
            raise ValueError(f"preset {self.preset!r} is none of {', '.join(_PATTERNS)}")
        if self.vocab_size < least:
            raise ValueError(f"vocab_size {self.vocab_size} holds not even bytes and special tokens; take {least} or more")
        if not 0 <= self.temperature <= 1 or min(self.sample_bytes, self.max_document_bytes) < 1 or not self.special_tokens:
            raise ValueError("temperature lies in [0, 1], sample_bytes and max_document_bytes are positive, an eos is needed")


def pre_tokenizer(preset: Preset) -> Any:
    """The `tokenizers` pre-tokenizer of a preset: split by its patterns, then bytes as printable characters."""
    steps: list[Any] = [pre_tokenizers.Split(Regex(p), "isolated") for p in _PATTERNS[preset]]
    if preset == "deepseek_llm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(steps)


def byte_level(preset: Preset, vocab: Mapping[str, int] | None = None, merges: Iterable[tuple[str, str]] = ()) -> Tokenizer:
    """A byte-level BPE tokenizer of a preset, empty or of a given vocabulary and merges."""
    tokenizer = Tokenizer(models.BPE(dict(vocab), list(merges)) if vocab else models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(preset)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sample_documents(df: DataFrame, cfg: TokenizerConfig) -> pa.Table:
    """A stratified sample of columns (source, lang, text), in an order and of a content that only the rows decide.

    `df` has doc_id, source, lang, text. About `sample_bytes` of text reach the driver: a document is sent if its keyed hash
    lies below its stratum's share, and the last few over the budget are left out. Raises UserError if there is no text.
    """
    from pyspark.sql import functions as F

    hashed = df.where(F.col("text") != "").select(
        "doc_id",
        "source",
        F.coalesce("lang", F.lit("")).alias("lang"),
        F.xxhash64(F.lit(cfg.seed), "doc_id").alias("key"),
        F.left("text", F.lit(cfg.max_document_bytes)).alias("text"),
    )
    size = F.least(F.octet_length("text"), F.lit(cfg.max_document_bytes)).cast("long")
    sizes = {(r["source"], r["lang"]): r["n"] for r in hashed.groupBy("source", "lang").agg(F.sum(size).alias("n")).collect()}
    if not sizes:
        raise UserError(
            "there is no text to train a tokenizer on: all documents were dropped; see the report, or widen the inputs"
        )
    budgets = share_out(sizes, cfg.sample_bytes, cfg.temperature)
    chosen = F.lit(False)
    for (source, lang), budget in sorted(budgets.items()):
        # an eighth more than the share, so that the cut below is by bytes and not by luck
        bound = min(int(2**64 * 1.125 * budget / sizes[source, lang]) - 2**63, 2**63 - 1)
        chosen = chosen | ((F.col("source") == source) & (F.col("lang") == lang) & (F.col("key") <= F.lit(bound)))
    table = hashed.where(chosen).toArrow().sort_by([(c, "ascending") for c in ("source", "lang", "key", "doc_id")])
    return _cut(table.select(["source", "lang", "text"]), budgets, cfg.max_document_bytes)


def share_out(sizes: Mapping[Any, int], total: int, temperature: float) -> dict[Any, int]:
    """Bytes to take of each stratum: in proportion to size ** temperature, no stratum past its size, the rest shared again."""
    budgets: dict[Any, int] = {}
    left = dict(sorted(sizes.items()))
    while left:
        weights = {k: n**temperature for k, n in left.items()}
        free, weight = max(total - sum(budgets.values()), 0), sum(weights.values())
        full = {k: n for k, n in left.items() if free * weights[k] >= n * weight}
        if not full:
            return budgets | {k: int(free * weights[k] / weight) for k in left}
        budgets |= full
        left = {k: n for k, n in left.items() if k not in full}
    return budgets


def _cut(table: pa.Table, budgets: Mapping[Any, int], longest: int) -> pa.Table:
    rows, left = [], dict(budgets)
    for row in table.to_pylist():
        data = row["text"].encode()[:longest]
        stratum = row["source"], row["lang"]
        if left[stratum] > 0:
            left[stratum] -= len(data)
            rows.append({**row, "text": data.decode(errors="ignore")})  # a character cut in two is left out
    return pa.Table.from_pylist(rows, table.schema)


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
    text = tokenizer.to_str(pretty=True) + "\n"
    write_atomic(Path(folder) / TOKENIZER, text)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Compression:
    """How a tokenizer does on the texts of one source and language."""

    source: str
    lang: str
    documents: int
    characters: int
    bytes: int
    tokens: int
    words: int  # runs of non-blank characters; says little of languages written without spaces
    byte_tokens: int  # tokens that are single bytes of a longer character

    @property
    def characters_per_token(self) -> float:
        """Characters a token."""
        return self.characters / self.tokens

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes a token."""
        return self.bytes / self.tokens

    @property
    def fertility(self) -> float:
        """Tokens a word (Acs 2019)."""
        return self.tokens / max(self.words, 1)

    @property
    def byte_share(self) -> float:
        """Share of tokens that are a single byte of a character of several."""
        return self.byte_tokens / self.tokens


def report(tokenizer: Tokenizer, texts: pa.Table) -> list[Compression]:
    """Compression per source and language, sorted; `texts` has columns source, lang, text (as `sample_documents` gives)."""
    lone = np.zeros(max(tokenizer.get_vocab().values()) + 1, bool)
    lone[[i for c in _high_bytes() if (i := tokenizer.token_to_id(c)) is not None]] = True
    sums: dict[tuple[str, str], np.ndarray[Any, np.dtype[np.int64]]] = {}
    for batch in texts.select(["source", "lang", "text"]).to_batches(max_chunksize=64):
        rows = batch.to_pylist()
        encodings = tokenizer.encode_batch_fast([r["text"] for r in rows], add_special_tokens=False)
        for row, ids in zip(rows, (e.ids for e in encodings), strict=True):
            text = row["text"]
            counts = [1, len(text), len(text.encode()), len(ids), len(text.split()), int(lone[ids].sum())]
            key = row["source"], row["lang"] or ""
            sums[key] = sums.get(key, np.zeros(6, np.int64)) + counts
    return [Compression(*key, *(int(n) for n in counts)) for key, counts in sorted(sums.items()) if counts[3]]


def _high_bytes() -> Iterator[str]:
    """The characters that stand for the bytes 128 to 255 in byte-level BPE: printable ones as they are, others from U+0100."""
    moved = iter(range(256, 512))
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        character = chr(byte) if printable else chr(next(moved))
        if byte >= 128:
            yield character

"""Byte-level BPE as published tokenizers do it: how each splits a text, the special tokens, bytes as printable characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

Preset = Literal["deepseek_llm", "llama3", "gpt2"]

TOKENIZER = "tokenizer.json"
EOS = "<|endoftext|>"
# eos first, so that its id is 0 in every vocabulary; the chat roles are reserved here so that post-training needs no new ids
SPECIAL_TOKENS = (EOS, "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>")

# Entries of the published tokenizers, special tokens among them.
PUBLISHED_SIZE: Mapping[Preset, int] = {"deepseek_llm": 100_015, "llama3": 128_256, "gpt2": 50_257}

# Patterns of the published tokenizer.json files. DeepSeek LLM splits in five passes; its list of letters is the cased letters
# of Unicode less those named after &&, which the list leaves out (lower case Armenian, Georgian, mathematical alphabets ...).
_CASED = (
    r"[\p{Lu}\p{Ll}\p{Lt}&&[^\u0560-\u0588\u10C7-\u10FF\u1C80-\u1C8A\u2D00-\u2D2D\uA78F-\uA7FF\uAB30-\uAB68"
    r"\x{10570}-\x{105BC}\x{10D50}-\x{10D85}\x{16E40}-\x{1DF2A}]]"
)
PATTERNS: Mapping[Preset, tuple[str, ...]] = {
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


def pre_tokenizer(preset: Preset) -> Any:
    """The `tokenizers` pre-tokenizer of a preset: split by its patterns, then bytes as printable characters."""
    steps: list[Any] = [pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERNS[preset]]
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


def byte_characters() -> list[str]:
    """The characters that stand for the bytes in byte-level BPE: printable ones as they are, others from U+0100."""
    moved = iter(range(256, 512))
    return [chr(b) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174 else chr(next(moved)) for b in range(256)]


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of each id of a byte-level tokenizer; none for special tokens and for ids that nothing has."""
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    made = [b""] * (max(vocab.values()) + 1)
    for token, number in vocab.items():
        if token not in special:
            made[number] = bytes(map(byte_of.__getitem__, token))
    return made

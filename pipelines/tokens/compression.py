"""What a tokenizer does to texts: how much of them a token holds, per source and language, and which entries they use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from pipelines.tokens.encode import Encoder, kernel_encoder, library_encoder
from pipelines.tokens.kernels.model import NotOurs
from pipelines.tokens.presets import token_bytes

LISTED = 24  # entries of a list

Counts = npt.NDArray[np.int64]


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

    def to_json(self) -> dict[str, Any]:
        """Counts and what follows from them."""
        names = ("characters_per_token", "bytes_per_token", "fertility", "byte_share")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Usage:
    """A tokenizer on a sample: `compression` by source and language, `counts` of each id, shape (vocabulary,)."""

    compression: list[Compression]
    counts: Counts
    tokens: list[bytes]  # by id; nothing of special tokens

    @property
    def unused(self) -> list[int]:
        """Ids of merged entries that no text of the sample has, in order. Bytes are there for others' sake."""
        return [i for i, token in enumerate(self.tokens) if len(token) > 1 and not self.counts[i]]

    @property
    def merged(self) -> int:
        """Entries that a merge has made."""
        return sum(len(token) > 1 for token in self.tokens)

    def to_json(self) -> dict[str, Any]:
        """For the manifest: compression, the longest entries of ASCII and of other text, what was never used, and how many
        entries make a half, nine tenths and 99 % of all tokens.
        """
        unused = self.unused
        texts = sorted((i for i, t in enumerate(self.tokens) if len(set(t.strip())) > 2 and _is_text(t)), key=self._by_length)
        used = np.sort(self.counts)[::-1].cumsum()
        return {
            "compression": [c.to_json() for c in self.compression],
            "merged": self.merged,
            "longest": {
                name: self._entries(i for i in texts if self.tokens[i].isascii() == ascii_)
                for name, ascii_ in (("ascii", True), ("other", False))
            },
            "unused": {"number": len(unused), "longest": self._entries(i for i in texts if not self.counts[i])},
            "covering": {str(share): int(np.searchsorted(used, share * used[-1])) + 1 for share in (0.5, 0.9, 0.99)},
        }

    def _by_length(self, number: int) -> tuple[int, int]:
        return -len(self.tokens[number].decode()), number

    def _entries(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        return [{"id": i, "text": self.tokens[i].decode(), "used": int(self.counts[i])} for i in islice(numbers, LISTED)]


def _is_text(token: bytes) -> bool:
    """Whether it is whole characters; a part of one has no text to show."""
    return token.decode(errors="ignore").encode() == token


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    """The quickest encoder that gives its ids; id 0 behind each text."""
    try:
        return kernel_encoder(tokenizer, 0)
    except NotOurs:
        plain = Tokenizer.from_str(tokenizer.to_str())
        plain.encode_special_tokens = True
        return library_encoder(plain, 0)


def use(tokenizer: Tokenizer, texts: pa.Table) -> Usage:
    """Encode texts, which have columns source, lang, text (as `sample_documents` gives them), and count."""
    tokens, encoder = token_bytes(tokenizer), encoder_of(tokenizer)
    lone = [i for i, token in enumerate(tokens) if len(token) == 1 and token[0] >= 0x80]
    total, rows = np.zeros(len(tokens), np.int64), []
    for (source, lang), column in _strata(texts):
        counts = np.zeros(len(tokens), np.int64)
        for chunk in column.chunks:
            ids, _ = encoder(chunk)
            counts += np.bincount(ids, minlength=len(tokens))
        counts[0] -= len(column)
        total += counts
        if used := int(counts.sum()):
            characters, size = (int(pc.sum(of(column)).as_py()) for of in (pc.utf8_length, pc.binary_length))
            words = sum(len(text.split()) for text in column.to_pylist())
            rows.append(Compression(source, lang, len(column), characters, size, used, words, int(counts[lone].sum())))
    return Usage(rows, total, tokens)


def _strata(texts: pa.Table) -> Iterator[tuple[tuple[str, str], Any]]:
    keys: Sequence[Any] = list(zip(*(pc.fill_null(texts[name], "").to_pylist() for name in ("source", "lang")), strict=True))
    for key in sorted(set(keys)):
        yield key, texts.filter(pa.array([k == key for k in keys]))["text"]

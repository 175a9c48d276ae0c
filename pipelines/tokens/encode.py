"""Text to token ids: a batch stage with exactly the ids of `tokenizers`, from kernels over Arrow buffers.

A tokenizer of one of our presets (`train.py`) is read into tables for the kernels; any other is left to the library, which
takes ten to fifty times as long, and the log says so. What the kernels give is held against the library in every run: a text
of hard cases when the tokenizer is loaded, and a sample of the documents.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.filter.kernels.phrases import text_buffers
from pipelines.recipe import batch_stage
from pipelines.tokens.kernels.merge import Work, make_work
from pipelines.tokens.kernels.model import NotOurs, read_model
from pipelines.tokens.kernels.words import encode_rows, make_cache, sampled_rows
from pipelines.tokens.presets import EOS

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20  # of text encoded at once: the kernels need room for an id each byte, the library 100 bytes a token
SAMPLED = 2048  # one text in so many is encoded by the library too, up to
SAMPLE_BYTES = 1 << 14

TOKENS = pa.schema([("tokens", pa.list_(pa.uint32()))])

Ids = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]
# string or large_string of valid UTF-8 -> ids of all texts, eos after each that is not null; where each text's begin and end
Encoder = Callable[[pa.Array], tuple[Ids, Offsets]]

# what splitters get wrong: contractions, blanks before and after newlines, digits, folded case, scripts, marks, joined emoji
_HARD = (
    "I'll say we're THEY'VE don'T 'S it'\u017f x'st\r\n \t\n\n  deep   water  \u3000\u3000a\u3000!\u00a0b na\u00efve "
    "\u00c5ngstr\u00f6m 1234567 \u0661\u0662\u0663\u2167\u00bd \u0420\u0435\u043a\u0430 \u0646\u0647\u0631  \u0928\u0926\u0940 "
    "\uac15\ubb3c \u6cb3\u6c34\u6d41\uff0c\u201c\u5411\u201d\u6771\u3002 \U0001f469\u200d\U0001f52c\U0001f44d\U0001f3fd "
    "<|endoftext|> __init__(self):\n        return {'a': 1}\x00\ufffd\U0010ffff  "
)


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
    eos_id = _eos_id(tokenizer, path, eos)
    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return TokenizerInfo(str(path), hashlib.sha256(data).hexdigest(), vocab_size, eos_id, eos)


def _eos_id(tokenizer: Tokenizer, path: str | Path, eos: str) -> int:
    found = tokenizer.token_to_id(eos)
    if found is None:
        raise UserError(f"tokenizer {path} has no token {eos!r} to end documents with; name its own in `eos`")
    return int(found)


def encode_array(texts: pa.Array, cfg: EncodeConfig, doc_ids: Any = None) -> tuple[Ids, Offsets]:
    """The ids of all texts, eos after each, and where each text's begin and end, shape (rows + 1,). A null has no ids.
    `doc_ids`: a binary array of as many rows, for messages.

    Bytes that are not UTF-8 count as U+FFFD (one each maximal subpart, as Python and browsers decode). A sample of the texts,
    which their bytes choose, is encoded by the library as well. Raises RuntimeError where it disagrees, with the doc_id (or
    the row) and the first id that differs.
    """
    encoder, library = _load(cfg.tokenizer, cfg.sha256, cfg.eos)
    texts = _valid(texts)
    ids, offsets = encoder(texts)
    if encoder is not library:
        _check(texts, ids, offsets, encoder, library, doc_ids)
    return ids, offsets


def encode_texts(texts: Sequence[str], cfg: EncodeConfig) -> Iterator[Ids]:
    """The ids of each text, eos last, in order; a shape (tokens,) each. Memory: `CHUNK_BYTES` or one text at a time."""
    for first, last in _chunks(np.cumsum([0, *map(len, texts)])):
        data = [text.encode("utf-8", "surrogatepass") for text in texts[first:last]]  # half a pair counts as broken
        ids, offsets = encode_array(pa.array(data, pa.large_binary()), cfg)
        yield from (ids[start:stop] for start, stop in pairwise(offsets.tolist()))


@batch_stage(adds=TOKENS)
def encode(batch: pa.RecordBatch, cfg: EncodeConfig) -> pa.RecordBatch:
    """Add `tokens`, list<uint32>: the ids of `text`, eos last; null where the text is null."""
    texts: Any = batch.column("text")
    doc_ids = batch.column("doc_id") if "doc_id" in batch.schema.names else None
    ids, offsets = encode_array(texts, cfg, doc_ids)
    if offsets[-1] >= 1 << 31:
        raise UserError(
            f"a batch of {len(texts)} texts has {offsets[-1]} ids, more than an Arrow list holds; make batches smaller"
        )
    mask = texts.is_null() if texts.null_count else None
    tokens = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(ids), mask=mask)
    return batch.append_column("tokens", tokens)


# --- encoders -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _load(path: str, sha256: str, eos: str) -> tuple[Encoder, Encoder]:
    """The encoder of a tokenizer, and the library's: the same where the kernels cannot do it."""
    data = Path(path).read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise UserError(f"tokenizer {path} has sha256 {found}, the run was started with {sha256}; run again with one tokenizer")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a Spark task has one core; its threads would fight for it
    tokenizer = Tokenizer.from_str(data.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a page is text, never the special id
    eos_id = _eos_id(tokenizer, path, eos)
    library = library_encoder(tokenizer, eos_id)
    try:
        encoder = kernel_encoder(tokenizer, eos_id)
    except NotOurs as reason:
        log.warning("tokenizer %s: %s; texts are encoded by the library, at a tenth of the speed or less", path, reason)
        return library, library
    hard = pa.array([_HARD], pa.large_string())
    ids, _ = encoder(hard)
    _compare("a text of hard cases", ids, library(hard)[0])
    return encoder, library


def kernel_encoder(tokenizer: Tokenizer, eos: int) -> Encoder:
    """Encode by the kernels, `eos` after each text. Raises NotOurs for a tokenizer that they do not do."""
    model, last_id = read_model(tokenizer.to_str()), np.uint32(eos)
    idle: list[tuple[npt.NDArray[np.uint64], Work, Ids]] = []

    def encoder(texts: pa.Array) -> tuple[Ids, Offsets]:
        data, places = text_buffers(texts)
        data.flags.writeable = False  # whatever Arrow says: one type for the kernels
        valid = np.array(texts.is_valid().to_numpy(zero_copy_only=False))
        parts, offsets = [np.zeros(0, np.uint32)], np.zeros(len(texts) + 1, np.int64)
        # a cache of pieces belongs to one call at a time, whatever thread makes it
        cache, work, room = idle.pop() if idle else (make_cache(), make_work(), np.empty(0, np.uint32))
        for first, last in _chunks(places):
            if len(room) < (needed := int(places[last] - places[first]) + last - first):
                room = np.empty(max(needed, CHUNK_BYTES), np.uint32)
            ends = offsets[first + 1 : last + 1]
            number = encode_rows(data, places[first : last + 1], valid[first:last], model, cache, work, last_id, room, ends)
            ends += offsets[first]
            parts.append(room[:number].copy())
        idle.append((cache, work, room if len(room) <= 2 * CHUNK_BYTES else room[:0].copy()))
        return np.concatenate(parts), offsets

    return encoder


def library_encoder(tokenizer: Tokenizer, eos: int) -> Encoder:
    """Encode by the library, `eos` after each text."""

    def encoder(texts: pa.Array) -> tuple[Ids, Offsets]:
        _, places = text_buffers(texts)
        parts, lengths = [np.zeros(0, np.uint32)], [0]
        for first, last in _chunks(places):
            chosen = texts.slice(first, last - first).to_pylist()
            made = iter(tokenizer.encode_batch_fast([t for t in chosen if t is not None], add_special_tokens=False))
            rows = [np.array([] if t is None else [*next(made).ids, eos], np.uint32) for t in chosen]
            parts += rows
            lengths += map(len, rows)
        return np.concatenate(parts), np.cumsum(lengths, dtype=np.int64)

    return encoder


def _chunks(places: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Rows (first, last) of `CHUNK_BYTES` or less together, or of one text, from where texts begin and end."""
    first, rows = 0, len(places) - 1
    while first < rows:
        last = int(np.searchsorted(places, places[first] + CHUNK_BYTES, "right")) - 1
        last = min(max(last, first + 1), rows)
        yield first, last
        first = last


def _valid(texts: pa.Array) -> pa.Array:
    """The texts as string or large_string, what is no UTF-8 in them replaced."""
    if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            pass
        else:
            return texts
    else:
        try:
            return texts.cast(pa.large_string())
        except pa.ArrowInvalid:
            pass
    rows = texts.cast(pa.large_binary()).to_pylist()
    return pa.array([None if row is None else row.decode("utf-8", "replace") for row in rows], pa.large_string())


# --- the check ----------------------------------------------------------------------------------------------------------


def _check(texts: pa.Array, ids: Ids, offsets: Offsets, encoder: Encoder, library: Encoder, doc_ids: Any) -> None:
    """Hold a sample of the texts against the library; of a long one, what its first bytes give by themselves."""
    data, places = text_buffers(texts)
    data.flags.writeable = False
    for row in sampled_rows(data, places, SAMPLED).tolist():
        first, last = places[row : row + 2].tolist()
        name = f"row {row}" if doc_ids is None else f"document {doc_ids[row].as_py().hex()}"
        if last - first <= SAMPLE_BYTES:
            _compare(name, ids[offsets[row] : offsets[row + 1]], library(texts.slice(row, 1))[0])
        else:
            start = pa.array([data[first : first + SAMPLE_BYTES].tobytes().decode(errors="ignore")], pa.large_string())
            _compare(f"the first {SAMPLE_BYTES} bytes of {name}", encoder(start)[0], library(start)[0])


def _compare(name: str, ours: Ids, theirs: Ids) -> None:
    if np.array_equal(ours, theirs):
        return
    both = min(len(ours), len(theirs))
    place = int(np.argmax(np.append(ours[:both] != theirs[:both], True)))
    raise RuntimeError(
        f"the ids of {name} differ from those of tokenizers at position {place}: {ours[place : place + 3].tolist()} and "
        f"{theirs[place : place + 3].tolist()}; please report this, and leave the tokenizer to the library until then"
    )

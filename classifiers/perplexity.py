"""Perplexity under an n-gram model of a language; buckets head, middle and tail (CCNet: Wenzek et al., arXiv 1911.00359).

An interpolated Kneser-Ney model with three discounts (Chen and Goodman 1998, section 3; Heafield et al. 2013, section 3) over
the tokens of `features`, or of any ARPA file over words between blanks. N-grams are 32-bit hashes, values eight bits: half a
million of them are under 4 MB. What was pruned goes to the shorter context, so that a context's chances still add up to 1.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import features, folder, lm_kernels
from classifiers.errors import DataError, ModelError
from classifiers.kneser_ney import learn
from classifiers.lm_kernels import BACK_ZERO, BEGIN, END, FIRST, UNKNOWN
from classifiers.words import word_hash

KIND, PAYLOAD = "perplexity", "model.npz"
STEP = 1 / 16  # nats of a stored step
HEAD, MIDDLE, TAIL, UNDETERMINED = "head", "middle", "tail", "und"
CUTS = (30, 60)  # percentiles of the reference's perplexities at which head and middle end, as in CCNet
_MOST = 5  # longest n-gram


@dataclass(frozen=True)
class Config:
    """`order`: longest n-gram; `min_counts`: least count of each length's n-grams, the last for longer ones; `limit`: of each.

    A token met less often than `min_counts[0]` is the unknown one; `max_bytes` of a text are read. `blanks`: tokens are words
    between blanks and each line is a sentence, as KenLM has it; else they are those of `features`, and a text is one sequence.
    """

    lang: str = "und"
    order: int = 3
    min_counts: tuple[int, ...] = (2, 1, 2)
    limit: int = 300_000
    max_bytes: int = 20_000
    blanks: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_counts", tuple(self.min_counts))
        if not 2 <= self.order <= _MOST or min(*self.min_counts, self.limit, self.max_bytes) < 1:
            raise ValueError(f"{self}: order must be 2 to {_MOST}, min_counts, limit and max_bytes above 0")


@dataclass(frozen=True)
class Perplexity:
    """A model ready to score."""

    config: Config
    slots: np.ndarray  # uint64, a power of 2: hash << 32 | steps of -log p << 8 | steps of -log back-off; 0 for none
    cuts: tuple[float, float] = (np.nan, np.nan)  # perplexities at which head and middle end
    facts: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def languages(self) -> frozenset[str]:
        """The one language, where it is known."""
        return frozenset({self.config.lang} - {UNDETERMINED})

    def score(self, texts: Any) -> np.ndarray:
        """Perplexity a token of N texts, float32 (N,); NaN for a text without a token."""
        data, offsets, _ = features.buffers(texts)
        cfg = self.config
        longest = min(int(np.diff(offsets).max(initial=0)), cfg.max_bytes)
        sums, counts = np.zeros((2, len(offsets) - 1), np.int64)
        tokens = np.empty(2 * longest + 4, np.uint64)
        lm_kernels.score(
            data, offsets, *features.alphabet(), cfg.max_bytes, cfg.blanks, cfg.order, self.slots, tokens, sums, counts
        )
        with np.errstate(invalid="ignore"):
            return np.exp(np.where(counts > 0, sums, np.nan) * STEP / counts).astype(np.float32)

    def buckets(self, scores: np.ndarray) -> np.ndarray:
        """`head`, `middle` or `tail` for each perplexity, `und` for NaN. Raises ModelError if no reference set bounds."""
        if np.isnan(self.cuts).any():
            raise ModelError("the model has no bounds of head and middle; set them from reference texts with `with_reference`")
        names = np.array([HEAD, MIDDLE, TAIL])
        return np.where(np.isnan(scores), UNDETERMINED, names[np.searchsorted(self.cuts, np.nan_to_num(scores, nan=0.0))])


def fit(texts: Any, config: Config) -> Perplexity:
    """Learn from texts of one language. Deterministic. Raises DataError where there is too little."""
    if config.blanks:
        raise DataError("a model of words between blanks is made by KenLM and read from its ARPA file; give blanks=False")
    stream = _stream(texts, config)
    words, counts = np.unique(stream[stream != BEGIN], return_counts=True)
    known = words[counts >= config.min_counts[0]]
    if len(known) < 2:
        raise DataError(f"{len(stream)} tokens make no model of {config.lang!r}; give more texts")
    stream = np.where(np.isin(stream, known) | (stream == BEGIN), stream, np.uint64(UNKNOWN))
    stream = np.append(stream, np.array([BEGIN, UNKNOWN], np.uint64))  # it has a chance even where every token is known
    slots = _slots(*_stored(*learn(stream, config.order, len(known) + 1, config.min_counts, config.limit)))
    return Perplexity(config, slots, facts={"tokens": int((stream != BEGIN).sum()) - 1, "known": len(known)})


def with_reference(model: Perplexity, texts: Any) -> Perplexity:
    """The same with bounds of its buckets from reference texts that are new to it. Raises DataError if all are empty."""
    scores = model.score(texts)
    scores = scores[~np.isnan(scores)]
    if not len(scores):
        raise DataError("no reference text has a token; give texts of the model's language")
    head, middle = (float(x) for x in np.percentile(scores, CUTS))
    return replace(model, cuts=(head, middle))


def save(model: Perplexity, path: Path, card: str = "") -> Perplexity:
    """Write the model's folder; returns the model with its fingerprint."""
    entries = np.sort(model.slots[model.slots != 0])
    out = io.BytesIO()
    keys = (entries >> np.uint64(32)).astype(np.uint32)
    values, backs = ((entries >> np.uint64(shift)).astype(np.uint8) for shift in (8, 0))
    np.savez_compressed(out, steps=np.diff(keys, prepend=np.uint32(0)), values=values, backs=backs)
    facts = {"settings": asdict(model.config), "cuts": [] if np.isnan(model.cuts).any() else list(model.cuts), **model.facts}
    load.cache_clear()  # another model may have been there
    return replace(model, fingerprint=folder.write(path, KIND, PAYLOAD, out.getvalue(), facts, card))


@lru_cache(maxsize=16)
def load(source: str | Path) -> Perplexity:
    """The model of a shipped name, in a folder, or in an ARPA file; read once a process. Raises ModelError."""
    path = folder.find(source)
    if isinstance(path, Path) and path.is_file():
        with path.open("rb") as binary:
            fingerprint = hashlib.file_digest(binary, "sha256").hexdigest()
        with path.open(encoding="utf-8", errors="replace") as file:
            return replace(of_arpa(file, str(source)), fingerprint=fingerprint)
    said, payload, fingerprint = folder.read(path, {KIND: PAYLOAD})
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            steps, values, backs = (file[name] for name in ("steps", "values", "backs"))
        types = (steps.dtype.str, values.dtype.str, backs.dtype.str)
        if types != ("<u4", "|u1", "|u1") or not steps.shape == values.shape == backs.shape or steps.ndim != 1:
            raise ValueError("its arrays do not fit together")
        keys = np.cumsum(steps, dtype=np.uint32)
        facts: dict[str, Any] = {name: said[name] for name in ("tokens", "known") if name in said}
        head, middle = said["cuts"] or (np.nan, np.nan)
        return Perplexity(Config(**said["settings"]), _slots(keys, values, backs), (head, middle), facts, fingerprint)
    except Exception as error:  # what agrees with its own sum and is no model raises what its decoder pleases
        raise ModelError(f"{str(source)!r} does not fit together ({error}); make the model again") from error


def of_arpa(lines: Iterable[str], name: str = "") -> Perplexity:
    """The model in an ARPA file, as SRILM and KenLM write it. Raises ModelError, with `name`, for anything else."""
    hashes: dict[str, int] = {"<s>": BEGIN, "</s>": END, "<unk>": UNKNOWN, "<UNK>": UNKNOWN}
    entries: list[list[tuple[list[int], float, float]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("\\") or not entries:
            if line.rstrip().endswith("-grams:"):
                entries.append([])
            continue
        parts = line.split()
        if not parts:
            continue
        try:
            chance, *words = parts
            back = float(words.pop()) if len(words) > len(entries) else 0.0
            if len(words) != len(entries):
                raise ValueError(f"it has {len(words)} words in the part of {len(entries)}")
            entries[-1].append(([_hash_of(word, hashes) for word in words], float(chance), back))
        except ValueError as error:
            raise ModelError(f"line {number} of {name!r} is no n-gram of an ARPA file ({error}): {line[:60]!r}") from error
    if not 2 <= len(entries) <= _MOST or not entries[0]:
        raise ModelError(f"{name!r} is no ARPA file with n-grams of 1 up to 2 to {_MOST} words; give one, or a model's folder")
    keys = np.concatenate(
        [
            lm_kernels.keys(np.array([word for words, _, _ in part for word in words], np.uint64), n)[n - 1, n - 1 :: n]
            for n, part in enumerate(entries, 1)
        ]
    )
    chance, back = (np.array([e[k] for part in entries for e in part]) * np.log(10) for k in (1, 2))
    config = Config(order=len(entries), limit=len(keys), blanks=True)
    return Perplexity(config, _slots(*_stored(keys, chance, back)), facts={"known": len(entries[0])})


def _stream(texts: Any, config: Config) -> np.ndarray:
    """The tokens of all texts, each text behind a BEGIN."""
    data, offsets, _ = features.buffers(texts)
    room = np.empty(min(int(np.diff(offsets).max(initial=0)), config.max_bytes) + 2, np.uint64)
    parts = [np.zeros(0, np.uint64)]
    for doc in range(len(offsets) - 1):
        used = lm_kernels.tokens_of(data, offsets[doc], offsets[doc + 1], *features.alphabet(), config.max_bytes, False, room)
        parts.append(room[:used].copy())
    return np.concatenate(parts)


def _stored(keys: np.ndarray, chance: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascending 32-bit keys, each once, and steps of the logarithms."""
    short, first = np.unique((keys >> np.uint64(32)).astype(np.uint32), return_index=True)
    values = np.clip(np.rint(-chance[first] / STEP), 0, 255).astype(np.uint8)
    return short, values, np.clip(np.rint(-back[first] / STEP) + BACK_ZERO, 0, 255).astype(np.uint8)


def _slots(keys: np.ndarray, values: np.ndarray, backs: np.ndarray) -> np.ndarray:
    slots = np.zeros(1 << max(2 * len(keys), 2).bit_length(), np.uint64)
    entries = keys.astype(np.uint64) << np.uint64(32) | values.astype(np.uint64) << np.uint64(8) | backs
    lm_kernels.insert(entries, slots)
    return slots


def _hash_of(word: str, known: dict[str, int]) -> int:
    if word not in known:
        data = np.frombuffer(word.encode("utf-8", "replace"), np.uint8)
        known[word] = word_hash(data, 0, len(data)) + FIRST
    return known[word]

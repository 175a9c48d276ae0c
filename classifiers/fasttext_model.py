"""The fastText classifier (Joulin et al., arXiv 1607.01759): learned here, in the library's file, scored in one table.

A text's hidden vector is the mean of its rows and a logit is linear in it, so the two matrices are one: scoring sums class
logits of rows, whatever the dimension. Files that others made are read too: any loss, dense (.bin) or quantised (.ftz).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import fasttext_file, features, words
from classifiers.fasttext_file import PREFIX, File, Settings
from classifiers.jit import kernel

KIND = "fasttext"
CHUNK = 64  # texts whose rows are made at a time
_BLOCK = 65536  # rows collapsed at a time


@dataclass(frozen=True)
class Config:
    """`words`: longest word n-gram; `letters`: shortest and longest letter n-gram, (0, 0) for none; `rate` falls to 0.

    Scripts without blanks need letter n-grams, such as (1, 3).
    """

    dim: int = 16
    words: int = 2
    letters: tuple[int, int] = (0, 0)
    buckets: int = 1 << 18
    min_count: int = 2
    epochs: int = 5
    rate: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", tuple(self.letters))
        low, high = self.letters
        if not (1 <= self.dim <= 1024 and 1 <= self.words <= 8 and 0 <= low <= high <= 16 and 0 <= self.buckets < 1 << 30):
            raise ValueError(f"{self}: dim must be 1 to 1024, words 1 to 8, letters two ascending numbers up to 16")


@dataclass(frozen=True)
class FastText:
    """A model ready to score."""

    config: Config
    dictionary: words.Dictionary
    table: np.ndarray  # float32 (rows, columns): what each row adds; columns are labels but for the first, labels, or nodes
    loss: str  # softmax, ova (a sigmoid a label) or hs (a tree of labels)
    paths: np.ndarray  # of hs: int8 (L, columns), 1 where a label is right of a node, -1 left of it, 0 elsewhere
    binary: bytes  # the file it came from; empty where that was read by path


def logits(model: FastText, texts: Any) -> np.ndarray:
    """Logits of N texts, float32 (N, L): log-probabilities up to a constant; NaN for a text without a word."""
    data, offsets, _ = features.buffers(texts)
    rooms = words.room(model.dictionary, np.diff(offsets))
    count = len(offsets) - 1
    sums, counts = np.zeros((count, model.table.shape[1])), np.zeros(count, np.int64)
    words.word_sums(*(data, offsets, *_arguments(model.dictionary), *rooms, model.table, sums, counts))
    found = sums / np.maximum(counts, 1)[:, None]
    if model.loss == "softmax":
        found = np.concatenate([np.zeros((count, 1)), found], axis=1)
    elif model.loss == "hs":
        found = -np.logaddexp(0.0, -found) @ (model.paths == 1).T - np.logaddexp(0.0, found) @ (model.paths == -1).T
    found[counts == 0] = np.nan
    return found.astype(np.float32)


def fit(texts: Any, labels: np.ndarray, names: tuple[str, ...], weights: np.ndarray, config: Config, seed: int) -> FastText:
    """Learn from N texts: `labels` int64 (N,), from 0; `weights` float64 (L,), of the labels. Deterministic, in one thread."""
    known, known_counts, total = _vocabulary(texts, config.min_count)
    buckets = config.buckets if config.words > 1 or config.letters[1] else 0
    found = words.dictionary(known, buckets, np.zeros(0, np.int32), config.words, *config.letters)
    rows, ends = _rows(texts, found)
    random = np.random.default_rng(seed)
    inputs = random.uniform(-1 / config.dim, 1 / config.dim, (len(known) + buckets, config.dim)).astype(np.float32)
    outputs = np.zeros((len(weights), config.dim), np.float32)
    orders = np.stack([random.permutation(len(labels)) for _ in range(config.epochs)])
    _descend(rows, ends, labels, weights, orders, config.rate, inputs, outputs)
    file = File(
        Settings(config.dim, config.epochs, config.min_count, config.words, "softmax", buckets, *config.letters),
        tuple(known),
        known_counts,
        tuple(name.encode() for name in names),
        np.bincount(labels, minlength=len(weights)),
        total,
        np.zeros(0, np.int32),
        inputs,
        outputs,
    )
    return from_bytes(fasttext_file.write(file), config, len(names))


def to_bytes(model: FastText) -> bytes:
    """The payload of a model's folder: a file that the fastText library opens."""
    return model.binary


def from_bytes(payload: bytes, config: Config, labels: int) -> FastText:
    """The model in a payload. Raises ModelError, or ValueError where it does not fit."""
    file = fasttext_file.read(np.frombuffer(payload, np.uint8), "model.bin")
    if len(file.labels) != labels:
        raise ValueError(f"the file has {len(file.labels)} labels, the header {labels}")
    return _collapsed(file, config, payload)


def model_of_file(path: Path) -> tuple[tuple[str, ...], FastText]:
    """Labels and model of a file of the fastText library, which is mapped, not read. Raises ModelError."""
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    file = fasttext_file.read(data, str(path))
    s = file.settings
    config = Config(s.dim, s.words, (s.low, s.high), s.buckets, s.min_count, s.epochs)
    return tuple(label.decode("utf-8", "replace") for label in file.labels), _collapsed(file, config, b"")


def _collapsed(file: File, config: Config, binary: bytes) -> FastText:
    """Both matrices as one."""
    s = file.settings
    outputs = file.outputs
    if s.loss == "softmax":  # only differences count
        outputs = outputs[1:] - outputs[0]
    elif s.loss == "hs":
        outputs = outputs[: len(file.labels) - 1]
    table = np.empty((len(file.inputs), len(outputs)), np.float32)
    for at in range(0, len(table), _BLOCK):
        table[at : at + _BLOCK] = file.inputs[at : at + _BLOCK] @ outputs.T
    table.flags.writeable = False
    paths = fasttext_file.tree(file.label_counts) if s.loss == "hs" else np.zeros((0, 0), np.int8)
    pruned_away = len(file.moved) and (file.moved < 0).all()
    found = words.dictionary(file.words, 0 if pruned_away else s.buckets, file.moved, s.words, s.low, s.high)
    return FastText(config, found, table, s.loss, paths, binary)


def _arguments(found: words.Dictionary) -> tuple[Any, ...]:
    eos = np.frombuffer(words.EOS, np.uint8)
    return (
        found.slots, found.hashes, found.starts, found.letters, found.buckets, found.moved, found.longest, found.low,
        found.high, found.find(words.EOS), words.word_hash(eos, 0, len(eos)),
    )  # fmt: skip


def _vocabulary(texts: Any, min_count: int) -> tuple[list[bytes], np.ndarray, int]:
    """Words that are there often enough, the most frequent first, how often they are there, and how many words there are."""
    counts: Counter[bytes] = Counter()
    for text in texts:
        counts.update(text.as_py().encode("utf-8", "replace").replace(b"\0", b" ").split())
    counts[words.EOS] = len(texts)
    kept = sorted(
        ((n, w) for w, n in counts.items() if n >= min_count and not w.startswith(PREFIX)), key=lambda pair: (-pair[0], pair[1])
    )
    return [w for _, w in kept], np.array([n for n, _ in kept], np.int64), counts.total()


def _rows(texts: Any, found: words.Dictionary) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all texts (int32), and where each text's end (int64, N + 1, from 0)."""
    data, offsets, _ = features.buffers(texts)
    arguments = _arguments(found)
    count = len(offsets) - 1
    counts, parts = np.zeros(count, np.int64), []
    for at in range(0, count, CHUNK):
        some = offsets[at : at + CHUNK + 1]
        rooms, rows = words.room(found, np.diff(some)), np.empty(words.most_rows(found, np.diff(some)).sum(), np.int32)
        used = words.word_rows(*(data, some, *arguments, *rooms, rows, counts[at : at + CHUNK]))
        parts.append(rows[:used].copy())
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(counts)])


@kernel
def _descend(
    rows: np.ndarray, ends: np.ndarray, labels: np.ndarray, weights: np.ndarray, orders: np.ndarray, rate: float,
    inputs: np.ndarray, outputs: np.ndarray,
) -> None:  # fmt: skip
    """Stochastic descent of fastText 0.9.2, model.cc (`update`), with the softmax loss; the rate falls linearly to 0."""
    dim, classes = inputs.shape[1], outputs.shape[0]
    hidden, slope, chance = np.zeros(dim, np.float32), np.zeros(dim, np.float32), np.zeros(classes, np.float64)
    done, total = 0, orders.shape[0] * len(rows)
    for epoch in range(orders.shape[0]):
        for doc in orders[epoch]:
            begin, end = ends[doc], ends[doc + 1]
            if begin == end:
                continue
            step = rate * (1.0 - done / total) * weights[labels[doc]]
            done += end - begin
            hidden[:] = 0
            slope[:] = 0
            for k in range(begin, end):
                for d in range(dim):
                    hidden[d] += inputs[rows[k], d]
            share = np.float32(1.0 / (end - begin))
            for d in range(dim):
                hidden[d] *= share
            for c in range(classes):
                chance[c] = 0
                for d in range(dim):
                    chance[c] += outputs[c, d] * hidden[d]
            most = chance.max()
            whole = 0.0
            for c in range(classes):
                chance[c] = np.exp(chance[c] - most)
                whole += chance[c]
            for c in range(classes):
                alpha = np.float32(step * ((labels[doc] == c) - chance[c] / whole))
                for d in range(dim):
                    slope[d] += alpha * outputs[c, d]
                    outputs[c, d] += alpha * hidden[d]
            for k in range(begin, end):
                for d in range(dim):
                    inputs[rows[k], d] += slope[d] * share

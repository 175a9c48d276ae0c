"""Logistic regression on hashed n-grams and measures of a text: small, quick to fit, the same bytes on every run.

A text is the set of its word n-grams and of the letter n-grams of its words, each 1 / sqrt(rows of the text): a vector of
length one. Each measure of the text (`features.MEASURES`) adds a piecewise linear function of its own. Weights are learned by
AdaGrad (Duchi et al. 2011, section 1.3), one text at a time, and stored in eight bits; what is scored are the stored ones.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifiers import features
from classifiers.jit import kernel

KIND = "hashed"
KNOTS = np.linspace(0.0, 1.0, 9, dtype=np.float32)
CHUNK = 64  # texts whose rows are made at a time
_CLIP = 0.9999  # quantile of the weights that are not zero; larger ones are stored as this


@dataclass(frozen=True)
class Config:
    """`words`: longest word n-gram; `letters`: shortest and longest letter n-gram, (0, 0) for none; 2 ** `bits` rows.

    `measures`: whether measures of the text count; `max_bytes`: how much of a text is read; `rate`: first step of AdaGrad;
    `decay`: of the weights, each time that they are touched.
    """

    words: int = 2
    letters: tuple[int, int] = (0, 0)
    bits: int = 18
    measures: bool = True
    max_bytes: int = 20_000
    epochs: int = 8
    rate: float = 0.5
    decay: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "letters", tuple(self.letters))
        low, high = self.letters
        if not (1 <= self.words <= 5 and 8 <= self.bits <= 26 and 0 <= low <= high <= 8 and self.max_bytes > 0):
            raise ValueError(
                f"{self}: words must be 1 to 5, bits 8 to 26, letters two ascending numbers up to 8, max_bytes above 0"
            )


@dataclass(frozen=True)
class Hashed:
    """What is learned, for L labels; the first one's logit is always 0."""

    config: Config
    table: np.ndarray  # int8 (2 ** bits, L - 1)
    scale: np.ndarray  # float32 (L - 1,): of the table
    curves: np.ndarray  # float32 (measures, knots, L - 1)
    bias: np.ndarray  # float32 (L - 1,)


def logits(model: Hashed, texts: Any) -> np.ndarray:
    """Logits of N texts, float32 (N, L); NaN for a text without a token (null, empty, blank)."""
    cfg = model.config
    data, offsets, _ = features.buffers(texts)
    tokens, ids = _room(cfg, offsets)
    count = len(offsets) - 1
    sums, counts = np.zeros((count, model.table.shape[1])), np.zeros(count, np.int64)
    measures = np.zeros((count, len(features.MEASURES)))
    klass, fold = features.alphabet()
    features.hashed_sums(
        data, offsets, klass, fold, cfg.words, *cfg.letters, cfg.bits, cfg.max_bytes, tokens,
        np.zeros(1 << cfg.bits, np.int32), ids, model.table, sums, counts, measures,
    )  # fmt: skip
    found = sums * model.scale / np.sqrt(np.maximum(counts, 1))[:, None] + model.bias
    if cfg.measures:
        for m, curve in enumerate(model.curves):
            for c in range(curve.shape[1]):
                found[:, c] += np.interp(measures[:, m], KNOTS, curve[:, c])
    found[counts == 0] = np.nan
    first = np.where(counts == 0, np.nan, 0.0)[:, None]
    return np.concatenate([first, found], axis=1).astype(np.float32)


def fit(texts: Any, labels: np.ndarray, names: tuple[str, ...], weights: np.ndarray, config: Config, seed: int) -> Hashed:
    """Learn from N texts: `labels` int64 (N,), from 0; `weights` float64 (L,), of the labels. Deterministic."""
    rows, ends, measures = _rows(texts, config)
    columns = len(names) - 1
    table, squares = np.zeros((1 << config.bits, columns)), np.full((1 << config.bits, columns), 1e-8)
    curves = np.zeros((measures.shape[1], len(KNOTS), columns))
    bias = np.zeros(columns)
    order = np.random.default_rng(seed)
    orders = np.stack([order.permutation(len(labels)) for _ in range(config.epochs)])
    _descend(
        rows, ends, measures if config.measures else np.zeros((len(labels), 0)), labels, weights, orders, config.rate,
        config.decay, table, squares, curves, np.full_like(curves, 1e-8), bias, np.full_like(bias, 1e-8),
    )  # fmt: skip
    return _stored(config, table, curves, bias)


def to_bytes(model: Hashed) -> bytes:
    """The payload of a model's folder."""
    out = io.BytesIO()
    np.savez_compressed(out, table=model.table, scale=model.scale, curves=model.curves, bias=model.bias)
    return out.getvalue()


def from_bytes(payload: bytes, config: Config, labels: int) -> Hashed:
    """The model in a payload. Raises ValueError where it does not fit; nothing in it is ever executed."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("table", "scale", "curves", "bias")}
    columns = labels - 1
    shapes = {
        "table": ("int8", (1 << config.bits, columns)),
        "scale": ("float32", (columns,)),
        "curves": ("float32", (len(features.MEASURES), len(KNOTS), columns)),
        "bias": ("float32", (columns,)),
    }
    for name, (dtype, shape) in shapes.items():
        if (arrays[name].dtype, arrays[name].shape) != (np.dtype(dtype), shape):
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, it must be {dtype} {shape}")
        arrays[name].flags.writeable = False
    return Hashed(config, **arrays)


def _room(config: Config, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Room for the tokens of the longest text, and for its rows."""
    longest = min(int(np.diff(offsets).max(initial=0)), config.max_bytes)
    low, high = config.letters
    rows = (longest + 1) * config.words + (2 * longest + 4) * (high - low + 1)
    return np.empty(longest + 1, np.uint64), np.empty(min(rows, 1 << config.bits), np.int64)


def _rows(texts: Any, config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of all texts (int32), where each text's end (int64, N + 1, from 0), and measures (N, measures)."""
    data, offsets, _ = features.buffers(texts)
    klass, fold = features.alphabet()
    tokens, ids = _room(config, offsets)
    count = len(offsets) - 1
    counts, measures = np.zeros(count, np.int64), np.zeros((count, len(features.MEASURES)))
    seen, parts = np.zeros(1 << config.bits, np.int32), []
    for at in range(0, count, CHUNK):
        some = offsets[at : at + CHUNK + 1]
        seen[:] = 0
        rows = np.empty(len(ids) * (len(some) - 1), np.int32)
        used = features.hashed_rows(
            data, some, klass, fold, config.words, *config.letters, config.bits, config.max_bytes, tokens, seen, ids,
            rows, counts[at : at + CHUNK], measures[at : at + CHUNK],
        )  # fmt: skip
        parts.append(rows[:used].copy())
    return np.concatenate(parts), np.concatenate([[0], np.cumsum(counts)]), measures


def _stored(config: Config, table: np.ndarray, curves: np.ndarray, bias: np.ndarray) -> Hashed:
    """The weights in eight bits."""
    scale = np.ones(table.shape[1], np.float32)
    for c in range(table.shape[1]):
        sizes = np.sort(np.abs(table[table[:, c] != 0, c]))
        if len(sizes):
            scale[c] = sizes[min(int(len(sizes) * _CLIP), len(sizes) - 1)] / 127
    small = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
    small.flags.writeable = False
    return Hashed(config, small, scale, curves.astype(np.float32), bias.astype(np.float32))


@kernel
def _descend(
    rows: np.ndarray, ends: np.ndarray, measures: np.ndarray, labels: np.ndarray, weights: np.ndarray, orders: np.ndarray,
    rate: float, decay: float, table: np.ndarray, squares: np.ndarray, curves: np.ndarray, curve_squares: np.ndarray,
    bias: np.ndarray, bias_squares: np.ndarray,
) -> None:  # fmt: skip
    """AdaGrad over the texts in the order of `orders` (epochs, N); a measure touches the two knots beside it."""
    columns, knots = table.shape[1], curves.shape[1]
    error = np.zeros(columns)
    for epoch in range(orders.shape[0]):
        for doc in orders[epoch]:
            begin, end = ends[doc], ends[doc + 1]
            if begin == end:
                continue
            x = 1.0 / np.sqrt(end - begin)
            error[:] = 0
            for k in range(begin, end):
                for c in range(columns):
                    error[c] += table[rows[k], c]
            most = 0.0
            for c in range(columns):
                error[c] = error[c] * x + bias[c]
                for m in range(measures.shape[1]):
                    at = min(int(measures[doc, m] * (knots - 1)), knots - 2)
                    part = measures[doc, m] * (knots - 1) - at
                    error[c] += curves[m, at, c] * (1 - part) + curves[m, at + 1, c] * part
                most = max(most, error[c])
            total = np.exp(-most)
            for c in range(columns):
                error[c] = np.exp(error[c] - most)
                total += error[c]
            for c in range(columns):
                error[c] = (error[c] / total - (labels[doc] == c + 1)) * weights[labels[doc]]
            for c in range(columns):
                gradient = error[c] * x
                for k in range(begin, end):
                    slope = gradient + decay * table[rows[k], c]
                    squares[rows[k], c] += slope * slope
                    table[rows[k], c] -= rate * slope / np.sqrt(squares[rows[k], c])
                bias_squares[c] += error[c] * error[c]
                bias[c] -= rate * error[c] / np.sqrt(bias_squares[c])
                for m in range(measures.shape[1]):
                    at = min(int(measures[doc, m] * (knots - 1)), knots - 2)
                    part = measures[doc, m] * (knots - 1) - at
                    for side in range(2):
                        slope = error[c] * (part if side else 1 - part)
                        curve_squares[m, at + side, c] += slope * slope
                        curves[m, at + side, c] -= rate * slope / np.sqrt(curve_squares[m, at + side, c])

"""How good a model is on labelled texts it has not seen: figures with intervals, and where it goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow.compute as pc

from classifiers.calibration import calibration_error, reliability
from classifiers.errors import DataError
from classifiers.labelled import Labelled
from classifiers.languages import languages
from classifiers.model import Model

ROUNDS = 200  # of the bootstrap
LENGTHS = ((0, 500), (500, 2_000), (2_000, 8_000), (8_000, None))  # characters


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval: percentiles over resampled sites, NaN where there are too few."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Decisions about the texts of a language or length, and the AUC among them (NaN where they have one label)."""

    name: str
    texts: int
    hits: int  # have the label and are taken
    missed: int  # have the label and are not taken
    false: int  # are taken and do not have the label
    right: int  # neither
    auc: float
    seen: bool = True  # whether the model learned from texts of this language


@dataclass(frozen=True)
class Evaluation:
    """Of one label against all others, at a threshold; T texts of S sites. A text without a token counts as score 0."""

    label: str
    threshold: float
    texts: int
    sites: int
    empty: int  # texts without a token
    auc: Interval
    precision: Interval
    recall: Interval
    kept: Interval  # share of texts at or above the threshold
    error: Interval  # expected calibration error
    accuracy: Interval  # of the likeliest label, among all labels
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # row: label given, column: likeliest label
    by_language: tuple[Group, ...]
    by_length: tuple[Group, ...]
    reliability: tuple[tuple[float, float, int], ...]  # mean score, share with the label, texts


def auc(scores: np.ndarray, hits: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Chance that a text with the label scores above one without it, ties halved (Mann and Whitney 1947); NaN for one class.

    `scores` (N,), `hits` bool (N,), `weights` (N,): how often each text counts.
    """
    weights = np.ones(len(scores)) if weights is None else weights
    _, group = np.unique(scores, return_inverse=True)
    size = int(group.max(initial=-1)) + 1
    good, bad = (np.bincount(group, weights * mask, size) for mask in (hits, ~hits))
    whole = good.sum() * bad.sum()
    return float((good * (np.cumsum(bad) - bad / 2)).sum() / whole) if whole else float("nan")


def evaluate(model: Model, data: Labelled, label: str = "", threshold: float | None = None, seed: int = 0) -> Evaluation:
    """Judge a model on labelled texts, whose labels it must know. `label`, `threshold`: the model's own if not given.

    Raises DataError for a label that the model lacks, ModelError for a `label` of that kind.
    """
    unknown = sorted(set(data.labels) - set(model.labels))
    if unknown:
        raise DataError(f"the texts have labels that the model lacks: {', '.join(unknown)}; it has {', '.join(model.labels)}")
    column = model.column(label)
    label = model.labels[column]
    bound = model.bound(label) if threshold is None else threshold
    found = model.scores(data.texts)
    empty = np.isnan(found[:, 0])
    found = np.nan_to_num(found, nan=0.0)
    given = np.array([model.labels.index(name) for name in data.labels])[data.numbers]
    best = found.argmax(1)
    hits, scores = given == column, found[:, column]
    taken = scores >= bound
    seen = model.languages
    langs = np.array(languages(data))
    lengths = np.asarray(pc.utf8_length(data.texts))
    interval, every = partial(_interval, _weights(data.sites, seed)), np.ones_like(taken)

    def group(name: str, where: np.ndarray, known: bool = True) -> Group:
        h, t = hits[where], taken[where]
        hit, missed, false, right = (int(x.sum()) for x in (h & t, h & ~t, ~h & t, ~h & ~t))
        return Group(name, len(h), hit, missed, false, right, auc(scores[where], h), known)

    return Evaluation(
        label,
        bound,
        len(scores),
        len(set(data.sites)),
        int(empty.sum()),
        interval(lambda w: auc(scores, hits, w)),
        interval(lambda w: _share(hits & taken, taken, w)),
        interval(lambda w: _share(hits & taken, hits, w)),
        interval(lambda w: _share(taken, every, w)),
        interval(lambda w: calibration_error(reliability(np.repeat(scores, w), np.repeat(hits, w)))),
        interval(lambda w: _share(best == given, every, w)),
        model.labels,
        tuple(tuple(np.bincount(best[given == n], minlength=len(model.labels)).tolist()) for n in range(len(model.labels))),
        tuple(
            group(lang, langs == lang, not seen or lang in seen)
            for lang in sorted(set(langs.tolist()), key=lambda x: (-(langs == x).sum(), x))
        ),
        tuple(
            group(f"{low:,} to {high:,}" if high else f"{low:,} and more", where)
            for low, high in LENGTHS
            if (where := (lengths >= low) & (lengths < (high or np.inf))).any()
        ),
        tuple(reliability(scores, hits)),
    )


def _share(part: np.ndarray, whole: np.ndarray, weights: np.ndarray) -> float:
    total = weights[whole].sum()
    return float(weights[part].sum() / total) if total else float("nan")


def _interval(weights: Sequence[np.ndarray], figure: Callable[[np.ndarray], float]) -> Interval:
    """A figure of weights that count every text once, the first, and its percentiles over the others."""
    value, *rounds = (figure(w) for w in weights)
    known = [x for x in rounds if x == x]
    low, high = np.percentile(known, (2.5, 97.5)).tolist() if len(known) > ROUNDS // 2 else (float("nan"), float("nan"))
    return Interval(value, low, high)


def _weights(sites: tuple[str, ...], seed: int) -> list[np.ndarray]:
    """How often each text counts: once, then in each round, in which whole sites are drawn with replacement."""
    names = {site: n for n, site in enumerate(sorted(set(sites)))}
    number = np.array([names[site] for site in sites])
    random, even = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    rounds = ROUNDS if len(names) > 1 else 0
    return [np.ones(len(sites), np.int64), *(random.multinomial(len(names), even)[number] for _ in range(rounds))]

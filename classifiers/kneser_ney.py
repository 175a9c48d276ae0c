"""Interpolated Kneser-Ney with three discounts: chances of n-grams in a stream of tokens, what is pruned, back-off weights.

Chen and Goodman 1998, section 3; Heafield et al. 2013, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classifiers.lm_kernels import BEGIN, keys


def learn(
    stream: np.ndarray, order: int, vocabulary: int, min_counts: Sequence[int], limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys (uint64), logarithms of chances and of back-off weights of the n-grams of up to `order` tokens that stay.

    `stream` (uint64): tokens, a BEGIN before each text; n-grams do not reach across. `min_counts`: least count of n-grams of
    each length, the last for longer ones (single tokens all stay); `limit`: most of each. What goes, goes to shorter ones.
    """
    grams = _counted(stream, order)
    chances = _kneser_ney(grams, vocabulary)
    kept = _pruned(grams, min_counts, limit)
    backs = [_back_off(grams, chances, kept, n) for n in range(order)]
    chance = np.concatenate([p[k] for p, k in zip(chances, kept, strict=True)])
    return np.concatenate([g.keys[k] for g, k in zip(grams, kept, strict=True)]), np.log(chance), np.concatenate(backs)


@dataclass(frozen=True)
class _Grams:
    """The distinct n-grams of one length, by their keys (uint64, ascending)."""

    keys: np.ndarray
    counts: np.ndarray  # how often each is there
    weights: np.ndarray  # of the longest the same; of others, how many tokens are there before it (continuation counts)
    contexts: np.ndarray  # keys of all but its last token; of single tokens 0
    suffixes: np.ndarray  # keys of all but its first


def _counted(stream: np.ndarray, order: int) -> list[_Grams]:
    found_keys = keys(stream, order + 1)
    inside = stream != BEGIN  # n-grams of n tokens that end here and have no BEGIN
    found = []
    for n in range(1, order + 1):
        if n > 1:
            inside = inside & np.append(np.zeros(n - 1, np.bool_), (stream != BEGIN)[: 1 - n])
        at = np.flatnonzero(inside)
        distinct, first, counts = np.unique(found_keys[n - 1, at], return_index=True, return_counts=True)
        weights: np.ndarray = counts
        if n < order:
            _, longer = np.unique(found_keys[n, at], return_index=True)  # with any token before, BEGIN too
            _, weights = np.unique(found_keys[n - 1, at[longer]], return_counts=True)
        where = at[first]
        contexts = found_keys[n - 2, where - 1] if n > 1 else np.zeros(len(where), np.uint64)
        suffixes = found_keys[n - 2, where] if n > 1 else contexts
        found.append(_Grams(distinct, counts, weights, contexts, suffixes))
    return found


def _kneser_ney(grams: list[_Grams], vocabulary: int) -> list[np.ndarray]:
    """Interpolated chances of the n-grams of each length, the shorter ones spread over the whole vocabulary."""
    found: list[np.ndarray] = []
    for part in grams:
        sizes = np.bincount(np.minimum(part.weights, 4), minlength=5)[1:].astype(np.float64)
        discounts: np.ndarray = np.array([0.0, 0.5, 1.0, 1.5])
        if (sizes > 0).all():  # Chen and Goodman 1998, equation 26
            base = sizes[0] / (sizes[0] + 2 * sizes[1])
            discounts[1:] = np.clip([k - (k + 1) * base * sizes[k] / sizes[k - 1] for k in (1, 2, 3)], 0, (1, 2, 3))
        less = discounts[np.minimum(part.weights, 3)]
        _, context = np.unique(part.contexts, return_inverse=True)
        total, mass = np.bincount(context, part.weights), np.bincount(context, less)
        shorter = found[-1][np.searchsorted(grams[len(found) - 1].keys, part.suffixes)] if found else 1 / vocabulary
        found.append((part.weights - less) / total[context] + (mass / total)[context] * shorter)
    return found


def _pruned(grams: list[_Grams], min_counts: Sequence[int], limit: int) -> list[np.ndarray]:
    """Which n-grams stay: frequent ones whose beginning and end stay too."""
    kept: list[np.ndarray] = []
    for n, part in enumerate(grams):
        least = min_counts[min(n, len(min_counts) - 1)] if n else 1
        stays = part.counts >= least
        if n:
            known = grams[n - 1].keys[kept[-1]]
            stays &= np.isin(part.contexts, known) & np.isin(part.suffixes, known)
        if stays.sum() > limit:
            at = np.flatnonzero(stays)
            stays[at[np.argsort(-part.counts[at], kind="stable")[limit:]]] = False
        kept.append(stays)
    return kept


def _back_off(grams: list[_Grams], chances: list[np.ndarray], kept: list[np.ndarray], n: int) -> np.ndarray:
    """Logarithms of the back-off weights of the kept n-grams of one length: what their kept extensions leave, shared out."""
    contexts = grams[n].keys[kept[n]]
    taken, below = np.zeros(len(contexts)), np.zeros(len(contexts))
    if n + 1 < len(grams):
        longer, stays = grams[n + 1], kept[n + 1]
        at = np.searchsorted(contexts, longer.contexts[stays])
        shorter = chances[n][np.searchsorted(grams[n].keys, longer.suffixes[stays])]
        taken, below = (np.bincount(at, p, len(contexts)).astype(np.float64) for p in (chances[n + 1][stays], shorter))
    return np.log(np.maximum(1 - taken, 1e-9) / np.maximum(1 - below, 1e-9))

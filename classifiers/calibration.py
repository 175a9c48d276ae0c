"""Probabilities that mean what they say, and the threshold that follows from what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from classifiers.errors import DataError

SOFTMAX, INDEPENDENT = "softmax", "independent"


@dataclass(frozen=True)
class Calibration:
    """Probabilities are the link (softmax, or a sigmoid a label) of `scale` * logit + `bias`."""

    link: str = SOFTMAX
    scale: float = 1.0
    bias: tuple[float, ...] = ()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of logits (N, L): float32 (N, L); a row of NaN stays one."""
        moved = logits.astype(np.float64) * self.scale + (np.asarray(self.bias) if self.bias else 0.0)
        if self.link == INDEPENDENT:
            found: np.ndarray = 1.0 / (1.0 + np.exp(-np.clip(moved, -700.0, 700.0)))
        else:
            powers = np.exp(moved - moved.max(1, keepdims=True))
            found = powers / powers.sum(1, keepdims=True)
        return found.astype(np.float32)


def fit(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The scale and the biases under which held-out labels are likeliest; for two labels, Platt's method.

    Bias-corrected temperature scaling (Alexandari et al., arXiv 1901.06852, section 2), by Newton's method; targets are
    smoothed as Platt 1999 (section 2.2) does, so that classes that are told apart without error keep a finite scale.
    `logits` (N, L), `labels` int64 (N,); rows of NaN do not count.
    """
    there = ~np.isnan(logits[:, 0])
    logits, labels = logits[there].astype(np.float64), labels[there]
    count, classes = logits.shape
    sizes = np.bincount(labels, minlength=classes)
    target = np.full((count, classes), 0.0)
    target += (1.0 / (sizes[labels] + 2))[:, None] / (classes - 1)
    target[np.arange(count), labels] = (sizes[labels] + 1) / (sizes[labels] + 2)
    spread = max(float(logits.std()), 1e-6)
    shaped = np.zeros((count, classes, classes))  # of each class: its logit, and which class it is, but for the first
    shaped[:, :, 0] = logits / spread
    shaped[:, 1:, 1:] = np.eye(classes - 1)
    found = np.zeros(classes)
    found[0] = 1.0
    loss, chance = _likelihood(shaped, target, found)
    for _ in range(100):
        mean = (chance[:, :, None] * shaped).sum(1)
        slope = ((chance - target)[:, :, None] * shaped).sum((0, 1)) / count
        bend = (np.einsum("nc,nci,ncj->ij", chance, shaped, shaped) - mean.T @ mean) / count
        step = np.linalg.solve(bend + 1e-9 * np.eye(classes), slope)
        before = loss
        while True:  # Newton's step, or the half of it that is nearest and no step up
            loss, chance = _likelihood(shaped, target, found - step)
            if loss <= before or np.abs(step).max() < 1e-9:
                break
            step = step / 2
        found = found - step
        if before - loss < 1e-10:
            break
    scale, *bias = (float(f"{x:.6g}") for x in (found[0] / spread, *found[1:]))  # the same digits on every machine
    return Calibration(SOFTMAX, scale, (0.0, *bias))


def _likelihood(shaped: np.ndarray, target: np.ndarray, found: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean -log p of the targets, and the probabilities (N, L)."""
    moved = shaped @ found
    moved -= moved.max(1, keepdims=True)
    whole = np.log(np.exp(moved).sum(1, keepdims=True))
    return float(-(target * (moved - whole)).sum() / len(target)), np.exp(moved - whole)


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> list[tuple[float, float, int]]:
    """Mean score, share of hits and size of `bins` groups of equal size, in the order of their scores."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(float(scores[p].mean()), float(hits[p].mean()), len(p)) for p in parts]


def calibration_error(table: list[tuple[float, float, int]]) -> float:
    """Expected calibration error of a reliability table (Guo et al., arXiv 1706.04599, section 2)."""
    return sum(abs(said - was) * size for said, was, size in table) / max(sum(size for *_, size in table), 1)


def for_precision(scores: np.ndarray, hits: np.ndarray, target: float) -> float:
    """The lowest threshold at which what lies at or above it is right in `target` of the cases. Raises DataError if none is."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores stay together
    precision = np.cumsum(hits[order])[ends] / (ends + 1)
    good = np.flatnonzero(precision >= target)
    if not len(good):
        raise DataError(
            f"no threshold reaches a precision of {target:g} on the {len(scores)} validation texts (at most "
            f"{precision.max():.3f}); ask for less, or give more labels"
        )
    return float(scores[order][ends[good[-1]]])


def for_share(scores: np.ndarray, share: float) -> float:
    """The threshold at or above which `share` of the texts lie, or a little more where scores are equal."""
    return float(np.sort(scores)[::-1][max(int(np.ceil(share * len(scores))), 1) - 1])

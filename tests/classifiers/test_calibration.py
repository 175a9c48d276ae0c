"""Probabilities that mean what they say, and thresholds."""

import numpy as np
import pytest

from classifiers.calibration import (
    INDEPENDENT,
    Calibration,
    calibration_error,
    fit,
    for_precision,
    for_share,
    reliability,
)
from classifiers.errors import DataError


def drawn(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too sure and moved, with labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, (count, classes))
    chance = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    labels = (rng.random((count, 1)) > np.cumsum(chance, 1)).sum(1).clip(0, classes - 1)
    return (3 * true + np.arange(classes)).astype(np.float32), labels


def error_of(found: Calibration, logits: np.ndarray, labels: np.ndarray) -> float:
    return calibration_error(reliability(found.probabilities(logits)[:, 1], labels == 1))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_it_finds_the_scale_and_the_bias_and_helps_on_texts_not_used(classes: int) -> None:
    found = fit(*drawn(4000, classes, 0))
    held_out = drawn(4000, classes, 1)
    assert found.scale == pytest.approx(1 / 3, rel=0.15)
    assert np.diff(found.bias) == pytest.approx(np.full(classes - 1, -1 / 3), abs=0.15)
    assert error_of(found, *held_out) < 0.3 * error_of(Calibration(), *held_out)
    assert error_of(found, *held_out) < 0.03


def test_labels_told_apart_without_error_keep_a_finite_scale() -> None:
    labels = np.arange(100) % 2
    found = fit(np.stack([np.zeros(100), np.where(labels, 4.0, -4.0)], axis=1), labels)
    sure = found.probabilities(np.array([[0.0, 4.0]]))[0, 1]
    assert pytest.approx(sure, abs=1e-3) == 51 / 52  # Platt's targets


def test_rows_without_a_score_stay_so_and_do_not_count() -> None:
    logits, labels = drawn(500, 2, 2)
    gaps = np.concatenate([logits, np.full((3, 2), np.nan, np.float32)])
    assert fit(gaps, np.concatenate([labels, [0, 0, 0]])) == fit(logits, labels)
    assert np.isnan(Calibration().probabilities(gaps)[-3:]).all()


def test_independent_labels_have_a_sigmoid_each() -> None:
    found = Calibration(INDEPENDENT).probabilities(np.array([[0.0, 1000.0, -1000.0]], np.float32))
    assert found.tolist() == [[0.5, 1.0, 0.0]]


def test_reliability_by_hand() -> None:
    table = reliability(np.array([0.1, 0.3, 0.7, 0.9]), np.array([False, True, True, True]), bins=2)
    assert table == [(pytest.approx(0.2), 0.5, 2), (pytest.approx(0.8), 1.0, 2)]
    assert calibration_error(table) == pytest.approx((0.3 * 2 + 0.2 * 2) / 4)


SCORES = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.4])
HITS = np.array([True, True, False, True, True, False])


@pytest.mark.parametrize(("target", "threshold"), [(1.0, 0.9), (0.8, 0.5), (0.75, 0.5), (0.6, 0.4)])
def test_the_lowest_threshold_of_a_precision(target: float, threshold: float) -> None:
    assert for_precision(SCORES, HITS, target) == threshold


def test_a_precision_out_of_reach() -> None:
    with pytest.raises(DataError, match=r"no threshold reaches a precision of 0.9 on the 5 validation texts \(at most 0.750\)"):
        for_precision(SCORES[1:], HITS[[2, 1, 3, 4, 5]], 0.9)


@pytest.mark.parametrize(("share", "threshold"), [(0.1, 0.9), (0.5, 0.8), (0.6, 0.6), (1.0, 0.4)])
def test_the_threshold_of_a_share(share: float, threshold: float) -> None:
    assert for_share(SCORES, share) == threshold
    assert (threshold <= SCORES).mean() >= share

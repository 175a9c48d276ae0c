"""Figures against hand calculations."""

from dataclasses import replace

import numpy as np
import pytest

from classifiers.card import CardConfig, card
from classifiers.errors import DataError
from classifiers.evaluation import auc, evaluate
from classifiers.labelled import Labelled, labelled
from classifiers.model import Model

SCORES = np.array([0.9, 0.8, 0.8, 0.4, 0.3])
HITS = np.array([True, True, False, True, False])


@pytest.mark.parametrize(
    ("weights", "value"),
    [
        (None, 4.5 / 6),  # of six pairs four are right, one is a tie
        ([1, 1, 1, 0, 1], 3.5 / 4),
        ([2, 1, 1, 1, 1], 6.5 / 8),
        ([1, 1, 0, 1, 0], float("nan")),
    ],
)
def test_auc_by_hand(weights: list[int] | None, value: float) -> None:
    assert auc(SCORES, HITS, None if weights is None else np.array(weights, float)) == pytest.approx(value, nan_ok=True)


def test_auc_is_the_mann_whitney_statistic() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    scores, hits = rng.integers(0, 50, 400) / 50, rng.random(400) < 0.3
    expected = stats.mannwhitneyu(scores[hits], scores[~hits]).statistic / (hits.sum() * (~hits).sum())
    assert auc(scores, hits) == pytest.approx(expected)


def test_groups_and_figures_agree(model: Model, parts: tuple[Labelled, Labelled, Labelled]) -> None:
    found = evaluate(model, parts[2])
    assert found.label == "good"
    assert found.threshold == model.threshold
    assert found.auc.value > 0.9
    for groups in (found.by_language, found.by_length):
        hits, missed, false, right = (sum(getattr(g, n) for g in groups) for n in ("hits", "missed", "false", "right"))
        assert hits + missed + false + right == found.texts == sum(g.texts for g in groups)
        assert hits / (hits + false) == pytest.approx(found.precision.value)
        assert hits / (hits + missed) == pytest.approx(found.recall.value)
        assert (hits + false) / found.texts == pytest.approx(found.kept.value)
    diagonal = sum(row[n] for n, row in enumerate(found.confusion))
    assert diagonal / found.texts == pytest.approx(found.accuracy.value)
    assert found.sites == len(set(parts[2].sites))
    for interval in (found.auc, found.precision, found.recall, found.kept, found.accuracy):
        assert interval.low <= interval.value <= interval.high
    assert found.auc.low < found.auc.high


def test_intervals_are_of_sites_not_of_texts(model: Model, parts: tuple[Labelled, Labelled, Labelled]) -> None:
    """Each site's texts ten times over say no more than once."""
    part = parts[2]
    tenfold = part.take(np.repeat(np.arange(len(part.sites)), 10))
    once, ten = evaluate(model, part).auc, evaluate(model, tenfold).auc
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))


def test_one_site_has_no_interval(model: Model, parts: tuple[Labelled, Labelled, Labelled]) -> None:
    found = evaluate(model, replace(parts[2], sites=("one.com",) * len(parts[2].sites)))
    assert np.isnan([found.auc.low, found.auc.high]).all()
    assert "too few sites" in card(model, found, CardConfig("m"))


def test_a_language_never_seen_is_flagged(model: Model, parts: tuple[Labelled, Labelled, Labelled]) -> None:
    langs = ("fr", *parts[2].langs[1:])
    found = {g.name: g.seen for g in evaluate(model, replace(parts[2], langs=langs)).by_language}
    assert found == {"en": True, "fr": False}
    assert "fr (never seen)" in card(model, evaluate(model, replace(parts[2], langs=langs)), CardConfig("m"))


def test_a_text_without_a_token_counts_as_not_taken(model: Model) -> None:
    given = labelled(["\u200d", "\u200e", "river season"], ["bad", "good", "good"], langs=["en"] * 3)
    found = evaluate(model, given)
    assert found.texts == 3
    assert sum(g.missed + g.right for g in found.by_language) >= found.empty


def test_labels_that_the_model_lacks(model: Model) -> None:
    with pytest.raises(DataError, match="the texts have labels that the model lacks: ugly; it has bad, good"):
        evaluate(model, labelled(["a", "b"], ["good", "ugly"]))


def test_the_card_says_what_and_how_good_and_is_the_same_again(
    model: Model, parts: tuple[Labelled, Labelled, Labelled]
) -> None:
    about = CardConfig("river", "Finds prose.", "CC0", "python -m classifiers fit pages.jsonl")
    written = card(model, evaluate(model, parts[2]), about)
    assert written == card(model, evaluate(model, parts[2]), about)
    assert written.isascii()
    for piece in (
        "# river",
        "Finds prose.",
        "Licence: CC0",
        "python -m classifiers fit pages.jsonl",
        "precision 0.8",
        "| train | ",
    ):
        assert piece in written
    assert f"{model.threshold:.4f}" in written

"""Learning from labelled texts: what the threshold reaches, and what the header keeps."""

from typing import Any

import numpy as np
import pytest

from classifiers import calibration, hashed
from classifiers.errors import DataError, ModelError
from classifiers.fit import FitConfig, fit
from classifiers.labelled import Labelled, labelled

HELD = {"validation": 0.3, "test": 0.3}
SMALL = hashed.Config(bits=11)


def test_a_threshold_by_precision_reaches_it_with_the_most_texts(data: Labelled, parts: tuple[Labelled, ...]) -> None:
    model = fit(data, FitConfig(SMALL, label="good", precision=0.9, **HELD))
    scores, hits = model.score(parts[1].texts, "good"), parts[1].numbers == 1
    assert model.threshold is not None
    assert hits[scores >= model.threshold].mean() >= 0.9
    lower = np.unique(scores[scores < model.threshold])
    assert all(hits[scores >= bound].mean() < 0.9 for bound in lower)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_threshold_by_share_keeps_it(share: float, data: Labelled, parts: tuple[Labelled, ...]) -> None:
    model = fit(data, FitConfig(SMALL, label="good", share=share, **HELD))
    assert model.threshold is not None
    kept = (model.score(parts[1].texts) >= model.threshold).mean()
    assert share <= kept <= share + 1 / len(parts[1].sites)


def test_calibration_helps_on_sites_not_used(data: Labelled, parts: tuple[Labelled, ...]) -> None:
    model = fit(data, FitConfig(hashed.Config(bits=11, epochs=40), label="good", **HELD))
    logits, hits = model.logits(parts[2].texts), parts[2].numbers == 1
    before, after = (
        calibration.calibration_error(calibration.reliability(how.probabilities(logits)[:, 1], hits, 5))
        for how in (calibration.Calibration(), model.calibration)
    )
    assert after < before


def test_the_header_keeps_what_it_was_made_of(data: Labelled, parts: tuple[Labelled, ...]) -> None:
    facts: dict[str, Any] = dict(fit(data, FitConfig(SMALL, seed=0, **HELD)).facts)
    assert facts["data"]["fingerprint"] == data.fingerprint
    assert facts["languages"] == {"en": len(parts[0].sites)}
    sizes = facts["split"]["sizes"]
    assert [sizes[name]["sites"] for name in ("train", "validation", "test")] == [len(set(p.sites)) for p in parts]
    assert facts["threshold"] == {"label": "good", "value": 0.5, "by": "even odds"}


def test_a_rare_label_counts_as_much_as_the_others_unless_told_otherwise() -> None:
    names = ["common" if n % 20 else "rare" for n in range(400)]
    data = labelled([f"{name} shared w{n}" for n, name in enumerate(names)], names)
    balanced, plain = (fit(data, FitConfig(SMALL, class_weights=how, seed=1, **HELD)) for how in ("balanced", "none"))
    assert balanced.logits(["shared"])[0, 1] > plain.logits(["shared"])[0, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_weights": "some"}, "class_weights is 'some'; it must be balanced or none"),
        ({"precision": 0.9, "share": 0.5}, "give one of them"),
        ({"share": 1.5}, "between 0 and 1"),
        ({"test": 0.0}, "both above 0"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        FitConfig(**given)


def test_a_config_of_no_kind(data: Labelled) -> None:
    with pytest.raises(ModelError, match="has no settings of a kind; they are a Config of fasttext_model, hashed or encoder"):
        fit(data, FitConfig("fasttext", **HELD))  # type: ignore[arg-type]

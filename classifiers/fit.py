"""`fit(data, config) -> Model`: split by site, learn, calibrate and choose a threshold on held-out sites."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from classifiers import calibration, encoder, fasttext_model, hashed
from classifiers.errors import DataError
from classifiers.labelled import Labelled, split
from classifiers.languages import languages
from classifiers.model import Model, kind_of

BALANCED, NONE = "balanced", "none"


@dataclass(frozen=True)
class FitConfig:
    """How a model is made. `model`: settings of its kind, which choose the kind.

    `label`: what the threshold is of ("": the last in the alphabet); `precision` or `share`: what it must reach on the
    validation split, or which share of that it keeps; neither: .5. `class_weights`: "balanced" (labels count alike) or "none".
    """

    model: fasttext_model.Config | hashed.Config | encoder.Config = field(default_factory=fasttext_model.Config)
    label: str = ""
    precision: float = 0.0
    share: float = 0.0
    class_weights: str = BALANCED
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.class_weights not in (BALANCED, NONE):
            raise DataError(f"class_weights is {self.class_weights!r}; it must be {BALANCED} or {NONE}")
        if not (0 <= self.precision <= 1 and 0 <= self.share <= 1) or (self.precision and self.share):
            raise DataError(f"precision is {self.precision} and share {self.share}; give one of them, between 0 and 1")
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise DataError(f"validation is {self.validation} and test {self.test}; both above 0, together under 1")


def fit(data: Labelled, config: FitConfig) -> Model:
    """Learn from the training sites, calibrate on the validation sites; the test sites are for `evaluate`.

    The same data (in any order), config and machine give the same bytes. Raises DataError.
    """
    order = np.array(sorted(range(len(data.sites)), key=lambda i: (data.sites[i], data.texts[i].as_py())))
    train, held_out, test = split(data.take(order), config.seed, config.validation, config.test)
    label = config.label or data.labels[-1]
    if label not in data.labels:
        raise DataError(f"there is no label {label!r} to choose a threshold for; there are {', '.join(data.labels)}")
    sizes = np.bincount(train.numbers, minlength=len(data.labels))
    weights = len(train.numbers) / (len(sizes) * sizes) if config.class_weights == BALANCED else np.ones(len(sizes))
    kind = kind_of(config.model)
    payload = kind.fit(train.texts, train.numbers, data.labels, weights, config.model, config.seed)
    raw = kind.logits(payload, held_out.texts)
    fitted = calibration.fit(raw, held_out.numbers)
    model = Model(kind.KIND, data.labels, payload, fitted)
    scores = np.nan_to_num(model.score(held_out.texts, label), nan=0.0)
    hits = held_out.numbers == data.labels.index(label)
    if config.precision:
        value, by = calibration.for_precision(scores, hits, config.precision), f"precision {config.precision:g}"
    elif config.share:
        value, by = calibration.for_share(scores, config.share), f"kept share {config.share:g}"
    else:
        value, by = 0.5, "even odds"
    facts = {
        "threshold": {"label": label, "value": value, "by": by},
        "languages": dict(sorted(Counter(languages(train)).items())),
        "data": {"fingerprint": data.fingerprint, **data.facts},
        "split": {
            "seed": config.seed,
            "validation": config.validation,
            "test": config.test,
            "class_weights": config.class_weights,
            "sizes": {
                name: {"sites": len(set(part.sites)), "texts": dict(zip(data.labels, _sizes(part), strict=True))}
                for name, part in (("train", train), ("validation", held_out), ("test", test))
            },
        },
    }
    return Model(kind.KIND, data.labels, payload, fitted, facts)


def _sizes(data: Labelled) -> list[int]:
    sizes: list[int] = np.bincount(data.numbers, minlength=len(data.labels)).tolist()
    return sizes

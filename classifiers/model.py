"""A model that scores text: `load(name or path) -> Model`, `Model.scores(texts) -> probabilities`.

A model is a folder (`classifiers.folder`): a header with kind, labels, settings, calibration, threshold and what is known of
the training data; a payload of arrays (npz, safetensors, or a fastText .bin); a card. A .bin or .ftz file of the fastText
library is a model too. A model is data: reading one never runs code, and what does not fit is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import encoder, fasttext_model, folder, hashed
from classifiers.calibration import INDEPENDENT, SOFTMAX, Calibration
from classifiers.errors import ModelError
from classifiers.folder import shipped

__all__ = ["UNDETERMINED", "Model", "kind_of", "load", "save", "shipped"]

PAYLOADS = {"fasttext": "model.bin", "hashed": "model.npz", "encoder": "model.safetensors"}
UNDETERMINED = "und"
_OWN = ("format", "kind", "labels", "settings", "calibration", "payload")


@dataclass(frozen=True)
class Model:
    """A loaded model with L labels. `facts`: what the header says beside: threshold, languages, data, split."""

    kind: str  # fasttext, hashed or encoder
    labels: tuple[str, ...]
    payload: Any  # of the kind's module
    calibration: Calibration
    facts: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""  # SHA-256 of the header, which holds that of the payload; "" before it is saved

    def scores(self, texts: Any) -> np.ndarray:
        """Calibrated probabilities of an Arrow array of N strings, float32 (N, L).

        A row is NaN where there is nothing to judge: null, empty, or without a token (`labels_of` calls it "und").
        """
        return self.calibration.probabilities(self.logits(texts))

    def score(self, texts: Any, label: str = "") -> np.ndarray:
        """Probability of one label, float32 (N,); "" is the label that the threshold is of, the last where there is none.

        Raises ModelError for a label that the model does not have.
        """
        return self.scores(texts)[:, self.column(label)]

    def grade(self, texts: Any) -> np.ndarray:
        """Where the labels are whole numbers, the mean of them under their probabilities, float32 (N,). Raises ModelError."""
        if not all(label.isdecimal() for label in self.labels):
            raise ModelError(f"the labels {', '.join(self.labels)} are no grades; a grade needs labels that are whole numbers")
        return self.scores(texts) @ np.array(self.labels, np.float32)

    def logits(self, texts: Any) -> np.ndarray:
        """The same before calibration, float32 (N, L)."""
        found: np.ndarray = _kind(self.kind).logits(self.payload, texts)
        return found

    def column(self, label: str = "") -> int:
        """The number of a label. Raises ModelError."""
        label = label or self.facts.get("threshold", {}).get("label", self.labels[-1])
        if label not in self.labels:
            raise ModelError(f"the model has no label {label!r}; it has {', '.join(self.labels)}")
        return self.labels.index(label)

    def labels_of(self, scores: np.ndarray) -> list[str]:
        """The likeliest label of each row of `scores`; "und" for a row of NaN."""
        empty = np.isnan(scores[:, 0])
        best = np.where(empty[:, None], 0, scores).argmax(1).tolist()
        return [UNDETERMINED if e else self.labels[b] for e, b in zip(empty.tolist(), best, strict=True)]

    @property
    def threshold(self) -> float | None:
        """The least score at which a text has the label, where one was chosen."""
        value: float | None = self.facts.get("threshold", {}).get("value")
        return value

    def bound(self, label: str = "") -> float:
        """The threshold of a label: the model's own where it is of that label, else even odds."""
        own = self.facts.get("threshold", {}).get("label")
        return 0.5 if self.threshold is None or label not in ("", own) else self.threshold

    @property
    def languages(self) -> frozenset[str]:
        """Languages of the training texts; empty where they are not known, as of a fastText file."""
        return frozenset(self.facts.get("languages", ()))


def _kind(kind: str) -> Any:
    """The module of a kind: `Config`, `fit`, `logits`, `to_bytes`, `from_bytes`. Only `encoder` loads torch, once used."""
    return {"fasttext": fasttext_model, "hashed": hashed, "encoder": encoder}[kind]


def kind_of(config: Any) -> Any:
    """The module of the kind that `config` has settings of. Raises ModelError."""
    for module in (fasttext_model, hashed, encoder):
        if isinstance(config, module.Config):
            return module
    raise ModelError(f"{config!r} has no settings of a kind; they are a Config of fasttext_model, hashed or encoder")


@lru_cache(maxsize=8)
def load(source: str | Path) -> Model:
    """The model of a shipped name, in a folder, or in a fastText file; read once a process. Raises ModelError."""
    path = folder.find(source)
    if isinstance(path, Path) and path.is_file():
        labels, found = fasttext_model.model_of_file(path)
        link = INDEPENDENT if found.loss == "ova" else SOFTMAX
        return Model("fasttext", labels, found, Calibration(link), fingerprint=_sum_of(path))
    said, payload, fingerprint = folder.read(path, PAYLOADS)
    try:
        return replace(_unpack(said, payload), fingerprint=fingerprint)
    except ModelError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{str(source)!r} is of kind {said['kind']}, which needs {error.name}: pip install {error.name}"
        ) from error
    except Exception as error:  # what agrees with its own sum and is no model raises what its decoder pleases
        said_so = " ".join(str(error).split())[:200]
        raise ModelError(f"{str(source)!r} does not fit together ({said_so}); make the model again") from error


def save(model: Model, path: Path, card: str = "") -> Model:
    """Write a model's folder; returns the model with its fingerprint. Raises ModelError for one read from a fastText file."""
    payload = _kind(model.kind).to_bytes(model.payload)
    if not payload:
        raise ModelError("a model that was read from a fastText file is that file; copy it instead")
    facts = {
        "labels": list(model.labels),
        "settings": asdict(model.payload.config),
        "calibration": asdict(model.calibration),
        **model.facts,
    }
    load.cache_clear()  # another model may have been there
    return replace(model, fingerprint=folder.write(path, model.kind, PAYLOADS[model.kind], payload, facts, card))


def _unpack(said: Mapping[str, Any], payload: bytes) -> Model:
    labels = tuple(str(label) for label in said["labels"])
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels are {labels}; there must be two or more, each once")
    module = _kind(said["kind"])
    config = module.Config(**said["settings"])
    bias = tuple(float(b) for b in said["calibration"]["bias"])
    calibration = Calibration(said["calibration"]["link"], float(said["calibration"]["scale"]), bias)
    if calibration.link not in (SOFTMAX, INDEPENDENT) or len(bias) not in (0, len(labels)):
        raise ValueError(f"the calibration is {calibration}")
    facts = {name: value for name, value in said.items() if name not in _OWN}
    return Model(said["kind"], labels, module.from_bytes(payload, config, len(labels)), calibration, facts)


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

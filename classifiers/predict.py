"""`predict`: scores of the texts in files, a row for each row that was read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classifiers import features
from classifiers.errors import DataError
from classifiers.labelled import lines
from classifiers.language import identify
from classifiers.model import UNDETERMINED, Model
from classifiers.perplexity import Perplexity

BATCH = 1024  # texts at a time


@dataclass(frozen=True)
class Prediction:
    """What was read and said."""

    what: str  # label, or bucket
    rows: int
    labels: dict[str, int]  # the likeliest label or the bucket of each text, "und" for one without a token
    taken: int | None  # at or above the threshold
    unseen: dict[str, int]  # texts in languages that the model never saw, by language


def predict(
    model: Model | Perplexity,
    paths: Sequence[Path],
    out: TextIO,
    text: str = "text",
    label: str = "",
    threshold: float | None = None,
) -> Prediction:
    """Write a JSON line for each row of `paths` (.jsonl, .parquet, or a text a line), in their order.

    A line has the row's fields but the text, and of a classifier `label` (the likeliest, "und" where there is nothing to
    judge), `score` (of the label asked for, null there), `scores` and `taken`; of a perplexity model `perplexity` and `bucket`;
    of both `lang` (the row's own, where it has one), and `seen`: whether the model learned from that language (null if that is
    unknown). Raises DataError for a file that cannot be read, ModelError for a label that the model lacks, or a perplexity
    model without bounds.
    """
    counts, unseen, rows, taken = Counter[str](), Counter[str](), 0, 0
    what = "bucket" if isinstance(model, Perplexity) else "label"
    waiting = texts_of(paths, text)
    while batch := list(islice(waiting, BATCH)):
        texts = pa.array([row.pop(text) for row in batch], pa.large_string())
        said = _buckets(model, texts) if isinstance(model, Perplexity) else _labels(model, texts, label, threshold)
        langs = identify(*features.buffers(texts)).langs
        for row, answer, guess in zip(batch, said, langs, strict=True):
            lang = row.get("lang") or guess
            seen = lang in model.languages if model.languages else None
            out.write(json.dumps({**row, **answer, "lang": lang, "seen": seen}, ensure_ascii=False, default=str) + "\n")
            counts[answer[what]] += 1
            taken += bool(answer.get("taken"))
            if seen is False and answer[what] != UNDETERMINED:
                unseen[lang] += 1
        rows += len(batch)
    shown = None if isinstance(model, Perplexity) else taken
    return Prediction(what, rows, dict(counts.most_common()), shown, dict(unseen.most_common()))


def _labels(model: Model, texts: pa.Array, label: str, threshold: float | None) -> list[dict[str, Any]]:
    column, bound = model.column(label), model.bound(label) if threshold is None else threshold
    found = model.scores(texts)
    return [
        {"label": best, "score": None, "scores": None, "taken": False}
        if best == UNDETERMINED
        else {
            "label": best,
            "score": _short(scores[column]),
            "scores": {name: _short(p) for name, p in zip(model.labels, scores, strict=True)},
            "taken": bool(scores[column] >= bound),
        }
        for best, scores in zip(model.labels_of(found), found, strict=True)
    ]


def _buckets(model: Perplexity, texts: pa.Array) -> list[dict[str, Any]]:
    found = model.score(texts)
    buckets = model.buckets(found).tolist()
    return [
        {"perplexity": None if bucket == UNDETERMINED else round(float(value), 2), "bucket": bucket}
        for value, bucket in zip(found, buckets, strict=True)
    ]


def _short(value: np.float32) -> float:
    return round(float(value), 6)


def texts_of(paths: Sequence[Path], text: str = "text") -> Iterator[dict[str, Any]]:
    """The rows of files (.jsonl, .parquet, or a text a line); `text` names the field. Raises DataError."""
    for path in paths:
        yield from _rows(path, text)


def _rows(path: Path, text: str) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        if text not in file.schema_arrow.names:
            raise DataError(f"{str(path)!r} has no column {text!r}; it has {', '.join(file.schema_arrow.names)}; give --text")
        for batch in file.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()
        return
    for number, line in enumerate(lines(path), 1):
        if ".jsonl" not in path.suffixes:
            yield {text: line.rstrip("\n")}
            continue
        try:
            row = json.loads(line)
            if not isinstance(row[text], str | None):
                raise ValueError(f"{text!r} is no string")
        except (ValueError, KeyError, TypeError) as error:
            why = "no such field" if isinstance(error, KeyError) else error
            raise DataError(f"line {number} of {str(path)!r} has no {text!r} ({why}); give --text, or mend the file") from error
        yield row

"""Scores of models as columns: a decision where a bound is given, else for route, order and survivor to use.

    Stage(score_text, ModelConfig("quality"), name="quality")                      column `quality`, nothing is dropped
    Stage(score_text, ModelConfig("toxic", most=0.5), name="toxic")                drops `toxic.most` above .5
    Stage(score_text, ModelConfig("domain", label_column="domain_label"), ...)     for route_by_label

A score is a probability; a text that says nothing (null, empty, blank) has none, and no bound applies to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers import model, perplexity
from classifiers.errors import ModelError
from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop, with_columns


@dataclass(frozen=True)
class ModelConfig:
    """A shipped name (classifiers/models), a model's folder or a fastText file, and what becomes of its scores.

    `label`: whose probability is the score ("": the one that the model was made for); `column`: of the score ("": the model's
    name); `label_column`: of the likeliest label ("und" where there is no score), none with "". A score below `least` or above
    `most` drops the document. `fingerprint` is the model's own, so that another model is another stage. Raises UserError.
    """

    model: str
    label: str = ""
    column: str = ""
    label_column: str = ""
    least: float | None = None
    most: float | None = None
    fingerprint: str = field(init=False, default="")

    def __post_init__(self) -> None:
        found = _known(model.load, self.model)
        try:
            found.column(self.label)
        except ModelError as error:
            raise UserError(f"model {self.model!r}: {error}") from error
        object.__setattr__(self, "fingerprint", found.fingerprint)

    @property
    def name(self) -> str:
        """The column of the score."""
        return self.column or Path(self.model).stem


@dataclass(frozen=True)
class PerplexityConfig:
    """Perplexity models of languages, and which buckets are kept (none given: all); documents of other languages pass.

    `models`: (language, shipped name, folder or ARPA file). Raises UserError.
    """

    models: tuple[tuple[str, str], ...] = (("en", "perplexity-en"), ("zh", "perplexity-zh"))
    keep: tuple[str, ...] = ()  # of head, middle, tail
    fingerprints: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", tuple(tuple(pair) for pair in self.models))  # lists, where --set gave them
        names = (perplexity.HEAD, perplexity.MIDDLE, perplexity.TAIL)
        if unknown := set(self.keep) - set(names):
            raise UserError(f"keep has {sorted(unknown)[0]!r}; buckets are {', '.join(names)}")
        object.__setattr__(self, "fingerprints", tuple(_known(perplexity.load, name).fingerprint for _, name in self.models))


def model_columns(cfg: ModelConfig) -> pa.Schema:
    """The columns that `score_text` adds."""
    return pa.schema([(cfg.name, pa.float64()), *([(cfg.label_column, pa.string())] if cfg.label_column else [])])


@batch_stage(adds=model_columns)
def score_text(docs: pa.RecordBatch, cfg: ModelConfig) -> pa.RecordBatch:
    """Add the score, float64 in [0, 1], null where there is none; with `label_column` the likeliest label too.

    Drops `<column>.least` and `<column>.most` where bounds are given. Raises UserError where the model is another than the one
    that the config was made with.
    """
    found = _known(model.load, cfg.model)
    _same(cfg.model, found.fingerprint, cfg.fingerprint)
    scores = found.scores(docs["text"])
    score = pa.array(scores[:, found.column(cfg.label)].astype(np.float64), from_pandas=True)
    columns = {cfg.name: score}
    if cfg.label_column:
        columns[cfg.label_column] = pa.array(found.labels_of(scores), pa.string())
    docs = with_columns(docs, columns)
    if cfg.least is not None:
        docs = drop(docs, pc.less(score, cfg.least), f"{cfg.name}.least", score, cfg.least)
    if cfg.most is not None:
        docs = drop(docs, pc.greater(score, cfg.most), f"{cfg.name}.most", score, cfg.most)
    return docs


PERPLEXITY_COLUMNS = pa.schema([("perplexity", pa.float64()), ("perplexity_bucket", pa.string())])


@batch_stage(adds=PERPLEXITY_COLUMNS)
def score_perplexity(docs: pa.RecordBatch, cfg: PerplexityConfig) -> pa.RecordBatch:
    """Add `perplexity` a token and `perplexity_bucket` (head, middle, tail) under the model of the document's language.

    Null for other languages and for texts without a token. Drops `perplexity.<bucket>` where `keep` leaves a bucket out; the
    bound is where the last kept bucket before it ends, null where there is none. Raises UserError as `score_text`.
    """
    value, bucket, bound = np.full(docs.num_rows, np.nan), np.full(docs.num_rows, None, object), np.full(docs.num_rows, np.nan)
    for (lang, name), made_with in zip(cfg.models, cfg.fingerprints, strict=True):
        found = _known(perplexity.load, name)
        _same(name, found.fingerprint, made_with)
        rows = np.flatnonzero(pc.fill_null(pc.equal(docs["lang"], lang), False).to_numpy(zero_copy_only=False))
        scores = found.score(docs["text"].take(pa.array(rows)))
        buckets = found.buckets(scores)
        value[rows], bucket[rows] = scores, np.where(np.isnan(scores), None, buckets)
        ends = {perplexity.MIDDLE: found.cuts[0], perplexity.TAIL: found.cuts[perplexity.MIDDLE in cfg.keep]}
        bound[rows] = [ends.get(b, np.nan) for b in buckets.tolist()]
    columns = {"perplexity": pa.array(value, from_pandas=True), "perplexity_bucket": pa.array(bucket.tolist(), pa.string())}
    docs = with_columns(docs, columns)
    if not cfg.keep:
        return docs
    unwanted = pc.invert(pc.is_in(columns["perplexity_bucket"], pa.array(cfg.keep, pa.string())))
    unwanted = pc.and_(unwanted, pc.is_valid(columns["perplexity_bucket"]))
    rule = pc.binary_join_element_wise("perplexity", columns["perplexity_bucket"], ".")
    return drop(docs, unwanted, rule, columns["perplexity"], pa.array(bound, from_pandas=True))


def _known(load: Any, source: str) -> Any:
    """A model, read once a process. Raises UserError."""
    try:
        return load(source)
    except ModelError as error:
        raise UserError(str(error)) from error


def _same(name: str, found: str, made_with: str) -> None:
    if found != made_with:
        raise UserError(
            f"model {name!r} is {found[:12]} here and was {made_with[:12]} where the run began; give all workers the same one"
        )

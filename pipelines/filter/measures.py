"""Every measure of a text as a column of its own, taken once; `rules.py` decides from the columns alone.

English follows datatrove 0.10.1 (Gopher, FineWeb) and so the published thresholds apply; `words.py` says what a token and a
word are in other scripts. No measure is ever NaN: a ratio over nothing is 0. Null means that the measure does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipelines.filter.languages import count_stop_words
from pipelines.filter.repetition import duplicates, ngram_repetition, segment_repetition
from pipelines.filter.web import web_measures
from pipelines.filter.words import SENTENCE_MARKS, count_sentences, tokenise, widths
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

# name: (unit, definition)
MEASURES: dict[str, tuple[str, str]] = {
    "chars": ("characters", "code points of the text"),
    "words": ("words", "tokens with a letter, digit or symbol; a character of a script without blanks is 1/2 or 1/3 word"),
    "mean_word_length": ("characters", "mean characters of those words"),
    "hash_ratio": ("ratio", "number signs over tokens"),
    "ellipsis_ratio": ("ratio", '"..." and U+2026 over tokens'),
    "bullet_line_ratio": ("ratio", 'lines (splitlines, blank ones too) that start with U+2022 or "-" after blanks'),
    "ellipsis_line_ratio": ("ratio", "lines (the same) that end in an ellipsis before blanks"),
    "alpha_word_ratio": ("ratio", "tokens with a letter over tokens"),
    "stop_words": ("words", "different stop words of the language that occur; null for a language without a list"),
    "dup_paragraph_ratio": ("ratio", "paragraphs (split at two or more newlines) that repeat an earlier one"),
    "dup_paragraph_char_ratio": ("ratio", "characters of those over all"),
    "dup_line_ratio": ("ratio", "lines (split at newlines) that repeat an earlier one"),
    "dup_line_char_ratio": ("ratio", "characters of those over all"),
    **{f"top_{n}gram_char_ratio": ("ratio", f"characters of the commonest {n} words in a row, over all") for n in (2, 3, 4)},
    **{f"dup_{n}gram_char_ratio": ("ratio", f"characters of repeated {n} words in a row, over all") for n in range(5, 11)},
    "lines": ("lines", "lines with more than blanks, split at newlines"),
    "end_mark_line_ratio": ("ratio", "those lines that end, unstripped, in a sentence mark of any script"),
    "short_line_ratio": ("ratio", "those lines of at most 30 characters, one of a script without blanks counted twice"),
    "repeated_line_char_ratio": ("ratio", "characters of those lines that repeat an earlier one, over all but newlines"),
    "newline_ratio": ("ratio", "newlines over tokens, those of scripts without blanks weighted as words"),
    "sentences": ("sentences", "ends of sentences inside lines, at least one a line"),
    "notice_ratio": ("ratio", "characters in lines that say not found, log in, for sale (notices.txt), at most 160 a phrase"),
    "same_shape_line_ratio": ("ratio", "lines that repeat an earlier one but for digits"),
    "list_line_char_ratio": ("ratio", "characters in lines of fewer than 5 words that end in no mark"),
    "broken_char_ratio": ("ratio", "replacement and control characters over all"),
}  # fmt: skip

MEASURE_COLUMNS = pa.schema([(name, pa.float64()) for name in MEASURES])
_BULLETS = ("\u2022", "-")
_ELLIPSES = ("...", "\u2026")
_TERMINAL = tuple(SENTENCE_MARKS)


@dataclass(frozen=True)
class MeasureConfig:
    """How to measure."""

    default_lang: str = "und"  # of documents whose `lang` is null; "und" has no stop words
    short_line_chars: int = 30  # FineWeb


def measure_text(text: str, lang: str, cfg: MeasureConfig) -> dict[str, float | None]:
    """All measures of one text, by name."""
    parts = tokenise(text)
    count = max(len(parts.tokens), 1)
    lines = text.splitlines()
    line_count = max(len(lines), 1)
    stop_words = count_stop_words(lang, text, set(parts.tokens))
    return {
        "chars": float(len(text)),
        "words": parts.words,
        "mean_word_length": parts.word_chars / parts.words if parts.words else 0.0,
        "hash_ratio": text.count("#") / count,
        "ellipsis_ratio": (text.count("...") + text.count("\u2026")) / count,
        "bullet_line_ratio": sum(line.lstrip().startswith(_BULLETS) for line in lines) / line_count,
        "ellipsis_line_ratio": sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / line_count,
        "alpha_word_ratio": parts.with_letter / count,
        "stop_words": None if stop_words is None else float(stop_words),
        **segment_repetition(text),
        **ngram_repetition(parts.tokens, len(text), parts.step),
        **_line_measures(text, parts.units, parts.step > 1, cfg),
        **web_measures(text),
    }


@batch_stage(adds=MEASURE_COLUMNS)
def measure(docs: pa.RecordBatch, cfg: MeasureConfig) -> pa.RecordBatch:
    """Add the columns of MEASURES, float64, null where `text` is null."""
    langs = docs["lang"].to_pylist()
    rows = [
        None if text is None else measure_text(text, lang or cfg.default_lang, cfg)
        for text, lang in zip(docs["text"].to_pylist(), langs, strict=True)
    ]
    columns = {name: pa.array([None if row is None else row[name] for row in rows], pa.float64()) for name in MEASURES}
    return with_columns(docs, columns)


def _line_measures(text: str, units: float, wide: bool, cfg: MeasureConfig) -> dict[str, float]:
    lines = [line for line in text.split("\n") if line.strip()]
    count = max(len(lines), 1)
    newlines = text.count("\n")
    lengths = widths(lines) if wide else list(map(len, lines))
    return {
        "lines": float(len(lines)),
        "end_mark_line_ratio": sum(line.endswith(_TERMINAL) for line in lines) / count,
        "short_line_ratio": sum(length <= cfg.short_line_chars for length in lengths) / count,
        "repeated_line_char_ratio": duplicates(lines)[1] / max(len(text) - newlines, 1),
        "newline_ratio": newlines / units if units else 0.0,
        "sentences": float(sum(map(count_sentences, lines))),
    }

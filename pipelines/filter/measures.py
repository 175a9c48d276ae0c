"""Every measure of a text as a column of its own, taken in one pass; `rules.py` decides from the columns alone.

The plain columns are ours; `words@dclm` is the same thing as another implementation reads it (a *dialect*, measured where
`MeasureConfig.dialects` names it; `kernels/dialects.py` has their kernels). Tokens are those of spaCy's English tokenizer
(`kernels/english.py`), which datatrove uses, so on text with blanks between its words ours and `@datatrove` are equal. In
scripts without blanks each character is a token; a *word* is then two CJK characters or three of Thai, Lao, Khmer or Burmese,
n-grams lengthen with it, and a line's characters count twice, so that bounds keep their meaning.

No measure is ever NaN: a ratio over nothing is 0. Null means that the measure does not apply. Ratios lie in 0..1 but where the
table says "over" something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.filter.kernels import document
from pipelines.filter.kernels.notices import phrase_ratios
from pipelines.filter.kernels.phrases import Phrases, text_buffers
from pipelines.filter.kernels.stop_words import stop_word_tables
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

_TOP = {f"top_{n}gram_char_ratio": f"characters of the commonest {n} words in a row, over all" for n in (2, 3, 4)}
_DUP = {f"dup_{n}gram_char_ratio": f"characters of repeated {n} words in a row, over all" for n in range(5, 11)}

# name: definition, in the order in which the kernel writes them (document.py)
MEASURES: dict[str, str] = {
    "chars": "code points of the text",
    "words": "tokens with more than punctuation; a character of a script without blanks is 1/2 or 1/3 word",
    "mean_word_length": "mean characters of those words",
    "hash_ratio": "number signs over tokens",
    "ellipsis_ratio": '"..." and U+2026 over tokens',
    "bullet_line_ratio": 'lines (splitlines, blank ones too) that start with U+2022 or "-" after blanks',
    "ellipsis_line_ratio": "lines (the same) that end in an ellipsis before blanks",
    "alpha_word_ratio": "tokens with a letter over tokens",
    "stop_words": "different stop words of the language that occur; null for a language without a list",
    "dup_paragraph_ratio": "paragraphs (split at two or more newlines) that repeat an earlier one",
    "dup_paragraph_char_ratio": "characters of those over all",
    "dup_line_ratio": "lines (split at newlines) that repeat an earlier one",
    "dup_line_char_ratio": "characters of those over all",
    **_TOP,
    **_DUP,
    "lines": "lines with more than blanks, split at newlines",
    "end_mark_line_ratio": "those lines that end, unstripped, in a sentence mark of any script",
    "short_line_ratio": "those lines of at most 30 characters, one of a script without blanks counted twice",
    "repeated_line_char_ratio": "characters of those lines that repeat an earlier one, over all but newlines",
    "newline_ratio": "newlines over tokens, those of scripts without blanks weighted as words",
    "sentences": "ends of sentences inside lines, at least one a line",
    "same_shape_line_ratio": "lines that repeat an earlier one but for digits",
    "list_line_char_ratio": "characters in lines of fewer than 5 words that end in no mark",
    "broken_char_ratio": "replacement and control characters over all",
    "paragraphs": "paragraphs (split at two or more newlines)",
    "mean_line_chars": "mean characters of the lines with more than blanks",
    "max_line_chars": "characters of the longest line",
    "longest_word_chars": "characters of the longest piece between blanks",
    "alpha_char_ratio": "letters over characters",
    "digit_char_ratio": "decimal digits over characters",
    "upper_char_ratio": "capitals over letters",
    "space_char_ratio": "blanks over characters",
    "punctuation_char_ratio": "punctuation over characters",
    "bracket_char_ratio": "brackets over characters",
    "curly_bracket_ratio": "curly brackets over characters",
    "url_char_ratio": "characters of addresses over all",
    "all_caps_word_ratio": "pieces between blanks of two or more characters, with letters, all of them capitals",
    "unique_word_ratio": "different words over words",
    "unigram_entropy": "entropy of the distribution of words, in nats",
    "compression_ratio": "bytes after a plain LZ77 coder over bytes of the text",
    "notice_ratio": "characters in lines that say not found, log in, for sale (notices.txt), at most 160 a phrase",
    # datatrove 0.10.1: gopher_quality_filter.py, gopher_repetition_filter.py, fineweb_quality_filter.py
    **{f"{name}@datatrove": text for name, text in {
        "words": "tokens with a character outside of its PUNCTUATION",
        "mean_word_length": "mean characters of those",
        "hash_ratio": "number signs over tokens",
        "ellipsis_ratio": "ellipses over tokens",
        "alpha_word_ratio": "tokens with a letter over tokens",
        "stop_words": "different ones of Gopher's eight English stop words, case-sensitive",
        **_TOP,
        **_DUP,
        "short_line_ratio": "lines of at most 30 characters",
        "newline_ratio": "newlines over tokens",
    }.items()},
    # DCLM: baselines/mappers/filters/content_filters.py
    **{f"{name}@dclm": text for name, text in {
        "words": "pieces between ASCII blanks that begin with a letter or digit",
        "mean_word_length": "mean characters of the pieces between blanks",
        "hash_ratio": 'number signs, "...", ". . ." and U+2026 together over pieces between blanks',
        "ellipsis_ratio": "the same: it has one pool of symbols",
        "bullet_line_ratio": 'stripped lines with text that start with U+25CF, U+2022, "*" or "-"',
        "ellipsis_line_ratio": 'stripped lines with text that end in "...", ". . ." or U+2026',
        "alpha_word_ratio": "pieces between blanks with a letter",
        "stop_words": "occurrences of Gopher's eight stop words in any case",
        "dup_paragraph_ratio": "stripped paragraphs that occur more than once, all copies",
        "dup_paragraph_char_ratio": "characters of those over characters of paragraphs",
        "dup_line_ratio": "stripped lines with text that occur more than once, all copies",
        "dup_line_char_ratio": "characters of those over characters of lines",
        **_TOP,
        **_DUP,
    }.items()},
    # dolma: python/dolma/taggers/gopher.py
    **{f"{name}@dolma": text for name, text in {
        "words": "pieces between blanks",
        "mean_word_length": "their median length in characters",
        "hash_ratio": "pieces between blanks that contain a number sign or U+2026",
        "ellipsis_ratio": "the same: it has one pool of symbols",
        "bullet_line_ratio": 'lines, blank ones too, that start with "*" or "-"',
        "ellipsis_line_ratio": "lines, blank ones too, that end in U+2026",
        "alpha_word_ratio": "pieces between blanks with a letter",
        "stop_words": "occurrences of Gopher's eight stop words, case-sensitive",
        "dup_line_ratio": "lines, blank ones too, that occur more than once, all copies",
        "dup_line_char_ratio": "characters of those over characters of words",
        **_TOP,
        **_DUP,
    }.items()},
    # NeMo Curator: stages/text/filters/heuristic/string.py, repetition/repetition.py
    **{f"{name}@nemo": text for name, text in {
        "words": "pieces between blanks",
        "mean_word_length": "mean characters of those",
        "hash_ratio": "pieces between blanks that are an ellipsis mark, or number signs by more than half",
        "ellipsis_ratio": "the same: it has one pool of symbols",
        "bullet_line_ratio": "lines with text that start with one of its twelve bullets after blanks",
        "ellipsis_line_ratio": 'lines with text that end in one of its ellipsis marks or "read more"',
        "alpha_word_ratio": "pieces between blanks with a letter",
        "stop_words": "occurrences of Gopher's eight stop words, case-sensitive",
        "dup_paragraph_ratio": "paragraphs (split at two newlines) that repeat an earlier one",
        "dup_paragraph_char_ratio": "characters of those over characters of paragraphs",
        "dup_line_ratio": "lines with text that repeat an earlier one",
        "dup_line_char_ratio": "characters of those over characters of lines",
        **_TOP,
        **_DUP,
        "non_alnum_char_ratio": "characters other than ASCII letters, digits, newlines and ? ! , . over all",
        "digit_char_ratio": "ASCII digits over characters",
        "url_char_ratio": "characters that its URL expression matches over all",
        "space_char_ratio": "tabs, newlines, carriage returns, backspaces and blanks over characters",
        "bracket_char_ratio": "brackets over characters",
        "longest_word_chars": "characters of the longest piece between blanks",
        "boilerplate_paragraph_ratio": "paragraphs with one of its policy phrases; 1 where one says lorem ipsum",
        "no_end_mark_line_ratio": "lines with text that end, stripped, in none of . ? ! \" '",
    }.items()},
    # RedPajama-Data-v2: app/src/core/quality_signals, names as published
    **{f"{name}@redpajama": text for name, text in {
        "rps_doc_num_sentences": "matches of \\b[^.!?]+[.!?]*",
        "rps_doc_word_count": "words after punctuation was taken out",
        "rps_doc_mean_word_length": "mean characters of those",
        "rps_doc_symbol_to_word_ratio": "number signs and ellipses over raw words (word characters, or others, in a row)",
        "rps_doc_frac_lines_end_with_ellipsis": "lines, blank ones too, that end in an ellipsis before blanks",
        "rps_doc_frac_no_alph_words": "raw words without an ASCII letter",
        "rps_doc_frac_unique_words": "different words over words",
        "rps_doc_unigram_entropy": "entropy of the distribution of words, in nats",
        "rps_doc_frac_all_caps_words": "raw words that are upper case",
        "rps_doc_stop_word_fraction": "raw words that are stop words of the language, over raw words",
        "rps_doc_lorem_ipsum": "occurrences of lorem ipsum over characters after normalisation",
        "rps_doc_curly_bracket": "curly brackets over characters",
        "rps_lines_ending_with_terminal_punctution_mark": "lines, blank ones too, ending in . ! ? U+201D (mean of its lines)",
        "rps_lines_start_with_bulletpoint": "lines, blank ones too, that start with one of its ten bullets (mean of its lines)",
        **{f"rps_doc_frac_chars_top_{n}gram": text for n, text in zip((2, 3, 4), _TOP.values(), strict=True)},
        **{f"rps_doc_frac_chars_dupe_{n}grams": text for n, text in zip(range(5, 11), _DUP.values(), strict=True)},
    }.items()},
}  # fmt: skip

_BOILERPLATE = "boilerplate_paragraph_ratio@nemo"
DIALECTS = ("datatrove", "dclm", "dolma", "nemo", "redpajama")


@dataclass(frozen=True)
class MeasureConfig:
    """What to measure beside our own columns.

    `keywords`: (name, phrases) gives a column `keyword_<name>`, how often any of the phrases occurs as whole words, in any
    case; a rule of one's own on it is `Rule("mine.max_casino", "keyword_casino", "max", 2.0)`.
    """

    dialects: tuple[str, ...] = ()  # of DIALECTS
    keywords: tuple[tuple[str, tuple[str, ...]], ...] = ()
    default_lang: str = "und"  # of documents whose `lang` is null; "und" has no stop words


def measure_columns(cfg: MeasureConfig) -> pa.Schema:
    """The columns that `measure` adds. Raises UserError for a dialect that is not known."""
    if unknown := set(cfg.dialects) - set(DIALECTS):
        raise UserError(f"measure.dialects: there is no dialect {sorted(unknown)[0]!r}; known are {', '.join(DIALECTS)}")
    names = [name for name in MEASURES if "@" not in name or name.partition("@")[2] in cfg.dialects]
    return pa.schema([(name, pa.float64()) for name in (*names, *(f"keyword_{name}" for name, _ in cfg.keywords))])


@batch_stage(version=3, adds=measure_columns)
def measure(docs: pa.RecordBatch, cfg: MeasureConfig) -> pa.RecordBatch:
    """Add the columns of MEASURES, float64, null where `text` is null. Raises UserError for a dialect that is not known."""
    texts, columns = docs["text"], {}
    wanted = np.array([dialect in cfg.dialects for dialect in DIALECTS])
    buffer, offsets = text_buffers(texts)
    langs = [lang or cfg.default_lang for lang in docs["lang"].to_pylist()]
    values = document.measure_batch(buffer, offsets, stop_word_tables().rows(langs), wanted)
    null = texts.is_null().to_numpy(zero_copy_only=False)
    names = [name for name in MEASURES if name != "notice_ratio"]
    for i, name in enumerate(names):
        if "@" not in name or wanted[DIALECTS.index(name.partition("@")[2])]:
            column = values[:, i]
            columns[name] = pa.array(column, pa.float64(), mask=null | np.isnan(column))
    notices, boilerplate = phrase_ratios(buffer, offsets, "nemo" in cfg.dialects)
    columns["notice_ratio"] = pa.array(notices, pa.float64(), mask=null)
    if boilerplate is not None:
        columns[_BOILERPLATE] = pa.array(boilerplate, pa.float64(), mask=null)
    for name, phrases in cfg.keywords:
        columns[f"keyword_{name}"] = pa.array(_phrases(phrases).scan(texts).hits.astype(np.float64), mask=null)
    return with_columns(docs, {field.name: columns[field.name] for field in measure_columns(cfg)})


@cache
def _phrases(phrases: tuple[str, ...]) -> Phrases:
    return Phrases(phrases)

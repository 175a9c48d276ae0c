"""Rule sets as data: each field of a set is one rule, `<set>.<field>` its name, with its measure, bound and source in a line.

A value on the bound passes. A rule that is None is off; a null measure (it does not apply) passes. The sets are asked in the
order of `RulesConfig`, the rules of a set in the order written here (the published one): the first failing rule is recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop

Override = tuple[str, str, float | None]  # language, field, its bound there (None: off)


@dataclass(frozen=True)
class Rule:
    """Drop a document whose `measure` is below (`min`) or above (`max`) the bound."""

    name: str  # "<set>.<rule>"
    measure: str  # a column
    kind: Literal["min", "max"]
    bound: float | None
    by_lang: tuple[tuple[str, float | None], ...] = ()  # bounds of single languages


def least(measure: str, bound: float) -> Any:
    """A field: the measure must be at least the bound."""
    return field(default=bound, metadata={"measure": measure, "kind": "min"})


def most(measure: str, bound: float) -> Any:
    """A field: the measure must be at most the bound."""
    return field(default=bound, metadata={"measure": measure, "kind": "max"})


@dataclass(frozen=True)
class GopherRepetition:
    """Gopher, arXiv 2112.11446, table A1; `min_chars` as datatrove 0.10.1 (an empty text is no document)."""

    set_name: ClassVar[str] = "gopher_repetition"
    min_chars: float | None = least("chars", 1.0)
    max_dup_paragraphs: float | None = most("dup_paragraph_ratio", 0.30)
    max_dup_paragraph_chars: float | None = most("dup_paragraph_char_ratio", 0.20)
    max_dup_lines: float | None = most("dup_line_ratio", 0.30)
    max_dup_line_chars: float | None = most("dup_line_char_ratio", 0.20)
    max_top_2gram: float | None = most("top_2gram_char_ratio", 0.20)
    max_top_3gram: float | None = most("top_3gram_char_ratio", 0.18)
    max_top_4gram: float | None = most("top_4gram_char_ratio", 0.16)
    max_dup_5gram: float | None = most("dup_5gram_char_ratio", 0.15)
    max_dup_6gram: float | None = most("dup_6gram_char_ratio", 0.14)
    max_dup_7gram: float | None = most("dup_7gram_char_ratio", 0.13)
    max_dup_8gram: float | None = most("dup_8gram_char_ratio", 0.12)
    max_dup_9gram: float | None = most("dup_9gram_char_ratio", 0.11)
    max_dup_10gram: float | None = most("dup_10gram_char_ratio", 0.10)
    by_lang: tuple[Override, ...] = ()


# Mean word length has no meaning where words are counted from characters (it is CHARS_PER_WORD there), and Gopher's 3 is above
# or near the mean of languages written in syllables (Vietnamese, Korean).
_SHORT_WORDS: tuple[Override, ...] = (
    *((lang, "min_mean_word_length", None) for lang in ("zh", "yue", "wuu", "ja", "th", "lo", "km", "my")),
    ("ko", "min_mean_word_length", 1.5),
    ("vi", "min_mean_word_length", 2.0),
)


@dataclass(frozen=True)
class GopherQuality:
    """Gopher, arXiv 2112.11446, appendix A.1.1, as datatrove 0.10.1 reads it; bounds by language are ours."""

    set_name: ClassVar[str] = "gopher_quality"
    min_words: float | None = least("words", 50.0)
    max_words: float | None = most("words", 100_000.0)
    min_mean_word_length: float | None = least("mean_word_length", 3.0)
    max_mean_word_length: float | None = most("mean_word_length", 10.0)
    max_hash_ratio: float | None = most("hash_ratio", 0.1)
    max_ellipsis_ratio: float | None = most("ellipsis_ratio", 0.1)
    max_bullet_lines: float | None = most("bullet_line_ratio", 0.9)
    max_ellipsis_lines: float | None = most("ellipsis_line_ratio", 0.3)
    min_alpha_words: float | None = least("alpha_word_ratio", 0.8)
    min_stop_words: float | None = least("stop_words", 2.0)
    by_lang: tuple[Override, ...] = _SHORT_WORDS


@dataclass(frozen=True)
class C4:
    """C4, arXiv 1910.10683, 2.2: the page rules. The columns come from the stage `c4_lines`, which must run before."""

    set_name: ClassVar[str] = "c4"
    max_lorem_ipsum_lines: float | None = most("c4_lorem_ipsum_lines", 0.0)
    max_curly_bracket_lines: float | None = most("c4_curly_bracket_lines", 0.0)
    min_sentences: float | None = least("c4_sentences", 5.0)
    by_lang: tuple[Override, ...] = ()


@dataclass(frozen=True)
class FineWeb:
    """FineWeb, arXiv 2406.17557, 3.6, as datatrove 0.10.1 reads it."""

    set_name: ClassVar[str] = "fineweb"
    min_lines: float | None = least("lines", 1.0)
    min_end_mark_lines: float | None = least("end_mark_line_ratio", 0.12)
    max_short_lines: float | None = most("short_line_ratio", 0.67)
    max_repeated_line_chars: float | None = most("repeated_line_char_ratio", 0.01)
    max_newlines: float | None = most("newline_ratio", 0.3)
    by_lang: tuple[Override, ...] = ()


@dataclass(frozen=True)
class WebPage:
    """Ours: what is no page of text in any language. Bounds stand far from those of real pages, short ones too."""

    set_name: ClassVar[str] = "web_page"
    min_words: float | None = least("words", 10.0)
    max_notices: float | None = most("notice_ratio", 0.25)
    max_same_shape_lines: float | None = most("same_shape_line_ratio", 0.9)
    max_list_lines: float | None = most("list_line_char_ratio", 0.95)
    max_broken_chars: float | None = most("broken_char_ratio", 0.02)
    by_lang: tuple[Override, ...] = ()


@dataclass(frozen=True)
class RulesConfig:
    """Which sets are asked, in this order; None is off. `extra` are rules of one's own on any float column."""

    web_page: WebPage | None = None
    gopher_repetition: GopherRepetition | None = None
    gopher_quality: GopherQuality | None = None
    c4: C4 | None = None
    fineweb: FineWeb | None = None
    extra: tuple[Rule, ...] = ()


def web_rules() -> RulesConfig:
    """Sets for pages in any language, calibrated to keep real pages, short ones, blogs and lists of facts among them.

    The published bounds were chosen on English; on crawled pages of 28 languages they drop a third of what people would keep
    (most by `min_alpha_words`, which counts punctuation marks as words, by `min_end_mark_lines` and by `max_ellipsis_lines`).
    Here they are set so wide that what they drop is junk in any language; repetition bounds are doubled.
    """
    repetition = GopherRepetition()
    doubled = {f.name: 2 * getattr(repetition, f.name) for f in dataclasses.fields(repetition) if f.name.startswith("max_")}
    return RulesConfig(
        web_page=WebPage(),
        gopher_repetition=GopherRepetition(**doubled),
        gopher_quality=GopherQuality(min_words=20.0, min_alpha_words=0.45, max_ellipsis_lines=None),
        fineweb=FineWeb(min_end_mark_lines=None, max_short_lines=0.95, max_repeated_line_chars=0.2),
    )


def rules_of(rule_set: Any) -> tuple[Rule, ...]:
    """The rules of a set, in order. Raises UserError for an override of a rule that the set has not."""
    fields = [f for f in dataclasses.fields(rule_set) if "measure" in f.metadata]
    names = {f.name for f in fields}
    for lang, name, _ in rule_set.by_lang:
        if name not in names:
            raise UserError(f"{rule_set.set_name}.by_lang: there is no rule {name!r} for {lang!r}; rules are {sorted(names)}")
    return tuple(
        Rule(
            f"{rule_set.set_name}.{f.name}",
            f.metadata["measure"],
            f.metadata["kind"],
            getattr(rule_set, f.name),
            tuple((lang, bound) for lang, name, bound in rule_set.by_lang if name == f.name),
        )
        for f in fields
    )


def all_rules(cfg: RulesConfig) -> tuple[Rule, ...]:
    """Every rule of a config in the order in which they are asked."""
    sets = (getattr(cfg, f.name) for f in dataclasses.fields(cfg) if f.name != "extra")
    return (*(rule for s in sets if s is not None for rule in rules_of(s)), *cfg.extra)


@batch_stage()
def decide(docs: pa.RecordBatch, cfg: RulesConfig) -> pa.RecordBatch:
    """Mark the documents that break a rule, from the measure columns alone. Raises UserError if a column is missing."""
    langs = docs["lang"].to_pylist()
    for rule in all_rules(cfg):
        if docs.schema.get_field_index(rule.measure) < 0:
            stage = "c4_lines" if rule.measure.startswith("c4_") else "measure"
            raise UserError(f"rule {rule.name} needs the column {rule.measure!r}; put the stage `{stage}` before `decide`")
        values = docs[rule.measure].to_numpy(zero_copy_only=False).astype(np.float64)  # null becomes NaN, which breaks no bound
        bounds = _bounds(rule, langs)
        broken = values < bounds if rule.kind == "min" else values > bounds
        if broken.any():
            docs = drop(docs, pa.array(broken), rule.name, pa.array(values), pa.array(bounds))
    return docs


def _bounds(rule: Rule, langs: Sequence[str | None]) -> np.ndarray:
    """Shape (rows,): the bound for each document's language, NaN where the rule is off."""
    by_lang = dict(rule.by_lang)
    bounds = [by_lang.get(lang, rule.bound) if lang is not None else rule.bound for lang in langs]
    return np.array([np.nan if bound is None else bound for bound in bounds], np.float64)

"""Rule sets as data: each field of a set is one rule, `<set>.<field>` its name, with its measure, bound and source in a line.

A value on the bound passes. A rule that is None is off; a null measure (it does not apply) passes. The sets are asked in the
order of `RulesConfig`, the rules of a set in the order written here (the published one): the first failing rule is recorded.

**Languages.** The published bounds of Gopher, C4 and FineWeb were chosen on English. A rule that still has its published bound
takes, for another language, the bound that FineWeb-2 found for it (fineweb2.tsv, 102 languages) or, where that does not fit our
tokens, one of ours (bounds.tsv), and for a language without settings the neutral one (`languages.py`). A bound of one's own
holds for every language; `by_lang` says otherwise for some.

**Dialects.** `GopherQuality(dialect="dclm")`, or `rule_set("gopher_quality@dclm")`, asks the same rules of the measures as DCLM
takes them, in any language. Ours is the default and what it measures stands in one place, the table in `measures.py`; the stage
`measure` must name the dialect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.filter.languages import WITHOUT_END_MARKS, base_code, bound_names, settings
from pipelines.filter.measures import DIALECTS, MEASURES
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
    by_language: bool = False  # FineWeb-2's bound of the language, where it has one for this rule


def least(measure: str, bound: float | None) -> Any:
    """A field: the measure must be at least the bound."""
    return field(default=bound, metadata={"measure": measure, "kind": "min"})


def most(measure: str, bound: float | None) -> Any:
    """A field: the measure must be at most the bound."""
    return field(default=bound, metadata={"measure": measure, "kind": "max"})


# Words of scripts without blanks are counted from characters: their mean length is no measure of the text.
_NO_WORD_LENGTH: tuple[Override, ...] = tuple(
    (lang, rule, None)
    for lang in ("zh", "ja", "th", "lo", "km", "my")
    for rule in ("min_mean_word_length", "max_mean_word_length")
)
# Where a blank ends the sentence no bound on end marks holds, one's own neither.
_NO_END_MARKS: tuple[Override, ...] = tuple((lang, "min_end_mark_lines", None) for lang in sorted(WITHOUT_END_MARKS))


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
    dialect: str = ""


@dataclass(frozen=True)
class GopherQuality:
    """Gopher, arXiv 2112.11446, appendix A.1.1, as datatrove 0.10.1 reads it."""

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
    by_lang: tuple[Override, ...] = _NO_WORD_LENGTH
    dialect: str = ""


@dataclass(frozen=True)
class C4:
    """C4, arXiv 1910.10683, 2.2: the page rules. The columns come from the stage `c4_lines`, which must run before.

    `min_long_paragraphs` is mC4's (arXiv 2010.11934, 3.1: three lines of 200 characters or more, 3.0), off here as in C4.
    Bad words are a stage of their own, `bad_words`.
    """

    set_name: ClassVar[str] = "c4"
    max_lorem_ipsum_lines: float | None = most("c4_lorem_ipsum_lines", 0.0)
    max_curly_bracket_lines: float | None = most("c4_curly_bracket_lines", 0.0)
    min_sentences: float | None = least("c4_sentences", 5.0)
    min_long_paragraphs: float | None = least("c4_paragraphs", None)
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
    by_lang: tuple[Override, ...] = _NO_END_MARKS
    dialect: str = ""


@dataclass(frozen=True)
class FineWeb2:
    """FineWeb-2, arXiv 2506.20920, 3.4 (fineweb-2-pipeline.py): what it keeps of three sets, in its order, bounds by language.

    The numbers written here are what holds where it has no bound of the language: those of FineWeb.
    """

    set_name: ClassVar[str] = "fineweb2"
    min_chars: float | None = least("chars", 1.0)
    max_dup_lines: float | None = most("dup_line_ratio", 0.30)
    max_top_2gram: float | None = most("top_2gram_char_ratio", 0.20)
    max_top_3gram: float | None = most("top_3gram_char_ratio", 0.18)
    max_top_4gram: float | None = most("top_4gram_char_ratio", 0.16)
    max_dup_5gram: float | None = most("dup_5gram_char_ratio", 0.15)
    max_dup_6gram: float | None = most("dup_6gram_char_ratio", 0.14)
    max_dup_7gram: float | None = most("dup_7gram_char_ratio", 0.13)
    max_dup_8gram: float | None = most("dup_8gram_char_ratio", 0.12)
    max_dup_9gram: float | None = most("dup_9gram_char_ratio", 0.11)
    max_dup_10gram: float | None = most("dup_10gram_char_ratio", 0.10)
    min_lines: float | None = least("lines", 1.0)
    min_end_mark_lines: float | None = least("end_mark_line_ratio", 0.12)
    max_repeated_line_chars: float | None = most("repeated_line_char_ratio", 0.1)
    max_newlines: float | None = most("newline_ratio", 0.3)
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
    by_lang: tuple[Override, ...] = (*_NO_WORD_LENGTH, *_NO_END_MARKS)


@dataclass(frozen=True)
class RefinedWeb:
    """RefinedWeb, arXiv 2306.01116, G.2, as DCLM reads it: the page rule after the stage `refinedweb_lines`."""

    set_name: ClassVar[str] = "refinedweb"
    max_removed_words: float | None = most("refinedweb_removed_word_ratio", 0.05)
    by_lang: tuple[Override, ...] = ()


@dataclass(frozen=True)
class Nemo:
    """NeMo Curator 26.07, config/text/heuristic_filter_english_pipeline.yaml: its English set in its order."""

    set_name: ClassVar[str] = "nemo"
    max_non_alnum_chars: float | None = most("non_alnum_char_ratio@nemo", 0.25)
    max_symbol_words: float | None = most("hash_ratio@nemo", 0.1)
    max_digit_chars: float | None = most("digit_char_ratio@nemo", 0.15)
    max_url_chars: float | None = most("url_char_ratio@nemo", 0.2)
    max_space_chars: float | None = most("space_char_ratio@nemo", 0.25)
    max_bracket_chars: float | None = most("bracket_char_ratio@nemo", 0.1)
    max_boilerplate_paragraphs: float | None = most("boilerplate_paragraph_ratio@nemo", 0.4)
    max_dup_lines: float | None = most("dup_line_ratio@nemo", 0.3)
    max_dup_paragraphs: float | None = most("dup_paragraph_ratio@nemo", 0.3)
    max_dup_line_chars: float | None = most("dup_line_char_ratio@nemo", 0.2)
    max_dup_paragraph_chars: float | None = most("dup_paragraph_char_ratio@nemo", 0.2)
    min_words: float | None = least("words@nemo", 50.0)
    max_words: float | None = most("words@nemo", 100_000.0)
    max_no_end_mark_lines: float | None = most("no_end_mark_line_ratio@nemo", 0.85)
    max_bullet_lines: float | None = most("bullet_line_ratio@nemo", 0.9)
    max_ellipsis_lines: float | None = most("ellipsis_line_ratio@nemo", 0.3)
    min_mean_word_length: float | None = least("mean_word_length@nemo", 3.0)
    max_mean_word_length: float | None = most("mean_word_length@nemo", 10.0)
    max_word_chars: float | None = most("longest_word_chars@nemo", 1000.0)
    min_alpha_words: float | None = least("alpha_word_ratio@nemo", 0.8)
    min_stop_words: float | None = least("stop_words@nemo", 2.0)
    max_top_2gram: float | None = most("top_2gram_char_ratio@nemo", 0.20)
    max_top_3gram: float | None = most("top_3gram_char_ratio@nemo", 0.18)
    max_top_4gram: float | None = most("top_4gram_char_ratio@nemo", 0.16)
    max_dup_5gram: float | None = most("dup_5gram_char_ratio@nemo", 0.15)
    max_dup_6gram: float | None = most("dup_6gram_char_ratio@nemo", 0.14)
    max_dup_7gram: float | None = most("dup_7gram_char_ratio@nemo", 0.13)
    max_dup_8gram: float | None = most("dup_8gram_char_ratio@nemo", 0.12)
    max_dup_9gram: float | None = most("dup_9gram_char_ratio@nemo", 0.11)
    max_dup_10gram: float | None = most("dup_10gram_char_ratio@nemo", 0.10)
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
    fineweb2: FineWeb2 | None = None
    refinedweb: RefinedWeb | None = None
    nemo: Nemo | None = None
    extra: tuple[Rule, ...] = ()


SETS = (WebPage, GopherRepetition, GopherQuality, C4, FineWeb, FineWeb2, RefinedWeb, Nemo)
# Rules that a dialect does not have.
_LACKING = {"dolma": ("dup_paragraph_ratio", "dup_paragraph_char_ratio")}


def web_rules() -> RulesConfig:
    """Sets for pages in any language, calibrated to keep real pages, short ones, blogs and lists of facts among them.

    The published bounds were chosen on English; on crawled pages of 28 languages they drop a third of what people would keep
    (most by `min_alpha_words`, which counts punctuation marks as words, by `min_end_mark_lines` and by `max_ellipsis_lines`).
    Here they are set so wide that what they drop is junk in any language. Repetition bounds are two and a half times Gopher's:
    timetables, recipes and lists of dates stay, a text that comes three times goes (FineWeb's rule on repeated lines measures
    the same and is off). In texts of 20 words one stop word is enough. The bound on newlines is ours in every language: verse
    and talk in short lines stay, FineWeb-2's would drop them.
    """
    published = GopherRepetition()
    wide = {f.name: round(2.5 * getattr(published, f.name), 3) for f in dataclasses.fields(published) if f.name[:4] == "max_"}
    return RulesConfig(
        web_page=WebPage(),
        gopher_repetition=GopherRepetition(**wide),
        gopher_quality=GopherQuality(min_words=20.0, min_alpha_words=0.45, max_ellipsis_lines=None, min_stop_words=1.0),
        fineweb=FineWeb(min_end_mark_lines=None, max_short_lines=0.95, max_repeated_line_chars=None, max_newlines=0.4),
    )


def rule_set(name: str) -> Any:
    """A set with its published bounds by name, "gopher_quality" or in a dialect, "gopher_quality@dclm". Raises UserError."""
    base, _, dialect = name.partition("@")
    by_name = {kind.set_name: kind for kind in SETS}
    if base not in by_name:
        raise UserError(f"there is no rule set {base!r}; there are {', '.join(by_name)}")
    kind: Any = by_name[base]
    if dialect and not any(f.name == "dialect" for f in dataclasses.fields(kind)):
        raise UserError(f"rule set {base!r} has no dialects; those of Gopher and FineWeb have: {', '.join(DIALECTS[:4])}")
    made = kind(dialect=dialect) if dialect else kind()
    rules_of(made)
    return made


def rules_of(rule_set: Any) -> tuple[Rule, ...]:
    """The rules of a set, in order. Raises UserError for an override of a rule that the set has not, and for no dialect."""
    fields = [f for f in dataclasses.fields(rule_set) if "measure" in f.metadata]
    names = {f.name for f in fields}
    for lang, name, _ in rule_set.by_lang:
        if name not in names:
            raise UserError(f"{rule_set.set_name}.by_lang: there is no rule {name!r} for {lang!r}; rules are {sorted(names)}")
    dialect = getattr(rule_set, "dialect", "")
    measured = {f.metadata["measure"] for f in fields}
    if dialect and not any(f"{m}@{dialect}" in MEASURES for m in measured):
        raise UserError(
            f"{rule_set.set_name}.dialect: nobody reads this set as {dialect!r}; dialects are {', '.join(DIALECTS[:4])}"
        )
    by_language = not dialect and rule_set.set_name in _BY_LANGUAGE
    base = f"{rule_set.set_name}@{dialect}" if dialect else rule_set.set_name
    return tuple(
        Rule(
            f"{base}.{f.name}",
            f"{f.metadata['measure']}@{dialect}" if f"{f.metadata['measure']}@{dialect}" in MEASURES else f.metadata["measure"],
            f.metadata["kind"],
            getattr(rule_set, f.name),
            () if dialect else tuple((lang, bound) for lang, name, bound in rule_set.by_lang if name == f.name),
            by_language and f.name in bound_names() and getattr(rule_set, f.name) == f.default,
        )
        for f in fields
        if f.metadata["measure"] not in _LACKING.get(dialect, ())
    )


_BY_LANGUAGE = ("gopher_repetition", "gopher_quality", "fineweb", "fineweb2")


@lru_cache(maxsize=64)
def all_rules(cfg: RulesConfig) -> tuple[Rule, ...]:
    """Every rule of a config in the order in which they are asked."""
    sets = (getattr(cfg, f.name) for f in dataclasses.fields(cfg) if f.name != "extra")
    return (*(rule for s in sets if s is not None for rule in rules_of(s)), *cfg.extra)


def bound_of(rule: Rule | None, lang: str | None) -> float | None:
    """The bound of a rule for a document of this language; None where it is off, or there is no such rule."""
    if rule is None:
        return None
    by_lang = dict(rule.by_lang)
    for code in (lang, base_code(lang)):
        if code is not None and code in by_lang:
            return by_lang[code]
    if rule.by_language and rule.bound is not None:
        return settings(lang).bounds.get(rule.name.partition(".")[2], rule.bound)
    return rule.bound


def bounds_of(rule: Rule, langs: pa.Array) -> np.ndarray:
    """Shape (rows,), or () where all languages have the same: the rule's bounds, NaN where it is off."""
    if not rule.by_lang and not rule.by_language:
        return np.array(np.nan if rule.bound is None else rule.bound)
    coded = langs if pa.types.is_dictionary(langs.type) else langs.dictionary_encode()
    known = [bound_of(rule, lang) for lang in (*coded.dictionary.to_pylist(), None)]
    bounds = np.array([np.nan if bound is None else bound for bound in known])
    of_rows: np.ndarray = bounds[pc.fill_null(coded.indices, len(known) - 1).to_numpy()]
    return of_rows


def is_on(rule: Rule) -> bool:
    """Whether the rule has a bound in any language."""
    return rule.bound is not None or any(bound is not None for _, bound in rule.by_lang)


def first_broken(docs: pa.RecordBatch, rules: Sequence[Rule]) -> np.ndarray:
    """Shape (rows,), int32: the index of the first rule that each document breaks, -1 where it breaks none.

    The columns of all rules that are on must be there, and `lang`.
    """
    first = np.full(docs.num_rows, -1, np.int32)
    langs = docs["lang"].dictionary_encode()
    values: dict[str, np.ndarray] = {}
    for index, rule in enumerate(rules):
        if not is_on(rule):
            continue
        if rule.measure not in values:
            values[rule.measure] = floats(docs[rule.measure])
        measured, bound = values[rule.measure], bounds_of(rule, langs)
        broken = measured < bound if rule.kind == "min" else measured > bound  # NaN on either side breaks nothing
        first[broken & (first < 0)] = index
    return first


def broken_by(docs: pa.RecordBatch, rules: Sequence[Rule], first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape (rows,), twice: what each row's rule in `first` measured, and the bound it broke; NaN where it broke none."""
    values, bounds = np.full(docs.num_rows, np.nan), np.full(docs.num_rows, np.nan)
    for index in np.unique(first[first >= 0]):
        rows, rule = np.flatnonzero(first == index), rules[index]
        values[rows] = floats(docs[rule.measure].take(pa.array(rows)))
        bounds[rows] = bounds_of(rule, docs["lang"].take(pa.array(rows)))
    return values, bounds


def names_of(rules: Sequence[Rule], first: np.ndarray) -> pa.Array:
    """The names of the rules in `first`, null for -1."""
    return pa.array([r.name for r in rules], pa.string()).take(pa.array(first, mask=first < 0))


def floats(column: pa.Array) -> np.ndarray:
    """A column as float64, null as NaN."""
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


@batch_stage(version=3)
def decide(docs: pa.RecordBatch, cfg: RulesConfig) -> pa.RecordBatch:
    """Mark the documents that break a rule, from the measure columns alone. Raises UserError if a column is missing."""
    rules = all_rules(cfg)
    for rule in filter(is_on, rules):
        if docs.schema.get_field_index(rule.measure) < 0:
            raise UserError(f"rule {rule.name} needs the column {rule.measure!r}; {_where(rule.measure)} before `decide`")
    first = first_broken(docs, rules)
    if (first < 0).all():
        return docs
    values, bounds = broken_by(docs, rules, first)
    return drop(docs, pa.array(first >= 0), names_of(rules, first), pa.array(values), pa.array(bounds))


def _where(measure: str) -> str:
    """Which stage makes a column."""
    dialect = measure.partition("@")[2]
    if dialect:
        return f"name the dialect, MeasureConfig(dialects=({dialect!r},)), in the stage `measure`"
    stage = "c4_lines" if measure.startswith("c4_") else "refinedweb_lines" if measure.startswith("refinedweb_") else "measure"
    return f"put the stage `{stage}`"

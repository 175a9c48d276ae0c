"""Bounds of our own (bounds.tsv): whose place they take, and that clean text of other scripts passes the published sets."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.filter import languages
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import (
    FineWeb,
    FineWeb2,
    GopherQuality,
    GopherRepetition,
    RulesConfig,
    all_rules,
    bound_of,
    bounds_of,
    rules_of,
    web_rules,
)

FOLDER = Path(languages.__file__).parent / "data"
OWN = [line.split("\t") for line in (FOLDER / "bounds.tsv").read_text("utf-8").splitlines() if line[0] != "#"][1:]


@pytest.mark.parametrize(("lang", "rule", "bound", "why"), OWN, ids=lambda value: value[:20])
def test_ours_take_the_place_of_fineweb2s_and_are_wider(lang: str, rule: str, bound: str, why: str) -> None:
    assert languages.settings(lang).bounds[rule] == float(bound)
    theirs = languages.fineweb2_bounds()[lang][rule]
    wider = min if rule.startswith("min_") else max
    assert wider(float(bound), theirs) == float(bound) != theirs
    assert f"broke {theirs:g}" in why  # and how much of which text did


def test_each_is_written_once() -> None:
    assert len({(lang, rule) for lang, rule, *_ in OWN}) == len(OWN)


@pytest.mark.parametrize(
    ("lang", "rule", "bound"),
    [
        ("en", "gopher_quality.min_alpha_words", 0.8),  # as published
        ("sv", "gopher_quality.min_alpha_words", 0.741),  # ours
        ("sv-SE", "gopher_quality.min_alpha_words", 0.741),
        ("es", "gopher_quality.min_alpha_words", 0.825),  # FineWeb-2's
        ("zh", "gopher_quality.min_mean_word_length", None),  # off: counted from characters
        ("und", "gopher_quality.min_mean_word_length", 1.0),  # neutral
        ("und", "gopher_quality.max_mean_word_length", 35.0),
        ("tlh", "gopher_repetition.max_top_2gram", 0.816),  # no settings: neutral
    ],
)
def test_where_a_bound_comes_from(lang: str, rule: str, bound: float | None) -> None:
    sets = (GopherQuality(), GopherRepetition())
    [found] = [r for rule_set in sets for r in rules_of(rule_set) if r.name == rule]
    assert bound_of(found, lang) == bound


@pytest.mark.parametrize(("lang", "bound"), [("th", None), ("lo", None), ("km", 0.0), ("my", 0.0), ("ja", 0.096)])
def test_the_rule_on_end_marks_drops_nothing_where_lines_have_none(lang: str, bound: float | None) -> None:
    for rule_set in (FineWeb(), FineWeb2()):
        [rule] = [r for r in rules_of(rule_set) if r.name.endswith(".min_end_mark_lines")]
        assert bound_of(rule, lang) == bound


def test_a_bound_of_ones_own_on_end_marks_spares_thai() -> None:
    [rule] = [r for r in rules_of(FineWeb(min_end_mark_lines=0.5)) if r.name == "fineweb.min_end_mark_lines"]
    assert [bound_of(rule, lang) for lang in ("en", "ja", "th", "lo", None)] == [0.5, 0.5, None, None, 0.5]


@pytest.mark.parametrize("rule", ["max_newlines", "min_stop_words", "max_dup_lines", "max_top_2gram"])
def test_the_web_recipe_has_one_bound_for_all_languages(rule: str) -> None:
    [found] = [r for r in all_rules(web_rules()) if r.name.endswith(f".{rule}")]
    assert {bound_of(found, lang) for lang in ("en", "de", "zh", "ja", "tr", "und", None)} == {found.bound}


ARTICLES = {
    line.partition("\t")[0]: line.partition("\t")[2].replace("\\n", "\n")
    for line in (Path(__file__).parent / "articles.tsv").read_text("utf-8").splitlines()
    if line[0] != "#"
}


def test_articles_are_in_the_largest_languages() -> None:
    assert len(ARTICLES) >= 55


@pytest.mark.parametrize("lang", sorted(ARTICLES))
@pytest.mark.parametrize("name", ["fineweb2", "web"])
def test_clean_text_breaks_no_rule(lang: str, name: str) -> None:
    cfg = RulesConfig(fineweb2=FineWeb2()) if name == "fineweb2" else web_rules()
    measured = measure(pa.RecordBatch.from_pydict({"text": [ARTICLES[lang]], "lang": [lang]}), MeasureConfig())
    for rule in all_rules(cfg):
        value, bound = measured[rule.measure][0].as_py(), bounds_of(rule, measured["lang"]).ravel()[0]
        assert not (value is not None and (value < bound if rule.kind == "min" else value > bound)), (rule.name, value, bound)

"""datatrove's filters run as batch stages, and `@datatrove` measures and decides as the installed package does."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.filter.datatrove import DatatroveConfig, from_datatrove
from pipelines.filter.measures import MEASURES, MeasureConfig, measure
from pipelines.filter.rules import FineWeb, GopherQuality, GopherRepetition, RulesConfig, decide, rule_set, rules_of
from pipelines.schema import RECORD, record_batch

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

REASONS = {
    "gopher_short_doc": "min_words",
    "gopher_long_doc": "max_words",
    "gopher_below_avg_threshold": "min_mean_word_length",
    "gopher_above_avg_threshold": "max_mean_word_length",
    "gopher_too_many_hashes": "max_hash_ratio",
    "gopher_too_many_ellipsis": "max_ellipsis_ratio",
    "gopher_too_many_bullets": "max_bullet_lines",
    "gopher_too_many_end_ellipsis": "max_ellipsis_lines",
    "gopher_below_alpha_threshold": "min_alpha_words",
    "gopher_enough_stop_words": "min_stop_words",
    "dup_para_frac": "max_dup_paragraphs",
    "dup_para_char_frac": "max_dup_paragraph_chars",
    "dup_line_frac": "max_dup_lines",
    "dup_line_char_frac": "max_dup_line_chars",
    **{f"top_{n}_gram": f"max_top_{n}gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_dup_{n}gram" for n in range(5, 11)},
    "line_punct_ratio": "min_end_mark_lines",
    "short_line_ratio": "max_short_lines",
    "char_dup_ratio": "max_repeated_line_chars",
    "list_ratio": "max_newlines",
}
SETS = ("gopher_repetition@datatrove", "gopher_quality@datatrove", "fineweb@datatrove")
RULES = {rule.measure: rule for name in SETS for rule in rules_of(rule_set(name))}
# Rules that ask for no words: equal on every text. The others are equal but where spaCy's tokens are not ours.
WITHOUT_WORDS = {
    "chars", "lines", "dup_paragraph_ratio", "dup_paragraph_char_ratio", "dup_line_ratio", "dup_line_char_ratio",
    "bullet_line_ratio", "ellipsis_line_ratio", "end_mark_line_ratio", "short_line_ratio@datatrove", "repeated_line_char_ratio",
}  # fmt: skip


def values(text: str) -> dict[str, float]:
    """What each rule of datatrove's filters compares with its bound, all rules of them, whatever the first to fail.

    The counting is the package's; a ratio over nothing, on which it divides by zero or drops the text before, is 0.
    """
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_words

    words = split_into_words(text, "en")
    found: dict[str, float] = {"chars": len(text)}
    for name, parts in (("paragraph", re.split(r"\n{2,}", text.strip())), ("line", re.split(r"\n+", text))):
        number, chars = repetition.find_duplicates(parts)
        found[f"dup_{name}_ratio"] = number / len(parts)
        found[f"dup_{name}_char_ratio"] = chars / max(len(text), 1)
    for n in range(2, 11):
        if n < 5:
            all_grams = repetition.get_n_grams(words, n)
            found[f"top_{n}gram_char_ratio@datatrove"] = (
                repetition.find_top_duplicate(all_grams) / len(text) if all_grams else 0.0
            )
        else:
            found[f"dup_{n}gram_char_ratio@datatrove"] = repetition.find_all_duplicate(words, n) / max(len(text), 1)
    real = [word for word in words if any(c not in PUNCTUATION_SET for c in word)]
    lines = text.splitlines() or [""]
    filled = [line for line in text.split("\n") if line.strip()]
    ellipses = ("...", "\u2026")
    found |= {
        "words@datatrove": len(real),
        "mean_word_length@datatrove": float(np.mean([len(word) for word in real])) if real else 0.0,
        "hash_ratio@datatrove": text.count("#") / max(len(words), 1),
        "ellipsis_ratio@datatrove": sum(map(text.count, ellipses)) / max(len(words), 1),
        "bullet_line_ratio": sum(line.lstrip()[:1] in ("\u2022", "-") for line in lines) / len(lines),
        "ellipsis_line_ratio": sum(line.rstrip().endswith(ellipses) for line in lines) / len(lines),
        "alpha_word_ratio@datatrove": sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1),
        "stop_words@datatrove": len({"the", "be", "to", "of", "and", "that", "have", "with"} & set(words)),
        "lines": len(filled),
        "end_mark_line_ratio": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in filled) / max(len(filled), 1),
        "short_line_ratio@datatrove": sum(len(line) <= 30 for line in filled) / max(len(filled), 1),
        "repeated_line_char_ratio": repetition.find_duplicates(filled)[1] / max(len(text.replace("\n", "")), 1),
        "newline_ratio@datatrove": text.count("\n") / len(words) if words else 0.0,
    }
    return found


def test_every_rule_has_its_value() -> None:
    assert set(values("")) == set(RULES)
    assert {m for m in MEASURES if m.endswith("@datatrove")} == {m for m in RULES if "@" in m}


@pytest.fixture(scope="module")
def theirs(texts: list[str]) -> list[dict[str, float]]:
    return [values(text) for text in texts]


@pytest.mark.parametrize("name", RULES)
def test_values_and_decisions_are_those_of_the_package(
    name: str, texts: list[str], texts_measured: pa.RecordBatch, theirs: list[dict[str, float]]
) -> None:
    ours, rule = texts_measured[name].to_pylist(), RULES[name]
    different = [
        (text[:60], value, row[name])
        for text, value, row in zip(texts, ours, theirs, strict=True)
        if value != pytest.approx(row[name])
    ]
    print(f"{name}: {len(different)} of {len(texts)} texts differ: {different}")  # noqa: T201
    assert len(different) <= (0 if name in WITHOUT_WORDS else len(texts) // 500)

    def broken(value: float) -> bool:
        assert rule.bound is not None
        return value < rule.bound if rule.kind == "min" else value > rule.bound

    assert [text for text, value, other in different if broken(value) != broken(other)] == []


EDGES = [
    "", " ", "\n", "\n\n\n", "word", "a b", "a\n\na", "a\r\nb\r\n", "a\u2028b", "\u00a0", ". . .", "...", "\u2026", "#",
    "- a\n\u2022 b\n", "cafe\u0301", "\u6211\u7231GPU\u3002", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\x00",
    "a.\nb. \nc\u3002", "One line.\n" * 9, "x" * 30 + "\n" + "x" * 31, "the The be", "a b c d e f g h i j " * 3,
    "(: id. don't US$5", "\ufffd\ufffe", "a\x0bb\x0cc\x1cd\x85e",
]  # fmt: skip


@pytest.mark.parametrize("text", EDGES)
def test_values_at_the_edges(text: str) -> None:
    docs = record_batch({"text": [text], "lang": ["en"]}, RECORD)
    row = measure(docs, MeasureConfig(dialects=("datatrove",))).to_pylist()[0]
    assert {name: row[name] for name in RULES} == pytest.approx(values(text))


def gopher_quality() -> Any:
    from datatrove.pipeline.filters import GopherQualityFilter

    return GopherQualityFilter(language="en")


def gopher_repetition() -> Any:
    from datatrove.pipeline.filters import GopherRepetitionFilter

    return GopherRepetitionFilter(language="en")


def fineweb() -> Any:
    from datatrove.pipeline.filters import FineWebQualityFilter

    return FineWebQualityFilter(language="en")


def c4() -> Any:
    from datatrove.pipeline.filters import C4QualityFilter

    return C4QualityFilter(min_num_sentences=-1)


@pytest.mark.parametrize(
    ("make", "cfg"),
    [
        (gopher_quality, RulesConfig(gopher_quality=GopherQuality(dialect="datatrove"))),
        (gopher_repetition, RulesConfig(gopher_repetition=GopherRepetition(dialect="datatrove"))),
        (fineweb, RulesConfig(fineweb=FineWeb(dialect="datatrove"))),
    ],
    ids=["gopher_quality", "gopher_repetition", "fineweb"],
)
def test_same_decision_and_same_reason(make: Any, cfg: RulesConfig, real_docs: pa.RecordBatch) -> None:
    """The filters themselves, with spaCy, on texts of every kind and language: same rule, and it is the first that fails."""
    docs = real_docs.filter(pa.array([bool(text and text.strip()) for text in real_docs["text"].to_pylist()]))
    theirs = from_datatrove(make)(docs, DatatroveConfig())["drop_rule"].to_pylist()
    ours = decide(measure(docs, MeasureConfig(dialects=("datatrove",))), cfg)["drop_rule"].to_pylist()
    expected = [reason and f"{make.__name__}@datatrove.{REASONS[reason.rsplit('.', 1)[1]]}" for reason in theirs]
    assert ours == expected
    assert len(set(ours)) > 3  # documents that pass, and that fail for different reasons


def test_reason_becomes_the_rule_and_changed_text_is_taken_over() -> None:
    docs = record_batch({"text": ["A good line here.\nmenu", "A line with { here.", None], "lang": ["en"] * 3}, RECORD)
    got = from_datatrove(c4)(docs, DatatroveConfig())
    assert got["drop_rule"].to_pylist() == [None, "datatrove.c4_quality.curly_bracket", None]
    assert got["text"].to_pylist() == ["A good line here.", "A line with { here.", None]
    assert got["drop_value"].to_pylist() == [None] * 3
    kept = from_datatrove(c4)(docs, DatatroveConfig(keep_changes=False))
    assert kept["text"].to_pylist() == docs["text"].to_pylist()


def test_metadata_reaches_the_filter() -> None:
    from datatrove.pipeline.filters import LambdaFilter

    def german() -> Any:
        return LambdaFilter(lambda doc: doc.metadata.get("language") == "de" and doc.metadata["url"].startswith("http"))

    docs = record_batch({"text": ["a", "b"], "lang": ["de", "fr"], "url": ["http://a.de", "http://b.fr"]}, RECORD)
    assert from_datatrove(german)(docs, DatatroveConfig())["drop_rule"].to_pylist() == [None, "datatrove.lambda.dropped"]

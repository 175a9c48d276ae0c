"""datatrove's filters run as batch stages, and ours decide as they do.

datatrove splits English with spaCy, which is not installed for the tests: it is given our words here, so that what is
compared is every rule's arithmetic, order and threshold.
"""

from typing import Any

import pyarrow as pa
import pytest

from pipelines.filter.datatrove import DatatroveConfig, from_datatrove
from pipelines.filter.rules import FineWeb, GopherQuality, GopherRepetition, RulesConfig, decide
from pipelines.filter.words import tokenise
from pipelines.schema import RECORD, record_batch

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


@pytest.mark.filterwarnings("default::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "module", "cfg"),
    [
        (gopher_quality, "gopher_quality_filter", RulesConfig(gopher_quality=GopherQuality())),
        (gopher_repetition, "gopher_repetition_filter", RulesConfig(gopher_repetition=GopherRepetition())),
        (fineweb, "fineweb_quality_filter", RulesConfig(fineweb=FineWeb())),
    ],
    ids=["gopher_quality", "gopher_repetition", "fineweb"],
)
def test_same_decision_and_same_reason_on_real_english(
    make: Any, module: str, cfg: RulesConfig, measured: pa.RecordBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datatrove")
    monkeypatch.setattr(f"datatrove.pipeline.filters.{module}.split_into_words", lambda text, _: tokenise(text).tokens)
    rows = zip(measured["lang"].to_pylist(), measured["text"].to_pylist(), strict=True)
    english = [lang == "en" and bool(text) and tokenise(text).step == 1 for lang, text in rows]
    docs = measured.filter(pa.array(english))
    theirs = from_datatrove(make)(docs, DatatroveConfig())
    ours = decide(docs, cfg)
    assert docs.num_rows > 100
    rules = set()
    for i in range(docs.num_rows):
        reason, rule = theirs["drop_rule"][i].as_py(), ours["drop_rule"][i].as_py()
        expected = reason and f"{make.__name__}.{REASONS[reason.rsplit('.', 1)[1]]}"
        assert rule == expected, (i, docs["text"][i].as_py()[:200], ours["drop_value"][i].as_py())
        rules.add(rule)
    assert len(rules) > 2  # documents that pass, and that fail for different reasons


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_reason_becomes_the_rule_and_changed_text_is_taken_over() -> None:
    pytest.importorskip("datatrove")
    docs = record_batch({"text": ["A good line here.\nmenu", "A line with { here.", None], "lang": ["en"] * 3}, RECORD)
    got = from_datatrove(c4)(docs, DatatroveConfig())
    assert got["drop_rule"].to_pylist() == [None, "datatrove.c4_quality.curly_bracket", None]
    assert got["text"].to_pylist() == ["A good line here.", "A line with { here.", None]
    assert got["drop_value"].to_pylist() == [None] * 3
    kept = from_datatrove(c4)(docs, DatatroveConfig(keep_changes=False))
    assert kept["text"].to_pylist() == docs["text"].to_pylist()

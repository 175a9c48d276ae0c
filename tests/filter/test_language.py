"""The language stage: what the reader named stands, the rest is identified, and decisions carry the score."""

import pytest

from pipelines.errors import UserError
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.schema import RECORD, record_batch

EN = "The water stood at the mill by nine o'clock, and then it slowly turned back."
ZH = "昨天夜里下了一场大雨、村子旁边的小河涨得很快。"
DE = "Das Wasser stand um neun Uhr an der M\u00fchle und ging dann langsam wieder zur\u00fcck."


def test_labels_scores_and_decisions() -> None:
    docs = record_batch({"text": [EN, ZH, DE, "12345 ...", None]}, RECORD)
    got = identify_language(docs, LanguageConfig())
    assert got["lang"].to_pylist() == ["en", "zh", "de", "und", "und"]
    assert got["drop_rule"].to_pylist() == [None, None, *["language.not_kept"] * 3]
    assert got["drop_value"].to_pylist()[2] == got["lang_score"].to_pylist()[2] > 0.65


def test_low_score() -> None:
    docs = record_batch({"text": [EN]}, RECORD)
    score = identify_language(docs, LanguageConfig())["lang_score"][0].as_py()
    assert identify_language(docs, LanguageConfig(min_score=score))["drop_rule"].to_pylist() == [None]
    got = identify_language(docs, LanguageConfig(min_score=score + 0.001))
    assert got["drop_rule"].to_pylist() == ["language.low_score"]
    assert (got["drop_value"][0].as_py(), got["drop_bound"][0].as_py()) == (score, score + 0.001)


@pytest.mark.parametrize(("trust", "lang", "rule"), [(True, "fr", "language.not_kept"), (False, "en", None)])
def test_the_source_names_the_language(trust: bool, lang: str, rule: str | None) -> None:
    docs = record_batch({"text": [EN], "lang": ["fr"]}, RECORD)
    got = identify_language(docs, LanguageConfig(trust_source=trust))
    assert (got["lang"][0].as_py(), got["drop_rule"][0].as_py()) == (lang, rule)


def test_every_language_kept() -> None:
    docs = record_batch({"text": [DE, ""]}, RECORD)
    got = identify_language(docs, LanguageConfig(keep=()))
    assert got["drop_rule"].to_pylist() == [None, "language.low_score"]


def test_missing_model() -> None:
    with pytest.raises(UserError, match=r"no language model at 'nowhere.bin'.*set LanguageConfig.model"):
        identify_language(record_batch({"text": [EN]}, RECORD), LanguageConfig(model="nowhere.bin"))

"""The language stage: what the reader named stands, the rest is identified, and decisions carry the score."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.filter.language import IDENTIFIED, LANGUAGE_COLUMNS, LanguageConfig, identify, identify_language
from pipelines.schema import RECORD, record_batch

EN = "The water stood at the mill by nine o'clock, and then it slowly turned back."
ZH = "\u4e0b\u4e86\u4e00\u591c\u7684\u96e8\uff0c\u65e9\u4e0a\u6cb3\u6c34\u6f2b\u8fc7\u4e86\u516c\u8def\u3002"
DE = "Das Wasser stand um neun Uhr an der M\u00fchle und ging dann langsam wieder zur\u00fcck."
TEXTS = [EN, ZH, DE, "12345 ...", None, "", f"{DE}\n{DE}\n{DE}\n{EN}\n"]
LANGS = ["en", "zh", "de", "und", "und", "und", "de"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_identify(kind: pa.DataType) -> None:
    got = identify(pa.array(TEXTS, kind))
    assert got.schema == IDENTIFIED
    assert got["lang"].to_pylist() == LANGS
    assert got["script"].to_pylist() == ["Latn", "Hans", "Latn", None, None, None, "Latn"]
    assert [score > 0.9 for score in got["score"].to_pylist()] == [lang != "und" for lang in LANGS]
    assert got["shares"][0].as_py() == [{"lang": "en", "share": 1.0}]
    assert [[part["lang"] for part in row] for row in got["shares"].to_pylist()[3:]] == [["und"], [], [], ["de", "en"]]
    assert (got["first"][0].as_py(), got["first"][3].as_py()) == ("en", None)
    assert 0 < got["first_score"][0].as_py() <= 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_slices_and_batches_do_not_matter(kind: pa.DataType) -> None:
    texts = pa.array(TEXTS * 100, kind)
    whole = identify(texts)
    assert whole["lang"].to_pylist() == LANGS * 100
    assert identify(texts.slice(3, 5)).equals(whole.slice(3, 5))
    assert identify(texts.slice(699)).equals(whole.slice(699))
    assert identify(pa.chunked_array([texts.slice(0, 11), texts.slice(11)])).equals(whole)
    assert identify(texts.take(pa.array(range(699, -1, -1)))).equals(whole.take(pa.array(range(699, -1, -1))))


@pytest.mark.parametrize("texts", [pa.array([], pa.string()), pa.nulls(3, pa.string()), pa.array(["", ""], pa.large_string())])
def test_nothing(texts: pa.Array) -> None:
    got = identify(texts)
    assert got["lang"].to_pylist() == ["und"] * len(texts)
    assert got["shares"].to_pylist() == [[]] * len(texts)


def test_bytes_that_are_not_utf8() -> None:
    data = EN.encode() + b"\xff\xfe\xc3 \x00 " + EN.encode() + b"\xe4\xb8"
    offsets = pa.py_buffer(np.array([0, len(data)], np.int32).tobytes())
    texts = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data))
    assert identify(texts)["lang"].to_pylist() == ["en"]


def test_what_is_no_text() -> None:
    with pytest.raises(UserError, match="identify takes an array of strings, not of int64"):
        identify(pa.array([1, 2]))


def test_labels_scores_and_decisions() -> None:
    docs = record_batch({"text": TEXTS}, RECORD)
    got = identify_language(docs, LanguageConfig())
    assert got["lang"].to_pylist() == LANGS
    assert got["drop_rule"].to_pylist() == [None, None, *["language.not_kept"] * 5]
    assert got["drop_value"].to_pylist()[2] == got["lang_score"].to_pylist()[2] > 0.65
    for field in LANGUAGE_COLUMNS:
        assert got.schema.field(field.name).type == field.type


def test_low_score() -> None:
    docs = record_batch({"text": ["hotel"]}, RECORD)
    free = identify_language(docs, LanguageConfig(keep=(), min_score=0.0))
    lang, score = free["lang"][0].as_py(), free["lang_score"][0].as_py()
    assert 0 < score < 0.99
    assert identify_language(docs, LanguageConfig(keep=(), min_score=score))["drop_rule"].to_pylist() == [None]
    got = identify_language(docs, LanguageConfig(keep=(), min_score=score + 0.001))
    assert got["drop_rule"].to_pylist() == ["language.low_score"]
    assert (got["drop_value"][0].as_py(), got["drop_bound"][0].as_py()) == (score, score + 0.001)
    one = LanguageConfig(keep=(), min_score=0.0, min_score_by_lang=((lang, score + 0.001), ("xx", 2.0)))
    assert identify_language(docs, one)["drop_bound"].to_pylist() == [score + 0.001]


@pytest.mark.parametrize(("trust", "lang", "rule"), [(True, "fr", "language.not_kept"), (False, "en", None)])
def test_the_source_names_the_language(trust: bool, lang: str, rule: str | None) -> None:
    docs = record_batch({"text": [EN], "lang": ["fr"]}, RECORD)
    got = identify_language(docs, LanguageConfig(trust_source=trust))
    assert (got["lang"][0].as_py(), got["drop_rule"][0].as_py()) == (lang, rule)
    assert (got["lang_shares"][0].as_py() is None) is trust
    assert got["lang_score"][0].as_py() == 1.0 or not trust


def test_every_language_kept() -> None:
    docs = record_batch({"text": [DE, ""]}, RECORD)
    got = identify_language(docs, LanguageConfig(keep=()))
    assert got["drop_rule"].to_pylist() == [None, "language.low_score"]


def test_missing_model() -> None:
    with pytest.raises(UserError, match=r"no language model at 'nowhere.bin'.*set LanguageConfig.model"):
        identify_language(record_batch({"text": [EN]}, RECORD), LanguageConfig(model="nowhere.bin"))


def test_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"model.bin.*set LanguageConfig.model"):
        identify(pa.array([EN]), LanguageConfig(model=str(path)))


def test_another_model_by_path() -> None:
    """labels.bin: fastText 0.9.2, 8 labels like GlotLID's, trained on the sentences of rain.tsv in any order of words."""
    path = Path(__file__).parents[1] / "classifiers" / "labels.bin"
    rain = dict(line.split("\t") for line in (path.parent / "rain.tsv").read_text(encoding="utf-8").splitlines())
    langs = ["en", "de", "fr", "es", "zh", "ru", "sr", "zu"]
    got = identify(pa.array([rain[lang] for lang in langs] + [rain["pl"]]), LanguageConfig(model=str(path)))
    assert got["first"].to_pylist()[:-1] == got["lang"].to_pylist()[:-1] == langs
    assert got["lang"][8].as_py() == "pl"  # which that model lacks


@pytest.mark.slow
def test_another_process_gives_the_same() -> None:
    program = (
        "import sys, pyarrow as pa\nfrom pipelines.filter.language import identify\n"
        "print(identify(pa.array([sys.argv[1], sys.argv[2]])).to_pydict())"
    )
    out = [
        subprocess.run([sys.executable, "-c", program, EN, DE], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert out[0] == out[1] == f"{identify(pa.array([EN, DE])).to_pydict()}\n"

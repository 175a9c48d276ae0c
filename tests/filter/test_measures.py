"""Measures at the edges: what a line, a word and a ratio over nothing are."""

import math
from typing import Any

import pyarrow as pa
import pytest

from pipelines.filter.measures import MEASURE_COLUMNS, MEASURES, MeasureConfig, measure, measure_text
from pipelines.filter.repetition import ngram_repetition
from pipelines.filter.words import count_sentences, tokenise
from pipelines.schema import RECORD, record_batch


def measures(text: str, lang: str = "en") -> dict[str, Any]:
    return measure_text(text, lang, MeasureConfig())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't stop: it's well-known.", ["Don", "'t", "stop", ":", "it", "'s", "well", "-", "known", "."]),
        (
            "Mr. Hill paid 1,000.50 in the U.S. (5%)...",
            ["Mr.", "Hill", "paid", "1,000.50", "in", "the", "U.S.", "(", "5", "%", ")", "..."],
        ),
        ("see https://a.org/b?c=1.", ["see", "https://a.org/b?c=1", "."]),
        ("l'homme d'hier", ["l'homme", "d'hier"]),
        ("\u6211\u7231GPU\u3002", ["\u6211", "\u7231", "GPU", "\u3002"]),
        ("\u304b\u3099\u304f", ["\u304b\u3099", "\u304f"]),  # a combining voiced mark stays with its kana
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),  # combining acute
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092e\u0947\u0902"],
        ),
        ("a\u00a0b\u3000c", ["a", "b", "c"]),  # NBSP and the ideographic space part words
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"],
        ),  # ZWNJ joins
        ("", []),
        (" \r\n\t\u2028", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenise(text).tokens == tokens


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("?!", 0),
        ("one", 1),
        ("one, two!", 2),
        ("\u4f60\u597d\u4e16\u754c", 2),
        ("\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", 4 / 3),
    ],
)
def test_words_of_scripts_without_blanks_are_counted_from_characters(text: str, words: float) -> None:
    assert tokenise(text).words == pytest.approx(words)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [("", 0), ("no mark", 1), ("One. Two! Three?", 3), ("One. two", 2), ("3.5 is it.", 1), ('He said "no." Then left.', 2),
     ("\u4e0b\u96e8\u4e86\u3002\u8d70\u5427\uff01", 2), ("Wait... what?", 2)],
)  # fmt: skip
def test_sentences(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("bullet_line_ratio", "- a\n\n\u2022 b\n  - c", 3 / 4),  # blank lines count, blanks before the bullet do not
        ("bullet_line_ratio", "- a\u2028x", 1 / 2),  # U+2028 ends a line here
        ("bullet_line_ratio", "- a\r\nx\r\n", 1 / 2),
        ("ellipsis_line_ratio", "a...  \nb\u2026\nc", 2 / 3),
        ("end_mark_line_ratio", "One.\nTwo. \nThree", 1 / 3),  # a trailing blank hides the mark
        ("end_mark_line_ratio", "One.\u2028Two", 0),  # U+2028 ends no line here
        ("end_mark_line_ratio", "One.\r\nTwo.", 1 / 2),  # nor is a carriage return an end mark
        ("end_mark_line_ratio", "\u4e00\u3002\n\u0939\u0964", 1),
        ("short_line_ratio", "x" * 30 + "\n" + "y" * 31, 1 / 2),
        ("short_line_ratio", "\u4e00" * 15 + "\n" + "\u4e8c" * 16, 1 / 2),
        ("dup_line_ratio", "a\nb\na\n\na", 2 / 4),  # lines split at runs of newlines; repeats after the first
        ("dup_line_char_ratio", "aa\nb\naa", 2 / 7),
        ("dup_paragraph_ratio", "\n\na\n\nb\n\na\n\n", 1 / 3),  # from the stripped text
        ("repeated_line_char_ratio", "aa\nb\naa", 2 / 5),
        ("newline_ratio", "a b\nc d", 1 / 4),
        ("hash_ratio", "# a", 1 / 2),
        ("ellipsis_ratio", "a ... b", 1 / 3),
        ("alpha_word_ratio", "a1 22 ,", 1 / 3),
        ("mean_word_length", "ab, abcd", 3),
        ("stop_words", "The the of of", 2),  # different ones, and case matters
        ("notice_ratio", "404 Not Found", 1),
        ("same_shape_line_ratio", "page 1\npage 2\nend", 1 / 3),
        ("broken_char_ratio", "\ufffdabc", 1 / 4),
    ],
)
def test_measure(name: str, text: str, value: float) -> None:
    assert measures(text)[name] == pytest.approx(value)


def test_top_and_duplicate_ngrams() -> None:
    words = ["a", "b", "c", "d", "e", "x", "a", "b", "c", "d", "e", "y", "a", "b", "c", "d", "e"]
    got = ngram_repetition(words, 100)
    assert got["top_2gram_char_ratio"] == pytest.approx(3 * 3 / 100)  # "a b", three times, blanks counted
    assert got["top_4gram_char_ratio"] == pytest.approx(7 * 3 / 100)
    assert got["dup_5gram_char_ratio"] == pytest.approx(2 * 5 / 100)  # two repeats, blanks not counted
    assert got["dup_6gram_char_ratio"] == 0


def test_ngrams_of_a_script_without_blanks_are_as_long_as_words() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(40))
    assert measures(text + text, "zh")["dup_10gram_char_ratio"] == pytest.approx(0.5)  # 20 characters are 10 words
    assert measures(text + text[:19], "zh")["dup_10gram_char_ratio"] == 0


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n\n", "\u2028", "\x00", "\ufffd", "a", "\u0301", "\u00a0", "." * 5000, "a" * 100_000, "\n" * 5000]
)
def test_odd_texts_have_finite_measures(text: str) -> None:
    for name, value in measures(text).items():
        assert value is not None, name
        assert math.isfinite(value), name
        assert value >= 0, name


def test_columns_are_the_table_and_null_text_gives_null() -> None:
    docs = measure(record_batch({"text": ["some text", None], "lang": [None, "en"]}, RECORD), MeasureConfig())
    assert docs.schema.names[len(RECORD) :] == list(MEASURES) == MEASURE_COLUMNS.names
    assert set(measures("x")) == set(MEASURES)
    for name in MEASURES:
        assert docs.schema.field(name).type == pa.float64()
        assert docs[name][1].as_py() is None
    assert docs["stop_words"][0].as_py() is None  # no language, no list


def test_each_document_is_measured_by_itself(real_docs: pa.RecordBatch) -> None:
    part = real_docs.slice(0, 12)
    backwards = part.take(pa.array(range(11, -1, -1)))
    assert measure(part, MeasureConfig()).to_pylist() == measure(backwards, MeasureConfig()).to_pylist()[::-1]

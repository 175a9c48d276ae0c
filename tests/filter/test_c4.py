"""C4's line rules in their order: what stays of a text, and what condemns a page."""

import pyarrow as pa
import pytest

from pipelines.filter.c4 import C4LinesConfig, c4_lines, clean_lines
from pipelines.schema import RECORD, record_batch

ALL = C4LinesConfig()
FINEWEB = C4LinesConfig(end_mark=False)
LONG = "x" * 1001


@pytest.mark.parametrize(
    ("line", "lang", "cfg", "kept"),
    [
        ("This line is good.", "en", ALL, "This line is good."),
        ("  This line is good.  ", "en", ALL, "This line is good."),
        ("This line has no mark", "en", ALL, None),
        ("This line has no mark", "en", FINEWEB, "This line has no mark"),
        ("This line trails off...", "en", ALL, None),
        ("He said this \u201cnow\u201d", "en", ALL, None),  # C4 knows the straight quote only
        ("He said this \u201cnow\u201d", "de", ALL, "He said this \u201cnow\u201d"),
        ("Two words.", "en", ALL, None),
        ("Two [1] words.", "en", ALL, "Two  words."),  # counted before the citation goes
        ("It rained here.[12] [edit]", "en", ALL, None),  # what is left ends in a blank, as in the reference
        ("It rained here.[12]", "en", ALL, "It rained here."),
        (f"A {LONG} is long.", "en", ALL, None),
        ("Please enable JavaScript now.", "en", ALL, None),
        ("Please enable JavaScript now.", "en", C4LinesConfig(javascript=False), "Please enable JavaScript now."),
        ("Read our Privacy Policy here.", "en", ALL, None),
        ("\u4eca\u5929\u4e0b\u96e8\u3002", "zh", ALL, "\u4eca\u5929\u4e0b\u96e8\u3002"),
        ("\u4eca\u5929\u3002", "zh", ALL, None),
        ("\u4eca" * 1200 + "\u3002", "zh", ALL, "\u4eca" * 1200 + "\u3002"),
    ],
)
def test_line(line: str, lang: str, cfg: C4LinesConfig, kept: str | None) -> None:
    assert clean_lines(line, lang, cfg).lines == ([] if kept is None else [kept])


@pytest.mark.parametrize(
    ("text", "lorem", "curly", "sentences"),
    [
        ("Some code { here.", 0, 1, 1),
        ("Some code { without a mark", 0, 0, 0),  # the line was dropped before
        ("Needs javascript { here.", 0, 0, 0),
        ("The privacy policy { here.", 0, 1, 0),  # condemned before the policy line goes
        ("Lorem ipsum dolor sit.", 1, 0, 1),
        ("Lorem ipsum and javascript too.", 1, 0, 0),
        ("One is here. Two is here.\u2028Three is here.", 0, 0, 3),
    ],
)
def test_page_counts(text: str, lorem: int, curly: int, sentences: int) -> None:
    got = clean_lines(text, "en", ALL)
    assert (got.lorem_ipsum, got.curly_bracket, got.sentences) == (lorem, curly, sentences)


def test_stage_replaces_text_and_keeps_rows() -> None:
    docs = record_batch({"text": ["A good line here.\r\nmenu\nAnother good line.", None], "lang": ["en", "en"]}, RECORD)
    got = c4_lines(docs, ALL)
    assert got["text"].to_pylist() == ["A good line here.\nAnother good line.", None]
    assert got["c4_sentences"].to_pylist() == [2.0, None]
    assert got["c4_dropped_line_ratio"].to_pylist() == [pytest.approx(1 / 3), None]
    assert got.schema.field("c4_sentences").type == pa.float64()


def test_all_parts_off_changes_no_text() -> None:
    off = C4LinesConfig(citations=False, end_mark=False, javascript=False, policy=False, min_words=None, max_word_chars=None)
    docs = record_batch({"text": ["  a [1]\r\n\n{ b  "], "lang": ["en"]}, RECORD)
    got = c4_lines(docs, off)
    assert got["text"].to_pylist() == docs["text"].to_pylist()
    assert got["c4_curly_bracket_lines"].to_pylist() == [1.0]

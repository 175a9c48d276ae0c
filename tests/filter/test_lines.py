"""C4's line rules in their order: what stays of a text, what condemns a page, and that datatrove and DCLM say the same."""

import itertools
import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.filter.languages import settings as language
from pipelines.filter.lines import C4_COLUMNS, C4LinesConfig, c4_lines, dclm_c4
from pipelines.schema import RECORD, record_batch

ALL = C4LinesConfig()
FINEWEB = C4LinesConfig(end_mark=False)
DATATROVE = C4LinesConfig(dialect="datatrove")
DCLM = dclm_c4()
OFF = C4LinesConfig(citations=False, end_mark=False, javascript=False, policy=False, min_words=None, max_word_chars=None)
LONG = "x" * 1001
RAIN = "\u4eca\u5929\u4e0b\u96e8\u3002"  # It rains today.


def run(text: str | None, lang: str | None, cfg: C4LinesConfig) -> Any:
    return c4_lines(record_batch({"text": [text], "lang": [lang]}, RECORD), cfg).to_pylist()[0]


@pytest.mark.parametrize(
    ("line", "lang", "cfg", "kept"),
    [
        ("This line is good.", "en", ALL, "This line is good."),
        (" \u00a0 This line is good. \u2003", "en", ALL, "This line is good."),
        ("This line has no mark", "en", ALL, ""),
        ("This line has no mark", "en", FINEWEB, "This line has no mark"),
        ("This line trails off...", "en", ALL, ""),
        ("This line trails off\u2026", "de", ALL, ""),
        ("He said this \u201cnow\u201d", "en", ALL, ""),  # C4 knows the straight quote only
        ("He said this \u201cnow\u201d", "de", ALL, "He said this \u201cnow\u201d"),
        ("He said this \u201enow\u201c", "de", ALL, "He said this \u201enow\u201c"),
        ("He said this \u201cnow\u201d", "de", DATATROVE, ""),
        ("Is that not so;", "el", ALL, "Is that not so;"),
        ("Is that not so;", "fr", ALL, ""),
        ("A line with danda \u0964", "hi", ALL, "A line with danda \u0964"),
        ("A line with danda \u0964", None, ALL, "A line with danda \u0964"),  # every script's
        ("A line without any mark", "th", ALL, "A line without any mark"),  # Thai has none
        ("Two words.", "en", ALL, ""),
        ("Two [1] words.", "en", ALL, "Two  words."),  # counted before the citation goes
        ("It rained here.[12] [edit]", "en", ALL, ""),  # what is left ends in a blank, as in the reference
        ("It rained here.[12]", "en", ALL, "It rained here."),
        ("It rained here.[]", "en", ALL, "It rained here."),
        ("It rained here.[\u0663]", "en", ALL, "It rained here."),  # a digit in any script
        ("It rained here.[\u00b2]", "en", ALL, ""),  # no decimal digit
        ("[citation needed]It rained [[1] here.", "en", ALL, "It rained [ here."),
        ("[citation needed", "en", FINEWEB, ""),
        (f"A {LONG} is long.", "en", ALL, ""),
        (f"A {LONG[1:]} is long.", "en", ALL, f"A {LONG[1:]} is long."),
        ("Please enable JavaScript now.", "en", ALL, ""),
        ("Please enable java[1]script now.", "en", ALL, ""),
        ("Please enable JavaScript now.", "en", C4LinesConfig(javascript=False), "Please enable JavaScript now."),
        ("Read our Privacy Policy here.", "en", ALL, ""),
        ("We use coo\u212aies here.", "en", ALL, ""),  # the Kelvin sign is a k in lower case
        (RAIN, "zh", ALL, RAIN),
        (RAIN, "zh", DATATROVE, ""),  # one word
        ("\u4eca\u5929\u3002", "zh", ALL, ""),
        ("\u4eca" * 1200 + "\u3002", "zh", ALL, "\u4eca" * 1200 + "\u3002"),
        ("This line is good.  ", "en", DCLM, ""),  # five words
        ("This line is good enough?  ", "en", DCLM, "This line is good enough?"),
        ("This line is [1] good.", "en", DCLM, ""),  # counted after the citation went
        ("This line is good 'enough'", "en", DCLM, ""),
        ("This line is good enough\u2026", "en", DCLM, ""),
        ("This line is good\renough.", "en", DCLM, "This line is good\renough."),
    ],
)
def test_line(line: str, lang: str | None, cfg: C4LinesConfig, kept: str) -> None:
    assert run(line, lang, cfg)["text"] == kept


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
        ("At 3.5 metres. Dr. Smith was there. He went home.", 0, 0, 3),
    ],
)
def test_page_counts(text: str, lorem: int, curly: int, sentences: int) -> None:
    got = run(text, "en", ALL)
    assert (got["c4_lorem_ipsum_lines"], got["c4_curly_bracket_lines"], got["c4_sentences"]) == (lorem, curly, sentences)


def test_sentences_of_scripts_without_blanks() -> None:
    assert run(RAIN * 3, "zh", ALL)["c4_sentences"] == 3


def test_paragraphs_are_long_lines_of_the_new_text() -> None:
    long = "A word " * 28 + "and."  # 200 characters
    assert len(long) == 200
    assert run(f"{long}\n{long[1:]}\n{long}", "en", ALL)["c4_paragraphs"] == 2
    assert run(f"{long}\n{long[:-1]},\n  {long}", "en", ALL)["c4_paragraphs"] == 2
    assert run(f"{long[1:]} ", "en", OFF)["c4_paragraphs"] == 1


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_stage_replaces_text_and_keeps_rows(kind: pa.DataType) -> None:
    docs = record_batch(
        {"text": ["x", "A good line here.\r\nmenu\nAnother good line.", None], "lang": [None, "en", "en"]}, RECORD
    )
    docs = docs.set_column(docs.schema.get_field_index("text"), "text", docs["text"].cast(kind))
    got = c4_lines(docs[1:], ALL)
    assert got["text"].to_pylist() == ["A good line here.\nAnother good line.", None]
    assert got["text"].type == kind
    assert got["c4_sentences"].to_pylist() == [2.0, None]
    assert got["c4_dropped_line_ratio"].to_pylist() == [pytest.approx(1 / 3), None]
    assert [got.schema.field(name) for name in C4_COLUMNS.names] == list(C4_COLUMNS)
    assert c4_lines(docs[:0], ALL).num_rows == 0


def test_all_parts_off_changes_no_text() -> None:
    got = run("  a [1]\r\n\n{ b  ", "en", OFF)
    assert got["text"] == "  a [1]\r\n\n{ b  "
    assert got["c4_curly_bracket_lines"] == 1.0
    assert got["c4_dropped_line_ratio"] == 0.0


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\x00", "\ufeff", "[", "[1", "a" * 100_000, "\r", "{" * 1000])
def test_odd_texts_have_defined_results(text: str) -> None:
    for cfg in (ALL, FINEWEB, DATATROVE, DCLM, OFF):
        got = run(text, "en", cfg)
        assert all(got[name] == got[name] for name in C4_COLUMNS.names)  # no NaN


def test_invalid_bytes_become_replacement_characters() -> None:
    data = b"A line \xff here.\xc3"
    offsets = pa.py_buffer(pa.array([0, len(data)], pa.int32()).buffers()[1].to_pybytes())
    docs = record_batch({"text": ["x"], "lang": ["en"]}, RECORD)
    texts = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data))
    got = c4_lines(docs.set_column(docs.schema.get_field_index("text"), "text", texts), FINEWEB)
    assert got["text"].to_pylist() == ["A line \ufffd here.\ufffd"]


WORDS = [
    "a",
    "be",
    "see",
    "\u4eca",
    "\u5929",
    "\u00e9t\u00e9",
    "x" * 9,
    "JavaScript",
    "privacy  policy",
    "Privacy Policy",
    "lorem ipsum",
]
SIGNS = [
    ".",
    "?",
    "...",
    '"',
    "'",
    "\u2026",
    "\u3002",
    "\u201d",
    "{",
    "[1]",
    "[edit]",
    "[\u0663\u0664]",
    "[",
    "]",
    "\u0130",
    "\u212a",
]
BLANKS = [" ", "  ", "\n", "\n\n", "\r\n", "\r", "\u2028", "\x0b", "\x85", "\x1f", "\u00a0", "\u3000", "\t"]
texts = st.lists(st.sampled_from(WORDS + SIGNS + BLANKS * 2), max_size=30).map("".join)
configs = st.builds(
    C4LinesConfig,
    citations=st.booleans(),
    end_mark=st.booleans(),
    javascript=st.booleans(),
    policy=st.booleans(),
    min_words=st.sampled_from([None, 1, 3]),
    max_word_chars=st.sampled_from([None, 8]),
    dialect=st.sampled_from(["", "datatrove", "dclm"]),
)
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
UNSPACED = re.compile("[\u3005-\u3007\u3041-\u30ff\u3400-\u9fff]")


def in_words(text: str, lang: str, cfg: C4LinesConfig) -> tuple[str, int, int, int]:
    """The definition in plain Python: the lines that stay, lines with lorem ipsum and with a curly bracket, lines dropped."""
    marks = language(lang).end_marks if cfg.dialect == "" else (".", "?", "!", '"', "'")
    kept, lorem, curly = [], 0, 0
    lines = text.split("\n") if cfg.dialect == "dclm" else text.splitlines()
    if cfg.dialect == "dclm" and lines[-1] == "":
        lines.pop()
    for line in lines:
        line = line if cfg.dialect == "dclm" else line.strip()
        wide = len(UNSPACED.findall(line)) if cfg.dialect == "" else 0
        words = line.split()
        if cfg.max_word_chars is not None and not wide and any(len(word) > cfg.max_word_chars for word in words):
            continue
        line = CITATION.sub("", line) if cfg.citations else line
        if cfg.dialect == "dclm":
            if line == "":
                kept.append(line)
                continue
            words = line.split()
            ends = re.search(r'[.!?"\u2026]\s*$', line) and not re.search(r"(?:\.\.\.|\u2026)\s*$", line)
        else:
            ends = marks is None or (line.endswith(marks) and not line.endswith("..."))
        if (cfg.end_mark and not ends) or (cfg.min_words is not None and max(len(words), wide) < cfg.min_words):
            continue
        lower = line.lower()
        lorem += "lorem ipsum" in lower
        if cfg.javascript and "javascript" in lower:
            continue
        curly += "{" in line
        if cfg.policy and any(phrase in lower for phrase in POLICY):
            continue
        kept.append(line)
    return "\n".join(kept).strip(), lorem, curly, len(lines) - len(kept)


@settings(max_examples=300, deadline=None)
@example("[1]a see be.\n\n  \n{", "en", DCLM)
@example("a be see.[1] ", "en", DATATROVE)
@given(texts, st.sampled_from(["en", "de", "zh", "th"]), configs)
def test_against_the_definition(text: str, lang: str, cfg: C4LinesConfig) -> None:
    got = run(text, lang, cfg)
    kept, lorem, curly, dropped = in_words(text, lang, cfg)
    off = not (cfg.citations or cfg.end_mark or cfg.javascript or cfg.policy or cfg.min_words or cfg.max_word_chars)
    assert got["text"] == (text if off else kept)
    assert (got["c4_lorem_ipsum_lines"], got["c4_curly_bracket_lines"]) == (lorem, curly)
    lines = len(text.split("\n")) - text.endswith("\n") - (text == "") if cfg.dialect == "dclm" else len(text.splitlines())
    assert got["c4_dropped_line_ratio"] == pytest.approx(dropped / max(lines, 1))


@pytest.mark.parametrize(("citations", "end_mark"), list(itertools.product([False, True], repeat=2)))
def test_the_same_pages_and_texts_as_datatrove(real_docs: pa.RecordBatch, citations: bool, end_mark: bool) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.filters.c4_filters import C4QualityFilter

    peer = C4QualityFilter(remove_citations=citations, filter_no_terminal_punct=end_mark)
    got = c4_lines(real_docs, C4LinesConfig(citations=citations, end_mark=end_mark, dialect="datatrove"))
    outcomes = set()
    for text, ours in zip(real_docs["text"].to_pylist(), got.to_pylist(), strict=True):
        document = Document(text=text, id="")
        outcome = peer.filter(document)
        outcomes.add(str(outcome))
        condemned = ours["c4_lorem_ipsum_lines"] or ours["c4_curly_bracket_lines"] or ours["c4_sentences"] < 5
        assert bool(condemned) == (outcome is not True)
        if outcome is True:
            assert ours["text"] == document.text
    assert len(outcomes) >= 3

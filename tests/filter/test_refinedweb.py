"""RefinedWeb's line rules as DCLM has them: each step by example, and all of them against its regular expressions."""

import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.filter.refinedweb import REFINEDWEB_COLUMNS, RefinedWebLinesConfig, refinedweb_lines, top_level_domains
from pipelines.schema import RECORD, record_batch

ALL = RefinedWebLinesConfig()
OFF = RefinedWebLinesConfig("none", None, None, None, False, None, False)


def run(text: str | None, cfg: RefinedWebLinesConfig = ALL) -> Any:
    return refinedweb_lines(record_batch({"text": [text], "lang": ["en"]}, RECORD), cfg).to_pylist()[0]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("A line of text", "A line of text"),
        ("A LINE of text", "A LINE of text"),
        ("A LINE OF text", "A LINE OF text"),  # 7 of 14
        ("A LINE OF Text", ""),
        ("123 456", "123 456"),  # a blank is no digit
        ("123456", ""),
        ("\u0663\u00b2", ""),  # digits of any kind
        ("3 likes", ""),
        ("1.2K Views!", ""),
        ("\u2022 1,234 downloads", ""),
        ("3 likes it", "3 likes it"),
        ("a 3 likes", "a 3 likes"),
        ("3likes here", "3likes here"),
        ("\u00b2 likes", "\u00b2 likes"),  # no decimal digit
        ("Word", ""),
        ("two words", "two words"),
        ("3 items in cart", ""),  # "3" has no word, and is cut to nothing by no rule, but see below
        ("You have 3 Items in Cart today", "You have 3 today"),
        ("items in cart items in cart", ""),
        ("a b c d e f g h items in cart", "a b c d e f g h items in cart"),  # 11 words
        ("A fine piece. Read more...", "A fine piece."),
        ("A fine piece. Read more now", "A fine piece. Read more now"),
        ("A fine piece. Read moreXYZ", "A fine piece."),  # points stand for anything
        ("Read more... A fine piece", "Read more... A fine piece"),
        ("Sign-in to see", "to see"),
        ("Please Sign-in to see", "Please Sign-in to see"),
        ("\u017figN-\u0131n to see", "to see"),  # as re.IGNORECASE compares
    ],
)
def test_line(line: str, kept: str) -> None:
    expected = "3" if line == "3 items in cart" else kept  # single words go before phrases are cut, so this one stays
    assert run(f"First line here.\n{line}\nLast line here.")["text"] == "\n".join(
        ["First line here.", *([expected] if expected else []), "Last line here."]
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("See example.com now", "See now"),
        ("See http://example.com/a?b=(c) now", "See now"),
        ("See xhttp://example.com now", "See x now"),
        ("See  \t ftp://a.b.example.org:80/x, now", "See, now"),
        ("Mail me@example.co.uk.", "Mail"),
        ("no.such-tldx here", "no.such-tldx here"),
        ("The end.It begins", "The end.It begins"),  # a capital
        ("The end.it begins", "The begins"),  # Italy's
        ("Address 192.168.0.1/x ok", "Address ok"),
        ("Address http://192.168.0.1 ok", "Address ok"),
        ("Version 1.2.3 is out", "Version 1.2.3 is out"),
        ("Not 300.1.2.3 but x1.2.3.4", "Not 300.1.2.3 but x1.2.3.4"),
        ("a." * 1000 + "b c", "a." * 1000 + "b c"),
        ("x" * 300 + ".com y", "x" * 44 + " y"),  # 256 characters before the point
    ],
)
def test_addresses(text: str, left: str) -> None:
    assert run(text, RefinedWebLinesConfig("all", None, None, None, False, None, False))["text"] == left


def test_dclm_cuts_addresses_only_where_the_text_begins_like_one() -> None:
    cfg = RefinedWebLinesConfig("dclm", None, None, None, False, None, False)
    assert run("The page example.com", cfg)["text"] == "The page"  # th
    assert run("\u201cPage\u201d example.com", cfg)["text"] == "\u201cPage\u201d example.com"
    assert run("\u201cPage\u201d 127.0.0.1", cfg)["text"] == "\u201cPage\u201d"


def test_newlines_in_a_row() -> None:
    assert run("a b\n\n\n\nc d\n\ne f\ng h")["text"] == "a b\n\nc d\n\ne f\ng h"
    assert run("a b\n\n\nc d", RefinedWebLinesConfig(max_newlines=None))["text"] == "a b\n\n\nc d"


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("one two three four", 0.0),
        ("one two three four\nfive", 0.2),
        ("one two three four\n- five -", 0.0),  # three words for the line rule, one for the count
        ("one two three http://example.com", 0.0),  # addresses go before words are counted
        ("word", 1.0),
        ("", 1.0),
        ("- - -", 1.0),
    ],
)
def test_share_of_words_removed(text: str, ratio: float) -> None:
    assert run(text)["refinedweb_removed_word_ratio"] == pytest.approx(ratio)


def test_stage_keeps_rows_and_nulls() -> None:
    docs = record_batch({"text": ["x", "two words\none", None], "lang": [None] * 3}, RECORD)[1:]
    got = refinedweb_lines(docs, ALL)
    assert got["text"].to_pylist() == ["two words", None]
    assert got["refinedweb_removed_word_ratio"].to_pylist() == [pytest.approx(1 / 3), None]
    assert [got.schema.field(name) for name in REFINEDWEB_COLUMNS.names] == list(REFINEDWEB_COLUMNS)
    assert refinedweb_lines(docs[:0], ALL).num_rows == 0
    large = docs.set_column(docs.schema.get_field_index("text"), "text", docs["text"].cast(pa.large_string()))
    assert refinedweb_lines(large, ALL)["text"].type == pa.large_string()


def test_all_parts_off_changes_no_text() -> None:
    assert run("  A LINE\n\n\n\n3 likes http://a.com \n", OFF)["text"] == "  A LINE\n\n\n\n3 likes http://a.com \n"


TLD = "|".join(sorted(map(re.escape, top_level_domains()), key=len, reverse=True))
URL = re.compile(rf"\s{{0,10}}(?:((https?|ftp)://))?[-a-zA-Z0-9@:%._\+~#=]{{1,256}}\.({TLD})\b([-a-zA-Z0-9()@:%_\+.~#?&//=]*)")
IP = re.compile(r"\s{0,10}\b((https?|ftp)://)?(?:[0-2]?[0-9]{1,2}\.){3}[0-2]?[0-9]{1,2}[-a-zA-Z0-9()@:%_\+.~#?&//=]*")
NOUNS = "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views|followers"
COUNTER = re.compile(rf"^\W*\d(?:,|\.|\d)*(?:k|m|b)?\s+(?:{NOUNS})\W*$")
PHRASES = [re.compile(p, re.I) for p in (r"\s?(?:items in cart)", r"\s?(?:read more...)$", r"^(?:sign-in)\s?")]


def words(text: str) -> int:
    return sum(word[0].isalnum() for word in re.split("[ \n\r\t\v\f\0]+", text) if word)


def in_words(text: str, cfg: RefinedWebLinesConfig) -> tuple[str, float]:
    """The steps of DCLM in plain Python; a text that became empty stays so."""
    if cfg.urls == "all":
        text = IP.sub("", URL.sub("", text))
    if cfg.max_newlines is not None:
        text = re.sub(rf"\n{{{cfg.max_newlines + 1},}}", "\n" * cfg.max_newlines, text)
    before = words(text)
    for bound, counted in ((cfg.max_upper_ratio, str.isupper), (cfg.max_numeric_ratio, str.isdigit)):
        if bound is not None:
            lines = [line for line in text.split("\n") if not line or sum(map(counted, line)) / len(line) <= bound]
            text = "\n".join(lines).strip()
    if cfg.counters:
        text = "\n".join(line for line in text.split("\n") if not COUNTER.search(line.lower())).strip()
    if cfg.min_words is not None:
        text = "\n".join(line for line in text.split("\n") if not line or len(line.split()) >= cfg.min_words)
    for pattern in PHRASES if cfg.phrases else ():
        lines = []
        for line in text.split("\n"):
            cut = pattern.sub("", line) if len(line.split()) <= 10 else line
            if cut.strip() or not line:
                lines.append(cut)
        text = "\n".join(lines).strip()
    return text, (before - words(text)) / before if before else 1.0


PIECES = [
    *(
        "a",
        "be",
        "A",
        "WORD",
        "\u00c9T\u00c9",
        "3",
        "12",
        "\u0663",
        "\u00b2",
        "1.2.3.4",
        "10.0.0.256",
        "k",
        "K",
        "\u212a",
        "likes",
        "VIEWS",
    ),
    *("items in cart", "Items In Cart", "read more...", "Read more", "sign-in", "Sign-In", "\u0130", "\u017f", "\u4eca\u5929"),
    *(
        "http://",
        "https://",
        "ftp://",
        "www.",
        "example",
        ".com",
        ".co",
        ".uk",
        ".it",
        ".",
        "/",
        "?",
        "(",
        "@",
        "_",
        "-",
        ":",
        ",",
        "\u2022",
    ),
    *(" ", " ", " ", "   ", " " * 11, "\n", "\n", "\n\n\n", "\t", "\u00a0", "\u2028", "\r", "\x00", "x" * 250),
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
configs = st.builds(
    RefinedWebLinesConfig,
    urls=st.sampled_from(["all", "none"]),
    max_newlines=st.sampled_from([None, 0, 2]),
    max_upper_ratio=st.sampled_from([None, 0.5]),
    max_numeric_ratio=st.sampled_from([None, 0.999999]),
    counters=st.booleans(),
    min_words=st.sampled_from([None, 2]),
    phrases=st.booleans(),
)


@settings(max_examples=500, deadline=None)
@example("a.com-http://b.org c", ALL)
@example("http://http://a.com", ALL)
@example("a..com .com a.com.", ALL)
@example("x" * 300 + ".com.uk", ALL)
@example(" \n sign-in\n \n3 likes \n\n", ALL)
@given(texts, configs)
def test_against_dclm(text: str, cfg: RefinedWebLinesConfig) -> None:
    got = run(text, cfg)
    expected, ratio = in_words(text, cfg)
    assert got["text"] == expected
    assert got["refinedweb_removed_word_ratio"] == pytest.approx(ratio)
    assert run(got["text"], OFF)["text"] == got["text"]

"""Phrases in texts: what counts as a hit, where it may begin and end, which one is named; and that time is linear."""

import re
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.filter.kernels.phrases import Edges, Phrases


@pytest.mark.parametrize(
    ("phrases", "edges", "text", "count", "first", "offset"),
    [
        (["cat"], "word", "A cat.", 1, "cat", 2),
        (["cat"], "word", "cat", 1, "cat", 0),
        (["cat"], "word", "concatenate cats bobcat", 0, None, -1),
        (["cat"], "any", "concatenate cats bobcat", 3, "cat", 3),
        (["cat"], "word", "cat_1 cat1 1cat", 0, None, -1),
        (["cat"], "word", "CAT Cat cAt", 3, "cat", 0),
        (["cat", "cat flap"], "word", "a cat flap", 1, "cat", 2),  # the one that ends first
        (["at", "cat"], "any", "cat", 1, "cat", 0),  # the longest of those that end there
        (["xcat", "cat"], "word", "a xcat, xxcat", 1, "xcat", 2),
        (["b c", "c"], "word", "ab c", 1, "c", 3),  # the longer one begins inside a word
        (["aa"], "any", "aaaaa", 2, "aa", 0),  # hits do not overlap
        (["ab", "bc", "cd"], "any", "abcd", 2, "ab", 0),
        (["use of cookies"], "word", "by USE OF  COOKIES, use of cookies", 1, "use of cookies", 20),
        (["kilo"], "word", "\u212aILO", 1, "kilo", 0),  # the Kelvin sign is a k
        (["\u0130z"], "word", "i\u0307z \u0130Z", 2, "\u0130z", 0),
        (
            ["\u03c3\u03c5\u03c2"],
            "word",
            "\u03a3\u03a5\u03a3 \u03c3\u03c5\u03c2 \u03c3\u03c5\u03c3",
            3,
            "\u03c3\u03c5\u03c2",
            0,
        ),
        (["stra\u00dfe"], "word", "In der STRA\u1e9eE", 1, "stra\u00dfe", 7),
        (["\u6027"], "any", "\u5973\u6027\u7684", 1, "\u6027", 3),
        (["\u6027"], "word", "\u5973\u6027\u7684", 0, None, -1),
        (["\u0915"], "word", "\u0915\u093e", 0, None, -1),  # a vowel sign belongs to the word
        (["\u0915"], "regex", "\u0915\u093e", 1, "\u0915", 0),  # and is none in a regular expression
        (["x"], "word", "", 0, None, -1),
        ([], "word", "anything", 0, None, -1),
    ],
)
def test_hits(phrases: list[str], edges: Edges, text: str, count: int, first: str | None, offset: int) -> None:
    sought = Phrases(phrases, edges)
    hits = sought.scan(pa.array([text], pa.string()))
    assert (hits.hits[0], hits.offset[0]) == (count, offset)
    assert (sought.phrases[hits.first[0]] if hits.first[0] >= 0 else None) == first


def test_case_counts_where_asked() -> None:
    hits = Phrases(["US"], fold=False).scan(pa.array(["us US \u0130"]))
    assert (hits.hits.tolist(), hits.offset.tolist()) == ([1], [3])


def test_phrases_that_differ_in_case_are_one() -> None:
    assert Phrases(["Cat", "cat", "CAT"]).phrases == ("Cat",)
    assert Phrases(["Cat", "cat"], fold=False).phrases == ("Cat", "cat")


def test_an_empty_phrase_is_refused() -> None:
    with pytest.raises(UserError, match="empty"):
        Phrases(["a", ""])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_nulls_slices_and_rows(kind: pa.DataType) -> None:
    texts = pa.array(["cat", None, "no", "a cat, a cat"], kind)
    sought = Phrases(["cat"])
    assert sought.scan(texts).hits.tolist() == [1, 0, 0, 2]
    assert sought.scan(texts[1:]).hits.tolist() == [0, 0, 2]
    assert sought.scan(texts, np.array([3, 0])).hits.tolist() == [2, 1]
    assert sought.scan(texts[:0]).hits.tolist() == []


@pytest.mark.parametrize("junk", [b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x00"])
def test_bytes_that_are_no_utf8_are_characters_that_no_phrase_has(junk: bytes) -> None:
    data = b"cat" + junk + b"cat" + junk
    offsets = pa.py_buffer(np.array([0, len(data)], np.int32))
    texts: Any = pa.StringArray.from_buffers(1, offsets, pa.py_buffer(data))
    assert Phrases(["cat"]).scan(texts).hits.tolist() == [2]
    assert Phrases(["catcat"], "any").scan(texts).hits.tolist() == [0]


letters = st.text(st.sampled_from("abAB _.\u00e9\u00c9\u0130\u212a\u0345\u6027"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(letters.filter(bool), min_size=1, max_size=6), letters, st.sampled_from(["any", "word", "regex"]))
def test_against_the_definition(phrases: list[str], text: str, edges: Edges) -> None:
    lower, words = text.lower(), "\\w\u0307\u0345" if edges == "word" else "\\w"
    found, at = 0, 0
    while at < len(lower):  # the hit that ends first, again and again
        ends = [
            match.end()
            for phrase in phrases
            if (match := re.compile(_wrap(re.escape(phrase.lower()), edges, words)).search(lower, at)) is not None
        ]
        if not ends:
            break
        found, at = found + 1, min(ends)
    assert Phrases(phrases, edges).scan(pa.array([text])).hits.tolist() == [found]


def _wrap(pattern: str, edges: Edges, words: str) -> str:
    return pattern if edges == "any" else f"(?<![{words}]){pattern}(?![{words}])"


@pytest.mark.parametrize("unit", ["a", "ab", "a ", "\n", "\u6027"])
def test_time_is_linear(unit: str) -> None:
    sought = Phrases(["a" * n for n in range(1, 40)] + ["ab" * 30, "a a a a a b", "\u6027" * 9 + "x"], "word")
    sought.scan(pa.array(["warm"]))

    def seconds(size: int) -> float:
        text = pa.array([unit * size])
        start = time.process_time()
        sought.scan(text)
        return time.process_time() - start

    assert seconds(2_000_000) < 40 * max(seconds(100_000), 0.001)

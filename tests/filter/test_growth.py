"""The cost of a document grows with its length and no faster, whatever is in it."""

import time

import pyarrow as pa
import pytest

from pipelines.filter.measures import DIALECTS, MeasureConfig, measure
from pipelines.schema import RECORD, record_batch

PROSE = (
    "The river had been rising since morning; people came to look at it.\n"
    "Nobody (so far) could say: \u201cit'll stop at 10km.\u201d\n\n"
)
TEXTS = {
    # name: (how it begins, what is repeated, how it ends)
    "prose": ("", PROSE, ""),
    "one word": ("", "word ", ""),
    "one line": ("", "a", ""),
    "one line of code": ("", "f(x,y)=a.b;", ""),
    "newlines": ("", "\n", ""),
    "blanks": ("", " ", ""),
    "tabs and blanks": ("a", "\t ", "b"),
    "no-break spaces": ("", "\u00a0", ""),
    "short lines": ("", "a\n", ""),
    "blank lines": ("", "\n \n", ""),
    "dots": ("", ".", ""),
    "spaced dots": ("", ". ", ""),
    "dotted letters": ("", "a.", ""),
    "host name": ("", "abc.", "com"),
    "hyphens": ("", "a-", "b"),
    "emoticons": ("", ":)", ""),
    "other emoticons": ("", ":'(", ""),
    "possessives": ("", "'s", ""),
    "possessives after a word": ("", "a", "'s" * 20_000),
    "suffixes": ("a", "'s)", ""),
    "prefixes": ("", "US$(", "a"),
    "signs after a word": ("", "a", "\u2019s)!" * 20_000),
    "signs before a word": ("(" * 20_000, "a", ""),
    "quotes": ("", "'", ""),
    "quoted in a word": ("", 's"quoted"', ""),
    "brackets": ("(", "(", ")"),
    "pairs of brackets": ("", "[]", ""),
    "at signs": ("", "a@", "b.org"),
    "many at signs": ("x" * 20_000, "@b.c", ""),
    "addresses": ("", "http://a.b/c", ""),
    "slashes": ("", "://", ""),
    "www": ("", "www.", ""),
    "digits": ("", "7", ""),
    "octets": ("", "1.2.", ""),
    "units": ("", "1km", ""),
    "hashes": ("", "#", ""),
    "Chinese without marks": ("", "\u6c34\u5c71\u4eba", ""),
    "Chinese, one character": ("", "\u6c34", ""),
    "Thai": ("", "\u0e01\u0e31", ""),
    "combining marks": ("a", "\u0301", ""),
    "katakana": ("", "\u30ab", ""),
    "ideographic full stops": ("", "\u3002", ""),
    "bytes that are no text": ("", "\x00\x01", ""),
    "a notice a line": ("", "404 not found\n", ""),
    "a notice and newlines": ("404 not found", "\n", ""),
    "boilerplate": ("", "privacy policy\n\n", ""),
    "boilerplate and newlines": ("privacy policy", "\n", ""),
    "line separators": ("", "a\u2028", ""),
    "carriage returns": ("", "\r\n", ""),
}
SMALL, LARGE = 100_000, 3_000_000
CONFIG = MeasureConfig(dialects=DIALECTS, keywords=(("fox", ("quick brown fox", "aaaaaab")),))


def text_of(name: str, size: int) -> str:
    first, repeated, last = TEXTS[name]
    return first + repeated * (max(size - len((first + last).encode()), 0) // len(repeated.encode())) + last


def seconds(text: str, lang: str) -> float:
    """CPU time of this process for all measures in all dialects."""
    docs = record_batch({"text": pa.array([text], pa.string()), "lang": [lang]}, RECORD)
    start = time.process_time()
    measure(docs, CONFIG)
    return time.process_time() - start


@pytest.mark.parametrize("name", TEXTS)
def test_cost_grows_with_the_length(name: str) -> None:
    """Thirty times the text costs thirty times as much, or somewhat more where it no longer fits into the processor's caches.

    Were any part quadratic it would be nine hundred times, and minutes.
    """
    lang = "th" if name == "Thai" else "zh" if "Chinese" in name else "en"
    seconds("compiled and warm", lang)
    small = min(seconds(text_of(name, SMALL), lang) for _ in range(3))
    large = seconds(text_of(name, LARGE), lang)
    assert large < max(small, 0.005) * (LARGE / SMALL) * 4
    assert large < 6


def test_a_document_of_any_size_costs_the_same_a_character_in_company() -> None:
    """Buffers are as large as the largest document of a batch: a small one beside it costs no more for that."""
    small = [PROSE * 5] * 300
    alone = record_batch({"text": small, "lang": ["en"] * 300}, RECORD)
    beside = record_batch({"text": [*small, PROSE * 30_000], "lang": ["en"] * 301}, RECORD)

    def cost(docs: pa.RecordBatch) -> float:
        start = time.process_time()
        measure(docs, CONFIG)
        return time.process_time() - start

    cost(alone)
    few, many, large = min(cost(alone) for _ in range(3)), cost(beside), cost(beside.slice(300))
    assert many < 2 * (few + large) + 0.1

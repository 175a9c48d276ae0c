"""Settings of a language: which one a code gets, what is in it, and that real pages have their stop words and end marks."""

import gzip
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pipelines.filter.languages import STOP_WORDS, WITHOUT_BLANKS, base_code, settings
from pipelines.filter.rules import FineWeb, GopherQuality, GopherRepetition

EXAMPLES = Path(__file__).parents[2] / "examples"
# The languages of Common Crawl's statistics, largest first, but for English.
LARGEST = re.findall(
    r"\w+",
    "de ru ja fr es zh it nl pl pt cs vi tr id ar sv ro fa hu ko uk el da fi nb bg sk th ca hr he sr lt sl et hi lv ms bn ta "
    "sq mk az ka gl eu is kk hy ur te mr ml ne gu kn si my km lo mn be af sw tl cy ga bs uz ky tg eo la",
)


def count_stop_words(lang: str, text: str, tokens: set[str]) -> int | None:
    known = settings(lang)
    if known.stop_words is None:
        return None
    return len(known.stop_words & tokens) if known.blanks else sum(word in text for word in known.stop_words)


@pytest.mark.parametrize(
    ("lang", "code"),
    [
        ("de", "de"),
        ("deu", "de"),
        ("DE", "de"),
        ("de-AT", "de"),
        ("no", "nb"),
        ("nb", "nb"),
        ("nn", "nn"),
        ("zh-Hant", "zh"),
        ("zh_Hans", "zh"),
        ("yue", "zh"),
        ("lzh", "zh"),
        ("cmn", "zh"),
        ("fil", "tl"),
        ("sh", "hr"),
        ("pes", "fa"),
        ("arz", "ar"),
        ("ekk", "et"),
        ("eng", "en"),
        ("iw", "he"),
        (None, None),
        ("und", None),
        ("zxx", None),
        ("als", None),  # Alemannic for one model, Albanian for another
        ("nan", None),
    ],
)
def test_which_settings_a_code_gets(lang: str | None, code: str | None) -> None:
    assert settings(lang).code == code


@pytest.mark.parametrize("lang", LARGEST)
def test_the_largest_languages_have_all_settings(lang: str) -> None:
    got = settings(lang)
    assert got.code == lang
    assert got.stop_words is not None
    assert len(got.stop_words) >= 5
    assert len(got.bounds) >= 13
    assert got.end_marks is not None or lang in ("th", "lo")
    assert got.blanks == (lang not in ("zh", "ja", "th", "lo", "km", "my"))


def test_at_least_a_hundred_languages_have_stop_words() -> None:
    assert len({base_code(lang) for lang in STOP_WORDS}) >= 100
    assert not any(not word or word != word.strip() for words in STOP_WORDS.values() for word in words)


@pytest.mark.parametrize(
    ("lang", "rule", "bound"),  # as FineWeb-2's files have them
    [
        ("de", "max_dup_lines", 0.263),
        ("de", "min_end_mark_lines", 0.0),
        ("de", "max_dup_10gram", 0.098),
        ("zh", "max_top_2gram", 0.256),
        ("zh", "max_mean_word_length", 5.0),
        ("ja", "max_newlines", 0.13),
        ("es", "min_alpha_words", 0.825),
        ("hi", "min_mean_word_length", 2.0),
        ("th", "min_language_score", 0.9),
        ("sw", "max_top_4gram", 0.231),
        ("zu", "max_dup_5gram", 0.361),
    ],
)
def test_bounds_are_those_of_fineweb2(lang: str, rule: str, bound: float) -> None:
    assert settings(lang).bounds[rule] == bound


def test_what_was_measured_in_another_way_is_left_out() -> None:
    assert "max_top_2gram" not in settings("tr").bounds
    assert settings("tr").bounds["max_dup_5gram"] == 0.168


def test_every_bound_is_one_of_a_rule_and_a_share_where_it_must_be() -> None:
    rules = {f.name for rule_set in (GopherRepetition, GopherQuality, FineWeb) for f in fields(rule_set)} | {
        "min_language_score"
    }
    for lang in LARGEST:
        for name, bound in settings(lang).bounds.items():
            assert name in rules
            assert 0 <= bound <= (100 if "length" in name else 1), (lang, name)


def test_english_has_the_published_bounds_and_the_eight_words_of_gopher() -> None:
    assert settings("en").bounds == {}
    assert settings("en").stop_words == frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
    assert settings("en").end_marks == (".", "?", "!", '"', "'")


def test_neutral_is_wide_and_never_english() -> None:
    neutral = settings("und")
    assert neutral.stop_words is None
    assert neutral.end_marks is not None
    assert {"\u3002", "\u0964", "\u061f", "\u1362", "\u17d4", "\u0589", "."} <= set(neutral.end_marks)
    for name, bound in neutral.bounds.items():
        theirs = [settings(lang).bounds[name] for lang in {*LARGEST, *STOP_WORDS} if name in settings(lang).bounds]
        stricter = [value for value in theirs if (value >= bound if name.startswith("min_") else value <= bound)]
        assert len(stricter) >= 0.9 * len(theirs), name
    assert count_stop_words("und", "the of and", {"the", "of", "and"}) is None


@pytest.mark.parametrize(
    ("lang", "text", "count"),
    [
        ("en", "the cat and The dog of", 3),  # case matters
        ("de", "der die das und", 4),
        ("zh", "\u6211\u7684\u4e66\u662f\u65b0\u7684", 3),  # anywhere in the text
        ("vi", "nh\u1eefng ng\u01b0\u1eddi n\u00e0y", 2),
        ("vi", "nhu\u031b\u0303ng ng\u01b0\u01a1\u0300i na\u0300y", 2),  # decomposed
        ("fil", "ang mga bata", 2),
        ("xx", "a b c", None),
    ],
)
def test_count_stop_words(lang: str, text: str, count: int | None) -> None:
    assert count_stop_words(lang, text, set(text.split())) == count


def test_end_marks_are_single_characters() -> None:
    for lang in [*LARGEST, "en", "und"]:
        assert all(len(mark) == 1 for mark in settings(lang).end_marks or ())
    assert ";" in (settings("el").end_marks or ())
    assert ";" not in (settings("de").end_marks or ())


def test_real_pages_have_stop_words_of_their_language() -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    with gzip.open(EXAMPLES / "expected.jsonl.gz", "rt", encoding="utf-8") as file:
        known = {
            row["record_id"]: row
            for row in map(json.loads, file)
            if row["expect"] == "keep" and row["lang"] not in (None, "en")
        }
    pages: dict[str, list[int]] = {}
    for path in sorted((EXAMPLES / "crawl").glob("*.warc.gz"))[:3]:  # the others are damaged
        with path.open("rb") as warc:
            for record in ArchiveIterator(warc, record_types=WarcRecordType.response, auto_decode="all"):
                row = known.get(f"<{str(record.record_id).strip('<>')}>")
                html = record.reader.read().decode(row["charset"] or "utf-8", "replace") if row else ""
                text, lang = extract_plain_text(html, main_content=True), row["lang"] if row else ""
                if len(text) > 500:
                    words = set(text.replace(",", " ").replace(".", " ").split())
                    pages.setdefault(lang, []).append(count_stop_words(lang, text, words) or 0)
    counts = [count for found in pages.values() for count in found]
    assert len(pages) >= 8
    assert sum(count >= 2 for count in counts) >= 0.99 * len(counts), {lang: min(found) for lang, found in pages.items()}


def test_codes_without_blanks_go_by_settings_without_blanks() -> None:
    assert all(not settings(lang).blanks for lang in WITHOUT_BLANKS)

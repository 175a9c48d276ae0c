"""The dialects measure what DCLM, dolma, NeMo Curator and RedPajama-v2 measure: each has an oracle in plain Python here.

The oracles follow the published sources (named at each), with Python's own strings, dictionaries and regular expressions; the
kernels and they share nothing but the lists of stop words.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import log
from statistics import median
from typing import Any

import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.filter.kernels.notices import BOILERPLATE
from pipelines.filter.languages import STOP_WORDS
from pipelines.filter.measures import DIALECTS, MEASURES, MeasureConfig, measure, measure_columns
from pipelines.schema import RECORD, record_batch

GOPHER = {"the", "be", "to", "of", "and", "that", "have", "with"}
Numbers = dict[str, float]


def over(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def grams(words: Sequence[Any], n: int) -> list[tuple[Any, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def size(parts: Sequence[str]) -> int:
    return sum(map(len, parts))


def covered(words: Sequence[str], n: int) -> int:
    """Characters of the words that any n-gram covers which occurs more than once."""
    all_grams = grams(words, n)
    counts = Counter(all_grams)
    places = {i + k for i, gram in enumerate(all_grams) if counts[gram] > 1 for k in range(n)}
    return sum(len(words[i]) for i in places)


def copies(parts: Sequence[str]) -> list[str]:
    """All copies of what occurs more than once, the first one included."""
    counts = Counter(parts)
    return [part for part in parts if counts[part] > 1]


# DCLM: baselines/mappers/filters/content_filters.py, core_utils.py; settings in dclm_baseline_refinedweb.yaml.


def _segment() -> Any:
    """The word rules of UAX 29 as one expression over Unicode's property Word_Break."""
    x = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
    letter, digit = rf"[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{x}", rf"\p{{WB=Numeric}}{x}"
    katakana, connector = rf"\p{{WB=Katakana}}{x}", rf"\p{{WB=ExtendNumLet}}{x}"
    both = r"\p{WB=MidNumLet}\p{WB=Single_Quote}"
    hebrew = rf"\p{{WB=Hebrew_Letter}}{x}"
    quoted = rf"{hebrew}(?:'|\"{x}(?={hebrew}))"
    letters = rf"(?:{letter}[\p{{WB=MidLetter}}{both}]{x}(?={letter})|{quoted}|{letter})"
    digits = rf"(?:{digit}[\p{{WB=MidNum}}{both}]{x}(?={digit})|{digit})"
    run = rf"(?:(?:{letters}|{digits})+|(?:{katakana})+)"
    return regex.compile(rf"(?:{connector})*{run}(?:(?:{connector})+{run})*(?:{connector})*|(?s:.){x}")


SEGMENT = _segment()


def segments(text: str) -> list[str]:
    return [found for found in SEGMENT.findall(text) if found[0].isalnum()]


def dclm(text: str) -> Numbers:
    words = text.split()
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    signs = sum(text.count(sign) for sign in ("#", "...", ". . .", "\u2026"))
    found = {
        # the words of fastText, which knows fewer blanks than Python
        "words": sum(word[0].isalnum() for word in re.split("[ \n\r\t\v\f\0]+", text) if word),
        "mean_word_length": over(size(words), len(words)),
        "hash_ratio": over(signs, len(words)),
        "ellipsis_ratio": over(signs, len(words)),
        "bullet_line_ratio": over(sum(line[0] in "\u25cf\u2022*-" for line in lines), len(lines)),
        "ellipsis_line_ratio": over(sum(line.endswith(("...", ". . .", "\u2026")) for line in lines), len(lines)),
        "alpha_word_ratio": over(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "stop_words": sum(word.lower() in GOPHER for word in words),
    }
    for name, parts in (("line", lines), ("paragraph", paragraphs)):  # no segment at all: the page is dropped
        found[f"dup_{name}_ratio"] = len(copies(parts)) / len(parts) if parts else 1.0
        found[f"dup_{name}_char_ratio"] = size(copies(parts)) / size(parts) if parts else 1.0
    pieces = segments(text)
    for n in range(2, 11):
        counts = Counter(grams(pieces, n))
        most = max(counts.values(), default=0)
        if n < 5:
            longest = max((size(gram) for gram, count in counts.items() if count == most), default=0)
            found[f"top_{n}gram_char_ratio"] = longest * most / size(pieces) if most > 1 else 0.0
        else:
            found[f"dup_{n}gram_char_ratio"] = over(covered(pieces, n), size(pieces))
    return found


# dolma: python/dolma/taggers/gopher.py


def dolma(text: str) -> Numbers:
    words, lines = text.split(), text.split("\n")
    symbols = sum("#" in word or "\u2026" in word for word in words)
    found = {
        "words": len(words),
        "mean_word_length": median(map(len, words)) if words else 0.0,
        "hash_ratio": over(symbols, len(words)),
        "ellipsis_ratio": over(symbols, len(words)),
        "bullet_line_ratio": over(sum(line[:1] in ("*", "-") for line in lines), len(lines)),
        "ellipsis_line_ratio": over(sum(line.endswith("\u2026") for line in lines), len(lines)),
        "alpha_word_ratio": over(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "stop_words": sum(word in GOPHER for word in words),
        "dup_line_ratio": over(len(copies(lines)), len(lines)),
        "dup_line_char_ratio": over(size(copies(lines)), max(size(words), 1)),
    }
    for n in range(2, 11):
        all_grams = grams(words, n)
        if n < 5:
            top, count = Counter(all_grams).most_common(1)[0] if all_grams else ((), 0)
            found[f"top_{n}gram_char_ratio"] = over(count * size(top), size(words))
        else:
            repeated, every = copies(all_grams), sum(map(size, all_grams))  # type: ignore[type-var]
            found[f"dup_{n}gram_char_ratio"] = over(sum(map(size, repeated)), every)
    return found


# NeMo Curator: stages/text/filters/heuristic/string.py, repetition/repetition.py, stages/text/utils/constants.py, text_utils.py

NEMO_MARKS = ("...", "[...]", "\u2026", "(...)", "[\u2026]", "-\xbb", "read more..", "read more")
NEMO_BULLETS = "\u2022\u2023\u2043\u204c\u204d\u2219\u25cb\u25cf\u25d8\u25e6\u29be\u29bf"
NEMO_ADDRESS = re.compile(r"https?://(?:[a-zA-Z0-9$\-_@.&+!*(),]|%[0-9a-fA-F]{2})+")


def nemo(text: str) -> Numbers:
    words, lines, paragraphs = text.split(), [line for line in text.split("\n") if line.strip()], text.split("\n\n")
    symbols = sum(word in NEMO_MARKS or len(re.findall("#+", word)) > len(word) / 2 for word in words)
    found = {
        "words": len(words),
        "mean_word_length": over(size(words), len(words)),
        "hash_ratio": over(symbols, len(words)),
        "ellipsis_ratio": over(symbols, len(words)),
        "bullet_line_ratio": over(sum(line.strip()[0] in NEMO_BULLETS for line in lines), len(lines)),
        "ellipsis_line_ratio": over(sum(line.strip().lower().endswith(NEMO_MARKS) for line in lines), len(lines)),
        "alpha_word_ratio": over(sum(any(map(str.isalpha, word)) for word in words), len(words)),
        "stop_words": sum(word in GOPHER for word in words),
        "non_alnum_char_ratio": over(len(text) - len(re.findall("[a-zA-Z0-9\n?!,.]", text)), len(text)),
        "digit_char_ratio": over(len(regex.findall(r"[[:digit:]]", text)), len(text)),
        "url_char_ratio": over(size(NEMO_ADDRESS.findall(text)), len(text)),
        "space_char_ratio": over(sum(c in "\t\n\r\b " for c in text), len(text)),
        "bracket_char_ratio": over(sum(c in "{}[]()\u27e8\u27e9" for c in text), len(text)),
        "longest_word_chars": max(map(len, words), default=0),
        "no_end_mark_line_ratio": over(sum(line.strip()[-1] not in ".?!\"'" for line in lines), len(lines)),
    }
    low = [part.lower() for part in paragraphs]
    policies = sum(any(phrase in part for phrase in BOILERPLATE) for part in low)
    found["boilerplate_paragraph_ratio"] = 1.0 if any("lorem ipsum" in part for part in low) else policies / len(low)
    for name, parts in (("line", lines), ("paragraph", paragraphs)):  # it says what share is left without repeats
        found[f"dup_{name}_ratio"] = over(len(parts) - len(set(parts)), len(parts))
        found[f"dup_{name}_char_ratio"] = over(size(parts) - size(list(set(parts))), size(parts))
    for n in range(2, 11):
        all_grams = grams(words, n)
        if n < 5:
            name, value = f"top_{n}gram_char_ratio", 1.0
            if all_grams:
                top = " ".join(Counter(all_grams).most_common(1)[0][0])  # it breaks ties by the order of a set of Python's
                value = (len(text) - len(text.replace(top, ""))) / len(text)
        else:
            name, value = f"dup_{n}gram_char_ratio", 1.0
            if all_grams:
                seen, chars, known = set(), 0, 0
                for gram in all_grams:
                    if gram in seen:
                        chars += size(gram[known:]) + min(n - known, n - 1)
                        known = n
                    seen.add(gram)
                    known = max(known - 1, 0)
                value = chars / len(text)
        found[name] = value
    return found


# RedPajama-Data-v2: app/src/core/quality_signals, core/document.py, utilities/text/normalization.py

BULLETS = "\u2022\u2023\u25b6\u25c0\u25e6\u25a0\u25a1\u25aa\u25ab\u2013"


def redpajama(text: str) -> Numbers:
    """But for one thing: as `str.lower` does, it makes a capital sigma at the end of a word another letter than elsewhere."""
    bare = "".join(map(str.lower, text.translate({ord(c): None for c in string.punctuation})))
    bare = unicodedata.normalize("NFD", bare)
    words, raw = bare.split(), re.findall(r"\w+|[^\w\s]+", text)
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    counts = Counter(words)
    signs = text.count("#") + text.count("...") + text.count("\u2026")
    found = {
        "rps_doc_num_sentences": len(re.findall(r"\b[^.!?]+[.!?]*", text)),
        "rps_doc_word_count": len(words),
        "rps_doc_mean_word_length": over(size(words), len(words)),
        "rps_doc_symbol_to_word_ratio": over(signs, len(raw)),
        "rps_doc_frac_lines_end_with_ellipsis": over(sum(x.rstrip().endswith(("...", "\u2026")) for x in lines), len(lines)),
        "rps_doc_frac_no_alph_words": over(sum(not re.search("[a-zA-Z]", word) for word in raw), len(raw)),
        "rps_doc_frac_unique_words": over(len(counts), len(words)),
        "rps_doc_unigram_entropy": -sum(n / len(words) * log(n / len(words)) for n in counts.values()),
        "rps_doc_frac_all_caps_words": over(sum(map(str.isupper, raw)), len(raw)),
        "rps_doc_stop_word_fraction": over(sum(word in STOP_WORDS["en"] for word in raw), len(raw)),  # the lists are ours
        "rps_doc_lorem_ipsum": over(sum(pair == ("lorem", "ipsum") for pair in pairwise(words)), len(" ".join(words))),
        "rps_doc_curly_bracket": over(text.count("{") + text.count("}"), len(text)),
        "rps_lines_ending_with_terminal_punctution_mark":
            over(sum(x.rstrip().endswith((".", "!", "?", "\u201d")) for x in lines), len(lines)),
        "rps_lines_start_with_bulletpoint": over(sum(x.lstrip()[:1] in tuple(BULLETS) for x in lines), len(lines)),
    }  # fmt: skip
    for n in range(2, 11):
        if n < 5:
            top, count = max(Counter(grams(words, n)).items(), key=lambda item: item[1], default=((), 0))
            found[f"rps_doc_frac_chars_top_{n}gram"] = size(top) * count / size(words) if count > 1 else 0.0
        else:
            found[f"rps_doc_frac_chars_dupe_{n}grams"] = over(covered(words, n), size(words))
    return found


ORACLES: dict[str, Callable[[str], Numbers]] = {"dclm": dclm, "dolma": dolma, "nemo": nemo, "redpajama": redpajama}


def measured_as(dialect: str, texts: list[str], lang: str = "en") -> list[Numbers]:
    docs = measure(record_batch({"text": texts, "lang": [lang] * len(texts)}, RECORD), MeasureConfig(dialects=(dialect,)))
    names = [name for name in docs.schema.names if name.endswith(f"@{dialect}")]
    return [{name.partition("@")[0]: row[name] for name in names} for row in docs.select(names).to_pylist()]


NGRAM = re.compile(r"\d+gram")


@pytest.mark.parametrize("dialect", ORACLES)
def test_every_measure_of_a_dialect_has_its_oracle(dialect: str) -> None:
    assert {f"{name}@{dialect}" for name in ORACLES[dialect]("")} == {m for m in MEASURES if m.endswith(f"@{dialect}")}


@pytest.mark.parametrize("dialect", ORACLES)
def test_measures_of_a_dialect_on_real_texts(dialect: str, texts: list[str], texts_measured: pa.RecordBatch) -> None:
    """All equal; but DCLM's n-grams on a few texts of bytes that are no text, whose letters Unicode classes otherwise."""
    names = list(ORACLES[dialect](""))
    different: Counter[str] = Counter()
    for row, text in zip(texts_measured.select([f"{n}@{dialect}" for n in names]).to_pylist(), texts, strict=True):
        oracle = ORACLES[dialect](text)
        different.update(name for name in names if row[f"{name}@{dialect}"] != pytest.approx(oracle[name], rel=1e-9, abs=1e-12))
    if dialect == "dclm":
        assert {name for name in different if not NGRAM.search(name)} == set()
        assert max(different.values(), default=0) <= len(texts) / 200
    else:
        assert different == {}


SIGNS = (
    "aAbB1 \n\t.#*-!?'\"(){}[]<>_%@&:/,\u2026\u2028\xa0\u0301\xe9\u4e00\u3042\u0e01\u0663\x00\x08\ufffd\u2022\u25cf\u2013\u201d"
    "\u27e8\u01c5"
)
PIECES = [
    "\n\n", "\r\n", "...", ". . .", "-\xbb", "read more", "Read More..", "the", " of ", "with\n", "http://", "https://a.b/c%20d",
    "lorem", " ipsum ", "a b c d e f ", "word word ", "#a#",
]  # fmt: skip
ALPHABET = st.sampled_from([*SIGNS, *PIECES])


@pytest.mark.parametrize("dialect", ORACLES)
@given(text=st.lists(ALPHABET, max_size=40).map("".join))
@settings(max_examples=200, deadline=None)
def test_measures_of_a_dialect_on_any_text(dialect: str, text: str) -> None:
    assert measured_as(dialect, [text])[0] == pytest.approx(ORACLES[dialect](text), rel=1e-9, abs=1e-12)


CASES = [
    # dialect, measure, text, value
    ("dclm", "words", "one two, (three) -- 4\xa05 \xa06", 3),  # a no-break space parts no words
    ("dclm", "stop_words", "The the OF of x", 4),  # occurrences, in any case
    ("dclm", "hash_ratio", "# ... . . . \u2026", 4 / 6),
    ("dclm", "bullet_line_ratio", " * a\n\u25cf b\n\n- c\n\u2013 d", 3 / 4),  # blank lines do not count
    ("dclm", "ellipsis_line_ratio", "a. . .\nb... \nc..\nd\u2026", 3 / 4),
    ("dclm", "dup_line_ratio", "a\n a\nb\n\n", 2 / 3),  # stripped, all copies
    ("dclm", "dup_line_ratio", "a", 0),
    ("dclm", "dup_line_ratio", "\n \n", 1),  # no line at all
    ("dclm", "dup_paragraph_char_ratio", "aa\n\naa\n\nb", 4 / 5),
    ("dclm", "top_2gram_char_ratio", "a bb a bb c dddd c dddd", 10 / 16),  # of equals the longest
    ("dclm", "top_2gram_char_ratio", "a b c", 0),  # what occurs once is no repeat
    ("dclm", "dup_5gram_char_ratio", "a b c d e a b c d e", 1),
    ("dolma", "mean_word_length", "a bbb ccccc dddd", 3.5),  # the median
    ("dolma", "hash_ratio", "a# b\u2026 c...", 2 / 3),
    ("dolma", "bullet_line_ratio", "* a\n - b\n\n-", 2 / 4),  # not stripped
    ("dolma", "ellipsis_line_ratio", "a\u2026\nb...\nc\u2026 ", 1 / 3),
    ("dolma", "stop_words", "The the of of", 3),
    ("dolma", "dup_line_ratio", "a\n\nb\n\nc", 2 / 5),  # blank lines repeat
    ("dolma", "dup_line_char_ratio", "a b\na b\n", 6 / 4),  # over the characters of words: may pass 1
    ("dolma", "top_2gram_char_ratio", "a bb c dddd", 3 / 8),  # the first, were it to occur once
    ("dolma", "dup_5gram_char_ratio", "a a a a a a a", 1),
    ("nemo", "hash_ratio", "# ## a# #a# ... [...] [\u2026] (\u2026) -\xbb a-\xbb", 6 / 10),
    ("nemo", "bullet_line_ratio", "\u2022 a\n- b\n\n \u25e6 c", 2 / 3),
    ("nemo", "ellipsis_line_ratio", "a Read More\nb...\nc[\u2026]\nd)\n", 3 / 4),
    ("nemo", "dup_line_ratio", "a\na\na\nb\n\n", 2 / 4),
    ("nemo", "dup_paragraph_ratio", "a\n\nb\n\na", 1 / 3),
    ("nemo", "top_2gram_char_ratio", "a b a b xa by", 9 / 13),  # deleted in mid-word too
    ("nemo", "top_2gram_char_ratio", "word", 1),  # shorter than the n-gram
    ("nemo", "dup_5gram_char_ratio", "a b c d e a b c d e", 9 / 19),
    ("nemo", "url_char_ratio", "see http://a.b/c?d", 10 / 18),  # its expression knows no slash
    ("nemo", "space_char_ratio", "a b\tc\xa0d", 2 / 7),
    ("nemo", "digit_char_ratio", "1\u0661", 1 / 2),
    ("nemo", "longest_word_chars", "a bbb\ncc", 3),
    ("nemo", "no_end_mark_line_ratio", "a.\nb' \nc:\n\n", 1 / 3),
    ("nemo", "boilerplate_paragraph_ratio", "Our Privacy Policy.\n\nText.", 1 / 2),
    ("nemo", "boilerplate_paragraph_ratio", "Text.\n\nLorem Ipsum.", 1),
    ("redpajama", "rps_doc_word_count", "Don't -- stop!", 2),
    ("redpajama", "rps_doc_num_sentences", "One. Two? three", 3),
    ("redpajama", "rps_doc_frac_unique_words", "The the, THE end", 1 / 2),
    ("redpajama", "rps_doc_unigram_entropy", "a b", log(2)),
    ("redpajama", "rps_doc_mean_word_length", "\u00c9t\u00e9 \ud55c", 4),  # accents and syllables are taken apart
    ("redpajama", "rps_doc_frac_all_caps_words", "AB C2 d !", 2 / 4),
    ("redpajama", "rps_doc_frac_no_alph_words", "ab \xe9 12 .", 3 / 4),  # ASCII letters
    ("redpajama", "rps_doc_lorem_ipsum", "Lorem, ipsum dolor", 1 / 17),
    ("redpajama", "rps_lines_ending_with_terminal_punctution_mark", "a.\n\nb\u201d \nc", 2 / 4),
    ("redpajama", "rps_lines_start_with_bulletpoint", "\u2013 a\n- b\n", 1 / 2),
    ("redpajama", "rps_doc_frac_chars_top_2gram", "A b. a, b", 1),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "name", "text", "value"), CASES)
def test_measure_of_a_dialect(dialect: str, name: str, text: str, value: float) -> None:
    assert measured_as(dialect, [text])[0][name] == pytest.approx(value)
    assert ORACLES[dialect](text)[name] == pytest.approx(value)


def test_no_dialect_is_measured_unless_it_is_named() -> None:
    assert [name for name in measure_columns(MeasureConfig()).names if "@" in name] == []
    two = measure_columns(MeasureConfig(dialects=("dclm", "nemo"))).names
    assert {name.partition("@")[2] for name in two} == {"", "dclm", "nemo"}
    with pytest.raises(UserError, match="there is no dialect 'gopher'; known are datatrove, dclm, dolma, nemo, redpajama"):
        measure_columns(MeasureConfig(dialects=("gopher",)))


def test_a_dialect_measures_the_same_alone_and_with_others(texts: list[str]) -> None:
    some = texts[::60]
    together = measure(record_batch({"text": some, "lang": ["en"] * len(some)}, RECORD), MeasureConfig(dialects=DIALECTS))
    for dialect in DIALECTS:
        names = [name for name in MEASURES if name.endswith(f"@{dialect}")]
        alone = [{f"{name}@{dialect}": value for name, value in row.items()} for row in measured_as(dialect, some)]
        assert together.select(names).to_pylist() == alone

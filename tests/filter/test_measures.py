"""Our measures: each by hand at its edges, all by plain Python on real texts, and defined results for bad input."""

import math
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.filter.kernels import document
from pipelines.filter.kernels.notices import NOTICE_CHARS, notices
from pipelines.filter.kernels.unicode import MARK, NO_WORD, SENTENCE, flags
from pipelines.filter.languages import STOP_WORDS
from pipelines.filter.measures import DIALECTS, MEASURES, MeasureConfig, measure, measure_columns
from pipelines.schema import RECORD, record_batch

OURS = [name for name in MEASURES if "@" not in name]
ALL = MeasureConfig(dialects=DIALECTS)


def table(texts: list[str | None], lang: str | None = "en", cfg: MeasureConfig = ALL) -> pa.RecordBatch:
    return measure(record_batch({"text": pa.array(texts, pa.string()), "lang": [lang] * len(texts)}, RECORD), cfg)


def measures(text: str, lang: str | None = "en") -> dict[str, Any]:
    row: dict[str, Any] = table([text], lang, MeasureConfig()).to_pylist()[0]
    return row


RAIN, CLOUD = "\u96e8", "\u4e91"  # two characters of Chinese
CASES = [
    # measure, text, value; an E marks an edge of the definition
    ("chars", "", 0),
    ("chars", "a\u0301\U0001f600\r\n", 5),  # code points, not bytes, letters or UTF-16
    ("words", "", 0),
    ("words", "?! ...", 0),  # punctuation alone is no word
    ("words", "one, two!", 2),
    ("words", "don't", 2),  # do, n't
    ("words", "one\u00a0two\u3000three", 3),
    ("words", "\u4f60\u597d\u4e16\u754c\uff01", 2),  # a character of Han is half a word
    ("words", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", 4 / 3),  # four letters of Thai with their vowels
    ("words", "\u6211\u7231 GPU", 2),
    ("mean_word_length", "ab, abcd", 3),
    ("mean_word_length", "\u4f60\u597d\u4e16\u754c", 2),
    ("mean_word_length", "?!", 0),
    ("hash_ratio", "# a", 1 / 2),
    ("hash_ratio", "##a", 2 / 3),  # signs over tokens
    ("ellipsis_ratio", "a ... b", 1 / 3),
    ("ellipsis_ratio", "a...... \u2026", 3 / 3),  # two of three points in six
    ("bullet_line_ratio", "- a\n\n\u2022 b\n  - c", 3 / 4),  # blank lines count, blanks before the bullet do not
    ("bullet_line_ratio", "- a\u2028x", 1 / 2),  # U+2028 ends a line here
    ("bullet_line_ratio", "- a\r\nx\r\n", 1 / 2),
    ("bullet_line_ratio", "", 0),
    ("ellipsis_line_ratio", "a...  \nb\u2026\nc", 2 / 3),
    ("ellipsis_line_ratio", "a..", 0),
    ("alpha_word_ratio", "a1 22 ,", 1 / 3),
    ("alpha_word_ratio", "\u6c34 \u0301", 1 / 2),
    ("stop_words", "The the of of", 2),  # different ones, and case matters
    ("dup_paragraph_ratio", "\n\na\n\nb\n\na\n\n", 1 / 3),  # from the stripped text
    ("dup_paragraph_ratio", "a\n\n\n\na", 1 / 2),  # two newlines or more
    ("dup_paragraph_ratio", "a\r\n\r\na", 0),
    ("dup_paragraph_char_ratio", "aa\n\naa", 2 / 6),
    ("dup_line_ratio", "a\nb\na\n\na", 2 / 4),  # lines split at runs of newlines; repeats after the first
    ("dup_line_ratio", "a\na ", 0),  # not stripped
    ("dup_line_ratio", "a\u2028a", 0),  # U+2028 ends no line here
    ("dup_line_char_ratio", "aa\nb\naa", 2 / 7),
    ("top_2gram_char_ratio", "a b a b a", 2 * 3 / 9),  # with the blank; "a b" comes first
    ("top_3gram_char_ratio", "a b", 0),
    ("top_4gram_char_ratio", "a b c d", 1),  # once is enough
    ("dup_5gram_char_ratio", "a b c d e a b c d e", 5 / 19),  # the repeat, without blanks
    ("dup_5gram_char_ratio", "a a a a a a a a a a", 5 / 19),  # spans do not overlap
    ("dup_5gram_char_ratio", "a b c d", 0),
    ("lines", "a\n \n\nb\n", 2),
    ("lines", "a\u2028b\x0bc", 1),
    ("end_mark_line_ratio", "One.\nTwo. \nThree", 1 / 3),  # a trailing blank hides the mark
    ("end_mark_line_ratio", "One.\u2028Two", 0),
    ("end_mark_line_ratio", "One.\r\nTwo.", 1 / 2),  # a carriage return is no end mark
    ("end_mark_line_ratio", "\u4e00\u3002\n\u0939\u0964", 1),
    ("end_mark_line_ratio", 'He said "no."', 0),
    ("short_line_ratio", "x" * 30 + "\n" + "y" * 31, 1 / 2),  # equal is short
    ("short_line_ratio", RAIN * 15 + "\n" + CLOUD * 16, 1 / 2),  # a character of Han counts twice
    ("short_line_ratio", "so an English page says it\n" * 4 + RAIN * 16, 1),  # but not on a page of others
    ("repeated_line_char_ratio", "aa\nb\naa", 2 / 5),  # over all but newlines
    ("repeated_line_char_ratio", "\n\n \n \n", 0),
    ("newline_ratio", "a b\nc d", 1 / 4),
    ("newline_ratio", RAIN * 4 + "\n", 1 / 2),  # four characters are two words
    ("newline_ratio", "\n\n", 0),
    ("sentences", "One. Two! Three?", 3),
    ("sentences", "no mark", 1),
    ("sentences", "one\ntwo", 2),
    ("sentences", "3.5 is it.", 1),
    ("sentences", 'He said "no." Then left.', 2),
    ("sentences", "\u4e0b\u96e8\u4e86\u3002\u8d70\u5427\uff01", 2),
    ("sentences", "Wait... what?", 2),
    ("sentences", "", 0),
    ("same_shape_line_ratio", "page 1\npage 23\nend", 1 / 3),
    ("same_shape_line_ratio", "a  b\n a b ", 1 / 2),
    ("list_line_char_ratio", "Home\nAbout us\nThis line has five words\nSo has:\nTwo words.", 12 / 53),
    ("list_line_char_ratio", "one two three four\none two three four five", 18 / 41),
    ("list_line_char_ratio", RAIN * 9 + "\n" + RAIN * 10, 9 / 19),
    ("broken_char_ratio", "\ufffdab\x00", 1 / 2),
    ("broken_char_ratio", "a\t\r\n", 0),
    ("paragraphs", "a\n\nb\nc\n\n\n\nd", 3),
    ("paragraphs", " \n\n ", 0),
    ("mean_line_chars", " abc \n\na", 2),
    ("max_line_chars", " abc \n\na", 5),
    ("longest_word_chars", "a (bcd), e", 6),
    ("longest_word_chars", RAIN * 7, 7),
    ("alpha_char_ratio", "a1 \u00e9" + RAIN, 3 / 5),
    ("digit_char_ratio", "a1\u0663\u00b2", 2 / 4),  # decimal digits of any script
    ("upper_char_ratio", "aBC 1", 2 / 3),
    ("upper_char_ratio", "123", 0),
    ("space_char_ratio", "a b\u00a0\u2028", 3 / 5),
    ("punctuation_char_ratio", "a, b! $\u3002", 3 / 8),
    ("bracket_char_ratio", "(a) [b] {c} \u27e8d\u27e9", 8 / 15),
    ("curly_bracket_ratio", "{a}", 2 / 3),
    ("url_char_ratio", "see http://a.b/c now", 12 / 20),
    ("url_char_ratio", "see www.a.b now", 7 / 15),
    ("url_char_ratio", "a://b xwww.a", 0),
    ("all_caps_word_ratio", "NASA A b2 C3PO. 12 A1", 3 / 6),  # two characters at least
    ("unique_word_ratio", "a b a b", 1 / 2),
    ("unigram_entropy", "a b a b", math.log(2)),
    ("unigram_entropy", "a a a", 0),
    ("compression_ratio", "abcdefgh", 1),
    ("compression_ratio", "ab" * 50, (2 + 3) / 100),  # two bytes, and one match of 98
    ("notice_ratio", "404 Not Found", 1),
    ("notice_ratio", "404 not found\n" + "a" * 87, 13 / 100),
    ("notice_ratio", "404 not found " + "a" * 306, NOTICE_CHARS / 320),  # a phrase speaks for so much of its line
]


def test_every_measure_of_ours_has_a_case() -> None:
    assert {name for name, _, _ in CASES} == set(OURS) - {f"dup_{n}gram_char_ratio" for n in range(6, 11)}


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_measure(name: str, text: str, value: float) -> None:
    assert measures(text)[name] == pytest.approx(value)


def has(character: str, flag: int) -> bool:
    return bool(flags()[ord(character)] & np.uint32(flag))


CJK = re.compile(
    "[\u3005-\u3007\u3041-\u3096\u30a1-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)
SEA = re.compile("[\u0e01-\u0e4f\u0e81-\u0ecf\u1000-\u103f\u1050-\u108f\u1780-\u17d3]")
UNSPACED = rf"(?:{CJK.pattern}|{SEA.pattern})"
MARKS = "[" + "".join(map(chr, np.flatnonzero(flags() & np.uint32(MARK)))) + "]"
NLP = spacy.blank("en")


def our_tokens(text: str) -> list[tuple[int, str]]:
    """Place and text of those of spaCy; of characters of a script without blanks, each with its marks is one."""
    with NLP.memory_zone():
        places = [(token.idx, token.text.strip()) for token in NLP.tokenizer(text)]
    pieces: list[tuple[int, str]] = []
    for place, token in places:
        for made in re.findall(rf"{UNSPACED}{MARKS}*|(?:(?!{UNSPACED})(?s:.))+", token):
            pieces.append((place, made))
            place += len(made)
    return pieces


def without_runs(places: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    """The tokens with a run of one punctuation mark as one, and what each is the same as: a single mark."""
    pieces: list[str] = []
    keys: list[str] = []
    end = -1
    for place, token in places:
        if place == end and all(has(c, NO_WORD) for c in token) and keys[-1] == token:
            pieces[-1] += token
        else:
            pieces.append(token)
            keys.append(token)
        end = place + len(token)
    return pieces, keys


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def ours(text: str) -> dict[str, float]:
    """Our measures in English but for those of sentences, lists, shapes, compression and notices."""
    places, n = our_tokens(text), max(len(text), 1)
    tokens = [token for _, token in places]
    cjk = [t for t in tokens if CJK.match(t)]
    sea = [t for t in tokens if SEA.match(t)]
    spaced = [t for t in tokens if not re.match(UNSPACED, t)]
    words = [t for t in spaced if not all(has(c, NO_WORD) for c in t)]
    weight = len(cjk) / 2 + len(sea) / 3
    step = 1 if 2 * (len(cjk) + len(sea)) <= len(tokens) else 2 if len(cjk) >= len(sea) else 3
    lines, pieces = text.split("\n"), text.split()
    filled, broken = [line for line in lines if line.strip()], text.splitlines()
    paragraphs, runs = re.split("\n{2,}", text.strip()), re.split("\n+", text)
    letters = [c for c in text if c.isalpha()]
    counts = Counter(tokens)

    def repeated(parts: list[str]) -> list[str]:
        return [part for i, part in enumerate(parts) if part in set(parts[:i])]

    def width(line: str) -> int:
        return len(line) + (len(re.findall(UNSPACED, line)) if step > 1 else 0)

    found: dict[str, float] = {
        "chars": len(text),
        "words": len(words) + weight,
        "mean_word_length": ratio(sum(map(len, words + cjk + sea)), len(words) + weight),
        "hash_ratio": ratio(text.count("#"), len(tokens)),
        "ellipsis_ratio": ratio(text.count("...") + text.count("\u2026"), len(tokens)),
        "bullet_line_ratio": ratio(sum(line.lstrip()[:1] in ("-", "\u2022") for line in broken), len(broken)),
        "ellipsis_line_ratio": ratio(sum(line.rstrip().endswith(("...", "\u2026")) for line in broken), len(broken)),
        "alpha_word_ratio": ratio(sum(any(map(str.isalpha, t)) for t in tokens), len(tokens)),
        "stop_words": len(STOP_WORDS["en"] & set(tokens)),
        "dup_paragraph_ratio": len(repeated(paragraphs)) / len(paragraphs),
        "dup_paragraph_char_ratio": sum(map(len, repeated(paragraphs))) / n,
        "dup_line_ratio": len(repeated(runs)) / len(runs),
        "dup_line_char_ratio": sum(map(len, repeated(runs))) / n,
        "lines": len(filled),
        "end_mark_line_ratio": ratio(sum(has(line[-1], SENTENCE) for line in filled), len(filled)),
        "short_line_ratio": ratio(sum(width(line) <= 30 for line in filled), len(filled)),
        "repeated_line_char_ratio": ratio(sum(map(len, repeated(filled))), len(text) - text.count("\n")),
        "newline_ratio": ratio(text.count("\n"), len(spaced) + weight),
        "broken_char_ratio": sum(c == "\ufffd" or unicodedata.category(c) == "Cc" for c in re.sub("[\t-\r]", "", text)) / n,
        "paragraphs": len(paragraphs) if text.strip() else 0,
        "mean_line_chars": ratio(sum(len(line.strip()) for line in filled), len(filled)),
        "max_line_chars": max(map(len, lines)),
        "longest_word_chars": max(map(len, pieces), default=0),
        "alpha_char_ratio": len(letters) / n,
        "digit_char_ratio": sum(map(str.isdecimal, text)) / n,
        "upper_char_ratio": ratio(sum(map(str.isupper, text)), len(letters)),
        "space_char_ratio": sum(map(str.isspace, text)) / n,
        "punctuation_char_ratio": sum(unicodedata.category(c)[0] == "P" for c in text) / n,
        "bracket_char_ratio": sum(c in "(){}[]\u27e8\u27e9" for c in text) / n,
        "curly_bracket_ratio": sum(c in "{}" for c in text) / n,
        "url_char_ratio": sum(map(len, re.findall(r"[^\W\d_]{4,5}://\S*|(?<![^\W_])www\.\S*", text))) / n,
        "all_caps_word_ratio": ratio(sum(capitals(piece) for piece in pieces), len(pieces)),
        "unique_word_ratio": ratio(len(counts), len(tokens)),
        "unigram_entropy": -sum(k / len(tokens) * math.log(k / len(tokens)) for k in counts.values()),
    }
    tokens, keys = (tokens, tokens) if step == 1 else without_runs(places)
    for size in range(2, 11):
        wide = size * step
        grams = [tuple(keys[i : i + wide]) for i in range(len(tokens) - wide + 1)]
        chars = [sum(map(len, tokens[i : i + wide])) for i in range(len(grams))]
        if size < 5:
            top, count = Counter(grams).most_common(1)[0] if grams else ((), 0)
            found[f"top_{size}gram_char_ratio"] = (chars[grams.index(top)] + size - 1) * count / n if grams else 0.0
        else:
            seen, total, i = set(), 0, 0
            while i < len(grams):
                if grams[i] in seen:
                    total += chars[i]
                    i += wide
                else:
                    seen.add(grams[i])
                    i += 1
            found[f"dup_{size}gram_char_ratio"] = total / n
    return found


def capitals(piece: str) -> bool:
    letters = [c for c in piece if c.isalpha()]
    return len(piece) > 1 and bool(letters) and all(map(str.isupper, letters))


# Told by the table of cases alone.
BY_HAND = {"sentences", "same_shape_line_ratio", "list_line_char_ratio", "compression_ratio", "notice_ratio"}


def test_measures_on_real_texts(texts: list[str], texts_measured: pa.RecordBatch) -> None:
    """All equal; tokens of two texts in a thousand differ from spaCy's, see test_tokens.py."""
    names = [name for name in OURS if name not in BY_HAND]
    assert set(ours("")) == set(names)
    different: Counter[str] = Counter()
    for i in range(0, len(texts), 3):
        row, oracle = texts_measured.slice(i, 1).select(names).to_pylist()[0], ours(texts[i])
        different.update(name for name in names if row[name] != pytest.approx(oracle[name], rel=1e-9, abs=1e-12))
    assert max(different.values(), default=0) <= len(texts) / 1500, different


SIGNS = "aAbB1 \n\t.#-!?'\"(){},\u2026\u2028\xa0\u0301\xe9\u0e01\u0e31\u0663\x00\ufffd\u2022\u30ab" + RAIN + CLOUD
PIECES = st.sampled_from([*SIGNS, "\n\n", "\r\n", "...", "the", " of ", " a b c d e ", "404 Not Found", "http://a", "www."])


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=200, deadline=None)
def test_measures_on_any_text(text: str) -> None:
    row = measures(text)
    oracle = ours(text)
    assert {name: row[name] for name in oracle} == pytest.approx(oracle, rel=1e-9, abs=1e-12)


def test_ngrams_of_a_script_without_blanks_are_as_long_as_words() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(40))
    assert measures(text + text, "zh")["dup_10gram_char_ratio"] == pytest.approx(0.5)  # 20 characters are 10 words
    assert measures(text + text[:19], "zh")["dup_10gram_char_ratio"] == 0


BAD = {
    "empty": "", "blank": " ", "newlines": "\n" * 3, "line separator": "\u2028", "no-break space": "\xa0", "NUL": "\x00" * 9,
    "replacement": "\ufffd", "a letter": "a", "a mark alone": "\u0301", "carriage returns": "\r\r\r", "points": "." * 5000,
    "one word": "a" * 100_000, "many newlines": "\n" * 5000, "hashes": "#" * 3000, "Thai marks": "\u0e31" * 50,
    "tabs": "\t\n" * 9, "one character of Han": RAIN,
    "last code point": "\U0010ffff", "noncharacters": "\ufffe\uffff", "direction": "\u202e\u200f",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_defined_measures(name: str) -> None:
    """Every column of every dialect is a finite number not below 0; ratios but those over something else not above 1."""
    row = table([BAD[name]]).select(list(MEASURES)).to_pylist()[0]
    for column, value in row.items():
        assert value is not None, column
        assert math.isfinite(value), column
        assert value >= 0, column
        over = ("hash", "ellipsis_ratio", "symbol_to", "newline_ratio", "dup_line_char_ratio@dolma", "top_")
        if "ratio" in column and not any(word in column for word in over):
            assert value <= 1, column


def test_one_word_of_5_megabytes() -> None:
    row = measures("ab" * 2_500_000)
    assert (row["words"], row["mean_word_length"], row["longest_word_chars"], row["dup_5gram_char_ratio"]) == (1, 5e6, 5e6, 0)


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a\x80b", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc3", b"ok \xe4\xb8 \xe4\xb8\x80\n\xf5"]
)
def test_invalid_bytes_count_as_replacement_characters(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    offsets = np.array([0, len(data)], np.int64)
    langs, wanted = np.array([-1], np.int32), np.ones(len(DIALECTS), np.bool_)
    broken = document.measure_batch(np.frombuffer(data, np.uint8), offsets, langs, wanted)
    whole = text.encode()
    same = document.measure_batch(np.frombuffer(whole, np.uint8), np.array([0, len(whole)], np.int64), langs, wanted)
    compression = list(MEASURES).index("compression_ratio")  # of the bytes as they are
    np.testing.assert_array_equal(np.delete(broken, compression), np.delete(same, compression))
    assert broken[0, 0] == len(text)


def test_the_kernel_writes_the_columns_in_the_order_of_the_table() -> None:
    names = [name for name in MEASURES if name != "notice_ratio"]
    assert len(names) == document.WIDTH
    starts = [document.DATATROVE, document.DCLM, document.DOLMA, document.NEMO, document.REDPAJAMA, document.WIDTH]
    for dialect, first, last in zip(DIALECTS, starts, starts[1:], strict=False):
        assert {name.partition("@")[2] for name in names[first:last]} == {dialect}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_null_text_gives_null_and_slices_are_respected(kind: pa.DataType) -> None:
    docs = record_batch({"text": ["first", "second one", None, "", "last"], "lang": ["en"] * 5}, RECORD)
    docs = docs.set_column(docs.schema.get_field_index("text"), "text", docs["text"].cast(kind)).slice(1, 3)
    got = measure(docs, ALL)
    assert got["words"].to_pylist() == [2, None, 0]
    for name in MEASURES:
        assert got.schema.field(name).type == pa.float64()
        assert [value is None for value in got[name].to_pylist()] == [False, True, False], name


def test_stop_words_are_null_for_a_language_without_a_list_and_nothing_else_is() -> None:
    for lang in (None, "und", "xx"):
        row = table(["The end of the line."], lang).select(list(MEASURES)).to_pylist()[0]
        assert [name for name, value in row.items() if value is None] == ["stop_words"]
    assert table(["The end of the line."], None, MeasureConfig(default_lang="en"))["stop_words"].to_pylist() == [2]
    assert measures("Ende der Zeile", "de")["stop_words"] == len({"Ende", "der", "Zeile"} & STOP_WORDS["de"])


def test_columns_are_those_announced() -> None:
    cfg = MeasureConfig(dialects=("nemo",), keywords=(("money", ("casino", "free money")),))
    docs = record_batch({"text": ["Casino! Free  money, casinos; FREE MONEY"], "lang": ["en"]}, RECORD)
    got = measure(docs, cfg)
    assert (
        got.schema.names[len(RECORD) :]
        == measure_columns(cfg).names
        == [*(n for n in MEASURES if "@" not in n or "@nemo" in n), "keyword_money"]
    )
    assert got["keyword_money"].to_pylist() == [2]  # whole words, in any case, blanks as written


def test_notices_are_sought_in_any_case_and_with_any_apostrophe() -> None:
    for phrase in notices().phrases:
        loud = phrase.upper() if phrase.upper().lower() == phrase else phrase
        assert measures(f"Well, {loud} here")["notice_ratio"] == 1, phrase


def test_each_document_is_measured_by_itself(texts: list[str]) -> None:
    some = texts[::100]
    forwards, backwards = table(list(some)), table(list(some[::-1]))
    assert forwards.select(list(MEASURES)).to_pylist() == backwards.select(list(MEASURES)).to_pylist()[::-1]
    assert forwards.select(list(MEASURES)).to_pylist()[3] == table([some[3]]).select(list(MEASURES)).to_pylist()[0]


def test_an_empty_batch() -> None:
    assert table([]).num_rows == 0
    assert set(MEASURES) <= set(table([]).schema.names)

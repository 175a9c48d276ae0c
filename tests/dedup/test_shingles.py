import random
import re
import sys
import tracemalloc
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.kernels.folding import folding
from pipelines.dedup.kernels.units import survey
from pipelines.dedup.shingles import containment, folded_bytes, jaccard, jaccard_at_least, shingle_sets, shingle_texts, shingles

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1100-\u11ff\u3000-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
SURROGATES = range(0xD800, 0xE000)
EVERY = [chr(point) for point in range(sys.maxunicode + 1) if point not in SURROGATES]
LIVELY = [c for c in EVERY if unicodedata.normalize("NFKC", c).lower() != c or unicodedata.combining(c)]


def grams_by_definition(text: str, ngram: int, unit: str = "auto") -> list[tuple[str, ...]]:
    """Shingles in order as the definition reads, without hashes."""
    text = unicodedata.normalize("NFKC", text).lower()
    units = re.findall(r"\w+", text)
    if unit == "char" or (unit == "auto" and len(UNSPACED.findall(text)) > 0.3 * len(text)):
        units = list(re.sub(r"[\W_]+", "", text))
    return [tuple(units[i : i + ngram]) for i in range(max(len(units) - ngram + 1, min(len(units), 1)))]


def by_definition(text: str, ngram: int) -> set[tuple[str, ...]]:
    return set(grams_by_definition(text, ngram))


def assert_same_partition(texts: list[str], ngram: int, unit: str = "auto", column: pa.Array | None = None) -> None:
    """Hashes are equal exactly where n-grams are, in every place of every text."""
    hash_of: dict[tuple[str, ...], int] = {}
    gram_of: dict[int, tuple[str, ...]] = {}
    made = shingles(pa.array(texts, pa.string()) if column is None else column, ngram, unit)
    for text, hashes in zip(texts, made, strict=True):
        grams = grams_by_definition(text, ngram, unit)
        assert len(hashes) == len(grams), f"{text!a} gives {len(hashes)} shingles, not {len(grams)}"
        for gram, value in zip(grams, hashes.tolist(), strict=True):
            assert hash_of.setdefault(gram, value) == value, f"{gram!a} of {text!a} has two hashes"
            assert gram_of.setdefault(value, gram) == gram, f"{gram!a} of {text!a} has the hash of {gram_of[value]!a}"


def similarity(a: str, b: str, ngram: int = 5) -> float:
    return jaccard(*shingle_sets(pa.array([a, b]), ngram))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("one two three four five", "one two three four five", 1.0),
        ("One, TWO three -- four: five!", "one two three four five", 1.0),  # case and punctuation do not count
        ("one two three four five six", "one two three four five", 1 / 2),
        ("a b c d e f g", "b c d e f g h", 2 / 4),
        ("five four three two one", "one two three four five", 0.0),  # the order of words does
        ("\ufb01ve \uff41 b c d", "five a b c d", 1.0),  # NFKC: ligature, full width
        (
            "\u4eca\u5929\u5929\u6c14\u5f88\u597d",
            "\u4eca\u5929\u5929\u6c14\u5f88\u574f",
            1 / 3,
        ),  # characters where there are no blanks
        ("\u4eca\u5929\uff0c\u5929\u6c14\u5f88\u597d\u3002", "\u4eca\u5929\u5929\u6c14 \u5f88\u597d", 1.0),
        ("snake_case x y z w", "snake case x y z w", 0.0),  # "_" is part of a word
        ("too short", "too short", 1.0),  # fewer than five words: one shingle
        ("too short", "too brief", 0.0),
        ("too short", "too short too", 0.0),
        ("too short", "tooshort", 0.0),
        ("", "", 0.0),  # nothing is like nothing
        ("?! ...", "?! ...", 0.0),
    ],
)
def test_similarity_is_as_defined(a, b, expected):
    assert similarity(a, b) == pytest.approx(expected, abs=1e-12)


# scripts, emoji with joiners and selectors, marks in and out of order, both sigmas, jamo, full and half width, ligatures
_PIECES = (
    "The River|ROSE|caf\xe9|cafe\u0301|\xc5ngstr\xf6m|\u212bngstr\xf6m|snake_case|don't|x\xb2|\ufb01ve|\ufb03|"
    "\uff21\uff22\uff23|\uff11\uff12|\uff3f|\u2167|\u33a1|\ufdfa|\u03a3|\u03a3\u0391\u03a3|\u039f\u0394\u039f\u03a3|"
    "\u03c3\u03c2|\U0001d6ba|\u0130stanbul|I\u0307|\u1e9e|\xdf|\u01c5|\u0149|\u0390|a\u0323\u0307|a\u0307\u0323|"
    "\u1ea1\u0302|q\u0323\u0307|q\u0307\u0323|\u0958|\u0915\u093c|\u0928\u0940|\u0995\u09bf|\u09c7\u09be|\u09ac\u09be|"
    "\u0bc6\u0bbe|\u0dd9\u0dcf|\u1025\u102e|\u0e19\u0e49\u0e33|\u0e33|\u0eb3|\u0f43|\u0f71\u0f72|\u05e9\u05bc\u05c1|"
    "\ufb2c|\u0644\u0627|\ufefb|\u0627\u0653|\u1112\u1161\u11ab|\ud55c|\ud558\u11ab|\u1100|\u1161|\uffa1|\u3131|"
    "\u304b\u3099|\u304c|\uff76\uff9e|\u30ab|\u3042|\u4eca\u5929|\u6c14\u3002|\uf900|\u8c48|\ufa0e|\U00020000|\U0002f800|"
    "\u3003|\u2f00|\u337f|\U0001f468\u200d\U0001f469\u200d\U0001f467|\u2764\ufe0f|\U0001f1e9\U0001f1ea|\xad|\u200b|"
    "\u0345|\u0344|\u1fb3|\u2260|=\u0338|\u226e|\U0001d400|\U00010400|\U000114b9\U000114ba|\U0001109b\U000110ba|\ufffd|"
    "\x00|\n|\t| |.|_|-|\u2028|\ufeff|\U0010ffff|\ue000"
)
PIECES = _PIECES.split("|")
texts = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), max_size=20).map("".join)


@given(st.lists(texts, max_size=6), st.integers(1, 6), st.sampled_from(["auto", "word", "char"]))
def test_hashes_are_equal_exactly_where_n_grams_are(batch, ngram, unit):
    assert_same_partition(batch, ngram, unit)


@given(texts, st.integers(1, 6))
def test_shingle_texts_are_the_n_grams_joined(text, ngram):
    for unit, between in (("word", " "), ("char", "")):
        assert shingle_texts(text, ngram, unit) == [between.join(gram) for gram in grams_by_definition(text, ngram, unit)]
    folded = unicodedata.normalize("NFKC", text).lower()
    of_text = "char" if len(UNSPACED.findall(folded)) > 0.3 * len(folded) else "word"
    assert shingle_texts(text, ngram) == shingle_texts(text, ngram, of_text)


@given(st.lists(texts, max_size=6), st.integers(1, 6))
def test_similarity_of_any_two_is_that_of_their_sets(batch, ngram):
    hashed = shingle_sets(pa.array(batch, pa.string()), ngram)
    plain = [by_definition(t, ngram) for t in batch]
    assert [len(h) for h in hashed] == [len(p) for p in plain]
    for h in hashed:
        assert (h[1:] > h[:-1]).all()
    for i, a in enumerate(plain):
        for j, b in enumerate(plain):
            assert jaccard(hashed[i], hashed[j]) == pytest.approx(len(a & b) / len(a | b) if a and b else 0.0, abs=1e-12)
            least = min(len(a), len(b))
            assert containment(hashed[i], hashed[j]) == pytest.approx(len(a & b) / least if least else 0.0, abs=1e-12)


def test_every_code_point_alone():
    assert_same_partition(EVERY, 1, "word")


def test_code_points_in_company():
    """Each that folding changes or moves, and a part of the others, between letters, before a mark, after a jamo."""
    some = LIVELY + random.Random(4).sample(EVERY, 20_000)
    for text in ("{}", "a{}b", "{}\u0301", "\u1100{}\u11a8"):
        assert_same_partition([text.format(c) for c in some], 1)


def test_characters_that_interact_in_random_company():
    """Every character that composes, changes places, expands or changes case, beside others of them."""
    rng = random.Random(7)
    marks = [c for c in LIVELY if unicodedata.combining(c)]
    made = []
    for _ in range(60_000):
        pool = rng.choice((LIVELY, marks, PIECES, rng.choices(LIVELY, k=3) + rng.choices(marks, k=3)))
        made.append("".join(rng.choice(pool if rng.random() < 0.7 else PIECES) for _ in range(rng.randint(2, 6))))
    assert_same_partition(made, 1, "word")
    assert_same_partition(made[:20_000], 2)


@pytest.mark.parametrize(
    ("text", "by_kernel"),
    [
        ("The river had been rising.", True),
        (
            "\u0391\u03b8\u03ae\u03bd\u03b1 \u03a3\u03ac\u03b2\u03b2\u03b1\u03c4\u03bf \u03c4\u03b7\u03c2",
            True,
        ),  # a capital sigma before a letter
        ("\u039f\u0394\u039f\u03a3", False),  # one at the end of a word
        ("\u0e19\u0e49\u0e33\u0e17\u0e35\u0e48", True),  # marks that compose with nothing, in order
        ("\u0928\u092e\u0938\u094d\u0924\u0947", True),
        ("\u09ac\u09be\u0982\u09b2\u09be", True),  # a sign that composes, but not with what is before it
        ("\u09c7\u09be", False),
        ("\ud55c\uad6d\uc5b4 \uff21\ufb01 \u4eca\u5929 \u2764\ufe0f", True),
        ("cafe\u0301", False),
        ("q\u0307\u0323", False),  # marks out of order
    ],
)
def test_ordinary_texts_of_all_scripts_stay_in_the_kernel(text, by_kernel):
    data = np.frombuffer(text.encode(), np.uint8)
    chars, unspaced = survey(data, 0, len(data), folding(), False)
    if by_kernel:
        folded = unicodedata.normalize("NFKC", text).lower()
        assert (chars, unspaced) == (len(folded), len(UNSPACED.findall(folded)))
    else:
        assert (chars, unspaced) == (-1, -1)


def as_text(raw: list[bytes]) -> pa.Array:
    """A string array of any bytes: Arrow does not look at them."""
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(raw), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(raw))])


def test_broken_bytes_count_as_python_replaces_them():
    rng = random.Random(3)
    whole = "\u4eca\u5929 caf\u00e9 \U0001f468 one \ud55c".encode()
    raw = [whole[:k] for k in range(len(whole))] + [whole[k:] for k in range(len(whole))]
    raw += [bytes([a]) for a in range(256)] + [
        b"x" + bytes([a, b]) + b"y" for a in range(0xC0, 256) for b in range(0x70, 0xD0, 3)
    ]
    raw += [b"\xed\xa0\x80 a", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xf8\x88\x80\x80\x80"]
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        raw.append(bytes(damaged))
    assert_same_partition([r.decode("utf-8", "replace") for r in raw], 2, column=as_text(raw))


@pytest.mark.parametrize("ngram", [1, 5, 3000])
@pytest.mark.parametrize(
    "word",
    ["w{}", "\u00e9{}\u0416", "{}" + "long" * 30, "\ufdfa{}", "\u4e00{}\u4e01"],
    ids=["ascii", "beyond", "long", "expanding", "wide"],
)
def test_an_n_gram_has_the_hash_of_the_text_that_it_is(word, ngram):
    """Wherever it lies: texts are read in blocks."""
    units = re.findall(r"\w+", unicodedata.normalize("NFKC", " ".join(word.format(i) for i in range(4000))))
    hashes = shingles(pa.array([" ".join(units)]), ngram, "word")[0]
    assert len(hashes) == len(units) - ngram + 1
    some = sorted({0, len(hashes) - 1, *random.Random(1).choices(range(len(hashes)), k=300)})
    alone = shingles(pa.array([" ".join(units[i : i + ngram]) for i in some]), ngram, "word")
    assert [a.tolist() for a in alone] == [[int(hashes[i])] for i in some]


@pytest.mark.parametrize("blank", ["", " ", "\n", "\u3000"])
def test_long_texts_that_python_folds_are_folded_as_one(blank):
    parts = ["cafe\u0301", "\u039f\u0394\u039f\u03a3", "\u0301x", "\u03a3", "\ufdfa", "a\u0323\u0307", "\u1100\u1161", "caf"]
    rng = random.Random(2)
    text = "".join(rng.choice(parts) + blank * rng.randint(0, 1) for _ in range(600_000))
    assert len(text.encode()) > 2 << 20
    made = folded_bytes(np.frombuffer(text.encode(), np.uint8))
    assert made.tobytes().decode() == unicodedata.normalize("NFKC", text).lower()
    broken = np.frombuffer(text.encode()[: 1 << 20] + b"\xe4\xbb " + text.encode()[1:], np.uint8)
    assert (
        folded_bytes(broken).tobytes().decode()
        == unicodedata.normalize("NFKC", broken.tobytes().decode("utf-8", "replace")).lower()
    )


def test_one_word_of_a_million_letters():
    a, b = "x" * 1_000_000, "x" * 999_999 + "y"
    hashed = shingles(pa.array([a, b, a + " ", "\u0436" * 1_000_000]), 5)
    assert [len(h) for h in hashed] == [1, 1, 1, 1]
    assert len({int(h[0]) for h in hashed}) == 3


@pytest.mark.parametrize("unit", ["word", "char"])
def test_memory_is_bounded_by_the_text(unit):
    cycle = "one two three four \u00e9t\u00e9 "
    text = cycle * 250_000
    size = len(text.encode())
    column = pa.array([text])
    shingle_sets(pa.array(["warm \u00e9"]), 5)
    tracemalloc.start()
    sets = shingle_sets(column, 5, unit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * size
    assert len(sets[0]) == len(set(grams_by_definition(cycle * 20, 5, unit)))


def test_a_text_has_the_same_shingles_in_any_batch():
    batch = ["one two three four five six", "", "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "x" * 5000, None, "a b c d e f g h"]
    together = shingles(pa.array(batch), 5)
    for text, hashes in zip(batch, together, strict=True):
        assert np.array_equal(shingles(pa.array([text], pa.string()), 5)[0], hashes)


def test_no_batch_and_no_text():
    assert shingles(pa.array([], pa.string()), 5) == []
    assert [len(s) for s in shingles(pa.array([None, ""], pa.large_string()), 5)] == [0, 0]


def test_kinds_of_columns_and_slices():
    batch = ["x", None, "one two three four five six", "", "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "cafe\u0301", "y"]
    expected = [h.tolist() for h in shingles(pa.array(batch), 3)]
    assert [h.tolist() for h in shingles(pa.array(batch, pa.large_string()), 3)] == expected
    assert [h.tolist() for h in shingles(pa.array(batch, pa.string_view()), 3)] == expected
    assert [h.tolist() for h in shingles(pa.array(batch)[2:6], 3)] == expected[2:6]
    assert [h.tolist() for h in shingles(pa.array(batch)[1:2], 3)] == [[]]
    assert [len(h) for h in shingles(pa.nulls(2), 3)] == [0, 0]


@given(st.sets(st.integers(0, 60), max_size=60), st.sets(st.integers(0, 60), max_size=60), st.floats(0, 1), st.integers(1, 40))
def test_jaccard_at_least_gives_up_only_below_the_threshold(a, b, threshold, repeat):
    """`repeat` makes long arrays: the loop looks now and then whether to go on."""
    first, second = ({x * repeat + k for x in s for k in range(repeat)} for s in (a, b))
    one, two = (np.array(sorted(s), np.uint64) for s in (first, second))
    exact = len(first & second) / len(first | second) if first and second else 0.0
    assert jaccard(one, two) == exact
    for bound in (threshold, exact, np.nextafter(exact, 2)):
        assert jaccard_at_least(one, two, bound) == (exact if exact >= bound else 0.0)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit is 'byte'; it must be one of auto, word, char"):
        shingles(pa.array(["a"]), 5, "byte")


def test_ngram_counts_from_one():
    with pytest.raises(ValueError, match="ngram is 0"):
        shingles(pa.array(["a"]), 0)

import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dedup.shingles import jaccard, shingle_sets, shingles

UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1100-\u11ff\u3000-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
)


def by_definition(text: str, ngram: int) -> set[tuple[str, ...]]:
    """Shingles as the definition reads, without hashes."""
    text = unicodedata.normalize("NFKC", text).lower()
    units = re.findall(r"\w+", text)
    if len(UNSPACED.findall(text)) > 0.3 * len(text):
        units = list(re.sub(r"[\W_]+", "", text))
    return {tuple(units[i : i + ngram]) for i in range(max(len(units) - ngram + 1, min(len(units), 1)))}


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
        ("今天天气很好", "今天天气很坏", 1 / 3),  # characters where there are no blanks
        ("今天\uff0c天气很好。", "今天天气 很好", 1.0),
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


texts = st.text(alphabet=st.sampled_from("ab cD.\n_é今天气好。かな한 Ⅷﬁ"), max_size=60)


@given(st.lists(texts, max_size=6), st.integers(1, 6))
def test_hashed_shingles_are_those_of_the_definition(batch, ngram):
    hashed = shingle_sets(pa.array(batch, pa.string()), ngram)
    plain = [by_definition(t, ngram) for t in batch]
    assert [len(h) for h in hashed] == [len(p) for p in plain]
    for i, a in enumerate(plain):
        for j, b in enumerate(plain):
            expected = len(a & b) / len(a | b) if a and b else 0.0
            assert jaccard(hashed[i], hashed[j]) == pytest.approx(expected, abs=1e-12)


def test_a_text_has_the_same_shingles_in_any_batch():
    batch = ["one two three four five six", "", "今天天气很好", "x" * 5000, None, "a b c d e f g h"]
    together = shingles(pa.array(batch), 5)
    for text, hashes in zip(batch, together, strict=True):
        assert np.array_equal(shingles(pa.array([text], pa.string()), 5)[0], hashes)


def test_no_batch_and_no_text():
    assert shingles(pa.array([], pa.string()), 5) == []
    assert [len(s) for s in shingles(pa.array([None, ""], pa.large_string()), 5)] == [0, 0]


def test_ngram_counts_from_one():
    with pytest.raises(ValueError, match="ngram is 0"):
        shingles(pa.array(["a"]), 0)

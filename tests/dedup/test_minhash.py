import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from pipelines.dedup.minhash import (
    NO_SHINGLES,
    SCHEMES,
    MinhashConfig,
    _permutations,
    bands,
    estimate,
    has_shingles,
    hit_probability,
    signatures,
    sketch,
)
from pipelines.dedup.shingles import jaccard, shingle_sets, shingle_texts, shingles

CFG = MinhashConfig()
WORDS = [f"word{i}" for i in range(2000)]


def page(seed: int, words: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def pair(seed: int, words: int, changes: int) -> tuple[str, str]:
    """Two texts that differ in `changes` words."""
    first = page(seed, words)
    second = list(first)
    for place in random.Random(seed + 1).sample(range(words), changes):
        second[place] = f"other{place}"
    return " ".join(first), " ".join(second)


TEXTS = [
    " ".join(page(1, 40)),
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed",
    " ".join(page(2, 5000)),
    "too short",
    "e\u0301te\u0301 A\u0323 \u03a3\u03a3 \ufb01",  # Python folds this one
    "again and again and again and again and again and again",
    "",
    "?!",
    None,
]


def least_by_definition(text, cfg: MinhashConfig) -> np.ndarray:
    """The least value of each permutation over all shingles, one by one."""
    factors, terms = _permutations(cfg.bands * cfg.rows, cfg.seed)
    least = [0xFFFFFFFF] * len(factors)
    for h in shingles(pa.array([text], pa.string()), cfg.ngram, cfg.unit)[0].tolist():
        values = [(a * (h & 0xFFFFFFFF) + b) & 0xFFFFFFFF for a, b in zip(factors.tolist(), terms.tolist(), strict=True)]
        least = list(map(min, least, values))
    return np.array(least, np.uint32)


@pytest.mark.parametrize(
    "cfg",
    [
        MinhashConfig(3, 2),
        MinhashConfig(1, 1, ngram=1),
        MinhashConfig(5, 7, ngram=3, seed=9),
        MinhashConfig(2, 3, ngram=2000),  # more than a block of units, and more than most texts have
        MinhashConfig(3, 2, ngram=24, unit="char"),
        MinhashConfig(3, 2, unit="word"),
    ],
)
def test_signatures_are_least_values_over_the_shingles(cfg):
    made = signatures(pa.array(TEXTS), cfg)
    assert made.dtype == np.uint32
    assert made.tolist() == [least_by_definition(text, cfg).tolist() for text in TEXTS]


@pytest.mark.parametrize("scheme", ["datasketch", "datasketch-legacy"])
@pytest.mark.parametrize(
    "cfg", [MinhashConfig(), MinhashConfig(4, 4, ngram=2, seed=42), MinhashConfig(3, 3, ngram=7, unit="char", seed=2**32 - 1)]
)
def test_datasketch_s_signatures_bit_for_bit(cfg, scheme):
    cfg = replace(cfg, scheme=scheme)
    for text, signature in zip(TEXTS, signatures(pa.array(TEXTS), cfg), strict=True):
        plain = MinHash(cfg.bands * cfg.rows, cfg.seed, scheme=SCHEMES[scheme])
        for gram in shingle_texts(text, cfg.ngram, cfg.unit):
            plain.update(gram.encode("utf-8"))
        assert signature.tolist() == plain.hashvalues.tolist()


def test_what_datasketch_is_fed():
    assert shingle_texts("One, TWO \ufb01ve_6 four\nfive six!", 5) == ["one two five_6 four five", "two five_6 four five six"]
    assert shingle_texts("\u4eca\u5929\uff0c\u5929\u6c14", 3) == ["\u4eca\u5929\u5929", "\u5929\u5929\u6c14"]
    assert shingle_texts("a b_c", 3, "char") == ["abc"]
    assert shingle_texts("too short", 5) == ["too short"]
    assert shingle_texts("?!", 5) == shingle_texts(None, 5) == []


GOLD_ENGLISH = [265022364, 276270938, 180665084, 196298664, 752302374, 338625301, 145120491, 186497673]
GOLD_CHINESE = [1790023255, 2325642397, 587741114, 518480595, 1556874004, 1372373623]


def test_values_that_datasketch_1_6_5_gave():
    """MinHash(num_perm, seed) of that version, updated with the word 5-grams, or character 5-grams, of these texts."""
    english = "the river had been rising since the morning and nobody could say how far it would go"
    chinese = "\u4eca\u5929\u5929\u6c14\u5f88\u597d"
    cases = {(english, 8, 1): GOLD_ENGLISH, (chinese, 6, 42): GOLD_CHINESE}
    for (text, values, seed), expected in cases.items():
        cfg = MinhashConfig(values, 1, seed=seed, scheme="datasketch-legacy")
        assert signatures(pa.array([text]), cfg)[0].tolist() == expected


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_texts_have_the_same_signature_in_any_array(scheme):
    cfg = MinhashConfig(scheme=scheme)
    whole = signatures(pa.array(TEXTS), cfg)
    assert np.array_equal(signatures(pa.array(TEXTS, pa.large_string()), cfg), whole)
    assert np.array_equal(signatures(pa.array(["x", None, *TEXTS, "y"])[2:-1], cfg), whole)
    for row, text in enumerate(TEXTS):
        assert np.array_equal(signatures(pa.array([text], pa.string()), cfg)[0], whole[row])
    assert signatures(pa.array([], pa.string()), cfg).shape == (0, 112)
    assert not has_shingles(signatures(pa.nulls(2), cfg)).any()


def test_signatures_estimate_jaccard():
    for changes in (2, 6, 15, 40):
        estimates, exact = [], []
        for seed in range(20):
            texts = pa.array(pair(seed, 300, changes))
            exact.append(jaccard(*shingle_sets(texts, 5)))
            a, b = signatures(texts, CFG)
            estimates.append(float((a == b).mean()))
        # 20 * 112 comparisons: three standard errors of a share are at most .032
        assert np.mean(estimates) == pytest.approx(np.mean(exact), abs=0.032)


def test_pairs_share_a_band_as_the_curve_says():
    for changes, pairs in ((3, 60), (10, 60), (30, 60)):
        hits, predicted = 0, 0.0
        for seed in range(pairs):
            texts = pa.array(pair(1000 + seed, 300, changes))
            predicted += hit_probability(jaccard(*shingle_sets(texts, 5)), CFG)
            a, b = bands(signatures(texts, CFG), CFG)
            hits += bool((a == b).any())
        assert hits == pytest.approx(predicted, abs=3 * np.sqrt(pairs / 4))


@pytest.mark.parametrize(("s", "expected"), [(0.5, 0.053), (0.7, 0.565), (0.75, 0.772), (0.8, 0.924), (0.85, 0.988)])
def test_curve_of_14_bands_of_8(s, expected):
    assert hit_probability(s, CFG) == pytest.approx(expected, abs=6e-4)


def test_band_keys_are_equal_where_the_band_s_values_are():
    cfg = MinhashConfig(bands=3, rows=2)
    one = np.array([[1, 2, 3, 4, 1, 2], [1, 2, 4, 3, 1, 2]], np.uint32)
    keys = bands(one, cfg)
    assert keys.shape == (2, 3)
    assert list(keys[0] == keys[1]) == [True, False, True]
    assert keys[0, 0] != keys[0, 2]  # the same values in another band are another bucket


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_texts_without_shingles_have_the_empty_signature_and_are_told_apart(scheme):
    made = signatures(pa.array(["", None, "...", "word"]), MinhashConfig(scheme=scheme))
    assert list((made == NO_SHINGLES).all(axis=1)) == [True, True, True, False]
    assert list(has_shingles(made)) == [False, False, False, True]


def test_short_texts_meet_only_where_they_are_equal():
    keys = bands(signatures(pa.array(["yes", "Yes!", "no", "yes no", "no yes"]), CFG), CFG)
    met = (keys[:, None] == keys[None]).any(axis=2)
    assert met.tolist() == [[i == j or {i, j} == {0, 1} for j in range(5)] for i in range(5)]


def test_permutations_of_a_greater_setting_begin_with_those_of_a_smaller_one():
    texts = pa.array(TEXTS)
    assert np.array_equal(signatures(texts, MinhashConfig(26, 11))[:, :112], signatures(texts, CFG))


def test_sketches_estimate_jaccard():
    for changes in (2, 6, 15, 40, 300):
        estimates, exact = [], []
        for seed in range(20):
            texts = pa.array(pair(seed, 300, changes))
            exact.append(jaccard(*shingle_sets(texts, 5)))
            made = sketch(signatures(texts, CFG))
            assert made.dtype == np.uint8
            estimates.append(float(estimate(made[:1], made[1:])[0]))
        assert np.mean(estimates) == pytest.approx(np.mean(exact), abs=0.033)  # as above, and the chance of equal bytes


@pytest.mark.parametrize(("equal", "expected"), [(112, 1.0), (56, (0.5 - 1 / 256) / (255 / 256)), (0, 0.0)])
def test_estimate_takes_chance_into_account(equal, expected):
    a = np.arange(112, dtype=np.uint8)[None]
    b = np.where(np.arange(112) < equal, a, a + 1).astype(np.uint8)
    assert estimate(a, b) == pytest.approx([expected])


def test_estimate_errs_as_theory_says():
    """Li and Koenig 2010: the variance is that of a share of equal values, a little more for chance."""
    rng = np.random.default_rng(5)
    words = np.array(WORDS)
    base = rng.permutation(words)[:400]
    texts = [" ".join(base)] + [" ".join([*base[:300], *rng.permutation(words)[:100]]) for _ in range(400)]
    exact = shingle_sets(pa.array(texts), 1)
    true = np.array([jaccard(exact[0], s) for s in exact[1:]])
    made = sketch(np.vstack([signatures(pa.array(texts), MinhashConfig(ngram=1, seed=s)) for s in range(5)]))
    errors = []
    for seed in range(5):
        part = made[seed * 401 : (seed + 1) * 401]
        errors += list(estimate(np.repeat(part[:1], 400, axis=0), part[1:]) - true)
    expected = np.sqrt(np.mean(true * (1 - true)) / 112)
    assert np.std(errors) == pytest.approx(expected, rel=0.25)
    assert np.mean(errors) == pytest.approx(0, abs=expected / 2)


def test_seed_and_size_change_the_signature():
    text = pa.array([" ".join(page(3, 50))])
    assert signatures(text, MinhashConfig(bands=26, rows=11)).shape == (1, 286)
    assert not np.array_equal(signatures(text, CFG), signatures(text, MinhashConfig(seed=2)))


@pytest.mark.parametrize(
    "wrong", [{"bands": 0}, {"rows": 0}, {"ngram": 0}, {"seed": -1}, {"seed": 1 << 32}, {"unit": "byte"}, {"scheme": "sha"}]
)
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MinhashConfig(**wrong)

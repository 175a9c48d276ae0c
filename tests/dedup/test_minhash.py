import random

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash

from pipelines.dedup.minhash import NO_SHINGLES, MinhashConfig, bands, hit_probability, signatures
from pipelines.dedup.shingles import jaccard, shingle_sets, shingles

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


def test_signatures_are_datasketch_s_own():
    texts = pa.array([" ".join(page(1, 40)), "今天天气很好我们去公园", " ".join(page(2, 5000))])
    for signature, hashes in zip(signatures(texts, CFG), shingles(texts, CFG.ngram), strict=True):
        plain = MinHash(CFG.bands * CFG.rows, seed=CFG.seed, scheme="affine32", hashfunc=lambda h: h & 0xFFFFFFFF)
        for value in hashes.tolist():
            plain.update(value)
        assert np.array_equal(signature, plain.hashvalues)


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


def test_texts_without_shingles_have_the_empty_signature():
    sketches = signatures(pa.array(["", None, "...", "word"]), CFG)
    assert list((sketches == NO_SHINGLES).all(axis=1)) == [True, True, True, False]


def test_seed_and_size_change_the_signature():
    text = pa.array([" ".join(page(3, 50))])
    assert signatures(text, MinhashConfig(bands=26, rows=11)).shape == (1, 286)
    assert not np.array_equal(signatures(text, CFG), signatures(text, MinhashConfig(seed=2)))


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"rows": 0}, {"ngram": 0}, {"seed": -1}])
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MinhashConfig(**wrong)

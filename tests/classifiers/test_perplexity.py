"""Perplexity: Kneser-Ney against a second, plain implementation, ARPA files by hand, and buckets."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers import perplexity
from classifiers.errors import DataError, ModelError
from classifiers.perplexity import STEP, Config, Perplexity, fit, load, of_arpa, save, with_reference

TOY = ["a b c a b d", "a b c c", "b c a", "a b a b a c d d c"]
ALL = Config(order=3, min_counts=(1, 1, 1))


def surprise(model: Perplexity, text: str) -> float:
    """-log p of a text."""
    return float(np.log(model.score([text]).astype(np.float64)[0]) * len(text.split()))


def chance(model: Perplexity, context: str, word: str) -> float:
    before = surprise(model, context) if context else 0.0
    return float(np.exp(before - surprise(model, f"{context} {word}")))


def plain(texts: list[str], context: tuple[str, ...], word: str, top: bool = True) -> float:
    """Interpolated Kneser-Ney with fixed discounts, straight from Chen and Goodman's equations; "" begins a text."""
    size = len(context) + 1
    grams: Counter[tuple[str, ...]] = Counter()
    for text in [*texts, "<unk>"]:
        stream = text.split()
        grams.update(tuple(stream[i : i + size]) for i in range(len(stream) - size + 1))
    if not top:  # how many different words are there before
        longer = set()
        for text in [*texts, "<unk>"]:
            stream = ["", *text.split()]
            longer.update(tuple(stream[i : i + size + 1]) for i in range(len(stream) - size))
        grams = Counter(gram[1:] for gram in longer)
    mine = {gram[-1]: n for gram, n in grams.items() if gram[:-1] == context}
    below = plain(texts, context[1:], word, False) if context else 1 / 5
    if not mine:
        return below
    sizes = [sum(n == k for n in grams.values()) for k in (1, 2, 3, 4)]
    base = sizes[0] / (sizes[0] + 2 * sizes[1]) if all(sizes) else 0
    less = [max(0.0, k - (k + 1) * base * sizes[k] / sizes[k - 1]) if all(sizes) else k / 2 for k in (1, 2, 3)]
    total = sum(mine.values())
    left = sum(less[min(n, 3) - 1] for n in mine.values())
    n = mine.get(word, 0)
    return (n - (less[min(n, 3) - 1] if n else 0)) / total + left / total * below


@pytest.mark.parametrize("context", ["a", "a b", "b c", "c a", "d d", "d"])
@pytest.mark.parametrize("word", ["a", "b", "c", "d"])
def test_chances_are_those_of_kneser_ney(context: str, word: str) -> None:
    model = fit(TOY, ALL)
    words = tuple(context.split())
    # a text's first tokens have no longer context, so a bigram is asked for at the end of a trigram model's text
    expected = plain(TOY, words, word, top=len(words) == 2)
    assert np.log(chance(model, context, word)) == pytest.approx(np.log(expected), abs=3 * STEP)


PRUNED = (ALL, Config(min_counts=(1, 1, 2)), Config(order=4, min_counts=(1, 2, 2)), Config(min_counts=(1, 1, 1), limit=6))


@pytest.mark.parametrize("config", PRUNED)
@pytest.mark.parametrize("context", ["", "a", "a b", "c d", "d d c", "unheard", "unheard a"])
def test_chances_add_up_to_one_however_much_is_pruned(config: Config, context: str) -> None:
    model = fit(TOY, config)
    total = sum(chance(model, context, word) for word in ("a", "b", "c", "d", "unheard"))
    assert total == pytest.approx(1, abs=2 * STEP)


def test_text_of_the_language_is_less_surprising() -> None:
    rng = np.random.default_rng(0)
    words = ["the", "river", "was", "quiet", "in", "that", "season", "and", "we", "walked", "along", "its", "banks"]
    texts = [" ".join(words[n % len(words)] for n in range(s, s + 40)) for s in range(60)]
    model = fit(texts[:40], Config("en"))
    shuffled = [" ".join(rng.permutation(t.split())) for t in texts[40:]]
    foreign = ["rivi\u00e8re calme saison " * 10]
    own, mixed, other = (float(np.median(model.score(t))) for t in (texts[40:], shuffled, foreign))
    assert own < min(mixed, other)


ARPA = r"""
\data\
ngram 1=5
ngram 2=2

\1-grams:
-1.0	<unk>
-99	<s>	-0.30103
-0.5	</s>
-0.6	the	-0.2
-0.8	river	-0.1

\2-grams:
-0.1	<s> the
-0.25	the river

\end\
"""


@pytest.mark.parametrize(
    ("text", "logs"),
    [
        ("the river", [-0.1, -0.25, -0.1 - 0.5]),
        ("river the", [-0.30103 - 0.8, -0.1 - 0.6, -0.2 - 0.5]),
        ("quiet", [-0.30103 - 1.0, -0.5]),
        ("the\n\nriver", [-0.1, -0.2 - 0.5, -0.30103 - 0.8, -0.1 - 0.5]),
    ],
)
def test_an_arpa_file_by_hand(text: str, logs: list[float], tmp_path: Path) -> None:
    (tmp_path / "m.arpa").write_text(ARPA)
    model = load(tmp_path / "m.arpa")
    assert len(model.fingerprint) == 64
    assert np.log10(model.score([text])[0]) == pytest.approx(-np.mean(logs), abs=STEP / np.log(10))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("the river", "river"), "line 15 of 'm' is no n-gram of an ARPA file .*it has 1 words in the part of 2"),
        (("-0.6", "x"), "line 10 of 'm' is no n-gram"),
        (("-grams:", ""), "'m' is no ARPA file"),
    ],
)
def test_a_file_that_is_no_arpa(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        of_arpa(ARPA.replace(*change).splitlines(), "m")


def test_buckets_are_percentiles_of_the_reference_and_nothing_has_none() -> None:
    model = fit(TOY, ALL)
    with pytest.raises(ModelError, match="the model has no bounds of head and middle; set them"):
        model.buckets(np.array([1.0]))
    reference = [" ".join(np.random.default_rng(n).choice(list("abcd"), 12)) for n in range(100)]
    model = with_reference(model, reference)
    names, counts = np.unique(model.buckets(model.score(reference)), return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == pytest.approx(
        {"head": 30, "middle": 30, "tail": 40}, abs=2
    )
    scores = model.score(pa.array(["", None, " ", "a b c"]))
    assert model.buckets(scores).tolist()[:3] == ["und"] * 3
    assert np.isnan(scores[:3]).all()


def test_the_same_bytes_and_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    for name in "ab":
        save(with_reference(fit(TOY, ALL), TOY), tmp_path / name)
    assert all(p.read_bytes() == (tmp_path / "b" / p.name).read_bytes() for p in (tmp_path / "a").iterdir())
    model = load(tmp_path / "a")
    assert np.array_equal(model.score(TOY), fit(TOY, ALL).score(TOY))
    assert model.cuts == with_reference(fit(TOY, ALL), TOY).cuts
    assert (model.facts["known"], len(model.fingerprint)) == (4, 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "hashed"}, "kind 'hashed' and format 1; here format 1 of kind perplexity is read"),
        ({"settings": {"order": 9}}, "does not fit together"),
    ],
)
def test_a_folder_of_another_kind(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    save(fit(TOY, ALL), tmp_path)
    header = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(header | fields))
    with pytest.raises(ModelError, match=message):
        load(tmp_path)


def test_too_little_to_learn_from() -> None:
    with pytest.raises(DataError, match="tokens make no model of 'en'; give more texts"):
        fit(["one word each"], Config("en"))
    with pytest.raises(DataError, match="made by KenLM"):
        fit(TOY, Config(blanks=True))
    with pytest.raises(DataError, match="no reference text has a token"):
        with_reference(fit(TOY, ALL), [""])
    with pytest.raises(ValueError, match="order must be 2 to 5"):
        perplexity.Config(order=1)

"""What of a text counts in the hashed kind, and how it is learned."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from classifiers import features, hashed
from classifiers.labelled import Labelled

MEASURES = dict(zip(features.MEASURES, range(len(features.MEASURES)), strict=True))


def tokens(text: str) -> list[int]:
    data, offsets, _ = features.buffers([text])
    room = np.zeros(len(data) + 1, np.uint64)
    return room[: features.tokenise(data, 0, int(offsets[1]), *features.alphabet(), room, np.zeros(10))].tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The River", "the river"),
        ("in 1984", "in 2024"),
        ("\u0420\u0435\u043a\u0430", "\u0440\u0435\u043a\u0430"),
        ("wait!!!", "wait!"),
        ("soft\u00adware", "software"),
        ("two  words", "two\nwords"),
    ],
)
def test_what_is_the_same(one: str, other: str) -> None:
    assert tokens(one) == tokens(other)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("one two", 2),
        ("one, two.", 4),
        ("\u4f60\u597d\u4e16\u754c", 4),
        ("\u4f60\u597d world\u3002", 4),
        ("caf\u00e9 cafe\u0301", 2),
        ("\U0001f600 \U0001f601 ok", 3),
        (" \n ", 0),
    ],
)
def test_how_many_tokens(text: str, count: int) -> None:
    assert len(tokens(text)) == count


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_text_may_be_cut_within_a_letter(cut: int) -> None:
    data = np.frombuffer("\u00e9 \u4f60\U0001f600".encode(), np.uint8)
    room = np.zeros(20, np.uint64)
    assert 1 <= features.tokenise(data, 0, cut, *features.alphabet(), room, np.zeros(10)) <= 4


def measured(text: str, **settings: object) -> tuple[int, np.ndarray]:
    rows, _, measures = hashed._rows(pa.array([text]), hashed.Config(**settings))  # type: ignore[arg-type]
    return len(rows), measures[0]


@pytest.mark.parametrize(
    ("text", "settings", "rows"),
    [
        ("a b c", {"words": 1}, 3),
        ("a b c", {"words": 2}, 5),
        ("a b c", {"words": 3}, 6),
        ("a a a a", {"words": 2}, 2),
        ("ab", {"words": 1, "letters": (2, 3)}, 1 + 3 + 2),
        ("ab cd", {"words": 1, "max_bytes": 2}, 1),
    ],
)
def test_rows_are_the_distinct_n_grams(text: str, settings: dict[str, object], rows: int) -> None:
    assert measured(text, **settings)[0] == rows


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("abcd ab", "word length", 3 / 16),
        ("ABcd", "capitals", 0.5),
        ("ab12", "digits", 0.5),
        ("ab--", "signs", 0.5),
        ("\u4f60\u597dab", "solid letters", 0.5),
        ("It ends.\nNo end\n\n\u597d\u3002\n", "lines that end a sentence", 2 / 3),
        ("one two three four five six\nshort", "short lines", 0.5),
        ("abc\nabcde\n", "line length", np.log2(5) / 12),
        ("a b a b", "new pairs", 2 / 3),
        ("a b a b", "new tokens", 2 / 2 / 32),
    ],
)
def test_measures_by_hand(text: str, name: str, value: float) -> None:
    assert measured(text)[1][MEASURES[name]] == pytest.approx(value)


def test_features_are_those_that_the_shipped_models_learned_from() -> None:
    """Whoever changes a token, a hash or a measure makes every model again, and raises `folder.FORMAT`."""
    text = "The 3 rivers, in \u4e2d\u56fd: (1984) -- caf\u00e9!\nShort line\n\u0420\u0435\u043a\u0430."
    rows, _, measures = hashed._rows(pa.array([text]), hashed.Config(words=2, letters=(2, 4), bits=20))
    assert (
        hashlib.sha256(rows.astype("<i4").tobytes() + measures.round(9).astype("<f8").tobytes()).hexdigest()[:16]
        == "d02d9714b53d616f"
    )


def test_more_than_two_labels_and_their_weights() -> None:
    texts = pa.array([f"{word} {n % 7}x" for word in ("red", "green", "blue") for n in range(30)])
    labels = np.repeat([0, 1, 2], 30)
    names = ("r", "g", "b")
    model = hashed.fit(texts, labels, names, np.ones(3), hashed.Config(bits=10), 0)
    assert (hashed.logits(model, texts).argmax(1) == labels).all()
    unlike = hashed.fit(texts, labels, names, np.array([1.0, 1.0, 50.0]), hashed.Config(bits=10), 0)
    common = pa.array(["4x"])
    assert hashed.logits(unlike, common)[0, 2] > hashed.logits(model, common)[0, 2]


def test_a_measure_alone_can_tell_labels_apart() -> None:
    """Capitals are folded in every n-gram; only the measure sees them."""
    texts = pa.array([t for n in range(40) for t in (f"some words {n}", f"SOME WORDS {n}")])
    labels = np.arange(80) % 2
    right = {}
    for on in (True, False):
        model = hashed.fit(texts, labels, ("a", "b"), np.ones(2), hashed.Config(bits=10, measures=on), 0)
        right[on] = (hashed.logits(model, texts).argmax(1) == labels).mean()
    assert right == {True: 1.0, False: pytest.approx(0.5, abs=0.1)}


def test_the_stored_weights_are_what_is_scored(data: Labelled) -> None:
    model = hashed.fit(data.texts, data.numbers, data.labels, np.ones(2), hashed.Config(bits=12), 0)
    assert model.table.dtype == np.int8
    again = hashed.from_bytes(hashed.to_bytes(model), model.config, 2)
    assert np.array_equal(hashed.logits(again, data.texts), hashed.logits(model, data.texts))


@pytest.mark.parametrize("given", [{"words": 0}, {"bits": 30}, {"letters": (4, 2)}, {"max_bytes": 0}])
def test_settings_that_are_none(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="words must be 1 to 5, bits 8 to 26"):
        hashed.Config(**given)  # type: ignore[arg-type]

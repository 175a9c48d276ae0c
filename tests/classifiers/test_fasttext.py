"""The fastText kind beside the fastText library: the same rows, the same probabilities, the same files."""

from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import fasttext_file, fasttext_model, words
from classifiers.errors import ModelError
from classifiers.fasttext_file import File, Settings
from classifiers.labelled import Labelled
from classifiers.language import bundled_model
from classifiers.model import load, save

ODD = (
    "the river was quiet",
    "THE River",
    "one\ntext of\r\nthree\tlines",
    "x\0y and z",
    "a </s> b c",
    "before __label__good after",
    "\u4f60\u597d\uff0c\u4e16\u754c stra\u00dfe \U0001f600",
    "quiet " * 300,
)


def of_the_library(path: Path, text: str) -> dict[str, float]:
    """Probabilities by label; the library adds 1e-5 to each."""
    found = fasttext.load_model(str(path)).f.predict(text.replace("\n", " ") + "\n", 1000, 0.0, "strict")
    return {label.removeprefix("__label__"): p - 1e-5 for p, label in found}


def made(loss: str, letters: tuple[int, int], classes: int = 5) -> File:
    """A model of random numbers."""
    rng = np.random.default_rng(7)
    known = tuple(w.encode() for w in ("</s>", "river", "the", "quiet", "x", "\u4e16\u754c", "of"))
    nodes = classes
    return File(
        Settings(6, 5, 1, 3, loss, 50, *letters),
        known,
        np.arange(len(known), 0, -1),
        tuple(f"l{n}".encode() for n in range(classes)),
        np.arange(classes, 0, -1) ** 2,
        100,
        np.zeros(0, np.int32),
        rng.normal(0, 1, (len(known) + 50, 6)).astype(np.float32),
        rng.normal(0, 1, (nodes, 6)).astype(np.float32),
    )


@pytest.mark.parametrize("letters", [(0, 0), (1, 3), (3, 6)])
@pytest.mark.parametrize(("loss", "within"), [("softmax", 1e-5), ("hs", 1e-4), ("ova", 0.008)])
def test_probabilities_are_those_of_the_library(loss: str, within: float, letters: tuple[int, int], tmp_path: Path) -> None:
    """The library adds 1e-5 at each node of a tree, and looks a sigmoid up in steps of 1/32."""
    path = tmp_path / "m.bin"
    path.write_bytes(fasttext_file.write(made(loss, letters)))
    model = load(path)
    scores = model.scores(pa.array(ODD))
    for text, row in zip(ODD, scores, strict=True):
        theirs = of_the_library(path, text)
        assert dict(zip(model.labels, row.tolist(), strict=True)) == pytest.approx(
            {n: theirs.get(n, 0.0) for n in model.labels}, abs=within
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path = tmp_path_factory.mktemp("fasttext") / "m.bin"
    path.write_bytes(fasttext_file.write(made("softmax", (1, 3))))
    return load(path), fasttext.load_model(str(path)).f


@settings(deadline=None)  # the first example compiles
@given(st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \t</s>ab")), max_size=60))
def test_any_text_has_the_same_rows(both: tuple[Any, Any], text: str) -> None:
    ours, theirs = both
    found = {label: p - 1e-5 for p, label in theirs.predict(text.replace("\n", " ") + "\n", 9, 0.0, "strict")}
    scores = ours.scores(pa.array([text]))[0]
    if not np.isnan(scores[0]):  # the library scores the end of line of an empty text
        assert scores == pytest.approx([found.get(f"__label__{label}", 0.0) for label in ours.labels], abs=1e-5)


def test_a_published_model_quantised_and_pruned() -> None:
    """lid.176.ftz: product quantisation, pruned rows, letter n-grams, hierarchical softmax."""
    path = bundled_model()
    model = load(path)
    scores = model.scores(pa.array(ODD))
    for text, row in zip(ODD, scores, strict=True):
        theirs = of_the_library(path, text)
        assert max(abs(p - theirs.get(label, 0.0)) for label, p in zip(model.labels, row.tolist(), strict=True)) < 2e-4
    assert model.labels_of(scores)[0] == "en"
    assert model.languages == frozenset()


def test_the_library_opens_what_we_learned(data: Labelled, tmp_path: Path) -> None:
    config = fasttext_model.Config(dim=5, buckets=300, letters=(2, 3))
    model = fasttext_model.fit(data.texts, data.numbers, data.labels, np.ones(2), config, 0)
    path = tmp_path / "m.bin"
    path.write_bytes(fasttext_model.to_bytes(model))
    again = load(path)
    assert again.labels == data.labels
    assert np.array_equal(again.logits(data.texts[:50]), fasttext_model.logits(model, data.texts[:50]))
    for text, row in zip(data.texts[:20].to_pylist(), again.scores(data.texts[:20]), strict=True):
        assert dict(zip(data.labels, row.tolist(), strict=True)) == pytest.approx(of_the_library(path, text), abs=1e-5)
    with pytest.raises(ModelError, match="a model that was read from a fastText file is that file; copy it instead"):
        save(again, tmp_path / "copy")


def test_a_step_of_the_descent_by_hand() -> None:
    """One text of one word (and the end of line), one epoch: outputs move by rate * (target - chance) * hidden."""
    config = fasttext_model.Config(dim=2, words=1, min_count=1, epochs=1, rate=0.5)
    model = fasttext_model.fit(pa.array(["word"]), np.array([1]), ("a", "b"), np.array([1.0, 2.0]), config, 3)
    file = fasttext_file.read(np.frombuffer(model.binary, np.uint8), "m")
    assert file.words == (b"</s>", b"word")
    rng = np.random.default_rng(3)
    inputs = rng.uniform(-0.5, 0.5, (2, 2)).astype(np.float32)
    hidden = inputs.mean(0)
    step = 0.5 * 2.0 * 0.5  # rate, weight of the label, 1 - chance
    assert file.outputs == pytest.approx(np.stack([-step * hidden, step * hidden]), abs=1e-6)
    assert file.inputs == pytest.approx(inputs)  # outputs were 0


def test_written_and_read_again() -> None:
    file = made("softmax", (2, 4))
    again = fasttext_file.read(np.frombuffer(fasttext_file.write(file), np.uint8), "m")
    assert (again.settings, again.words, again.labels, again.tokens) == (file.settings, file.words, file.labels, file.tokens)
    for name in ("word_counts", "label_counts", "moved", "inputs", "outputs"):
        assert np.array_equal(getattr(again, name), getattr(file, name))


@pytest.mark.parametrize("share", [0.0, 0.003, 0.02, 0.05, 0.1, 0.15, 0.3, 0.6, 0.95, 0.999])
def test_a_file_that_ends_early_is_named(share: float, tmp_path: Path) -> None:
    whole = fasttext_file.write(made("softmax", (0, 0)))
    path = tmp_path / "cut.bin"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ModelError, match=r"cut\.bin' is (no fastText model; give one|damaged or no classifier .*; fetch it again)"
    ):
        load(path)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"\0\0\0\0", "is no fastText model; give one"),
        (4, b"\x0d\0\0\0", "is a fastText model of version 13; this program reads 11 and 12"),
        (36, b"\x01\0\0\0", "it is of kind 1 with loss 3; classifiers are of kind 3"),
        (32, b"\x02\0\0\0", "it is of kind 3 with loss 2"),
        (8, b"\xff\xff\xff\x7f", "dim is 2147483647"),
        (72, b"\xff\xff\xff\x7f", "entries are"),
    ],
)
def test_a_file_of_another_kind(offset: int, value: bytes, message: str, tmp_path: Path) -> None:
    whole = bytearray(fasttext_file.write(made("softmax", (0, 0))))
    whole[offset : offset + 4] = value
    (tmp_path / "m.bin").write_bytes(bytes(whole))
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "m.bin")


def test_words_are_found_whatever_their_hash() -> None:
    known = [str(n).encode() for n in range(2000)]
    found = words.dictionary(known, 0, np.zeros(0, np.int32), 1, 0, 0)
    assert [found.find(w) for w in known] == list(range(2000))
    assert found.find(b"2000") == found.find(b"") == -1


@pytest.mark.parametrize("given", [{"dim": 0}, {"words": 9}, {"letters": (3, 2)}, {"buckets": -1}])
def test_settings_that_are_none(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="dim must be 1 to 1024, words 1 to 8"):
        fasttext_model.Config(**given)

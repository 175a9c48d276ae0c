"""The letter model: its file, what makes it, and its values."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from classifiers.distil import in_latin, with_edges
from classifiers.language import as_buffers
from classifiers.ngrams import MODEL, PLACES, STEP, load, read


def rewritten(tmp_path: Path, **changed: np.ndarray | None) -> Path:
    """The model with some arrays changed or (None) left out."""
    with np.load(MODEL) as file:
        arrays = {name: file[name] for name in file.files} | changed
    path = tmp_path / "model.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
    return path


def test_what_it_knows() -> None:
    model = load()
    assert len(model.langs) == 63
    assert {"zu", "xh", "nb", "nn", "hr", "bs"} <= set(model.langs)
    assert model.langs.count("sr") == 2  # in Cyrillic and in Latin letters
    assert MODEL.stat().st_size < 8_000_000
    assert load() is model


def test_the_file_may_be_written_anew(tmp_path: Path) -> None:
    again = load(rewritten(tmp_path))
    assert again.langs == load().langs
    assert (again.slots == load().slots).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": np.array([9])}, r"has format \[9\], this program reads \[1\]; make it again"),
        ({"format": None}, r"has format \[0\]"),
        ({"langs3": None}, "damaged"),
        ({"values5": np.zeros(5, np.uint8)}, "the arrays of sequences of 5 do not fit together"),
        ({"grams2": np.full((2, 3), 7, np.uint16)}, "the arrays of sequences of 2 do not fit together"),
        ({"langs": np.array(["en"]), "scripts": np.array(["Latn"])}, "name letters or languages that are not there"),
        ({"scripts": np.array(["Nope"] * 63)}, "damaged"),
        ({"langs": np.array(["en", {}], dtype=object)}, "damaged"),
    ],
    ids=["newer", "no format", "no array", "short array", "other shape", "fewer languages", "unknown script", "pickle"],
)
def test_a_file_that_does_not_fit(tmp_path: Path, changed: dict[str, np.ndarray | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(rewritten(tmp_path, **changed))


@pytest.mark.parametrize("damage", ["cut", "bytes", "text"])
def test_a_damaged_file(tmp_path: Path, damage: str) -> None:
    whole = MODEL.read_bytes()
    path = tmp_path / "model.npz"
    middle = len(whole) // 2
    path.write_bytes(
        {"cut": whole[:middle], "bytes": whole[:middle] + b"\0" * 64 + whole[middle + 64 :], "text": b"hello"}[damage]
    )
    with pytest.raises(ValueError, match="is damaged or no letter model"):
        load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.npz")


def test_values_are_those_of_the_words() -> None:
    model = load()
    words = "the quick brown fox and the rest"
    facts, sums = read(model, *as_buffers([words]))
    _, apart = read(model, *as_buffers(words.split()))
    joined = Counter(dict(zip(model.langs, apart.sum(0).tolist(), strict=True)))
    single = dict(zip(model.langs, sums[0].tolist(), strict=True))
    assert facts[0, PLACES] == sum(len(word) + 1 for word in words.split())
    # a single word is joined to nothing: each has its own edges, so the sums are the same
    assert {lang: single[lang] for lang in ("en", "de", "zu")} == {lang: joined[lang] for lang in ("en", "de", "zu")}
    assert max(single, key=single.__getitem__) == "en"
    assert 0 < single["en"] * STEP / facts[0, PLACES] - 9 < 6


def test_edges_come_from_counts() -> None:
    # "the the a": letters, and what follows what
    counts = [Counter(t=2, h=2, e=2, a=1), Counter(th=2, he=2), Counter(the=2), Counter(), Counter()]
    full = with_edges([dict(c) for c in counts])
    assert full[0][" "] == 3  # words
    assert full[1] == {"th": 2, "he": 2, " t": 2, "e ": 2, " a": 1, "a ": 1}
    assert full[2] == {"the": 2, " th": 2, "he ": 2, " a ": 1}
    assert full[3] == {" the": 2, "the ": 2}
    assert full[4] == {" the ": 2}


def test_serbian_in_latin_letters() -> None:
    # one word of the letters nje (two in Latin) and e
    cyrillic = [Counter({"\u045a": 1, "\u0435": 1, " ": 1}), Counter({" \u045a": 1, "\u045a\u0435": 1, "\u0435 ": 1})]
    latin = in_latin([*cyrillic, Counter(), Counter(), Counter()])
    assert latin[0] == {"n": 1, "j": 1, "e": 1, " ": 1}
    assert latin[1] == {" n": 1, "nj": 1, "je": 1, "e ": 1}

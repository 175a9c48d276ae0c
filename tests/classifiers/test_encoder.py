"""The encoder: it learns, its scores do not depend on the batch, and its file is data."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from classifiers import encoder
from classifiers.errors import DataError, ModelError
from classifiers.evaluation import evaluate
from classifiers.fit import FitConfig, fit
from classifiers.labelled import Labelled, labelled
from classifiers.model import Model, load, save

SMALL = encoder.Config(dim=16, layers=1, heads=2, length=16, bits=10, epochs=12, batch=16, rate=5e-3, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of a model this small wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def learned(data: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = fit(data, FitConfig(SMALL, label="good", validation=0.3, test=0.3))
    folder = tmp_path_factory.mktemp("encoder")
    save(made, folder)
    assert np.allclose(load(folder).scores(data.texts), made.scores(data.texts))
    return load(folder)


def test_it_learns(learned: Model, parts: tuple[Labelled, Labelled, Labelled]) -> None:
    assert evaluate(learned, parts[2]).auc.value > 0.85


def test_a_score_does_not_depend_on_its_neighbours_and_an_empty_text_has_none(learned: Model, data: Labelled) -> None:
    whole = learned.scores(data.texts)
    alone = np.concatenate([learned.scores(data.texts[n : n + 1]) for n in range(20)])
    assert np.array_equal(alone, whole[:20])
    assert np.isnan(learned.scores(pa.array(["", None, " "]))).all()


def test_the_same_again(data: Labelled) -> None:
    brief = replace(SMALL, epochs=1)
    one, other = (encoder.fit(data.texts, data.numbers, data.labels, np.ones(2), brief, 3) for _ in range(2))
    assert encoder.to_bytes(one) == encoder.to_bytes(other)


def test_grades_are_learned_as_a_scale() -> None:
    """Three grades by how many of ten words are good: their order is learned, and probabilities of it."""
    rng = np.random.default_rng(0)
    goods = [rng.integers(0, 11) for _ in range(300)]
    texts = [" ".join(["river"] * g + ["offer"] * (10 - g) + [f"w{n}"]) for n, g in enumerate(goods)]
    data = labelled(texts, [str(min(g // 4, 2)) for g in goods])
    model = fit(data, FitConfig(SMALL, validation=0.2, test=0.2))
    scores = model.scores(data.texts)
    assert model.labels == ("0", "1", "2")
    assert scores.sum(1) == pytest.approx(np.ones(len(scores)), abs=1e-5)
    assert (scores.argmax(1) == data.numbers).mean() > 0.8
    assert model.grade(data.texts) == pytest.approx(scores @ [0.0, 1.0, 2.0])


def test_names_are_no_scale() -> None:
    data = labelled([f"a {n}" for n in range(90)], [("x", "y", "z")[n % 3] for n in range(90)])
    with pytest.raises(DataError, match="the labels x, y, z are no scale; give whole numbers, or --set regression=false"):
        fit(data, FitConfig(SMALL, validation=0.3, test=0.3))


def test_a_payload_of_another_shape(learned: Model, tmp_path: Path) -> None:
    save(learned, tmp_path)
    header = (tmp_path / "model.json").read_text().replace('"dim": 16', '"dim": 32')
    (tmp_path / "model.json").write_text(header)
    with pytest.raises(ModelError, match="does not fit together") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)

"""The contract: texts to probabilities, from a folder or file that is data and nothing else."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifiers import fasttext_model, hashed
from classifiers.errors import ModelError
from classifiers.fit import FitConfig, fit
from classifiers.labelled import Labelled
from classifiers.model import Model, load, save, shipped

TEXTS = ["the river was quiet", "buy cheap now", "", None, " \n\t", "evening fields deal"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_scores_are_probabilities_and_an_empty_text_has_none(model: Model, kind: pa.DataType) -> None:
    scores = model.scores(pa.array(TEXTS, kind))
    assert (scores.shape, scores.dtype) == ((6, 2), np.float32)
    there = [0, 1, 5]
    assert scores[there].sum(1) == pytest.approx(np.ones(3))
    assert np.isnan(scores[[2, 3, 4]]).all()
    assert model.labels_of(scores)[:5] == ["good", "bad", "und", "und", "und"]
    assert np.array_equal(model.score(pa.array(TEXTS, kind)), scores[:, 1], equal_nan=True)


def test_a_slice_a_chunked_array_and_no_text_at_all(model: Model) -> None:
    whole = pa.array(TEXTS)
    scores = model.scores(whole)
    assert np.array_equal(model.scores(whole[1:4]), scores[1:4], equal_nan=True)
    assert np.array_equal(model.scores(pa.chunked_array([whole[:2], whole[2:]])), scores, equal_nan=True)
    assert model.scores(pa.array([], pa.string())).shape == (0, 2)
    with pytest.raises(TypeError, match="texts are int64; they must be string or large_string"):
        model.scores(pa.array([1]))


def test_a_score_does_not_depend_on_its_neighbours(model: Model, data: Labelled) -> None:
    whole = model.scores(data.texts)
    assert all((model.scores(data.texts[n : n + 1]) == whole[n]).all() for n in range(0, len(whole), 17))


def test_what_is_read_is_what_was_written(model: Model, tmp_path: Path) -> None:
    assert save(model, tmp_path).fingerprint == model.fingerprint
    again = load(tmp_path)
    assert again.fingerprint == model.fingerprint
    assert (again.labels, again.calibration, again.facts) == (model.labels, model.calibration, model.facts)
    assert np.array_equal(again.scores(TEXTS), model.scores(TEXTS), equal_nan=True)


def test_another_model_in_the_same_folder_is_what_is_read(model: Model, tmp_path: Path) -> None:
    save(model, tmp_path)
    assert load(tmp_path).threshold == model.threshold
    save(replace(model, facts={**model.facts, "threshold": {"label": "good", "value": 0.25, "by": "hand"}}), tmp_path)
    assert load(tmp_path).threshold == 0.25


@pytest.mark.parametrize(
    "kind", [hashed.Config(bits=10, letters=(2, 3)), fasttext_model.Config(dim=3, buckets=500, letters=(2, 3))]
)
def test_the_same_data_in_another_order_give_the_same_bytes(kind: Any, data: Labelled, tmp_path: Path) -> None:
    turned = data.take(np.random.default_rng(0).permutation(len(data.sites)))
    config = FitConfig(kind, share=0.4, validation=0.3, test=0.3)
    for name, given in (("a", data), ("b", turned)):
        save(fit(given, config), tmp_path / name, "card")
    assert [p.name for p in sorted((tmp_path / "a").iterdir())] == [p.name for p in sorted((tmp_path / "b").iterdir())]
    assert all(p.read_bytes() == (tmp_path / "b" / p.name).read_bytes() for p in (tmp_path / "a").iterdir())


def test_a_label_that_it_does_not_have(model: Model) -> None:
    with pytest.raises(ModelError, match="the model has no label 'ugly'; it has bad, good"):
        model.score(TEXTS, "ugly")


def test_names_are_no_grades(model: Model) -> None:
    with pytest.raises(ModelError, match="the labels bad, good are no grades"):
        model.grade(TEXTS)


@pytest.mark.slow
def test_a_shipped_model_is_read_out_of_a_zipped_package(tmp_path: Path) -> None:
    """As Spark ships a wheel to its workers."""
    root = Path(__file__).parents[2]
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as packed:
        for path in sorted((root / "classifiers").rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                packed.write(path, path.relative_to(root))
    code = "from classifiers import model; print(model.__file__, *model.load('quality').labels)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path / "package.zip")},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(str(tmp_path / "package.zip"))
    assert done.stdout.split()[1:] == list(load("quality").labels)


def changed(**fields: Any) -> Callable[[Path], None]:
    """Other values in the header."""

    def change(folder: Path) -> None:
        header = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(header | fields))

    return change


def payload(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Another payload, which the header agrees with."""

    def change(folder: Path) -> None:
        header = json.loads((folder / "model.json").read_text())
        path = folder / header["payload"]["file"]
        path.write_bytes(make(path.read_bytes()))
        header["payload"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "model.json").write_text(json.dumps(header))

    return change


def _flip(folder: Path) -> None:
    path = next(p for p in folder.iterdir() if p.name != "model.json")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _without_payload(folder: Path) -> None:
    next(p for p in folder.iterdir() if p.name != "model.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed(format=2), r"is a model of kind '\w+' and format 2; here format 1 of kind fasttext, hashed, encoder is read"),
        (changed(kind="perplexity"), "is a model of kind 'perplexity'"),
        (changed(kind=[]), "is a model of kind"),
        (lambda folder: (folder / "model.json").unlink(), "is no model: it has no model.json; give the folder"),
        (lambda folder: (folder / "model.json").write_text("{"), r"model\.json in .* is damaged .* make the model again"),
        (lambda folder: (folder / "model.json").write_text("[]"), r"model\.json in .* is damaged"),
        (_without_payload, r"is no model: it has no model\.(npz|bin)"),
        (_flip, r"model\.(npz|bin) in .* is damaged: its SHA-256 is \w{12}, its header says \w{12}; fetch it again"),
        (changed(labels=["one"]), "does not fit together .*labels are .*two or more"),
        (changed(labels=["a", "b", "c"]), "does not fit together"),
        (changed(settings={"words": 99}), "does not fit together"),
        (changed(settings={"other": 1}), "does not fit together"),
        (changed(calibration={"link": "exec", "scale": 1, "bias": []}), "does not fit together"),
        (payload(lambda _: b""), "damaged|does not fit together|no fastText model"),
        (payload(lambda whole: whole[:-9]), "damaged|does not fit together"),
    ],
)
def test_a_folder_that_is_no_model(model: Model, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    save(model, tmp_path / "m")
    damage(tmp_path / "m")
    with pytest.raises(ModelError, match=message) as error:
        load(tmp_path / "m")
    assert "\n" not in str(error.value)


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('code of a model file was run')",))


def test_a_payload_with_objects_is_refused_and_nothing_runs(data: Labelled, tmp_path: Path) -> None:
    made = fit(data, FitConfig(hashed.Config(bits=10), validation=0.3, test=0.3))
    save(made, tmp_path)

    def bomb(whole: bytes) -> bytes:
        with np.load(io.BytesIO(whole)) as file:
            arrays = {name: file[name] for name in file.files}
        out = io.BytesIO()
        np.savez(out, **arrays | {"table": np.array([Bomb()], dtype=object)})
        return out.getvalue()

    payload(bomb)(tmp_path)
    with pytest.raises(ModelError, match="Object arrays cannot be loaded"):
        load(tmp_path)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="there is no model 'nowhere'; give the path of one, or a shipped name"):
        load("nowhere")


def test_a_folder_of_something_else_does_not_hide_a_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path)
    load.cache_clear()
    assert load("code").fingerprint == load(files("classifiers") / "models" / "code").fingerprint


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_load_by_name_and_hold_their_card(name: str, tmp_path: Path) -> None:
    from importlib.resources import files

    source = files("classifiers") / "models" / name
    if json.loads((source / "model.json").read_text())["kind"] == "perplexity":
        return
    model = load(name)
    assert model.threshold is not None
    assert (source / "card.md").is_file()
    shutil.copytree(str(source), tmp_path / "m")
    assert load(tmp_path / "m").fingerprint == model.fingerprint

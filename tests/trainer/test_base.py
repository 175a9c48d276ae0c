"""A run that begins with the weights of another, or of a folder in the format of Hugging Face."""

import json
import shutil
from pathlib import Path

import pytest

from trainer import train
from trainer.checkpoint import committed
from trainer.convert import export_run
from trainer.log import read


def _run(recipe: str, shards: Path, out: Path, base: Path, *more: str) -> int:
    settings = [f"run.init_from={base}", "run.prompts=[]", "run.probe_every=null", *more]
    words = [word for setting in settings for word in ("--set", setting)]
    return train.main([recipe, "--data", str(shards), "--out", str(out), "--steps", "4", *words])


def _losses(run: Path) -> list[float]:
    return [line["loss"] for line in read(run / "metrics.jsonl") if "loss" in line]


@pytest.fixture(scope="module")
def begun(whole_run: Path, recipe: str, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps from the weights of the whole run; the base is gone afterwards."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(whole_run, folder / "base")
    assert _run(recipe, shards, folder / "run", folder / "base") == 0
    (folder / "base").rename(folder / "elsewhere")
    return folder


def test_it_goes_on_learning_from_what_the_base_knew(begun: Path, whole_run: Path) -> None:
    assert _losses(whole_run)[0] - _losses(begun / "run")[0] > 1.0
    values = json.loads((begun / "run" / "config.json").read_text())
    assert len(values["task"]["init_from"]) == 16
    assert values["identity"]["config"] != json.loads((whole_run / "config.json").read_text())["identity"]["config"]


def test_once_begun_it_does_not_need_the_base(
    begun: Path, recipe: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(recipe, shards, begun / "run", begun / "base") == 0
    assert "is complete: 4 of 20 steps" in capsys.readouterr().out
    shutil.rmtree(committed(begun / "run" / "checkpoints")[-1])
    assert _run(recipe, shards, begun / "run", begun / "base") == 1  # without a checkpoint it would begin anew
    assert "holds no config.json to begin with" in capsys.readouterr().err


def test_a_folder_of_hugging_face_is_the_same_base(
    begun: Path, whole_run: Path, recipe: str, shards: Path, tmp_path: Path
) -> None:
    export_run(whole_run, tmp_path / "llama")
    assert _run(recipe, shards, tmp_path / "run", tmp_path / "llama", "model.rope_base=500000") == 0
    assert _losses(tmp_path / "run") == pytest.approx(_losses(begun / "run"), rel=1e-6)


def test_a_longer_context_may_turn_more_slowly_and_says_so(
    whole_run: Path, recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(recipe, shards, tmp_path / "run", whole_run, "model.rope_base=8e6") == 0
    told = f"begins with the weights of {whole_run}, step 20; rope_base 500000.0 is now 8000000.0"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message", "theirs"),
    [
        ("model.layers=3", "has layers 2, this recipe 3", "model.layers=2"),
        ("model.feed_forward=128", "has feed_forward 64, this recipe 128", "model.feed_forward=64"),
    ],
)
def test_another_shape_is_refused(
    setting: str,
    message: str,
    theirs: str,
    whole_run: Path,
    recipe: str,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(recipe, shards, tmp_path / "run", whole_run, setting) == 1
    assert capsys.readouterr().err == f"error: {whole_run} {message}; --set {theirs}, or another base\n"
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_refused(
    whole_run: Path, recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole_run, tmp_path / "base")
    with (tmp_path / "base" / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert _run(recipe, shards, tmp_path / "run", tmp_path / "base") == 1
    assert "the shards were made with" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_model_is_refused(
    recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(recipe, shards, tmp_path / "run", tmp_path) == 1
    assert f"error: {tmp_path} holds no config.json to begin with; give the --out of a" in capsys.readouterr().err

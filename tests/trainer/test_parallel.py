"""Layouts compute the same: replicas, offloaded weights, and Adafactor's state on another number of ranks."""

from pathlib import Path
from typing import Any

import pytest

from trainer import train as trainer_train
from trainer.checkpoint import committed, read_commit
from trainer.log import read


def _steps(run: Path) -> dict[int, tuple[float, float]]:
    return {line["step"]: (line["loss"], line["grad_norm"]) for line in read(run / "metrics.jsonl") if "loss" in line}


def _set(*settings: str) -> list[str]:
    return [word for setting in ("run.prompts=[]", *settings) for word in ("--set", setting)]


def test_replicas_learn_what_shards_learn(whole_run: Path, train: Any, tmp_path: Path) -> None:
    done = train.run(tmp_path, "--steps", "8", *_set("parallel.replicas=2", "parallel.micro_batch=2"), ranks=2)
    assert done.returncode == 0, done.stderr
    expected = _steps(whole_run)
    for step, values in _steps(tmp_path).items():
        assert values == pytest.approx(expected[step], rel=1e-4), step
    assert read_commit(committed(tmp_path / "checkpoints")[-1]).step == 8


def test_offloaded_weights_learn_the_same(whole_run: Path, recipe: str, shards: Path, tmp_path: Path) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), "--steps", "8"]
    assert trainer_train.main([*words, *_set("parallel.offload=true")]) == 0
    expected = _steps(whole_run)
    for step, values in _steps(tmp_path / "run").items():
        assert values == pytest.approx(expected[step], rel=1e-5), step


def test_adafactor_goes_on_with_another_number_of_ranks(recipe: str, shards: Path, train: Any, tmp_path: Path) -> None:
    settings = _set("optimizer.kind=adafactor", "learning_rate.peak=0.05")
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = [recipe, "--data", str(shards), *settings]
    assert trainer_train.main([*words, "--out", str(whole)]) == 0
    done = train.run(out, "--steps", "10", *settings, ranks=2)
    assert done.returncode == 0, done.stderr
    assert trainer_train.main([*words, "--out", str(out)]) == 0
    expected, steps = _steps(whole), _steps(out)
    assert list(steps) == list(range(1, 21))
    for step, values in steps.items():
        assert values == pytest.approx(expected[step], rel=1e-4), step
    assert expected[20][0] < expected[1][0] - 0.3


def test_processes_that_make_no_equal_replicas_are_told(
    recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), *_set("parallel.replicas=2")]
    assert trainer_train.main(words) == 1
    assert "1 processes are not 2 replicas of equal size" in capsys.readouterr().err

"""The loop and its guard: a step that is no number stops the run a step later, and leaves nothing behind."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator

from trainer import train as trainer_train
from trainer.checkpoint import committed
from trainer.config import load_recipe, with_settings
from trainer.data import load_batch, open_data
from trainer.log import StepLog, read
from trainer.plan import step_flops
from trainer.report import peak_rate
from trainer.session import open_session
from trainer.step import moment, train_step


def _diverging(*more: str) -> list[str]:
    """A learning rate at which the first step is fine and the second is none."""
    settings = ("learning_rate.peak=1e30", "run.prompts=[]", *more)
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize(("every", "saved"), [(4, []), (1, ["step-00000001"])])
def test_a_loss_that_is_no_number_ends_the_run_before_anything_is_saved(
    every: int, saved: list[str], recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), *_diverging(f"run.save_every_steps={every}")]
    assert trainer_train.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.match(r"error: step 2: loss is 4\.15888\d+, gradient norm nan; it changed nothing, the last checkpoint", lines[0])
    data = open_data(shards)
    assert ", ".join(load_batch(data, 1, 0, 1, 8).samples[:4]) + " ... (5 in all)" in lines[0]
    assert [path.name for path in committed(tmp_path / "run" / "checkpoints")] == saved
    assert [line["step"] for line in read(tmp_path / "run" / "metrics.jsonl")] == [1]


def test_one_rank_speaks_for_all_and_names_the_samples_of_each(train: Any, shards: Path, tmp_path: Path) -> None:
    done = train.run(tmp_path, *_diverging(), ranks=2)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert ", ".join(load_batch(open_data(shards), 1, 0, 1, 8).samples[:4]) + " ... (5 in all)" in errors[0]


def test_rank_0_wishes_to_save_and_gets_it_a_step_later(
    recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), "--steps", "7"]
    settings = ("run.save_every_minutes=0", "run.save_every_steps=1000", "run.keep=9", "run.prompts=[]")
    assert trainer_train.main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    names = [path.name for path in committed(tmp_path / "run" / "checkpoints")]
    assert names == [f"step-{step:08d}" for step in (2, 4, 6, 7)]
    assert [line["step"] for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line] == list(range(1, 8))
    assert "step 5/7 | main | loss " in capsys.readouterr().out


def test_the_line_of_a_step_says_what_is_worth_knowing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"step": 10, "phase": "main", "loss": 2.5, "lr": 3e-4, "grad_norm": 0.5, "tokens_per_second": 52864.4}
    values |= {"data_wait_s": 0.0012, "peak_share": 0.6049, "memory_gib": 54.71}
    with StepLog(Accelerator(), tmp_path, 0, 20, 10) as log:
        log.step(values, seconds_left=3725.5)
    expected = "loss 2.5000 | lr 3.00e-04 | 52,864 tok/s (60.5% of peak) | norm 0.50 | wait 1 ms | 54.7 GiB | left 1:02:05"
    assert capsys.readouterr().out == f"step 10/20 | main | {expected}\n"
    assert read(tmp_path / "metrics.jsonl") == [values]


def test_flops_are_counted_by_formula_within_documents(recipe: str, shards: Path) -> None:
    cfg, data = load_recipe(recipe).model, open_data(shards)
    batch = load_batch(data, 0, 0, 1, 3)  # five samples in rows of three: one row only fills up
    matrices = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 64 * 32
    pairs = 0
    for micro in batch.micro_batches:
        for documents in micro.documents.tolist():
            pairs += sum(documents.count(number) ** 2 for number in set(documents))
    expected = 6 * matrices * 5 * 32 + 2 * 6 * 2 * 32 * (pairs - 32**2) / 2
    assert step_flops(cfg, batch) == expected


def test_the_peak_is_a_rate_of_matrix_products() -> None:
    began = moment(torch.device("cpu"))
    rate = peak_rate(torch.device("cpu"), size=64, repeats=4)
    taken = moment(torch.device("cpu")) - began  # type: ignore[operator]
    assert rate > 4 * 2 * 64**3 / taken


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("offload", [False, True])
def test_on_a_gpu_a_run_learns_the_same_and_says_how_much_of_the_peak_it_reaches(
    offload: bool, recipe: str, shards: Path, whole_run: Path, tmp_path: Path
) -> None:
    settings = ("run.prompts=[]", f"parallel.offload={str(offload).lower()}", "parallel.attention=dense")
    words = [recipe, "--data", str(shards), "--out", str(tmp_path), *(w for s in settings for w in ("--set", s))]
    assert trainer_train.main(words) == 0
    lines, expected = ([x for x in read(run / "metrics.jsonl") if "loss" in x] for run in (tmp_path, whole_run))
    for line, other in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=0.15)  # bf16, and a GPU draws other weights to begin with
        assert 0 < line["peak_share"] < 1
        assert line["memory_gib"] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_a_step_is_queued_without_waiting(recipe: str, shards: Path, tmp_path: Path) -> None:
    cfg = with_settings(load_recipe(recipe), ["parallel.attention=dense"])
    try:
        run = open_session(Accelerator(mixed_precision="no"), cfg, shards, tmp_path)
        assert run is not None
        batches = [load_batch(run.data, step, 0, 1, 3) for step in range(2)]
        train_step(run, batches[0], 1e-3).outcome()  # the first one makes the moments
        torch.cuda.set_sync_debug_mode("error")
        step = train_step(run, batches[1], 1e-3)
        torch.cuda.set_sync_debug_mode("default")
        assert step.outcome().loss < 5
    finally:
        torch.cuda.set_sync_debug_mode("default")
        dist.destroy_process_group()

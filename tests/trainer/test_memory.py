from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer import train
from trainer.config import OptimizerConfig, Parallel, load_recipe, with_settings
from trainer.data import open_data
from trainer.memory import GIB, lighter, memory, state_bytes, what_would_fit


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (
            Parallel(micro_batch=8),
            ["micro_batch=4", "recompute=full", "loss_chunk=1024", "offload=true"],
        ),
        (
            Parallel(micro_batch=1, compile=True, reshard=False, loss_chunk=1024, offload=True),
            ["recompute=selective", "reshard=true"],
        ),
        (
            Parallel(micro_batch=3, compile=True, recompute="selective", replicas=2, loss_chunk=512),
            ["micro_batch=1", "kept=0.5", "replicas=1", "offload=true"],
        ),
        (Parallel(micro_batch=1, recompute="full", loss_chunk=512, offload=True), []),
    ],
)
def test_what_takes_less_memory_is_named_the_cheapest_first(layout: Parallel, expected: list[str]) -> None:
    cfg = replace(load_recipe("demo"), parallel=layout)
    assert list(lighter(cfg)) == [f"parallel.{way}" for way in expected]


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"),
    [(OptimizerConfig(), 16), (OptimizerConfig(moments="bf16"), 12), (OptimizerConfig(kind="adafactor"), 8)],
)
def test_the_state_takes_so_many_bytes_a_parameter(optimizer: OptimizerConfig, bytes_each: int) -> None:
    cfg = replace(load_recipe("demo"), optimizer=optimizer)
    assert state_bytes(cfg) == pytest.approx(bytes_each * cfg.model.parameters(), rel=0.01)


def test_with_a_schedule_each_way_out_says_what_it_takes(shards: Path) -> None:
    cfg, schedule = load_recipe("llama3"), open_data(shards).schedule
    line = what_would_fit(cfg, torch.OutOfMemoryError("Tried to allocate 2 GiB"), schedule, world=4)
    peak = memory(with_settings(cfg, ["parallel.micro_batch=1"]), 32, 1, 2, 4).peak / GIB
    assert f"--set parallel.micro_batch=1 ({peak:,.1f} GiB on a rank) or --set parallel.loss_chunk=1024" in line


def test_a_model_that_does_not_fit_is_one_line(
    recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), "--set", "model.feed_forward=10000000000000"]
    assert train.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: out of memory (")
    assert "gradients and moments take 28,610,229.5 GiB" in lines[0]
    assert "what needs less: --set parallel.micro_batch=1 or --set parallel.recompute=full" in lines[0]

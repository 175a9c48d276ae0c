from dataclasses import replace
from pathlib import Path

import pytest

from trainer import train
from trainer.config import OptimizerConfig, Parallel, load_recipe
from trainer.memory import lighter, state_bytes


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


@pytest.mark.parametrize(("kind", "bytes_each"), [("adamw", 16), ("adafactor", 8)])
def test_the_state_takes_so_many_bytes_a_parameter(kind: str, bytes_each: int) -> None:
    cfg = replace(load_recipe("demo"), optimizer=OptimizerConfig(kind=kind))  # type: ignore[arg-type]
    assert state_bytes(cfg) == bytes_each * cfg.model.parameters()


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

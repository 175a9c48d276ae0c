from pathlib import Path

import pytest
import torch

from trainer import average, checkpoint, generate, train


@pytest.fixture(scope="module")
def annealed(recipe: str, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 15 steps of the main phase and 5 of annealing that kept the checkpoints of the latter."""
    out = tmp_path_factory.mktemp("annealed") / "run"
    settings = ["run.keep_phase=annealing", "run.keep=1", "run.save_every_steps=2", "run.prompts=[]"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert train.main([recipe, "--data", str(shards), "--out", str(out), *words]) == 0
    return out


def _weights(path: Path, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    checkpoint.load_weights(path, model)
    return {name: tensor.clone() for name, tensor in checkpoint.weights(model).items()}


def test_the_checkpoints_of_a_phase_stay_when_asked_for(annealed: Path) -> None:
    commits = [checkpoint.read_commit(path) for path in checkpoint.committed(annealed / "checkpoints")]
    assert [(c.step, c.phase) for c in commits] == [(16, "annealing"), (18, "annealing"), (20, "annealing")]


@pytest.mark.parametrize(
    ("which", "steps"), [((), (16, 18, 20)), (("--phase", "annealing"), (16, 18, 20)), (("--last", "2"), (18, 20))]
)
def test_an_average_is_the_mean_of_the_weights_and_generates(
    which: tuple[str, ...], steps: tuple[int, ...], annealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mean"
    assert average.main([str(annealed), *which, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: the average of the checkpoints of steps {', '.join(map(str, steps))}\n"
    made = checkpoint.committed(out / "checkpoints")[-1]
    assert checkpoint.read_commit(made).average_of == steps
    model, _, _ = generate.load_run(out)
    found = _weights(made, model)
    parts = [_weights(annealed / "checkpoints" / f"step-{step:08d}", model) for step in steps]
    assert any(not torch.equal(parts[0][name], parts[-1][name]) for name in found)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, torch.stack([part[name] for part in parts]).mean(0), atol=1e-7, rtol=1e-6)
    assert generate.main([str(out), "--prompt", "w5 w6 w7", "--tokens", "3"]) == 0


def test_no_run_goes_on_from_an_average(annealed: Path, recipe: str, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert average.main([str(annealed)]) == 0
    assert train.main([recipe, "--data", str(shards), "--out", str(annealed / "average")]) == 1
    assert "is an average, and no run goes on from it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (("--last", "4"), "has 3 of the checkpoints asked for, an average takes at least 4"),
        (
            ("--phase", "main"),
            "has 0 of the checkpoints asked for, an average takes at least 2; there are those of steps 16 (ann",
        ),
        (("--last", "1"), "has 1 of the checkpoints asked for, an average takes at least 2"),
    ],
)
def test_too_few_checkpoints_are_told_with_what_is_there(
    which: tuple[str, ...], message: str, annealed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert average.main([str(annealed), *which, "--out", str(tmp_path / "x")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

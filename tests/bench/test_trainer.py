"""What the trainer's benchmark feeds to GPUs, and how it lays models out on them; the speed itself needs a GPU."""

import time
from pathlib import Path

import pytest
import torch.distributed as dist

from bench import trainer
from bench.common import EXAMPLES, row
from bench.trainer_run import SHAPES, STEPS, Shape, config, ours
from trainer.config import ModelConfig, Parallel
from trainer.data import load_batch, open_data
from trainer.memory import memory
from trainer.plan import DEVICES


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("data")
    return folder, trainer.write_data(EXAMPLES, folder, 32_000)


@pytest.mark.parametrize(("source", "longest"), [("text", 2048), ("cut", trainer.CUT)])
def test_shards_of_documents_as_they_are_and_cut(data: tuple[Path, dict[str, int]], source: str, longest: int) -> None:
    folder, tokens = data
    trainer.write_plan(folder / "shards", folder / f"{source}.json", tokens, source, 2048, 4, steps=3)
    opened = open_data(folder / "shards", folder / f"{source}.json")
    assert opened.schedule.total_tokens == 3 * 4 * 2048
    batch = load_batch(opened, 2, 0, 1, micro_batch=2)
    assert [m.inputs.shape for m in batch.micro_batches] == [(2, 2048), (2, 2048)]
    assert max(m.max_seqlen for m in batch.micro_batches) <= longest
    if source == "cut":  # documents in step with the rows, as the floor's
        assert all(m.cu_seqlens.tolist() == list(range(0, 4097, trainer.CUT)) for m in batch.micro_batches)


def test_our_loop_says_how_fast_it_was(
    data: tuple[Path, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.report.peak_rate", lambda device: 1e12)  # the measured one takes minutes without a GPU
    folder, tokens = data
    trainer.write_plan(folder / "shards", tmp_path / "plan.json", tokens, "cut", 64, 2, STEPS)
    shape = Shape(ModelConfig(32_000, 16, 1, 2, 1, 16), 64, ((1, 2, 1, Parallel(micro_batch=2)),))
    try:
        found = ours(shape, folder / "shards", tmp_path / "plan.json", tmp_path / "run", 0, None)
    finally:
        dist.destroy_process_group()
    assert found["rate"] == pytest.approx(128 / found["step_s"])
    assert 0 <= found["wait"] < 1
    assert found["share"] > 0


def test_one_command_gives_a_row_for_all_that_must_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = {"rate": 2.0, "gib": 1.0, "share": 0.6, "matmul_tflops": 750.0, "first_s": 9.0, "wait": 0.0}
    plain = {"tokens_per_s_per_gpu": 1.0, "gib": 2.0, "share": 0.5, "matmul_tflops": 760}
    asked: list[tuple[int, str]] = []
    at_once: list[int | None] = []

    def run(contestant: trainer.Contestant, folder: Path, device: int | None) -> dict[str, float]:
        assert contestant.gpus > 1 or device not in at_once, "two processes on one GPU"
        at_once.append(device)
        time.sleep(0.01)
        asked.append((contestant.gpus, " ".join(contestant.words)))
        at_once.remove(device)
        return plain if contestant.who == "floor" else ours

    monkeypatch.setattr(trainer.Contestant, "run", run)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    rows = trainer.measure(EXAMPLES, ["1.7b", "7b", "8b"], [1, 2], Path("floor.py"))
    names = {r.name for r in rows}
    for on in (f"{shape} on {gpus}" for shape in ("1.7b", "7b", "8b") for gpus in (1, 2)):
        what = ("speed", "share of multipliers", "multipliers", "memory", "start to first step", "data wait")
        assert {f"{one} {on}" for one in what} <= names
    for what in ("causal", "documents masked"):
        assert {f"{one} 1.7b on 1, 8,192 x 2, {what}" for one in ("speed", "memory")} <= names
    assert {f"efficiency {shape} on 2" for shape in ("1.7b", "7b", "8b")} <= names
    assert "memory of the loss, 32,768 tokens, vocabulary 128,256" in names
    beside_plain = [r for r in rows if r.name.startswith("speed") and r.peer_name == "plain PyTorch"]
    assert {(r.name, r.ratio) for r in beside_plain} == {(f"speed {on}", 2.0) for on in ("1.7b on 1", "1.7b on 2")}
    schedules = [words.split("--schedule ")[1].split()[0] for _, words in asked if "--schedule" in words]
    assert len(schedules) == len(set(schedules)) == 2 * 3 + 1 + 2
    assert [gpus for gpus, _ in asked] == sorted(gpus for gpus, _ in asked)


def test_what_each_of_several_gpus_keeps_of_the_speed_of_one() -> None:
    speeds = {"speed 7b on 1": 100.0, "speed 7b on 2": 98.0, "speed 8b on 2": 50.0, "memory 7b on 2": 3.0}
    found = trainer.efficiency([row(name, "", value, None, None) for name, value in speeds.items()])
    assert [(r.name, r.ours) for r in found] == [("efficiency 7b on 2", 0.98)]


@pytest.mark.parametrize(
    ("name", "parameters"), [("1.7b", 1.66e9), ("7b", 6.74e9), ("8b", 8.03e9), ("8b-bf16", 8.03e9), ("1.7b-fp8", 1.66e9)]
)
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_shapes_are_what_they_are_called_and_fit_on_any_number_of_gpus(name: str, parameters: float, gpus: int) -> None:
    shape = SHAPES[name]
    rows, micro, parallel = shape.layout(gpus)
    assert shape.model.parameters() == pytest.approx(parameters, rel=0.01)
    assert rows == parallel.micro_batch
    assert micro >= 1
    need = memory(config(shape, gpus, 0, None), shape.length, rows, micro, gpus)
    assert need.peak < 0.95 * DEVICES["h200"].memory
    assert config(shape, gpus, 2, 0).model.document_mask is False
    assert config(shape, gpus, 2, 0).parallel.micro_batch == 2


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        trainer.main(["--shapes", "1.7b"])
    assert "no GPU is here" in capsys.readouterr().err

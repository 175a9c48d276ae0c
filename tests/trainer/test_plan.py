"""Predicted before a run, held against tensors, files and figures that were measured on a GPU."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.trainer_run import SHAPES, config
from trainer import plan
from trainer.config import Experts, ModelConfig, OptimizerConfig, Parallel, load_recipe, with_settings
from trainer.data import micro_batches, open_data
from trainer.log import read
from trainer.memory import GIB, activations, inside, memory, moment_bytes, shard_numbers
from trainer.model import Decoder, init_weights
from trainer.optimizer import make_optimizer, moments_of

MODEL = ModelConfig(vocab_size=50, width=64, layers=3, heads=4, kv_heads=4, feed_forward=160, document_mask=False)


@pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(kind="adafactor"), OptimizerConfig(moments="bf16")])
@pytest.mark.parametrize("experts", [None, Experts(4)])
def test_weights_gradients_and_moments_are_exact(optimizer: OptimizerConfig, experts: Experts | None) -> None:
    cfg = replace(load_recipe("tiny"), model=replace(MODEL, experts=experts), optimizer=optimizer)
    model = Decoder(cfg.model)
    init_weights(model, 0.02, 0)
    made = make_optimizer(model, optimizer)
    tokens = torch.arange(16)[None]
    model(tokens, tokens, None, 1.0).backward()
    made.step()
    found = memory(cfg, 16, 1, 1, world=1, compute=4)
    parameters = list(model.parameters())
    assert found.weights == sum(p.nbytes for p in parameters)
    assert found.gradients == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert found.moments == sum(m.nbytes for p in parameters for m in moments_of(made, p).values())
    # of several ranks the first has most, as `fully_shard` cuts
    assert shard_numbers(cfg.model, 3) == sum(p.chunk(3)[0].numel() for p in parameters)


@pytest.mark.parametrize(
    "model", [MODEL, replace(MODEL, kv_heads=2), replace(MODEL, feed_forward=64), replace(MODEL, experts=Experts(4))]
)
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_activations_are_what_autograd_keeps(model: ModelConfig, recompute: str) -> None:
    layout = Parallel(recompute=recompute)  # type: ignore[arg-type]
    decoder = Decoder(model)
    init_weights(decoder, 0.02, 0)
    for block in decoder.model.layers:
        block.recompute = recompute == "full"
    weights, kept = {p.untyped_storage().data_ptr() for p in decoder.parameters()}, dict[int, torch.UntypedStorage]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    tokens = torch.randint(0, 50, (2, 96))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder(tokens, tokens, None, 1.0)
    head = 4 * (50 * 64 + 192 * 64)  # the loss keeps these two gradients
    alone = inside(model, 192, 4, compiled=False) if recompute == "full" else 0  # comes when a block is computed again
    expected = activations(model, layout, 192, 4) - alone
    assert sum(storage.nbytes() for storage in kept.values()) - head == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "gpus", "rows", "gib"),  # most allocated on a GPU, by the layouts of bench/trainer_run.py: bench/RESULTS.md
    [
        ("1.7b", 1, 0, 70.2),
        ("1.7b", 1, 2, 47.2),
        ("1.7b", 2, 0, 61.0),
        ("7b", 1, 0, 125.1),
        ("7b", 2, 0, 108.7),
        ("8b", 1, 0, 132.4),
        ("8b", 2, 0, 114.9),
        ("8b-bf16", 1, 0, 119.8),
    ],
)
def test_memory_is_what_was_measured_on_gpus(shape: str, gpus: int, rows: int, gib: float) -> None:
    of = SHAPES[shape]
    cfg, count = config(of, gpus, rows, None), of.layout(gpus)[1]
    assert memory(cfg, of.length, cfg.parallel.micro_batch, count, gpus).peak / GIB == pytest.approx(gib, rel=0.055)


def test_more_ranks_hold_less_each_and_waiting_gradients_are_whole() -> None:
    cfg = load_recipe("llama3")
    one, two = (memory(cfg, 4096, 2, 4, world) for world in (1, 2))
    assert (two.weights, two.moments) == (one.weights // 2, one.moments // 2)
    assert two.waiting == 4 * cfg.model.parameters()
    assert memory(cfg, 4096, 2, 1, 2).waiting == 0
    offloaded = memory(with_settings(cfg, ["parallel.offload=true"]), 4096, 2, 4, 1)
    assert offloaded.peak == one.gathered + one.activations + one.loss, "the rest is in host memory"
    assert moment_bytes(cfg.model, OptimizerConfig(moments="bf16")) * 2 == moment_bytes(cfg.model, OptimizerConfig())


def test_a_run_is_held_against_its_plan(whole_run: Path, recipe: str, shards: Path) -> None:
    compared = plan.outcome(whole_run)
    assert set(compared) == {"seconds", "tokens_per_second", "checkpoint_bytes"}
    steps = [line for line in read(whole_run / "metrics.jsonl") if "loss" in line]
    assert compared["seconds"][1] == pytest.approx(sum(160 / line["tokens_per_second"] for line in steps))
    assert compared["seconds"][0] == pytest.approx(3200 / compared["tokens_per_second"][0])
    predicted, written = compared["checkpoint_bytes"]
    assert predicted == pytest.approx(written, rel=0.01)
    last = json.loads((whole_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["plan"] == {name: list(pair) for name, pair in compared.items()}
    assert last["plan_in_words"].startswith("planned time 0:00:00, was 0:00:0")
    assert "KiB, was 278" in last["plan_in_words"]
    cfg, data = load_recipe(recipe), open_data(shards)
    again = plan.make_plan(cfg, data, 1, plan.this_device(), whole_run)  # takes the speed that the run has shown
    assert again.share == plan.measured_share(whole_run) != plan.SHARE
    assert again.checkpoints == 2
    assert plan.kept_checkpoints(replace(cfg, run=replace(cfg.run, keep_phase="main")), data) == 2 + 15 // 4


def test_arithmetic_without_documents_is_the_formula(recipe: str, shards: Path) -> None:
    cfg = replace(load_recipe(recipe).model, document_mask=False)
    weights = cfg.parameters() - cfg.vocab_size * cfg.width - 5 * cfg.width
    assert plan.flops_per_token(cfg, open_data(shards)) == 6 * weights + 6 * cfg.layers * cfg.width * 32


@pytest.mark.parametrize(("samples", "world", "most", "expected"), [(5, 1, 3, (2, 3)), (5, 2, 3, (1, 3)), (64, 2, 4, (8, 4))])
def test_a_step_in_equal_micro_batches(samples: int, world: int, most: int, expected: tuple[int, int]) -> None:
    assert micro_batches(samples, world, most) == expected


def test_the_command_shows_phases_memory_time_and_disk(recipe: str, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [recipe, "--data", str(shards), "--gpus", "2", "--device", "h200", "--set", "parallel.recompute=full"]
    assert plan.main(words) == 0
    shown = capsys.readouterr().out
    for part in ("22,688 parameters", "annealing", "1 x 3", "full (chosen)", "on 2 x h200", "2 kept and one being written"):
        assert part in shown, part


def test_a_model_that_is_too_large_for_the_device_is_marked(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["llama3_70b", "--data", str(shards), "--device", "h100"]) == 0
    assert "too much" in capsys.readouterr().out
    assert plan.main(["llama3", "--data", str(shards), "--device", "h100", "--gpus", "6"]) == 1
    assert "6 processes, but a step of phase 'main' has 5 samples" in capsys.readouterr().err
    assert plan.main(["llama4", "--data", str(shards)]) == 1
    assert capsys.readouterr().err.startswith("error: there is no training recipe 'llama4'")


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (3 * GIB // 2, "1.5 GiB")]
)
def test_an_amount_is_read_in_one_glance(size: int, words: str) -> None:
    assert plan.amount(size) == words


def test_a_plan_survives_json(tmp_path: Path) -> None:
    made = plan.Plan("h200", 2, 1e10, 0.5, 1e5, 1e6, GIB, GIB, 2)
    plan.write_plan(tmp_path, made)
    assert plan.read_plan(tmp_path) == made
    assert set(dataclasses.asdict(made)) >= {"tokens_per_second", "memory_bytes", "checkpoint_bytes"}

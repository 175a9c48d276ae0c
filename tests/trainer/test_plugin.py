"""docs/plugin.md tells the truth: each of its programs runs, and sees the samples of the schedule."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.stateful import Stateful

from trainer.dataset import BatchDataset, SampleDataset

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than there are cores
PAGE = (Path(__file__).parents[2] / "docs" / "plugin.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
PROGRAMS = {title: part.split("```")[1].removeprefix("python\n") for title, part in SECTIONS.items() if "```python" in part}


@pytest.fixture
def program(shards: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The names that a program of the page defines, its shards being ours."""
    names: dict[str, Any] = {}
    exec(PROGRAMS[request.param].replace("OUT/shards", str(shards)), names)
    return names


def test_the_page_has_three_programs() -> None:
    assert list(PROGRAMS) == ["A bare PyTorch loop", "transformers.Trainer", "torchtitan"]


@pytest.mark.parametrize("program", ["A bare PyTorch loop"], indirect=True)
def test_a_bare_loop_goes_on_where_it_was(program: dict[str, Any]) -> None:
    ends = []
    for stops in ((6,), (2, 4)):
        torch.manual_seed(0)
        model, state = nn.Embedding(64, 64), None
        for most in stops:
            state = program["train"](model, torch.optim.SGD(model.parameters(), 1.0), state, most)
        ends.append((state, model.weight.detach()))
    assert ends[0][0] == ends[1][0] == {"samples": 24}
    assert torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("program", ["transformers.Trainer"], indirect=True)
def test_the_trainer_of_transformers_learns_from_our_samples_in_order(
    program: dict[str, Any], shards: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    samples = SampleDataset(shards)
    seen: list[torch.Tensor] = []

    def run(steps: int, resume: bool) -> Any:
        torch.manual_seed(0)
        trainer = program["make_trainer"](transformers.LlamaForCausalLM(config), str(tmp_path / "out"), steps)
        inner = trainer.data_collator
        trainer.data_collator = lambda items: (seen.extend(item["inputs"] for item in items), inner(items))[1]
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    trainer = run(2, resume=False)
    batch = program["collate"]([samples[i] for i in range(4)])
    torch.manual_seed(0)
    fresh = transformers.LlamaForCausalLM(config)
    logits = fresh(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert trainer.state.log_history[0]["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    taken = seen[:8]  # the next batch is read ahead
    seen.clear()
    run(4, resume=True)
    assert [s.tolist() for s in taken + seen[:8]] == [samples[i]["inputs"].tolist() for i in range(16)]


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("program", ["torchtitan"], indirect=True)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("one_process")
def test_the_loader_of_torchtitan_is_stateful_for_any_number_of_ranks(
    program: dict[str, Any], shards: Path, tmp_path: Path, workers: int
) -> None:
    make = program["HeadraceLoader"]
    whole = [batch["inputs"] for batch in BatchDataset(shards, 4, 0, 1)]
    loader = make(dp_world_size=2, dp_rank=0, local_batch_size=2, num_workers=workers, seq_len=32)
    assert isinstance(loader, Stateful)
    for (inputs, labels), expected in zip(islice(loader, 3), whole, strict=False):
        assert torch.equal(inputs["input"], expected[:2])
        assert inputs["positions"].shape == labels.shape == (2, 32)
    state_dict_saver.save({"dataloader": loader}, checkpoint_id=tmp_path / "checkpoint")
    other = make(dp_world_size=1, dp_rank=0, local_batch_size=4)
    other.load_state_dict({})  # what torchtitan does without a checkpoint
    state_dict_loader.load({"dataloader": other}, checkpoint_id=tmp_path / "checkpoint")
    assert torch.equal(next(iter(other))[0]["input"], whole[3])

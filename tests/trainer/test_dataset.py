"""The plain data sets, against the batches of the trainer's own unbroken run."""

import pickle
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

import trainer.dataset
from pipelines.schedule import Phase
from trainer.data import Data, load_batch, open_data
from trainer.dataset import BatchDataset, Item, SampleDataset
from trainer.errors import UserError
from trainer.loss import IGNORED

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # and forks, as DataLoader does
]
PHASES = (
    Phase("short", 7 * 5 * 32, 32, 5 * 32, {"web": 0.6, "code": 0.4}),
    Phase("long", 4 * 3 * 48, 48, 3 * 48, {"web": 0.2, "code": 0.8}),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_data: Callable[..., Path]) -> Path:
    """35 samples of 32 tokens, then 12 of 48."""
    return make_data(tmp_path_factory.mktemp("phases"), 0, PHASES)


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return open_data(folder)


@pytest.fixture(scope="module")
def whole(data: Data) -> list[tuple[list[int], list[int], list[int]]]:
    """Every row of the unbroken run of one process."""
    micro = [m for step in range(data.schedule.total_steps) for m in load_batch(data, step, 0, 1, 64).micro_batches]
    return [row for m in micro for row in rows({"inputs": m.inputs, "targets": m.targets, "positions": m.positions})]


def rows(batch: dict[str, Tensor]) -> list[tuple[list[int], list[int], list[int]]]:
    """The rows of a batch that hold a sample."""
    columns = (batch[name].tolist() for name in ("inputs", "targets", "positions"))
    return [row for row in zip(*columns, strict=True) if any(t != IGNORED for t in row[1])]


def test_samples_are_those_of_the_run_in_its_order(data: Data, whole: list[object]) -> None:
    samples = SampleDataset(data)
    assert [rows({k: v[None] for k, v in samples[i].items()})[0] for i in range(len(samples))] == whole
    assert len(samples) == len(whole) == 47
    later = SampleDataset(data, first=40)
    assert torch.equal(later[-1]["inputs"], samples[46]["inputs"])
    with pytest.raises(IndexError, match="sample 7 of 7"):
        later[7]


@settings(deadline=None, max_examples=40)
@given(
    world=st.integers(1, 6),
    batch_size=st.integers(1, 9),
    again=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    stop=st.integers(0, 20),
)
def test_any_ranks_and_batches_and_any_place_to_go_on_with_others(
    data: Data, whole: list[object], world: int, batch_size: int, again: tuple[int, int], stop: int
) -> None:
    def run(world: int, batch_size: int, first: int, stop: int) -> tuple[list[object], int]:
        ranks = [BatchDataset(data, batch_size, rank, world, first) for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1
        stop = min(stop, len(ranks[0]))
        parts = [iter(rank) for rank in ranks]
        taken: list[object] = [row for _ in range(stop) for part in parts for row in rows(next(part))]
        (state,) = {rank.state_dict()["samples"] for rank in ranks}
        assert state == BatchDataset(data, batch_size, 0, world, first).state_after(stop)["samples"]
        return taken, state

    before, state = run(world, batch_size, 0, stop)
    assert before == whole[:state]
    after, end = run(*again, state, 1000)
    assert before + after == whole
    assert end == len(whole)


def test_batches_of_a_phase_have_one_shape_on_every_rank(data: Data) -> None:
    shapes = [[tuple(batch["inputs"].shape) for batch in BatchDataset(data, 4, rank, 3)] for rank in range(3)]
    assert shapes[0] == shapes[1] == shapes[2] == [(4, 32)] * 3 + [(4, 48)]


@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (2, "spawn")])
def test_workers_share_the_batches_and_keep_their_order(
    folder: Path, whole: list[object], workers: int, start: str | None
) -> None:
    batches = BatchDataset(folder, 4, rank=0, world=1, first=8)
    loader = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=start)
    assert [row for batch in loader for row in rows(batch)] == whole[8:]


def test_a_data_set_is_pickled_by_what_it_reads(data: Data, whole: list[object]) -> None:
    copy = pickle.loads(pickle.dumps(BatchDataset(data, 5, 1, 2, first=10)))
    assert [row for batch in copy for row in rows(batch)][:5] == whole[15:20]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata calls
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 2, 5])
def test_a_stateful_loader_goes_on_where_it_was(data: Data, whole: list[object], workers: int, stop: int) -> None:
    module = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loader() -> DataLoader[Item]:
        return module.StatefulDataLoader(BatchDataset(data, 4), batch_size=None, num_workers=workers)

    first = loader()
    part = iter(first)
    before = [row for _ in range(stop) for row in rows(next(part))]
    state = first.state_dict()
    del part, first
    second = loader()
    second.load_state_dict(state)
    assert before + [row for batch in second for row in rows(batch)] == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_shards_the_samples_once(data: Data, whole: list[object], workers: int) -> None:
    only = [row for row in whole if len(row[0]) == 32]  # type: ignore[index]
    found = []
    for rank in range(2):
        short = torch.utils.data.Subset(SampleDataset(data), range(len(only)))
        loader = DataLoader(short, batch_size=4, num_workers=workers)
        mine = prepare_data_loader(loader, num_processes=2, process_index=rank, put_on_device=False, even_batches=False)
        found.append([rows(batch) for batch in mine])
    assert sorted(row for part in found for batch in part for row in batch) == sorted(only)
    assert [row for pair in zip(*found, strict=False) for batch in pair for row in batch] == only[:32]


def test_a_distributed_sampler_takes_every_sample_once(data: Data, whole: list[object]) -> None:
    samples, found = SampleDataset(data), []
    for rank in range(2):
        sampler = DistributedSampler(samples, 2, rank, shuffle=False, drop_last=True)
        found += [rows(item) for item in DataLoader(samples, sampler=sampler)]
    assert sorted(row for item in found for row in item) == sorted(whole[:46])


@pytest.mark.parametrize("samples", [-1, 48])
def test_a_state_beyond_the_run_is_refused(data: Data, samples: int) -> None:
    with pytest.raises(UserError, match=f"the run has 47 samples, none after {samples}"):
        BatchDataset(data, 4).load_state_dict({"samples": samples})


@pytest.mark.parametrize(("batch_size", "rank"), [(0, 0), (4, 2)])
def test_a_rank_that_is_none_is_refused(data: Data, batch_size: int, rank: int) -> None:
    with pytest.raises(UserError, match="must be"):
        BatchDataset(data, batch_size, rank, 2)


def test_the_loop_of_the_documentation_runs(folder: Path) -> None:
    text = trainer.dataset.__doc__ or ""
    loop = textwrap.dedent("\n".join(line for line in text.splitlines() if line.startswith("    ") or not line)).strip()
    names = {"model": torch.nn.Embedding(64, 64)}
    exec(loop.replace("OUT/shards", str(folder)), names)
    assert names["state"] == {"samples": 47}
    assert names["model"].weight.grad.abs().sum() > 0

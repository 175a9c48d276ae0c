import shutil
from pathlib import Path

import pytest
import torch

from trainer.data import Batch, Prefetcher, load_batch, open_data
from trainer.errors import UserError
from trainer.loss import IGNORED


def _rows(batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return [row for m in batch.micro_batches for row in zip(m.inputs, m.targets, m.documents, strict=True)]


def test_a_row_is_the_slice_of_the_stream_and_its_documents(shards: Path) -> None:
    data = open_data(shards)
    batch = load_batch(data, 3, 0, 1, micro_batch=5)
    assert len(batch.micro_batches) == 1
    assert batch.micro_batches[0].inputs.shape == (5, 32)
    for (inputs, targets, documents), name in zip(_rows(batch), batch.samples, strict=True):
        source, start = name.split(":")
        stream = data.shards.stream(source)
        tokens = stream.slice(int(start), 33).tolist()
        assert inputs.tolist() == tokens[:-1]
        assert targets.tolist() == tokens[1:]
        spans = stream.documents(int(start), 32)
        assert documents.tolist() == [n for n, span in enumerate(spans, start=1) for _ in range(span.length)]


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 16])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_all_ranks_together_take_the_same_samples_in_the_same_shapes(shards: Path, world: int, micro_batch: int) -> None:
    data = open_data(shards)
    alone = load_batch(data, 17, 0, 1, micro_batch=16)
    parts = [load_batch(data, 17, rank, world, micro_batch) for rank in range(world)]
    assert [s for part in parts for s in part.samples] == list(alone.samples)
    shapes = {tuple(m.inputs.shape for m in part.micro_batches) for part in parts}
    assert len(shapes) == 1
    assert all(m.inputs.shape[0] <= micro_batch for m in parts[0].micro_batches)
    rows = [row for part in parts for row in _rows(part) if (row[1] != IGNORED).any()]
    assert [r[0].tolist() for r in rows] == [r[0].tolist() for r in _rows(alone)]
    valid = sum(int((r[1] != IGNORED).sum()) for part in parts for r in _rows(part))
    assert {part.valid_tokens for part in parts} == {valid} == {5 * 32}


def test_more_ranks_than_samples_is_refused(shards: Path) -> None:
    with pytest.raises(UserError, match="6 processes, but step 0 has 5 samples"):
        load_batch(open_data(shards), 0, 0, 6, 1)


def test_prefetcher_gives_every_step_once_and_in_order(shards: Path) -> None:
    data = open_data(shards)
    batches = Prefetcher(lambda step: load_batch(data, step, 0, 1, 4), 4, 20)
    assert [batch.plan.step for batch in batches] == list(range(4, 20))


def test_prefetcher_hands_errors_over_and_can_be_closed(shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "out"
    shutil.copytree(shards.parent, broken)
    data = open_data(broken / "shards")
    for path in (broken / "shards").glob("*/train-*"):
        path.unlink()
    batches = Prefetcher(lambda step: load_batch(data, step, 0, 1, 4), 0, 20)
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        next(batches)
    assert list(batches) == []
    whole = open_data(shards)
    ahead = Prefetcher(lambda step: load_batch(whole, step, 0, 1, 4), 0, 20)
    next(ahead)
    ahead.close()


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("shards", "there is no shard folder"),
        ("schedule.json", "there is no schedule"),
        ("shards/manifest.json", "holds no complete shards"),
    ],
)
def test_what_is_missing_is_named(shards: Path, tmp_path: Path, remove: str, message: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards.parent, out)
    (shutil.rmtree if (out / remove).is_dir() else Path.unlink)(out / remove)
    with pytest.raises(UserError, match=message):
        open_data(out / "shards")

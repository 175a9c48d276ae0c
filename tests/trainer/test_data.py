import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedule import Phase
from pipelines.shards import Shards
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones
from trainer.data import Batch, Prefetcher, Row, load_batch, open_data, pack
from trainer.errors import UserError
from trainer.loss import IGNORED

EOS = 0


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


def test_segments_are_told_as_positions_and_as_varlen_attention_takes_them(shards: Path) -> None:
    data = open_data(shards)
    (micro,) = load_batch(data, 3, 0, 1, micro_batch=5).micro_batches
    samples = [name.split(":") for name in load_batch(data, 3, 0, 1, 5).samples]
    lengths = [span.length for source, at in samples for span in data.stream(source).documents(int(at), 32)]
    assert micro.cu_seqlens.tolist() == [0, *np.cumsum(lengths)]
    assert micro.max_seqlen == max(lengths)
    assert micro.positions.flatten().tolist() == [i for length in lengths for i in range(length)]
    tensors = (micro.inputs, micro.targets, micro.positions, micro.cu_seqlens, micro.documents)
    assert {t.dtype for t in tensors} == {torch.int32}
    assert all(t.is_contiguous() for t in tensors)


def test_what_is_left_of_a_row_and_of_a_batch_is_no_target_and_a_segment_of_its_own(shards: Path) -> None:
    stream = open_data(shards).stream("web")
    batch = pack([Row(stream, ((7, 20),)), Row(stream, ((0, 3), (40, 9)))], height=3, length=32)
    assert batch.inputs[0].tolist() == [*stream.slice(7, 20), *[0] * 12]
    assert batch.inputs[1].tolist() == [*stream.slice(0, 3), *stream.slice(40, 9), *[0] * 20]
    assert batch.targets[1].tolist() == [*stream.slice(1, 3), *stream.slice(41, 9), *[IGNORED] * 20]
    assert (batch.inputs[2] == 0).all()
    assert (batch.targets[2] == IGNORED).all()
    begins = set(batch.cu_seqlens.tolist())
    assert {0, 20, 32, 32 + 3, 32 + 12, 64, 96} <= begins
    assert not begins & {*range(21, 32), *range(45, 64), *range(65, 96)}


def test_a_batch_is_left_alone_while_later_ones_are_read(shards: Path) -> None:
    data = open_data(shards)
    held = [load_batch(data, step, 0, 1, 2) for step in range(6)]
    before = [t.tolist() for batch in held for row in _rows(batch) for t in row]
    for step in range(6, 20):
        load_batch(data, step, 0, 1, 2)
    assert [t.tolist() for batch in held for row in _rows(batch) for t in row] == before


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


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, make_data: Callable[..., Path]) -> Path:
    """Documents of 6 to 60 tokens: fitted into 48, then one a row of 32, then the stream cut every 64."""
    fitted = Phase("fitted", 9 * 240, 48, 240, {"web": 0.6, "code": 0.4}, packing="best_fit")
    apart = Phase("apart", 9 * 160, 32, 160, {"web": 0.5, "code": 0.5}, packing="document")
    cut = Phase("cut", 9 * 448, 64, 448, {"web": 0.1, "code": 0.9})
    return make_data(tmp_path_factory.mktemp("packed"), 0, (fitted, apart, cut))


@pytest.fixture(scope="module")
def torn(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards with every third document of both sources and splits taken down."""
    out = tmp_path_factory.mktemp("torn") / "out"
    shutil.copytree(shards.parent, out)
    opened, added = Shards(out / "shards"), []
    for file in opened.manifest.files:
        rows = np.arange(0, file.rows, 3)
        starts, lengths = opened.stream(file.source, file.split).places(file.path, rows)
        for row, start, length in zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            added.append((file.source, file.split, start, length, bytes(16), file.path, row, "test"))
    table = pa.table(dict(zip(TOMBSTONES.names, zip(*added, strict=True), strict=True)), TOMBSTONES)
    publish_tombstones(out / "shards", opened.manifest, table)
    return out / "shards"


@pytest.mark.parametrize("step", [0, 4, 8, 9, 13])
def test_packed_rows_are_whole_documents_each_a_segment_without_a_target_beyond_its_end(packed: Path, step: int) -> None:
    data = open_data(packed)
    (micro,) = load_batch(data, step, 0, 1, micro_batch=5).micro_batches
    alone = load_batch(data, step, 0, 1, micro_batch=1).micro_batches
    bounds = micro.cu_seqlens.tolist()
    streams = [data.stream(source) for source in ("web", "code")]
    parts = [np.split(s.slice(0, s.n_tokens), s.document_starts(0, s.n_tokens)[1:]) for s in streams]
    documents = {tuple(part.tolist()) for part in [*parts[0], *parts[1]]}
    inputs, targets = micro.inputs.flatten().tolist(), micro.targets.flatten().tolist()
    length, cut = micro.inputs.shape[1], 0
    for low, high in pairwise(bounds):
        if all(t == IGNORED for t in targets[low:high]):
            assert set(inputs[low:high]) == {0}  # padding
        elif targets[high - 1] == IGNORED:
            assert targets[low : high - 1] == inputs[low + 1 : high]
            assert any(document[-(high - low) :] == tuple(inputs[low:high]) for document in documents)
        else:
            cut += 1
            assert targets[low:high] == [*inputs[low + 1 : high], targets[high - 1]]
            assert any(len(document) > length and tuple(inputs[low:high]) == document[: high - low] for document in documents)
    assert cut < 5
    assert [row.tolist() for m in alone for row in m.targets] == micro.targets.tolist()


@settings(deadline=None, max_examples=30)
@given(world=st.integers(1, 5), micro_batch=st.integers(1, 8), first=st.integers(0, 26))
def test_from_any_step_on_any_ranks_take_the_rows_of_the_unbroken_run(
    packed: Path, world: int, micro_batch: int, first: int
) -> None:
    data = open_data(packed)
    steps = range(first, min(first + 3, data.schedule.total_steps))
    alone = [load_batch(data, step, 0, 1, 64) for step in steps]
    parts = [[load_batch(open_data(packed), step, rank, world, micro_batch) for rank in range(world)] for step in steps]

    def samples(batches: list[Batch]) -> list[tuple[str, list[list[int]]]]:
        rows = [[[t.tolist() for t in row] for row in _rows(batch)][: len(batch.samples)] for batch in batches]
        return [pair for batch, of in zip(batches, rows, strict=True) for pair in zip(batch.samples, of, strict=True)]

    for whole, ranks in zip(alone, parts, strict=True):
        assert samples(ranks) == samples([whole])
        assert {batch.valid_tokens for batch in ranks} == {whole.valid_tokens}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("name", ["packed", "torn"])
def test_valid_tokens_are_the_targets_of_all_ranks(request: pytest.FixtureRequest, name: str, world: int) -> None:
    data = open_data(request.getfixturevalue(name))
    for step in (0, 7, 8, 9, 15, 17):
        batches = [load_batch(data, step, rank, world, 2) for rank in range(world)]
        found = sum(int((m.targets != IGNORED).sum()) for batch in batches for m in batch.micro_batches)
        assert {batch.valid_tokens for batch in batches} == {found}
        assert 0 < found < batches[0].plan.samples * batches[0].plan.sequence_length


def test_what_was_taken_down_is_neither_read_nor_a_target_and_moves_nothing(shards: Path, torn: Path) -> None:
    before, after = open_data(shards), open_data(torn)
    for step in range(20):
        a, b = (load_batch(data, step, 0, 1, 5) for data in (before, after))
        assert a.samples == b.samples
        (was,), (now,) = a.micro_batches, b.micro_batches
        assert torch.equal(was.positions, now.positions)
        for row, (source, at) in enumerate(name.split(":") for name in a.samples):
            gone = np.zeros(33, bool)
            for low, high in after.stream(source).gaps(int(at), 33).tolist():
                gone[low:high] = True
            assert now.inputs[row].tolist() == np.where(gone[:-1], EOS, was.inputs[row]).tolist()
            assert now.targets[row].tolist() == np.where(gone[1:], IGNORED, was.targets[row]).tolist()


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

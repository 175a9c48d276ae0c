"""Shards with roles through to batches: which targets there are, token by token, and where sequences begin."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.schedule import Phase, ScheduleConfig, ScheduleError, compile_schedule, write_schedule
from pipelines.schedule.packing import layout
from pipelines.shards import VERSION, Manifest, Shards, order_key, write_manifest, write_shard
from pipelines.shards.roles import ANSWER, BETTER, EDITED, LAST, TARGET, pairs, sequence_grades
from pipelines.shards.template import Markers, Turn, render
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones
from trainer.data import Batch, MicroBatch, Row, count_targets, load_batch, open_data, pack
from trainer.dataset import BatchDataset, SampleDataset
from trainer.loss import IGNORED

MARKS = Markers(system=1, user=2, assistant=3, tool=4, end=5, eos=0)
LENGTH, SEED = 64, 3


def conversation(number: int) -> tuple[list[int], list[int]]:
    """Two questions and answers of a few tokens."""
    said = [10 + number % 40] * (1 + number % 5)
    turns = [Turn("user", said), Turn("assistant", [60, *said], ANSWER), Turn("user", [61]), Turn("assistant", [62], ANSWER)]
    ids, codes = render(turns, MARKS)
    return ids.tolist(), codes.tolist()


def compared(number: int, grades: Sequence[int] = (EDITED, BETTER, LAST)) -> tuple[list[int], list[int]]:
    """One question and its answers, best first."""
    asked = Turn("user", [10 + number % 40])
    parts = [render([asked, Turn("assistant", [grade] * (1 + number % 3), grade)], MARKS) for grade in grades]
    return [i for ids, _ in parts for i in ids.tolist()], [c for _, codes in parts for c in codes.tolist()]


def text(number: int) -> tuple[list[int], None]:
    return [*[7] * (3 + number % 9), 0], None


KINDS = {"chat": conversation, "pairs": compared, "web": text}


def write(out: Path, sources: Sequence[str], packing: str = "best_fit") -> Path:
    files = []
    for source in sources:
        rows = [(hashlib.blake2b(bytes([i]), digest_size=16).digest(), *KINDS[source](i)) for i in range(40)]
        rows.sort(key=lambda row: order_key(SEED, row[0]))
        ids, tokens, roles = zip(*rows, strict=True)
        given = roles if roles[0] is not None else None
        files.append(write_shard(out / "shards", source, "train", 0, ids, tokens, "uint16", given))
    manifest = Manifest(VERSION, "uint16", 64, 0, "0" * 64, "chat", "0" * 12, tuple(files), SEED)
    write_manifest(out / "shards", manifest)
    phase = Phase("chat", 12 * 4 * LENGTH, LENGTH, 4 * LENGTH, dict.fromkeys(sources, 1.0), packing=packing)  # type: ignore[arg-type]
    rows_of = layout(Shards(out / "shards"), (phase,))
    compiled = compile_schedule(ScheduleConfig((phase,)), manifest.source_tokens(), manifest.fingerprint, rows_of)
    write_schedule(out / "schedule.json", compiled)
    return out / "shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("chat"), ("chat", "pairs"))


def targets_of(micro: MicroBatch) -> int:
    return int((micro.targets != IGNORED).sum())


def row_of(shards: Path, source: str, documents: int) -> Row:
    stream = open_data(shards).stream(source)
    spans = stream.documents(0, stream.n_tokens)[:documents]
    starts = np.cumsum([0, *(s.length for s in spans)]).tolist()
    return Row(stream, [(start, span.length) for start, span in zip(starts, spans, strict=False)], joined=False)


def test_of_a_conversation_the_answers_and_their_ends_are_targets(shards: Path) -> None:
    row = row_of(shards, "chat", 1)
    micro = pack([row], 1, LENGTH)
    size = row.pieces[0][1]
    inputs, targets = micro.inputs[0, :size].tolist(), micro.targets[0, :size].tolist()
    said = inputs[1 : inputs.index(5)]
    answer = [60, *said]
    #           <user>      said     <end> <assistant> answer and <end>       <user> 61 <end> <assistant>  62 <end> <eos>
    assert inputs == [2, *said, 5, 3, *answer, 5, 2, 61, 5, 3, 62, 5, 0]
    none = IGNORED
    assert targets == [none, *[none] * len(said), none, *answer, 5, none, none, none, none, 62, 5, none, none]
    assert micro.positions[0, :size].tolist() == list(range(size))
    assert micro.roles is not None
    assert micro.roles[0, size:].tolist() == [0] * (LENGTH - size)
    assert (micro.targets[0, size:] == IGNORED).all()


def test_a_document_with_answers_is_a_segment_each_and_makes_its_pairs(shards: Path) -> None:
    row = row_of(shards, "pairs", 2)
    micro = pack([row], 1, LENGTH)
    assert micro.roles is not None
    bounds = micro.cu_seqlens.tolist()
    segments = [micro.inputs.flatten()[a:b].tolist() for a, b in pairwise(bounds)]
    assert len(segments) == 7  # of two documents three answers each, and what is left
    for segment in segments[:-1]:
        assert (segment[0], segment[-1]) == (MARKS.user, MARKS.eos)
        assert segment.count(MARKS.eos) == 1
    assert (micro.positions.flatten()[bounds[:-1]] == 0).all()
    grades = sequence_grades(micro.roles.flatten().numpy(), np.array(bounds[:-1]))
    assert grades.tolist() == [EDITED, BETTER, LAST] * 2 + [0]
    assert [p[:2] for p in pairs(grades).tolist()] == [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]
    for segment, grade in zip(segments[:3], grades.tolist(), strict=False):
        assert set(segment[4:-2]) == {grade}  # compared() says the grade


def test_roles_are_of_targets_and_tell_which_there_are(shards: Path) -> None:
    data = open_data(shards)
    for step in range(data.schedule.total_steps):
        for micro in load_batch(data, step, 0, 1, 2).micro_batches:
            assert micro.roles is not None
            assert (micro.roles.shape, micro.roles.dtype) == (micro.inputs.shape, torch.uint8)
            assert torch.equal(torch.from_numpy(TARGET)[micro.roles.long()], micro.targets != IGNORED)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_ranks_count_the_same_targets(shards: Path, world: int) -> None:
    data = open_data(shards)
    parts = [load_batch(data, 5, rank, world, 2) for rank in range(world)]
    assert {p.valid_tokens for p in parts} == {sum(targets_of(m) for p in parts for m in p.micro_batches)}
    assert all(m.roles is not None for p in parts for m in p.micro_batches)


def test_a_row_counts_as_many_targets_as_it_has(shards: Path) -> None:
    for source in ("chat", "pairs"):
        row = row_of(shards, source, 2)
        assert count_targets(row) == targets_of(pack([row], 1, LENGTH)) > 0


def test_what_was_taken_down_is_no_target(tmp_path: Path) -> None:
    root = write(tmp_path, ("chat", "pairs"))
    before = sum(load_batch(open_data(root), s, 0, 1, 4).valid_tokens for s in range(12))
    opened, added = Shards(root), []
    for file in opened.manifest.files:
        starts, lengths = opened.stream(file.source).places(file.path, rows := np.arange(0, 40, 2))
        for number, start, length in zip(rows.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            added.append((file.source, "train", start, length, bytes(16), file.path, number, "test"))
    publish_tombstones(
        root, opened.manifest, pa.table(dict(zip(TOMBSTONES.names, zip(*added, strict=True), strict=True)), TOMBSTONES)
    )
    data = open_data(root)
    batches: list[Batch] = [load_batch(data, step, 0, 1, 4) for step in range(12)]
    for batch in batches:
        assert batch.valid_tokens == sum(map(targets_of, batch.micro_batches))
        for micro in batch.micro_batches:
            assert len(micro.cu_seqlens) < 40  # a gap is one segment, not one a token
    assert 0.3 * before < sum(b.valid_tokens for b in batches) < 0.7 * before


def test_text_without_roles_may_be_read_beside(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, ("chat", "web")))
    kinds = set()
    for step in range(6):
        batch = load_batch(data, step, 0, 1, 1)
        assert batch.valid_tokens == sum(map(targets_of, batch.micro_batches))
        for name, micro in zip(batch.samples, batch.micro_batches, strict=True):
            kinds.add(source := name.partition(":")[0])
            assert micro.roles is not None
            if source == "web":  # all but the last token of each document, and no role
                assert not micro.roles.any()
                assert (micro.targets != IGNORED).sum() == (micro.inputs == 7).sum()
    assert kinds == {"chat", "web"}


def test_without_any_roles_there_are_none(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, ("web",)))
    (micro,) = load_batch(data, 0, 0, 1, 4).micro_batches
    assert micro.roles is None
    assert "roles" not in SampleDataset(data)[0]


def test_data_sets_give_roles_too(shards: Path) -> None:
    (micro,) = load_batch(open_data(shards), 0, 0, 1, 4).micro_batches
    batch = next(iter(BatchDataset(shards, 4, rank=0, world=1)))
    assert micro.roles is not None
    assert torch.equal(batch["roles"], micro.roles)
    assert torch.equal(batch["targets"], micro.targets.long())
    assert torch.equal(SampleDataset(shards)[1]["roles"], micro.roles[1])


def test_a_batch_with_roles_moves_as_a_whole(shards: Path) -> None:
    (micro,) = load_batch(open_data(shards), 0, 0, 1, 4).micro_batches
    moved = micro.to(torch.device("cpu"))
    assert moved.roles is not None
    assert torch.equal(moved.roles, micro.roles if micro.roles is not None else torch.empty(0))


@pytest.mark.parametrize("packing", ["best_fit", "document"])
def test_a_phase_that_would_cut_a_conversation_is_refused(shards: Path, packing: str) -> None:
    phase = Phase("short", 64, 16, 16, {"chat": 1.0}, packing=packing)  # type: ignore[arg-type]
    with pytest.raises(
        ScheduleError, match=r"source 'chat' holds a conversation of \d+ tokens, which sequences of 16 would cut"
    ):
        layout(Shards(shards), (phase,))

"""Packing: whole documents in sequences, found again from either side, each document once an epoch."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedule import Phase, Schedule, ScheduleConfig, ScheduleError, compile_schedule
from pipelines.schedule.packing import best_fit_decreasing, finder, layout, rows_of
from pipelines.shards import VERSION, Manifest, ShardError, Shards, write_manifest, write_shard

LENGTH = 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Two sources in several files; documents from 2 tokens to three sequences."""
    root, random, files = tmp_path_factory.mktemp("packing"), np.random.default_rng(1), []
    for source, counts in (("web", (40, 25, 60)), ("code", (30,))):
        for index, count in enumerate(counts):
            ids = [hashlib.blake2b(f"{source}{index}{i}".encode(), digest_size=16).digest() for i in range(count)]
            rows = [np.append(random.integers(1, 99, random.integers(1, 3 * LENGTH)), 0) for _ in ids]
            files.append(write_shard(root, source, "train", index, ids, rows, "uint16"))
    write_manifest(root, Manifest(VERSION, "uint16", 99, 0, "0" * 64, "test", "0", tuple(files)))
    return Shards(root)


def compiled(shards: Shards, *phases: Phase) -> Schedule:
    manifest = shards.manifest
    return compile_schedule(ScheduleConfig(phases), manifest.source_tokens(), manifest.fingerprint, layout(shards, phases))


def pieces(shards: Shards, schedule: Schedule, phase: int, index: int) -> tuple[str, list[tuple[int, int]]]:
    sample, made = schedule.sample(phase, index), schedule.config.phases[phase]
    counts = schedule.layout[sample.source].get(f"best_fit {LENGTH}", schedule.layout[sample.source].get("documents"))
    rows = rows_of(shards.stream(sample.source), made.packing, made.sequence_length, counts or ())
    return sample.source, [(int(a), int(n)) for a, n in rows.pieces(sample.start)]


def documents(shards: Shards, source: str) -> list[tuple[int, int]]:
    stream = shards.stream(source)
    return [(int(a), int(b - a)) for f in range(3 if source == "web" else 1) for a, b in _pairs(stream.bounds(f))]


def _pairs(bounds: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_best_fit_decreasing_is_what_its_definition_says(sizes: list[int]) -> None:
    rows: list[int] = []  # room left
    for size in sorted(sizes, reverse=True):
        fitting = [r for r in range(len(rows)) if rows[r] >= size]
        best = min(fitting, key=lambda r: rows[r], default=None)
        if best is None:
            rows.append(20 - size)
        else:
            rows[best] -= size
    row_of = best_fit_decreasing(np.array(sizes), 20)
    filled = np.bincount(row_of, weights=sizes)
    assert filled.max() <= 20
    assert sorted(20 - filled) == sorted(rows)


def test_an_epoch_of_best_fit_holds_every_token_once_and_cuts_long_documents_only(shards: Shards) -> None:
    rows = sum(layout(shards, [Phase("a", 1, LENGTH, LENGTH, {"web": 1}, packing="best_fit")])["web"][f"best_fit {LENGTH}"])
    schedule = compiled(shards, Phase("main", rows * LENGTH, LENGTH, LENGTH, {"web": 1}, packing="best_fit"))
    read: list[tuple[int, int]] = []
    for index in range(rows):
        source, parts = pieces(shards, schedule, 0, index)
        assert source == "web"
        assert sum(n for _, n in parts) <= LENGTH
        assert parts == sorted(parts)
        read += parts
    tokens = Counter(t for start, length in read for t in range(start, start + length))
    assert tokens == Counter(range(schedule.source_tokens["web"]))
    whole = {d for d in documents(shards, "web") if d[1] <= LENGTH}
    assert whole <= set(read)
    assert rows * LENGTH <= 1.2 * schedule.source_tokens["web"]  # of 125 documents; of many, 1.0001
    assert [row.epochs for row in schedule.epochs()] == [1.0]
    long_first = [max(n for _, n in pieces(shards, schedule, 0, i)[1]) for i in range(rows)]
    assert long_first != sorted(long_first, reverse=True)  # the order of packing is not that of training


def test_a_document_a_row(shards: Shards) -> None:
    schedule = compiled(shards, Phase("sft", 125 * LENGTH, LENGTH, LENGTH, {"web": 1}, packing="document"))
    read = [pieces(shards, schedule, 0, i)[1] for i in range(125)]
    assert read == [[(start, min(length, LENGTH))] for start, length in documents(shards, "web")]


@pytest.mark.parametrize("packing", ["best_fit", "document", "concatenate"])
def test_from_a_document_to_the_steps_that_read_it_and_back(shards: Shards, packing: str) -> None:
    phases = (
        Phase("short", 40 * LENGTH, LENGTH, 4 * LENGTH, {"web": 2, "code": 1}),
        Phase("main", 400 * LENGTH, LENGTH, 4 * LENGTH, {"web": 1, "code": 1}, packing=packing),  # type: ignore[arg-type]
    )
    schedule, find = compiled(shards, *phases), None
    find = finder(shards, schedule.layout) if packing != "concatenate" else None
    seen: dict[tuple[str, int], set[int]] = {}
    for step in range(schedule.total_steps):
        plan = schedule.step_plan(step)
        for index in range(plan.first_sample, plan.first_sample + plan.samples):
            sample = schedule.sample(plan.phase, index)
            size = schedule.source_tokens[sample.source]
            if schedule.config.phases[plan.phase].packing == "concatenate":
                parts = [(sample.start, LENGTH + 1)]  # and the last target
            else:
                parts = [_read(shards, sample.source, p) for p in pieces(shards, schedule, plan.phase, index)[1]]
            for start, length in parts:
                for token in range(start, start + length):
                    seen.setdefault((sample.source, token % size), set()).add(step)
    for source in ("web", "code"):
        for start, length in documents(shards, source)[::7]:
            expected = set().union(*(seen.get((source, t), set()) for t in range(start, start + length)))
            assert schedule.steps_seeing(source, start, length, find) == sorted(expected)
    if packing != "concatenate":
        with pytest.raises(ScheduleError, match="phase 'main' packs documents; give `rows` to find them"):
            schedule.steps_seeing("web", 0, 1)


def _read(shards: Shards, source: str, piece: tuple[int, int]) -> tuple[int, int]:
    """A piece with its last target, which it has where its document goes on."""
    start, length = piece
    ends = {a + n for a, n in documents(shards, source)}
    return start, length + (start + length not in ends)


def test_another_packing_begins_at_the_next_file(shards: Shards) -> None:
    tokens = {f.path: f.tokens for f in shards.manifest.files}
    first = tokens["web/train-00000.arrow"]
    steps = first // LENGTH - 1  # ends inside the first file
    schedule = compiled(
        shards,
        Phase("cut", steps * LENGTH, LENGTH, LENGTH, {"web": 1}),
        Phase("packed", 10 * LENGTH, LENGTH, LENGTH, {"web": 1}, packing="best_fit"),
        Phase("again", 10 * LENGTH, LENGTH, LENGTH, {"web": 1}, packing="best_fit"),
        Phase("cut again", 10 * LENGTH, LENGTH, LENGTH, {"web": 1}),
    )
    rows = schedule.layout["web"][f"best_fit {LENGTH}"]
    assert [schedule.sample(1, i).start for i in range(10)] == list(range(rows[0], rows[0] + 10))
    assert schedule.sample(2, 0).start == rows[0] + 10  # the same packing goes on where it was
    assert schedule.sample(3, 0).start == first + tokens["web/train-00001.arrow"]
    left = [row.left for row in schedule.epochs()]
    assert left[:3] == [0, pytest.approx((first - steps * LENGTH) / schedule.source_tokens["web"]), 0]
    assert schedule.epochs()[3].epochs_after == pytest.approx(
        (first + tokens["web/train-00001.arrow"] + 10 * LENGTH) / schedule.source_tokens["web"]
    )
    assert Schedule.from_json(schedule.to_json()) == schedule


def test_what_does_not_fit_is_refused(shards: Shards) -> None:
    phase = Phase("main", 10 * LENGTH, LENGTH, LENGTH, {"web": 1}, packing="best_fit")
    with pytest.raises(ScheduleError, match=f"must know how many best_fit {LENGTH} each file of source 'web' has"):
        compile_schedule(ScheduleConfig((phase,)), shards.manifest.source_tokens())
    with pytest.raises(ShardError, match="the schedule says 7; it was compiled for other shards"):
        rows_of(shards.stream("web"), "best_fit", LENGTH, (7, 7, 7)).pieces(0)
    with pytest.raises(ValueError, match="packing 'first_fit' is none of concatenate, best_fit, document"):
        Phase("main", 1, 1, 1, {"web": 1}, packing="first_fit")  # type: ignore[arg-type]

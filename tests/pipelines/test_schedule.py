"""The compiled schedule: exact shares, no token skipped or repeated, the same on any number of ranks; refused if impossible."""

import dataclasses
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedule import Phase, Schedule, ScheduleConfig, ScheduleError, compile_schedule, read_schedule, write_schedule

SOURCES = ("books", "code", "math", "web", "zh")


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    tokens = {s: draw(st.integers(1, 5_000)) for s in SOURCES[: draw(st.integers(1, len(SOURCES)))]}
    phases = []
    for number in range(draw(st.integers(1, 4))):
        length, samples = draw(st.sampled_from([1, 7, 16, 33])), draw(st.sampled_from([1, 2, 6, 8, 12]))
        weights = {s: draw(st.sampled_from([0.0, 1.0, 5.0, 0.3, 0.07, 1e-3, 1e-9])) for s in tokens}
        weights[draw(st.sampled_from(sorted(tokens)))] = 1.0
        budget = draw(st.integers(length * samples, length * samples * 60))
        phases.append(Phase(f"phase {number}", budget, length, length * samples, weights))
    return compile_schedule(ScheduleConfig(tuple(phases), seed=draw(st.integers(-3, 3))), tokens, "abc")


def read(schedule: Schedule, step: int) -> list[tuple[str, int, int]]:
    """(source, position in the unrolled stream, length) of a step's samples."""
    plan = schedule.step_plan(step)
    many = schedule.samples(plan.phase, plan.first_sample, plan.samples)
    names = [many.sources[i] for i in many.source]
    return [
        (s, int(e) * schedule.source_tokens[s] + int(b), many.length)
        for s, b, e in zip(names, many.start, many.epoch, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_no_token_of_a_source_is_skipped_or_repeated(schedule: Schedule) -> None:
    reached = dict.fromkeys(schedule.source_tokens, 0)
    for step in range(schedule.total_steps):
        for source, position, length in sorted(read(schedule, step)):
            assert position == reached[source], f"step {step}, {source}"
            reached[source] += length
    assert sum(reached.values()) == schedule.total_tokens
    for row in schedule.epochs():
        assert row.epochs_after <= reached[row.source] / schedule.source_tokens[row.source] + 1e-9


@settings(max_examples=60, deadline=None)
@given(schedules(), st.sampled_from([1, 2, 3, 4, 6]))
def test_any_slicing_gives_the_same_union(schedule: Schedule, ranks: int) -> None:
    for number, phase in enumerate(schedule.config.phases):
        count = phase.tokens // phase.batch_tokens * (phase.batch_tokens // phase.sequence_length)
        whole = schedule.samples(number, 0, count)
        cuts = [count * r // ranks for r in range(ranks + 1)]
        parts = [schedule.samples(number, a, b - a) for a, b in pairwise(cuts)]
        for field in ("source", "start", "epoch"):
            np.testing.assert_array_equal(np.concatenate([getattr(p, field) for p in parts]), getattr(whole, field))
        for index in range(0, count, max(1, count // 5)):
            one = schedule.sample(number, index)
            assert one.source == whole.sources[whole.source[index]]
            assert (one.start, one.epoch, one.length) == (whole.start[index], whole.epoch[index], phase.sequence_length)


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_shares_are_exact_to_two_samples_after_every_step(schedule: Schedule) -> None:
    for number, phase in enumerate(schedule.config.phases):
        samples, weights = phase.batch_tokens // phase.sequence_length, dict(phase.weights)
        steps = phase.tokens // phase.batch_tokens
        many = schedule.samples(number, 0, steps * samples)
        for index, source in enumerate(many.sources):
            after = np.cumsum(many.source == index)[samples - 1 :: samples]
            ideal = np.arange(1, steps + 1) * samples * weights[source] / sum(weights.values())
            assert np.abs(after - ideal).max() < 2


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_the_cursor_is_one_integer(schedule: Schedule) -> None:
    before = 0
    for step in range(schedule.total_steps):
        plan = schedule.step_plan(step)
        assert (plan.step, plan.tokens_before, schedule.step_at(before)) == (step, before, step)
        before += plan.samples * plan.sequence_length
    assert before == schedule.total_tokens
    assert schedule.step_at(before) == schedule.total_steps


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_json_round_trip(schedule: Schedule) -> None:
    again = Schedule.from_json(schedule.to_json())
    assert again == schedule
    assert again.to_json() == schedule.to_json()
    assert again.config == schedule.config


@settings(max_examples=40, deadline=None)
@given(schedules(), st.data())
def test_steps_seeing_is_the_reverse_of_reading(schedule: Schedule, data: st.DataObject) -> None:
    seen = defaultdict(set)
    for step in range(schedule.total_steps):
        for source, position, length in read(schedule, step):
            for token in range(position, position + length + 1):  # the last is read as a target
                seen[source, token % schedule.source_tokens[source]].add(step)
    for source, size in schedule.source_tokens.items():
        start, length = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 60))
        expected = set().union(*(seen[source, (start + i) % size] for i in range(length)))
        assert schedule.steps_seeing(source, start, length) == sorted(expected)


def test_a_longer_budget_leaves_the_first_part_as_it_was() -> None:
    phase = Phase("main", 64_000, 16, 128, {"web": 3, "code": 1})
    tokens = {"web": 10_000, "code": 900}
    short = compile_schedule(ScheduleConfig((phase,)), tokens)
    long = compile_schedule(ScheduleConfig((dataclasses.replace(phase, tokens=128_000),)), tokens)
    assert [read(short, s) for s in range(short.total_steps)] == [read(long, s) for s in range(short.total_steps)]


def test_a_rank_does_not_always_get_the_same_source() -> None:
    schedule = compile_schedule(ScheduleConfig((Phase("main", 64_000, 16, 128, {"a": 1, "b": 1}),)), {"a": 50_000, "b": 50_000})
    many = schedule.samples(0, 0, 4000).source.reshape(-1, 8)
    assert (many.sum(axis=1) == 4).all()
    assert ((many.mean(axis=0) > 0.4) & (many.mean(axis=0) < 0.6)).all()


def test_fifteen_trillion_tokens_are_addressed_at_once() -> None:
    tokens = {f"s{i}": 10**12 for i in range(20)}
    phase = Phase("main", 15 * 10**12, 4096, 4096 * 4096, {s: i + 1 for i, s in enumerate(tokens)})
    schedule = compile_schedule(ScheduleConfig((phase,)), tokens)
    last = schedule.step_plan(schedule.total_steps - 1)
    many = schedule.samples(0, last.first_sample, last.samples)
    for index, source in enumerate(many.sources):
        reached = max(many.start[many.source == index] + many.epoch[many.source == index] * tokens[source]) + 4096
        row = next(r for r in schedule.epochs() if r.source == source)
        assert reached == row.tokens
        assert abs(row.samples - schedule.total_tokens / 4096 * (int(source[1:]) + 1) / 210) < 2


def test_epochs_table() -> None:
    main = Phase("main", 800, 10, 100, {"web": 3, "code": 1})
    anneal = Phase("anneal", 199, 10, 50, {"code": 1, "web": 0}, max_epochs={"code": 4})
    schedule = compile_schedule(ScheduleConfig((main, anneal)), {"web": 1200, "code": 100, "unused": 0})
    rows = [
        (r.phase, r.source, r.samples, r.tokens, r.share, r.epochs, r.epochs_after, r.max_epochs) for r in schedule.epochs()
    ]
    assert rows == [
        ("main", "code", 20, 200, 0.25, 2.0, 2.0, None),
        ("main", "web", 60, 600, 0.75, 0.5, 0.5, None),
        ("anneal", "code", 15, 150, 1.0, 1.5, 3.5, 4.0),
    ]
    assert (schedule.total_steps, schedule.total_tokens) == (8 + 3, 800 + 150)


PHASE = Phase("main", 1000, 10, 100, {"web": 1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": {"books": 1}}, "source 'books' is not in the shards; they have code, empty, web"),
        ({"max_epochs": {"books": 1}}, "source 'books' is not in the shards"),
        ({"weights": {"web": 0, "code": 0}}, "do not sum to something positive"),
        ({"weights": {}}, "do not sum to something positive"),
        ({"weights": {"web": -1}}, "give each source a weight of 0 or more"),
        ({"weights": {"web": float("nan")}}, "give each source a weight of 0 or more"),
        ({"weights": {"web": 1, "empty": 1}}, "source 'empty' has weight 1 and no tokens"),
        ({"batch_tokens": 95}, "batch_tokens 95 is no multiple of sequence_length 10; take 100"),
        ({"tokens": 99}, "a budget of 99 tokens is shorter than one batch of 100"),
        ({"tokens": 10**15, "sequence_length": 1}, "a phase holds fewer than"),
        (
            {"weights": {"web": 1, "code": 1}, "max_epochs": 2},
            "reads 500 tokens of source .code., which has 200: 2.5 epochs, 2.5 in all, allowed are 2; "
            r"lower the phase.s tokens or its share of them \(0.5\) to 0.8 times, "
            "or raise its max_epochs to 2.5, or add code data",
        ),
    ],
)
def test_an_impossible_plan_is_refused_with_the_numbers(change: dict[str, object], message: str) -> None:
    phase = dataclasses.replace(PHASE, **change)  # type: ignore[arg-type]
    with pytest.raises(ScheduleError, match=message):
        compile_schedule(ScheduleConfig((phase,)), {"web": 600, "code": 200, "empty": 0})


def test_epoch_caps_count_what_earlier_phases_read() -> None:
    first, second = dataclasses.replace(PHASE, max_epochs=1), dataclasses.replace(PHASE, name="second", max_epochs=1)
    compile_schedule(ScheduleConfig((first, dataclasses.replace(second, max_epochs=None))), {"web": 1000})
    with pytest.raises(ScheduleError, match=r"'second' .*: 1 epochs, 2 in all, allowed are 1; raise its max_epochs to 2"):
        compile_schedule(ScheduleConfig((first, second)), {"web": 1000})


def test_no_phases_and_two_of_one_name() -> None:
    with pytest.raises(ScheduleError, match="has no phases"):
        compile_schedule(ScheduleConfig(()), {"web": 1})
    with pytest.raises(ScheduleError, match="two phases have one name"):
        compile_schedule(ScheduleConfig((PHASE, PHASE)), {"web": 5000})


def test_outside_of_the_schedule() -> None:
    schedule = compile_schedule(ScheduleConfig((PHASE,)), {"web": 600})
    for call, message in [
        (lambda: schedule.step_plan(10), "step 10 is outside of the schedule's 10 steps"),
        (lambda: schedule.step_at(1001), "1001 tokens are outside"),
        (lambda: schedule.step_at(250), "250 tokens are on no step boundary: phase 'main' starts at 0 and takes 100 a step"),
        (lambda: schedule.samples(0, 99, 2), "samples 99 to 101 are outside of the 100 of phase 0"),
        (lambda: schedule.steps_seeing("books", 0, 1), "no source 'books'; it has web"),
    ]:
        with pytest.raises(ScheduleError, match=message):
            call()  # type: ignore[no-untyped-call]


def test_written_and_read_for_the_shards_it_was_compiled_for(tmp_path: Path) -> None:
    schedule = compile_schedule(ScheduleConfig((PHASE,)), {"web": 600}, "a" * 64)
    path = tmp_path / "schedule.json"
    with pytest.raises(ScheduleError, match="plan the recipe first"):
        read_schedule(path)
    write_schedule(path, schedule)
    assert read_schedule(path, "a" * 64) == schedule
    with pytest.raises(ScheduleError, match="compiled for shards aaaaaaaaaaaa, not bbbbbbbbbbbb"):
        read_schedule(path, "b" * 64)
    path.write_text(schedule.to_json().replace('"total_steps": 10', '"total_steps": 9'))
    with pytest.raises(ScheduleError, match="was edited after it was compiled"):
        read_schedule(path)
    path.write_text("[]")
    with pytest.raises(ScheduleError, match="this is no schedule"):
        read_schedule(path)

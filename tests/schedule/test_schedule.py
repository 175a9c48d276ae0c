"""The compiled schedule: exact shares, no token skipped or repeated, the same on any number of ranks; refused if impossible."""

import dataclasses
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.schedule import (
    Phase,
    Piece,
    Schedule,
    ScheduleConfig,
    ScheduleError,
    by_epochs,
    compile_schedule,
    draft,
    ramp,
    read_schedule,
    write_schedule,
)
from pipelines.schedule.mixture import build_tree, largest_error

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
    return compile_schedule(ScheduleConfig(tuple(phases)), tokens, "abc")


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
def test_shares_are_exact_to_about_a_sample_at_every_prefix(schedule: Schedule) -> None:
    assert schedule.largest_error < 1.01  # five sources; with dozens of them 1.4
    for number, phase in enumerate(schedule.config.phases):
        weights, total = dict(phase.weights), phase.tokens // phase.batch_tokens * (phase.batch_tokens // phase.sequence_length)
        many = schedule.samples(number, 0, total)
        for index, source in enumerate(many.sources):
            ideal = np.arange(1, total + 1) * weights[source] / sum(weights.values())
            assert np.abs(np.cumsum(many.source == index) - ideal).max() <= schedule.largest_error + 1e-6


@pytest.mark.parametrize(("sources", "error"), [(1, 0.0), (2, 0.5), (4, 1.0), (6, 1.01), (20, 1.4), (300, 1.4)])
def test_the_error_of_a_mixture_grows_little_with_its_sources(sources: int, error: float) -> None:
    random = np.random.default_rng(sources)
    for weights in (random.random(sources), random.dirichlet(np.ones(sources)) + 1e-6, 0.9 ** np.arange(sources)):
        tree = build_tree({f"s{i}": float(w) for i, w in enumerate(weights)})
        assert largest_error(tree) <= error


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


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_a_cursor_gives_the_sample_and_marks_the_ends_of_epochs(schedule: Schedule) -> None:
    cursor = 0
    for step in range(schedule.total_steps):
        for source, position, length in read(schedule, step):
            size, pieces = schedule.source_tokens[source], schedule(cursor)
            assert [p.source for p in pieces] == [source] * len(pieces)
            assert all(0 <= p.offset < p.offset + p.length <= size for p in pieces)  # none crosses an epoch's end
            tokens = [p.epoch * size + p.offset + i for p in pieces for i in range(p.length)]
            assert tokens == list(range(position, position + length))
            cursor += length
    assert cursor == schedule.total_tokens
    for wrong in (-1, cursor):
        with pytest.raises(ScheduleError, match=f"cursor {wrong} is no sample's beginning"):
            schedule(wrong)


def test_a_sample_across_an_epochs_end_has_two_pieces() -> None:
    schedule = compile_schedule(ScheduleConfig((Phase("main", 40, 8, 8, {"web": 1}),)), {"web": 20})
    assert schedule(8) == [Piece("web", 0, 8, 8)]
    assert schedule(16) == [Piece("web", 0, 16, 4), Piece("web", 1, 0, 4)]
    with pytest.raises(ScheduleError, match="cursor 12 is no sample's beginning: phase 'main' starts at 0 with samples of 8"):
        schedule(12)


MAIN = Phase("main", 64_000, 16, 128, {"web": 3, "code": 1})
ANNEALING = Phase("annealing", 16_000, 16, 128, {"web": 1, "code": 1})
TOKENS = {"web": 10_000, "code": 900}


def test_a_longer_budget_leaves_the_first_part_as_it_was() -> None:
    short = compile_schedule(ScheduleConfig((MAIN, ANNEALING)), TOKENS)
    long = compile_schedule(ScheduleConfig((dataclasses.replace(MAIN, tokens=128_000), ANNEALING)), TOKENS)
    assert [read(short, s) for s in range(500)] == [read(long, s) for s in range(500)]
    assert [short.prefix(n) == long.prefix(n) for n in (0, 128, 64_000, 64_128)] == [True, True, True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"web": 2, "code": 1}},
        {"sequence_length": 32},
        {"batch_tokens": 160},
        {"packing": "document"},
    ],
)
def test_another_past_has_another_name(change: dict[str, object]) -> None:
    layout = {s: {"tokens": [n], "documents": [n // 10]} for s, n in TOKENS.items()}
    before = compile_schedule(ScheduleConfig((MAIN, ANNEALING)), TOKENS)
    other = dataclasses.replace(MAIN, **change)  # type: ignore[arg-type]
    after = compile_schedule(ScheduleConfig((other, ANNEALING)), TOKENS, "", layout)
    assert before.prefix(0) == after.prefix(0)
    assert before.prefix(640) != after.prefix(640)
    same = dataclasses.replace(MAIN, name="renamed", max_epochs=1000.0)
    assert before.prefix(64_128) == compile_schedule(ScheduleConfig((same, ANNEALING)), TOKENS).prefix(64_128)


def test_a_pattern_stands_for_a_class_of_sources() -> None:
    tokens = {"web-en": 6000, "web-zh": 2000, "web-zh-x2": 500, "books": 1000, "web-en-math": 400, "code-math": 100}
    weights = {"web-*": 0.5, "web-en-math": 0.1, "code-math": 0.15, "books": 0.25}
    phase = Phase("main", 900_000, 10, 100, weights, max_epochs={"web-*": 300, "books": 250})
    rows = {r.source: r for r in compile_schedule(ScheduleConfig((phase,)), tokens).epochs()}
    shares = {"web-en": 1 / 3, "web-zh": 1 / 9, "web-zh-x2": 1 / 18, "web-en-math": 0.1, "code-math": 0.15, "books": 0.25}
    assert {s: r.share for s, r in rows.items()} == pytest.approx(shares, abs=1e-4)
    assert rows["web-zh-x2"].epochs == pytest.approx(2 * rows["web-zh"].epochs, rel=1e-3)  # wanted twice
    caps = {"web-en": 300, "web-zh": 300, "web-zh-x2": 600, "web-en-math": 300, "code-math": None, "books": 250}
    assert {s: r.max_epochs for s, r in rows.items()} == caps


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"*-math": 1}, "no source that has tokens matches '\\*-math'; the shards have code, empty-1, web"),
        ({"e*": 1, "web": 1}, "no source that has tokens matches 'e\\*'"),
        ({"w*": 1, "*b": 1}, "source 'web' is of '\\*b' and of 'w\\*'; name it by itself too"),
    ],
)
def test_a_pattern_without_tokens_or_with_rivals_is_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        compile_schedule(ScheduleConfig((Phase("main", 100, 10, 100, weights),)), {"web": 600, "code": 200, "empty-1": 0})


def test_up_and_down_sampling_by_epochs() -> None:
    tokens = {"web-en": 60_000, "web-zh": 20_000, "books": 10_000}
    weights = by_epochs({"web-*": 0.5, "books": 3}, tokens)
    assert weights == {"web-en": 30_000, "web-zh": 10_000, "books": 30_000}
    schedule = compile_schedule(ScheduleConfig((Phase("main", int(sum(weights.values())), 10, 100, weights),)), tokens)
    assert {r.source: r.epochs for r in schedule.epochs()} == pytest.approx(
        {"web-en": 0.5, "web-zh": 0.5, "books": 3}, rel=1e-3
    )


def test_a_ramp_is_phases_with_growing_batches() -> None:
    main = Phase("main", 10_000, 10, 100, {"web": 1})
    phases = ramp(main, ((0, 100), (2_000, 200), (6_000, 400)))
    assert [(p.name, p.tokens, p.batch_tokens) for p in phases] == [
        ("main, batch 100", 2_000, 100),
        ("main, batch 200", 4_000, 200),
        ("main", 4_000, 400),
    ]
    schedule = compile_schedule(ScheduleConfig(phases), {"web": 50_000})
    assert [schedule.step_plan(s).samples for s in (0, 19, 20, 39, 40, 49)] == [10, 10, 20, 20, 40, 40]
    assert [schedule(c)[0].offset for c in range(0, 10_000, 10)] == list(range(0, 10_000, 10))
    for wrong in ((), ((100, 100),), ((0, 100), (0, 200)), ((0, 100), (10_000, 200))):
        with pytest.raises(ScheduleError, match="must start at 0, ascend and end before 10000 tokens"):
            ramp(main, wrong)


def test_a_draft_may_pass_its_bounds_and_says_which() -> None:
    phase = Phase("main", 1000, 10, 100, {"web": 1, "code": 1}, max_epochs=0.5)
    schedule = draft(ScheduleConfig((phase,)), {"web": 600, "code": 200})
    assert [line.split(":")[0] for line in schedule.violations()] == [
        "phase 'main' reads 500 tokens of source 'code', which has 200",
        "phase 'main' reads 500 tokens of source 'web', which has 600",
    ]


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
        (lambda: schedule.samples(0, 99, 2), "samples 99 to 101 are outside of the 100 of phase 'main'"),
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

"""The phases of published models compile, with the figures of their papers."""

import pytest

from pipelines.schedule import compile_schedule
from pipelines.schedule.phases import ScheduleConfig
from pipelines.schedule.presets import bloom, deepseek_llm, gpt3, llama3

TOKENS = {"web-en-general": 9 * 10**12, "web-en-math": 10**12, "code": 2 * 10**12, "multi-zh": 4 * 10**12, "books-long": 10**11}
MIXTURE = {"*-general": 0.5, "*-math": 0.25, "code": 0.17, "multi-*": 0.08}


def test_llama_3() -> None:
    schedule = compile_schedule(ScheduleConfig(llama3(MIXTURE, {"books-long": 1, "*-math": 1})), TOKENS)
    phases = schedule.config.phases
    assert [(p.name, p.sequence_length, p.batch_tokens) for p in phases] == [
        ("main, 4096 x 1024", 4096, 4 << 20),
        ("main, 8192 x 1024", 8192, 8 << 20),
        ("main, 8192 x 2048", 8192, 16 << 20),
        ("context 16384", 1 << 14, 16 << 20),
        ("context 32768", 1 << 15, 16 << 20),
        ("context 65536", 1 << 16, 16 << 20),
        ("context 131072", 1 << 17, 16 << 20),
        ("annealing", 1 << 17, 16 << 20),
    ]
    assert schedule.total_tokens == pytest.approx(15.6e12, rel=1e-5)
    assert 0.9e6 < schedule.total_steps < 1.2e6
    shares = {r.source: r.share for r in schedule.epochs() if r.phase == "main, 8192 x 2048"}
    expected = {"code": 0.17, "multi-zh": 0.08, "web-en-general": 0.5, "web-en-math": 0.25}
    assert shares == pytest.approx(expected, abs=1e-6)


def test_deepseek_llm_goes_on_from_its_plateau_with_another_budget() -> None:
    short, long = (compile_schedule(ScheduleConfig(deepseek_llm(MIXTURE, n * 10**12)), TOKENS) for n in (2, 3))
    assert short.step_plan(0).samples == 2304
    plateau = short.step_plan(short.total_steps * 8 // 10).tokens_before
    assert short.prefix(plateau) == long.prefix(plateau)


@pytest.mark.parametrize(
    ("make", "first", "second", "last", "ramp"), [(gpt3, 16, 118, 1546, 12e9), (bloom, 192, 208, 2048, 9_765_625 * 2048)]
)
def test_a_batch_that_grows(make: object, first: int, second: int, last: int, ramp: float) -> None:
    phases = make(MIXTURE)  # type: ignore[operator]
    batches = [p.batch_tokens // p.sequence_length for p in phases]
    assert (batches[0], batches[1], batches[-1]) == (first, second, last)
    assert batches == sorted(batches)
    assert sum(p.tokens for p in phases[:-1]) == ramp
    schedule = compile_schedule(ScheduleConfig(phases), TOKENS)
    assert schedule.total_tokens == pytest.approx(sum(p.tokens for p in phases), rel=1e-3)

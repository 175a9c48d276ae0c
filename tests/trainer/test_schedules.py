from pathlib import Path

import pytest

from pipelines.schedule import Phase, Schedule, ScheduleConfig, compile_schedule
from trainer.config import Cosine, LearningRate, MultiStep, WarmupStableDecay
from trainer.data import open_data
from trainer.errors import UserError
from trainer.recipes.deepseek_llm import deepseek_llm
from trainer.recipes.llama3 import llama3_405b
from trainer.schedules import curve


def _schedule(*phases: tuple[str, int, int]) -> Schedule:
    """Phases of (name, steps, batch tokens)."""
    made = tuple(Phase(name, steps * batch, 4096, batch, {"web": 1.0}) for name, steps, batch in phases)
    return compile_schedule(ScheduleConfig(made), {"web": 10**15})


DEEPSEEK_BATCH = 2304 * 4096


@pytest.mark.parametrize(
    ("step", "fraction"),
    [(0, 0.0), (500, 0.25), (2000, 1.0), (169_599, 1.0), (169_600, 0.316), (190_799, 0.316), (190_800, 0.1), (212_000, 0.1)],
)
def test_deepseek_drops_to_a_third_at_80_and_to_a_tenth_at_90_percent(step: int, fraction: float) -> None:
    rate = curve(deepseek_llm().learning_rate, _schedule(("main", 212_000, DEEPSEEK_BATCH)))
    assert rate(step * DEEPSEEK_BATCH) == pytest.approx(4.2e-4 * fraction)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(4000, 4e-5), (8000, 8e-5), (604_000, 4.04e-5), (1_200_000, 8e-7), (1_200_500, 4e-7), (1_201_000, 0.0)],
)
def test_llama_goes_by_cosine_to_a_hundredth_and_then_linearly_to_zero(step: int, rate: float) -> None:
    batch = 4 << 20
    of = curve(llama3_405b().learning_rate, _schedule(("main", 1_200_000, batch), ("annealing", 1000, batch)))
    assert of(step * batch) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(("tokens", "fraction"), [(5, 0.5), (10, 1.0), (80, 1.0), (90, 0.55), (100, 0.1)])
def test_warm_up_stable_decay(tokens: int, fraction: float) -> None:
    cfg = LearningRate(1.0, 10, WarmupStableDecay(decay=0.2, final=0.1))
    assert curve(cfg, _schedule(("main", 100, 4096)))(tokens * 4096) == pytest.approx(fraction)


def test_warm_up_is_counted_in_steps_of_a_growing_batch() -> None:
    of = curve(LearningRate(1.0, 20, Cosine()), _schedule(("small", 10, 4096), ("large", 100, 8192)))
    assert of(10 * 4096 + 10 * 8192) == pytest.approx(1.0)
    assert of(10 * 4096) == pytest.approx(1 / 3)


def test_a_step_takes_the_rate_at_its_middle_so_none_is_wasted() -> None:
    of = curve(LearningRate(1.0, 2, MultiStep(()), "annealing"), _schedule(("main", 8, 4096), ("annealing", 2, 4096)))
    rates = [of.of_step(step * 4096, 4096) for step in range(10)]
    assert rates == pytest.approx([0.25, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.25])


@pytest.mark.parametrize("name", ["main", "cooldown"])
def test_annealing_must_be_the_last_phase(name: str, shards: Path) -> None:
    with pytest.raises(UserError, match=f"'{name}', but the schedule's phases are main, annealing"):
        curve(LearningRate(1.0, 2, MultiStep(), name), open_data(shards).schedule)

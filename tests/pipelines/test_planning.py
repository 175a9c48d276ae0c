"""What `plan` shows of a schedule, over shards or over sizes that are given."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.errors import UserError
from pipelines.planning import planned_schedule, print_schedule
from pipelines.recipe import load_recipe
from pipelines.run import make_plan
from pipelines.rundir import RunDir
from pipelines.schedule import Phase, Schedule, ScheduleConfig, draft

DEMO = load_recipe("demo")
SIZES = ("web-en=9e5", "web-zh=300000", "books=1e6", "code=2e5", "math=1e5")


def printed(schedule: Schedule) -> list[str]:
    out = io.StringIO()
    print_schedule(schedule, Console(file=out, width=140))
    return out.getvalue().splitlines()


def test_a_schedule_is_planned_before_the_shards_are_there(tmp_path: Path) -> None:
    schedule = planned_schedule(make_plan(DEMO), RunDir(tmp_path), SIZES)
    assert schedule is not None
    assert schedule.source_tokens == {"books": 10**6, "code": 200_000, "math": 100_000, "web-en": 900_000, "web-zh": 300_000}
    assert (schedule.total_steps, schedule.total_tokens) == (487, 997_376)
    assert planned_schedule(make_plan(DEMO), RunDir(tmp_path), ()) is None


@pytest.mark.parametrize("packing", ["best_fit", "document"])
def test_packed_phases_are_planned_as_if_full(packing: str, tmp_path: Path) -> None:
    phase = Phase("main", 100_000, 256, 2048, {"web": 1}, packing=packing)  # type: ignore[arg-type]
    recipe = replace(DEMO, schedule=ScheduleConfig((phase,)))
    schedule = planned_schedule(make_plan(recipe), RunDir(tmp_path), ("web=200000",))
    assert schedule is not None
    assert schedule.epochs()[0].epochs == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("given", ["web", "=5", "web=many", "web=-3"])
def test_a_size_that_is_none(given: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not SOURCE=TOKENS, e\.g\. --tokens"):
        planned_schedule(make_plan(DEMO), RunDir(tmp_path), (given,))


def test_phases_are_drawn_and_bounds_that_are_passed_stand_out() -> None:
    main = Phase("main", 800, 10, 100, {"web": 3, "code": 1})
    last = Phase("last", 400, 10, 50, {"code": 1}, max_epochs={"code": 4})
    lines = printed(draft(ScheduleConfig((main, last)), {"web": 1200, "code": 100, "spare": 7}))
    assert lines[0] == "schedule: 1,200 tokens in 16 steps; shares are exact to 0.5 sequences at every step"
    rows = [line.split() for line in lines]
    assert ["main", "800", "8", "10", "100", "concatenate", "a" * 12 + "c" * 36] in rows
    assert ["last", "400", "8", "10", "50", "concatenate", "a" * 48] in rows
    assert ["main", "a", "code", "25.00%", "200", "100", "2", "2"] in rows
    assert ["c", "web", "75.00%", "600", "1,200", "0.5", "0.5"] in rows
    assert ["last", "a", "code", "100.00%", "400", "100", "4", "6", "4", "too", "often"] in rows
    assert lines[-1] == "not read: spare"

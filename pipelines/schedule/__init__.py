"""The schedule: phases and mixtures compiled into arithmetic on one integer, the same on any number of processes.

| module | what it knows |
| --- | --- |
| phases.py | what a recipe says: budget, length, batch, mixture by source or pattern, packing; ways to write phases |
| presets.py | the phases of published models |
| mixture.py | which source a sample is of: a tree of two-way splits |
| compiled.py | a phase compiled: where each source stands |
| schedule.py | all phases: from tokens seen to samples, from tokens to steps, schedule.json |
| packing.py | which documents share a sequence |
"""

from pipelines.schedule.compiled import EpochRow, Layout, Samples, unit_of
from pipelines.schedule.phases import Phase, ScheduleConfig, ScheduleError, by_epochs, copies, ramp, rehydrated, with_copies
from pipelines.schedule.schedule import (
    Piece,
    Sample,
    Schedule,
    StepPlan,
    compile_schedule,
    draft,
    read_schedule,
    write_schedule,
)

__all__ = [
    "EpochRow",
    "Layout",
    "Phase",
    "Piece",
    "Sample",
    "Samples",
    "Schedule",
    "ScheduleConfig",
    "ScheduleError",
    "StepPlan",
    "by_epochs",
    "compile_schedule",
    "copies",
    "draft",
    "ramp",
    "read_schedule",
    "rehydrated",
    "unit_of",
    "with_copies",
    "write_schedule",
]

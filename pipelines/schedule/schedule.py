"""The schedule: which tokens a training step reads, compiled from phases and mixtures into arithmetic on one integer.

A phase is `steps x samples a step`; `mixture.py` says which source each of its samples is of. The n-th sample of a source
reads on where its (n-1)-th ended, across phases too, so within a source no token is skipped or repeated until its stream
wraps. Nothing depends on the number of ranks, and nothing is looked up that grows with the samples.

    schedule = compile_schedule(cfg, manifest.source_tokens(), manifest.fingerprint)
    schedule(tokens_seen)                                   # the sample that comes next: [(source, epoch, offset, length)]
    plan = schedule.step_plan(schedule.step_at(tokens_seen))
    mine = schedule.samples(plan.phase, plan.first_sample + rank * share, share)

A phase that packs documents counts rows of its packing (`packing.py`) where others count tokens.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipelines.schedule.compiled import EpochRow, Layout, Samples, compile_phases
from pipelines.schedule.mixture import largest_error
from pipelines.schedule.phases import (
    Phase,
    ScheduleConfig,
    ScheduleError,
    check_phase,
    weights_of,
)
from pipelines.shards.manifest import write_atomic

VERSION = 2

# (source, phase, start, length) -> the rows of the phase's packing that hold a token of [start, start + length) of the stream
FindRows = Callable[[str, Phase, int, int], Iterable[int]]


@dataclass(frozen=True)
class StepPlan:
    """One optimiser step: samples [first_sample, first_sample + samples) of phase number `phase`."""

    step: int
    phase: int
    first_sample: int
    samples: int
    sequence_length: int
    tokens_before: int


@dataclass(frozen=True)
class Sample:
    """`length` tokens from position `start` of a source's stream; with next-token targets read length + 1 (it wraps).

    In a phase that packs, `start` is a row of the packing (packing.rows_of), which holds up to `length` tokens.
    """

    source: str
    start: int
    length: int
    epoch: int


@dataclass(frozen=True)
class Piece:
    """What a sample reads of one epoch of a source. A sample that crosses an epoch's end has a piece on either side."""

    source: str
    epoch: int
    offset: int
    length: int


class Schedule:
    """A compiled schedule. Made by `compile_schedule`, or read back with `from_json`."""

    def __init__(
        self, cfg: ScheduleConfig, source_tokens: Mapping[str, int], shards_fingerprint: str, layout: Layout | None = None
    ) -> None:
        self.config = cfg
        self.source_tokens = dict(sorted(source_tokens.items()))
        self.shards_fingerprint = shards_fingerprint
        self.layout = {s: {u: list(n) for u, n in sorted(units.items())} for s, units in sorted((layout or {}).items())}
        self._phases = compile_phases(cfg.phases, self.source_tokens, self.layout)
        self._steps = [0, *accumulate(p.steps for p in self._phases)]
        self._tokens = [0, *accumulate(p.steps * p.phase.batch_tokens for p in self._phases)]

    @property
    def total_steps(self) -> int:
        """Steps of all phases."""
        return self._steps[-1]

    @property
    def total_tokens(self) -> int:
        """Tokens of all steps."""
        return self._tokens[-1]

    @property
    def largest_error(self) -> float:
        """By how many samples, at most, any source's count lies off its share at any point of a phase."""
        return max(largest_error(compiled.tree) for compiled in self._phases)

    def __call__(self, cursor: int) -> list[Piece]:
        """What the sample reads that comes when `cursor` tokens have been seen. Raises ScheduleError between samples."""
        number = max(0, min(bisect_right(self._tokens, cursor) - 1, len(self._phases) - 1))
        index, rest = divmod(cursor - self._tokens[number], self._phases[number].phase.sequence_length)
        if rest or not 0 <= cursor < self.total_tokens:
            raise ScheduleError(
                f"cursor {cursor} is no sample's beginning: phase {self._phases[number].phase.name!r} starts at "
                f"{self._tokens[number]} with samples of {self._phases[number].phase.sequence_length}, "
                f"the schedule ends at {self.total_tokens}"
            )
        sample, compiled = self.sample(number, index), self._phases[number]
        if compiled.phase.packing != "concatenate":
            return [Piece(sample.source, sample.epoch, sample.start, sample.length)]
        pieces, start, epoch, left = list[Piece](), sample.start, sample.epoch, sample.length
        while left:
            length = min(left, compiled.size[sample.source] - start)
            pieces.append(Piece(sample.source, epoch, start, length))
            start, epoch, left = 0, epoch + 1, left - length
        return pieces

    def step_plan(self, step: int) -> StepPlan:
        """The plan of a step, counted from 0. Raises ScheduleError outside of [0, total_steps)."""
        if not 0 <= step < self.total_steps:
            raise ScheduleError(f"step {step} is outside of the schedule's {self.total_steps} steps")
        number = bisect_right(self._steps, step) - 1
        compiled, inside = self._phases[number], step - self._steps[number]
        before = self._tokens[number] + inside * compiled.phase.batch_tokens
        return StepPlan(step, number, inside * compiled.samples, compiled.samples, compiled.phase.sequence_length, before)

    def step_at(self, tokens_seen: int) -> int:
        """The step that follows after `tokens_seen` tokens, `total_steps` at the end. Raises ScheduleError between steps."""
        if not 0 <= tokens_seen <= self.total_tokens:
            raise ScheduleError(f"{tokens_seen} tokens are outside of the schedule's {self.total_tokens}")
        number = min(bisect_right(self._tokens, tokens_seen) - 1, len(self._phases) - 1)
        phase = self._phases[number].phase
        steps, rest = divmod(tokens_seen - self._tokens[number], phase.batch_tokens)
        if rest:
            raise ScheduleError(
                f"{tokens_seen} tokens are on no step boundary: phase {phase.name!r} starts at {self._tokens[number]} and "
                f"takes {phase.batch_tokens} a step; resume with the schedule that the run was started with"
            )
        return self._steps[number] + steps

    def sample(self, phase: int, index: int) -> Sample:
        """Sample `index` of phase number `phase`."""
        many = self.samples(phase, index, 1)
        return Sample(many.sources[many.source[0]], int(many.start[0]), many.length, int(many.epoch[0]))

    def samples(self, phase: int, first: int, count: int) -> Samples:
        """Samples [first, first + count) of a phase, in O(count log sources) without touching a token."""
        return self._phases[phase].read(first, count)

    def steps_seeing(self, source: str, start: int, length: int, rows: FindRows | None = None) -> list[int]:
        """The steps that read a token of [start, start + length) of a source's stream as input or target, in order.

        O(steps found x depth of the tree): the reverse of `samples`, again by arithmetic. `rows` finds the rows of a packing
        (packing.finder); without it, a phase that packs this source raises ScheduleError.
        """
        if source not in self.source_tokens:
            raise ScheduleError(f"the schedule knows no source {source!r}; it has {', '.join(sorted(self.source_tokens))}")
        steps = set[int]()
        for number, compiled in enumerate(self._phases):
            if source in compiled.base:
                packed = compiled.phase.packing != "concatenate"
                if packed and rows is None:
                    raise ScheduleError(
                        f"phase {compiled.phase.name!r} packs documents; give `rows` to find them (packing.finder)"
                    )
                found = rows(source, compiled.phase, start, length) if rows is not None and packed else None
                steps |= {self._steps[number] + step for step in compiled.steps_reading(source, start, length, found)}
        return sorted(steps)

    def epochs(self) -> list[EpochRow]:
        """Per phase and source: samples, tokens, share, epochs."""
        return [row for compiled in self._phases for row in compiled.epoch_rows()]

    def violations(self) -> list[str]:
        """A line for each bound on epochs that the schedule would pass."""
        return [row.violation(self.source_tokens[row.source]) for row in self.epochs() if row.is_over]

    def prefix(self, tokens_seen: int) -> str:
        """12 hex digits that name what the first `tokens_seen` tokens were: equal for two schedules that agree up to there.

        So a run goes on with a schedule whose budget was extended from there on (DeepSeek LLM, section 2.3), and with no other.
        Names, bounds and budgets of phases do not count. Raises ScheduleError between steps.
        """
        self.step_at(tokens_seen)
        described: list[Any] = []
        for compiled, before in zip(self._phases, self._tokens, strict=False):
            phase, read = compiled.phase, min(tokens_seen - before, compiled.steps * compiled.phase.batch_tokens)
            if read > 0:
                weights = sorted(weights_of(phase, self.source_tokens).items())
                used = [(s, w, compiled.base[s], compiled.size[s]) for s, w in weights if w > 0]
                described.append((phase.packing, phase.sequence_length, phase.batch_tokens, read, used))
        return hashlib.sha256(json.dumps([VERSION, described]).encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """What `from_json` needs, and for the reader's eye the steps and the epochs that follow from it."""
        rows = self.epochs()
        phases = [
            {key: dict(value) if isinstance(value, tuple) else value for key, value in vars(c.phase).items()}
            | {"steps": c.steps, "epochs": {r.source: r.epochs for r in rows if r.phase == c.phase.name}}
            for c in self._phases
        ]
        content = {
            "version": VERSION,
            "shards_fingerprint": self.shards_fingerprint,
            "source_tokens": self.source_tokens,
            "layout": self.layout,
            "total_steps": self.total_steps,
            "total_tokens": self.total_tokens,
            "phases": phases,
        }
        return json.dumps(content, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Schedule:
        """The schedule of `to_json`, which it equals. Raises ScheduleError on another version or an edited text."""
        try:
            content = json.loads(text)
            if content["version"] != VERSION:
                raise ScheduleError(
                    f"the schedule has version {content['version']}, this program reads {VERSION}; plan it again"
                )
            given = [f.name for f in fields(Phase)]
            phases = tuple(Phase(**{key: phase[key] for key in given}) for phase in content["phases"])
            schedule = compile_schedule(
                ScheduleConfig(phases), content["source_tokens"], content["shards_fingerprint"], content["layout"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ScheduleError(f"this is no schedule ({type(error).__name__}: {error}); plan it again") from error
        if schedule.to_json() != text:
            raise ScheduleError("the schedule was edited after it was compiled; change the recipe and plan it again")
        return schedule

    def check_shards(self, *fingerprints: str) -> None:
        """Raises ScheduleError if the schedule was compiled for other shards; the last of `fingerprints` is what they are now.

        Manifest.lineage names them before and after takedowns, which move no token.
        """
        if self.shards_fingerprint not in fingerprints:
            raise ScheduleError(
                f"the schedule was compiled for shards {self.shards_fingerprint[:12]}, not {fingerprints[-1][:12]}; "
                "plan it again"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


def write_schedule(path: str | Path, schedule: Schedule) -> None:
    """Write `OUT/schedule.json` atomically."""
    write_atomic(Path(path), schedule.to_json())


def read_schedule(path: str | Path, *fingerprints: str) -> Schedule:
    """Read `OUT/schedule.json`; with fingerprints, refuse one that was compiled for other shards. Raises ScheduleError."""
    try:
        schedule = Schedule.from_json(Path(path).read_text(encoding="utf-8"))
        if fingerprints:
            schedule.check_shards(*fingerprints)
    except OSError as error:
        raise ScheduleError(f"{path}: {error.strerror}; plan the recipe first") from error
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from error
    return schedule


def compile_schedule(
    cfg: ScheduleConfig, source_tokens: Mapping[str, int], shards_fingerprint: str = "", layout: Layout | None = None
) -> Schedule:
    """Check the plan against the tokens there are and compile it. Raises ScheduleError, with numbers, on an impossible one.

    `layout` is needed where a phase packs documents (packing.layout).
    """
    schedule = draft(cfg, source_tokens, shards_fingerprint, layout)
    if over := schedule.violations():
        raise ScheduleError("\n  ".join(over))
    return schedule


def draft(
    cfg: ScheduleConfig, source_tokens: Mapping[str, int], shards_fingerprint: str = "", layout: Layout | None = None
) -> Schedule:
    """A schedule that may pass its bounds on epochs (`Schedule.violations`), to be looked at; else like `compile_schedule`."""
    if not cfg.phases:
        raise ScheduleError("the schedule has no phases; give at least one")
    if len({p.name for p in cfg.phases}) < len(cfg.phases):
        raise ScheduleError(f"two phases have one name: {', '.join(p.name for p in cfg.phases)}")
    for phase in cfg.phases:
        check_phase(phase, source_tokens)
    return Schedule(cfg, source_tokens, shards_fingerprint, layout)

"""The schedule: which tokens a training step reads, compiled from phases and mixtures into arithmetic on one integer.

A phase is `steps x samples a step`; `mixture.py` says which source each of its samples is of. The n-th sample of a source
reads on where its (n-1)-th ended, across phases too, so within a source no token is skipped or repeated until its stream
wraps. Inside a step the samples are permuted by a keyed affine map, so that no rank of a fixed slicing always gets the same
source. Nothing depends on the number of ranks.

    schedule = compile_schedule(cfg, manifest.source_tokens(), manifest.fingerprint)
    plan = schedule.step_plan(schedule.step_at(tokens_seen))
    mine = schedule.samples(plan.phase, plan.first_sample + rank * share, share)
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.manifest import write_atomic
from pipelines.mixture import ONE, Ints, Node, build_tree, descend, leaves, path_to, slot

VERSION = 1

Pairs = tuple[tuple[str, float], ...]

_COUNT = re.compile("[1-9][0-9]*")


class ScheduleError(Exception):
    """A plan that cannot be carried out. The message holds the numbers and what to change."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one mixture, sequence length and batch; a batch ramp is several phases.

    `tokens`: budget; whole steps are taken, the rest of a step is left. `weights`: share of the tokens per source, in any
    unit; a source of weight 0 or not named is not read. `max_epochs`: how often a source may have been read in all by the end
    of this phase (one bound for all, or per source); None for no bound. Mappings are kept as sorted pairs.
    """

    name: str
    tokens: int
    sequence_length: int
    batch_tokens: int
    weights: Mapping[str, float] | Pairs
    max_epochs: float | Mapping[str, float] | Pairs | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _pairs(self.weights))
        if self.max_epochs is not None and not isinstance(self.max_epochs, (int, float)):
            object.__setattr__(self, "max_epochs", _pairs(self.max_epochs))

    def cap(self, source: str) -> float | None:
        """The bound on a source's epochs, or None."""
        if self.max_epochs is None or isinstance(self.max_epochs, (int, float)):
            return self.max_epochs
        return dict(self.max_epochs).get(source)


@dataclass(frozen=True)
class ScheduleConfig:
    """Phases in order. `seed` keys the order of samples inside a step, nothing else."""

    phases: tuple[Phase, ...]
    seed: int = 0


def copies(source: str) -> int:
    """How often the documents of a source are wanted: n for a name that ends in "-xn" (route.route_by_cluster_size), else 1."""
    name, _, number = source.rpartition("-x")
    return int(number) if name and _COUNT.fullmatch(number) else 1


def with_copies(source_tokens: Mapping[str, int]) -> dict[str, int]:
    """The tokens of each source times its copies: as weights, they read "web-x5" five times as often as "web".

    Where a schedule is a function of the tokens there are, as recipes.web.one_epoch, it becomes one of the corpus with its
    copies written out: `one_epoch(with_copies(source_tokens))`.
    """
    return {source: tokens * copies(source) for source, tokens in source_tokens.items()}


def rehydrated(cfg: ScheduleConfig, source_tokens: Mapping[str, int]) -> ScheduleConfig:
    """`cfg` with the weight of each source shared out among its parts ("web" among "web", "web-x2", "web-x5") by `with_copies`.

    The weight of the source as a whole stays. A bound on its epochs is one of the source with its copies written out: 2 lets a
    document of "web-x5" be read ten times. A source of which a phase names a part "-xn" itself is left as it is there. Raises
    ScheduleError for a source that is not there.
    """
    wanted, parts = with_copies(source_tokens), dict[str, list[str]]()
    for source in sorted(source_tokens):
        parts.setdefault(source.rpartition("-x")[0] if copies(source) > 1 else source, []).append(source)

    def shared(phase: Phase) -> Phase:
        given, weights, bounds = dict(phase.weights), dict[str, float](), dict[str, float]()
        for source, weight in given.items():
            here = parts.get(source, [])
            if not here or any(part in given for part in here if part != source):
                here = [source]
            if missing := [part for part in here if part not in source_tokens]:
                raise ScheduleError(_unknown(f"phase {phase.name!r}", missing[0], source_tokens))
            total = sum(wanted[part] for part in here)
            weights |= {part: weight * wanted[part] / total if total else weight for part in here}
            if (bound := phase.cap(source)) is not None:
                bounds |= {part: bound * (copies(part) / copies(source)) for part in here}
        return replace(phase, weights=weights, max_epochs=bounds or None)

    return replace(cfg, phases=tuple(shared(phase) for phase in cfg.phases))


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
    """Tokens [start, start + length) of a source's stream; with next-token targets read length + 1 (it wraps)."""

    source: str
    start: int
    length: int
    epoch: int


@dataclass(frozen=True)
class Samples:
    """Many samples of one phase: source names and, per sample, an index into them, the start and the epoch. Shapes (n,)."""

    sources: tuple[str, ...]
    source: Ints
    start: Ints
    epoch: Ints
    length: int


@dataclass(frozen=True)
class EpochRow:
    """What a phase reads of one source. `epochs` are those of the phase, `epochs_after` all so far; `share` is of the phase."""

    phase: str
    source: str
    samples: int
    tokens: int
    share: float
    epochs: float
    epochs_after: float
    max_epochs: float | None


@dataclass(frozen=True)
class _Compiled:
    phase: Phase
    steps: int
    samples: int  # a step
    tree: Node | str
    base: dict[str, int]  # tokens of each source read before this phase
    units: Ints  # multipliers of the affine map inside a step

    @property
    def total(self) -> int:
        return self.steps * self.samples


class Schedule:
    """A compiled schedule. Made by `compile_schedule`, or read back with `from_json`."""

    def __init__(self, cfg: ScheduleConfig, source_tokens: Mapping[str, int], shards_fingerprint: str) -> None:
        self.config = cfg
        self.source_tokens = dict(sorted(source_tokens.items()))
        self.shards_fingerprint = shards_fingerprint
        read = dict.fromkeys(source_tokens, 0)
        self._phases: list[_Compiled] = []
        for phase in cfg.phases:
            self._phases.append(compiled := _compile_phase(phase, read))
            for source, count in leaves(compiled.tree, compiled.total):
                read[source] += count * phase.sequence_length
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
        compiled = self._phases[phase]
        if not 0 <= first <= first + count <= compiled.total:
            raise ScheduleError(f"samples {first} to {first + count} are outside of the {compiled.total} of phase {phase}")
        slots = self._permuted(phase, np.arange(first, first + count, dtype=np.int64))
        sources = tuple(sorted(source for source, _ in leaves(compiled.tree, 0)))
        source, position = np.empty_like(slots), np.empty_like(slots)
        for name, where, rank in descend(compiled.tree, np.arange(count), slots):
            source[where] = sources.index(name)
            position[where] = compiled.base[name] + rank * compiled.phase.sequence_length
        epoch, start = np.divmod(position, np.array([self.source_tokens[s] for s in sources], np.int64)[source])
        return Samples(sources, source, start, epoch, compiled.phase.sequence_length)

    def _permuted(self, phase: int, index: Ints) -> Ints:
        compiled = self._phases[phase]
        step, inside = np.divmod(index, compiled.samples)
        key = _mix(_mix(np.array([self.config.seed & (2**64 - 1)], np.uint64)) + (step + self._steps[phase]).astype(np.uint64))
        units = compiled.units[(key >> np.uint64(32)) % np.uint64(len(compiled.units))]
        shift = ((key & np.uint64(0xFFFFFFFF)) % np.uint64(compiled.samples)).astype(np.int64)
        permuted: Ints = step * compiled.samples + (units * inside + shift) % compiled.samples
        return permuted

    def steps_seeing(self, source: str, start: int, length: int) -> list[int]:
        """The steps that read a token of [start, start + length) of a source's stream as input or target, in order.

        O(steps found x depth of the tree): the reverse of `samples`, again by arithmetic.
        """
        if source not in self.source_tokens:
            raise ScheduleError(f"the schedule knows no source {source!r}; it has {', '.join(sorted(self.source_tokens))}")
        size, steps = self.source_tokens[source], set[int]()
        start, length = start % size, min(length, size)
        for number, compiled in enumerate(self._phases):
            path = path_to(compiled.tree, source)
            if path is None:
                continue
            count, width = dict(leaves(compiled.tree, compiled.total))[source], compiled.phase.sequence_length
            begin = compiled.base[source]
            epoch = (begin - start - length) // size  # the first whose copy of the range can reach this phase
            while (low := epoch * size + start) < begin + count * width + 1:
                # sample n reads [begin + n width, begin + (n + 1) width], its last token being the next one's first
                first, last = -(-(low - begin - width) // width), (low + length - 1 - begin) // width
                for rank in range(max(first, 0), min(last, count - 1) + 1):
                    steps.add(self._steps[number] + slot(path, rank) // compiled.samples)
                epoch += 1
        return sorted(steps)

    def epochs(self) -> list[EpochRow]:
        """Per phase and source: samples, tokens, share, epochs."""
        rows = []
        for compiled in self._phases:
            for source, count in sorted(leaves(compiled.tree, compiled.total)):
                tokens, size = count * compiled.phase.sequence_length, self.source_tokens[source]
                after = (compiled.base[source] + tokens) / size
                share, cap = count / compiled.total, compiled.phase.cap(source)
                rows.append(EpochRow(compiled.phase.name, source, count, tokens, share, tokens / size, after, cap))
        return rows

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
            "seed": self.config.seed,
            "source_tokens": self.source_tokens,
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
            cfg = ScheduleConfig(phases, content["seed"])
            schedule = compile_schedule(cfg, content["source_tokens"], content["shards_fingerprint"])
        except (KeyError, TypeError, ValueError) as error:
            raise ScheduleError(f"this is no schedule ({type(error).__name__}: {error}); plan it again") from error
        if schedule.to_json() != text:
            raise ScheduleError("the schedule was edited after it was compiled; change the recipe and plan it again")
        return schedule

    def check_shards(self, fingerprint: str) -> None:
        """Raises ScheduleError if the schedule was compiled for other shards."""
        if fingerprint != self.shards_fingerprint:
            raise ScheduleError(
                f"the schedule was compiled for shards {self.shards_fingerprint[:12]}, not {fingerprint[:12]}; plan it again"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


def write_schedule(path: str | Path, schedule: Schedule) -> None:
    """Write `OUT/schedule.json` atomically."""
    write_atomic(Path(path), schedule.to_json())


def read_schedule(path: str | Path, shards_fingerprint: str | None = None) -> Schedule:
    """Read `OUT/schedule.json`; with a fingerprint, refuse one that was compiled for other shards. Raises ScheduleError."""
    try:
        schedule = Schedule.from_json(Path(path).read_text(encoding="utf-8"))
        if shards_fingerprint is not None:
            schedule.check_shards(shards_fingerprint)
    except OSError as error:
        raise ScheduleError(f"{path}: {error.strerror}; plan the recipe first") from error
    except ScheduleError as error:
        raise ScheduleError(f"{path}: {error}") from error
    return schedule


def compile_schedule(cfg: ScheduleConfig, source_tokens: Mapping[str, int], shards_fingerprint: str = "") -> Schedule:
    """Check the plan against the tokens there are and compile it. Raises ScheduleError, with numbers, on an impossible one."""
    if not cfg.phases:
        raise ScheduleError("the schedule has no phases; give at least one")
    if len({p.name for p in cfg.phases}) < len(cfg.phases):
        raise ScheduleError(f"two phases have one name: {', '.join(p.name for p in cfg.phases)}")
    for phase in cfg.phases:
        _check_phase(phase, source_tokens)
    schedule = Schedule(cfg, source_tokens, shards_fingerprint)
    for row in schedule.epochs():
        if row.max_epochs is not None and row.epochs_after > row.max_epochs:
            raise ScheduleError(_over(row, source_tokens[row.source]))
    return schedule


def _over(row: EpochRow, size: int) -> str:
    allowed = (row.max_epochs or 0.0) - (row.epochs_after - row.epochs)
    ways = [f"raise its max_epochs to {math.ceil(row.epochs_after * 100) / 100:g}", f"add {row.source} data"]
    if allowed > 0:
        ways.insert(0, f"lower the phase's tokens or its share of them ({row.share:.4g}) to {allowed / row.epochs:.3g} times")
    return (
        f"phase {row.phase!r} reads {row.tokens:,} tokens of source {row.source!r}, which has {size:,}: {row.epochs:.4g} "
        f"epochs, {row.epochs_after:.4g} in all, allowed are {row.max_epochs:g}; {', or '.join(ways)}"
    )


def _check_phase(phase: Phase, source_tokens: Mapping[str, int]) -> None:
    weights, name = dict(phase.weights), f"phase {phase.name!r}"
    if phase.sequence_length < 1 or phase.batch_tokens < 1 or phase.batch_tokens % phase.sequence_length:
        raise ScheduleError(
            f"{name}: batch_tokens {phase.batch_tokens} is no multiple of sequence_length {phase.sequence_length}; "
            f"take {max(1, round(phase.batch_tokens / max(phase.sequence_length, 1))) * phase.sequence_length}"
        )
    if phase.tokens < phase.batch_tokens:
        raise ScheduleError(f"{name}: a budget of {phase.tokens} tokens is shorter than one batch of {phase.batch_tokens}")
    if phase.tokens // phase.sequence_length >= ONE:
        raise ScheduleError(
            f"{name}: {phase.tokens // phase.sequence_length} samples; a phase holds fewer than {ONE}; make it two"
        )
    bad = {s: w for s, w in weights.items() if not (math.isfinite(w) and w >= 0)}
    if bad or not sum(weights.values()) > 0:
        raise ScheduleError(
            f"{name}: weights {weights} do not sum to something positive; give each source a weight of 0 or more"
        )
    caps = dict(phase.max_epochs) if isinstance(phase.max_epochs, tuple) else {}
    for source in [*weights, *caps]:
        if source not in source_tokens:
            raise ScheduleError(_unknown(name, source, source_tokens))
        if weights.get(source) and source_tokens[source] < 1:
            raise ScheduleError(f"{name}: source {source!r} has weight {weights[source]:g} and no tokens; give it the weight 0")


def _unknown(where: str, source: str, source_tokens: Mapping[str, int]) -> str:
    return f"{where}: source {source!r} is not in the shards; they have {', '.join(sorted(source_tokens)) or 'none'}"


def _compile_phase(phase: Phase, read: Mapping[str, int]) -> _Compiled:
    samples = phase.batch_tokens // phase.sequence_length
    # a few dozen multipliers serve: the shift is keyed too
    units = np.array([u for u in range(1, min(samples, 4096) + 1) if math.gcd(u, samples) == 1][-64:], np.int64)
    return _Compiled(phase, phase.tokens // phase.batch_tokens, samples, build_tree(dict(phase.weights)), dict(read), units)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, figure 20) after one step of its counter."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _pairs(values: Mapping[str, float] | Pairs) -> Pairs:
    items = list(values.items() if isinstance(values, Mapping) else values)
    if len(dict(items)) < len(items):
        raise ValueError(f"a source is named twice in {items}")
    return tuple(sorted((str(source), float(value)) for source, value in items))

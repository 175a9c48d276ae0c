"""A phase compiled: its mixture's tree, and where each source stands when the phase begins, in tokens or in rows.

Part of `schedule.py`. The unit is the token where a phase cuts the stream of a source; where it packs documents, a position
counts rows of that packing, and a source goes on at the next file when the unit changes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from pipelines.schedule.mixture import Ints, Node, build_tree, descend, leaves, path_to, slot
from pipelines.schedule.phases import Packing, Phase, ScheduleError, cap_of, weights_of

# Per source and unit ("tokens", "documents", "best_fit 4096"): how many of it each file of the source's stream has.
Layout = Mapping[str, Mapping[str, Sequence[int]]]


def unit_of(phase: Phase) -> str:
    """What positions of a source count in this phase: a unit of `Layout`."""
    return {"concatenate": "tokens", "document": "documents"}.get(phase.packing, f"best_fit {phase.sequence_length}")


@dataclass(frozen=True)
class Samples:
    """Many samples of one phase: source names and, per sample, an index into them, the start and the epoch. Shapes (n,)."""

    sources: tuple[str, ...]
    source: Ints
    start: Ints
    epoch: Ints
    length: int
    packing: Packing = "concatenate"


@dataclass(frozen=True)
class EpochRow:
    """What a phase reads of one source. `epochs` are those of the phase, `epochs_after` all so far; `share` is of the phase.

    `left`: epochs passed over at the phase's start, where another packing begins at the next file.
    """

    phase: str
    source: str
    samples: int
    tokens: int
    share: float
    epochs: float
    epochs_after: float
    max_epochs: float | None
    left: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the bound is passed."""
        return self.max_epochs is not None and self.epochs_after > self.max_epochs

    def violation(self, size: int) -> str:
        """The line that says so; `size`: tokens of the source."""
        allowed = (self.max_epochs or 0.0) - (self.epochs_after - self.epochs)
        ways = [f"raise its max_epochs to {math.ceil(self.epochs_after * 100) / 100:g}", f"add {self.source} data"]
        if allowed > 0:
            ways.insert(
                0, f"lower the phase's tokens or its share of them ({self.share:.4g}) to {allowed / self.epochs:.3g} times"
            )
        return (
            f"phase {self.phase!r} reads {self.tokens:,} tokens of source {self.source!r}, which has {size:,}: "
            f"{self.epochs:.4g} epochs, {self.epochs_after:.4g} in all, allowed are {self.max_epochs:g}; {', or '.join(ways)}"
        )


@dataclass(frozen=True)
class CompiledPhase:
    """A phase as arithmetic on the index of a sample."""

    phase: Phase
    steps: int
    samples: int  # a step
    stride: int  # of a sample, in the phase's unit
    tree: Node | str
    base: dict[str, int]  # where each source stands when the phase begins, in its unit
    size: dict[str, int]  # an epoch of each source, in its unit
    left: dict[str, float]  # see EpochRow

    @property
    def total(self) -> int:
        """Samples of the phase."""
        return self.steps * self.samples

    def counts(self) -> dict[str, int]:
        """Samples of each source."""
        return dict(sorted(leaves(self.tree, self.total)))

    def read(self, first: int, count: int) -> Samples:
        """Samples [first, first + count), in O(count log sources) without touching a token. Raises ScheduleError outside."""
        if not 0 <= first <= first + count <= self.total:
            raise ScheduleError(
                f"samples {first} to {first + count} are outside of the {self.total} of phase {self.phase.name!r}"
            )
        sources = tuple(sorted(self.base))
        source, position = np.empty(count, np.int64), np.empty(count, np.int64)
        for name, where, rank in descend(self.tree, np.arange(count), np.arange(first, first + count, dtype=np.int64)):
            source[where] = sources.index(name)
            position[where] = self.base[name] + rank * self.stride
        epoch, start = np.divmod(position, np.array([self.size[s] for s in sources], np.int64)[source])
        return Samples(sources, source, start, epoch, self.phase.sequence_length, self.phase.packing)

    def steps_reading(self, source: str, start: int, length: int, rows: Iterable[int] | None) -> set[int]:
        """The phase's steps, from 0, that read a token of [start, start + length) of a source, or one of `rows` if packed."""
        path = path_to(self.tree, source)
        if path is None:
            return set()
        ranks = self._ranks(source, start, length) if rows is None else self._ranks_of_rows(source, rows)
        return {slot(path, rank) // self.samples for rank in ranks}

    def _ranks(self, source: str, start: int, length: int) -> Iterable[int]:
        size, width, begin, count = self.size[source], self.stride, self.base[source], self.counts()[source]
        start, length = start % size, min(length, size)
        epoch = (begin - start - length) // size  # the first whose copy of the range can reach this phase
        while (low := epoch * size + start) < begin + count * width + 1:
            # sample n reads [begin + n width, begin + (n + 1) width], its last token being the next one's first
            first, last = -(-(low - begin - width) // width), (low + length - 1 - begin) // width
            yield from range(max(first, 0), min(last, count - 1) + 1)
            epoch += 1

    def _ranks_of_rows(self, source: str, rows: Iterable[int]) -> Iterable[int]:
        size, count = self.size[source], self.counts()[source]
        for row in rows:
            yield from range((row - self.base[source]) % size, count, size)

    def epoch_rows(self) -> list[EpochRow]:
        """What the phase reads of each source."""
        rows = []
        for source, count in self.counts().items():
            read, size, cap = count * self.stride, self.size[source], cap_of(self.phase, source)
            tokens, after = count * self.phase.sequence_length, (self.base[source] + read) / size
            share, left = count / self.total, self.left[source]
            rows.append(EpochRow(self.phase.name, source, count, tokens, share, read / size, after, cap, left))
        return rows


@dataclass
class _Place:
    """Where a source stands between two phases."""

    unit: str = "tokens"
    position: int = 0


def compile_phases(phases: Sequence[Phase], source_tokens: Mapping[str, int], layout: Layout) -> list[CompiledPhase]:
    """Each phase begins where the ones before it have left its sources. Raises ScheduleError without a layout it needs."""
    places, compiled = {source: _Place() for source in source_tokens}, list[CompiledPhase]()
    for phase in phases:
        compiled.append(made := _compile(phase, source_tokens, layout, places))
        for source, count in made.counts().items():
            places[source].position = made.base[source] + count * made.stride
    return compiled


def _compile(phase: Phase, source_tokens: Mapping[str, int], layout: Layout, places: Mapping[str, _Place]) -> CompiledPhase:
    weights, unit = {s: w for s, w in weights_of(phase, source_tokens).items() if w > 0}, unit_of(phase)
    size = {s: source_tokens[s] if unit == "tokens" else sum(_files(layout, s, unit)) for s in weights}
    base, left = dict[str, int](), dict[str, float]()
    for source in weights:
        place = places[source]
        base[source], left[source] = place.position, 0.0
        if place.unit != unit and place.position:
            base[source], left[source] = _next_file(_files(layout, source, place.unit), _files(layout, source, unit), place)
        place.unit = unit
    stride = phase.sequence_length if unit == "tokens" else 1
    samples = phase.batch_tokens // phase.sequence_length
    tree = build_tree(weights)
    return CompiledPhase(phase, phase.tokens // phase.batch_tokens, samples, stride, tree, base, size, left)


def _files(layout: Layout, source: str, unit: str) -> Sequence[int]:
    try:
        return layout[source][unit]
    except KeyError:
        raise ScheduleError(
            f"the schedule must know how many {unit} each file of source {source!r} has; "
            "compile it with the layout of the shards (pipelines.schedule.packing.layout)"
        ) from None


def _next_file(old: Sequence[int], new: Sequence[int], place: _Place) -> tuple[int, float]:
    """Where a source goes on in another unit: at the next file's beginning; and the share of an epoch passed over."""
    ends = [0, *accumulate(old)]
    epoch, inside = divmod(place.position, ends[-1])
    file = bisect_left(ends, inside)
    return epoch * sum(new) + sum(new[:file]), (ends[file] - inside) / ends[-1]

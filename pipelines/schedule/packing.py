"""Which documents share a training sequence, where a phase packs them instead of cutting the stream.

A file of a source is packed by itself, from the lengths of its documents, when a row of it is first asked for (about a third
of a second for 100,000 documents); so a row can be had at random, and all that is kept on disk is the number of rows a file
(`layout`, part of schedule.json). Rows lie in a keyed order, since packing by size would put long documents first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np

from pipelines.schedule.compiled import unit_of
from pipelines.schedule.mixture import Ints
from pipelines.schedule.phases import Packing, Phase, ScheduleError, weights_of
from pipelines.schedule.schedule import FindRows
from pipelines.shards import ShardError, Shards, TokenStream

OPEN_FILES = 4  # packings of files that a stream's rows keep at once


class Rows(Protocol):
    """What the sequences of a phase are made of."""

    def pieces(self, start: int) -> Ints:
        """The pieces of row `start` in order: position in the stream and length, shape (k, 2); together at most a sequence."""

    def targets(self, start: int) -> int:
        """How many tokens of row `start` have a next one to predict."""

    def find(self, start: int, length: int) -> list[int]:
        """The rows that read a token of [start, start + length) of the stream, as input or target."""


def rows_of(stream: TokenStream, packing: Packing, length: int, counts: Sequence[int] = ()) -> Rows:
    """The rows of a source for sequences of `length` tokens. `counts`: rows of each file, of Schedule.layout, where packed."""
    if packing == "concatenate":
        return _Cut(stream, length)
    return _Packed(stream, packing, length, counts)


def finder(shards: Shards, layout: dict[str, dict[str, list[int]]]) -> FindRows:
    """What Schedule.steps_seeing needs for phases that pack: `schedule.steps_seeing(..., finder(shards, schedule.layout))`."""
    known: dict[tuple[str, str], Rows] = {}

    def find(source: str, phase: Phase, start: int, length: int) -> Iterable[int]:
        unit = unit_of(phase)
        if (source, unit) not in known:
            counts = layout[source][unit]
            known[source, unit] = rows_of(shards.stream(source), phase.packing, phase.sequence_length, counts)
        return known[source, unit].find(start, length)

    return find


def layout(shards: Shards, phases: Iterable[Phase]) -> dict[str, dict[str, list[int]]]:
    """How many rows of each packing the files of each source have, and how many tokens: what `compile_schedule` asks for.

    Empty where no phase packs. Reads the lengths of the documents of all sources that are packed, nothing else. Raises
    ScheduleError for a phase that would cut conversations.
    """
    tokens = shards.manifest.source_tokens()
    found: dict[str, dict[str, list[int]]] = {}
    for phase in phases:
        if phase.packing == "concatenate":
            continue
        for source in (s for s, weight in weights_of(phase, tokens).items() if weight > 0 and tokens[s]):
            files = [f for f in shards.manifest.files if f.source == source and f.split == "train"]
            units = found.setdefault(source, {"tokens": [f.tokens for f in files]})
            if (unit := unit_of(phase)) not in units:
                stream = shards.stream(source)
                if stream.has_roles:
                    _refuse_cuts(stream, len(files), source, phase)
                packed = (_pack(stream.bounds(i), phase.packing, phase.sequence_length) for i in range(len(files)))
                units[unit] = [file.rows for file in packed]
    return found


def _refuse_cuts(stream: TokenStream, files: int, source: str, phase: Phase) -> None:
    """Raise ScheduleError where a conversation would be cut: an answer without its prompt is not what it was."""
    longest = max(int(np.diff(stream.bounds(i)).max()) for i in range(files))
    if longest > phase.sequence_length:
        raise ScheduleError(
            f"phase {phase.name!r}: source {source!r} holds a conversation of {longest} tokens, which sequences of "
            f"{phase.sequence_length} would cut; raise sequence_length, or lower encode_chat.context"
        )


@dataclass(frozen=True)
class _Cut:
    """The stream, cut every `length` tokens from any position."""

    stream: TokenStream
    length: int

    def pieces(self, start: int) -> Ints:
        return np.array([(start, self.length)], np.int64)

    def targets(self, start: int) -> int:
        return self.length

    def find(self, start: int, length: int) -> list[int]:
        raise ValueError("a stream that is cut has no rows; the schedule finds its positions by arithmetic")


@dataclass(frozen=True)
class _File:
    """A packed file: pieces, ordered by row and within a row as in the stream; row i has those from offsets[i] on."""

    starts: Ints  # (pieces,)
    lengths: Ints
    reads: Ints  # tokens that a piece reads: one more than it has where its document goes on, for the last target
    offsets: Ints  # (rows + 1,)

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1


class _Packed:
    """Rows of whole documents, by file."""

    def __init__(self, stream: TokenStream, packing: Packing, length: int, counts: Sequence[int]) -> None:
        self._stream, self._packing, self._length, self._counts = stream, packing, length, counts
        self._firsts = [0, *accumulate(counts)]
        self._files: OrderedDict[int, _File] = OrderedDict()

    def pieces(self, start: int) -> Ints:
        file, row = self._row(start)
        return np.stack([file.starts[row], file.lengths[row]], axis=1)

    def targets(self, start: int) -> int:
        file, row = self._row(start)
        reads = file.reads[row]
        return int(reads.sum()) - len(reads)

    def _row(self, start: int) -> tuple[_File, slice]:
        number = bisect_right(self._firsts, start) - 1
        file, row = self._file(number), start - self._firsts[number]
        return file, slice(*file.offsets[row : row + 2].tolist())

    def find(self, start: int, length: int) -> list[int]:
        found = []
        for number in self._stream.files_of(start, length):
            file = self._file(number)
            pieces = np.flatnonzero((file.starts < start + length) & (file.starts + file.reads > start))
            rows = np.searchsorted(file.offsets, pieces, "right") - 1 + self._firsts[number]
            found += np.unique(rows).tolist()
        return found

    def _file(self, number: int) -> _File:
        file = self._files.get(number)
        if file is None:
            file = self._files[number] = _pack(self._stream.bounds(number), self._packing, self._length)
            if file.rows != self._counts[number]:
                raise ShardError(
                    f"file {number} of the stream packs into {file.rows} sequences of {self._length} tokens, the schedule says "
                    f"{self._counts[number]}; it was compiled for other shards: plan it again"
                )
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(number)
        return file


def _pack(bounds: Ints, packing: Packing, length: int) -> _File:
    """The rows of a file whose documents begin at bounds[:-1] and end at bounds[1:]."""
    if packing == "document":
        lengths = np.minimum(np.diff(bounds), length)
        starts, offsets = bounds[:-1], np.arange(len(bounds))
    else:
        starts, lengths = _whole_or_cut(bounds, length)
        row = shuffled(best_fit_decreasing(lengths, length), int(bounds[0]))
        order = np.lexsort((starts, row))
        starts, lengths = starts[order], lengths[order]
        offsets = np.searchsorted(row[order], np.arange(int(row.max()) + 2))
    ends = starts + lengths
    goes_on = bounds[np.searchsorted(bounds, ends)] != ends
    return _File(starts, lengths, lengths + goes_on, offsets)


def _whole_or_cut(bounds: Ints, length: int) -> tuple[Ints, Ints]:
    """Documents as they are, longer ones in pieces of `length` and a rest: where the pieces start, and their lengths."""
    sizes = np.diff(bounds)
    parts = -(-sizes // length)
    first = np.cumsum(parts) - parts
    document = np.repeat(np.arange(len(sizes)), parts)
    inside = (np.arange(len(document)) - first[document]) * length
    return bounds[document] + inside, np.minimum(sizes[document] - inside, length)


def best_fit_decreasing(sizes: Ints, capacity: int) -> Ints:
    """The row of each item, items of 1 to `capacity`: from the largest on, each into the fullest row that still holds it.

    Best-fit-decreasing bin packing: at most 11/9 of the fewest rows possible, and 4 more (Johnson et al. 1974).
    """
    order = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), np.int64)
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = rows = 0  # bit r of `rooms`: a row has room for r
    for item, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        if fitting := rooms >> size:
            room = size + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, row, rows = capacity, rows, rows + 1
        row_of[item] = row
        if left := room - size:
            with_room[left].append(row)
            rooms |= 1 << left
    return row_of


def shuffled(row_of: Ints, key: int) -> Ints:
    """The rows renumbered in the order of a keyed hash: the finaliser of SplitMix64 (Steele et al. 2014, figure 20)."""
    rows = int(row_of.max()) + 1
    x = np.arange(rows, dtype=np.uint64) + np.uint64(key * 0x9E3779B97F4A7C15 & (1 << 64) - 1)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    place = np.empty(rows, np.int64)
    place[np.argsort(x ^ (x >> np.uint64(31)), kind="stable")] = np.arange(rows)
    return place[row_of]

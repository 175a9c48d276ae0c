"""Which documents lie in which shard: by ranges of the keyed hash, or, where a source has an order, by ranks.

A shard of a source without an order is a range of the hash. Ranks are cut where a window of them begins: Spark sorts the places
(41 bytes a document), and the driver is told the places at which a multiple of `target_bytes` is passed, so about two a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.tokens.gather import Shard
from pipelines.tokens.runs import Run, first_place, read_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Stream = tuple[str, str]  # source, split
_ROWS = 1 << 14  # places that Spark is given at once


class Mark(NamedTuple):
    """A place, how many documents of its stream lie before it, and the size of their ids in bytes."""

    rows: int
    size: int
    place: bytes


def by_hash(stream: Stream, size: int, target: int) -> list[Shard]:
    """The shards of a stream of `size` bytes of ids: equal ranges of the keyed hash."""
    count = -(-size // target)
    # the upper 32 bits of the hash decide
    starts = [first_place((-(-(i << 32) // count)) << 32) for i in range(count)]
    return [Shard(*stream, i, size // count, *ends) for i, ends in enumerate(pairwise([*starts, b""]))]


def by_rank(stream: Stream, marks: Sequence[Mark], end: Mark, target: int, window: int) -> list[Shard]:
    """The shards of a stream with an order, from where windows begin; `end`: all its rows and bytes.

    A shard is of whole windows, up to three times `target` of them, or a part, by the hash, of a window larger than that.
    """
    cuts: list[Mark] = []
    before = -1
    for mark, after in pairwise([*marks, end]):
        number = mark.size // target
        if number != before or after.size // target - number > 1:
            cuts.append(mark)
        before = number
    made: list[Shard] = []
    for first, last in pairwise([*cuts, end]):
        size = last.size - first.size
        count = -(-size // target) if last.rows - first.rows <= window else 1
        bounds = [-(-(i << 64) // count) for i in range(count + 1)]
        for low, high in pairwise(bounds):
            made.append(Shard(*stream, len(made), size // count, first.place, last.place, low, high - 1, window))
    return made


def find_marks(
    spark: SparkSession, runs: Sequence[Run], folder: str, windows: Mapping[str, int], target: int
) -> dict[Stream, list[Mark]]:
    """For each stream of the runs the first and the last window before each multiple of `target`, in order, and some more."""
    from pyspark import TaskContext
    from pyspark.sql import functions as F

    from pipelines.dedup.pairs.components import cut

    streams = sorted({(run.source, run.split) for run in runs})

    def read(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (n for batch in numbers for n in batch.column(0).to_pylist()):
            yield from _places_of(runs[number], folder, streams.index((runs[number].source, runs[number].split)))

    cores = spark.sparkContext.defaultParallelism
    numbers = spark.range(0, len(runs), 1, min(len(runs), 8 * cores))
    placed = cut(numbers.mapInArrow(read, "stream int, place binary, size long").sort("stream", "place"))
    part = F.spark_partition_id().alias("part")
    sums = placed.groupBy(part, "stream").agg(F.count("*").alias("rows"), F.sum("size").alias("size")).collect()
    begins: dict[int, dict[int, tuple[int, int]]] = {}  # partition -> stream -> rows and bytes before it
    done = dict.fromkeys(range(len(streams)), (0, 0))
    for row in sorted(sums, key=attrgetter("part", "stream")):
        rows, size = done[row.stream]
        begins.setdefault(row.part, {})[row.stream] = rows, size
        done[row.stream] = rows + row.rows, size + row.size

    def mark(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        at = begins.get(context.partitionId(), {})
        return _marked(batches, at, [windows[source] for source, _ in streams], target)

    found: dict[Stream, set[Mark]] = {stream: set() for stream in streams}
    for row in placed.mapInArrow(mark, "stream int, rows long, size long, place binary").collect():
        found[streams[row.stream]].add(Mark(row.rows, row.size, bytes(row.place)))
    return {stream: sorted(marks) for stream, marks in found.items()}


def _places_of(run: Run, folder: str, stream: int) -> Iterator[pa.RecordBatch]:
    batch = read_run(folder, run)
    columns = {
        "stream": pa.array(np.full(batch.num_rows, stream, np.int32)),
        "place": batch.column("place").cast(pa.binary()),
        "size": pc.binary_length(batch.column("tokens")),
    }
    whole = pa.record_batch(columns)
    for start in range(0, whole.num_rows, _ROWS):
        yield whole.slice(start, _ROWS)


def _marked(
    batches: Iterator[pa.RecordBatch], at: dict[int, tuple[int, int]], windows: list[int], target: int
) -> Iterator[pa.RecordBatch]:
    """Of sorted (stream, place, size) the windows between whose beginnings a multiple of `target` lies, the first and last."""
    last: dict[int, Mark] = {}
    for batch in batches:
        for stream in pc.unique(batch.column("stream")).to_pylist():
            mine = batch.filter(pc.equal(batch.column("stream"), stream))
            sizes = mine.column("size").to_numpy()
            rows, size = at[stream]
            ranks, before = rows + np.arange(len(sizes)), size + np.cumsum(sizes) - sizes
            at[stream] = rows + len(sizes), size + int(sizes.sum())
            begin = np.flatnonzero(ranks % windows[stream] == 0)
            if not len(begin):
                continue
            known = [last[stream]] if stream in last else []
            passed = np.flatnonzero(np.diff(before[begin] // target, prepend=known[0].size // target if known else -1))
            told = np.union1d(passed, passed[passed > 0] - 1)
            chosen = begin[np.union1d(told, [len(begin) - 1]).astype(np.int64)]
            places = mine.column("place").take(pa.array(chosen)).to_pylist()
            marks = [Mark(int(ranks[i]), int(before[i]), place) for i, place in zip(chosen, places, strict=True)]
            last[stream] = marks[-1]
            if len(told):
                yield _table(stream, (known if passed[0] == 0 else []) + marks[: len(told)])
    for stream, mark in last.items():
        yield _table(stream, [mark])


def _table(stream: int, marks: Sequence[Mark]) -> pa.RecordBatch:
    schema = pa.schema([("stream", pa.int32()), ("rows", pa.int64()), ("size", pa.int64()), ("place", pa.binary())])
    return pa.RecordBatch.from_pylist([{"stream": stream, **mark._asdict()} for mark in marks], schema)

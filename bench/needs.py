"""What a corpus of any size needs of a cluster, from the constants of a measured run and nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from bench.common import Row, row

MANY = 10_000_000_000


@dataclass(frozen=True)
class Constants:
    """What a run took, a document where that makes sense."""

    documents: int
    task_seconds: float  # a document: of a core, in all tasks together
    shuffled: tuple[tuple[float, float], ...]  # of each shuffle (bytes, records) a document, the largest first
    spilled: float  # bytes a document that did not fit into memory and went to disk
    input: float  # bytes a document, compressed
    local: float  # bytes a document on the workers' disks at the worst moment: shuffles, spills, what was cut
    output: float  # bytes a document below OUT
    execution: float  # bytes of the JVM in the greediest task
    worker: float  # GiB of the largest Python worker

    @property
    def shuffle(self) -> float:
        """Bytes a document in all shuffles."""
        return sum(size for size, _ in self.shuffled)


def constants(events: Path, documents: int, texts: int, local: int, out: int, worker: float) -> Constants:
    """From Spark's event log (a JSON object a line), and what was measured beside it: bytes in all, GiB of a worker."""
    written: dict[int, tuple[int, int]] = {}
    milliseconds = spilled = execution = 0
    with events.open(encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd" and (metrics := event.get("Task Metrics")):
                size, records = written.get(event["Stage ID"], (0, 0))
                new = metrics["Shuffle Write Metrics"]
                written[event["Stage ID"]] = size + new["Shuffle Bytes Written"], records + new["Shuffle Records Written"]
                milliseconds += metrics["Executor Run Time"]
                spilled += metrics["Disk Bytes Spilled"]
                execution = max(execution, metrics["Peak Execution Memory"])
    shuffled = [(size / documents, records / documents) for size, records in written.values() if size]
    return Constants(
        documents=documents,
        task_seconds=milliseconds / 1000 / documents,
        shuffled=tuple(sorted(shuffled, reverse=True)),
        spilled=spilled / documents,
        input=texts / documents,
        local=local / documents,
        output=out / documents,
        execution=execution,
        worker=worker,
    )


@dataclass(frozen=True)
class Needs:
    """What so many documents need."""

    documents: int
    core_hours: float
    shuffle_tb: float
    disk_tb: float  # workers' disks and OUT together, without the input
    task_gib: float  # of one task: JVM and Python worker


def needs(of: Constants, documents: int = MANY, growth: float = 1.0) -> Needs:
    """`of` carried on to `documents`: everything in proportion to them, but the memory of a task, which partitions bound.

    `growth`: times the core seconds a document that ten times the documents were seen to take; it is applied once for each
    tenfold.
    """
    tenfolds = 0.0
    size = float(of.documents)
    while size * 10 <= documents:
        size, tenfolds = size * 10, tenfolds + 1
    return Needs(
        documents=documents,
        core_hours=of.task_seconds * documents * growth**tenfolds / 3600,
        shuffle_tb=of.shuffle * documents / 1e12,
        disk_tb=(of.local + of.output) * documents / 1e12,
        task_gib=of.execution / 2**30 + of.worker,
    )


def told(of: Constants, growth: float | None = None) -> str:
    """The sentences for the results."""
    found, grown = needs(of), needs(of, growth=growth or 1.0)
    largest = ", ".join(f"{size:,.0f} in {records:.2f} records" for size, records in of.shuffled[:3])
    hours = f"{found.core_hours:,.0f} core hours"
    if growth is not None:
        hours += (
            f" ({grown.core_hours:,.0f} where each further tenfold again takes {growth:.2f} times the seconds a document that "
            "the last one took)"
        )
    return (
        f"`needs`: {MANY:,} documents of this kind, carried on in proportion from {of.documents:,}: {hours}, "
        f"{found.shuffle_tb:,.1f} TB shuffled, {found.disk_tb:,.1f} TB of disk for shuffles, spills and OUT, and "
        f"{found.task_gib:.2f} GiB a task. Measured a document: {of.task_seconds * 1e3:.2f} ms of a core, {of.shuffle:,.0f} "
        f"bytes shuffled (largest: {largest}), {of.spilled:,.0f} spilled, {of.local:,.0f} on the workers' disks at the worst "
        f"moment, {of.output:,.0f} in OUT, {of.input:,.0f} read."
    )


def rows(of: Constants, growth: float | None = None) -> list[Row]:
    """The same as rows."""
    found, unit = needs(of, growth=growth or 1.0), f"{MANY:,} documents"
    return [
        row("needs, core hours", unit, found.core_hours, None, None),
        row("needs, shuffle", f"TB, {unit}", found.shuffle_tb, None, None),
        row("needs, disk", f"TB, {unit}", found.disk_tb, None, None),
        row("needs, memory of a task", "GiB", found.task_gib, None, None),
    ]


def tree_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
    return total

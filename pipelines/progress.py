"""Live progress: a bar for each step in a terminal, plain lines elsewhere; rows, rate, time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POLL_S = 0.5
PLAIN_LINE_S = 10.0  # where there is no terminal, at most one line in this time


class Meter:
    """Counts per stage that come back from the workers when a task ends: rows in and seconds."""

    def __init__(self, spark: SparkSession) -> None:
        from pyspark.accumulators import AccumulatorParam

        class Sums(AccumulatorParam[dict[str, tuple[int, float]]]):
            def zero(self, value: dict[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
                return {}

            def addInPlace(self, a: Any, b: Any) -> Any:
                for name, (rows, seconds) in b.items():
                    old = a.get(name, (0, 0.0))
                    a[name] = (old[0] + rows, old[1] + seconds)
                return a

        self._sums = spark.sparkContext.accumulator(dict[str, tuple[int, float]](), Sums())

    def count(self, stage: str, rows: int, seconds: float) -> None:
        """Called in a worker."""
        self._sums.add({stage: (rows, seconds)})

    @property
    def sums(self) -> dict[str, tuple[int, float]]:
        """Rows in and seconds by stage, of the tasks that have ended."""
        return dict(self._sums.value)


@contextmanager
def watch(spark: SparkSession, console: Console, title: str, total_rows: int | None, meter: Meter) -> Iterator[None]:
    """Show how far the Spark jobs inside the block are: by rows where the total is known, else by tasks."""
    stop, started = threading.Event(), time.monotonic()
    # fits a terminal of 80 columns, the state in full
    columns = (SpinnerColumn(), TextColumn("{task.description:<18}"), BarColumn(12), TextColumn("{task.fields[state]}"))
    bar = Progress(*columns, console=console, transient=False, disable=not console.is_terminal)
    task = bar.add_task(title, total=1.0, state="")

    def state() -> tuple[float, str]:
        rows = next((rows for rows, _ in meter.sums.values()), 0)  # the pass's first stage sees every row
        done, tasks = _tasks(spark)
        share = rows / total_rows if total_rows and rows else done / tasks if tasks else 0.0
        elapsed = time.monotonic() - started
        parts = [f"{elapsed:.0f} s", f"{done}/{tasks} tasks"] if tasks else [f"{elapsed:.0f} s"]
        if rows:
            parts.append(f"{rows:,} rows  {rows / elapsed:,.0f}/s")
        if 0 < share < 1:
            parts.append(f"{elapsed / share - elapsed:,.0f} s left")
        return min(share, 1.0), "  ".join(parts)

    def loop() -> None:
        line_due = started + PLAIN_LINE_S
        while not stop.wait(POLL_S):
            share, text = state()
            bar.update(task, completed=share, state=text)
            if not console.is_terminal and time.monotonic() >= line_due:
                console.print(f"  {title}: {text}", highlight=False)
                line_due = time.monotonic() + PLAIN_LINE_S

    thread = threading.Thread(target=loop, daemon=True)
    with bar:
        thread.start()
        try:
            yield
            rows = next((rows for rows, _ in meter.sums.values()), total_rows or 0)
            elapsed = time.monotonic() - started
            done = f"{rows:,} rows in {elapsed:.1f} s, {rows / max(elapsed, 1e-9):,.0f} rows/s" if rows else f"{elapsed:.1f} s"
            bar.update(task, completed=1.0, state=done)
        finally:
            stop.set()
            thread.join()
    if not console.is_terminal:
        console.print(f"  {title}: {done}", highlight=False)


def _tasks(spark: SparkSession) -> tuple[int, int]:
    """(ended, all) tasks of the Spark stages that run now."""
    tracker = spark.sparkContext.statusTracker()
    infos = [tracker.getStageInfo(s) for s in tracker.getActiveStageIds()]
    return sum(i.numCompletedTasks for i in infos if i), sum(i.numTasks for i in infos if i)

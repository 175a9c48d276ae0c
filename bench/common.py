"""What every benchmark shares: one core, interleaved repetitions, rows in which a ratio above 1 means that ours is better."""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
from rich.console import Console
from rich.table import Table

T = TypeVar("T")
Better = Literal["higher", "lower"]

RESULTS = Path(__file__).parent / "results"
EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True)
class Row:
    """One measured thing. `ratio` above 1: ours is better; None where there is no peer, or its figure is 0."""

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str | None
    ratio: float | None


def row(name: str, unit: str, ours: float, peer: float | None, peer_name: str | None, better: Better = "higher") -> Row:
    """A row with its ratio: ours over the peer where higher is better, the peer over ours where lower is.

    Below zero a ratio says nothing, so there is none.
    """
    above, below = (ours, peer) if better == "higher" else (peer, ours)
    ratio = None if above is None or below is None or below <= 0 or above < 0 else above / below
    return Row(name, unit, ours, peer, peer_name, ratio)


def one_core() -> None:
    """Hold this process, and those it starts, on one core (Linux; elsewhere the thread limits above must do)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_seconds() -> float:
    """CPU time so far of this process and of the processes it has running (to 10 ms there)."""
    running = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return time.process_time() + sum(float(times.user + times.system) for times in running)


def sample(items: Sequence[T], limit: int) -> Sequence[T]:
    """At most `limit` of the items, taken evenly."""
    return items[:: max(1, math.ceil(len(items) / limit))]


def interleave(contestants: Mapping[str, Callable[[], Any]], repeat: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median CPU seconds of each contestant and what its last run returned.

    CPU seconds, because on one core and a quiet machine they are the seconds that pass, and on a busy one they nearly stay.
    They take turns, so that a busy moment meets all alike; callers warm them up before, on less input.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    results: dict[str, Any] = {}
    for _ in range(repeat):
        for name, run in contestants.items():
            gc.collect()
            start = cpu_seconds()
            results[name] = run()
            seconds[name].append(cpu_seconds() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}, results


def speed_rows(name: str, unit: str, amount: float, seconds: Mapping[str, float], ours: str) -> list[Row]:
    """A row for each peer: `amount` of `unit` (per second) over the seconds of ours and of the peer."""
    return [
        row(name, unit, amount / seconds[ours], amount / taken, peer) for peer, taken in seconds.items() if peer != ours
    ] or [row(name, unit, amount / seconds[ours], None, None)]


def version(package: str) -> str:
    """`package 1.2.3`, or that it is not installed."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} (not installed)"


def installed(*modules: str) -> bool:
    """Whether all of these can be imported; says which cannot. A peer that is missing is left out of its table."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"left out: {module} ({error}); pip install -e '.[bench]'", file=sys.stderr)
            return False
    return True


def quiet_datatrove() -> None:
    """Errors only of datatrove's log."""
    from loguru import logger

    logger.remove()
    logger.add(sys.stderr, level="ERROR")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load_before": round(load, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


@dataclass(frozen=True)
class About:
    """What RESULTS.md says of a table beside its rows."""

    title: str
    compared: str  # what is compared, and what is not
    peers: tuple[str, ...]  # distributions whose versions count


def run_bench(module: str, about: About, measure: Callable[[Path], Sequence[Row]], argv: Sequence[str] | None = None) -> None:
    """The command line of a benchmark: measure on one core, print the table, write results/<module>.json."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{module}", description=about.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    args = parser.parse_args(argv)
    before = machine()
    one_core()
    start = time.perf_counter()
    rows = measure(args.data)
    publish(
        module, about, rows, before, shlex.join(["make", f"bench-{module}", f"DATA={shown(args.data)}"]), args.results, start
    )


def shown(path: Path) -> str:
    """A path as it is written in the results: relative to where we are."""
    return os.path.relpath(path)


def publish(
    module: str, about: About, rows: Sequence[Row], before: dict[str, Any], command: str, results: Path, start: float
) -> None:
    """Print the rows and write results/<module>.json (the rows) and <module>.run.json (machine, date, versions)."""
    results.mkdir(parents=True, exist_ok=True)
    run = {
        "title": about.title,
        "compared": about.compared,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": before,
        "versions": [version(p) for p in about.peers],
    }
    for name, value in ((f"{module}.json", [asdict(r) for r in rows]), (f"{module}.run.json", run)):
        (results / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    table = Table(title=about.title)
    for column in ("what", "unit", "ours", "peer", "peer is", "ratio"):
        table.add_column(column, justify="right" if column in ("ours", "peer", "ratio") else "left")
    for r in rows:
        table.add_row(*cells(r))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def cells(r: Row) -> tuple[str, str, str, str, str, str]:
    """A row as text, to three significant digits."""
    return r.name, r.unit, _digits(r.ours), _digits(r.peer), r.peer_name or "", _digits(r.ratio)


def _digits(value: float | None) -> str:
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"

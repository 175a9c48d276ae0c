"""The short table at the end of a run: documents, tokens, loss, and where the report lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.rundir import RunDir, read_json
from pipelines.shards import MANIFEST, read_manifest

LAST_STEPS = 10


def training_log(rundir: RunDir) -> list[dict[str, Any]]:
    """The lines of OUT/train/metrics.jsonl; empty where nothing was trained. A last line cut by a kill is left out."""
    file = rundir.training / "metrics.jsonl"
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def counts(rundir: RunDir) -> dict[str, int]:
    """Documents in, kept, dropped and quarantined over the whole run. `in` leaves out records that are no documents."""
    stages = read_json(rundir.ledger)["stages"]
    dropped = sum(n for s in stages for n in s["dropped"].values())
    quarantined = sum(n for s in stages for n in s["quarantined"].values())
    rows = [s for s in stages if s["stage"] != "shards"]
    return {"in": rows[0]["in"], "kept": rows[-1]["kept"], "dropped": dropped, "quarantined": quarantined}


def first_and_last_loss(log: list[dict[str, Any]]) -> tuple[float, float, int] | None:
    """The first step's loss, the mean over the last `LAST_STEPS` (one step's hangs on its sources), and the number of steps."""
    losses = [line["loss"] for line in log if "loss" in line]
    last = losses[-LAST_STEPS:]
    return (losses[0], sum(last) / len(last), len(losses)) if losses else None


def print_summary(rundir: RunDir, console: Console) -> None:
    """Print the table."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, number in counts(rundir).items():
        table.add_row(f"documents {name}" if name == "in" else name, f"{number:,}")
    if (rundir.shards / MANIFEST).is_file():
        manifest = read_manifest(rundir.shards)
        by_source = manifest.source_tokens()
        table.add_row("tokens", f"{sum(by_source.values()):,}  ({', '.join(f'{s} {n:,}' for s, n in by_source.items())})")
    if trained := first_and_last_loss(training_log(rundir)):
        first, last, steps = trained
        table.add_row(
            "loss", f"first {first:.3f}, last {last:.3f} (mean of the last {min(LAST_STEPS, steps)}) after {steps:,} steps"
        )
    table.add_row("report", str(_shown(rundir.report)))
    console.print(table, highlight=False)


def _shown(path: Path) -> Path:
    try:
        return path.absolute().relative_to(Path.cwd())
    except ValueError:
        return path.absolute()

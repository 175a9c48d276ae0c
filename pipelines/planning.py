"""What `plan` prints: inputs, steps, and the schedule with its phases drawn, before anything runs."""

from __future__ import annotations

import string
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipelines.errors import UserError
from pipelines.recipe import config_dict
from pipelines.rundir import RunDir
from pipelines.schedule import Layout, Schedule, ScheduleConfig, draft, unit_of
from pipelines.shards import MANIFEST, Shards

if TYPE_CHECKING:
    from pipelines.run import Plan

WIDTH = 48  # characters of a phase's bar
COLOURS = ("blue", "green", "yellow", "magenta", "cyan", "red", "bright_blue", "bright_green")


def print_plan(plan: Plan, rundir: RunDir, console: Console) -> None:
    """Inputs with sizes, steps with settings and state."""
    console.print(f"recipe [bold]{plan.recipe.name}[/]: {plan.recipe.doc.splitlines()[0] if plan.recipe.doc else ''}")
    inputs = Table("source", "files", "MB", "reader", title="inputs", title_justify="left")
    for used in plan.recipe.inputs:
        sizes = [f["bytes"] for f in plan.files if f["source"] == used.source]
        inputs.add_row(used.source, str(len(sizes)), f"{sum(sizes) / 1e6:,.1f}", used.spec.name)
    table = Table("step", "stage", "kind", "settings", "state", title="steps", title_justify="left")
    for step in plan.steps:
        complete = rundir.manifest(rundir.table(step), step.fingerprint) is not None
        for stage in step.stages:
            table.add_row(f"{step.index:02d}", stage.name, stage.spec.kind, _settings(stage.cfg), _state(complete))
    for name in ("index", "tokenizer", "shards"):
        if getattr(plan.recipe, name) is not None:
            complete = rundir.manifest(getattr(rundir, name), getattr(plan, name)) is not None
            table.add_row("", name, "", _settings(getattr(plan.recipe, name)), _state(complete))
    if plan.recipe.schedule is not None:
        table.add_row("", "schedule", "", _settings(plan.recipe.schedule), "always compiled")
    console.print(inputs, table)


def _state(complete: bool) -> str:
    return "complete, will be skipped" if complete else "to do"


def _settings(cfg: Any) -> str:
    described = config_dict(cfg)
    text = ", ".join(f"{k}={v}" for k, v in described.items()) if isinstance(described, dict) else str(described)
    return textwrap.shorten(text, 160, placeholder=" ...")


def planned_schedule(plan: Plan, rundir: RunDir, given: Sequence[str]) -> Schedule | None:
    """The recipe's schedule over the shards in OUT, or over `given` sizes (SOURCE=TOKENS); None where neither is there.

    It may pass its bounds on epochs. Raises UserError, ScheduleError.
    """
    from pipelines.schedule.packing import layout

    wanted = plan.recipe.schedule
    if wanted is None or not (given or (rundir.shards / MANIFEST).is_file()):
        return None
    shards = None if given else Shards(rundir.shards)
    tokens = _sizes(given) if shards is None else shards.manifest.source_tokens()
    cfg = wanted(tokens) if callable(wanted) else wanted
    return draft(cfg, tokens, "", _imagined(cfg, tokens) if shards is None else layout(shards, cfg.phases))


def _sizes(given: Sequence[str]) -> dict[str, int]:
    sizes = {}
    for setting in given:
        source, _, number = setting.rpartition("=")
        try:
            sizes[source] = int(float(number))
        except ValueError:
            sizes[source] = -1
        if not source or sizes[source] < 0:
            raise UserError(f"--tokens {setting!r} is not SOURCE=TOKENS, e.g. --tokens web-en=1.2e12")
    return sizes


def _imagined(cfg: ScheduleConfig, tokens: Mapping[str, int]) -> Layout:
    """Of sizes without documents: each source one file, its sequences full."""
    units = {unit_of(phase): phase.sequence_length for phase in cfg.phases}
    return {
        s: {unit: [n if unit == "tokens" else -(-n // length)] for unit, length in units.items()} for s, n in tokens.items()
    }


def print_schedule(schedule: Schedule, console: Console) -> None:
    """The phases as bars, then what each reads of each source; bounds that are passed stand out."""
    rows = schedule.epochs()
    letters = dict(zip(sorted(schedule.source_tokens), string.ascii_letters, strict=False))
    style = {source: COLOURS[i % len(COLOURS)] for i, source in enumerate(letters)}
    console.print(
        Text.assemble(
            ("schedule", "bold"),
            f": {schedule.total_tokens:,} tokens in {schedule.total_steps:,} steps; shares are exact to "
            f"{schedule.largest_error:.1f} sequences at every step",
        )
    )
    numbers = [Column(name, justify="right") for name in ("tokens", "steps", "sequence", "batch")]
    phases = Table("phase", *numbers, "packing", "mixture", box=SIMPLE_HEAD, pad_edge=False)
    for phase in schedule.config.phases:
        shares = {r.source: r.share for r in rows if r.phase == phase.name}
        steps = phase.tokens // phase.batch_tokens
        phases.add_row(
            phase.name,
            *(f"{n:,}" for n in (steps * phase.batch_tokens, steps, phase.sequence_length, phase.batch_tokens)),
            phase.packing,
            Text.assemble(*((letters.get(s, "?") * n, style.get(s, "")) for s, n in _widths(shares).items())),
        )
    console.print(phases)
    columns = [Column(name, justify="right") for name in ("share", "tokens", "has", "epochs", "in all", "at most")]
    table = Table("phase", "", "source", *columns, "", box=SIMPLE_HEAD, pad_edge=False)
    before = ""
    for row in rows:
        cap = "" if row.max_epochs is None else f"{row.max_epochs:g}"
        left = f"{row.left:.2g} epochs passed over" if row.left else ""
        table.add_row(
            row.phase if row.phase != before else "",
            Text(letters.get(row.source, "?"), style.get(row.source, "")),
            row.source,
            f"{row.share:.2%}",
            f"{row.tokens:,}",
            f"{schedule.source_tokens[row.source]:,}",
            f"{row.epochs:.3g}",
            f"{row.epochs_after:.3g}",
            cap,
            "too often" if row.is_over else left,
            style="bold red" if row.is_over else "",
        )
        before = row.phase
    console.print(table)
    unread = sorted(set(schedule.source_tokens) - {row.source for row in rows})
    if unread:
        console.print(f"not read: {', '.join(unread)}", highlight=False)


def _widths(shares: Mapping[str, float]) -> dict[str, int]:
    """Characters of the bar of each source, WIDTH in all: the largest remainders get what rounding down leaves."""
    exact = {source: share * WIDTH for source, share in shares.items()}
    widths = {source: int(width) for source, width in exact.items()}
    by_rest = sorted(exact, key=lambda s: (widths[s] - exact[s], s))
    for source in by_rest[: WIDTH - sum(widths.values())]:
        widths[source] += 1
    return widths

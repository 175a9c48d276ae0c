"""What a run writes while it goes: metrics.jsonl for programs, one line a step worth reading for people, and the trackers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer.errors import UserError


def say(text: str) -> None:
    """A plain line on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def truncate_after(path: Path, step: int) -> None:
    """Keep the lines of a JSON-lines file up to `step`. Missing is fine."""
    if not path.exists():
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in read(path) if line["step"] <= step))
    temporary.replace(path)


def append(path: Path, value: dict[str, Any]) -> None:
    """One JSON line at the end of a file. Raises UserError on a full disk."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free space or choose another --out") from error


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file, to one that was cut off by a crash; none if it is missing."""
    lines: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def check_trackers(names: Sequence[str]) -> list[str]:
    """The names, if Accelerate knows them and what they need is installed. Raises UserError."""
    known, here = sorted(LOGGER_TYPE_TO_CLASS), {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in here:
            what = "is not installed" if name in known else f"is unknown to Accelerate, which knows {', '.join(known)}"
            raise UserError(f"run.trackers: {name!r} {what}; here are {', '.join(sorted(here))}")
    return list(names)


class StepLog:
    """Writes steps and evaluations on the main process; elsewhere it does nothing. A context manager."""

    def __init__(self, accelerator: Accelerator, out: Path, first: int, last: int, every: int) -> None:
        self._accelerator, self._metrics, self._last, self._every = accelerator, out / "metrics.jsonl", last, every
        self._main = accelerator.is_main_process
        self._first = first
        console = Console()
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console) if self._main and console.is_terminal else None
        self._task = self._bar.add_task("", total=last, completed=first) if self._bar else None

    def __enter__(self) -> StepLog:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, values: dict[str, Any], seconds_left: float) -> None:
        """One finished step: step, tokens, phase, loss, lr, grad_norm, tokens_per_second, data_wait_s.

        On a GPU also peak_share (the model's FLOPs over a matrix product's measured rate) and memory_gib, the most so far.
        """
        if not self._main:
            return
        append(self._metrics, values)
        self._accelerator.log({k: v for k, v in values.items() if k not in ("step", "phase")}, step=values["step"])
        done = values["step"]
        text = (
            f"{values['phase']} | loss {values['loss']:.4f} | lr {values['lr']:.2e} | {values['tokens_per_second']:,.0f} tok/s"
        )
        text += f" ({values['peak_share']:.1%} of peak)" if "peak_share" in values else ""
        text += f" | norm {values['grad_norm']:.2f} | wait {values['data_wait_s'] * 1000:.0f} ms"
        text += f" | {values['memory_gib']:.1f} GiB" if "memory_gib" in values else ""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, description=text)
        elif done % self._every == 0 or done in (self._first + 1, self._last):
            say(f"step {done}/{self._last} | {text} | left {timedelta(seconds=int(seconds_left))}")

    def evaluation(self, step: int, losses: dict[str, float]) -> None:
        """Validation loss per source."""
        if not self._main:
            return
        append(self._metrics, {"step": step, "validation": losses})
        self._accelerator.log({f"validation/{source}": loss for source, loss in losses.items()}, step=step)
        self.line(f"step {step} | validation " + ", ".join(f"{source} {loss:.4f}" for source, loss in losses.items()))

    def probes(self, step: int, found: dict[str, float]) -> None:
        """Share of right answers per task; of needles the line says the mean."""
        if not self._main:
            return
        append(self._metrics, {"step": step, "probes": found})
        self._accelerator.log({f"probe/{task}": share for task, share in found.items()}, step=step)
        needles = [share for task, share in found.items() if task.startswith("needle ")]
        shown = {"needle": sum(needles) / len(needles)} if needles else {}
        shown |= {task: share for task, share in found.items() if not task.startswith("needle ")}
        self.line(f"step {step} | right " + ", ".join(f"{task} {share:.2f}" for task, share in shown.items()))

    def line(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._main and self._bar:
            self._bar.console.print(text, highlight=False, soft_wrap=True)
        elif self._main:
            say(text)

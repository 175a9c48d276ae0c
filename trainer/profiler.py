"""A trace of some steps, on demand: `run.profile_steps`, or SIGUSR1 to a rank, which then traces its next `STEPS` steps.

RUN/profile/step-00000010-rank-0.json is for chrome://tracing or ui.perfetto.dev.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType

import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 3


class Profiler:
    """A context; call it before each step with the steps done. It costs nothing while nobody asks."""

    def __init__(self, out: Path, rank: int, steps: tuple[int, int] | None) -> None:
        self._folder, self._rank, self._steps = out / "profile", rank, steps
        self._profile: profile | None = None
        self._asked = False

    def __enter__(self) -> Profiler:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGUSR1, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __call__(self, done: int) -> None:
        """Begin a trace with step `done` + 1, or end one with step `done`."""
        if self._profile is None and self._asked:
            self._steps, self._asked = (done + 1, done + STEPS), False
        if self._profile is not None and self._steps is not None and done >= self._steps[1]:
            self._close()
        elif self._profile is None and self._steps is not None and done + 1 == self._steps[0]:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profile.start()

    def _close(self) -> None:
        if self._profile is None or self._steps is None:
            return
        self._profile.stop()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / f"step-{self._steps[0]:08d}-rank-{self._rank}.json"))
        self._profile, self._steps = None, None

"""What is worth knowing of a step: loss, speed, share of what the device can do, gradient norm, waiting, memory, time left."""

from __future__ import annotations

import time

import torch

from trainer.log import StepLog, append
from trainer.plan import step_flops
from trainer.session import Session
from trainer.step import Step, moment, seconds_between

GIB = 2**30


class Report:
    """Reads the outcome of steps, in order, and has it written down."""

    def __init__(self, run: Session, log: StepLog) -> None:
        self._run, self._log = run, log
        self._peak = peak_rate(run.device) if run.device.type == "cuda" else None
        self._began, self._from = time.monotonic(), run.tokens_after(run.first_step)
        self._until = run.tokens_after(run.last_step)

    def __call__(self, step: Step) -> bool:
        """Wait for a step; whether rank 0 wished to save when it began. Raises UserError if the guard left it out."""
        run, outcome, plan = self._run, step.outcome(), step.batch.plan
        tokens = plan.tokens_before + step.tokens
        values = {"step": step.done, "tokens": tokens, "phase": run.data.phase_name(plan), "loss": outcome.loss}
        values |= {"lr": step.rate, "grad_norm": outcome.norm, "tokens_per_second": step.tokens / outcome.seconds}
        values["data_wait_s"] = step.waited
        values |= dict(zip(run.task.metrics, outcome.metrics, strict=True))
        if self._peak is not None:
            values["peak_share"] = step_flops(run.cfg.model, step.batch) / outcome.seconds / self._peak
            values["memory_gib"] = torch.cuda.max_memory_allocated() / GIB
        rate = (tokens - self._from) / (time.monotonic() - self._began)  # with all that lay between the steps
        self._log.step(values, (self._until - tokens) / rate)
        if run.cfg.run.log_samples:
            seen = {"step": step.done, "rank": run.rank, "world": run.world, "samples": step.batch.samples}
            append(run.out / f"consumed-{run.rank}.jsonl", seen)
        return outcome.save


def peak_rate(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of a product of two bf16 matrices, measured in well under a second on a GPU: the yardstick of `peak_share`."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(repeats // 4):
        a @ b
    began = moment(device)
    for _ in range(repeats):
        a @ b
    ended = moment(device)
    if isinstance(ended, torch.cuda.Event):
        ended.synchronize()
    return repeats * 2.0 * size**3 / seconds_between(began, ended)

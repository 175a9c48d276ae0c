"""One optimizer step, given to the device without waiting for it; what came of it is read while the next one runs.

The guard against a loss or gradient norm that is no number works on the device: such a step changes neither weights nor
moments. The host learns of it a step later and stops the run, so nothing is saved in between either.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.data import Batch
from trainer.errors import UserError
from trainer.optimizer import local, set_rate
from trainer.session import Session

Moment = torch.cuda.Event | float  # a point in the device's work; on a CPU, which works at once, of time


@dataclass(frozen=True)
class Outcome:
    """`loss`: nats a token over all ranks; `norm`: of the gradient, before clipping; `save`: rank 0 wants to."""

    loss: float
    norm: float
    save: bool
    metrics: tuple[float, ...]  # those of the task
    seconds: float  # on the device, from the moment at which the step began


@dataclass(frozen=True)
class Step:
    """A step under way. Its outcome is the same on every rank, but for the seconds."""

    batch: Batch
    rate: float
    waited: float  # seconds for the batch
    began: Moment
    ended: Moment
    _shared: Tensor  # loss, metrics, square of the norm, whether to save: fp32, in host memory, there once `ended` is past
    _loss: Tensor  # of this rank's samples

    @property
    def done(self) -> int:
        """Steps done with this one."""
        return self.batch.plan.step + 1

    @property
    def tokens(self) -> int:
        """Of all ranks."""
        return self.batch.plan.samples * self.batch.plan.sequence_length

    def outcome(self) -> Outcome:
        """Wait for the end of the step. Raises UserError, on all ranks, where it was left out by the guard."""
        if isinstance(self.ended, torch.cuda.Event):
            self.ended.synchronize()
        loss, *metrics, square, save = self._shared.tolist()
        if not math.isfinite(loss + square):
            raise UserError(self._left_out(loss, math.sqrt(square)), everywhere=True)
        return Outcome(loss, math.sqrt(square), bool(save), tuple(metrics), seconds_between(self.began, self.ended))

    def _left_out(self, loss: float, norm: float) -> str:
        mine = math.isfinite(float(self._loss)), list(self.batch.samples)
        parts: list[tuple[bool, list[str]]] = [(True, [])] * dist.get_world_size()
        dist.all_gather_object(parts, mine)
        # Of ranks whose own loss was finite no sample is to blame, unless all were and the gradient alone was not.
        suspects = [name for finite, names in parts for name in names if not finite]
        suspects = suspects or [name for _, names in parts for name in names]
        return (
            f"step {self.done}: loss is {loss}, gradient norm {norm}; it changed nothing, the last checkpoint is untouched. "
            f"Lower learning_rate.peak, or look at the samples {', '.join(suspects[:4])} ... ({len(suspects)} in all)"
        )


def train_step(
    run: Session, batch: Batch, rate: float, save: bool = False, waited: float = 0.0, began: Moment | None = None
) -> Step:
    """Forward and backward over the micro-batches, then the update, all queued. `save`: what rank 0 tells the others."""
    began = moment(run.device) if began is None else began
    total = torch.zeros(1 + len(run.task.metrics), device=run.device)
    normalizer = max(batch.valid_tokens, 1)  # 0 where all of a step was taken down
    for number, micro in enumerate(batch.micro_batches, start=1):
        # sums wait on the device, whole, for those of the last: with weights offloaded there is no room for them
        run.model.set_requires_gradient_sync(run.cfg.parallel.offload or number == len(batch.micro_batches))
        sums = run.task.objective(run.model, micro.to(run.device), normalizer)
        torch.autograd.backward(sums[0])
        total += sums.detach()
    wish = torch.full_like(total[:1], float(save and run.rank == 0))  # filled there: a copy from here would wait
    shared = torch.cat((total, _square_of_norm(run)[None], wish))
    dist.all_reduce(shared)
    set_rate(run.optimizer, rate)
    guard(run.optimizer, shared[0], shared[-2].sqrt(), run.cfg.optimizer.clip)
    run.optimizer.step()
    run.optimizer.zero_grad()
    host = shared.to("cpu", non_blocking=True)  # page-locked, where there is such a thing
    return Step(batch, rate, waited, began, moment(run.device), host, total[0])


def _square_of_norm(run: Session) -> Tensor:
    """This rank's share of the squared gradient norm, such that the shares of all ranks add up to it."""
    gradients = [local(p.grad) for p in run.model.parameters() if p.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm(gradients)
    return norm.to(run.device).square() / run.cfg.parallel.replicas


def guard(optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor, clip: float) -> None:
    """Tell the optimizer's next step to divide the gradients by what clips their norm, or to change nothing.

    The division inside of the fused update differs from `torch.nn.utils.clip_grad_norm_`, which multiplies by the reciprocal,
    by one rounding (6e-8 of a gradient), and by none where the norm is within the bound.
    """
    device = optimizer.param_groups[0]["params"][0].device  # the host's where they are offloaded
    bad = ~torch.isfinite(loss + norm)
    optimizer.found_inf = bad.float().to(device)  # type: ignore[attr-defined]
    optimizer.grad_scale = ((norm + 1e-6) / clip).clamp(min=1.0).to(device)  # type: ignore[attr-defined]


def moment(device: torch.device) -> Moment:
    """This point in the work queued on the device."""
    if device.type != "cuda":
        return time.perf_counter()
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(began: Moment, ended: Moment) -> float:
    """Both are past."""
    if isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
        return float(began.elapsed_time(ended)) / 1000
    assert isinstance(began, float)
    assert isinstance(ended, float)
    return ended - began

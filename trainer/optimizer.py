"""Fused AdamW or Adafactor over sharded parameters. Both take two tensors that are still being computed when `step` is called.

`found_inf` (1.0: leave weights and state as they are) and `grad_scale` (divide the gradients by it) are the attributes that
PyTorch's fused kernels know from mixed-precision scaling: clipping and the guard against NaN cost no pass and no wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from trainer.config import Group, OptimizerConfig
from trainer.errors import UserError


def make_optimizer(model: nn.Module, cfg: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of the sharded parameters; a step's learning rate is written by `set_rate`. Raises UserError."""
    groups = parameter_groups(model.named_parameters(), cfg)
    if cfg.kind == "adafactor":
        return Adafactor(groups)
    if cfg.moments == "bf16":
        return AdamWithHalfMoments(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps)
    return torch.optim.AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], cfg: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters by the first of `cfg.groups` that matches their name; the weight decay goes to matrices unless one says else.

    Raises UserError for a group without parameters.
    """
    everything = Group("")
    found: dict[tuple[Group, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        group = next((g for g in cfg.groups if re.search(g.match, name)), everything)
        found.setdefault((group, parameter.dim() >= 2), []).append(parameter)
    if empty := [g.match for g in cfg.groups if (g, True) not in found and (g, False) not in found]:
        raise UserError(f"optimizer.groups: {empty[0]!r} is in no parameter's name, or an earlier group takes them all")
    result = []
    for (group, matrix), parameters in found.items():
        decay = group.weight_decay if group.weight_decay is not None else cfg.weight_decay * matrix
        result.append({"params": parameters, "weight_decay": decay, "rate": group.rate})
    return result


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step, times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def empty_state(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """State after `steps` steps with tensors of zeros, for a checkpoint to fill."""
    for group in optimizer.param_groups:
        if isinstance(optimizer, Adafactor):
            group["step"] = steps
        for parameter in group["params"]:
            if isinstance(optimizer, Adafactor):
                optimizer.state[parameter] = empty_moments(parameter)
            else:
                dtype = torch.bfloat16 if isinstance(optimizer, AdamWithHalfMoments) else parameter.dtype
                done = torch.tensor(float(steps), dtype=torch.float32, device=parameter.device)
                moments = {moment: torch.zeros_like(parameter, dtype=dtype) for moment in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": done} | moments


def moments_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The state tensors of a parameter that a checkpoint holds, by name."""
    return {name: value for name, value in optimizer.state[parameter].items() if name != "step"}


def empty_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Adafactor's state: second moments of a matrix's rows, sharded as it is, and of its columns, on every rank."""
    if parameter.dim() < 2:
        return {"variance": torch.zeros_like(parameter)}
    rows = torch.zeros_like(parameter.detach()[..., 0])
    return {"row_variance": rows, "column_variance": local(parameter.detach()).new_zeros(parameter.shape[-1])}


class AdamWithHalfMoments(torch.optim.AdamW):
    """AdamW whose moments lie in bf16: 4 bytes a parameter less. PyTorch's fused update in fp32, a piece of a tensor at a time.

    They are rounded to the nearest after each step, so a step is a function of its input and a run resumes with the same bits.
    With betas up to .99 a moment moves by more than half of what bf16 can tell apart, so none stalls (`OptimizerConfig`).
    """

    PIECE = 1 << 24  # numbers that are in fp32 at once
    found_inf: Tensor | None = None
    grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        parameters = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(not self.state[p] for _, p in parameters):
            empty_state(self, 0)
        for group, p in parameters:
            state = self.state[p]
            state["step"] += 1
            tensors = (p, p.grad, state["exp_avg"], state["exp_avg_sq"])
            for weight, gradient, *moments in zip(*(_pieces(t, self.PIECE) for t in tensors), strict=True):
                self._update(group, state["step"], weight, gradient, moments)
            if self.found_inf is not None:
                state["step"] -= self.found_inf

    def _update(self, group: dict[str, Any], step: Tensor, weight: Tensor, gradient: Tensor, moments: list[Tensor]) -> None:
        full = [moment.float() for moment in moments]
        beta1, beta2 = group["betas"]
        torch._fused_adamw_(
            [weight], [gradient], [full[0]], [full[1]], [], [step], lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], amsgrad=False, maximize=False, grad_scale=self.grad_scale,
            found_inf=self.found_inf,
        )  # fmt: skip
        for moment, value in zip(moments, full, strict=True):
            moment.copy_(value)


class Adafactor(torch.optim.Optimizer):
    """Second moments as a product of rows and columns (Shazeer and Stern 2018, algorithms 4 and 5), without a first moment.

    Steps are relative: the learning rate is multiplied by the root mean square of the parameter, at least EPS_SCALE
    (section 8). Weight decay is decoupled, as AdamW's. Of more than two dimensions all but the last are rows. `fully_shard`
    cuts along the first; what crosses ranks goes in two collectives a step. The update is built in the gradient's memory.
    """

    EPS, EPS_SCALE, CLIP, DECAY = 1e-30, 1e-3, 1.0, -0.8  # the paper's, section 9: beta2 of step t is 1 - t ** DECAY

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "rate": 1.0, "step": 0})
        self.found_inf: Tensor | None = None
        self.grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        parameters = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for group in self.param_groups:
            group["step"] += 1
        gradients = [self._gradient(p) for _, p in parameters]  # as matrices, or vectors
        columns = [_squares(g, 0) for g in gradients if g.dim() > 1]
        weights = [local(p).square().sum() for _, p in parameters]
        summed = _sum_over_shards([*columns, *weights], parameters[0][1])
        column_sums, weight_sums = iter(summed[: len(columns)]), summed[len(columns) :]
        for (group, p), g in zip(parameters, gradients, strict=True):
            self._normalize(g, p, next(column_sums) if g.dim() > 1 else None, self._kept(group["step"] ** self.DECAY))
        update_sums = _sum_over_shards([g.square().sum() for g in gradients], parameters[0][1])
        for (group, p), g, weight, squares in zip(parameters, gradients, weight_sums, update_sums, strict=True):
            scale = (weight / p.numel()).sqrt().clamp(min=self.EPS_SCALE)
            bound = ((squares / p.numel()).sqrt() / self.CLIP).clamp(min=1.0)
            update = g.mul_(group["lr"] * scale / bound).view_as(local(p))
            local(p).mul_(1 - self._kept(group["lr"] * group["weight_decay"])).sub_(update)

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        assert parameter.grad is not None
        gradient = local(parameter.grad).flatten(0, max(0, parameter.dim() - 2))
        if self.grad_scale is not None:
            gradient.div_(self.grad_scale)
        return gradient if self.found_inf is None else gradient.masked_fill_(self.found_inf.bool(), 0.0)

    def _kept(self, weight: float) -> Tensor | float:
        """`weight`, or zero where the step must change nothing."""
        return weight if self.found_inf is None else weight * (1 - self.found_inf)

    def _normalize(self, gradient: Tensor, parameter: nn.Parameter, columns: Tensor | None, weight: Tensor | float) -> None:
        """Take the squares of the gradient into the state; divide it by the root of what the state then says."""
        if not self.state[parameter]:
            self.state[parameter] = empty_moments(parameter)
        state = {name: local(value) for name, value in self.state[parameter].items()}
        if columns is None:
            variance = state["variance"].lerp_(gradient.square() + self.EPS, weight)
            gradient.mul_(variance.rsqrt())
            return
        width = parameter.shape[-1]
        rows = state["row_variance"].view(-1).lerp_(_squares(gradient, 1) / width + self.EPS, weight)
        columns = state["column_variance"].lerp_(columns * (width / parameter.numel()) + self.EPS, weight)
        # The mean over rows, which are on all ranks, is the mean over columns, which are here.
        gradient.mul_((rows / columns.mean()).rsqrt()[:, None]).mul_(columns.rsqrt())


def local(tensor: Tensor) -> Tensor:
    """This rank's part."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _pieces(tensor: Tensor, size: int) -> Sequence[Tensor]:
    """This rank's part as vectors of `size` numbers."""
    flat = local(tensor.detach()).view(-1)
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def _squares(tensor: Tensor, dim: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dim)  # nothing of the size of the tensor in between
    return norms.square()


def _sum_over_shards(parts: list[Tensor], like: Tensor) -> list[Tensor]:
    """Each of these summed over the ranks that hold the shards of `like`, in one collective."""
    flat = torch.cat([part.reshape(-1) for part in parts])
    if isinstance(like, DTensor):
        mesh = like.device_mesh
        at = flat.to(mesh.device_type)  # offloaded parameters live beside the device that the ranks talk through
        dist.all_reduce(at, group=mesh.get_group(mesh.ndim - 1))
        flat = at.to(flat.device)
    summed = torch.split_with_sizes(flat, [part.numel() for part in parts])
    return [sums.view_as(part) for sums, part in zip(summed, parts, strict=True)]

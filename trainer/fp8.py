"""Linear layers of the blocks in 8-bit floating point (Micikevicius et al. 2022, arXiv 2209.05433), by PyTorch alone.

All three products of a layer run in 8 bits: inputs and weights as e4m3, gradients as e5m2, each tensor divided by one number
such that its largest value is the format's; sums are fp32. Where no gradient is asked for (validation, generation) nothing is
rounded to 8 bits. Master weights, gradient sums, norms, attention, experts, embedding and head are as without.

Shapes: N tokens, I inputs, O outputs. On a GPU I, O and N must be divisible by 16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.errors import UserError
from trainer.model import Decoder

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16


class Float8Linear(nn.Linear):
    """A linear layer without bias; its weight is as of any other."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), in the dtype of `x`."""
        if not torch.is_grad_enabled():
            return F.linear(x, self.weight)
        out_NO: Tensor = _Product.apply(x.flatten(0, -2), self.weight)  # type: ignore[no-untyped-call]
        return out_NO.view(*x.shape[:-1], -1)


def to_fp8(model: Decoder) -> None:
    """Let the blocks' linear layers, but for routers, compute in 8 bits; in place, before the model is laid out."""
    for block in model.model.layers:
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and name != "router":
                    made = Float8Linear(child.in_features, child.out_features, bias=False, device="meta")
                    made.weight = child.weight
                    setattr(parent, name, made)


def check_fp8(cfg: TrainConfig, lengths: Iterable[int]) -> None:
    """Raise UserError for a model or a sequence length that 8-bit kernels do not take."""
    model = cfg.model
    sizes = [
        ("width", model.width),
        ("feed_forward", model.feed_forward),
        ("kv_heads x head size", model.kv_heads * model.head_size),
    ]
    for name, size in [*sizes, *(("sequence_length of a phase", length) for length in lengths)]:
        if cfg.precision == "fp8" and size % MULTIPLE:
            raise UserError(f"precision fp8: {name} of {size} is not a multiple of {MULTIPLE}; --set precision=bf16")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OI: Tensor) -> Tensor:
        x8_NI, x_scale = rounded(x_NI, FORWARD)
        weight8_OI, weight_scale = rounded(weight_OI, FORWARD)
        ctx.save_for_backward(x8_NI, x_scale, weight8_OI, weight_scale)
        return torch._scaled_mm(x8_NI, weight8_OI.t(), x_scale, weight_scale, out_dtype=x_NI.dtype, use_fast_accum=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x8_NI, x_scale, weight8_OI, weight_scale = ctx.saved_tensors
        grad8_NO, scale = rounded(grads[0], BACKWARD)
        dtype = grads[0].dtype
        grad_x_NI = torch._scaled_mm(grad8_NO, _columns(weight8_OI), scale, weight_scale, out_dtype=dtype)
        grad_weight_OI = torch._scaled_mm(grad8_NO.t().contiguous(), _columns(x8_NI), scale, x_scale, out_dtype=dtype)
        return grad_x_NI, grad_weight_OI


def rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The tensor in 8 bits and the fp32 number to multiply it with; of its values the largest is exact."""
    most = torch.finfo(dtype).max
    scale = x.detach().abs().amax().float().clamp(min=1e-12) / most
    return (x.float() / scale).clamp(-most, most).to(dtype), scale


def _columns(x: Tensor) -> Tensor:
    """The same matrix, laid out by columns, as the second factor must be."""
    return x.t().contiguous().t()

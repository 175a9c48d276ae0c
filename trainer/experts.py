"""Mixture of experts: each token through the few feed-forwards that a router chooses; no capacity, so none is dropped.

Tokens are sorted by expert and multiplied group by group (`grouped_mm`): no loop over experts, no wait for a count, so in bf16
the block compiles whole; sharded over dimension 0, a rank stores its part of the experts.

Shapes: N tokens, D width, F feed-forward, X experts, C chosen for each token, P = N C pairs of a token and an expert.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import ModelConfig


class MixtureOfExperts(nn.Module):
    """Top-k SwiGLU experts, the weights of the chosen summing to 1 (Mixtral, arXiv 2401.04088, section 2.1).

    A single one is weighted with its probability (Switch Transformers, arXiv 2101.03961, equation 2): from a weight that is
    always 1 the router could not learn.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        assert cfg.experts is not None
        self.chosen, count = cfg.experts.chosen, cfg.experts.count
        self.router = nn.Linear(cfg.width, count, bias=False)
        self.gate_proj = nn.Parameter(torch.empty(count, cfg.feed_forward, cfg.width))
        self.up_proj = nn.Parameter(torch.empty(count, cfg.feed_forward, cfg.width))
        self.down_proj = nn.Parameter(torch.empty(count, cfg.width, cfg.feed_forward))

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, D), and the load-balancing loss: 1 where all experts get as much, else more."""
        x_ND = x_BTD.flatten(0, 1)
        # in fp32: rounding decides who is chosen (Switch Transformers, section 2.4)
        probability_NX = F.linear(x_ND.float(), self.router.weight.float()).softmax(-1)
        weight_NC, expert_NC = probability_NX.topk(self.chosen)
        if self.chosen > 1:
            weight_NC = weight_NC / weight_NC.sum(-1, keepdim=True)
        expert_P = expert_NC.flatten()
        order_P = expert_P.argsort(stable=True)
        load_X = (expert_P[:, None] == torch.arange(probability_NX.shape[1], device=x_ND.device)).sum(0)
        out_PD = self._experts(x_ND[order_P // self.chosen], load_X.cumsum(0, dtype=torch.int32))
        # Back in the tokens' order, to be summed in a fixed order; adding by index would not be deterministic on a GPU.
        out_NCD = out_PD[order_P.argsort()].view(*weight_NC.shape, -1)
        out_ND = (out_NCD * weight_NC[..., None].to(out_NCD.dtype)).sum(1)
        balance = len(load_X) * (load_X / len(expert_P) * probability_NX.mean(0)).sum()
        return out_ND.view(x_BTD.shape), balance

    def _experts(self, in_PD: Tensor, ends_X: Tensor) -> Tensor:
        multiply = F.grouped_mm if in_PD.dtype == torch.bfloat16 else _grouped_mm_apart
        gate_PF = multiply(in_PD, self.gate_proj.transpose(1, 2), offs=ends_X)
        up_PF = multiply(in_PD, self.up_proj.transpose(1, 2), offs=ends_X)
        return multiply(F.silu(gate_PF) * up_PF, self.down_proj.transpose(1, 2), offs=ends_X)


def _grouped_mm_apart(x: Tensor, weight: Tensor, *, offs: Tensor) -> Tensor:
    """The same product expert by expert: the compiler knows the grouped one in bf16 only."""
    bounds = pairwise([0, *offs.tolist()])
    return torch.cat([x[start:end] @ weight[expert] for expert, (start, end) in enumerate(bounds)])

"""Cross-entropy of a linear head, chunk by chunk: logits of one chunk of tokens exist at a time, and only here are they fp32.

Loss and gradients come from the same pass; the weight's gradient is summed over chunks in fp32, since rounding each chunk
to bf16 biases training. The oracle is `torch.nn.functional.cross_entropy` over all logits (tests/trainer/test_loss.py).

Shapes: N tokens, D model, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing (padding rows)


def token_losses(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, chunk: int) -> Tensor:
    """Negative log-likelihood of each target in nats, fp32 (N,); 0 where ignored. No gradient."""
    losses_N = torch.empty(targets_N.shape, dtype=torch.float32, device=hidden_ND.device)
    with torch.no_grad():
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            logits_CV = (hidden_ND[part] @ weight_VD.t()).float()
            losses_N[part] = torch.nn.functional.cross_entropy(
                logits_CV, targets_N[part], reduction="none", ignore_index=IGNORED
            )
    return losses_N


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, normalizer: float, chunk: int) -> Tensor:
    """Sum of the tokens' losses divided by `normalizer`, the number of valid tokens of the whole step over all ranks.

    Returns a fp32 scalar. Its backward may run once.
    """
    if not torch.is_grad_enabled():
        return token_losses(hidden_ND, weight_VD, targets_N, chunk).sum() / normalizer
    loss: Tensor = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, normalizer, chunk)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, normalizer: float, chunk: int) -> Tensor:
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            valid_C1 = (targets_N[part] != IGNORED)[:, None]
            index_C1 = targets_N[part].clamp(min=0)[:, None]
            minus_one_C1 = torch.full_like(index_C1, -1, dtype=torch.float32)
            log_p_CV = torch.log_softmax(hidden_ND[part] @ weight_VD.t(), -1, dtype=torch.float32)
            loss -= (log_p_CV.gather(1, index_C1) * valid_C1).sum()
            # The gradient of the logits takes their place: softmax minus one-hot, over the normalizer.
            grad_CV = log_p_CV.exp_()
            grad_CV.scatter_add_(1, index_C1, minus_one_C1)
            grad_CV = grad_CV.mul_(valid_C1 / normalizer).to(hidden_ND.dtype)
            torch.mm(grad_CV, weight_VD, out=grad_hidden_ND[part])
            _add_product(grad_weight_VD, grad_CV.t(), hidden_ND[part])
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype))
        return loss / normalizer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_ND.mul_(grads[0]), grad_weight_VD.mul_(grads[0]), None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b with an fp32 sum, whatever the dtype of a and b."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())

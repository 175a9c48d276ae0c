"""Cross-entropy of a linear head, chunk by chunk: logits of one chunk of tokens exist at a time, and not in fp32 on a GPU.

Loss and gradients come from the same pass, the gradient written over the logits (DeepSeek LLM, section 2.4); the weight's
gradient is summed over chunks in fp32, since rounding each chunk to bf16 biases training. The oracle is
`torch.nn.functional.cross_entropy` over all logits (tests/trainer/test_loss.py).

Shapes: N tokens, D model, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

IGNORED = -100  # a target that counts for nothing (padding rows)


def token_losses(hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Negative log-likelihood of each target in nats, fp32, of the shape of the N targets; 0 where ignored.

    With a gradient, for losses that weigh tokens by what all of them turn out to be (trainer.post): the logits of a chunk are
    computed once more in the backward pass, which may run once.
    """
    losses: Tensor = _TokenLosses.apply(hidden_ND, weight_VD, targets, chunk)  # type: ignore[no-untyped-call]
    return losses


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, normalizer: float, chunk: int, z_loss: float = 0.0
) -> Tensor:
    """Sum of the tokens' losses divided by `normalizer`, the number of valid tokens of the whole step over all ranks.

    `z_loss` times the square of log Z is added to each token's loss (PaLM, Chowdhery et al. 2022, section 5). Returns a fp32
    scalar. Its backward may run once.
    """
    if not torch.is_grad_enabled():
        return token_losses(hidden_ND, weight_VD, targets_N, chunk).sum() / normalizer
    arguments = hidden_ND, weight_VD, targets_N, normalizer, chunk, z_loss
    loss: Tensor = _LinearCrossEntropy.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, normalizer: float, chunk: int, z_loss: float
    ) -> Tensor:
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        scale = torch.full((1,), 1.0 / normalizer, dtype=torch.float32, device=hidden_ND.device)  # no new code for each value
        differentiate = _compiled() if hidden_ND.is_cuda else _differentiate_eagerly
        logits_room_CV = hidden_ND.new_empty(min(chunk, len(targets_N)), len(weight_VD))  # one for all chunks
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            logits_CV = torch.mm(hidden_ND[part], weight_VD.t(), out=logits_room_CV[: len(targets_N) - start])
            loss += differentiate(logits_CV, targets_N[part], scale, z_loss)
            torch.mm(logits_CV, weight_VD, out=grad_hidden_ND[part])
            _add_product(grad_weight_VD, logits_CV.t(), hidden_ND[part])
        del logits_CV, logits_room_CV  # the next line takes half of that room
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype))
        return loss / normalizer

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return grad_hidden_ND.mul_(grads[0]), grad_weight_VD.mul_(grads[0]), None, None, None, None


def _differentiate(logits_CV: Tensor, targets_C: Tensor, scale: Tensor, z_loss: float) -> Tensor:
    """The sum of the losses of a chunk; in the place of its logits stands their gradient, times `scale`: (1,), or (C, 1)."""
    logits = logits_CV.float()
    log_z_C1 = torch.logsumexp(logits, -1, keepdim=True)
    valid_C1, index_C1 = (targets_C != IGNORED)[:, None], targets_C.long().clamp(min=0)[:, None]
    losses_C1 = log_z_C1 - logits.gather(1, index_C1) + z_loss * log_z_C1.square()
    is_target_CV = torch.arange(logits.shape[1], device=logits.device) == index_C1
    gradient_CV = (logits - log_z_C1).exp() * (1 + 2 * z_loss * log_z_C1) - is_target_CV.float()
    logits_CV.copy_(gradient_CV * (scale * valid_C1))
    return (losses_C1 * valid_C1).sum()


def _differentiate_eagerly(logits_CV: Tensor, targets_C: Tensor, scale: Tensor, z_loss: float) -> Tensor:
    """The same without a compiler, in few passes and one more tensor: what a CPU runs."""
    valid_C1, index_C1 = (targets_C != IGNORED)[:, None], targets_C.long().clamp(min=0)[:, None]
    log_p_CV = torch.log_softmax(logits_CV, -1, dtype=torch.float32)
    target_C1 = log_p_CV.gather(1, index_C1)
    log_z_C1 = logits_CV.gather(1, index_C1).float() - target_C1
    gradient_CV = log_p_CV.exp_()
    if z_loss:
        gradient_CV.mul_(1 + 2 * z_loss * log_z_C1)
    gradient_CV.scatter_add_(1, index_C1, torch.full_like(target_C1, -1.0))
    logits_CV.copy_(gradient_CV.mul_(scale * valid_C1))
    return ((z_loss * log_z_C1.square() - target_C1) * valid_C1).sum()


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets: Tensor, chunk: int) -> Tensor:
        losses = torch.empty(targets.shape, dtype=torch.float32, device=hidden_ND.device)  # no view: fully_shard hooks it
        losses_N, targets_N = losses.view(-1), targets.flatten()
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N)
        ctx.chunk = chunk
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            logits_CV = (hidden_ND[part] @ weight_VD.t()).float()
            losses_N[part] = torch.nn.functional.cross_entropy(
                logits_CV, targets_N[part].long(), reduction="none", ignore_index=IGNORED
            )
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_ND, weight_VD, targets_N = ctx.saved_tensors
        grad_N1 = grads[0].reshape(-1, 1)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        differentiate = _compiled() if hidden_ND.is_cuda else _differentiate_eagerly
        for start in range(0, len(targets_N), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_CV = hidden_ND[part] @ weight_VD.t()
            differentiate(logits_CV, targets_N[part], grad_N1[part], 0.0)
            torch.mm(logits_CV, weight_VD, out=grad_hidden_ND[part])
            _add_product(grad_weight_VD, logits_CV.t(), hidden_ND[part])
        return grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype), None, None


@cache
def _compiled() -> Callable[..., Tensor]:
    """`_differentiate` as two passes over the logits, which in eager mode are read or written twelve times."""
    compiled: Callable[..., Tensor] = torch.compile(_differentiate, dynamic=False)
    return compiled


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b with an fp32 sum, whatever the dtype of a and b."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(a.float(), b.float())

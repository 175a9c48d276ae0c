"""A Llama-style decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention, document mask. Hugging Face names.

It returns a loss, token losses or the logits of one position, never logits of a batch. Tensors carry their shape:
B sequences, T tokens, D width, H query heads, K key-value heads, E channels of a head, V vocabulary.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from trainer.attention import Cache, Mask, attend, document_mask, prefixes
from trainer.config import Kernel, ModelConfig
from trainer.experts import MixtureOfExperts
from trainer.loss import IGNORED, linear_cross_entropy, token_losses
from trainer.rotary import rotary_table, rotate


class RMSNorm(nn.Module):
    """Scale by the root mean square (arXiv 1910.07467); computed in fp32 inside the kernel."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape and dtype as the input."""
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = cfg.heads, cfg.kv_heads, cfg.head_size
        kv_width = cfg.kv_heads * cfg.head_size
        self.q_proj = nn.Linear(cfg.width, cfg.width, bias=False)
        self.k_proj = nn.Linear(cfg.width, kv_width, bias=False)
        self.v_proj = nn.Linear(cfg.width, kv_width, bias=False)
        self.o_proj = nn.Linear(cfg.width, cfg.width, bias=False)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        heads = (*x_BTD.shape[:2], -1, self.head_size)
        q_BHTE = rotate(self.q_proj(x_BTD).view(heads), cos, sin).transpose(1, 2)
        k_BKTE = rotate(self.k_proj(x_BTD).view(heads), cos, sin).transpose(1, 2)
        v_BKTE = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        if cache is not None:
            k_BKTE, v_BKTE = cache.extend(k_BKTE, v_BKTE)
        out_BTD: Tensor = self.o_proj(attend(q_BHTE, k_BKTE, v_BKTE, mask).transpose(1, 2).reshape(x_BTD.shape))
        return out_BTD


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(cfg.width, cfg.feed_forward, bias=False)
        self.up_proj = nn.Linear(cfg.width, cfg.feed_forward, bias=False)
        self.down_proj = nn.Linear(cfg.feed_forward, cfg.width, bias=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, None]:
        """(B, T, D) -> (B, T, D), and no load to balance."""
        out_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out_BTD, None


class Block(nn.Module):
    """Pre-norm attention and feed-forward with residuals; `recompute` keeps only its input for the backward pass."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.width, cfg.norm_eps)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.width, cfg.norm_eps)
        self.mlp = MixtureOfExperts(cfg) if cfg.experts else FeedForward(cfg)
        self.recompute = False

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) -> (B, T, D), and the load-balancing loss of experts."""
        if self.recompute and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor | None] = checkpoint(self._block, x_BTD, cos, sin, mask, cache, use_reentrant=False)
            return out
        return self._block(x_BTD, cos, sin, mask, cache)

    def _block(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None) -> tuple[Tensor, Tensor | None]:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, mask, cache)
        out_BTD, balance = self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD + out_BTD, balance


class Trunk(nn.Module):
    """Embedding, blocks and the last norm (the `model.` of the Hugging Face names)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.width)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = RMSNorm(cfg.width, cfg.norm_eps)


class Decoder(nn.Module):
    """The whole model. Build it on the meta device, lay it out (trainer.parallel), then `init_weights`."""

    def __init__(self, cfg: ModelConfig, loss_chunk: int = 2048, z_loss: float = 0.0) -> None:
        super().__init__()
        self.cfg, self.loss_chunk, self.z_loss = cfg, loss_chunk, z_loss
        self.kernel: Kernel = "auto"  # of attention within documents
        self.model = Trunk(cfg)
        self.lm_head = nn.Linear(cfg.width, cfg.vocab_size, bias=False)

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None, caches: list[Cache] | None = None) -> Tensor:
        """States after the last norm (B, T, D). `documents_BT`: document ids, non-decreasing along T; None: one document."""
        return self._states(tokens_BT, documents_BT, caches)[0]

    def _states(
        self,
        tokens_BT: Tensor,
        documents_BT: Tensor | None,
        caches: list[Cache] | None = None,
        is_target_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """States after the last norm, and the load-balancing loss, a mean over layers, where there are experts.

        `is_target_BT`: which positions have a target; with `prefix_lm`, what comes before the first one is a prefix.
        """
        cfg, start = self.cfg, caches[0].length if caches else 0
        positions_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
        cos, sin = rotary_table(positions_T, cfg)
        prefix_BT = None
        if cfg.prefix_lm and is_target_BT is not None:
            documents_BT = torch.zeros_like(tokens_BT) if documents_BT is None else documents_BT
            prefix_BT = prefixes(documents_BT, is_target_BT)
        mask = None
        if cfg.document_mask and documents_BT is not None:
            mask = document_mask(documents_BT, self.kernel, prefix_BT)
        x_BTD = self.model.embed_tokens(tokens_BT)
        if cfg.embedding_gradient != 1.0:
            x_BTD = torch.lerp(x_BTD.detach(), x_BTD, cfg.embedding_gradient)  # the same values, less of a gradient
        balances = []
        for index, block in enumerate(self.model.layers):
            x_BTD, balance = block(x_BTD, cos, sin, mask, caches[index] if caches else None)
            balances.append(balance)
        normed_BTD: Tensor = self.model.norm(x_BTD)
        return normed_BTD, torch.stack(balances).mean() if cfg.experts else None

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None, normalizer: float) -> Tensor:
        """Sum of the losses (nats) of the valid targets over `normalizer`; fp32 scalar.

        Load balancing is in its gradient, weighted by this batch's share of the targets, not in its value.
        """
        is_target_BT = targets_BT != IGNORED
        hidden_BTD, balance = self._states(tokens_BT, documents_BT, None, is_target_BT)
        hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
        weight_VD = self.lm_head.weight
        loss = linear_cross_entropy(hidden_ND, weight_VD, targets_N, normalizer, self.loss_chunk, self.z_loss)
        if balance is None or self.cfg.experts is None:
            return loss
        pull = self.cfg.experts.balance * (is_target_BT.sum() / normalizer) * balance
        return loss + (pull - pull.detach())

    def losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """Loss of each token in nats, fp32 (B, T), without gradient."""
        hidden_ND = self._states(tokens_BT, documents_BT, None, targets_BT != IGNORED)[0].flatten(0, 1)
        return token_losses(hidden_ND, self.lm_head.weight, targets_BT.flatten(), self.loss_chunk).view(targets_BT.shape)

    def next_logits(self, tokens_BT: Tensor, caches: list[Cache] | None = None) -> Tensor:
        """Logits of the token after the last one, fp32 (B, V); `caches` (one a layer) hold what came before and grow.

        With `prefix_lm` the tokens that come first, all of them, are the prefix.
        """
        comes_first = caches is None or caches[0].length == 0
        no_target_BT = torch.zeros_like(tokens_BT, dtype=torch.bool) if comes_first else None
        last_BD = self._states(tokens_BT, None, caches, no_target_BT)[0][:, -1]
        logits_BV: Tensor = self.lm_head(last_BD)
        return logits_BV.float()


def init_weights(model: nn.Module, std: float, seed: int) -> None:
    """Matrices from N(0, std), norm gains 1. Each parameter has its own generator, so any layout gets the same weights."""
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.dim() < 2:
                parameter.fill_(1.0)
                continue
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            generator = torch.Generator(local.device).manual_seed(int.from_bytes(digest[:7], "big"))
            full = torch.empty(parameter.shape, device=local.device).normal_(0.0, std, generator=generator)
            if isinstance(parameter, DTensor):
                # Every rank drew the same tensor: it takes its own part, nothing is sent.
                shard = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
                local.copy_(shard.to_local())
            else:
                local.copy_(full)

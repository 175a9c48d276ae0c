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

from trainer.attention import Cache, Mask, attend, document_mask
from trainer.config import ModelConfig
from trainer.loss import linear_cross_entropy, token_losses


class RMSNorm(nn.Module):
    """Scale by the root mean square (arXiv 1910.07467); computed in fp32 inside the kernel."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Same shape and dtype as the input."""
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


def rotary_table(positions_T: Tensor, head_size: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine (T, 1, E/2), fp32, of rotary position embedding (arXiv 2104.09864)."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions_T.device) / head_size
    angles = torch.outer(positions_T.float(), base**-exponents)
    return angles.cos()[:, None], angles.sin()[:, None]


def rotate(x_BTHE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + E/2), the pairing of the Hugging Face weights."""
    a, b = x_BTHE.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x_BTHE.dtype)


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

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        out_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out_BTD


class Block(nn.Module):
    """Pre-norm attention and feed-forward with residuals; `recompute` keeps only its input for the backward pass."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.width, cfg.norm_eps)
        self.self_attn = Attention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.width, cfg.norm_eps)
        self.mlp = FeedForward(cfg)
        self.recompute = False

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.recompute and torch.is_grad_enabled():
            out_BTD: Tensor = checkpoint(self._block, x_BTD, cos, sin, mask, cache, use_reentrant=False)
            return out_BTD
        return self._block(x_BTD, cos, sin, mask, cache)

    def _block(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: Cache | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, mask, cache)
        out_BTD: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out_BTD


class Trunk(nn.Module):
    """Embedding, blocks and the last norm (the `model.` of the Hugging Face names)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.width)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = RMSNorm(cfg.width, cfg.norm_eps)


class Decoder(nn.Module):
    """The whole model. Build it on the meta device, lay it out (trainer.parallel), then `init_weights`."""

    def __init__(self, cfg: ModelConfig, loss_chunk: int = 2048) -> None:
        super().__init__()
        self.cfg, self.loss_chunk = cfg, loss_chunk
        self.model = Trunk(cfg)
        self.lm_head = nn.Linear(cfg.width, cfg.vocab_size, bias=False)

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None, caches: list[Cache] | None = None) -> Tensor:
        """States after the last norm (B, T, D). `documents_BT`: document ids, non-decreasing along T; None: one document."""
        start = caches[0].length if caches else 0
        positions_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
        cos, sin = rotary_table(positions_T, self.cfg.head_size, self.cfg.rope_base)
        mask = document_mask(documents_BT) if self.cfg.document_mask and documents_BT is not None else None
        x_BTD = self.model.embed_tokens(tokens_BT)
        for index, block in enumerate(self.model.layers):
            x_BTD = block(x_BTD, cos, sin, mask, caches[index] if caches else None)
        normed_BTD: Tensor = self.model.norm(x_BTD)
        return normed_BTD

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None, normalizer: float) -> Tensor:
        """Sum of the losses (nats) of the valid targets over `normalizer`; fp32 scalar."""
        hidden_ND = self.hidden(tokens_BT, documents_BT).flatten(0, 1)
        return linear_cross_entropy(hidden_ND, self.lm_head.weight, targets_BT.flatten(), normalizer, self.loss_chunk)

    def losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """Loss of each token in nats, fp32 (B, T), without gradient."""
        hidden_ND = self.hidden(tokens_BT, documents_BT).flatten(0, 1)
        return token_losses(hidden_ND, self.lm_head.weight, targets_BT.flatten(), self.loss_chunk).view(targets_BT.shape)

    def next_logits(self, tokens_BT: Tensor, caches: list[Cache] | None = None) -> Tensor:
        """Logits of the token after the last one, fp32 (B, V); `caches` (one a layer) hold what came before and grow."""
        last_BD = self.hidden(tokens_BT, None, caches)[:, -1]
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

"""A Llama-style decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention, document mask. Hugging Face names.

It returns a loss, token losses or the logits of one position, never logits of a batch. Tensors carry their shape:
B sequences, T tokens, D width, H query heads, K key-value heads, E channels of a head, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from trainer.attention import Cache, Mask, Place, attend, document_mask, prefixes, starts
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

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, place: Place | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        heads = (*x_BTD.shape[:2], -1, self.head_size)
        q_BHTE = rotate(self.q_proj(x_BTD).view(heads), cos, sin).transpose(1, 2)
        k_BKTE = rotate(self.k_proj(x_BTD).view(heads), cos, sin).transpose(1, 2)
        v_BKTE = self.v_proj(x_BTD).view(heads).transpose(1, 2)
        if place is not None:
            k_BKTE, v_BKTE = place.extend(k_BKTE, v_BKTE)
        out_BTD: Tensor = self.o_proj(self.attend(q_BHTE, k_BKTE, v_BKTE, mask).transpose(1, 2).reshape(x_BTD.shape))
        return out_BTD

    def attend(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Mask) -> Tensor:
        """(B, H, T, E) of queries, and keys and values of S positions."""
        return attend(q_BHTE, k_BKSE, v_BKSE, mask)


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

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, place: Place | None) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) -> (B, T, D), and the load-balancing loss of experts."""
        if self.recompute and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor | None] = checkpoint(self._block, x_BTD, cos, sin, mask, place, use_reentrant=False)
            return out
        return self._block(x_BTD, cos, sin, mask, place)

    def _block(self, x_BTD: Tensor, cos: Tensor, sin: Tensor, mask: Mask, place: Place | None) -> tuple[Tensor, Tensor | None]:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos, sin, mask, place)
        out_BTD, balance = self.mlp(self.post_attention_layernorm(x_BTD))
        return x_BTD + out_BTD, balance


class Trunk(nn.Module):
    """Embedding, blocks and the last norm (the `model.` of the Hugging Face names)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.width)
        self.layers = nn.ModuleList(Block(cfg) for _ in range(cfg.layers))
        self.norm = RMSNorm(cfg.width, cfg.norm_eps)


class Head(nn.Linear):
    """The linear layer over the vocabulary, and the losses that never hold what it gives for a batch.

    Methods of its own, so that its weight is sharded by itself and its gradient summed before those of the blocks come.
    """

    def loss(self, hidden_ND: Tensor, targets_N: Tensor, normalizer: float, chunk: int, z_loss: float) -> Tensor:
        """Sum of the losses (nats) of the valid targets over `normalizer`; fp32 scalar."""
        return linear_cross_entropy(hidden_ND, self.weight, targets_N, normalizer, chunk, z_loss)

    def losses(self, hidden_ND: Tensor, targets_BT: Tensor, chunk: int) -> Tensor:
        """Loss of each of the N = B T tokens in nats, fp32 (B, T); 0 where there is no target."""
        return token_losses(hidden_ND, self.weight, targets_BT, chunk)

    def outputs(self, hidden_ND: Tensor) -> Tensor:
        """What the layer gives, computed in fp32 (N, V): for few outputs that are not a vocabulary."""
        return hidden_ND.float() @ self.weight.float().t()


class Decoder(nn.Module):
    """The whole model. Build it on the meta device, lay it out (trainer.parallel), then `init_weights`."""

    def __init__(self, cfg: ModelConfig, loss_chunk: int = 2048, z_loss: float = 0.0) -> None:
        super().__init__()
        self.cfg, self.loss_chunk, self.z_loss = cfg, loss_chunk, z_loss
        self.kernel: Kernel = "auto"  # of attention within documents
        self.positions_in_document = False  # counted in each document: only differences matter, unless something lies before it
        self.model = Trunk(cfg)
        self.lm_head = Head(cfg.width, cfg.vocab_size, bias=False)

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """States after the last norm (B, T, D). `documents_BT`: document ids, non-decreasing along T; None: one document."""
        return self._states(tokens_BT, documents_BT)[0]

    def _states(
        self, tokens_BT: Tensor, documents_BT: Tensor | None, is_target_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """States after the last norm, and the load-balancing loss, a mean over layers, where there are experts.

        `is_target_BT`: which positions have a target; with `prefix_lm`, what comes before the first one is a prefix.
        """
        cfg, prefix_BT, mask = self.cfg, None, None
        if cfg.prefix_lm and is_target_BT is not None:
            documents_BT = torch.zeros_like(tokens_BT) if documents_BT is None else documents_BT
            prefix_BT = prefixes(documents_BT, is_target_BT)
        if cfg.document_mask and documents_BT is not None:
            mask = document_mask(documents_BT, self.kernel, prefix_BT, cfg.head_size)
        positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        if self.positions_in_document and documents_BT is not None:
            positions = positions - starts(documents_BT)
        return self._through(tokens_BT, positions, mask)

    def _through(
        self, tokens_BT: Tensor, positions: Tensor, mask: Mask, places: Sequence[Place] = ()
    ) -> tuple[Tensor, Tensor | None]:
        cfg = self.cfg
        cos, sin = rotary_table(positions, cfg)
        x_BTD = self.model.embed_tokens(tokens_BT)
        if cfg.embedding_gradient != 1.0:
            x_BTD = torch.lerp(x_BTD.detach(), x_BTD, cfg.embedding_gradient)  # the same values, less of a gradient
        balances = []
        for index, block in enumerate(self.model.layers):
            x_BTD, balance = block(x_BTD, cos, sin, mask, places[index] if places else None)
            balances.append(balance)
        normed_BTD: Tensor = self.model.norm(x_BTD)
        return normed_BTD, torch.stack(balances).mean() if cfg.experts else None

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None, normalizer: float) -> Tensor:
        """Sum of the losses (nats) of the valid targets over `normalizer`; fp32 scalar.

        Load balancing is in its gradient, weighted by this batch's share of the targets, not in its value.
        """
        is_target_BT = targets_BT != IGNORED
        hidden_BTD, balance = self._states(tokens_BT, documents_BT, is_target_BT)
        hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
        loss = self.lm_head.loss(hidden_ND, targets_N, normalizer, self.loss_chunk, self.z_loss)
        if balance is None or self.cfg.experts is None:
            return loss
        pull = self.cfg.experts.balance * (is_target_BT.sum() / normalizer) * balance
        return loss + (pull - pull.detach())

    def losses(self, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
        """Loss of each token in nats, fp32 (B, T); 0 where there is no target."""
        hidden_ND = self._states(tokens_BT, documents_BT, targets_BT != IGNORED)[0].flatten(0, 1)
        return self.lm_head.losses(hidden_ND, targets_BT, self.loss_chunk)

    def losses_with(
        self, head: str, tokens_BT: Tensor, targets_BT: Tensor, documents_BT: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`losses`, and what another head of the model, a linear layer of this name, gives at each token (B, T, outputs)."""
        hidden_BTD = self._states(tokens_BT, documents_BT, targets_BT != IGNORED)[0]
        losses_BT = self.lm_head.losses(hidden_BTD.flatten(0, 1), targets_BT, self.loss_chunk)
        return losses_BT, self.get_submodule(head)(hidden_BTD)

    def outputs_at(self, tokens_BT: Tensor, documents_BT: Tensor | None, places_N: Tensor) -> Tensor:
        """What the head gives at some places of the flattened rows, in fp32 (N, V): for heads that are not a vocabulary."""
        return self.lm_head.outputs(self.hidden(tokens_BT, documents_BT).flatten(0, 1)[places_N])

    def next_logits(
        self,
        tokens_BT: Tensor,
        counts_B: Tensor | None = None,
        caches: Sequence[Cache] = (),
        held_B: Tensor | None = None,
        extent: int = 0,
    ) -> Tensor:
        """Logits of the token after the last one of each row, fp32 (B, V).

        `counts_B`: how many of the T tokens a row has, the rest filling it up (None: all). `caches`, one a layer, take their
        keys and hold those of the `held_B` tokens before them (None: nothing comes before), the longest row ending within
        `extent` positions. With `prefix_lm` the tokens that come first, all of them, are the prefix.
        """
        rows, length = tokens_BT.shape
        counts_B = torch.full_like(tokens_BT[:, 0], length) if counts_B is None else counts_B
        positions_BT = torch.arange(length, device=tokens_BT.device).expand(rows, length)
        sees_BT1 = positions_BT[..., None]
        if held_B is not None:
            positions_BT = positions_BT + held_B[:, None]
            sees_BT1 = positions_BT[..., None]
        elif self.cfg.prefix_lm:
            sees_BT1 = sees_BT1.maximum(counts_B[:, None, None] - 1)
        mask: Mask = None  # a first token sees what comes before it among these alone
        if held_B is not None or self.cfg.prefix_lm:
            keys_S = torch.arange(extent or length, device=tokens_BT.device)
            mask = (keys_S <= sees_BT1)[:, None]
        places = [Place(cache, positions_BT, extent or length) for cache in caches]
        hidden_BTD = self._through(tokens_BT, positions_BT, mask, places)[0]
        last_BD = hidden_BTD[torch.arange(rows, device=tokens_BT.device), counts_B - 1]
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

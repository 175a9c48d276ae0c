"""Attention within documents: which mask, and which kernel runs it.

Without a mask: causal SDPA. With documents: SDPA with a boolean block-diagonal causal mask on CPU; on CUDA FlexAttention with
a block mask computed from the document starts by arithmetic (building it by evaluating the T x T mask costs 0.15 s and more).

Shapes: B sequences, T queries, S keys, H query heads, K key-value heads, E channels, Q and J blocks of queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

Mask = Tensor | BlockMask | None
BLOCK = 128  # tokens of a FlexAttention block

_compiled_flex: Callable[..., Tensor] | None = None


class Cache:
    """Keys and values of one layer during generation; appended to, never recomputed."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Append T positions; returns all of them so far. Raises ValueError beyond the capacity."""
        end = self.length + k_BKTE.shape[2]
        if end > self.capacity:
            raise ValueError(f"cache of {self.capacity} positions cannot hold {end}")
        if self._k is None or self._v is None:
            shape = (*k_BKTE.shape[:2], self.capacity, k_BKTE.shape[3])
            self._k, self._v = k_BKTE.new_empty(shape), v_BKTE.new_empty(shape)
        self._k[:, :, self.length : end] = k_BKTE
        self._v[:, :, self.length : end] = v_BKTE
        self.length = end
        return self._k[:, :, :end], self._v[:, :, :end]


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Mask) -> Tensor:
    """Softmax attention (B, H, T, E). `mask` None: causal, the T queries being the last of the S positions."""
    if isinstance(mask, BlockMask):
        flex: Any = flex_attention if torch.compiler.is_compiling() else _flex()
        weighted_BHTE: Tensor = flex(q_BHTE, k_BKSE, v_BKSE, block_mask=mask, enable_gqa=True)
        return weighted_BHTE
    queries, keys = q_BHTE.shape[2], k_BKSE.shape[2]
    if mask is None and queries != keys:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q_BHTE.device).tril(keys - queries)
    return F.scaled_dot_product_attention(q_BHTE, k_BKSE, v_BKSE, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


def document_mask(documents_BT: Tensor) -> Mask:
    """Who may attend to whom, from non-decreasing document ids (B, T)."""
    return block_mask(documents_BT) if documents_BT.is_cuda else dense_mask(documents_BT)


def dense_mask(documents_BT: Tensor) -> Tensor:
    """(B, 1, T, T), true where query t may see key s: s <= t and the same document."""
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same_BTT.tril()[:, None]


def block_mask(documents_BT: Tensor) -> BlockMask:
    """The same mask for FlexAttention. Along a row the keys of a query block are one range of blocks.

    From the block of the first query's document start up to the query block itself; full are those that lie behind the last
    query's document start and before the diagonal, so that every query of the block sees every key.
    """
    length = documents_BT.shape[1]
    positions_T = torch.arange(length, device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts_BT = torch.where(begins_BT, positions_T, 0).cummax(1).values
    first_Q = positions_T[::BLOCK]
    last_Q = (first_Q + BLOCK - 1).clamp(max=length - 1)
    key_J = torch.arange(len(first_Q), device=documents_BT.device)
    low_BQ1 = (starts_BT[:, first_Q] // BLOCK)[..., None]
    full_BQ1 = ((starts_BT[:, last_Q] + BLOCK - 1) // BLOCK)[..., None]
    diagonal_Q1 = key_J[:, None]
    is_full_BQJ = (key_J >= full_BQ1) & (key_J < diagonal_Q1)
    is_partial_BQJ = (key_J >= low_BQ1) & (key_J <= diagonal_Q1) & ~is_full_BQJ

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents_BT[b, q] == documents_BT[b, k])

    return BlockMask.from_kv_blocks(
        *_listed(is_partial_BQJ), *_listed(is_full_BQJ), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(length, length)
    )


def _listed(chosen_BQJ: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each query block uses (B, 1, Q), and their indices first in each row (B, 1, Q, J); int32."""
    count_BQ = chosen_BQJ.sum(-1, dtype=torch.int32)
    order_BQJ = chosen_BQJ.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)
    return count_BQ[:, None], order_BQJ[:, None]


def _flex() -> Callable[..., Tensor]:
    global _compiled_flex
    if _compiled_flex is None:
        _compiled_flex = torch.compile(flex_attention)
    return _compiled_flex

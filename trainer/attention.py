"""Attention within documents: which mask, and which kernel runs it.

Without documents: causal SDPA. With documents the kernel is a switch (`Parallel.attention`):
- "flex", the default on CUDA: FlexAttention with a block mask computed from the document starts by arithmetic (building it by
  evaluating the T x T mask costs 0.15 s and more);
- "dense", the default on CPU and for heads of fewer than 16 channels, which FlexAttention refuses: SDPA with a boolean
  T x T mask;
- "varlen": one causal attention a document, on CUDA by `torch.nn.attention.varlen`. It waits for the device once a batch, to
  learn how many documents there are.

Shapes: B sequences, T queries, S keys, H query heads, K key-value heads, E channels, Q and J blocks of queries and keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from trainer.config import Kernel


class Bounds(NamedTuple):
    """Where documents begin in the flattened rows, and B T (int32); each attends within itself."""

    bounds: Tensor


Mask = Tensor | BlockMask | Bounds | None
BLOCK = 128  # tokens of a FlexAttention block
FLEX_CHANNELS = 16  # of a head, that FlexAttention needs at least on a GPU

_compiled_flex: Callable[..., Tensor] | None = None


class Cache:
    """Keys and values of one layer during generation: (B, K, S, E) each. The tensors stay, so captured graphs may use them."""

    def __init__(self, rows: int, capacity: int) -> None:
        self.rows, self.capacity = rows, capacity
        self.keys: Tensor | None = None  # made by the first to come, which know dtype and device
        self.values: Tensor | None = None

    def like(self, k_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """The two tensors, made if they are not there yet; of zeros: a masked key still is multiplied, and may not be NaN."""
        if self.keys is None or self.values is None:
            shape = (self.rows, k_BKTE.shape[1], self.capacity, k_BKTE.shape[3])
            self.keys, self.values = k_BKTE.new_zeros(shape), k_BKTE.new_zeros(shape)
        return self.keys, self.values


class Place(NamedTuple):
    """Where the next T tokens of each row go in a cache, and how far all queries look: positions below the capacity."""

    cache: Cache
    positions_BT: Tensor
    extent: int

    def extend(self, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values; returns those of the first `extent` positions."""
        keys, values = self.cache.like(k_BKTE)
        places_BKTE = self.positions_BT[:, None, :, None].expand(k_BKTE.shape)
        keys.scatter_(2, places_BKTE, k_BKTE)
        values.scatter_(2, places_BKTE, v_BKTE)
        return keys[:, :, : self.extent], values[:, :, : self.extent]


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Mask) -> Tensor:
    """Softmax attention (B, H, T, E). `mask` None: causal, as many queries as keys."""
    if isinstance(mask, BlockMask):
        flex: Any = flex_attention if torch.compiler.is_compiling() else _flex()
        weighted_BHTE: Tensor = flex(q_BHTE, k_BKSE, v_BKSE, block_mask=mask, enable_gqa=True)
        return weighted_BHTE
    if isinstance(mask, Bounds):
        return _attend_each(q_BHTE, k_BKSE, v_BKSE, mask)
    if q_BHTE.shape[2] == 1 and mask is not None:
        # The heads that share keys as queries of one head: no key is read twice.
        q_BKGE = q_BHTE.reshape(*k_BKSE.shape[:2], -1, q_BHTE.shape[3])
        return F.scaled_dot_product_attention(q_BKGE, k_BKSE, v_BKSE, attn_mask=mask).flatten(1, 2)[:, :, None]
    return F.scaled_dot_product_attention(q_BHTE, k_BKSE, v_BKSE, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


def _attend_each(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, mask: Bounds) -> Tensor:
    batch, heads, length = q_BHTE.shape[:3]
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE))  # (B T, heads, E)
    if not q.is_cuda:
        return torch.unflatten(_one_by_one(q, k, v, mask.bounds), 0, (batch, length)).transpose(1, 2)
    varlen, groups = _varlen()
    if not groups:
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) for x in (k, v))
    # `length` instead of the longest document: another number would be another compilation
    out = varlen(q, k, v, mask.bounds, mask.bounds, length, length, window_size=(-1, 0), **groups)
    return torch.unflatten(out, 0, (batch, length)).transpose(1, 2)


def _one_by_one(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    parts = [slice(*pair) for pair in pairwise(bounds.tolist())]
    return torch.cat([attend(q[:, :, part], k[:, :, part], v[:, :, part], None) for part in parts], 2)[0].transpose(0, 1)


@cache
def _varlen() -> tuple[Callable[..., Tensor], dict[str, bool]]:
    """The kernel, loaded with the compiler it brings; PyTorch 2.11's takes as many heads of keys as of queries."""
    from torch.nn.attention.varlen import varlen_attn

    kernel: Any = varlen_attn
    return kernel, {"enable_gqa": True} if "enable_gqa" in inspect.signature(kernel).parameters else {}


def document_mask(
    documents_BT: Tensor, kernel: Kernel = "auto", prefix_BT: Tensor | None = None, channels: int = FLEX_CHANNELS
) -> Mask:
    """Who may attend to whom, from non-decreasing document ids (B, T), for the kernel that shall run it.

    `prefix_BT`: true for the first tokens of documents that see each other both ways (`prefixes`). `channels`: of a head.
    """
    if kernel == "auto":
        kernel = "flex" if documents_BT.is_cuda and channels >= FLEX_CHANNELS else "dense"
    if kernel == "dense":
        return dense_mask(documents_BT, prefix_BT)
    if kernel == "flex":
        return block_mask(documents_BT, prefix_BT)
    if prefix_BT is not None:
        raise ValueError("varlen attention is causal and knows no prefix")
    begins_N = _begins(documents_BT).flatten().nonzero()[:, 0]
    return Bounds(F.pad(begins_N, (0, 1), value=documents_BT.numel()).int())


def prefixes(documents_BT: Tensor, is_target_BT: Tensor) -> Tensor:
    """The tokens of each document up to the one that predicts its first target (B, T): no target lies among them."""
    targets_before_BT = is_target_BT.cumsum(1) - is_target_BT.int()
    return targets_before_BT == targets_before_BT.gather(1, starts(documents_BT))


def dense_mask(documents_BT: Tensor, prefix_BT: Tensor | None = None) -> Tensor:
    """(B, 1, T, T), true where query t may see key s: the same document, and s <= t or s in the prefix."""
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    if prefix_BT is None:
        return same_BTT.tril()[:, None]
    causal_TT = torch.ones_like(same_BTT[0]).tril()
    return (same_BTT & (causal_TT | prefix_BT[:, None, :]))[:, None]


def block_mask(documents_BT: Tensor, prefix_BT: Tensor | None = None) -> BlockMask:
    """The same mask for FlexAttention. Query t sees an interval: its document's start to itself, or to the end of its prefix.

    Neither bound falls along t. So the key blocks of a query block are one range, from the start of its first query to the end
    of its last; full are those between the start of the last query and the end of the first, which every query sees whole.
    """
    length = documents_BT.shape[1]
    positions_T = torch.arange(length, device=documents_BT.device)
    starts_BT = starts(documents_BT)
    ends_BT = positions_T.expand_as(starts_BT) if prefix_BT is None else _prefix_ends(documents_BT, prefix_BT)
    first_Q = positions_T[::BLOCK]
    last_Q = (first_Q + BLOCK - 1).clamp(max=length - 1)
    key_J = torch.arange(len(first_Q), device=documents_BT.device)
    low_BQ1 = (starts_BT[:, first_Q] // BLOCK)[..., None]
    high_BQ1 = (ends_BT[:, last_Q] // BLOCK)[..., None]
    full_low_BQ1 = ((starts_BT[:, last_Q] + BLOCK - 1) // BLOCK)[..., None]
    is_full_BQJ = (key_J >= full_low_BQ1) & (last_Q <= ends_BT[:, first_Q][..., None])
    is_partial_BQJ = (key_J >= low_BQ1) & (key_J <= high_BQ1) & ~is_full_BQJ

    from_BT, to_BT = starts_BT.int(), ends_BT.int()

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k >= from_BT[b, q]) & (k <= (q if prefix_BT is None else to_BT[b, q]))

    return BlockMask.from_kv_blocks(
        *_listed(is_partial_BQJ), *_listed(is_full_BQJ), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(length, length)
    )


def _begins(documents_BT: Tensor) -> Tensor:
    """True where a document begins in its row (B, T)."""
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return begins_BT


def starts(documents_BT: Tensor) -> Tensor:
    """Position at which each token's document begins (B, T)."""
    positions_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    return torch.where(_begins(documents_BT), positions_T, 0).cummax(1).values


def _prefix_ends(documents_BT: Tensor, prefix_BT: Tensor) -> Tensor:
    """The last position that each token sees (B, T): for one of a prefix the prefix's end, else its own."""
    positions_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    goes_on_BT = torch.zeros_like(prefix_BT)
    goes_on_BT[:, :-1] = prefix_BT[:, 1:] & ~_begins(documents_BT)[:, 1:]
    ends_BT = torch.where(prefix_BT & goes_on_BT, len(positions_T), positions_T)
    return ends_BT.flip(1).cummin(1).values.flip(1)


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

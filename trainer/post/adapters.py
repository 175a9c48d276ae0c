"""Few weights trained beside a frozen base: LoRA (with an 8-bit base if wanted), prefix tuning, virtual tokens (p-tuning).

An adapter is put into the model before it is laid out (`inject`), its base weights keep their names, and a checkpoint holds the
adapter alone. Shapes: P virtual tokens, D width, K key-value heads, E channels, L layers, R rank, O outputs, I inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention.flex_attention import BlockMask

from trainer.attention import BLOCK, Bounds, Mask, attend
from trainer.config import ModelConfig
from trainer.data import MicroBatch
from trainer.loss import IGNORED
from trainer.model import Attention, Decoder, init_weights
from trainer.rotary import rotary_table, rotate

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Lora:
    """Low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685). `eight_bit`: the base in int8, a scale a row."""

    rank: int = 16
    alpha: float = 32.0  # the update is scaled by alpha / rank
    targets: tuple[str, ...] = PROJECTIONS
    eight_bit: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets or set(self.targets) - set(PROJECTIONS):
            raise ValueError(f"rank {self.rank} must be 1 or more, targets {self.targets} some of {', '.join(PROJECTIONS)}")


@dataclass(frozen=True)
class Prefix:
    """Trained keys and values before every document, in each layer (Li and Liang 2021, arXiv 2101.00190), without a network."""

    tokens: int = 20


@dataclass(frozen=True)
class VirtualTokens:
    """Trained embeddings before every document; `hidden` above 0: given by a network, p-tuning (Liu 2021, 2103.10385)."""

    tokens: int = 20
    hidden: int = 0


Adapter = Lora | Prefix | VirtualTokens


class Int8Linear(nn.Linear):
    """A frozen linear layer in int8 with an fp32 scale a row; what it is multiplied with is made again in the backward pass."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(torch.empty_like(self.weight, dtype=torch.int8), requires_grad=False)
        self.row_scale = nn.Parameter(torch.empty(linear.out_features, 1, device="meta"), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        out: Tensor = _Int8Product.apply(x, self.weight, self.row_scale)  # type: ignore[no-untyped-call]
        return out

    def wide(self) -> Tensor:
        """The weight that it stands for, whole on this rank, fp32 (O, I)."""
        return whole(self.weight).float() * whole(self.row_scale)

    @torch.no_grad()
    def fill(self, weight_OI: Tensor) -> None:
        """Round to the nearest step of each row's largest value over 127, a step that bf16 holds too."""
        scale_O1 = (weight_OI.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127).bfloat16().float()
        self.row_scale.copy_(scale_O1)
        self.weight.copy_((weight_OI / scale_O1).round().clamp(-127, 127).to(torch.int8))


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, scale_O1: Tensor) -> Tensor:
        ctx.save_for_backward(weight_OI, scale_O1)
        return F.linear(x, weight_OI.to(x.dtype) * scale_O1.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight_OI, scale_O1 = ctx.saved_tensors
        return grads[0] @ (weight_OI.to(grads[0].dtype) * scale_O1.to(grads[0].dtype)), None, None


class LoraLinear(nn.Module):
    """A frozen linear layer and its low-rank update, which starts at zero."""

    def __init__(self, linear: nn.Linear, cfg: Lora) -> None:
        super().__init__()
        self.base_layer = Int8Linear(linear) if cfg.eight_bit else linear
        self.lora_A = nn.Linear(linear.in_features, cfg.rank, bias=False, device="meta")
        self.lora_B = nn.Linear(cfg.rank, linear.out_features, bias=False, device="meta")
        self.scale = cfg.alpha / cfg.rank

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        out: Tensor = self.base_layer(x) + self.lora_B(self.lora_A(x)) * self.scale
        return out

    def plain(self, updated: bool) -> Tensor:
        """The weight of one layer that computes the same, or what the frozen one does; whole on this rank, (O, I)."""
        frozen_OI = self.base_layer.wide() if isinstance(self.base_layer, Int8Linear) else whole(self.base_layer.weight)
        return frozen_OI + whole(self.lora_B.weight) @ whole(self.lora_A.weight) * self.scale if updated else frozen_OI


class PrefixAttention(Attention):
    """Attention with P more keys and values that every query sees.

    They lie P positions before the first token: a document's positions start at 0 here, where PEFT's start at P.
    """

    def __init__(self, cfg: ModelConfig, tokens: int) -> None:
        super().__init__(cfg)
        self.cfg, self.absent = cfg, False
        self.prefix_k = nn.Parameter(torch.empty(tokens, cfg.kv_heads, cfg.head_size))
        self.prefix_v = nn.Parameter(torch.empty(tokens, cfg.kv_heads, cfg.head_size))

    def attend(self, q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, mask: Mask) -> Tensor:
        """Over the prefix, unless it is `absent`, and what the mask lets see."""
        if self.absent:
            return super().attend(q_BHTE, k_BKSE, v_BKSE, mask)
        if isinstance(mask, (BlockMask, Bounds)):
            raise ValueError('a prefix is seen through a dense mask; set parallel.attention "dense"')
        tokens, queries, keys = len(self.prefix_k), q_BHTE.shape[2], k_BKSE.shape[2]
        cos, sin = rotary_table(torch.tensor([-float(tokens)], device=q_BHTE.device), self.cfg)
        k_BKPE, v_BKPE = (
            x_PKE.to(q_BHTE.dtype).transpose(0, 1).expand(len(q_BHTE), -1, -1, -1)
            for x_PKE in (rotate(self.prefix_k, cos, sin), self.prefix_v)
        )
        if mask is None:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=q_BHTE.device).tril(keys - queries)
        mask = F.pad(mask, (tokens, 0), value=True)
        return attend(q_BHTE, torch.cat((k_BKPE, k_BKSE), 2), torch.cat((v_BKPE, v_BKSE), 2), mask)


class VirtualEmbedding(nn.Embedding):
    """The input embedding; token -1 is the first virtual token, -2 the second and so on."""

    def __init__(self, cfg: ModelConfig, adapter: VirtualTokens) -> None:
        super().__init__(cfg.vocab_size, cfg.width)
        self.virtual = nn.Parameter(torch.empty(adapter.tokens, cfg.width))
        sizes = (cfg.width, adapter.hidden, adapter.hidden, cfg.width) if adapter.hidden else ()
        self.network = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def table(self) -> Tensor:
        """The virtual tokens' embeddings (P, D)."""
        table_PD: Tensor = self.virtual
        for number, layer in enumerate(self.network):
            table_PD = layer(F.relu(table_PD) if number else table_PD)
        return table_PD

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        of_text_BTD = super().forward(tokens_BT.clamp(min=0))
        of_virtual_BTD = F.embedding((-1 - tokens_BT).clamp(min=0), self.table().to(of_text_BTD.dtype))
        return torch.where((tokens_BT < 0)[..., None], of_virtual_BTD, of_text_BTD)


def inject(model: Decoder, adapter: Adapter) -> None:
    """Freeze a model on the meta device and put the adapter into it."""
    model.requires_grad_(False)
    with torch.device("meta"):
        match adapter:
            case Lora():
                for parent in list(model.model.layers.modules()):
                    for name, child in list(parent.named_children()):
                        if name in adapter.targets and isinstance(child, nn.Linear):
                            setattr(parent, name, LoraLinear(child, adapter))
            case Prefix():
                model.positions_in_document = True
                for block in model.model.layers:
                    block.self_attn = PrefixAttention(model.cfg, adapter.tokens)
            case VirtualTokens():
                model.model.embed_tokens = VirtualEmbedding(model.cfg, adapter)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))


def whole(tensor: Tensor) -> Tensor:
    """A tensor of all ranks, on each. Called by every rank."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def plain_weights(model: Decoder, updated: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Whole weights by the names of a model without an adapter: with LoRA's update in them, or the base's.

    Called by every rank. There are none for a prefix and for virtual tokens, which are left out.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield f"{name}.weight", module.plain(updated)
        elif not (is_adapter(name) or name.endswith(".base_layer")):
            yield from ((f"{name}.{key}", whole(p)) for key, p in module.named_parameters(recurse=False))


def virtual_tokens(model: Decoder) -> tuple[int, ...]:
    """The ids before every document: those of trained embeddings, where a model has some."""
    embedding = model.model.embed_tokens
    return tuple(range(-1, -1 - len(embedding.virtual), -1)) if isinstance(embedding, VirtualEmbedding) else ()


@contextmanager
def base_alone(model: Decoder) -> Iterator[None]:
    """Inside, a model that has learnt nothing yet is its base: LoRA adds nothing, virtual tokens are not asked for, and
    a prefix is left out. (A base in 8 bits stays one.)"""
    prefixed = [module for module in model.modules() if isinstance(module, PrefixAttention)]
    for module in prefixed:
        module.absent = True
    try:
        yield
    finally:
        for module in prefixed:
            module.absent = False


def is_adapter(name: str) -> bool:
    """Whether a parameter is one of an adapter."""
    return re.search(r"\.(lora_[AB]|prefix_[kv]|virtual|network)(\.|$)", name) is not None


def base_name(name: str) -> str:
    """The name that a parameter of the base has without an adapter."""
    return name.replace(".base_layer.", ".")


def begin(model: Decoder, seed: int) -> None:
    """First values: LoRA's A and what is put before a document from a normal distribution, its B zero. As `init_weights`."""
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if is_adapter(name):
            holder = nn.Module()
            holder.register_parameter("weight", parameter)
            init_weights(holder, parameter.shape[-1] ** -0.5 if "lora_A" in name or "network" in name else 0.02, seed + number)
            if "lora_B" in name or name.endswith("bias"):
                with torch.no_grad():
                    parameter.zero_()


def merged(weights: dict[str, Tensor], tensors: dict[str, Tensor], adapter: Lora) -> dict[str, Tensor]:
    """The base's weights with the update added, by the base's names; `tensors`: what was trained, by its own names."""
    found = weights | {name: tensor for name, tensor in tensors.items() if not is_adapter(name)}
    for name, b_OR in tensors.items():
        if name.endswith(".lora_B.weight"):
            target = name.replace(".lora_B.weight", ".weight")
            a_RI = tensors[name.replace("lora_B", "lora_A")]
            found[target] = weights[target] + adapter.alpha / adapter.rank * (b_OR @ a_RI)
    return found


def before_documents(tokens: int) -> Callable[[MicroBatch], MicroBatch]:
    """Put so many virtual tokens before each sequence of a micro-batch, which gets wider: to whole blocks."""

    def put(micro: MicroBatch) -> MicroBatch:
        height, length = micro.inputs.shape
        place_BT = torch.arange(length) + tokens * micro.documents.long()
        width = -(-int(place_BT[:, -1].max() + 1) // BLOCK) * BLOCK

        def spread(values_BT: Tensor, fill: int) -> Tensor:
            return torch.full((height, width), fill, dtype=values_BT.dtype).scatter_(1, place_BT, values_BT)

        starts_S = micro.cu_seqlens[:-1].long()
        rows_S = starts_S // length
        first_S = place_BT.flatten()[starts_S] - tokens
        inputs = spread(micro.inputs, 0)
        inputs[rows_S[:, None], first_S[:, None] + torch.arange(tokens)] = -1 - torch.arange(tokens, dtype=torch.int32)
        filled_B = place_BT[:, -1] + 1
        rest_B = (torch.arange(height) * width + filled_B)[filled_B < width]
        begins = torch.cat((rows_S * width + first_S, rest_B)).sort().values
        bounds = F.pad(begins, (0, 1), value=height * width).int()
        lengths = bounds.diff()
        positions = (torch.arange(height * width) - bounds[:-1].long().repeat_interleave(lengths)).view(height, width).int()
        more = {"roles": None if micro.roles is None else spread(micro.roles, 0)}
        more |= {name: spread(getattr(micro, name), 0) for name in ("reference",) if getattr(micro, name, None) is not None}
        return replace(
            micro,
            inputs=inputs,
            targets=spread(micro.targets, IGNORED),
            positions=positions,
            cu_seqlens=bounds,
            max_seqlen=int(lengths.max()),
            **more,
        )

    return put

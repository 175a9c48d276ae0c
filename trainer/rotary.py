"""Rotary position embedding (arXiv 2104.09864) and its scalings for longer contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.config import LinearScaling, Llama3Scaling, ModelConfig


def rotary_table(positions: Tensor, cfg: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine, fp32: (T, 1, E/2) of positions (T,), (B, T, 1, E/2) of positions (B, T)."""
    angles = positions.float()[..., None, None] * frequencies(cfg, positions.device)
    return angles.cos(), angles.sin()


def frequencies(cfg: ModelConfig, device: torch.device) -> Tensor:
    """Radians a token of each channel pair, fp32 (E/2,), from fast to slow."""
    exponents = torch.arange(0, cfg.head_size, 2, dtype=torch.float32, device=device) / cfg.head_size
    plain = cfg.rope_base**-exponents
    match cfg.rope_scaling:
        case None:
            return plain
        case LinearScaling(factor):
            return plain / factor
        case Llama3Scaling(factor, low, high, original_length):
            turns = original_length * plain / (2 * math.pi)
            kept = ((turns - low) / (high - low)).clamp(0, 1)
            return kept * plain + (1 - kept) * plain / factor


def rotate(x_BTHE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + E/2), the pairing of the Hugging Face weights."""
    a, b = x_BTHE.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x_BTHE.dtype)
